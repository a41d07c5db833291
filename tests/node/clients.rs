//! Clients in other languages against the binary: what `launch/clients` ships, and stubs as anyone may generate them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::binary::Served;
use crate::harness::{BLUE, RED, Scene};

/// A place in the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Says past the test's captured output that `what` is missing. Not a failure on a user's machine: `.ci/run` runs the
/// scripts first.
fn skipped(what: &str, script: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: 1 test, no {what} (run {script})");
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).trim().to_owned()
}

/// A Python that has what the clients need: the one that `setup.sh` made, or the system's.
fn python() -> Option<PathBuf> {
    let check = "import grpc, grpc_tools, numpy, PIL, sam4mllm";
    [repository("target/clients/python/bin/python"), PathBuf::from("python3")].into_iter().find(|python| {
        let outcome = Command::new(python).args(["-c", check]).stderr(Stdio::null()).status();
        outcome.is_ok_and(|status| status.success())
    })
}

/// Runs a Python client's script against a node.
fn python_client(script: &str) {
    let Some(python) = python() else {
        let what = "Python with grpcio, grpcio-tools, numpy, pillow and launch/clients/python";
        return skipped(what, "tests/clients/python/setup.sh");
    };
    let served = Served::start(&["--fake-ground-ms", "50"]);
    let output = Command::new(python)
        .arg(repository("tests/clients/python").join(script))
        .arg(&served.address)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("runs");
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("passed: "), "{text}");
    let _ = writeln!(std::io::stderr(), "{script} {text}");
    served.signal("TERM");
    assert_eq!(served.end().status.code(), Some(0));
}

#[test]
fn a_client_of_generated_stubs_gets_masks() {
    python_client("test_client.py");
}

#[test]
fn the_python_package_gets_masks() {
    python_client("test_package.py");
}

#[test]
fn the_cpp_client_gets_masks() {
    let example = repository("target/clients/cpp/example");
    if !example.exists() {
        return skipped("target/clients/cpp/example", "tests/clients/cpp/setup.sh");
    }
    let served = Served::start(&["--fake-ground-ms", "50"]);
    let folder = tempfile::tempdir().expect("a folder");
    let picture = folder.path().join("scene.jpg");
    let scene = Scene::new().with_box(RED, [90, 70, 150, 130]).with_box(BLUE, [220, 150, 270, 200]);
    std::fs::write(&picture, scene.jpeg()).expect("writes");
    let run = |address: &str, arguments: &[&str]| {
        let output = Command::new(&example).arg(address).arg(&picture).args(arguments).output().expect("runs");
        (output.status.code(), text(&output))
    };

    let (code, said) = run(&served.address, &["the red box"]);
    assert_eq!(code, Some(0), "{said}");
    // JPEG smears the edges by a pixel or two.
    let number = |word: &str| said.split_whitespace().skip_while(|w| *w != word).nth(1).and_then(|n| n.parse().ok());
    let (x1, pixels): (Option<f32>, Option<f32>) = (number("box"), number("pixels"));
    assert!(said.starts_with("VERDICT_FOUND") && said.contains("ORIGIN_GROUNDED"), "{said}");
    assert!(
        x1.is_some_and(|x| (x - 90.0).abs() <= 2.0) && pixels.is_some_and(|n| (n - 3600.0).abs() < 300.0),
        "{said}"
    );

    let (code, said) = run(&served.address, &["the green box"]);
    assert_eq!((code, said.split_whitespace().next()), (Some(1), Some("VERDICT_ABSENT")), "{said}");

    let (code, said) = run(&served.address, &["blue", "3"]);
    assert_eq!((code, said.matches("VERDICT_FOUND").count()), (Some(0), 3), "{said}");
    assert!(said.contains("ORIGIN_TRACKED"), "{said}");

    let (code, said) = run(&served.address, &[""]);
    assert!(code == Some(2) && said.contains("command"), "{said}");
    served.signal("TERM");
    assert_eq!(served.end().status.code(), Some(0));
    let (code, said) = run("127.0.0.1:1", &["the red box"]);
    assert!(code == Some(2) && !said.is_empty(), "nobody there: {said}");
}
