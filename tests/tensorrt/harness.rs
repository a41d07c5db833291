//! Runs cases one after the other and counts those that this machine cannot run: `libtest` knows no such outcome.

use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use sam4mllm::engine::bundle::{Bundle, Verify};
use sam4mllm::engine::tensorrt::plan::{Recipe, Source};
use sam4mllm::engine::tensorrt::{Gpu, LIBRARY_DIR, Library, TensorRtErrorKind};
use sam4mllm::import::Level;
use sam4mllm::model::plans::{GraphOptions, PlanGraph, Precision, plan_graphs};

pub const BUNDLE: &str = "engines/tabletop";

/// What a case needs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Nothing,
    Library,
    Gpu,
}

pub struct Case {
    name: &'static str,
    need: Need,
    run: fn(),
}

impl Case {
    pub fn always(name: &'static str, run: fn()) -> Self {
        Self { name, need: Need::Nothing, run }
    }

    pub fn with_library(name: &'static str, run: fn()) -> Self {
        Self { name, need: Need::Library, run }
    }

    pub fn with_gpu(name: &'static str, run: fn()) -> Self {
        Self { name, need: Need::Gpu, run }
    }
}

/// Runs those whose name holds one of the arguments, all without arguments.
pub fn run(cases: &[Case]) -> ExitCode {
    let filters: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |case: &&Case| filters.is_empty() || filters.iter().any(|filter| case.name.contains(filter.as_str()));
    let (has, why) = machine();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for case in cases.iter().filter(wanted) {
        let outcome = if case.need > has {
            skipped += 1;
            format!("skipped: {why}")
        } else if catch_unwind(case.run).is_ok() {
            passed += 1;
            "ok".to_owned()
        } else {
            failed += 1;
            "FAILED".to_owned()
        };
        println!("test {} ... {outcome}", case.name);
    }
    println!("\ntensorrt: {passed} passed, {failed} failed, {skipped} skipped\n");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What this machine has, and why not more.
fn machine() -> (Need, String) {
    match (Library::find(), Gpu::current()) {
        (Err(error), _) if error.kind() == TensorRtErrorKind::Library => {
            (Need::Nothing, format!("no library: {error}"))
        }
        // Libraries of another version are a fault of the machine, not a reason to pass: the cases fail.
        (Err(_), _) => (Need::Library, String::new()),
        (Ok(_), Err(error)) => (Need::Library, format!("no GPU: {error}")),
        (Ok(_), Ok(_)) => (Need::Gpu, String::new()),
    }
}

/// The libraries, which are there.
pub fn library() -> Library {
    Library::find().expect("the libraries load")
}

/// A recipe for a named capability where the TensorRT takes one, else for the GPU at hand.
pub fn recipe(sm: u32) -> Recipe {
    let named = Recipe::new(&library(), Some(sm));
    named.or_else(|_| Recipe::new(&library(), None)).expect("there is something to build for")
}

/// Whether the library at hand takes graphs of the fused level.
pub fn takes_fused() -> bool {
    GraphOptions::highest_level(library().version()) == Level::Fused
}

/// The default bundle.
pub fn bundle() -> Bundle {
    Bundle::open(BUNDLE, Verify::Sizes).expect("is a bundle")
}

/// The graphs of the default bundle.
pub fn graphs(level: Level, precision: Precision) -> Vec<PlanGraph> {
    let options = GraphOptions { level, precision, positions: None };
    plan_graphs(&bundle(), &sam4mllm::import::default_cache_dir(), options).expect("graphs")
}

/// The smallest of them with products and bounds, for tests of the builder rather than of graphs.
pub fn small_graph() -> PlanGraph {
    graphs(Level::Portable, Precision::Fp32)
        .into_iter()
        .find(|graph| graph.name == "mask_decoder")
        .expect("there is a mask decoder")
}

pub fn source(graph: &PlanGraph) -> Source<'_> {
    graph.source("test")
}

/// The binary, with libraries from `directory`.
pub fn sam4mllm(directory: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sam4mllm"));
    command.args(args).env_remove("RUST_LOG").env(LIBRARY_DIR, directory).output().expect("runs")
}

/// Where the libraries are, for [`sam4mllm`]; empty where the system finds them.
pub fn library_dir() -> PathBuf {
    std::env::var_os(LIBRARY_DIR).map(PathBuf::from).unwrap_or_default()
}
