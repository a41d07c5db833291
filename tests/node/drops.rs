//! The newest frame wins, every drop is counted, and nobody starves.

use std::time::Duration;

use sam4mllm::server::wire::{self, DropReason, Verdict};

use crate::harness::{RED, Running, Scene, dropped, eventually, target};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_segmenter_gets_the_newest_frame() {
    let node = Running::start().await;
    node.script.segment.gate.shut();
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    let scene = Scene::new().with(RED, 100, 80);
    stream.show(&scene).await;
    eventually("the first frame", || node.script.segment.begun() == 1).await;
    for _ in 2..=10 {
        stream.show(&scene).await;
    }
    stream.barrier().await;
    node.script.segment.gate.open();
    let first = stream.next().await;
    assert_eq!(first.seq, 1);
    let counters = first.counters.as_ref().expect("has counters");
    assert_eq!((counters.received, counters.answered, counters.waiting), (10, 1, 1));
    let last = stream.next().await;
    assert_eq!(last.seq, 10);
    assert_eq!(dropped(&last), [(DropReason::Superseded, 8)].into());
    let counters = last.counters.expect("has counters");
    assert_eq!((counters.received, counters.answered, counters.waiting), (10, 2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_overdue_frame_is_dropped() {
    // Without drafts between, for the second frame's turn comes with the first one's reply, not some time after.
    let node = Running::start_with(|config| {
        config.node.reground_after = Duration::from_secs(3600);
        config.node.draft_wait = Duration::ZERO;
    })
    .await;
    node.script.segment.gate.shut();
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    let scene = Scene::new().with(RED, 100, 80);
    stream.show(&scene).await;
    eventually("the first frame", || node.script.segment.begun() == 1).await;
    stream.options.max_wait_ms = 1;
    stream.show(&scene).await;
    stream.barrier().await;
    // Time itself is what is tested.
    tokio::time::sleep(Duration::from_millis(5)).await;
    node.script.segment.gate.open();
    assert_eq!(stream.next().await.seq, 1);
    stream.barrier().await;
    stream.options.max_wait_ms = 60_000;
    let third = stream.exchange(&scene).await;
    assert_eq!(dropped(&third), [(DropReason::Deadline, 1)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_adds_up() {
    let node = Running::start().await;
    node.script.segment.set_delay(Duration::from_millis(3));
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    let scene = Scene::new().with(RED, 100, 80);
    let jpeg = scene.frame(0);
    for seq in 1..=300 {
        let mut frame = jpeg.clone();
        (frame.seq, frame.stamp_ns) = (seq, 1_000_000 + seq as i64);
        stream.frame(frame).await;
    }
    let (mut last, mut answered) = (stream.next().await, 1);
    while last.seq < 300 {
        last = stream.next().await;
        answered += 1;
    }
    let counters = last.counters.as_ref().expect("has counters");
    assert_eq!((counters.received, counters.answered, counters.waiting), (300, answered, 0));
    let superseded = dropped(&last).get(&DropReason::Superseded).copied().unwrap_or(0);
    assert_eq!(superseded, 300 - answered);
    assert!(superseded > 0, "300 frames at 3 ms each came one by one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_holds_up_nobody() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 100, 80);
    let mut idle = node.stream().await;
    // Many targets with evidence make replies of 10 kB.
    let targets: Vec<_> = (0..16).map(|i| target(&format!("{i}"), "red")).collect();
    idle.set(targets).await;
    idle.until(&scene, |f| f.targets.iter().all(|t| t.verdict() == Verdict::Found)).await;
    idle.options.evidence = true;
    let before = idle.exchange(&scene).await.counters.expect("has counters");
    let mut busy = node.stream().await;
    busy.set([target("r", "red")]).await;
    busy.until_verdict(&scene, "r", Verdict::Found).await;
    // Each frame of the other session leaves the node time for one of this: more than all buffers on the way hold.
    let end = before.received + 80;
    for seq in before.received + 1..=end {
        idle.frame(wire::Frame { seq, stamp_ns: 1_000_000 + seq as i64, ..scene.frame(0) }).await;
        busy.exchange(&scene).await;
    }
    // It can still be read to its newest frame, and nothing that counts as answered was lost.
    let (mut last, mut read) = (idle.next().await, 1);
    while last.seq < end {
        last = idle.next().await;
        read += 1;
    }
    let counters = last.counters.expect("has counters");
    assert_eq!((counters.received, counters.answered), (end, before.answered + read));
    assert!(read < 50, "a reader that stops gets what is new, not a backlog");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_take_turns() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 100, 80);
    let (mut a, mut b) = (node.stream().await, node.stream().await);
    for stream in [&mut a, &mut b] {
        stream.set([target("r", "red")]).await;
        stream.until_verdict(&scene, "r", Verdict::Found).await;
    }
    node.script.segment.set_delay(Duration::from_millis(100));
    // Whoever was served last waits for the other one, also where the other's frame came later.
    for _ in 0..2 {
        node.script.segment.gate.shut();
        let begun = node.script.segment.begun();
        a.show(&scene).await;
        eventually("the frame in work", || node.script.segment.begun() > begun).await;
        let again = a.show(&scene).await;
        a.barrier().await;
        b.show(&scene).await;
        b.barrier().await;
        node.script.segment.gate.open();
        let (other, _, second) = (b.next().await, a.next().await, a.next().await);
        assert_eq!(second.seq, again);
        // A pass takes 100 ms, an order of magnitude more than what happens to a reply after it.
        assert!(other.sent_ns < second.sent_ns);
        std::mem::swap(&mut a, &mut b);
    }
}
