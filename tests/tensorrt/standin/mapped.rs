//! Memory that both sides have, as on a board whose GPU shares it with the CPU: the stand-in has it under two addresses,
//! and takes the GPU's alone from an engine; what it computes is there once the stream was waited for, and not before.

use sam4mllm::engine::tensorrt::{Buffers, Device, TensorRtEngine, TensorRtErrorKind};
use sam4mllm::engine::{Engine, EngineErrorKind as Kind, Tensor};

use crate::plans::{PAIR, be, cause, fail_at, floats, library, load, plus, whole, write};
use crate::{caches, cases, graphs, held};

/// Neither up nor down, in every size, by graphs too; each answer is that of its own inputs.
pub fn a_board_copies_nothing() {
    be("integrated");
    assert_eq!(Device::open().expect("a GPU").buffers(), Buffers::Mapped);
    for call in ["cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuMemcpy2DAsync"] {
        fail_at(call);
        let mut engine = load(PAIR);
        for (i, n) in [4, 4, 4, 64, 2, 4, 4, 4].into_iter().enumerate() {
            let x = plus(&floats(&[n, 3]), i as i32);
            let k = plus(&whole(&[n]), i as i32);
            let answer = engine.run(vec![("x", x.view()), ("k", k.view())], &["y", "m"]).expect(call);
            assert_eq!(answer, [plus(&x, 1000), plus(&k, 2000)], "pass {i}");
        }
        assert!(engine.cuda_graphs() > 0);
        let bytes = Tensor::u8(&[1, 2, 2, 3], (0..12).map(|i| i * 20).collect::<Vec<_>>());
        let mut engine = load("input pixels u8 1 2 2 3\noutput y f32 12 = pixels\n");
        let answer = engine.run(vec![("pixels", bytes)], &["y"]).expect(call);
        assert_eq!(answer, [Tensor::f32(&[12], (0..12).map(|i| (i * 20 + 1000) as f32).collect::<Vec<_>>())]);
    }
}

/// All else is as it is where everything is copied.
pub fn a_board_does_what_others_do() {
    be("integrated");
    cases::an_engine_answers_in_every_size();
    cases::elements_of_every_type_arrive();
    cases::an_output_may_find_its_own_size();
    cases::bad_inputs_are_refused_by_name();
    cases::an_engine_moves_between_threads();
    caches::a_cache_in_place_comes_and_goes_as_long_as_it_is();
    caches::a_cache_stays_on_the_device();
    caches::a_branch_of_a_cache_is_kept();
    graphs::a_graph_goes_with_its_memory();
    graphs::a_conversation_goes_on_by_one_graph();
    graphs::graphs_move_between_threads();
    held::what_does_not_fit_is_fetched();
    held::what_is_held_outlives_its_engine();
    held::outputs_stay_on_the_device();
    fail_at("");
    held::what_is_handed_over_goes_by_graphs();
}

/// Of one engine, on a device with buffers as they are wanted.
fn load_with(buffers: Buffers) -> TensorRtEngine {
    let (_folder, plan) = write(PAIR);
    let device = Device::open_with(buffers).expect("a GPU");
    TensorRtEngine::load("graph", library(), &device, &plan).expect("is loaded")
}

/// Each way can be had where the other is usual, but for one that the GPU cannot.
pub fn buffers_are_what_is_wanted() {
    let copies = |engine: &mut TensorRtEngine| {
        fail_at("cuMemcpyHtoDAsync");
        let answer = engine.run(vec![("x", floats(&[2, 3])), ("k", whole(&[2]))], &["y"]);
        fail_at("");
        answer.is_err()
    };
    for (kind, usual) in
        [("", Buffers::Copied), ("integrated", Buffers::Mapped), ("unmappable integrated", Buffers::Copied)]
    {
        be(kind);
        assert_eq!(Device::open().expect("a GPU").buffers(), usual, "{kind}");
        assert_eq!(copies(&mut load_with(Buffers::Auto)), usual == Buffers::Copied, "{kind}");
        assert!(copies(&mut load_with(Buffers::Copied)), "{kind}");
        match Device::open_with(Buffers::Mapped) {
            Ok(_) => assert!(!copies(&mut load_with(Buffers::Mapped)), "{kind}"),
            Err(error) => assert!(error.kind() == TensorRtErrorKind::Driver && kind.contains("unmappable"), "{error}"),
        }
    }
}

pub fn a_failure_to_map_is_told() {
    be("integrated");
    for call in ["cuMemHostAlloc", "cuMemHostGetDevicePointer"] {
        let mut engine = load(PAIR);
        let mut run = || engine.run(vec![("x", floats(&[2, 3])), ("k", whole(&[2]))], &["y"]);
        fail_at(call);
        let error = run().expect_err(call);
        assert_eq!(error.kind(), Kind::Run, "{call}: {}", cause(&error));
        fail_at("");
        assert_eq!(run().expect("runs once it can"), [plus(&floats(&[2, 3]), 1000)]);
    }
}
