//! Stages that panic are started again, engines and all; meanwhile masks are STALE and say why.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use sam4mllm::node::Stages;
use sam4mllm::pipeline::fake::{FakeSegment, Script};
use sam4mllm::server::Backend;
use sam4mllm::server::wire::{ErrorCode, Origin, Verdict};

use crate::harness::{RED, Running, Scene, Stream, backend, error_of, iou, of, target};

/// A node whose segment stage is built when `go` says so, and how often it was.
async fn gated(
    adjust: impl FnOnce(&mut sam4mllm::server::ServerConfig),
) -> (Running, mpsc::Sender<Result<(), &'static str>>, Arc<AtomicUsize>) {
    let script = Script::default();
    let (go, wait) = mpsc::channel();
    let (wait, play, built) = (Mutex::new(wait), script.segment.clone(), Arc::new(AtomicUsize::new(0)));
    let count = built.clone();
    let gated = Backend {
        stages: Stages {
            segment: Box::new(move || {
                let may: Result<(), &str> = wait.lock().expect("not poisoned").recv()?;
                may?;
                count.fetch_add(1, Ordering::SeqCst);
                Ok(Box::new(FakeSegment::new(play.clone())))
            }),
            ..backend(&script).stages
        },
        ..backend(&script)
    };
    go.send(Ok(())).expect("the factory waits");
    let node = Running::launch(gated, script, |config| {
        config.node.reground_after = Duration::from_secs(3600);
        config.node.stale_limit = Duration::from_secs(3600);
        config.node.restart_backoff = Duration::from_millis(1);
        adjust(config);
    })
    .await;
    node.ready().await;
    (node, go, built)
}

async fn following(node: &Running, scene: &Scene) -> (Stream, u64) {
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    let found = stream.until_verdict(scene, "r", Verdict::Found).await;
    (stream, of(&found, "r").instances[0].instance_id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn masks_are_stale_until_the_stage_is_back_and_ids_stay() {
    let (node, go, built) = gated(|_| {}).await;
    let scene = Scene::new().with(RED, 100, 80);
    let (mut stream, id) = following(&node, &scene).await;
    node.script.segment.panic(1);
    // The frame that it panicked on, and all those that come while its engines load.
    for _ in 0..5 {
        let frame = stream.exchange(&scene).await;
        let result = of(&frame, "r");
        assert_eq!((result.verdict(), error_of(&result.error)), (Verdict::Found, Some(ErrorCode::Stage)));
        let [instance] = &result.instances[..] else { panic!("{result:?}") };
        assert_eq!((instance.origin(), instance.instance_id), (Origin::Stale, id));
        assert!(instance.mask_seq < frame.seq);
    }
    assert_eq!(built.load(Ordering::SeqCst), 1);
    go.send(Ok(())).expect("the factory waits");
    let scene = Scene::new().with(RED, 106, 80);
    let back = stream.until(&scene, |f| of(f, "r").error.is_none()).await;
    let [instance] = &of(&back, "r").instances[..] else { panic!("{back:?}") };
    assert_eq!((instance.origin(), instance.instance_id), (Origin::Tracked, id));
    assert!(iou(instance, &scene.truth(0)) > 0.95);
    assert_eq!(built.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_panics_again_and_cannot_be_built_at_once_comes_back_too() {
    let (node, go, built) = gated(|_| {}).await;
    let scene = Scene::new().with(RED, 100, 80);
    let (mut stream, id) = following(&node, &scene).await;
    node.script.segment.panic(3);
    // Three panics in a row, the bundle is away for a moment, then all is well.
    let answers = [Ok(()), Ok(()), Err("the bundle is being replaced"), Ok(())];
    answers.into_iter().for_each(|answer| go.send(answer).expect("the factory is there"));
    let back = stream.until(&scene, |f| of(f, "r").error.is_none()).await;
    assert_eq!(of(&back, "r").instances[0].instance_id, id);
    assert_eq!(of(&back, "r").instances[0].origin(), Origin::Tracked);
    assert_eq!(built.load(Ordering::SeqCst), 4);
    // New sessions are taken again.
    node.lets_in().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_is_never_well_stays_down() {
    let (node, go, built) = gated(|config| config.node.stage_restarts = 3).await;
    let scene = Scene::new().with(RED, 100, 80);
    let (mut stream, _) = following(&node, &scene).await;
    node.script.segment.panic(u64::MAX);
    (0..8).for_each(|_| go.send(Ok(())).expect("the factory is there"));
    let said = |f: &sam4mllm::server::wire::FrameResult| of(f, "r").error.as_ref().map(|e| e.message.clone());
    let down = stream.until(&scene, |f| said(f).is_some_and(|m| m.contains("4 times in a row"))).await;
    assert_eq!(of(&down, "r").instances[0].origin(), Origin::Stale);
    assert_eq!(built.load(Ordering::SeqCst), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_hangs_is_told_and_nobody_else_waits_for_it() {
    let node = Running::start_with(|config| {
        config.node.reground_after = Duration::from_secs(3600);
        config.node.stale_limit = Duration::from_secs(3600);
        config.node.stage_hang = Duration::from_millis(200);
    })
    .await;
    let scene = Scene::new().with(RED, 100, 80);
    let (mut stream, id) = following(&node, &scene).await;
    let (mut other, _) = following(&node, &scene).await;
    let ready = async || {
        let mut client = node.client().await;
        client.describe(sam4mllm::server::wire::DescribeRequest {}).await.expect("describes").into_inner().ready
    };
    node.script.segment.gate.shut();
    let begun = node.script.segment.begun();
    let held = other.show(&scene).await;
    crate::harness::eventually("the frame in work", || node.script.segment.begun() > begun).await;
    // Whoever does not wait for the very frame that it hangs at has masks that say how old they are.
    let stale = stream.until(&scene, |f| of(f, "r").error.is_some()).await;
    let result = of(&stale, "r");
    assert_eq!((result.verdict(), error_of(&result.error)), (Verdict::Found, Some(ErrorCode::Stage)));
    assert_eq!((result.instances[0].origin(), result.instances[0].instance_id), (Origin::Stale, id));
    assert!(!ready().await);
    node.script.segment.gate.open();
    assert_eq!(other.next().await.seq, held);
    stream.until(&scene, |f| of(f, "r").error.is_none()).await;
    crate::harness::soon("readiness", async {
        while !ready().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
