//! `cargo bench --bench import`: what importing a checkpoint of the size of `llama3-llava-next-8b` costs. The weights are
//! zeros that take no space on disk; time, memory and what is read do not depend on what they are.
//!
//! `cargo bench --bench import -- int4` writes the weights of the language model in 4 bits (or `int8`).

#![allow(clippy::print_stdout)]

#[path = "../reference/sparse.rs"]
mod sparse;

use std::time::Instant;

use clap::ValueEnum;
use sam4mllm::engine::bundle::{Bundle, Verify, seal};
use sam4mllm::import::{Form, Level, Precision, import, import_cached};
use sparse::EIGHT_BILLION;

/// A figure of this process, from a file of `/proc/self`.
fn figure(file: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix(key)).expect("has the key");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("is a number")
}

fn measure<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let (read, start) = (figure("io", "rchar:"), Instant::now());
    let result = run();
    let (seconds, read) = (start.elapsed().as_secs_f64(), figure("io", "rchar:") - read);
    let peak = figure("status", "VmHWM:") >> 10;
    println!("{what:44} {seconds:8.3} s  {:9.1} MB read  {peak:5} MiB at most", read as f64 / 1e6);
    result
}

fn main() {
    let wanted = std::env::args().filter_map(|argument| Precision::from_str(&argument, true).ok()).next();
    let dir = tempfile::tempdir().expect("is made");
    let bundle = dir.path().join("bundle");
    for part in ["mllm", "sam"] {
        std::fs::create_dir_all(bundle.join(part)).expect("is made");
    }
    let bytes = EIGHT_BILLION.write(&bundle.join("mllm"));
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(root.join("tests/reference/checkpoints/sam").join(file), bundle.join("sam").join(file))
            .expect("is copied");
    }
    let manifest = std::fs::read_to_string(root.join("src/engine/bundle/testdata/bundle.toml")).expect("reads");
    let manifest = manifest.replace("LlavaForConditionalGeneration", "LlavaNextForConditionalGeneration");
    std::fs::write(bundle.join("bundle.toml"), manifest).expect("writes");
    println!("checkpoint of {:.2} GB in {} files", bytes as f64 / 1e9, EIGHT_BILLION.shards);

    let forms = match wanted {
        Some(precision) => vec![Form { level: Level::Fused, precision }],
        None => [Level::Portable, Level::Fused].map(|level| Form { level, precision: Precision::Fp16 }).to_vec(),
    };
    for form in forms {
        let what = format!("import, {}, {}", form.level.name(), form.precision.name());
        let report = measure(&what, || import(bundle.join("mllm"), dir.path().join("out"), form).expect("is imported"));
        let (in_place, written) = (report.weights.in_place_bytes, report.weights.written_bytes);
        println!("  {:.2} GB in place, {:.6} GB written", in_place as f64 / 1e9, written as f64 / 1e9);
    }
    if wanted.is_none() {
        measure("seal the bundle: every byte hashed", || seal(&bundle).expect("is sealed"));
        let opened = measure("open the bundle: every byte hashed", || Bundle::open(&bundle, Verify::Hashes));
        let opened = opened.expect("is what its manifest says");
        measure("import into the cache", || import_cached(&opened, dir.path().join("cache"), Level::Portable))
            .expect("is imported");
    }
}
