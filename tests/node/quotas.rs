//! What one client may ask for, and what all may: refusals say which limit it was.

use std::time::Duration;

use sam4mllm::node::Quota;
use sam4mllm::server::wire::{self, DropReason, ErrorCode, Verdict};
use tonic::Code;

use crate::harness::{BLUE, RED, Running, Scene, Stream, dropped, error_of, of, soon, target};

async fn with_quota(frames_per_s: f32, groundings_per_min: f32) -> Running {
    Running::start_with(|config| {
        config.node.reground_after = Duration::from_secs(3600);
        config.limits.quota = Quota { frames_per_s, groundings_per_min };
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_one_client_are_limited() {
    let node = Running::start_with(|config| config.limits.client_streams = 1).await;
    let first = node.stream().await;
    let refused = Stream::open(&node).await.err().expect("a second is one too many");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("its limit is 1"), "{refused}");
    drop(first);
    node.lets_in().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_beyond_the_quota_are_refused_one_by_one() {
    // One at once, and the next in a hundred seconds.
    let node = with_quota(0.01, 0.0).await;
    let scene = Scene::new().with(RED, 100, 80);
    let mut stream = node.stream().await;
    stream.exchange(&scene).await;
    for _ in 0..2 {
        let seq = stream.show(&scene).await;
        let refused = stream.refusal().await;
        assert_eq!((refused.seq, error_of(&refused.error)), (Some(seq), Some(ErrorCode::Limit)));
        let message = refused.error.expect("says why").message;
        assert!(message.contains("0.01 frames a second") && message.contains("the next is taken in"), "{message}");
    }
    // Other streams of the same client share the quota; unary calls do too.
    let mut other = node.stream().await;
    other.show(&scene).await;
    assert_eq!(error_of(&other.refusal().await.error), Some(ErrorCode::Limit));
    let asked = wire::SegmentRequest { frame: Some(scene.frame(1)), command: "red".into(), ..Default::default() };
    let refused = soon("a refusal", node.client().await.segment(asked)).await.expect_err("the quota is used up");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_frames_are_counted_under_their_reason() {
    // Ten at once, then one every tenth of a second.
    let node = with_quota(10.0, 0.0).await;
    let scene = Scene::new().with(RED, 100, 80);
    let mut stream = node.stream().await;
    let mut refused = 0;
    soon("an answer behind refusals", async {
        loop {
            stream.show(&scene).await;
            match stream.message().await.expect("goes on").expect("goes on") {
                wire::perceive_response::Response::Rejected(_) => refused += 1,
                wire::perceive_response::Response::Frame(frame) if refused > 0 => {
                    assert_eq!(dropped(&frame).get(&DropReason::Quota), Some(&refused));
                    let counters = frame.counters.as_ref().expect("has counters");
                    assert_eq!(counters.received, counters.answered + refused);
                    return;
                }
                wire::perceive_response::Response::Frame(_) => {}
                wire::perceive_response::Response::Answer(answer) => panic!("nobody asked: {answer:?}"),
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groundings_beyond_the_quota_wait_and_say_so() {
    let node = with_quota(0.0, 1.0).await;
    let scene = Scene::new().with(RED, 100, 80).with(BLUE, 200, 80);
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    stream.until_verdict(&scene, "r", Verdict::Found).await;
    stream.add(target("b", "blue")).await;
    let frame = stream.until(&scene, |f| f.targets.len() == 2).await;
    let waiting = of(&frame, "b");
    assert_eq!((waiting.verdict(), error_of(&waiting.error)), (Verdict::Pending, Some(ErrorCode::Limit)));
    // What was grounded is followed as ever.
    assert_eq!((of(&frame, "r").verdict(), of(&frame, "r").error.is_none()), (Verdict::Found, true));
    assert_eq!(node.script.ground.begun(), 1);
    let asked = wire::SegmentRequest { frame: Some(scene.frame(1)), command: "red".into(), ..Default::default() };
    let refused = soon("a refusal", node.client().await.segment(asked)).await.expect_err("the quota is used up");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("1 groundings a minute"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_memory_has_no_room_for_are_refused() {
    // More than this process has by far, but not for two sessions of such a size.
    let node = Running::start_with(|config| {
        config.limits.memory_mib = 1 << 20;
        config.limits.session_mib = 600 << 10;
    })
    .await;
    let scene = Scene::new().with(RED, 100, 80);
    let mut first = node.stream().await;
    first.exchange(&scene).await;
    let refused = Stream::open(&node).await.err().expect("does not fit");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("MiB of a budget of 1048576"), "{refused}");
    // Who is in stays in.
    first.exchange(&scene).await;
}
