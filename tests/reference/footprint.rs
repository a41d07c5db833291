//! What `engine plan` counts: against the graphs' own declarations, against what an import says, and against a process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use sam4mllm::engine::bundle::{Bundle, Verify};
use sam4mllm::import::{Form, Level, Port, Precision, describe_bundle, outline};
use sam4mllm::model::footprint::{Demand, Footprint, Runtime, Subject, footprint};
use tempfile::TempDir;

use crate::alone;
use crate::sparse::EIGHT_BILLION;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn demand(runtime: Runtime, precision: Precision) -> Demand {
    let form = Form { level: Level::Portable, precision };
    Demand { runtime, form, context: None, image_tokens: None, sessions: 1 }
}

fn tabletop() -> Bundle {
    Bundle::open(root("engines/tabletop"), Verify::Sizes).unwrap()
}

/// The shapes that are worked out operator by operator end in those that the graphs declare, in every class and form.
#[test]
fn shapes_end_in_what_the_graphs_declare() {
    let _alone = alone();
    let sizes = BTreeMap::from([
        ("sequence", 5),
        ("past", 7),
        ("total", 12),
        ("capacity", 40),
        ("logits", 3),
        ("prompts", 2),
        ("points", 6),
        ("windows", 3),
        ("patches", 16),
        ("tokens", 0),
    ]);
    let mut checked = 0;
    for folder in ["checkpoints", "mllms"] {
        for entry in fs::read_dir(root("tests/reference").join(folder)).unwrap() {
            let dir = entry.unwrap().path();
            if !dir.is_dir() {
                continue;
            }
            for (level, precision) in [
                (Level::Portable, Precision::Fp32),
                (Level::Portable, Precision::Fp16),
                (Level::Portable, Precision::Int4),
                (Level::Fused, Precision::Fp16),
                (Level::Fused, Precision::Int8),
            ] {
                let outlined = outline(&dir, None, Form { level, precision });
                let outlined = outlined.unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
                for graph in &outlined.graphs {
                    let found = graph.bytes(&sizes).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
                    let bytes = |port: Port| -> u64 {
                        let size = |dim: &String| dim.parse().unwrap_or_else(|_| sizes[dim.as_str()]);
                        port.shape.iter().map(size).product::<u64>() * if port.data_type == "f16" { 2 } else { 4 }
                    };
                    // How many tokens Qwen makes of its patches hangs on the checkpoint.
                    if graph.outputs().any(|port| port.shape.iter().any(|dim| dim == "tokens")) {
                        continue;
                    }
                    let declared: u64 = graph.outputs().map(bytes).sum();
                    let place = format!("{} {} {level:?} {precision:?}", dir.display(), graph.name());
                    assert_eq!(found.outputs + found.cache_out, declared, "{place}");
                    assert!(
                        found.weights > 0 && found.activations > 0 || graph.name() == "embed",
                        "{place}: {found:?}"
                    );
                    checked += 1;
                }
            }
        }
    }
    println!("{checked} graphs");
    assert!(checked > 90);
}

#[test]
fn weights_are_what_the_graphs_hold() {
    let _alone = alone();
    let bundle = tabletop();
    let of = |precision| footprint(Subject::Bundle(&bundle), demand(Runtime::TensorRt, precision)).unwrap().weights;
    let forms = [Precision::Fp32, Precision::Fp16, Precision::Int8, Precision::Int4];
    let [full, half, eight, four] = forms.map(of);
    let reports = describe_bundle(&bundle, Level::Portable).unwrap();
    let parameters: u64 = reports.iter().flat_map(|report| &report.graphs).map(|graph| graph.parameters).sum();
    let form = Form { level: Level::Portable, precision: Precision::Int8 };
    let quantised: u64 = describe_bundle(&bundle, form).unwrap().iter().map(|report| report.weights.quantised).sum();
    println!("{parameters} parameters, {quantised} in few bits: {full}, {half}, {eight}, {four} bytes");
    // Beside the parameters there are a few constants.
    assert!((4 * parameters..4 * parameters + (1 << 20)).contains(&full), "{full}");
    assert!(half >= 2 * parameters && half < full, "{half}");
    let near = |found: u64, wanted: u64| found.abs_diff(wanted) * 50 < quantised;
    assert!(near(half - eight, quantised), "a byte less for each");
    // A scale of 16 bits for each 128, 64 or 32 weights.
    assert!((half - four) * 64 < 97 * quantised && (half - four) * 32 > 45 * quantised, "one and a half bytes less");
}

/// The most memory that a command takes, as the system tells it shortly before it ends.
fn peak_of(command: &mut Command) -> u64 {
    let mut child = command.spawn().unwrap();
    let mut peak = 0;
    let outcome = loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = peak.max(line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or(0));
        if let Some(outcome) = child.try_wait().unwrap() {
            break outcome;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(outcome.success());
    peak << 10
}

#[test]
fn a_process_takes_about_what_is_said() {
    let _alone = alone();
    let dir = TempDir::new().unwrap();
    let clip = dir.path().join("clip");
    let program = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sam4mllm"));
        command.env("XDG_CACHE_HOME", dir.path()).stdout(std::process::Stdio::null());
        command
    };
    peak_of(program().args(["dataset", "clip"]).arg(&clip).args(["--seed", "3", "--frames", "1"]));
    let segment = ["the battery", "--bundle"];
    let found = peak_of(
        program().arg("segment").arg(clip.join("frames/000000.jpg")).args(segment).arg(root("engines/tabletop")),
    );
    let said = footprint(Subject::Bundle(&tabletop()), demand(Runtime::Cpu, Precision::Fp32)).unwrap();
    println!("{} MiB taken, {} MiB said", found >> 20, said.total >> 20);
    assert!(found < 2 * said.total && 2 * found > said.weights, "{found} of {said:?}");
}

fn plan(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sam4mllm")).args(["engine", "plan"]).arg(dir).args(args).output().unwrap()
}

#[test]
fn eight_billion_parameters_fit_16_gib_in_4_bits_and_not_8_in_16() {
    let _alone = alone();
    let dir = TempDir::new().unwrap();
    let bytes = EIGHT_BILLION.write(dir.path());
    let of = |precision| -> Footprint {
        let form = Form { level: Level::Fused, precision };
        let demand = Demand { form, context: Some(4096), ..demand(Runtime::TensorRt, precision) };
        footprint(Subject::Checkpoint(dir.path()), demand).unwrap()
    };
    let (half, four) = (of(Precision::Fp16), of(Precision::Int4));
    assert!(half.weights >= bytes / 100 * 98 && four.weights < half.weights / 2, "{half:?} {four:?}");
    // 32 layers of 8 heads of 128 keys and as many values, of 16 bits.
    assert_eq!(half.cache_per_token, 32 * 2 * 8 * 128 * 2);
    // The whole and five rows of tiles at most: 24 x 24 tokens each.
    assert!(half.image_tokens > 4 * 576 && half.image_tokens < 6 * 576, "{half:?}");
    let fits = ["--board", "orin-nx-16g", "--precision", "int4", "--level", "fused", "--context", "4096"];
    let output = plan(dir.path(), &fits);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let output = plan(dir.path(), &["--board", "orin-nano-8g", "--precision", "fp16", "--context", "4096"]);
    assert_eq!(output.status.code(), Some(1));
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(why.contains("fp16 takes") && why.contains("orin-nano-8g has left"), "{why}");
}

#[test]
fn programs_get_the_same_figures_as_json() {
    let _alone = alone();
    let output = plan(&root("engines/tabletop"), &["--format", "json", "--board", "orin-nano-8g"]);
    assert!(output.status.success());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["footprints"].as_array().unwrap().len(), 5);
    for footprint in report["footprints"].as_array().unwrap() {
        let part = |name: &str| footprint[name].as_u64().unwrap();
        let parts = ["weights", "cache", "activations", "embeddings", "buffers", "program"].map(part);
        assert_eq!(parts.iter().sum::<u64>(), part("total"));
    }
    let longer = plan(&root("engines/tabletop"), &["--context", "1000000"]);
    assert!(!longer.status.success(), "longer than the checkpoint knows");
    assert!(!plan(Path::new("/nowhere"), &[]).status.success());
}
