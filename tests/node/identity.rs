//! Instance ids outlive new commands, new names, pauses and occlusions.

use std::time::{Duration, Instant};

use sam4mllm::server::wire::{CountHint, ErrorCode, Phase, Verdict};

use crate::harness::{BLUE, RED, Running, Scene, Stream, error_of, eventually, hinted, iou, of, target};

async fn following(node: &Running, scene: &Scene, command: &str) -> (Stream, u64) {
    let mut stream = node.stream().await;
    stream.set([target("t", command)]).await;
    let found = stream.until_verdict(scene, "t", Verdict::Found).await;
    (stream, of(&found, "t").instances[0].instance_id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_command_for_the_same_object_keeps_its_id() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 20, 20).with(BLUE, 220, 150);
    let (mut stream, red) = following(&node, &scene, "red").await;
    // It moves on before the new command is grounded.
    stream.add(hinted("t", "the red one to grasp", CountHint::One)).await;
    let moved = Scene::new().with(RED, 30, 25).with(BLUE, 220, 150);
    let found = stream.until_verdict(&moved, "t", Verdict::Found).await;
    assert_eq!(of(&found, "t").instances[0].instance_id, red);
    // What is meant now is something else.
    node.script.ground.gate.shut();
    stream.add(hinted("t", "blue", CountHint::One)).await;
    assert_eq!(of(&stream.exchange(&moved).await, "t").phase(), Phase::Pending);
    node.script.ground.gate.open();
    let found = stream.until_verdict(&moved, "t", Verdict::Found).await;
    let blue = of(&found, "t").instances[0].instance_id;
    assert_ne!(blue, red, "the only one meant, but by another command");
    // ... and the first one again, which nothing has been said of for a moment.
    stream.set([target("t", "red")]).await;
    let found = stream.until_verdict(&moved, "t", Verdict::Found).await;
    assert_ne!(of(&found, "t").instances[0].instance_id, blue);
    assert!(iou(&of(&found, "t").instances[0], &moved.truth(0)) > 0.95);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_name_changes_nothing_else() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 20, 20).with(BLUE, 220, 150);
    let (mut stream, red) = following(&node, &scene, "red").await;
    let begun = node.script.ground.begun();
    stream.rename("t", "cup").await;
    let frame = stream.exchange(&scene).await;
    assert_eq!(frame.targets.len(), 1);
    assert_eq!((of(&frame, "cup").verdict(), of(&frame, "cup").instances[0].instance_id), (Verdict::Found, red));
    assert_eq!(node.script.ground.begun(), begun, "nobody asked again");
    // What the language model is at meanwhile comes home under the new name.
    node.script.ground.gate.shut();
    stream.add(target("b", "blue")).await;
    stream.exchange(&scene).await;
    eventually("the grounder to begin", || node.script.ground.begun() == begun + 1).await;
    stream.rename("b", "t").await;
    node.script.ground.gate.open();
    let frame = stream.until_verdict(&scene, "t", Verdict::Found).await;
    assert_eq!(frame.targets.iter().map(|t| t.target_id.as_str()).collect::<Vec<_>>(), ["cup", "t"]);
    assert_eq!(node.script.ground.begun(), begun + 1);

    for (id, new_id) in [("t", "cup"), ("t", ""), ("nobody", "x"), ("t", &"x".repeat(129))] {
        stream.rename(id, new_id).await;
        assert_eq!(error_of(&stream.refusal().await.error), Some(ErrorCode::Target), "{id} {new_id}");
    }
    stream.rename("t", "t").await;
    assert_eq!(stream.exchange(&scene).await.targets.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_target_costs_nothing_and_comes_back_as_it_was() {
    let node = Running::start_with(|config| config.node.reground_after = Duration::ZERO).await;
    let scene = Scene::new().with(RED, 40, 40);
    let (mut stream, red) = following(&node, &scene, "red").await;
    stream.pause("t").await;
    let frame = stream.exchange(&scene).await;
    assert_eq!((of(&frame, "t").verdict(), of(&frame, "t").phase()), (Verdict::Paused, Phase::Paused));
    // A grounding that was in work is not used any more.
    eventually("the grounder to be idle", || {
        let begun = node.script.ground.begun();
        std::thread::sleep(Duration::from_millis(5));
        begun == node.script.ground.begun()
    })
    .await;
    let (ground, segment) = (node.script.ground.begun(), node.script.segment.begun());
    for _ in 0..5 {
        assert_eq!(of(&stream.exchange(&scene).await, "t").verdict(), Verdict::Paused);
    }
    assert_eq!((node.script.ground.begun(), node.script.segment.begun()), (ground, segment));
    // A new command does not end the pause, nor does a second pause.
    stream.add(target("t", "the red box")).await;
    stream.pause("t").await;
    assert_eq!(of(&stream.exchange(&scene).await, "t").verdict(), Verdict::Paused);

    node.script.ground.gate.shut();
    stream.resume("t").await;
    let moved = Scene::new().with(RED, 90, 60);
    let frame = stream.exchange(&moved).await;
    assert_eq!((of(&frame, "t").verdict(), of(&frame, "t").phase()), (Verdict::Pending, Phase::Pending));
    node.script.ground.gate.open();
    let found = stream.until_verdict(&moved, "t", Verdict::Found).await;
    assert_eq!(of(&found, "t").instances[0].instance_id, red);
    for id in ["nobody", ""] {
        stream.pause(id).await;
        assert_eq!(error_of(&stream.refusal().await.error), Some(ErrorCode::Target));
        stream.resume(id).await;
        assert_eq!(error_of(&stream.refusal().await.error), Some(ErrorCode::Target));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_object_comes_out_from_behind_another_under_its_id() {
    // Longer than two seconds only for machines that are slow.
    let node = Running::start_with(|config| config.node.remember_lost = Duration::from_secs(60)).await;
    let behind = |x: u32| Scene::new().with(RED, x, 100).with_box([90, 90, 90], [120, 60, 220, 200]);
    let (mut stream, red) = following(&node, &behind(30), "red").await;
    let mut x = 30;
    // It goes behind a board of 100 pixels, is hidden for two seconds, and comes out on the other side.
    while x < 140 {
        x += 5;
        stream.exchange(&behind(x)).await;
    }
    let hidden = Instant::now();
    while hidden.elapsed() < Duration::from_secs(2) {
        let frame = stream.exchange(&behind(140)).await;
        let result = of(&frame, "t");
        assert!(matches!(result.verdict(), Verdict::Lost | Verdict::Absent), "{result:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut seen = 0;
    while x < 250 {
        x += 5;
        for instance in &of(&stream.exchange(&behind(x)).await, "t").instances {
            assert_eq!(instance.instance_id, red, "at {x}");
            seen += 1;
        }
    }
    let found = stream.until_verdict(&behind(250), "t", Verdict::Found).await;
    let [instance] = &of(&found, "t").instances[..] else { panic!("{found:?}") };
    assert_eq!(instance.instance_id, red);
    assert!(iou(instance, &behind(250).truth(0)) > 0.95);
    assert!(seen > 0, "it is seen while it comes out");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_back_too_late_is_another_one() {
    let node = Running::start_with(|config| config.node.remember_lost = Duration::ZERO).await;
    let scene = Scene::new().with(RED, 100, 80);
    let (mut stream, red) = following(&node, &scene, "red").await;
    stream.until_verdict(&Scene::new(), "t", Verdict::Absent).await;
    let found = stream.until_verdict(&scene, "t", Verdict::Found).await;
    assert_ne!(of(&found, "t").instances[0].instance_id, red);
}
