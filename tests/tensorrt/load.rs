//! Plans to engines, where there is a GPU. Written against the headers' documentation, and not yet run.

use sam4mllm::engine::tensorrt::plan::{Recipe, make};
use sam4mllm::engine::tensorrt::{Builder, Engine, PlanStore, Runtime, TensorRtErrorKind as Kind};

use crate::harness::{library, small_graph, source};

fn engine() -> Engine {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, builder) = (PlanStore::open(dir.path()).expect("a cache"), Builder::new(library()).expect("a builder"));
    let (graph, recipe) = (small_graph(), Recipe::new(&library(), None).expect("a GPU"));
    let made = make(&builder, &store, &recipe, (&source(&graph), &graph.profiles), None).expect("is built");
    Runtime::new(library()).expect("a runtime").load(&made.plan).expect("is loaded")
}

pub fn a_plan_is_loaded_and_described() {
    let engine = engine();
    let ports = engine.ports();
    let names = |inputs| ports.iter().filter(move |port| port.is_input == inputs).map(|port| port.name.as_str());
    assert!(names(true).any(|name| name == "point_coords"), "{ports:?}");
    assert!(names(false).any(|name| name == "low_res_masks"), "{ports:?}");
    assert_eq!(engine.profiles(), 1);
    assert_eq!(engine.reach("point_labels", 0), Some([vec![1, 1], vec![1, 28], vec![16, 64]]));
    assert!(engine.layers() > 0);
    let layers: serde_json::Value = serde_json::from_str(&engine.describe().expect("an inspector")).expect("is JSON");
    assert!(layers["Layers"].as_array().is_some_and(|layers| !layers.is_empty()), "{layers}");
}

pub fn shapes_out_of_reach_are_refused() {
    let engine = engine();
    let mut context = engine.context().expect("a context");
    assert!(context.missing().is_some());
    context.set_input_shape("point_labels", &[2, 5]).expect("is within reach");
    for (input, dims) in [("point_labels", &[99, 5][..]), ("point_labels", &[1; 9]), ("nobody", &[1])] {
        let error = context.set_input_shape(input, dims).expect_err("is out of reach");
        assert_eq!(error.kind(), Kind::Run, "{input} {dims:?}");
    }
}
