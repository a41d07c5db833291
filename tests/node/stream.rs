//! `Perceive`: verdicts and masks from frame to frame.

use std::time::Duration;

use sam4mllm::server::wire::{self, CountHint, Origin, Verdict};

use crate::harness::{BLUE, GREEN, RED, Running, Scene, decode_mask, eventually, hinted, iou, of, rle, target};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_is_pending_then_found_and_followed() {
    let node = Running::start().await;
    let mut stream = node.stream().await;
    stream.options.evidence = true;
    stream.set([target("r", "the red box")]).await;
    let scene = Scene::new().with(RED, 100, 80);
    let first = stream.exchange(&scene).await;
    assert_eq!(of(&first, "r").verdict(), Verdict::Pending);
    assert!(of(&first, "r").evidence.is_none());
    assert_eq!((first.width, first.height, first.revision), (320, 240, 0));
    let found = stream.until_verdict(&scene, "r", Verdict::Found).await;
    let result = of(&found, "r");
    assert_eq!(result.evidence.as_ref().expect("was asked for").seq, 1);
    let id = result.instances[0].instance_id;
    for step in 1..10 {
        let moved = Scene::new().with(RED, 100 + 6 * step, 80 + 3 * step);
        let frame = stream.exchange(&moved).await;
        let [instance] = &of(&frame, "r").instances[..] else { panic!("{frame:?}") };
        assert!(iou(instance, &moved.truth(0)) > 0.95, "step {step}");
        assert_eq!((instance.instance_id, instance.origin()), (id, Origin::Tracked));
        assert_eq!((instance.grounded_seq, instance.mask_seq), (1, frame.seq));
        let stages: Vec<&str> = frame.timings.iter().map(|t| t.stage.as_str()).collect();
        assert_eq!(stages, ["wait", "decode", "embed", "segment", "encode"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_are_answered_while_the_grounder_thinks() {
    let node = Running::start().await;
    node.script.ground.gate.shut();
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    let scene = Scene::new().with(RED, 100, 80);
    for _ in 0..8 {
        let frame = stream.exchange(&scene).await;
        assert_eq!(of(&frame, "r").verdict(), Verdict::Pending);
    }
    assert_eq!(node.script.ground.begun(), 1);
    node.script.ground.gate.open();
    stream.until_verdict(&scene, "r", Verdict::Found).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_grounding_is_carried_to_the_newest_frame() {
    let node = Running::start().await;
    node.script.ground.gate.shut();
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    let at = |x| Scene::new().with(RED, x, 80);
    let asked = stream.exchange(&at(80)).await.seq;
    eventually("the grounder to begin", || node.script.ground.begun() == 1).await;
    for step in 1..=5 {
        stream.exchange(&at(80 + 4 * step)).await;
    }
    node.script.ground.gate.open();
    let now = at(104);
    let frame = stream.until_verdict(&now, "r", Verdict::Found).await;
    let [instance] = &of(&frame, "r").instances[..] else { panic!("{frame:?}") };
    assert!(iou(instance, &now.truth(0)) > 0.95, "the mask is where the object was");
    assert_eq!((instance.grounded_seq, instance.origin()), (asked, Origin::Tracked));
    assert!(frame.seq > asked + 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masks_go_on_while_the_grounder_looks_again() {
    let node = Running::start_with(|config| config.node.reground_after = Duration::ZERO).await;
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    let at = |x| Scene::new().with(RED, x, 80);
    let found = stream.until_verdict(&at(60), "r", Verdict::Found).await;
    let id = of(&found, "r").instances[0].instance_id;
    node.script.ground.gate.shut();
    let begun = node.script.ground.begun();
    // One that is through the gate already may still come back; the next one stays.
    stream.until(&at(60), |_| node.script.ground.begun() > begun).await;
    let held = of(&stream.exchange(&at(60)).await, "r").instances[0].grounded_seq;
    for step in 1..12 {
        let scene = at(60 + 5 * step);
        let frame = stream.exchange(&scene).await;
        let [instance] = &of(&frame, "r").instances[..] else { panic!("{frame:?}") };
        assert!(iou(instance, &scene.truth(0)) > 0.95, "step {step}");
        assert_eq!((instance.instance_id, instance.origin()), (id, Origin::Tracked));
        assert!(instance.grounded_seq <= held + 1, "step {step}");
    }
    node.script.ground.gate.open();
    let last = at(115);
    let again = stream.until(&last, |f| of(f, "r").instances[0].grounded_seq > held + 1).await;
    let [instance] = &of(&again, "r").instances[..] else { panic!("{again:?}") };
    assert_eq!(instance.instance_id, id, "a re-grounded instance keeps its id");
    assert!(iou(instance, &last.truth(0)) > 0.95);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_instances_keep_their_ids_apart() {
    let node = Running::start_with(|config| config.node.reground_after = Duration::ZERO).await;
    let mut stream = node.stream().await;
    stream.set([target("r", "the red ones"), hinted("one", "the red one", CountHint::One)]).await;
    let at = |dx: u32| Scene::new().with_box(RED, [20 + dx, 20, 90 + dx, 90]).with(RED, 180, 120);
    let found = stream
        .until(&at(0), |f| of(f, "r").verdict() == Verdict::Found && of(f, "one").verdict() == Verdict::Ambiguous)
        .await;
    let ids = |f: &wire::FrameResult| of(f, "r").instances.iter().map(|i| i.instance_id).collect::<Vec<_>>();
    let first = ids(&found);
    assert_eq!(first.len(), 2);
    for step in 1..8 {
        let scene = at(4 * step);
        let frame = stream.exchange(&scene).await;
        assert_eq!(ids(&frame), first, "step {step}");
        // Largest first.
        assert!(iou(&of(&frame, "r").instances[0], &scene.truth(0)) > 0.95);
        assert!(iou(&of(&frame, "r").instances[1], &scene.truth(1)) > 0.95);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_is_looked_at_again() {
    let node = Running::start_with(|config| config.node.reground_after = Duration::ZERO).await;
    let mut stream = node.stream().await;
    stream.set([target("g", "green")]).await;
    let without = Scene::new().with(RED, 100, 80);
    let absent = stream.until_verdict(&without, "g", Verdict::Absent).await;
    assert!(of(&absent, "g").confidence > 0.5 && of(&absent, "g").error.is_none());
    let with = without.with(GREEN, 200, 80);
    let found = stream.until_verdict(&with, "g", Verdict::Found).await;
    assert!(iou(&of(&found, "g").instances[0], &with.truth(1)) > 0.95);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_lost_is_said_to_be_and_looked_for() {
    let node = Running::start_with(|config| config.node.reground_after = Duration::from_millis(1)).await;
    let mut stream = node.stream().await;
    stream.set([hinted("r", "red", CountHint::One), target("b", "blue")]).await;
    let both = Scene::new().with(BLUE, 20, 150).with(RED, 40, 30);
    let found =
        stream.until(&both, |f| of(f, "r").verdict() == Verdict::Found && of(f, "b").verdict() == Verdict::Found).await;
    let (red, blue) = (of(&found, "r").instances[0].instance_id, of(&found, "b").instances[0].instance_id);
    node.script.ground.gate.shut();
    let gone = Scene::new().with(BLUE, 20, 150);
    let lost = stream.until_verdict(&gone, "r", Verdict::Lost).await;
    assert_eq!(of(&lost, "r").confidence, 0.0);
    assert_eq!(of(&lost, "b").instances[0].instance_id, blue);
    assert_eq!(of(&stream.exchange(&gone).await, "r").verdict(), Verdict::Lost);
    node.script.ground.gate.open();
    stream.until_verdict(&gone, "r", Verdict::Absent).await;
    // Back, and somewhere else: "exactly one" makes it the same one.
    let back = Scene::new().with(BLUE, 20, 150).with(RED, 230, 30);
    let found = stream.until_verdict(&back, "r", Verdict::Found).await;
    assert!(iou(&of(&found, "r").instances[0], &back.truth(1)) > 0.95);
    assert_eq!(of(&found, "b").instances[0].instance_id, blue);
    assert_ne!(red, blue);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_instance_gets_its_id_back() {
    let node = Running::start().await;
    let mut stream = node.stream().await;
    stream.set([hinted("r", "red", CountHint::One)]).await;
    let here = Scene::new().with(RED, 40, 30);
    let found = stream.until_verdict(&here, "r", Verdict::Found).await;
    let id = of(&found, "r").instances[0].instance_id;
    // Too far to be followed in one step; the grounder finds it.
    let there = Scene::new().with(RED, 220, 150);
    let lost = stream.exchange(&there).await;
    assert_eq!(of(&lost, "r").verdict(), Verdict::Lost);
    let again = stream.until_verdict(&there, "r", Verdict::Found).await;
    assert_eq!(of(&again, "r").instances[0].instance_id, id);
    assert!(iou(&of(&again, "r").instances[0], &there.truth(0)) > 0.95);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_frame_size_loses_what_was_followed() {
    let node = Running::start().await;
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    stream.until_verdict(&Scene::new().with(RED, 40, 30), "r", Verdict::Found).await;
    let wide = Scene::sized(400, 240).with(RED, 40, 30);
    assert_eq!(of(&stream.exchange(&wide).await, "r").verdict(), Verdict::Lost);
    let found = stream.until_verdict(&wide, "r", Verdict::Found).await;
    assert!(iou(&of(&found, "r").instances[0], &wide.truth(0)) > 0.95);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mask_that_the_segmenter_doubts_is_never_found() {
    let node = Running::start().await;
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    let scene = Scene::new().with(RED, 100, 80);
    stream.until_verdict(&scene, "r", Verdict::Found).await;
    node.script.segment.doubt(true);
    // What was followed is lost, and what the grounder then names is not believed.
    assert_eq!(of(&stream.exchange(&scene).await, "r").verdict(), Verdict::Lost);
    let unsure = stream.until(&scene, |f| of(f, "r").verdict() != Verdict::Lost).await;
    assert_eq!((of(&unsure, "r").verdict(), of(&unsure, "r").instances.len()), (Verdict::Unsure, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_frame_gets_its_mask_when_revisions_are_wanted() {
    let node = Running::start().await;
    node.script.ground.gate.shut();
    let mut stream = node.stream().await;
    stream.options.revise = true;
    stream.set([target("r", "red"), target("k", "the kettle")]).await;
    let scene = Scene::new().with(RED, 100, 80);
    let first = stream.exchange(&scene).await;
    assert_eq!((of(&first, "r").verdict(), first.revision), (Verdict::Pending, 0));
    node.script.ground.gate.open();
    let mut last = stream.next().await;
    while of(&last, "k").verdict() == Verdict::Pending {
        last = stream.next().await;
    }
    assert_eq!(last.seq, first.seq);
    assert!((1..=2).contains(&last.revision));
    let instance = &of(&last, "r").instances[0];
    assert_eq!(instance.origin(), Origin::Grounded);
    assert!(iou(instance, &scene.truth(0)) > 0.95);
    assert_eq!(of(&last, "k").verdict(), Verdict::Unsure);
    assert_eq!(last.counters.expect("has counters").answered, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn png_masks_equal_run_lengths() {
    let node = Running::start().await;
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    let scene = Scene::new().with_box(RED, [11, 13, 70, 200]);
    stream.until_verdict(&scene, "r", Verdict::Found).await;
    let rle = stream.exchange(&scene).await;
    stream.options.mask_format = wire::MaskFormat::Png.into();
    let png = stream.exchange(&scene).await;
    let masks = [&rle, &png].map(|f| decode_mask(of(f, "r").instances[0].mask.as_ref().expect("has a mask")));
    assert_eq!(masks[0], masks[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_frames_give_the_same_bytes() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let node = Running::start().await;
        let mut stream = node.stream().await;
        stream.set([target("r", "red"), target("b", "blue")]).await;
        let at = |x| Scene::new().with(RED, x, 80).with(BLUE, 250 - x, 160);
        stream.until(&at(30), |f| ["r", "b"].iter().all(|id| of(f, id).verdict() == Verdict::Found)).await;
        let mut masks = Vec::new();
        for step in 1..15 {
            let frame = stream.exchange(&at(30 + 5 * step)).await;
            masks.push(["r", "b"].map(|id| rle(&of(&frame, id).instances[0])));
        }
        runs.push(masks);
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_stream_is_answered_to_the_end() {
    let node = Running::start().await;
    node.script.segment.gate.shut();
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    let scene = Scene::new().with(RED, 100, 80);
    stream.show(&scene).await;
    eventually("the first frame", || node.script.segment.begun() == 1).await;
    let last = stream.show(&scene).await;
    stream.close();
    node.script.segment.gate.open();
    assert_eq!(stream.next().await.seq, 1);
    assert_eq!(stream.next().await.seq, last);
    assert!(stream.message().await.expect("ends well").is_none());
}
