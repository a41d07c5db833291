//! `sam4mllm dataset dialogues`, as a user runs it, on scenes and with the embedded default's tokenizer and SAM.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// The embedded default's dialect without its words for PPG, and those.
fn dialect_and_ppg() -> (String, String) {
    let manifest = fs::read_to_string("engines/tabletop/bundle.toml").expect("is there");
    let (before, after) = manifest.split_once("[dialect.ppg]").expect("was taught it");
    let (ppg, after) = after.split_once("[dialect.thresholds]").expect("has thresholds");
    (format!("{before}[dialect.thresholds]{after}"), format!("\n[dialect.ppg]{ppg}"))
}

fn dialogues(out: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sam4mllm"));
    command
        .args(["dataset", "dialogues"])
        .arg(out)
        .args(args)
        .env_remove("RUST_LOG")
        .output()
        .expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn sam_is_in_the_loop_and_the_bytes_do_not_depend_on_threads() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let dialect = dir.path().join("dialect.toml");
    // Other words for PPG, in its own vocabulary.
    let (manifest, ppg) = dialect_and_ppg();
    let asked = ppg.replace("<user> ppg {hint}", "<user> find on {hint}");
    assert_ne!(asked, ppg);
    fs::write(&dialect, manifest + &asked).expect("writable");
    let write = |threads: &str, out: &str| {
        let out = dir.path().join(out);
        let args = [
            "--source",
            "tabletop:train",
            "--count",
            "6",
            "--strategy",
            "ppg,pqpp",
            "--tried",
            "8",
            "--dialect",
            &dialect.to_string_lossy(),
            "--threads",
            threads,
            "--json",
            "--side",
            "256",
        ];
        let output = dialogues(&out, &args);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        (fs::read_to_string(out.join("dialogues.jsonl")).expect("was written"), report)
    };
    let (one, report) = write("1", "one");
    let (two, _) = write("2", "two");
    assert_eq!(one, two);
    let all = &report["all"];
    eprintln!("{report:#}");
    let number = |key: &str| all[key].as_u64().expect("a number");
    assert_eq!(number("dialogues"), 6);
    assert!(number("tokens_max") <= 1536 && number("yes") > 0 && number("no") > 0);
    let dropped: u64 = all["dropped"].as_object().expect("by reason").values().filter_map(Value::as_u64).sum();
    assert_eq!(number("taught") + dropped, number("expressions"));
    assert!(one.lines().any(|l| l.contains(",yes]") && l.contains(",no]")), "a group of points: {one}");
    assert!(dir.path().join("one/chat_template.jinja").is_file());
}

#[test]
fn a_table_says_what_was_written_and_bad_words_are_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = dialogues(dir.path(), &["--source", "tabletop:val", "--count", "3", "--format", "llama-factory"]);
    let table = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(table.contains("tabletop") && table.contains("tokens p50"), "{table}");
    assert!(dir.path().join("dataset_info.json").is_file());
    let fails = |args: &[&str], code: i32, why: &str| {
        let output = dialogues(dir.path(), args);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains(why), "{error}");
    };
    fails(&["--source", "tabletop:train"], 1, "give a number of dialogues");
    let without = dir.path().join("without.toml");
    fs::write(&without, dialect_and_ppg().0).expect("writable");
    let without = without.to_string_lossy();
    let ppg = ["--source", "tabletop:train", "--count", "1", "--strategy", "ppg", "--dialect", &without];
    fails(&ppg, 64, "[dialect.ppg]");
    fails(&["--source", "coco:x"], 2, "there is no format `coco`");
    fails(
        &["--source", "tabletop:train", "--count", "1", "--max-tokens", "256"],
        1,
        "prefix and picture take 257 tokens",
    );
}
