//! Budgets, clocks that jump, and numbers that come twice or out of order.

use std::time::Duration;

use sam4mllm::server::wire::{self, DropReason, ErrorCode, Origin, Verdict};
use tonic::Code;

use crate::harness::{RED, Running, Scene, dropped, error_of, eventually, iou, of, soon, target};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_is_over_before_work_is_spent() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 100, 80);
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    stream.until_verdict(&scene, "r", Verdict::Found).await;

    // It waits for its turn until it is too late: it is not even embedded.
    node.script.segment.gate.shut();
    let begun = node.script.segment.begun();
    let held = stream.show(&scene).await;
    eventually("the frame in work", || node.script.segment.begun() == begun + 1).await;
    stream.options.budget_ms = 1;
    stream.show(&scene).await;
    stream.barrier().await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    node.script.segment.gate.open();
    assert_eq!(stream.next().await.seq, held);
    stream.barrier().await;
    stream.options.budget_ms = 60_000;
    let next = stream.exchange(&scene).await;
    assert_eq!(dropped(&next), [(DropReason::Deadline, 1)].into());
    assert_eq!(node.script.segment.begun(), begun + 2);

    // SAM's encoder takes so long that it is too late for masks: the frame is dropped, and nothing is mislabelled.
    node.script.segment.set_delay(Duration::from_millis(1500));
    stream.options.budget_ms = 1000;
    stream.show(&scene).await;
    eventually("the late frame", || node.script.segment.begun() == begun + 3).await;
    node.script.segment.set_delay(Duration::ZERO);
    stream.options.budget_ms = 0;
    let moved = Scene::new().with(RED, 108, 84);
    // It may also come while the late one is in work, which changes nothing.
    let last = stream.exchange(&moved).await;
    assert_eq!(dropped(&last), [(DropReason::Deadline, 2)].into());
    let instance = &of(&last, "r").instances[0];
    assert_eq!((instance.mask_seq, instance.origin()), (last.seq, Origin::Tracked));
    assert!(iou(instance, &moved.truth(0)) > 0.95);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_s_budget_counts_from_its_receipt() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 100, 80);
    let asked = |budget_ms| wire::SegmentRequest {
        frame: Some(scene.frame(1)),
        command: "red".into(),
        options: Some(wire::Options { budget_ms, ..Default::default() }),
        ..Default::default()
    };
    let mut client = node.client().await;
    soon("an answer", client.segment(asked(60_000))).await.expect("answers in time");
    node.script.ground.gate.shut();
    let mut first = node.client().await;
    let begun = node.script.ground.begun();
    let request = asked(0);
    let held = tokio::spawn(async move { first.segment(request).await });
    eventually("the first call", || node.script.ground.begun() == begun + 1).await;
    // Behind the first one its time runs out; the node finds out when it next has something to do.
    let request = asked(1);
    let late = tokio::spawn(async move { client.segment(request).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    node.script.ground.gate.open();
    soon("the first answer", held).await.expect("does not panic").expect("has no budget");
    let status = soon("the second", late).await.expect("does not panic").expect_err("is late");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert_eq!(node.script.ground.begun(), begun + 1, "no pass was spent on it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_robot_s_clock_may_jump() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 100, 80);
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    let found = stream.until_verdict(&scene, "r", Verdict::Found).await;
    let id = of(&found, "r").instances[0].instance_id;
    let stamps = [i64::MAX, i64::MIN, 0, -1, 5, 5, 1_700_000_000_000_000_000, 1];
    let mut back = 0;
    let mut last = 1_000_000 + found.seq as i64;
    for (at, stamp_ns) in (found.seq + 1..).zip(stamps) {
        back += u64::from(stamp_ns < last);
        last = stamp_ns;
        stream.frame(wire::Frame { stamp_ns, ..scene.frame(at) }).await;
        let Some(wire::perceive_response::Response::Frame(frame)) = stream.message().await.expect("goes on") else {
            panic!("a stamp is no reason to refuse a frame")
        };
        assert_eq!((frame.seq, frame.stamp_ns), (at, stamp_ns));
        let instance = &of(&frame, "r").instances[0];
        // Ages are of the node's own clock, which only goes on.
        assert!(instance.mask_age_ms == 0 && instance.grounded_age_ms < 60_000, "{instance:?}");
        assert_eq!((instance.instance_id, instance.mask_seq, instance.origin()), (id, at, Origin::Tracked));
        assert_eq!(frame.counters.expect("has counters").stamps_back, back, "at {stamp_ns}");
    }
    assert_eq!(back, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_come_twice_or_out_of_order_are_refused_and_counted() {
    let node = Running::start().await;
    let at = |x: u32| Scene::new().with(RED, x, 80);
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    let found = stream.until_verdict(&at(40), "r", Verdict::Found).await;
    let id = of(&found, "r").instances[0].instance_id;
    // What arrives, each with the object where it was when that frame was taken: 1 twice, 3 and 2 swapped, then an old one.
    let base = found.seq;
    let order = [1, 1, 3, 2, 4, 1, 6, 6, 5, 7];
    let (mut newest, mut refused) = (0, 0);
    for step in order {
        let scene = at(40 + 4 * step);
        let seq = base + u64::from(step);
        stream.frame(scene.frame(seq)).await;
        if step <= newest {
            let said = stream.refusal().await;
            assert_eq!((said.seq, error_of(&said.error)), (Some(seq), Some(ErrorCode::FrameOrder)));
            refused += 1;
            continue;
        }
        newest = step;
        let frame = stream.next().await;
        assert_eq!(frame.seq, seq);
        let instance = &of(&frame, "r").instances[0];
        assert_eq!((instance.instance_id, instance.mask_seq), (id, seq));
        assert!(iou(instance, &scene.truth(0)) > 0.95, "the mask of {seq} is of {seq}");
        let expected = [(DropReason::OutOfOrder, refused)].into_iter().filter(|(_, n)| *n > 0).collect();
        assert_eq!(dropped(&frame), expected);
    }
    assert_eq!(refused, 5);
    // The largest number there is ends nothing but the numbers.
    stream.frame(wire::Frame { stamp_ns: 0, ..at(68).frame(u64::MAX - 1) }).await;
    stream.message().await.expect("goes on");
    stream.frame(at(68).frame(u64::MAX - 2)).await;
    assert_eq!(error_of(&stream.refusal().await.error), Some(ErrorCode::FrameOrder));
}
