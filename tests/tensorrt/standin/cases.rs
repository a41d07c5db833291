//! What works.

use sam4mllm::engine::tensorrt::{Device, Gpu, Runtime, TensorRtErrorKind};
use sam4mllm::engine::{DataType, Engine, EngineErrorKind as Kind, Tensor};

use crate::plans::{LATE, PAIR, cause, fail_at, floats, library, load, plus, whole, write};

/// Buffers grow, are kept, and are never read before the GPU is done.
pub fn an_engine_answers_in_every_size() {
    let mut engine = load(PAIR);
    let info = |name: &str| engine.inputs().iter().find(|info| info.name == name).expect("is an input").clone();
    assert_eq!((info("x").data_type, info("x").shape), (DataType::F32, vec![None, Some(3)]));
    assert_eq!((info("k").data_type, info("k").shape), (DataType::I32, vec![None]));
    assert_eq!(engine.outputs().len(), 2);
    assert!(engine.times().is_none());
    for n in [2, 1, 5, 64, 3, 40, 2] {
        let (x, k) = (floats(&[n, 3]), whole(&[n]));
        // In another order than the plan's, and twice the same output.
        let answer = engine.run(vec![("k", k.view()), ("x", x.view())], &["m", "y", "m"]).expect("runs");
        assert_eq!(answer, [plus(&k, 2000), plus(&x, 1000), plus(&k, 2000)], "of size {n}");
        let times = engine.times().expect("was timed");
        assert!(times.upload_ms >= 0.0 && times.compute_ms >= 0.0 && times.download_ms >= 0.0, "{times:?}");
    }
    let nothing = engine.run(vec![("k", whole(&[1])), ("x", floats(&[1, 3]))], &[]).expect("runs");
    assert!(nothing.is_empty());
}

pub fn elements_of_every_type_arrive() {
    for (kind, is_float) in [("f32", true), ("f16", true), ("i32", false), ("i64", false)] {
        let mut engine = load(&format!("input x {kind} 4\noutput y {kind} 4 = x\n"));
        let x = if is_float { floats(&[4]) } else { whole(&[4]) };
        let answer = engine.run(vec![("x", x.view())], &["y"]).expect("runs");
        assert_eq!(answer, [plus(&x, 1000)], "{kind}");
    }
    let bytes = Tensor::u8(&[3], vec![0, 7, 255]);
    let mut engine = load("input x u8 3\noutput y f32 3 = x\n");
    let answer = engine.run(vec![("x", bytes)], &["y"]).expect("runs");
    assert_eq!(answer, [Tensor::f32(&[3], vec![1000.0, 1007.0, 1255.0])]);
    let mut engine = load("input x bool 3\noutput y i32 3 = x\noutput z bool 3 = x\n");
    let answer = engine.run(vec![("x", Tensor::i32(&[3], vec![0, 1, 5]))], &["y", "z"]).expect("runs");
    assert_eq!(answer, [Tensor::i32(&[3], vec![1000, 1001, 1001]), Tensor::i32(&[3], vec![1, 1, 1])]);
}

pub fn an_output_may_find_its_own_size() {
    let mut engine = load(LATE);
    for n in [4, 1000, 1, 0, 7] {
        let x = floats(&[n]);
        let answer = engine.run(vec![("x", x.view())], &["y", "z"]).expect("runs");
        let half = n.div_ceil(2);
        let first = Tensor::f32(&[half], &x.as_f32().expect("is float")[..half]);
        assert_eq!(answer, [plus(&first, 1000), plus(&x, 2000)], "of size {n}");
    }
}

/// Both profiles take one token; the one that reaches no further is chosen, which costs a change of profile.
pub fn the_closest_profile_is_taken() {
    let mut engine = load("input x f32 n\noutput y f32 n = x\nprofile n=1:8:64\nprofile n=1:1:1\n");
    let mut run = |n: usize| engine.run(vec![("x", floats(&[n]))], &["y"]);
    for n in [5, 1, 1, 64, 1] {
        assert_eq!(run(n).expect("runs"), [plus(&floats(&[n]), 1000)]);
    }
    fail_at("setOptimizationProfileAsync");
    run(1).expect("stays in its profile");
    let error = run(2).expect_err("needs the other");
    assert!(cause(&error).to_string().contains("told to fail at setOptimizationProfileAsync"), "{error}");
    fail_at("");
    assert_eq!(run(2).expect("runs"), [plus(&floats(&[2]), 1000)]);
    let error = run(65).expect_err("is beyond both");
    assert_eq!((error.kind(), error.tensor()), (Kind::Input, Some("x")));
    let said = format!("{:#}", anyhow::Error::from(error));
    assert!(said.contains("is [65], the plan reaches from [1] to [64], or from [1] to [1]"), "{said}");
}

pub fn bad_inputs_are_refused_by_name() {
    let mut engine = load(PAIR);
    let (x, k) = (floats(&[2, 3]), whole(&[2]));
    let cases = [
        (vec![("x", x.view())], "k", "is missing"),
        (vec![("x", x.view()), ("x", x.view()), ("k", k.view())], "x", "is given twice"),
        (vec![("x", x.view()), ("k", k.view()), ("w", k.view())], "w", "no such input"),
        (vec![("x", whole(&[2, 3])), ("k", k.view())], "x", "must be F32"),
        (vec![("x", floats(&[6])), ("k", k.view())], "x", "is [6], the plan reaches from [1, 3] to [64, 3]"),
        (vec![("x", floats(&[2, 4])), ("k", k.view())], "x", "is [2, 4]"),
        (vec![("x", floats(&[0, 3])), ("k", k.view())], "x", "is [0, 3]"),
    ];
    for (inputs, tensor, why) in cases {
        let error = engine.run(inputs, &["y"]).expect_err("is refused");
        assert_eq!((error.kind(), error.tensor()), (Kind::Input, Some(tensor)), "{why}");
        let said = format!("{:#}", anyhow::Error::from(error));
        assert!(said.contains(why), "{said}");
        assert!(engine.times().is_none());
    }
    let error = engine.run(vec![("x", x.view()), ("k", k.view())], &["w"]).expect_err("is no output");
    assert_eq!((error.kind(), error.tensor()), (Kind::Input, Some("w")));
    // Sizes of one name that differ are known to TensorRT alone, whose words come through.
    let error = engine.run(vec![("x", x.view()), ("k", whole(&[3]))], &["y"]).expect_err("do not agree");
    assert_eq!(error.kind(), Kind::Input);
    assert!(cause(&error).to_string().contains("inputs do not agree about n (code "), "{}", cause(&error));
    engine.run(vec![("x", x), ("k", k)], &["y"]).expect("runs after all of them");
}

/// Loaded on one thread, run on others, dropped on a third: a CUDA context is current on each.
pub fn an_engine_moves_between_threads() {
    let mut engine = load(LATE);
    for n in [3, 9] {
        let thread = std::thread::spawn(move || {
            let answer = engine.run(vec![("x", floats(&[n]))], &["z"]).expect("runs");
            (engine, answer)
        });
        let (back, answer) = thread.join().expect("does not panic");
        assert_eq!(answer, [plus(&floats(&[n]), 2000)]);
        engine = back;
    }
    std::thread::spawn(move || drop(engine)).join().expect("does not panic");
}

/// The stand-in ends the process where a runtime goes before its engine, or an engine before its context.
pub fn what_is_made_keeps_its_maker() {
    let (_folder, plan) = write(PAIR);
    let mut runtime = Runtime::new(library()).expect("a runtime");
    let engine = runtime.load(&plan).expect("is loaded");
    let (mut first, mut second) = (engine.context().expect("a context"), engine.context().expect("another"));
    drop(runtime);
    drop(engine);
    let missing = first.check_shapes().expect_err("no shape is set");
    assert_eq!(missing.kind(), TensorRtErrorKind::Shapes);
    assert!(missing.to_string().contains("`x`"), "{missing}");
    for (input, shape) in [("x", &[7, 3][..]), ("k", &[7])] {
        first.set_input_shape(input, shape).expect("is within reach");
    }
    first.check_shapes().expect("is complete");
    assert_eq!(first.shape("y").expect("is an output"), [7, 3]);
    assert_eq!(second.shape("y").expect("is an output"), [-1, 3], "contexts do not share shapes");
    drop(first);
    for (input, shape) in [("x", &[99, 3][..]), ("x", &[7]), ("x", &[1; 9]), ("nobody", &[1]), ("n\0", &[1])] {
        let error = second.set_input_shape(input, shape).expect_err("is refused");
        assert_eq!(error.kind(), TensorRtErrorKind::Run, "{input} {shape:?}");
    }
    let error = second.set_input_shape("x", &[99, 3]).expect_err("is out of reach").to_string();
    assert!(error.contains("dimension 0 is beyond the profile (code 3)"), "{error}");
    assert!(second.shape("nobody").expect_err("is none").to_string().contains("there is no tensor nobody"));
}

pub fn an_engine_tells_what_it_is() {
    let (_folder, plan) = write(PAIR);
    let mut engine = Runtime::new(library()).and_then(|mut runtime| runtime.load(&plan)).expect("is loaded");
    let ports = engine.ports();
    let told: Vec<_> = ports.iter().map(|port| (port.name.as_str(), port.is_input, port.data_type)).collect();
    assert_eq!(told, [("x", true, 0), ("k", true, 3), ("y", false, 0), ("m", false, 8)]);
    assert_eq!(ports[0].dims, [-1, 3]);
    assert_eq!(
        (engine.layers(), engine.profiles(), engine.context_bytes(), engine.streamable_bytes()),
        (4, 1, 4096, 0)
    );
    assert_eq!(engine.reach("x", 0), Some([vec![1, 3], vec![4, 3], vec![64, 3]]));
    assert_eq!((engine.reach("x", 1), engine.reach("y", 0), engine.reach("w", 0)), (None, None, None));
    // The inspector's text is overwritten when it goes, and was copied before.
    assert_eq!(engine.describe().expect("an inspector"), r#"{"Layers": ["first", "second"]}"#);
    fail_at("createEngineInspector");
    assert!(engine.describe().expect_err("fails").to_string().contains("told to fail at createEngineInspector"));
    engine.keep_on_device(1 << 20).expect("is set");
    fail_at("setWeightStreamingBudgetV2");
    assert!(engine.keep_on_device(1).expect_err("fails").to_string().contains("setWeightStreamingBudgetV2"));
    let context = engine.context().expect("a context");
    let error = engine.keep_on_device(1).expect_err("a context computes with it");
    assert!(error.to_string().contains("there are contexts still"), "{error}");
    drop(context);
    fail_at("createExecutionContext");
    let error = engine.context().map(drop).expect_err("fails");
    assert!(error.to_string().contains("told to fail at createExecutionContext"), "{error}");
}

/// By way of the shim, and of `cudarc`.
pub fn the_gpu_tells_what_it_is() {
    let (gpu, device) = (Gpu::current().expect("a GPU"), Device::open().expect("a GPU"));
    assert_eq!((gpu.sm, gpu.name.as_str()), (86, "Stand-in"));
    assert_eq!((device.sm(), device.name()), (86, "Stand-in"));
    let (free, total) = device.memory().expect("is told");
    assert_eq!((free, total), (1 << 33, 1 << 33));
}
