//! Clients against the node: the crate's own, those in `launch/clients`, and stubs as anyone may generate them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use sam4mllm::client::{Client, ClientError, Reply, file_frame, masks, raw_frame};
use sam4mllm::server::wire::{self, Verdict};

use crate::harness::{BLUE, RED, Running, Scene, of, soon};
use crate::served::Served;

#[tokio::test]
async fn the_crate_s_own_client_gets_masks() {
    let node = Running::start().await;
    let mut client = Client::connect(format!("http://{}", node.address)).await.expect("connects");
    client.ready(crate::served::PATIENCE).await.expect("becomes ready");
    assert_eq!(client.describe().await.expect("is described").backend, "fake");

    let scene = Scene::new().with_box(RED, [90, 70, 150, 130]);
    let frame = raw_frame("rgb8", scene.width, scene.height, 3 * scene.width, scene.rgb());
    let request = wire::SegmentRequest { frame: Some(frame), command: "red".into(), ..Default::default() };
    let answer = client.segment(request).await.expect("is answered").result.expect("has a result");
    assert_eq!(masks(&answer).expect("run lengths"), [scene.truth(0)]);
    let nothing = client.segment(wire::SegmentRequest::default()).await.expect_err("without a frame");
    assert!(matches!(&nothing, ClientError::Status(s) if s.code() == tonic::Code::InvalidArgument), "{nothing}");

    let (mut sender, mut receiver) = client.stream().await.expect("opens").split();
    sender.add("it", "red").await.expect("is sent");
    let found = soon("the box", async {
        loop {
            let seq = sender.frame(file_frame("jpeg", scene.jpeg())).await.expect("is sent");
            let Some(Reply::Frame(frame)) = receiver.reply().await.expect("goes on") else { panic!("no frame") };
            assert_eq!(frame.seq, seq);
            if of(&frame, "it").verdict() == Verdict::Found {
                return masks(of(&frame, "it")).expect("run lengths");
            }
        }
    })
    .await;
    assert!(found[0].iou(&scene.truth(0)).is_some_and(|iou| iou > 0.95));
    sender.frame(file_frame("jpeg", vec![0xff, 0xd8])).await.expect("is sent");
    let refusal = receiver.reply().await.expect("goes on");
    assert!(matches!(refusal, Some(Reply::Rejected(_))), "{refusal:?}");
    drop(sender);
    assert_eq!(receiver.reply().await.expect("ends well"), None);
}

#[tokio::test]
async fn a_token_is_no_secret_in_ones_own_logs() {
    let node = Running::start().await;
    let client = Client::connect(format!("http://{}", node.address)).await.expect("connects");
    let held = client.clone().with_token("open-sesame").expect("ASCII");
    assert!(!format!("{held:?}").contains("sesame"));
    assert!(matches!(client.with_token("line\nbreak"), Err(ClientError::Token)));
}

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
    let served = Served::fake(&["--fake-ground-ms", "50"]);
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
    served.process.signal("TERM");
    assert_eq!(served.process.end().status.code(), Some(0));
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
fn the_ros_2_package_answers_on_its_topics() {
    python_client("test_bridge.py");
}

#[test]
fn the_cpp_client_gets_masks() {
    let example = repository("target/clients/cpp/example");
    if !example.exists() {
        return skipped("target/clients/cpp/example", "tests/clients/cpp/setup.sh");
    }
    let served = Served::fake(&["--fake-ground-ms", "50"]);
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
    served.process.signal("TERM");
    assert_eq!(served.process.end().status.code(), Some(0));
    let (code, said) = run("127.0.0.1:1", &["the red box"]);
    assert!(code == Some(2) && !said.is_empty(), "nobody there: {said}");
}
