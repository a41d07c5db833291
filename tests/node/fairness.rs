//! One camera that sends more than can be answered slows nobody else down. Counted in passes, not in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sam4mllm::server::wire::{self, Verdict};

use crate::harness::{BLUE, RED, Running, Scene, Stream, eventually, of, soon, target};

/// Sends as fast as the node reads, and reads what comes, until it is told to stop. Gives the replies' number.
fn flood(mut stream: Stream, stop: Arc<AtomicBool>, targets: usize) -> tokio::task::JoinHandle<u64> {
    tokio::spawn(async move {
        let scene = Scene::new().with(RED, 100, 80);
        let frame = scene.frame(0);
        let (mut seq, mut read) = (0, 0);
        while !stop.load(Ordering::SeqCst) {
            seq += 1;
            // Every frame has new targets: each wants the grounder at once.
            stream.set((0..targets).map(|i| target(&format!("{seq} {i}"), "red")).collect::<Vec<_>>()).await;
            stream.frame(wire::Frame { seq, stamp_ns: 1_000_000 + seq as i64, ..frame.clone() }).await;
            while let Some(reply) = stream.ready().await {
                read = reply.counters.expect("has counters").answered;
            }
        }
        read
    })
}

/// Each pass takes this long: what happens between two requests is little beside it.
const PASS: Duration = Duration::from_millis(20);

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flooding_camera_starves_nobody() {
    let node = Running::start().await;
    node.script.segment.set_delay(PASS);
    node.script.ground.set_delay(PASS);
    let stop = Arc::new(AtomicBool::new(false));
    let floods = [flood(node.stream().await, stop.clone(), 16), flood(node.stream().await, stop.clone(), 16)];
    let scene = Scene::new().with(RED, 100, 80).with(BLUE, 220, 30);
    let mut quiet = node.stream().await;
    eventually("the flood", || node.script.ground.begun() > 8 && node.script.segment.begun() > 8).await;
    quiet.set([target("b", "blue")]).await;
    let mut passes = Vec::new();
    for _ in 0..15 {
        quiet.barrier().await;
        let begun = node.script.segment.begun();
        quiet.exchange(&scene).await;
        passes.push(node.script.segment.begun() - begun);
    }
    // A turn of each: the frame in work, one of either flooder, its own, and what begins while its reply travels.
    assert!(median(passes.clone()) <= 6, "passes for each frame: {passes:?}");
    // New targets have their turn at the grounder too, before the sixteen new ones that either flooder always has.
    let mut passes = Vec::new();
    for round in 0..7 {
        let id = format!("b{round}");
        let begun = node.script.ground.begun();
        quiet.set([target(&id, "blue")]).await;
        let seen = quiet.until(&scene, |f| of(f, &id).verdict() == Verdict::Found).await;
        assert!(!of(&seen, &id).instances.is_empty());
        passes.push(node.script.ground.begun() - begun);
    }
    assert!(median(passes.clone()) <= 12, "passes until a new target was found: {passes:?}");
    stop.store(true, Ordering::SeqCst);
    for flood in floods {
        assert!(soon("the flood's end", flood).await.expect("does not panic") > 0, "nobody is shut out");
    }
}
