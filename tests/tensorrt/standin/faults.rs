//! What does not work, and what is said about it.

use sam4mllm::engine::tensorrt::{Device, Gpu, Runtime, TensorRtEngine, TensorRtErrorKind};
use sam4mllm::engine::{Engine, EngineErrorKind as Kind};

use crate::plans::{LATE, PAIR, cause, fail_at, floats, library, load, plus, try_load, whole, write};

/// Calls of a load, with what is said where each fails. The rest is undone: the stand-in counts what is left.
pub fn a_failure_to_load_is_told() {
    let calls = [
        ("createInferRuntime", "TensorRT gives no reason"),
        ("deserializeCudaEngine", "told to fail at deserializeCudaEngine"),
        ("cuMemAlloc", "no memory for 4096 bytes"),
        ("createExecutionContext", "told to fail at createExecutionContext"),
        ("cuStreamCreate", "out of memory"),
        ("cuEventCreate", "out of memory"),
        ("setInputShape", "told to fail at setInputShape"),
        ("setOutputAllocator", "told to fail at setOutputAllocator"),
    ];
    for (call, why) in calls {
        fail_at("");
        let ((_folder, plan), device) = (write(LATE), Device::open().expect("a GPU"));
        fail_at(call);
        let loaded = TensorRtEngine::load("graph", library(), &device, &plan);
        let error = loaded.map(drop).expect_err(call);
        assert_eq!(error.kind(), Kind::Load, "{call}");
        assert!(error.to_string().contains("load engine `graph`"), "{error}");
        assert!(cause(&error).to_string().contains(why), "{call}: {}", cause(&error));
    }
    fail_at("");
    load(LATE);
}

/// Calls of a run. Work that was enqueued before the failure is waited for, and the next run is as if there had been
/// none.
pub fn a_failure_to_run_is_told_and_outlived() {
    let mut engine = load(PAIR);
    // Every call of every run is to be made.
    engine.set_cuda_graphs(false);
    let (x, k) = (floats(&[5, 3]), whole(&[5]));
    let mut run = || engine.run(vec![("x", x.view()), ("k", k.view())], &["y", "m"]);
    let calls = [
        ("setInputShape", Kind::Input, "told to fail at setInputShape"),
        ("cuMemcpyHtoDAsync", Kind::Run, "unspecified launch failure"),
        ("setTensorAddress", Kind::Run, "told to fail at setTensorAddress"),
        ("inferShapes", Kind::Input, "told to fail at inferShapes"),
        ("enqueueV3", Kind::Run, "told to fail at enqueueV3"),
        ("cuMemcpyDtoHAsync", Kind::Run, "unspecified launch failure"),
    ];
    for (call, kind, why) in calls {
        fail_at(call);
        let error = run().expect_err(call);
        assert_eq!(error.kind(), kind, "{call}");
        assert!(cause(&error).to_string().contains(why), "{call}: {}", cause(&error));
        fail_at("");
        assert_eq!(run().expect("runs again"), [plus(&x, 1000), plus(&k, 2000)], "after {call}");
    }
}

pub fn too_little_memory_is_told() {
    // Its output grows while it is computed, and its input does not.
    let late = "input x f32 n\noutput y f32 n? 100 = x\nprofile n=1:4:60\n";
    for (call, text) in [("cuMemAlloc", PAIR), ("cuMemHostAlloc", PAIR), ("cuMemAlloc", late)] {
        let mut engine = load(text);
        let mut run = |n: usize| match text == PAIR {
            true => engine.run(vec![("x", floats(&[n, 3])), ("k", whole(&[n]))], &["y"]),
            false => engine.run(vec![("x", floats(&[n]))], &["y"]),
        };
        fail_at("");
        run(2).expect("runs");
        fail_at(call);
        run(1).expect("still fits");
        let error = run(60).expect_err("needs more");
        assert_eq!(error.kind(), Kind::Run);
        assert_eq!(cause(&error).kind(), TensorRtErrorKind::Memory, "{call}: {}", cause(&error));
        let said = cause(&error).to_string();
        assert!(said.contains("allocate on the GPU: no memory for") && said.contains("--positions"), "{said}");
        fail_at("");
        run(60).expect("runs once there is some");
    }
}

/// After a fault on the device everything fails; no answer is made of what was never computed.
pub fn a_lost_device_is_told() {
    let mut engine = load(PAIR);
    fail_at("cuStreamSynchronize");
    let error = engine.run(vec![("x", floats(&[1, 3])), ("k", whole(&[1]))], &["y"]).expect_err("is lost");
    assert_eq!(error.kind(), Kind::Run);
    assert!(cause(&error).to_string().contains("unspecified launch failure"), "{error}");
    assert!(engine.times().is_none());
}

pub fn what_is_no_plan_is_refused() {
    let error = try_load("nothing of the kind").map(drop).expect_err("is no plan");
    assert!(cause(&error).to_string().contains("no plan of the stand-in's"), "{error}");
    let (_folder, plan) = write(PAIR);
    std::fs::write(plan.path(), PAIR.replace("64", "65")).expect("is written");
    let error = Runtime::new(library()).and_then(|mut runtime| runtime.load(&plan)).map(drop);
    let error = error.expect_err("was changed");
    assert_eq!(error.kind(), TensorRtErrorKind::Plan, "TensorRT never sees it: {error}");
}

pub fn a_type_that_no_graph_has_is_refused() {
    let error = try_load("input x i8 2\noutput y f32 2 = x\n").map(drop).expect_err("is not known");
    assert_eq!((error.kind(), error.tensor()), (Kind::Load, Some("x")));
    let said = format!("{:#}", anyhow::Error::from(error));
    assert!(said.contains("TensorRT's type 2"), "{said}");
}

pub fn without_a_gpu_the_driver_speaks() {
    fail_at("cuInit");
    let error = Device::open().expect_err("there is none");
    assert_eq!(error.kind(), TensorRtErrorKind::Driver);
    assert!(error.to_string().contains("no CUDA-capable device is detected"), "{error}");
    assert_eq!(Gpu::current().expect_err("there is none").kind(), TensorRtErrorKind::Driver);
    fail_at("cuDevicePrimaryCtxRetain");
    assert!(Device::open().expect_err("there is none").to_string().contains("out of memory"));
}

/// The stand-in has something to find.
pub fn an_engine_is_forgotten() {
    std::mem::forget(load(PAIR));
}
