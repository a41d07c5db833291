//! The ground stage drafts from the segment stage's masks, and never waits for them without end.

use std::time::{Duration, Instant};

use sam4mllm::server::wire::{self, Verdict};

use crate::harness::{BLUE, RED, Running, Scene, Stream, eventually, iou, of, soon, target};

/// Longer than any test waits.
const FOR_EVER: Duration = Duration::from_secs(3600);

async fn node(draft_wait: Duration) -> Running {
    Running::start_with(|config| {
        config.node.reground_after = FOR_EVER;
        config.node.draft_wait = draft_wait;
    })
    .await
}

async fn stream(node: &Running) -> Stream {
    let mut stream = node.stream().await;
    stream.options.evidence = true;
    stream
}

/// Drafted and accepted tokens of a target's grounding.
fn drafts(frame: &wire::FrameResult, id: &str) -> (u32, u32) {
    let evidence = of(frame, id).evidence.as_ref().expect("was asked for");
    assert_eq!(evidence.passes_one_by_one, 2 + evidence.drafted_tokens);
    (evidence.drafted_tokens, evidence.accepted_tokens)
}

/// What an ellipse gets wrong of a box: the four corners of 5 x 5 points.
const BY_ELLIPSE: (u32, u32) = (25, 21);
const BY_MASK: (u32, u32) = (25, 25);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_are_drafted_from_masks_of_the_very_frame() {
    let node = node(FOR_EVER).await;
    let scene = Scene::new().with(RED, 100, 80);
    let mut stream = stream(&node).await;
    stream.set([target("r", "red")]).await;
    let found = stream.until_verdict(&scene, "r", Verdict::Found).await;
    assert_eq!(drafts(&found, "r"), BY_MASK);

    let options = Some(wire::Options { evidence: true, ..Default::default() });
    let asked =
        wire::SegmentRequest { frame: Some(scene.frame(1)), command: "red".into(), options, ..Default::default() };
    let mut client = node.client().await;
    let reply = soon("an answer", client.segment(asked)).await.expect("answers").into_inner();
    let evidence = reply.result.expect("has a result").evidence.expect("was asked for");
    assert_eq!((evidence.passes, evidence.passes_one_by_one), (2, 27));
    assert_eq!((evidence.drafted_tokens, evidence.accepted_tokens, evidence.near_ties), (25, 25, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn later_groundings_are_drafted_from_the_last_mask_without_asking() {
    let node = Running::start_with(|config| {
        config.node.reground_after = Duration::ZERO;
        config.node.draft_wait = Duration::ZERO;
    })
    .await;
    let mut stream = stream(&node).await;
    stream.set([target("r", "red")]).await;
    // Without any time to wait for masks the first one is drafted from nothing, later ones from what is followed.
    let still = Scene::new().with(RED, 100, 80);
    let first = stream.until_verdict(&still, "r", Verdict::Found).await;
    assert_eq!(drafts(&first, "r"), BY_ELLIPSE);
    let moved = Scene::new().with(RED, 104, 82);
    let again = stream.until(&moved, |f| drafts(f, "r") == BY_MASK).await;
    assert!(iou(&of(&again, "r").instances[0], &moved.truth(0)) > 0.95);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_segmenter_holds_no_grounding_up() {
    let node = node(Duration::from_millis(20)).await;
    let scene = Scene::new().with(RED, 100, 80).with(BLUE, 220, 30);
    node.script.segment.gate.shut();
    let mut stream = stream(&node).await;
    stream.set([target("r", "red"), target("b", "blue")]).await;
    stream.show(&scene).await;
    // The second grounding begins only after the first has given its masks up.
    eventually("both groundings", || node.script.ground.begun() == 2).await;
    node.script.segment.gate.open();
    let first = stream.next().await;
    assert_eq!(first.targets.len(), 2);
    let found = stream.until(&scene, |f| ["r", "b"].iter().all(|id| of(f, id).verdict() == Verdict::Found)).await;
    assert_eq!(drafts(&found, "r"), BY_ELLIPSE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grounding_does_not_wait_for_a_dead_segmenter() {
    let mut node = node(FOR_EVER).await;
    let scene = Scene::new().with(RED, 100, 80);
    let mut stream = stream(&node).await;
    stream.set([target("r", "red")]).await;
    stream.until_verdict(&scene, "r", Verdict::Found).await;
    node.script.segment.panic(2);
    stream.exchange(&scene).await;
    stream.exchange(&scene).await;
    // Both are grounded on the last frame that there is, though nobody can make a mask for them.
    let begun = node.script.ground.begun();
    stream.set([target("r", "red"), target("x", "red"), target("y", "red")]).await;
    let start = Instant::now();
    while node.script.ground.begun() < begun + 2 {
        stream.exchange(&scene).await;
        assert!(start.elapsed() < Duration::from_secs(20), "the ground stage is stuck");
    }
    drop(stream);
    node.ask_to_stop();
    node.ended().await.expect("shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segmenter_that_crashes_meanwhile_is_waited_for_no_longer_than_it_takes() {
    let node = node(FOR_EVER).await;
    let scene = Scene::new().with(RED, 100, 80);
    node.script.segment.gate.shut();
    node.script.segment.panic(1);
    let mut stream = stream(&node).await;
    stream.set([target("r", "red")]).await;
    stream.show(&scene).await;
    eventually("the grounding", || node.script.ground.begun() == 1).await;
    node.script.segment.gate.open();
    stream.next().await;
    // Built anew, it answers what has been asked all the while.
    let found = stream.until_verdict(&scene, "r", Verdict::Found).await;
    assert_eq!(drafts(&found, "r"), BY_MASK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_does_not_wait_for_a_draft() {
    let mut node = node(FOR_EVER).await;
    let scene = Scene::new().with(RED, 100, 80);
    node.script.segment.gate.shut();
    let mut stream = stream(&node).await;
    stream.set([target("r", "red")]).await;
    stream.show(&scene).await;
    eventually("the grounding", || node.script.ground.begun() == 1).await;
    node.ask_to_stop();
    node.script.segment.gate.open();
    drop(stream);
    node.ended().await.expect("shuts down");
}
