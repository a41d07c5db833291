//! Outputs that one engine hands to another on the device.

use std::sync::Arc;

use sam4mllm::engine::tensorrt::TensorRtEngine;
use sam4mllm::engine::{Engine, EngineErrorKind as Kind, Held, Tensor};

use crate::caches::used;
use crate::plans::{IN_PLACE, LATE, cause, fail_at, floats, load, plus};

const ENCODER: &str = "input pixels f32 1 8\noutput coarse f32 1 4 = pixels\noutput fine f16 1 2 8 = pixels\n";
const DECODER: &str = "input coarse f32 1 4\ninput fine f16 1 2 8\ninput points f32 n 2\noutput masks f32 1 4 = coarse\n\
    output edges f32 1 2 8 = fine\noutput scores f32 n 2 = points\nprofile n=1:2:4\n";

/// Eight pixels, the first of them `first`.
fn pixels(first: usize) -> Tensor<'static> {
    Tensor::f32(&[1, 8], (first..first + 8).map(|i| i as f32).collect::<Vec<_>>())
}

/// What the encoder makes of them.
fn seen(first: usize) -> [Tensor<'static>; 2] {
    let value = |i: usize, more: usize| (first + i % 8 + more) as f32;
    let coarse = (0..4).map(|i| value(i, 1000)).collect::<Vec<_>>();
    // Elements of 16 bits: even numbers above 2048.
    let fine = (0..16).map(|i| half::f16::from_f32(value(i, 2000)).to_f32()).collect::<Vec<_>>();
    [Tensor::f32(&[1, 4], coarse), Tensor::f32(&[1, 2, 8], fine)]
}

fn hold(encoder: &mut TensorRtEngine, first: usize) -> Box<dyn Held> {
    encoder.run_held(vec![("pixels", pixels(first))], &["coarse", "fine"]).expect("is held")
}

/// Hands `held`, of `first`, to the decoder, and looks at what comes of it.
fn decode(decoder: &mut TensorRtEngine, held: &dyn Held, first: usize) {
    let points = floats(&[2, 2]);
    let answer = decoder.run_with(held, vec![("points", points.view())], &["scores", "edges", "masks"]).expect("runs");
    let [coarse, fine] = seen(first);
    assert_eq!(answer, [plus(&points, 3000), plus(&fine, 2000), plus(&coarse, 1000)], "of {first}");
}

/// Neither up nor down; an output stays what it was when the engine runs again.
pub fn outputs_stay_on_the_device() {
    let (mut encoder, mut decoder) = (load(ENCODER), load(DECODER));
    assert!(encoder.can_hold());
    fail_at("cuMemcpyDtoHAsync");
    let first = hold(&mut encoder, 0);
    let second = hold(&mut encoder, 10);
    fail_at("");
    let shapes: Vec<_> = first.infos().iter().map(|info| (info.name.as_str(), info.shape.clone())).collect();
    assert_eq!(shapes, [("coarse", vec![Some(1), Some(4)]), ("fine", vec![Some(1), Some(2), Some(8)])]);
    for _ in 0..2 {
        decode(&mut decoder, &*first, 0);
        decode(&mut decoder, &*second, 10);
    }
    assert_eq!(first.fetch().expect("is fetched"), seen(0));
    assert_eq!(second.fetch().expect("is fetched"), seen(10));
    // All that this decoder takes is on the device.
    let mut all = load("input coarse f32 1 4\noutput masks f32 1 4 = coarse\n");
    let alone = encoder.run_held(vec![("pixels", pixels(20))], &["coarse"]).expect("is held");
    fail_at("cuMemcpyHtoDAsync");
    let answer = all.run_with(&*alone, vec![], &["masks"]).expect("runs");
    assert_eq!(answer, [plus(&seen(20)[0], 1000)]);
}

/// Every frame has other memory, and both engines compute on the same: by graphs from the third frame on.
pub fn what_is_handed_over_goes_by_graphs() {
    let (mut encoder, mut decoder) = (load(ENCODER), load(DECODER));
    let mut frames = Vec::new();
    for first in 0..5 {
        if first == 2 {
            fail_at("enqueueV3");
        }
        let held = hold(&mut encoder, first);
        decode(&mut decoder, &*held, first);
        frames.push(held);
    }
    assert_eq!((encoder.cuda_graphs(), decoder.cuda_graphs()), (1, 1));
    for (first, held) in frames.iter().enumerate() {
        decode(&mut decoder, &**held, first);
    }
    let taken = used();
    frames.clear();
    frames.extend((0..5).map(|first| hold(&mut encoder, first)));
    assert_eq!(used(), taken, "memory is used again");
}

/// What the decoder cannot read as it is goes by way of the host.
pub fn what_does_not_fit_is_fetched() {
    let mut encoder = load(ENCODER);
    let held = hold(&mut encoder, 3);
    let mut decoder = load(&DECODER.replace("fine f16", "fine f32"));
    decode(&mut decoder, &*held, 3);
    let mut lacking = load("input coarse f32 1 4\noutput masks f32 1 4 = coarse\n");
    let error = lacking.run_with(&*held, vec![], &["masks"]).expect_err("takes no such input");
    assert_eq!((error.kind(), error.tensor()), (Kind::Input, Some("fine")));
    let mut decoder = load(DECODER);
    let twice = vec![("points", floats(&[2, 2])), ("coarse", seen(3)[0].view().into_owned())];
    let error = decoder.run_with(&*held, twice, &["masks"]).expect_err("is there already");
    assert_eq!((error.kind(), error.tensor()), (Kind::Input, Some("coarse")));
    let error = decoder.run_with(&*held, vec![], &["masks"]).expect_err("is missing");
    assert_eq!((error.kind(), error.tensor()), (Kind::Input, Some("points")));
    let mut other = load(&DECODER.replace("coarse f32 1 4", "coarse f32 1 5"));
    let error = other.run_with(&*held, vec![("points", floats(&[2, 2]))], &["masks"]).expect_err("has another shape");
    assert_eq!((error.kind(), error.tensor()), (Kind::Input, Some("coarse")));
    for plan in [LATE, IN_PLACE] {
        let mut engine = load(plan);
        assert!(!engine.can_hold());
        assert_eq!(engine.run_held(vec![], &[]).expect_err("holds nothing").kind(), Kind::Input);
    }
}

pub fn a_failure_to_hand_over_is_told() {
    let (mut encoder, mut decoder) = (load(ENCODER), load(DECODER));
    let held = hold(&mut encoder, 1);
    decode(&mut decoder, &*held, 1);
    for call in ["cuMemAlloc", "cuEventCreate", "cuMemcpy2DAsync", "cuStreamSynchronize"] {
        fail_at(call);
        let error = encoder.run_held(vec![("pixels", pixels(2))], &["coarse", "fine"]).expect_err(call);
        assert_eq!(error.kind(), Kind::Run, "{call}");
        fail_at("");
    }
    for call in ["cuStreamWaitEvent", "cuMemcpy2DAsync"] {
        fail_at(call);
        let points = vec![("points", floats(&[2, 2]))];
        let error = decoder.run_with(&*held, points, &["masks"]).expect_err(call);
        assert!(cause(&error).to_string().contains("unspecified launch failure"), "{call}: {error}");
        fail_at("");
        decode(&mut decoder, &*held, 1);
    }
    for call in ["cuStreamCreate", "cuStreamWaitEvent", "cuMemHostAlloc", "cuMemcpyDtoHAsync", "cuStreamSynchronize"] {
        fail_at(call);
        assert_eq!(held.fetch().expect_err(call).kind(), Kind::Run);
        fail_at("");
        assert_eq!(held.fetch().expect("is fetched"), seen(1), "after {call}");
    }
    decode(&mut decoder, &*hold(&mut encoder, 4), 4);
}

/// It outlives its engine, and goes to another thread.
pub fn what_is_held_outlives_its_engine() {
    let mut encoder = load(ENCODER);
    let held: Arc<dyn Held> = Arc::from(hold(&mut encoder, 5));
    drop(encoder);
    let shared = Arc::clone(&held);
    let thread = std::thread::spawn(move || {
        let mut decoder = load(DECODER);
        decode(&mut decoder, &*shared, 5);
        shared.fetch().expect("is fetched")
    });
    assert_eq!(thread.join().expect("does not panic"), seen(5));
    drop(held);
}
