//! CUDA graphs: the stand-in ends the process where work is captured that was not enqueued before with its shapes, and
//! where a graph is launched whose context was changed or whose memory is gone.

use sam4mllm::engine::tensorrt::{TensorRtEngine, failed_captures};
use sam4mllm::engine::{Engine, EngineErrorKind as Kind, Tensor};

use crate::caches::{bias, embeds, tokens_of};
use crate::plans::{IN_PLACE, LATE, PAIR, cause, fail_at, floats, load, plus, whole};

/// One pass over `n` rows, whose answers are looked at.
fn run(engine: &mut TensorRtEngine, n: usize) {
    let (x, k) = (floats(&[n, 3]), whole(&[n]));
    let answer = engine.run(vec![("x", x.view()), ("k", k.view())], &["y", "m"]).expect("runs");
    assert_eq!(answer, [plus(&x, 1000), plus(&k, 2000)], "of size {n}");
}

/// The second pass of a size is captured, the third launched; other sizes in between change nothing.
pub fn what_comes_again_is_captured() {
    let mut engine = load(PAIR);
    for (n, graphs) in [(4, 0), (4, 1), (4, 1), (2, 1), (4, 1), (2, 2), (2, 2), (4, 2), (3, 2)] {
        run(&mut engine, n);
        assert_eq!(engine.cuda_graphs(), graphs, "after {n}");
    }
    assert!(engine.times().expect("was timed").compute_ms >= 0.0);
    // Launched without TensorRT, with elements of its own.
    fail_at("enqueueV3");
    let (x, k) = (Tensor::f32(&[2, 3], vec![7.0; 6]), whole(&[2]));
    let answer = engine.run(vec![("x", x.view()), ("k", k.view())], &["y"]).expect("is launched");
    assert_eq!(answer, [plus(&x, 1000)]);
    let error = engine.run(vec![("x", floats(&[3, 3])), ("k", whole(&[3]))], &["y"]).expect_err("is enqueued");
    assert!(cause(&error).to_string().contains("told to fail at enqueueV3"), "{error}");
}

/// Buffers that grow take the graphs' addresses with them.
pub fn a_graph_goes_with_its_memory() {
    let mut engine = load(PAIR);
    for n in [4, 4, 4, 64, 4, 4, 4, 64, 64, 64, 4] {
        run(&mut engine, n);
    }
    for n in (1..=20).flat_map(|n| [n, n]) {
        run(&mut engine, n);
    }
    assert_eq!(engine.cuda_graphs(), 8, "no more are kept");
    // Those of profiles that are not the first, too.
    let mut engine = load("input x f32 n\noutput y f32 n = x\nprofile n=1:8:64\nprofile n=1:1:1\n");
    for n in [1, 5, 1, 5, 1, 5] {
        let answer = engine.run(vec![("x", floats(&[n]))], &["y"]).expect("runs");
        assert_eq!(answer, [plus(&floats(&[n]), 1000)]);
    }
    assert_eq!(engine.cuda_graphs(), 2);
}

/// What cannot be captured is enqueued: the pass itself is not lost, and after some passes of the engine, of whatever
/// kind, a capture is tried again.
pub fn what_cannot_be_captured_is_enqueued() {
    let calls = [
        "cuStreamBeginCapture",
        "cuStreamEndCapture",
        "cuGraphInstantiate",
        "isStreamCapturable",
        "createExecutionContext",
    ];
    for call in calls {
        fail_at("");
        let mut engine = load(PAIR);
        run(&mut engine, 4);
        fail_at(call);
        run(&mut engine, 4);
        fail_at("");
        for _ in 0..3 {
            run(&mut engine, 4);
        }
        assert_eq!(engine.cuda_graphs(), 0, "{call}");
        let before = failed_captures();
        // Another computation waits with it.
        for i in 0..29 {
            run(&mut engine, if i < 3 { 2 } else { 4 });
        }
        assert_eq!(engine.cuda_graphs(), 0, "{call}: not yet");
        // Again in vain: twice as many passes.
        fail_at(call);
        run(&mut engine, 4);
        fail_at("");
        assert_eq!(failed_captures() - before, 1, "{call}");
        for _ in 0..64 {
            run(&mut engine, 4);
        }
        assert_eq!(engine.cuda_graphs(), 0, "{call}: not yet again");
        run(&mut engine, 4);
        assert_eq!(engine.cuda_graphs(), 1, "{call}");
        // And then nothing waits any longer.
        run(&mut engine, 2);
        assert_eq!(engine.cuda_graphs(), 2, "{call}");
    }
    let mut engine = load(LATE);
    for _ in 0..3 {
        let x = floats(&[4]);
        assert_eq!(engine.run(vec![("x", x.view())], &["z"]).expect("runs"), [plus(&x, 2000)]);
    }
    assert_eq!(engine.cuda_graphs(), 0, "memory that is found late cannot be captured");
}

pub fn graphs_can_be_switched_off() {
    let mut engine = load(PAIR);
    engine.set_cuda_graphs(false);
    fail_at("cuStreamBeginCapture");
    for _ in 0..4 {
        run(&mut engine, 4);
    }
    assert_eq!(engine.cuda_graphs(), 0);
    fail_at("");
    engine.set_cuda_graphs(true);
    for graphs in [0, 1, 1] {
        run(&mut engine, 4);
        assert_eq!(engine.cuda_graphs(), graphs);
    }
    engine.set_cuda_graphs(false);
    run(&mut engine, 4);
    assert_eq!(engine.cuda_graphs(), 0);
}

/// A failure of a launch is told, and outlived.
pub fn a_failure_to_launch_is_told() {
    let mut engine = load(PAIR);
    for _ in 0..3 {
        run(&mut engine, 4);
    }
    for call in ["cuGraphLaunch", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync"] {
        fail_at(call);
        let error = engine.run(vec![("x", floats(&[4, 3])), ("k", whole(&[4]))], &["y"]).expect_err(call);
        assert_eq!(error.kind(), Kind::Run);
        assert!(cause(&error).to_string().contains("unspecified launch failure"), "{call}: {error}");
        fail_at("");
        run(&mut engine, 4);
    }
}

/// Where contexts cannot share their kernels, they do without.
pub fn contexts_need_not_share_kernels() {
    for call in ["createRuntimeConfig", "setRuntimeCache"] {
        fail_at(call);
        let mut engine = load(PAIR);
        for _ in 0..3 {
            run(&mut engine, 4);
        }
        assert_eq!(engine.cuda_graphs(), 1, "{call}");
    }
}

/// The context of a pass that is to be captured outlives its work, where that fails too.
pub fn a_failure_before_the_capture_is_outlived() {
    for call in ["cuMemcpyDtoHAsync", "cuStreamSynchronize", "cuGraphInstantiate"] {
        let mut engine = load(PAIR);
        run(&mut engine, 4);
        fail_at(call);
        let answer = engine.run(vec![("x", floats(&[4, 3])), ("k", whole(&[4]))], &["y"]);
        assert_eq!(answer.is_err(), call != "cuGraphInstantiate", "{call}");
        fail_at("");
        for _ in 0..3 {
            run(&mut engine, 4);
        }
        assert_eq!(engine.cuda_graphs(), usize::from(call != "cuGraphInstantiate"), "{call}");
    }
}

/// Captured on one thread, launched on another, dropped on a third.
pub fn graphs_move_between_threads() {
    let mut engine = load(PAIR);
    for _ in 0..4 {
        let thread = std::thread::spawn(move || {
            run(&mut engine, 4);
            engine
        });
        engine = thread.join().expect("does not panic");
    }
    assert_eq!(engine.cuda_graphs(), 1);
    std::thread::spawn(move || drop(engine)).join().expect("does not panic");
}

/// One token after the other has one shape: where it goes is an input on the device, and what lies behind the
/// conversation is masked.
pub fn a_conversation_goes_on_by_one_graph() {
    let plan = format!("{IN_PLACE}output seen f32 1 1 s t = attention_bias\n");
    let mut engine = load(&plan);
    let start = engine.empty_cache().expect("keeps caches");
    for conversation in 0..3 {
        let first = 10 * conversation;
        let mut held = start.share();
        for token in first..first + 7 {
            let inputs = vec![("inputs_embeds", embeds(token, 1)), ("attention_bias", bias(1, held.tokens() + 1))];
            let (answers, grown) = engine.run_resident(inputs, &*held, &["seen"]).expect("runs");
            held = grown;
            // Eight positions are all that there is room for.
            let seen: Vec<f32> = answers[0].as_f32().expect("is of floats").iter().map(|bias| bias - 4000.0).collect();
            let open = seen.iter().filter(|bias| **bias == 0.0).count();
            assert_eq!((seen.len(), open), (8, held.tokens()), "{seen:?}");
            assert!(seen[open..].iter().all(|bias| *bias == -3.0e4), "{seen:?}");
        }
        let all: Vec<_> = (first..first + 7).collect();
        assert_eq!(tokens_of(&mut engine, &*held), all);
        assert_eq!(engine.cuda_graphs(), 1, "of one shape, in one memory");
    }
    // In another memory, it is another computation.
    let held: Vec<_> = (0..3).map(|i| crate::caches::go_on(&mut engine, &*start, 40 + i, 1)).collect();
    let tokens: Vec<_> = held.iter().map(|held| tokens_of(&mut engine, &**held)).collect();
    assert_eq!(tokens, [[40], [41], [42]]);
    // Several rows are padded each for itself.
    let inputs = vec![("inputs_embeds", embeds(50, 2)), ("attention_bias", bias(2, 3))];
    let (answers, _) = engine.run_resident(inputs, &*held[0], &["seen"]).expect("runs");
    let seen: Vec<bool> = answers[0].as_f32().expect("is of floats").iter().map(|bias| *bias == 4000.0).collect();
    let row = [true, true, true, false, false, false, false, false];
    assert_eq!((answers[0].shape(), seen), (&[1, 1, 2, 8][..], [row, row].concat()));
}
