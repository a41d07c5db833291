//! The binary on the stand-in, with the default bundle: its five plans are written as the stand-in reads them, under
//! the keys that the node looks for. What comes out is nonsense of the right shape, which has to be found out.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sam4mllm::engine::bundle::{Bundle, Verify};
use sam4mllm::engine::tensorrt::plan::Recipe;
use sam4mllm::import::{Form, ImportReport, PIXEL_BYTES, PIXEL_VALUES, Port, describe_bundle, import};
use sam4mllm::model::plans::{GraphOptions, PlanGraph, Precision, decoder_graph, plan_graphs, product_graph};
use tempfile::TempDir;

use crate::plans::{be, fail_at, library, put};

const BUNDLE: &str = "engines/tabletop";

/// Positions that caches in place have room for: those of the checkpoint, and those of questions in one pass.
const CAPACITY: usize = 2048 + 768;

/// A cache with the bundle's graphs, and plans of the stand-in's for them.
fn cache(bundle: &Path, precision: Precision) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let bundle = Bundle::open(bundle, Verify::Sizes).expect("is a bundle");
    let level = GraphOptions::highest_level(library().version());
    let reports = describe_bundle(&bundle, Form { level, precision }).expect("is described");
    let options = GraphOptions { level, precision, positions: None };
    let recipe = Recipe::new(&library(), None).expect("a GPU");
    let plans = folder.path().join("plans");
    for graph in plan_graphs(&bundle, folder.path(), options).expect("graphs") {
        let key = recipe.key(&library(), &graph.source(bundle.fingerprint()), &graph.profiles);
        put(&plans, &key, &plan(&graph, &reports, &key.options));
    }
    folder
}

/// The graph's ports and profiles, as the stand-in reads them; outputs come of the last input of floats, and caches of
/// the embeddings where they are updated in place.
fn plan(graph: &PlanGraph, reports: &[ImportReport; 2], options: &str) -> String {
    let mut graphs = reports.iter().flat_map(|report| &report.graphs);
    let report = graphs.find(|report| report.name == graph.name).expect("the graph is described");
    let in_place = report.inputs.iter().any(|port| port.name == "write_indices");
    let is_source = |port: &&Port| port.data_type == "f32" && !(in_place && port.name.starts_with("past_"));
    let source = report.inputs.iter().rfind(is_source).or(report.inputs.first());
    let source = match source.expect("takes something").name.as_str() {
        PIXEL_VALUES => PIXEL_BYTES,
        source => source,
    };
    let shape = |port: &Port| port.shape.join(" ").replace("capacity", &CAPACITY.to_string());
    let mut text = String::new();
    for port in &report.inputs {
        // Plans take the picture in bytes, row by row; SAM's does not fill it.
        if let ([one, channels, height, width], PIXEL_VALUES) = (&port.shape[..], port.name.as_str()) {
            text += &format!("input {PIXEL_BYTES} u8 {one} {height} {width} {channels}\n");
            text += if graph.name == "image_encoder" { "input pixel_extent i32 2\n" } else { "" };
            continue;
        }
        let kind = if port.name == "write_indices" { "i64" } else { port.data_type };
        text += &format!("input {} {kind} {}\n", port.name, shape(port));
    }
    for port in &report.outputs {
        let (name, kind, shape) = (&port.name, port.data_type, shape(port));
        text += &match port.name.strip_prefix("present_").filter(|_| in_place) {
            Some(cache) => format!("cache {name} {kind} {shape} = past_{cache} inputs_embeds write_indices\n"),
            None => format!("output {name} {kind} {shape} = {source}\n"),
        };
    }
    for profile in options.split('[').skip(1).filter_map(|profile| profile.split_once(']')) {
        text += &format!("profile {}\n", profile.0.replace(',', " "));
    }
    text
}

/// The file of the plan whose name begins with `name`.
fn find(cache: &TempDir, name: &str) -> PathBuf {
    let entries = std::fs::read_dir(cache.path().join("plans")).expect("plans").flatten();
    let mut plans = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "plan"));
    plans.find(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name))).expect("is there")
}

fn sam4mllm(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sam4mllm"));
    command.args(args).env_remove("RUST_LOG").output().expect("runs")
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Every engine is called on both sides through a whole clip: groundings, drafts, masks, a tracked target.
pub fn the_gpu_is_held_against_the_cpu() {
    let folder = cache(Path::new(BUNDLE), Precision::Fp32);
    let cache = folder.path().to_str().expect("is text");
    let args = ["engine", "check", "--cache-dir", cache, "--precision", "fp32", "--frames", "2", "--format", "json"];
    let check = |more: &[&str]| -> (String, serde_json::Value) {
        let output = sam4mllm(&[&args[..], more].concat());
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(err.contains("outputs of the GPU are not those of the CPU"), "{err}");
        let report = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{err}"));
        (out, report)
    };
    let (out, report) = check(&[]);
    assert_eq!((&report["gpu"], &report["sm"]), (&"Stand-in".into(), &86.into()));
    assert!(report["memory_used"].as_u64() > Some(0));
    let outputs = report["outputs"].as_array().expect("rows");
    let engines = ["vision", "embed", "decoder", "image_encoder", "mask_decoder"];
    for engine in engines {
        let rows: Vec<_> = outputs.iter().filter(|row| row["engine"] == engine).collect();
        assert!(!rows.is_empty(), "{engine} was never called: {out}");
        for row in rows {
            // Of the right shape in every call, and wrong in each of them.
            assert!(row["fault"].is_null(), "{row}");
            assert!(row["difference"].as_f64() > Some(0.1) && row["passed"] == false, "{row}");
            assert!(row["calls"].as_u64() > Some(1), "{row}");
        }
    }
    // What stays on the GPU is what passes the host, whatever it is.
    for (way, tensors) in [
        ("decoder/resident", &["logits", "cache"][..]),
        ("mask_decoder/held", &["image_embedding", "low_res_masks", "iou_scores"]),
    ] {
        let rows: Vec<_> = outputs.iter().filter(|row| row["engine"] == way).collect();
        assert_eq!(rows.iter().map(|row| &row["tensor"]).collect::<Vec<_>>(), tensors, "{out}");
        assert!(rows.iter().all(|row| row["passed"] == true && row["difference"] == 0.0), "{rows:?}");
        assert!(rows.iter().all(|row| row["calls"].as_u64() > Some(2)), "{rows:?}");
    }
    // Where nothing is copied, it is the same nonsense.
    let (_, mapped) = check(&["--gpu-buffers", "mapped"]);
    assert_eq!((&report["buffers"], &mapped["buffers"]), (&"copied".into(), &"mapped".into()));
    assert_eq!(report["outputs"], mapped["outputs"]);
    assert_eq!(report["engines"].as_array().map(Vec::len), Some(5));
    let text = texts(&sam4mllm(&args[..args.len() - 2])).0;
    assert!(text.contains("mask_decoder") && text.contains("FAULT") && text.contains("GPU memory in use"), "{text}");
    // An embedding that cannot be handed over is one fault more; all else is told as before.
    fail_at("cuStreamWaitEvent");
    let (_, broken) = check(&[]);
    let of = |report: &serde_json::Value, handed: bool| -> Vec<_> {
        let rows = report["outputs"].as_array().expect("rows").iter();
        rows.filter(|row| (row["engine"] == "mask_decoder/held") == handed).cloned().collect()
    };
    assert_eq!(of(&broken, false), of(&report, false));
    let faults = of(&broken, true);
    let fault = faults.iter().find(|row| row["tensor"] == "*").unwrap_or_else(|| panic!("{faults:?}"));
    assert!(fault["passed"] == false, "{fault}");
    assert!(fault["fault"].as_str().is_some_and(|why| why.contains("unspecified launch failure")), "{fault}");
}

/// The script of `tests/gpu` that compares both ways: the stand-in's nonsense is the same with graphs and without.
pub fn graphs_are_compared_by_a_script() {
    let folder = cache(Path::new(BUNDLE), Precision::Fp32);
    let cache = folder.path().to_str().expect("is text");
    // A sanitizer that is loaded in advance is for the binary alone, not for the script's tools.
    let sanitizer = std::env::var("LD_PRELOAD").unwrap_or_default();
    let binary = folder.path().join("sam4mllm");
    let wrapper = format!("#!/bin/sh\nLD_PRELOAD={sanitizer} exec {} \"$@\"\n", env!("CARGO_BIN_EXE_sam4mllm"));
    std::fs::write(&binary, wrapper).expect("is written");
    std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).expect("is made executable");
    let compare = |more: &[&str]| {
        let mut command = Command::new("tests/gpu/graphs");
        command.env_remove("LD_PRELOAD").arg(&binary).args(["--cache-dir", cache, "--precision", "fp32"]).args(more);
        let output = command.env_remove("RUST_LOG").output().expect("runs");
        (output.status.code(), texts(&output))
    };
    let (code, (out, err)) = compare(&["--frames", "2"]);
    assert_eq!(code, Some(0), "{out}{err}");
    for row in ["decoder.logits", "mask_decoder.iou_scores", "image_encoder.image_embedding"] {
        let line = out.lines().find(|line| line.contains(row)).unwrap_or_else(|| panic!("{row}: {out}"));
        assert!(line.ends_with("ok"), "{line}");
    }
    assert_eq!(out.lines().filter(|line| line.ends_with("times")).count(), 5, "{out}");
    assert!(!out.contains('/'), "the same engine on another way is not the CPU: {out}");
    assert_eq!(compare(&["--frames", "0"]).0, Some(1), "nothing is compared");
}

/// A copy of the bundle that stores what the CPU's engines say.
fn sealed() -> TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    for name in ["bundle.toml", "mllm", "sam"] {
        let from = Path::new(BUNDLE).join(name);
        let files: Vec<_> = match from.is_dir() {
            true => std::fs::read_dir(&from).expect("is a folder").flatten().map(|entry| entry.path()).collect(),
            false => vec![from],
        };
        for file in files {
            let to = copy.path().join(file.strip_prefix(BUNDLE).expect("is in the bundle"));
            std::fs::create_dir_all(to.parent().expect("has a folder")).expect("is made");
            std::fs::copy(&file, &to).expect("is copied");
        }
    }
    let output = sam4mllm(&["engine", "seal", copy.path().to_str().expect("is text")]);
    assert!(output.status.success(), "{}", texts(&output).1);
    copy
}

/// The self-test of the node finds the nonsense; engines that cannot be had are a fault of their own.
pub fn a_node_on_the_gpu_tests_itself() {
    let bundle = sealed();
    let folder = cache(bundle.path(), Precision::Fp16);
    let (cache, bundle) = (folder.path().to_str().expect("is text"), bundle.path().to_str().expect("is text"));
    let serve = ["serve", "--check", "--listen", "127.0.0.1:0", "--bundle", bundle];
    let args = [&serve[..], &["--backend", "tensorrt", "--cache-dir", cache]].concat();
    let output = sam4mllm(&args);
    let (table, log) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{table}{log}");
    let row = |name: &str| table.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}: {table}"));
    assert!(row(" backend ").contains("ok") && row(" backend ").contains("tensorrt TensorRT"), "{table}");
    assert!(row(" backend ").contains("fp16"), "{table}");
    for output in ["vision image_embeds", "decoder logits", "mask_decoder iou_scores"] {
        assert!(row(output).contains("FAULT"), "{table}");
    }
    assert!(table.contains("2.0 %"), "the tolerance of 16 bits: {table}");
    // Without a GPU: a fault that says what to do, or the CPU where that is wanted.
    fail_at("cuInit");
    let (table, _) = texts(&sam4mllm(&args));
    let flat = table.split_whitespace().filter(|word| *word != "│" && *word != "┆").collect::<Vec<_>>().join(" ");
    assert!(flat.contains("no CUDA-capable device is detected") && flat.contains("--cpu-fallback"), "{table}");
    let output = sam4mllm(&[&args[..], &["--cpu-fallback"]].concat());
    let (table, log) = texts(&output);
    assert_eq!(output.status.code(), Some(0), "{table}{log}");
    assert!(table.contains("rten") && !table.contains("FAULT"), "{table}");
    assert!(log.contains("computing on the CPU") && log.contains("no CUDA-capable device"), "{log}");
}

/// A plan that the cache lacks is built, which the stand-in refuses; with all of them nothing is. One whose bytes are
/// not those that were written is found out when it is loaded, and built again.
pub fn a_plan_that_is_missing_is_built() {
    let folder = cache(Path::new(BUNDLE), Precision::Fp16);
    let cache = folder.path().to_str().expect("is text");
    let check = || {
        let output = sam4mllm(&["engine", "check", "--cache-dir", cache, "--frames", "1"]);
        assert_eq!(output.status.code(), Some(1));
        texts(&output).1
    };
    let said = check();
    assert!(said.contains("outputs of the GPU are not those") && !said.contains("building the plan"), "{said}");
    let plan = find(&folder, "mask_decoder-");
    let mut bytes = std::fs::read(&plan).expect("a plan");
    bytes[6] ^= 1;
    std::fs::write(&plan, bytes).expect("is written");
    let said = check();
    assert!(said.contains("plan is built again") && said.contains("its hash is not its record's"), "{said}");
    assert!(said.contains("building the plan") && said.contains("a builder: TensorRT gives no reason"), "{said}");
    std::fs::remove_file(plan).expect("is removed");
    let said = check();
    assert!(said.contains("building the plan") && said.contains("mask_decoder"), "{said}");
    assert!(said.contains("a builder: TensorRT gives no reason"), "{said}");
}

/// The stand-in has everything but a builder; a machine without a GPU lacks one thing more.
pub fn a_probe_tells_what_is_missing() {
    let probe = |more: &[&str]| {
        let output = sam4mllm(&[&["engine", "probe"][..], more].concat());
        assert_eq!(output.status.code(), Some(1));
        let (table, said) = texts(&output);
        assert!(said.contains("plans cannot run on this machine"), "{said}");
        table
    };
    let table = probe(&[]);
    let verdict = |table: &str, what: &str| {
        let row = table.lines().find(|line| line.contains(&format!("│ {what} "))).map(str::to_owned);
        row.unwrap_or_else(|| panic!("{what}: {table}")).split('┆').nth(1).map(|cell| cell.trim().to_owned())
    };
    let found = ["libraries", "GPU", "builder"].map(|what| verdict(&table, what).expect("has a verdict"));
    assert_eq!(found, ["ok", "ok", "missing"], "{table}");
    assert!(table.contains("Stand-in, sm86, 8192 of 8192 MiB free"), "{table}");
    // Buffers are those that a node with the same arguments would have.
    assert!(table.contains("buffers copied"), "{table}");
    let table = probe(&["--gpu-buffers", "mapped"]);
    assert!(table.contains("buffers mapped"), "{table}");
    be("unmappable");
    let table = probe(&["--gpu-buffers", "mapped"]);
    assert_eq!(verdict(&table, "GPU").as_deref(), Some("missing"), "{table}");
    fail_at("cuInit");
    let table = probe(&[]);
    assert_eq!(verdict(&table, "GPU").as_deref(), Some("missing"), "{table}");
    assert!(!table.contains("builder"), "{table}");
}

pub fn a_plan_is_inspected_with_and_without_its_gpu() {
    let folder = cache(Path::new(BUNDLE), Precision::Fp16);
    let path = find(&folder, "decoder-").to_string_lossy().into_owned();
    let inspect = |more: &[&str]| {
        let output = sam4mllm(&[&["engine", "inspect", &path][..], more].concat());
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{err}");
        out
    };
    let text = inspect(&[]);
    for said in ["fp16", "sm86 Stand-in", "logit", "layers after fusion", "4096 bytes for a context"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    let json: serde_json::Value = serde_json::from_str(&inspect(&["--format", "json"])).expect("is JSON");
    assert_eq!(json["loaded"]["description"]["Layers"][1], "second");
    assert!(json["loaded"]["ports"].as_array().is_some_and(|ports| ports.len() > 4));
    // Of another GPU: its record is shown, and it is kept from TensorRT.
    let record = Path::new(&path).with_extension("json");
    let foreign = std::fs::read_to_string(&record).expect("a record").replace("sm86 Stand-in", "sm120 Other");
    std::fs::write(&record, foreign).expect("is written");
    let text = inspect(&[]);
    assert!(text.contains("not loaded") && text.contains("on sm120 Other, and this machine has"), "{text}");
    fail_at("cuInit");
    assert!(inspect(&[]).contains("no CUDA-capable device is detected"));
}

/// A decoder is timed against what memory and products allow; the stand-in's clock runs as it likes.
pub fn a_decoder_is_timed() {
    let (folder, checkpoint) = (tempfile::tempdir().expect("a folder"), "tests/reference/checkpoints/llava-siglip");
    let level = GraphOptions::highest_level(library().version());
    let (form, dir) = (Form { level, precision: Precision::Fp16 }, tempfile::tempdir().expect("a folder"));
    let report = import(checkpoint, dir.path(), form).expect("is imported");
    let reports = [report.clone(), report];
    let recipe = Recipe::new(&library(), None).expect("a GPU");
    let plans = folder.path().join("plans");
    let decoder = decoder_graph(dir.path().join("decoder.onnx"), form, 16 + 3).expect("is a graph");
    let key = recipe.key(&library(), &decoder.source(checkpoint), &decoder.profiles);
    put(&plans, &key, &plan(&decoder, &reports, &key.options).replace(&CAPACITY.to_string(), "787"));
    let product = product_graph(64);
    let key = recipe.key(&library(), &product.source(""), &product.profiles);
    put(&plans, &key, "input a f16 64 64\ninput b f16 64 64\noutput y f16 64 64 = a\n");
    let cache = folder.path().to_str().expect("is text");
    let args = ["engine", "decoder", checkpoint, "--cache", cache, "--product", "64"];
    let args = [&args[..], &["--prompt", "16", "--tokens", "3", "--runs", "2"]].concat();
    let output = sam4mllm(&[&args[..], &["--format", "json"]].concat());
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{out}{err}");
    let told: serde_json::Value = serde_json::from_str(&out).expect("is JSON");
    assert_eq!((&told["device"], &told["precision"]), (&"Stand-in (sm86)".into(), &"fp16".into()));
    for figure in ["memory_ceiling", "product_ceiling", "weight_bytes", "parameters"] {
        assert!(told[figure].as_f64() > Some(0.0), "{figure}: {out}");
    }
    for pass in ["prompt", "token"] {
        assert!(told[pass]["gpu_ms"][0].as_f64() >= Some(0.0) && told[pass]["share"].is_number(), "{out}");
    }
    let text = texts(&sam4mllm(&args)).0;
    assert!(text.contains("of the memory's ceiling") && text.contains("pass of 16 tokens"), "{text}");
    // Where nothing else is copied, the product's matrices are.
    be("integrated");
    fail_at("cuMemcpyHtoDAsync");
    let output = sam4mllm(&args);
    let said = texts(&output).1;
    assert!(!output.status.success() && said.contains("`product`"), "{said}");
}
