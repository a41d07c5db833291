//! Plans to engines, where there is a GPU. Written against the headers' documentation, and not yet run.

use sam4mllm::engine::tensorrt::plan::{Recipe, make};
use sam4mllm::engine::tensorrt::{Builder, Engine, PlanStore, Runtime, TensorRtErrorKind as Kind};

use crate::harness::{library, small_graph, source};

/// A build that may be refitted compiles kernels for the GPU at hand, so RTX 1.7 refuses it without one.
pub fn a_stripped_plan_has_no_weights() {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, builder) = (PlanStore::open(dir.path()).expect("a cache"), Builder::new(library()).expect("a builder"));
    let (graph, mut recipe) = (small_graph(), Recipe::new(&library(), None).expect("a GPU"));
    let make =
        |recipe: &Recipe| make(&builder, &store, recipe, (&source(&graph), &graph.profiles), None).expect("is built");
    let whole = make(&recipe).plan.record().bytes;
    recipe.options.strip = true;
    let made = make(&recipe);
    let stripped = made.plan.record().bytes;
    println!("  {whole} bytes, stripped {stripped}");
    // 759,744 parameters of four bytes; some small ones are folded into others and stay.
    assert!(stripped + 2_000_000 < whole, "{stripped} of {whole}");
    let mut engine = Runtime::new(library()).expect("a runtime").load(&made.plan).expect("is loaded");
    engine.refit(&graph.onnx, &graph.path).expect("takes its weights");
    let _context = engine.context().expect("a context");
    assert!(engine.refit(&graph.onnx, &graph.path).is_err(), "a context computes with it");
}

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
    assert_eq!(context.check_shapes().expect_err("no shape is set").kind(), Kind::Shapes);
    context.set_input_shape("point_labels", &[2, 5]).expect("is within reach");
    for (input, dims) in [("point_labels", &[99, 5][..]), ("point_labels", &[1; 9]), ("nobody", &[1])] {
        let error = context.set_input_shape(input, dims).expect_err("is out of reach");
        assert_eq!(error.kind(), Kind::Run, "{input} {dims:?}");
    }
}
