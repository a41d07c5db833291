//! Several answers to one frame: boxes, masks from boxes, masks from boxes and points.

use sam4mllm::server::wire::{self, Look, Verdict};

use crate::harness::{RED, Running, Scene, Stream, eventually, iou, of, target};

async fn anytime(node: &Running) -> Stream {
    let mut stream = node.stream().await;
    stream.options.anytime = true;
    stream.set([target("r", "red")]).await;
    stream
}

fn place(frame: &wire::FrameResult) -> (u64, u32, bool) {
    (frame.seq, frame.revision, frame.partial)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boxes_come_first_then_masks_then_better_ones() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 100, 80);
    node.script.ground.gate.shut();
    node.script.ground.points.shut();
    let mut stream = anytime(&node).await;
    let first = stream.exchange(&scene).await;
    assert_eq!((place(&first), of(&first, "r").verdict()), ((1, 0, true), Verdict::Pending));

    node.script.ground.gate.open();
    let boxes = stream.next().await;
    let result = of(&boxes, "r");
    assert_eq!((place(&boxes), result.verdict(), result.look()), ((1, 1, true), Verdict::Pending, Look::Proposed));
    let [b] = &result.proposals[..] else { panic!("{result:?}") };
    assert_eq!([b.x1, b.y1, b.x2, b.y2].map(f32::round), [100.0, 80.0, 160.0, 140.0]);

    let masks = stream.next().await;
    let result = of(&masks, "r");
    assert_eq!((place(&masks), result.verdict(), result.look()), ((1, 2, true), Verdict::Found, Look::Asked));
    assert!(result.partial && result.proposals.is_empty());
    assert!(iou(&result.instances[0], &scene.truth(0)) > 0.95);
    assert!(result.instances[0].evidence.as_ref().expect("has evidence").points.is_empty());
    let id = result.instances[0].instance_id;

    node.script.ground.points.open();
    let last = stream.next().await;
    let result = of(&last, "r");
    assert_eq!((place(&last), result.verdict(), result.look()), ((1, 3, false), Verdict::Found, Look::Idle));
    assert!(!result.partial);
    assert_eq!(result.instances[0].instance_id, id);
    assert_eq!(result.instances[0].evidence.as_ref().expect("has evidence").points.len(), 25);
    assert_eq!(last.counters.as_ref().expect("has counters").answered, 1);

    // What is followed is not made worse by a mask from a box alone.
    stream.reground("r").await;
    let again = stream.exchange(&scene).await;
    let mut frames = vec![again];
    while frames.last().is_some_and(|f| f.partial) {
        frames.push(stream.next().await);
    }
    assert!(frames.iter().all(|f| !of(f, "r").partial && of(f, "r").proposals.is_empty()), "{frames:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_running_camera_the_first_masks_are_carried_to_the_newest_frame() {
    let node = Running::start().await;
    let at = |x| Scene::new().with(RED, x, 80);
    node.script.ground.gate.shut();
    node.script.ground.points.shut();
    let mut stream = anytime(&node).await;
    stream.exchange(&at(80)).await;
    eventually("the grounder to begin", || node.script.ground.begun() == 1).await;
    stream.exchange(&at(86)).await;
    node.script.ground.gate.open();
    // Boxes of an older frame are not shown: they would point at something else here.
    let masks = stream.next().await;
    let result = of(&masks, "r");
    assert_eq!((masks.seq, result.verdict(), result.proposals.len()), (2, Verdict::Found, 0));
    assert!(result.partial && iou(&result.instances[0], &at(86).truth(0)) > 0.95);
    let id = result.instances[0].instance_id;
    for step in 0..3 {
        let scene = at(92 + 6 * step);
        let frame = stream.exchange(&scene).await;
        let result = of(&frame, "r");
        assert!(result.partial && frame.partial, "still being asked about points");
        assert_eq!(result.instances[0].instance_id, id);
        assert!(iou(&result.instances[0], &scene.truth(0)) > 0.95);
    }
    node.script.ground.points.open();
    let last = stream.next().await;
    assert!(!of(&last, "r").partial && !last.partial);
    assert_eq!(of(&last, "r").instances[0].instance_id, id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_command_ends_what_was_half_answered() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 100, 80);
    node.script.ground.points.shut();
    let mut stream = anytime(&node).await;
    stream.exchange(&scene).await;
    let mut frame = stream.next().await;
    while of(&frame, "r").verdict() != Verdict::Found {
        frame = stream.next().await;
    }
    // Nothing of the old command is shown any more.
    stream.add(target("r", "blue")).await;
    let pending = stream.exchange(&scene).await;
    assert_eq!((of(&pending, "r").verdict(), pending.partial), (Verdict::Pending, true));
    node.script.ground.points.open();
    let mut last = stream.next().await;
    while last.partial {
        last = stream.next().await;
    }
    assert_eq!(of(&last, "r").verdict(), Verdict::Absent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_it_every_frame_has_one_reply() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 100, 80);
    node.script.ground.points.shut();
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    for _ in 0..4 {
        let frame = stream.exchange(&scene).await;
        let result = of(&frame, "r");
        assert_eq!((frame.revision, frame.partial, result.verdict()), (0, false, Verdict::Pending));
        assert!(result.proposals.is_empty() && result.look() != Look::Proposed);
    }
    node.script.ground.points.open();
    stream.until_verdict(&scene, "r", Verdict::Found).await;
}
