//! When the language model looks again, and what a target's state says of it.

use std::time::Duration;

use sam4mllm::server::wire::{self, ErrorCode, Look, Phase, Verdict, Why};

use crate::harness::{BLUE, RED, Running, Scene, Stream, error_of, iou, of, target};

fn state(frame: &wire::FrameResult, id: &str) -> (Phase, Look, Why) {
    let t = of(frame, id);
    (t.phase(), t.look(), t.why())
}

async fn following(node: &Running, scene: &Scene) -> Stream {
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    stream.until_verdict(scene, "r", Verdict::Found).await;
    stream.until(scene, |f| of(f, "r").look() == Look::Idle).await;
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_goes_from_pending_to_lost_and_back() {
    let node = Running::start_with(|config| {
        config.node.reground_after = Duration::from_secs(3600);
        config.node.remember_lost = Duration::from_secs(60);
    })
    .await;
    let scene = Scene::new().with(RED, 100, 80);
    let mut stream = node.stream().await;
    node.script.ground.gate.shut();
    stream.set([target("r", "red")]).await;
    assert_eq!(of(&stream.exchange(&scene).await, "r").phase(), Phase::Pending);
    let asked = stream.exchange(&scene).await;
    assert_eq!(state(&asked, "r"), (Phase::Pending, Look::Asked, Why::New));
    node.script.ground.gate.open();
    stream.until_verdict(&scene, "r", Verdict::Found).await;
    let tracked = stream.exchange(&scene).await;
    assert_eq!(state(&tracked, "r"), (Phase::Tracked, Look::Idle, Why::New));

    node.script.segment.fail(1);
    let stale = stream.exchange(&scene).await;
    assert_eq!((of(&stale, "r").phase(), of(&stale, "r").verdict()), (Phase::Stale, Verdict::Found));
    assert_eq!(of(&stream.exchange(&scene).await, "r").phase(), Phase::Tracked);

    node.script.ground.gate.shut();
    let empty = Scene::new();
    let lost = stream.exchange(&empty).await;
    assert_eq!((of(&lost, "r").phase(), of(&lost, "r").verdict()), (Phase::Lost, Verdict::Lost));
    // Re-grounding.
    let again = stream.until(&empty, |f| of(f, "r").look() == Look::Asked).await;
    assert_eq!(state(&again, "r"), (Phase::Lost, Look::Asked, Why::Lost));
    node.script.ground.gate.open();
    let absent = stream.until_verdict(&empty, "r", Verdict::Absent).await;
    assert_eq!(of(&absent, "r").phase(), Phase::Vacant);
    // It is looked for more often than by routine, which is an hour here.
    let found = stream.until_verdict(&scene, "r", Verdict::Found).await;
    assert_eq!(of(&found, "r").why(), Why::Missing);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drift_is_a_reason_to_look_again_and_masks_go_on() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 100, 80);
    // The score falls; the area grows; the look changes, half of it.
    let grown = Scene::new().with_box(RED, [90, 70, 172, 152]);
    let dark = Scene::new().with_box([150, 20, 25], [100, 80, 160, 140]);
    for (what, waver, drifted) in [("score", 30, &scene), ("area", 0, &grown), ("look", 0, &dark)] {
        let mut stream = following(&node, &scene).await;
        let id = of(&stream.exchange(&scene).await, "r").instances[0].instance_id;
        let begun = node.script.ground.begun();
        for _ in 0..3 {
            stream.exchange(&scene).await;
        }
        assert_eq!(node.script.ground.begun(), begun, "nothing has drifted yet");
        node.script.segment.waver(waver);
        node.script.ground.gate.shut();
        let again = stream.until(drifted, |f| of(f, "r").look() == Look::Asked).await;
        assert_eq!(state(&again, "r"), (Phase::Tracked, Look::Asked, Why::Drift), "{what}");
        // It may be on its way to something else.
        assert_eq!((of(&again, "r").verdict(), of(&again, "r").instances.len()), (Verdict::Unsure, 1), "{what}");
        node.script.ground.gate.open();
        // What it says then is what drift is held against.
        let settled = stream.until(drifted, |f| of(f, "r").look() == Look::Idle).await;
        assert_eq!(of(&settled, "r").instances[0].instance_id, id, "{what}");
        assert!(iou(&of(&settled, "r").instances[0], &drifted.truth(0)) > 0.95, "{what}");
        let begun = node.script.ground.begun();
        for _ in 0..3 {
            assert_eq!(of(&stream.exchange(drifted).await, "r").verdict(), Verdict::Found, "{what}");
        }
        assert_eq!(node.script.ground.begun(), begun, "{what}: once is enough");
        node.script.segment.waver(0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_may_ask_for_a_look() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 100, 80);
    let mut stream = following(&node, &scene).await;
    let begun = node.script.ground.begun();
    stream.reground("r").await;
    let frame = stream.until(&scene, |f| of(f, "r").why() == Why::Request && of(f, "r").look() == Look::Idle).await;
    assert_eq!(node.script.ground.begun(), begun + 1);
    let instance = &of(&frame, "r").instances[0];
    assert!(instance.grounded_seq > 1 && instance.instance_id == 1, "{instance:?}");
    stream.exchange(&scene).await;
    assert_eq!(node.script.ground.begun(), begun + 1, "one look for one request");
    // One that comes while the grounder is at it is about what comes next.
    node.script.ground.gate.shut();
    stream.reground("r").await;
    stream.until(&scene, |_| node.script.ground.begun() == begun + 2).await;
    stream.reground("r").await;
    stream.exchange(&scene).await;
    node.script.ground.gate.open();
    stream.until(&scene, |_| node.script.ground.begun() == begun + 3).await;
    stream.reground("nobody").await;
    assert_eq!(error_of(&stream.refusal().await.error), Some(ErrorCode::Target));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_may_have_a_budget_of_its_own() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 100, 80).with(BLUE, 220, 30);
    let mut stream = node.stream().await;
    let often = wire::Target { reground_after_ms: 1, ..target("r", "red") };
    stream.set([often, target("b", "blue")]).await;
    stream.until(&scene, |f| ["r", "b"].iter().all(|id| of(f, id).verdict() == Verdict::Found)).await;
    let begun = node.script.ground.begun();
    let frame = stream.until(&scene, |_| node.script.ground.begun() > begun + 3).await;
    assert_eq!((of(&frame, "r").why(), of(&frame, "b").why()), (Why::Budget, Why::New));
    // Another budget is no other command.
    let id = of(&frame, "r").instances[0].instance_id;
    stream.add(target("r", "red")).await;
    let frame = stream.exchange(&scene).await;
    assert_eq!((of(&frame, "r").verdict(), of(&frame, "r").instances[0].instance_id), (Verdict::Found, id));
    stream.until(&scene, |f| of(f, "r").look() == Look::Idle).await;
    let begun = node.script.ground.begun();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(2)).await;
        stream.exchange(&scene).await;
    }
    assert_eq!(node.script.ground.begun(), begun);
}
