//! Imports of large checkpoints, imports that end early, and two of them at once: what is read, what it takes of memory,
//! and what is left behind.

// A test fails by panicking, and these print what they measured.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod footprint;
mod sparse;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use sam4mllm::engine::rten::{RtenEngine, RtenOptions};
use sam4mllm::import::{Form, ImportErrorKind as Kind, Level, Precision, import};
use sparse::Shape;
use tempfile::TempDir;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The allocator counts for all threads: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Large in what counts: its matrices are a hundred times what an import may take of memory.
const LARGE: Shape = Shape {
    hidden: 1024,
    inner: 4096,
    layers: 12,
    heads: 8,
    kv_heads: 2,
    vocabulary: 200_000,
    tower: [256, 512, 3, 4, 112, 14],
    shards: 3,
};

fn sam() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference/checkpoints/sam")
}

/// Names of what is in a directory.
fn names(dir: &Path) -> BTreeSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Bytes that this thread has read.
fn read_so_far() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/io").unwrap();
    text.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

fn loads(dir: &Path) -> bool {
    RtenEngine::load(dir.join("mask_decoder.onnx"), &RtenOptions::default()).is_ok()
}

#[test]
fn weights_of_16_bits_are_not_read_and_those_of_few_bits_once() {
    let _alone = alone();
    let (dir, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let total = LARGE.write(dir.path());
    for (level, precision) in
        [(Level::Portable, Precision::Fp32), (Level::Fused, Precision::Fp16), (Level::Fused, Precision::Int8)]
    {
        let (before, read) = (MEMORY.current_usage(), read_so_far());
        MEMORY.reset_peak_usage();
        let report = import(dir.path(), out.path(), Form { level, precision }).unwrap();
        let taken = MEMORY.peak_usage().saturating_sub(before);
        let read = read_so_far() - read;
        let weights = &report.weights;
        println!("{precision:?}: {read} bytes of {total} read, {taken} of memory, {} written", weights.written_bytes);
        if precision == Precision::Int8 {
            // What stays in 16 bits is not read; what does not is read once, a matrix at a time.
            assert!(read <= 2 * weights.quantised + (4 << 20), "{read}");
            assert!(taken <= 10 * LARGE.hidden * LARGE.inner, "{taken}");
        } else {
            assert!(read < 2 << 20, "{read} bytes read");
            assert!(taken < 12 << 20, "{taken} bytes of memory");
            assert!(weights.in_place_bytes > total / 100 * 98 && weights.written_bytes < 1 << 20, "{weights:?}");
        }
        let links = names(out.path()).into_iter().filter(|name| name.starts_with("model-")).count();
        assert_eq!(links, LARGE.shards);
    }
}

#[test]
fn an_import_that_fails_leaves_what_was_there() {
    let _alone = alone();
    let dir = TempDir::new().unwrap();
    let (broken, out) = (dir.path().join("broken"), dir.path().join("out"));
    fs::create_dir(&broken).unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(sam().join(name), broken.join(name)).unwrap();
    }
    let config = fs::read_to_string(broken.join("config.json")).unwrap();
    // Found out after the image encoder is built, when weights have been written.
    fs::write(broken.join("config.json"), config.replacen("\"mlp_dim\": 64", "\"mlp_dim\": 65", 1)).unwrap();
    assert!(import(&broken, &out, Level::Portable).is_err());
    assert_eq!(names(dir.path()), BTreeSet::from(["broken".to_owned()]));
    let report = import(sam(), &out, Level::Portable).unwrap();
    assert!(report.graphs.iter().all(|graph| graph.path.is_file() && graph.path.starts_with(&out)), "{report:?}");
    assert!(import(&broken, &out, Level::Portable).is_err());
    assert!(loads(&out));
    assert_eq!(names(dir.path()), BTreeSet::from(["broken".to_owned(), "out".to_owned()]));
}

#[test]
fn a_killed_import_leaves_nothing_that_looks_like_graphs() {
    let _alone = alone();
    let dir = TempDir::new().unwrap();
    let (checkpoint, out) = (dir.path().join("checkpoint"), dir.path().join("out"));
    fs::create_dir(&checkpoint).unwrap();
    Shape { layers: 48, ..LARGE }.write(&checkpoint);
    let mut child = Command::new(env!("CARGO_BIN_EXE_sam4mllm"))
        .args(["engine", "import", "--precision", "int8", "-o"])
        .args([&out, &checkpoint])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (part, start) = (dir.path().join(".out.part"), Instant::now());
    while !part.join("computed.onnx_data").exists() {
        assert!(start.elapsed() < Duration::from_secs(120), "nothing is written");
        thread::sleep(Duration::from_millis(1));
    }
    // SIGKILL.
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success(), "it was killed in the middle");
    assert!(!out.exists() && part.exists());
    import(sam(), &out, Level::Portable).unwrap();
    assert!(loads(&out));
    assert_eq!(names(dir.path()), BTreeSet::from(["checkpoint".to_owned(), "out".to_owned()]));
    assert!(
        !out.join("computed.onnx_data").exists()
            || fs::metadata(out.join("computed.onnx_data")).unwrap().len() < 1 << 20
    );
}

#[test]
fn of_two_imports_into_one_directory_the_second_is_refused() {
    let _alone = alone();
    let dir = TempDir::new().unwrap();
    let (out, part) = (dir.path().join("out"), dir.path().join(".out.part"));
    fs::create_dir(&part).unwrap();
    let lock = File::create(part.join(".lock")).unwrap();
    lock.lock().unwrap();
    let error = import(sam(), &out, Level::Portable).unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    assert!(error.file().ends_with("out"), "{error}");
    drop(lock);
    let start = Barrier::new(4);
    let outcomes: Vec<_> = thread::scope(|scope| {
        let one = || {
            start.wait();
            import(sam(), &out, Level::Portable).map(|report| report.class)
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(outcomes.iter().any(Result::is_ok), "{outcomes:?}");
    for error in outcomes.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), Kind::Busy, "{error}");
    }
    assert!(loads(&out));
    assert_eq!(names(dir.path()), BTreeSet::from(["out".to_owned()]));
}

#[test]
fn what_no_import_wrote_is_never_replaced() {
    let _alone = alone();
    let out = TempDir::new().unwrap();
    fs::write(out.path().join("notes.txt"), "mine").unwrap();
    let error = import(sam(), out.path(), Level::Portable).unwrap_err();
    assert_eq!(error.kind(), Kind::Write, "{error}");
    assert_eq!(names(out.path()), BTreeSet::from(["notes.txt".to_owned()]));
    fs::remove_file(out.path().join("notes.txt")).unwrap();
    for _ in 0..2 {
        import(sam(), out.path(), Level::Portable).unwrap();
    }
    fs::write(out.path().join("notes.txt"), "mine").unwrap();
    assert_eq!(import(sam(), out.path(), Level::Portable).unwrap_err().kind(), Kind::Write);
    assert!(loads(out.path()), "what was there stays");
    assert!(import(sam(), sam(), Level::Portable).is_err(), "a checkpoint is not replaced by its graphs");
}
