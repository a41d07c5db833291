//! Every family that is imported, as plans: the small checkpoints of `tests/reference`, each language model beside a
//! segmenter in a bundle, at both levels.

use std::fs;
use std::path::{Path, PathBuf};

use sam4mllm::engine::bundle::{Bundle, Verify, seal};
use sam4mllm::engine::tensorrt::plan::make;
use sam4mllm::engine::tensorrt::{Builder, PlanStore};
use sam4mllm::import::{Form, Level, PIXEL_BYTES, describe_bundle};
use sam4mllm::model::plans::{GraphOptions, Precision, plan_graphs};
use tempfile::TempDir;

use crate::harness::{library, recipe, takes_fused};

/// Language models; each is beside one of the segmenters.
const MLLMS: [&str; 5] = ["llava-mistral", "llava-qwen2", "llava-next", "qwen2-5-vl", "qwen3-vl"];
/// Segmenters and their classes.
const SEGMENTERS: [(&str, &str); 8] = [
    ("sam", "SamModel"),
    ("sam-windows", "SamModel"),
    ("sam-authors", "SamModel"),
    ("sam-efficient-l", "EfficientViTSam"),
    ("sam-efficient-xl", "EfficientViTSam"),
    ("sam-mobile", "MobileSam"),
    ("sam2", "Sam2Model"),
    ("sam2-video", "Sam2VideoModel"),
];
/// The generation that plans are built for.
const SM: u32 = 89;
/// Longest conversation, in tokens.
const POSITIONS: u32 = 256;

fn reference(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(path)
}

/// A bundle of two of the checkpoints.
fn bundle(mllm: &str, (sam, class): (&str, &str)) -> (TempDir, Bundle) {
    let dir = tempfile::tempdir().expect("a folder");
    for (part, from) in [("mllm", format!("mllms/{mllm}")), ("sam", format!("checkpoints/{sam}"))] {
        fs::create_dir(dir.path().join(part)).expect("is made");
        for entry in fs::read_dir(reference(&from)).expect("a checkpoint") {
            let path = entry.expect("a file").path();
            let name = path.file_name().expect("a name");
            fs::copy(&path, dir.path().join(part).join(name)).expect("is copied");
        }
    }
    let config = fs::read_to_string(dir.path().join("mllm/config.json")).expect("a configuration");
    let config: serde_json::Value = serde_json::from_str(&config).expect("is JSON");
    let manifest = fs::read_to_string(reference("mllms/bundle.toml")).expect("a manifest");
    let manifest = manifest
        .replace("$CLASS", config["architectures"][0].as_str().expect("a class"))
        .replace("class = \"SamModel\"", &format!("class = \"{class}\""))
        .replace("$PREFIX", "<s><image>")
        .replace("$END", "</s>");
    fs::write(dir.path().join("bundle.toml"), manifest).expect("is written");
    seal(dir.path()).expect("is sealed");
    let bundle = Bundle::open(dir.path(), Verify::Sizes).expect("is a bundle");
    (dir, bundle)
}

pub fn every_family_is_built_at_both_levels() {
    let dir = tempfile::tempdir().expect("a folder");
    let (store, builder) = (PlanStore::open(dir.path()).expect("a cache"), Builder::new(library()).expect("a builder"));
    let levels = if takes_fused() { &[Level::Portable, Level::Fused][..] } else { &[Level::Portable] };
    println!(
        "  {:<17} {:<14} {:<8} {:>6} {:>7} {:>8} {:>8}",
        "checkpoint", "graph", "level", "nodes", "layers", "seconds", "MiB"
    );
    for (i, segmenter) in SEGMENTERS.into_iter().enumerate() {
        let mllm = MLLMS[i % MLLMS.len()];
        let (_folder, bundle) = bundle(mllm, segmenter);
        for level in levels {
            let cache = dir.path().join("graphs");
            // In 32-bit floats: the default bundle's graphs are built in every precision.
            let form = Form { level: *level, precision: Precision::Fp32 };
            let options = GraphOptions { level: form.level, precision: form.precision, positions: Some(POSITIONS) };
            let reports = describe_bundle(&bundle, form).expect("is described");
            let nodes = |name: &str| {
                let mut graphs = reports.iter().flat_map(|report| &report.graphs);
                graphs.find(|graph| graph.name == name).map_or(0, |graph| graph.nodes)
            };
            for graph in plan_graphs(&bundle, &cache, options).expect("graphs") {
                let is_sam = matches!(graph.name, "image_encoder" | "mask_decoder");
                if !is_sam && i >= MLLMS.len() {
                    continue;
                }
                let in_bytes = graph.onnx.windows(PIXEL_BYTES.len()).any(|name| name == PIXEL_BYTES.as_bytes());
                assert_eq!(in_bytes, matches!(graph.name, "vision" | "image_encoder"), "{}", graph.name);
                let source = graph.source(bundle.fingerprint());
                let name = if is_sam { segmenter.0 } else { mllm };
                let made = make(&builder, &store, &recipe(SM), (&source, &graph.profiles), None)
                    .unwrap_or_else(|error| panic!("{name} {} {}: {error:?}", graph.name, level.name()));
                let record = made.plan.record();
                let (graph_name, level, mib) = (graph.name, level.name(), record.bytes as f64 / 1_048_576.0);
                let (nodes, layers, seconds) = (nodes(graph.name), record.layers, record.seconds);
                println!("  {name:<17} {graph_name:<14} {level:<8} {nodes:>6} {layers:>7} {seconds:>8.1} {mib:>8.2}");
                assert!(made.fresh && layers > 0 && record.bytes > 1000);
                made.plan.read().expect("is whole");
            }
        }
    }
}
