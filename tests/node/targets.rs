//! Targets come and go in mid-stream.

use sam4mllm::server::wire::{CountHint, Verdict};

use crate::harness::{BLUE, GREEN, RED, Running, Scene, hinted, of, target};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adding_and_removing_leaves_the_others_alone() {
    let node = Running::start().await;
    let mut stream = node.stream().await;
    let scene = Scene::new().with(RED, 20, 20).with(BLUE, 120, 100).with(GREEN, 230, 150);
    assert!(stream.exchange(&scene).await.targets.is_empty());
    stream.set([target("r", "red")]).await;
    let found = stream.until_verdict(&scene, "r", Verdict::Found).await;
    let red = of(&found, "r").instances[0].instance_id;

    node.script.ground.gate.shut();
    stream.add(target("b", "blue")).await;
    for _ in 0..3 {
        let frame = stream.exchange(&scene).await;
        assert_eq!(frame.targets.iter().map(|t| t.target_id.as_str()).collect::<Vec<_>>(), ["r", "b"]);
        assert_eq!((of(&frame, "r").verdict(), of(&frame, "r").instances[0].instance_id), (Verdict::Found, red));
        assert_eq!(of(&frame, "b").verdict(), Verdict::Pending);
    }
    node.script.ground.gate.open();
    let found = stream.until_verdict(&scene, "b", Verdict::Found).await;
    let blue = of(&found, "b").instances[0].instance_id;
    assert_ne!(red, blue);

    stream.remove("r").await;
    let frame = stream.exchange(&scene).await;
    assert_eq!(frame.targets.len(), 1);
    assert_eq!(of(&frame, "b").instances[0].instance_id, blue);

    // Blue is as it was, red is a new one under its old name.
    stream.set([target("g", "green"), target("b", "blue"), target("r", "red")]).await;
    let frame = stream.exchange(&scene).await;
    assert_eq!(frame.targets.iter().map(|t| t.target_id.as_str()).collect::<Vec<_>>(), ["g", "b", "r"]);
    assert_eq!((of(&frame, "b").verdict(), of(&frame, "b").instances[0].instance_id), (Verdict::Found, blue));
    let frame = stream.until(&scene, |f| ["g", "b", "r"].iter().all(|id| of(f, id).verdict() == Verdict::Found)).await;
    let again = of(&frame, "r").instances[0].instance_id;
    assert!(again != red && again != blue, "an id is never used for another target");
    stream.set([]).await;
    assert!(stream.exchange(&scene).await.targets.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_command_starts_afresh_and_the_same_one_does_not() {
    let node = Running::start().await;
    let mut stream = node.stream().await;
    let scene = Scene::new().with(RED, 20, 20).with(BLUE, 120, 100);
    stream.add(target("t", "red")).await;
    let found = stream.until_verdict(&scene, "t", Verdict::Found).await;
    let id = of(&found, "t").instances[0].instance_id;
    stream.add(target("t", "red")).await;
    let same = stream.exchange(&scene).await;
    assert_eq!((of(&same, "t").verdict(), of(&same, "t").instances[0].instance_id), (Verdict::Found, id));

    node.script.ground.gate.shut();
    stream.add(target("t", "blue")).await;
    assert_eq!(of(&stream.exchange(&scene).await, "t").verdict(), Verdict::Pending, "no mask of the old command");
    // Changed again while the grounder is at the first: that answer is not used.
    stream.add(hinted("t", "green", CountHint::One)).await;
    assert_eq!(of(&stream.exchange(&scene).await, "t").verdict(), Verdict::Pending);
    node.script.ground.gate.open();
    let frame = stream.until(&scene, |f| of(f, "t").verdict() != Verdict::Pending).await;
    assert_eq!(of(&frame, "t").verdict(), Verdict::Absent);
    stream.add(target("t", "blue")).await;
    let found = stream.until_verdict(&scene, "t", Verdict::Found).await;
    assert_ne!(of(&found, "t").instances[0].instance_id, id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_targets_of_a_frame_share_one_embedding() {
    let node = Running::start().await;
    let mut stream = node.stream().await;
    let scene = Scene::new().with(RED, 20, 20).with(BLUE, 120, 100).with(GREEN, 230, 150);
    stream.set([target("r", "red"), target("b", "blue"), target("g", "green")]).await;
    stream.until(&scene, |f| ["g", "b", "r"].iter().all(|id| of(f, id).verdict() == Verdict::Found)).await;
    let before = node.script.segment.begun();
    for _ in 0..5 {
        stream.exchange(&scene).await;
    }
    assert_eq!(node.script.segment.begun() - before, 5);
}
