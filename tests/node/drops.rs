//! The newest frame wins, every drop is counted, and nobody starves.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use sam4mllm::server::wire::{DropReason, Verdict};

use crate::harness::{RED, Running, Scene, dropped, eventually, of, soon, target};

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
    let node = Running::start().await;
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
    idle.set([target("r", "red")]).await;
    for _ in 0..200 {
        idle.show(&scene).await;
    }
    let mut busy = node.stream().await;
    busy.set([target("r", "red")]).await;
    busy.until_verdict(&scene, "r", Verdict::Found).await;
    for _ in 0..20 {
        busy.exchange(&scene).await;
    }
    // It can still be read to its newest frame.
    while idle.next().await.seq < 200 {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sessions_take_turns() {
    let node = Running::start().await;
    node.script.segment.set_delay(Duration::from_millis(5));
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for name in ["a", "b"] {
        let mut stream = node.stream().await;
        let order = order.clone();
        tasks.push(async move {
            let scene = Scene::new().with(RED, 100, 80);
            stream.set([target("r", "red")]).await;
            // Segmenting needs an embedding each time, and a frame always waits.
            stream.until_verdict(&scene, "r", Verdict::Found).await;
            stream.show(&scene).await;
            for _ in 0..30 {
                stream.show(&scene).await;
                let frame = stream.next().await;
                assert_eq!(of(&frame, "r").verdict(), Verdict::Found);
                order.lock().expect("not poisoned").push(name);
            }
        });
    }
    let b = tasks.pop().expect("two tasks");
    let a = tasks.pop().expect("two tasks");
    let (a, b) = (tokio::spawn(a), tokio::spawn(b));
    soon("the sessions", async {
        a.await.expect("does not panic");
        b.await.expect("does not panic");
    })
    .await;
    // From where both are at it to where the first is done.
    let order = order.lock().expect("not poisoned");
    let both = order.iter().position(|n| *n != order[0]).expect("both are served");
    let shared = &order[both..both + 20.min(order.len() - both)];
    let of_a = shared.iter().filter(|n| **n == "a").count();
    assert!((6..=14).contains(&of_a), "{order:?}");
}
