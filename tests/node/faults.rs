//! Stages that fail and crash: replies say so, and the node goes on.

use std::time::Duration;

use sam4mllm::server::wire::perceive_request::Request;
use sam4mllm::server::wire::perception_client::PerceptionClient;
use sam4mllm::server::wire::{self, ErrorCode, Origin, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::Channel;

use crate::harness::{RED, Running, Scene, Stream, error_of, iou, of, soon, target};

async fn following(node: &Running, scene: &Scene) -> Stream {
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    stream.until_verdict(scene, "r", Verdict::Found).await;
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mask_is_repeated_once_and_says_so() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 100, 80);
    let mut stream = following(&node, &scene).await;
    let before = stream.exchange(&scene).await;
    node.script.segment.fail(1);
    let stale = stream.exchange(&Scene::new().with(RED, 104, 80)).await;
    let result = of(&stale, "r");
    assert_eq!((result.verdict(), error_of(&result.error)), (Verdict::Found, Some(ErrorCode::Engine)));
    let [instance] = &result.instances[..] else { panic!("{result:?}") };
    assert_eq!((instance.origin(), instance.mask_seq), (Origin::Stale, before.seq));
    assert_eq!(instance.mask, of(&before, "r").instances[0].mask);
    let scene = Scene::new().with(RED, 108, 80);
    let after = stream.exchange(&scene).await;
    let result = of(&after, "r");
    assert!(result.error.is_none());
    assert_eq!(result.instances[0].origin(), Origin::Tracked);
    assert_eq!(result.instances[0].instance_id, instance.instance_id);
    assert!(iou(&result.instances[0], &scene.truth(0)) > 0.95);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_mask_is_not_repeated_for_ever() {
    let node = Running::start_with(|config| config.node.stale_limit = Duration::ZERO).await;
    let scene = Scene::new().with(RED, 100, 80);
    let mut stream = following(&node, &scene).await;
    node.script.segment.fail(1);
    let failed = stream.exchange(&scene).await;
    let result = of(&failed, "r");
    assert_eq!((result.verdict(), error_of(&result.error)), (Verdict::Failed, Some(ErrorCode::Engine)));
    assert_eq!(of(&stream.exchange(&scene).await, "r").verdict(), Verdict::Found);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_grounding_is_tried_again() {
    let node = Running::start_with(|config| config.node.reground_after = Duration::ZERO).await;
    let scene = Scene::new().with(RED, 100, 80);
    node.script.ground.fail(1);
    node.script.ground.gate.shut();
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    stream.exchange(&scene).await;
    node.script.ground.gate.open();
    // With no new frame there is nothing to try again on.
    let frame = stream.until(&scene, |f| of(f, "r").verdict() != Verdict::Pending).await;
    if of(&frame, "r").verdict() == Verdict::Failed {
        assert_eq!(error_of(&of(&frame, "r").error), Some(ErrorCode::Engine));
    }
    let found = stream.until_verdict(&scene, "r", Verdict::Found).await;
    assert!(of(&found, "r").error.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grounding_that_failed_is_an_error_of_its_target() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 100, 80);
    node.script.ground.fail(1);
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    let failed = stream.until_verdict(&scene, "r", Verdict::Failed).await;
    assert_eq!(error_of(&of(&failed, "r").error), Some(ErrorCode::Engine));
    // Others are grounded as ever.
    stream.add(target("again", "red")).await;
    stream.until_verdict(&scene, "again", Verdict::Found).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_panics_is_built_anew() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 100, 80);
    let mut stream = following(&node, &scene).await;
    node.script.segment.panic(1);
    let stale = stream.exchange(&scene).await;
    assert_eq!(error_of(&of(&stale, "r").error), Some(ErrorCode::Stage));
    assert_eq!(of(&stale, "r").instances[0].origin(), Origin::Stale);
    // A frame that comes while it is being built is answered with the last mask too.
    let after = stream.until(&scene, |f| of(f, "r").error.is_none()).await;
    assert_eq!(of(&after, "r").verdict(), Verdict::Found);

    node.script.ground.panic(1);
    stream.add(target("x", "red")).await;
    let failed = stream.until_verdict(&scene, "x", Verdict::Failed).await;
    assert_eq!(error_of(&of(&failed, "x").error), Some(ErrorCode::Stage));
    assert_eq!(of(&failed, "r").verdict(), Verdict::Found);
    stream.add(target("y", "red")).await;
    stream.until_verdict(&scene, "y", Verdict::Found).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_keeps_panicking_is_given_up_and_the_process_goes_on() {
    let node = Running::start_with(|config| {
        config.node.reground_after = Duration::from_secs(3600);
        config.node.stage_restarts = 1;
    })
    .await;
    let scene = Scene::new().with(RED, 100, 80);
    let mut stream = following(&node, &scene).await;
    node.script.ground.panic(2);
    stream.set([target("r", "red"), target("x", "red"), target("y", "red")]).await;
    let failed = stream.until(&scene, |f| ["x", "y"].iter().all(|id| of(f, id).verdict() == Verdict::Failed)).await;
    for id in ["x", "y"] {
        assert_eq!(error_of(&of(&failed, id).error), Some(ErrorCode::Stage));
    }
    // What needs no grounder goes on, and what comes new is told at once.
    assert_eq!(of(&failed, "r").verdict(), Verdict::Found);
    stream.add(target("z", "red")).await;
    stream.until_verdict(&scene, "z", Verdict::Failed).await;
    let mut client = node.client().await;
    let ready = soon("the description", client.describe(wire::DescribeRequest {})).await.expect("describes");
    assert!(!ready.into_inner().ready);
    let asked = wire::SegmentRequest { frame: Some(scene.frame(1)), command: "red".into(), ..Default::default() };
    let status = soon("an answer", client.segment(asked)).await.expect_err("no grounder");
    assert_eq!(status.code(), tonic::Code::Internal);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_segmenter_frames_are_still_answered() {
    let node = Running::start_with(|config| {
        config.node.stale_limit = Duration::from_secs(3600);
        config.node.stage_restarts = 1;
    })
    .await;
    let scene = Scene::new().with(RED, 100, 80);
    let mut stream = following(&node, &scene).await;
    node.script.segment.panic(2);
    let before = stream.exchange(&scene).await;
    for _ in 0..5 {
        let frame = stream.exchange(&scene).await;
        let result = of(&frame, "r");
        assert_eq!(error_of(&result.error), Some(ErrorCode::Stage), "{result:?}");
        assert_eq!(result.instances[0].origin(), Origin::Stale);
        assert_eq!(result.instances[0].mask_seq, of(&before, "r").instances[0].mask_seq);
    }
}

/// Passes on what a client sends until that many bytes have gone by, then cuts both ends off.
async fn cut_off_after(node: std::net::SocketAddr, bytes: usize) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("is bound");
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.expect("a client comes");
        let server = TcpStream::connect(node).await.expect("the node is there");
        let ((mut from, mut back), (mut answers, mut to)) = (client.into_split(), server.into_split());
        let back = tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
        let (mut piece, mut left) = (vec![0; 16 << 10], bytes);
        while left > 0 {
            let Ok(read @ 1..) = from.read(&mut piece).await else { break };
            let passed = read.min(left);
            if to.write_all(&piece[..passed]).await.is_err() {
                break;
            }
            left -= passed;
        }
        back.abort();
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_in_the_middle_of_a_frame_leaves_nothing_behind() {
    let node = Running::start_with(|config| {
        config.node.reground_after = Duration::from_secs(3600);
        config.node.max_sessions = 2;
    })
    .await;
    let scene = Scene::new().with(RED, 100, 80);
    let mut steady = following(&node, &scene).await;
    let before = steady.exchange(&scene).await;
    for cut in [3 << 20, 1 << 20, 200 << 10] {
        let relay = cut_off_after(node.address, cut).await;
        let channel = Channel::from_shared(format!("http://{relay}")).expect("an address").connect().await;
        let mut stream = Stream::open_by(PerceptionClient::new(channel.expect("connects"))).await.expect("opens");
        stream.set([target("r", "red")]).await;
        let big = wire::Frame {
            encoding: "rgb8".into(),
            width: 1920,
            height: 1080,
            data: vec![90; 1920 * 1080 * 3].into(),
            ..scene.frame(1)
        };
        let request = wire::PerceiveRequest { request: Some(Request::Frame(big)), options: None };
        stream.send(request).await;
        // The half of a frame is never answered.
        let told = stream.message().await;
        assert!(!matches!(told, Ok(Some(_))), "{told:?}");
        // Its place is free again, and others have not noticed.
        drop(node.lets_in().await);
        let after = steady.exchange(&scene).await;
        assert_eq!(of(&after, "r").instances[0].instance_id, of(&before, "r").instances[0].instance_id);
    }
}
