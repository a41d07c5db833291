//! What must not work, and what is said about it.

use std::process::Command;

use sam4mllm::engine::tensorrt::plan::{Recipe, make};
use sam4mllm::engine::tensorrt::{
    BuildOptions, Builder, Flavour, Gpu, Library, Plan, PlanKey, PlanStore, Profile, Runtime,
    TensorRtErrorKind as Kind, Version,
};
use sam4mllm::import::Level;
use sam4mllm::model::plans::Precision;

use crate::harness::{BUNDLE, graphs, library, library_dir, recipe, sam4mllm, small_graph, source};

pub fn a_missing_library_is_named() {
    let empty = tempfile::tempdir().expect("a folder");
    let error = Library::open(Some(empty.path())).expect_err("there is none");
    assert_eq!(error.kind(), Kind::Library);
    let output = sam4mllm(empty.path(), &["engine", "build", BUNDLE, "--device", "sm86"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&Library::file_name()) && said.contains("set TENSORRT_LIB_DIR"), "{said}");
}

/// Another version is played by a library of one function. It is opened by the binary: this process must not have two.
pub fn another_version_is_refused() {
    let (dir, headers) = (tempfile::tempdir().expect("a folder"), Version::of_headers());
    let number = headers.major * 10_000 + (headers.minor + 1) * 100;
    let source = dir.path().join("other.cpp");
    let code = format!("extern \"C\" int getInferLibVersion() noexcept {{ return {number}; }}\n");
    std::fs::write(&source, code).expect("is written");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let mut command = Command::new(compiler);
    command.args(["-shared", "-fPIC", "-o"]).arg(dir.path().join(Library::file_name())).arg(&source);
    let built = command.status().expect("the compiler that the shim was built with runs");
    assert!(built.success());
    let output = sam4mllm(dir.path(), &["engine", "build", BUNDLE, "--device", "sm86"]);
    assert_eq!(output.status.code(), Some(1));
    let (said, other) =
        (String::from_utf8_lossy(&output.stderr), Version { minor: headers.minor + 1, patch: 0, ..headers });
    assert!(said.contains(&headers.to_string()) && said.contains(&other.to_string()), "{said}");
}

/// Where there is a GPU it is found instead.
pub fn a_machine_without_a_gpu() {
    match (Recipe::new(&library(), None), Gpu::current()) {
        (Ok(recipe), Ok(gpu)) => assert!(recipe.device().contains(&gpu.name)),
        (Err(error), Err(_)) => {
            assert_eq!(error.kind(), Kind::Driver);
            let output = sam4mllm(&library_dir(), &["engine", "build", BUNDLE]);
            assert_eq!(output.status.code(), Some(1));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("no CUDA driver is installed") && said.contains("--device sm86"), "{said}");
            let dir = tempfile::tempdir().expect("a folder");
            let (store, builder) =
                (PlanStore::open(dir.path()).expect("a cache"), Builder::new(library()).expect("a builder"));
            let graph = small_graph();
            let made = make(&builder, &store, &recipe(86), (&source(&graph), &graph.profiles), None).expect("is built");
            let loaded = Runtime::new(library()).and_then(|mut runtime| runtime.load(&made.plan));
            let error = loaded.expect_err("needs a driver");
            assert_eq!(error.kind(), Kind::Run, "{error}");
            assert!(error.to_string().contains("driver"), "{error}");
        }
        (recipe, gpu) => panic!("{recipe:?} and {gpu:?}"),
    }
}

pub fn a_capability_that_is_none() {
    let builder = Builder::new(library()).expect("a builder");
    let mut options = BuildOptions::default();
    options.sm = Some(42);
    let error = match library().version().flavour {
        Flavour::Rtx => builder.config(&options).err(),
        Flavour::Enterprise => Recipe::new(&library(), Some(42)).err(),
    };
    let error = error.expect("there is no such GPU");
    assert_eq!(error.kind(), Kind::Device);
    assert!(error.to_string().contains("sm42"), "{error}");
}

/// One operator is renamed to one that nobody knows.
pub fn a_broken_graph_names_its_node() {
    let builder = Builder::new(library()).expect("a builder");
    for graph in graphs(Level::Portable, Precision::Fp32) {
        let needle = b"\x22\x07Softmax";
        let Some(at) = graph.onnx.windows(needle.len()).rposition(|window| window == needle) else { continue };
        let mut broken = graph.onnx.clone();
        broken[at + 2..at + needle.len()].copy_from_slice(b"Hardmix");
        let error = builder.parse(graph.name, &broken, Some(&graph.path)).expect_err("nobody knows this operator");
        assert_eq!(error.kind(), Kind::Parse);
        let node = error.nodes().iter().find(|node| node.op == "Hardmix").expect("the node is told");
        assert!(!node.name.is_empty() && node.index.is_some(), "{node:?}");
        let text = error.to_string();
        assert!(text.contains(graph.name) && text.contains(&node.name), "{text}");
        println!("  {error}");
        return;
    }
    panic!("no graph has a softmax");
}

pub fn a_dimension_without_bounds() {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, builder) = (PlanStore::open(dir.path()).expect("a cache"), Builder::new(library()).expect("a builder"));
    let graph = small_graph();
    for profiles in [vec![], vec![Profile::new([("prompts", [1, 1, 2])])]] {
        let made = make(&builder, &store, &recipe(86), (&source(&graph), &profiles), None);
        let error = made.expect_err("points are not bounded");
        assert_eq!(error.kind(), Kind::Shapes);
        assert!(error.to_string().contains("point_coords"), "{error}");
    }
    let backwards = [Profile::new([("prompts", [4, 1, 2]), ("points", [1, 2, 3])])];
    let error = make(&builder, &store, &recipe(86), (&source(&graph), &backwards), None).expect_err("is backwards");
    assert_eq!(error.kind(), Kind::Shapes);
}

/// A plan whose record names another version is refused, and built again in its place.
pub fn a_plan_of_another_version() {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, builder) = (PlanStore::open(dir.path()).expect("a cache"), Builder::new(library()).expect("a builder"));
    let (graph, recipe) = (small_graph(), recipe(86));
    let make = || make(&builder, &store, &recipe, (&source(&graph), &graph.profiles), None).expect("is built");
    let plan = make().plan;
    let key = plan.record().key.clone();
    let record = plan.path().with_extension("json");
    let text = std::fs::read_to_string(&record).expect("a record");
    let version = library().version().to_string();
    std::fs::write(&record, text.replace(&version, "TensorRT 8.6.1")).expect("is written");
    let error = Plan::open(plan.path(), &key).expect_err("is foreign");
    assert_eq!(error.kind(), Kind::Foreign);
    assert!(error.to_string().contains(&version) && error.to_string().contains("8.6.1"), "{error}");
    println!("  {error}");
    let again = make();
    assert!(again.fresh);
    assert_eq!(again.plan.record().key, key);
    assert_eq!(PlanKey::digest(&key), PlanKey::digest(&again.plan.record().key));
    assert!(!make().fresh);
}
