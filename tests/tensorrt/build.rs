//! Plans, built by NVIDIA's builder.

use std::sync::{Arc, Mutex};

use sam4mllm::engine::tensorrt::plan::{Recipe, make};
use sam4mllm::engine::tensorrt::{Builder, Phase, PlanStore, Progress, TensorRtErrorKind as Kind};
use sam4mllm::import::{Form, Level, describe_bundle};
use sam4mllm::model::plans::Precision;

use crate::harness::{
    BUNDLE, bundle, graphs, library, library_dir, recipe, sam4mllm, small_graph, source, takes_fused,
};

/// Writes down what it is told; goes on for `patience` reports.
struct Notes {
    told: Arc<Mutex<Vec<String>>>,
    patience: usize,
}

impl Progress for Notes {
    fn report(&self, phase: Phase<'_>) -> bool {
        let mut told = self.told.lock().expect("nobody panics with it");
        told.push(format!("{phase:?}"));
        told.len() < self.patience
    }
}

pub fn a_build_is_followed_and_can_be_stopped() {
    let (builder, graph) = (Builder::new(library()).expect("a builder"), small_graph());
    let build = |patience| {
        let (dir, told) = (tempfile::tempdir().expect("a folder"), Arc::new(Mutex::new(Vec::new())));
        let notes = Notes { told: Arc::clone(&told), patience };
        let store = PlanStore::open(dir.path()).expect("a cache");
        let made = make(&builder, &store, &recipe(86), (&source(&graph), &graph.profiles), Some(Box::new(notes)));
        let told = told.lock().expect("nobody panics with it").clone();
        (made, told, std::fs::read_dir(dir.path()).expect("a folder").count())
    };
    let (made, told, _) = build(usize::MAX);
    assert!(made.expect("is built").fresh);
    for event in ["Start", "Step", "End"] {
        assert!(told.iter().any(|line| line.starts_with(event)), "{told:?}");
    }
    let (made, _, files) = build(1);
    let error = made.expect_err("is stopped");
    assert_eq!(error.kind(), Kind::Build);
    assert!(error.to_string().contains("cancelled"), "{error}");
    assert_eq!(files, 1, "only the lock is left");
}

/// A builder moves to a thread of its own; the second finds what the first built.
pub fn two_builders_build_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, graph, recipe) = (PlanStore::open(dir.path()).expect("a cache"), small_graph(), recipe(86));
    let builders = [(); 2].map(|()| Builder::new(library()).expect("a builder"));
    let fresh = std::thread::scope(|scope| {
        let build = |builder: Builder| {
            let (store, graph, recipe) = (&store, &graph, &recipe);
            scope.spawn(move || make(&builder, store, recipe, (&source(graph), &graph.profiles), None).expect("a plan"))
        };
        builders.map(build).map(|thread| thread.join().expect("does not panic").fresh)
    });
    assert_eq!(fresh.iter().filter(|fresh| **fresh).count(), 1);
}

pub fn weights_to_be_streamed_make_another_plan() {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, builder) = (PlanStore::open(dir.path()).expect("a cache"), Builder::new(library()).expect("a builder"));
    let (graph, mut recipe) = (small_graph(), recipe(86));
    let make =
        |recipe: &Recipe| make(&builder, &store, recipe, (&source(&graph), &graph.profiles), None).expect("is built");
    let plain = make(&recipe);
    recipe.options.stream_weights = true;
    let streamed = make(&recipe);
    assert!(plain.fresh && streamed.fresh);
    assert_ne!(plain.plan.path(), streamed.plan.path());
}

pub fn the_binary_builds_then_finds() {
    let cache = tempfile::tempdir().expect("a folder");
    let device = recipe(86).device().split(' ').next().map(str::to_owned).expect("a device has a name");
    let device = if recipe(86).options.sm.is_some() { device } else { "current".to_owned() };
    let cache = cache.path().to_str().expect("is text");
    let args = ["engine", "build", BUNDLE, "--device", &device, "--cache", cache, "--format", "json"];
    let run = || {
        let output = sam4mllm(&library_dir(), &args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Vec<serde_json::Value>>(&output.stdout).expect("is JSON")
    };
    let mut rows = Vec::new();
    for built in [true, false] {
        rows = run();
        let names: Vec<_> = rows.iter().filter_map(|row| row["graph"].as_str()).collect();
        assert_eq!(names, ["vision", "embed", "decoder", "image_encoder", "mask_decoder"]);
        assert!(rows.iter().all(|row| row["built"] == built), "{rows:?}");
    }
    // A bit flips in one plan: that one is built again, which is said.
    let plan = rows[1]["plan"].as_str().expect("a path");
    let mut bytes = std::fs::read(plan).expect("a plan");
    bytes[100] ^= 1;
    std::fs::write(plan, bytes).expect("is written");
    let output = sam4mllm(&library_dir(), &args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("plan is built again") && said.contains(plan), "{said}");
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).expect("is JSON");
    let built: Vec<_> = rows.iter().map(|row| row["built"] == true).collect();
    assert_eq!(built, [false, true, false, false, false]);
}

/// Every form that graphs are written in.
fn forms() -> Vec<Form> {
    let precisions = [Precision::Fp32, Precision::Fp16, Precision::Int8, Precision::Int4];
    let levels = [Level::Portable, Level::Fused];
    let all = levels.into_iter().flat_map(|level| precisions.map(|precision| Form { level, precision }));
    // What the library at hand does not take is another's to build.
    all.filter(|form| form.level == Level::Portable || takes_fused()).collect()
}

/// What the parser makes of every graph in every form: a line a graph, with its operators.
pub fn every_graph_is_parsed_in_every_form() {
    let (bundle, builder) = (bundle(), Builder::new(library()).expect("a builder"));
    println!("  {:<14} {:<8} {:<5} {:>5} {:>6}  operators", "graph", "level", "", "nodes", "layers");
    for form in forms() {
        let reports = describe_bundle(&bundle, form).expect("is described");
        for graph in graphs(form.level, form.precision) {
            let network = builder.parse(graph.name, &graph.onnx, Some(&graph.path)).expect("is parsed");
            let mut all = reports.iter().flat_map(|report| &report.graphs);
            let report = all.find(|report| report.name == graph.name).expect("is described");
            let operators: Vec<_> = report.operators.iter().map(|(name, count)| format!("{name} {count}")).collect();
            let (level, precision) = (form.level.name(), form.precision.name());
            let (name, nodes, layers) = (graph.name, report.nodes, network.layers());
            println!("  {name:<14} {level:<8} {precision:<5} {nodes:>5} {layers:>6}  {}", operators.join(", "));
            assert!(layers > 0);
            let has = |operator: &str| report.operators.contains_key(operator);
            assert_eq!(has("Attention"), form.level == Level::Fused && name != "embed", "{name}");
            assert_eq!(has("TensorScatter") && has("RotaryEmbedding"), form.level == Level::Fused && name == "decoder");
            let few_bits = matches!(form.precision, Precision::Int8 | Precision::Int4);
            assert_eq!(has("DequantizeLinear"), few_bits && name == "decoder", "{name}");
        }
    }
}

pub fn every_graph_is_built_for_three_gpus() {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, builder) = (PlanStore::open(dir.path()).expect("a cache"), Builder::new(library()).expect("a builder"));
    println!(
        "  {:<14} {:<8} {:<5} {:<6} {:>6} {:>8} {:>8}",
        "graph", "level", "", "device", "layers", "seconds", "MiB"
    );
    for form in forms() {
        let mut graphs = graphs(form.level, form.precision);
        assert_eq!(graphs.len(), 5);
        // In few bits only the decoder is another.
        if !matches!(form.precision, Precision::Fp32 | Precision::Fp16) {
            graphs.retain(|graph| graph.name == "decoder");
        }
        for (sm, graph) in [86, 89, 120].into_iter().flat_map(|sm| graphs.iter().map(move |graph| (sm, graph))) {
            let recipe = recipe(sm);
            let made = make(&builder, &store, &recipe, (&source(graph), &graph.profiles), None).expect("is built");
            let record = made.plan.record();
            let (level, precision) = (form.level.name(), form.precision.name());
            let mib = record.bytes as f64 / 1_048_576.0;
            let device = recipe.device().split(' ').next().unwrap_or_default();
            let (name, layers, seconds) = (graph.name, record.layers, record.seconds);
            println!("  {name:<14} {level:<8} {precision:<5} {device:<6} {layers:>6} {seconds:>8.1} {mib:>8.1}");
            assert!(layers > 0 && record.bytes > 1000);
            made.plan.read().expect("is whole");
        }
    }
}
