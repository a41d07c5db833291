//! `sam4mllm dataset inspect`, as a user runs it, on the small data sets beside this file.

use std::process::{Command, Output};

use serde_json::Value;

fn inspect(args: &[&str]) -> Output {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dataset");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sam4mllm"));
    command.current_dir(folder).args(["dataset", "inspect"]).args(args).output().expect("the binary starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[test]
fn a_table_says_what_is_in_a_data_set_and_what_leaks() {
    let args = ["refcoco/refs(unc).p", "--format", "refcoco", "--held-out", "grefcoco=grefcoco/grefs(unc).json"];
    let output = inspect(&args);
    let table = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    eprintln!("{table}");
    let row = |name: &str| -> Vec<String> {
        let line = table.lines().find(|l| l.contains(&format!(" {name} "))).unwrap_or_else(|| panic!("no row {name}"));
        line.split(['│', '┆']).map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect()
    };
    assert_eq!(row("train"), ["train", "1", "1", "2", "1.00", "0.0 %", "1"]);
    assert_eq!(row("all"), ["all", "3", "3", "5", "1.00", "0.0 %", "1"]);
    assert!(table.contains("3 images held out; 1 training records dropped with 1 expressions of 1 images"));
}

#[test]
fn programs_get_json() {
    let cases = [
        (["grefcoco/grefs(unc).json", "grefcoco"], ["/all/no_target", "/dropped/records"], [1, 1]),
        (["reasonseg/train", "reasonseg"], ["/splits/train/targets", "/empty_masks"], [4, 0]),
        (["llava/llava_instruct.json", "llava"], ["/all/turns", "/without_picture"], [8, 1]),
    ];
    for ([records, format], pointers, expected) in cases {
        let output = inspect(&[records, "--format", format, "--check-masks", "--json"]);
        assert!(output.status.success(), "{records}: {}", text(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        let found = pointers.map(|p| report.pointer(p).and_then(Value::as_i64));
        assert_eq!(found, expected.map(Some), "{records}: {report:#}");
    }
}

#[test]
fn damage_is_one_line_with_the_place() {
    let output = inspect(&["refcoco/instances.json", "--format", "refcoco"]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    let expected = "unpickle `refcoco/instances.json`: unpickle opcode unknown (0x7b) at byte 0: no such instruction";
    assert!(error.contains(expected), "{error}");
    assert_eq!(inspect(&["x", "--format", "coco"]).status.code(), Some(2));
}
