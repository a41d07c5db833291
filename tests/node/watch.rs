//! `sam4mllm watch` against a served node: pictures, the standard input, exit codes.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use sam4mllm::server::Sockets;

use crate::access::{TOKEN, pem, tls, tokens};
use crate::harness::{RED, Running, Scene, backend};
use crate::served::Served;

fn watch(address: &str, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sam4mllm"))
        .args(["watch", "--address", address, "--fps", "200"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = child.stdin.take().expect("is piped");
    let input = input.to_owned();
    // A program that has seen enough does not read the rest.
    let writing = std::thread::spawn(move || stdin.write_all(&input).is_ok());
    let output = child.wait_with_output().expect("ends");
    let _ = writing.join();
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn pictures_are_watched_until_every_target_has_an_answer() {
    let served = Served::fake(&[]);
    let address = served.url();
    let folder = tempfile::tempdir().expect("a folder");
    let scene = Scene::new().with(RED, 100, 80);
    for name in ["2.jpg", "1.jpeg", "notes.txt"] {
        std::fs::write(folder.path().join(name), scene.jpeg()).expect("writes");
    }
    let pictures = folder.path().to_str().expect("UTF-8");
    let output = watch(&address, &["it=the red box", "green", "--once", "--pictures", pictures], b"");
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    let has = |name: &str, verdict: &str| {
        said.lines().any(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            cells.len() == 8 && (cells[1], cells[2]) == (name, verdict) && cells[0].parse::<u64>().is_ok()
        })
    };
    assert!(has("it", "FOUND") && has("green", "ABSENT"), "{said}");

    // A camera on the standard input, and its end.
    let film = vec![scene.jpeg(); 40].concat();
    let output = watch(&address, &["red", "?red", "--mjpeg", "--frames", "30"], &film);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}{}", text(&output.stderr));
    assert!(said.contains("\tred\tFOUND\t"), "{said}");
    let output = watch(&address, &["red", "--once", "--mjpeg"], b"");
    assert_eq!(output.status.code(), Some(1), "a camera without a picture gives no answer");
    let output = watch(&address, &["red", "--mjpeg"], b"no camera");
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("no row of JPEGs"));
    let output = watch("http://127.0.0.1:1", &["red", "--pictures", pictures], b"");
    assert!(output.status.code() == Some(1) && text(&output.stderr).contains("connect to node"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_a_certificate_and_a_token_are_used() {
    let script = sam4mllm::pipeline::fake::Script::default();
    let sockets = Sockets { tls: Some(tls(Some("root.pem"))), tokens: Some(tokens()), ..Sockets::default() };
    let node = Running::launch_on(sockets, backend(&script), script, |_| {}).await;
    let address = format!("https://localhost:{}", node.address.port());
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    std::fs::write(at("token"), format!("{TOKEN}\n")).expect("writes");
    std::fs::write(at("1.jpg"), Scene::new().with(RED, 100, 80).jpeg()).expect("writes");
    let (token, picture) = (at("token"), at("1.jpg"));
    let run = async |more: &[&str]| {
        let arguments: Vec<String> =
            ["red", "--once", "--pictures", &picture].iter().chain(more).map(|a| (*a).to_owned()).collect();
        let address = address.clone();
        let watching = tokio::task::spawn_blocking(move || {
            watch(&address, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), b"")
        });
        watching.await.expect("ends")
    };
    let file = |name: &str| pem(name).to_str().expect("UTF-8").to_owned();
    let (root, chain, key) = (file("root.pem"), file("client.pem"), file("client.key"));
    let (stranger, strange_key) = (file("stranger.pem"), file("stranger.key"));
    let own = ["--certificate", &chain, "--key", &key];
    let good = run(&[&["--ca", &root, "--token-file", &token], &own[..]].concat()).await;
    assert!(good.status.success() && text(&good.stdout).contains("\tFOUND\t"), "{}", text(&good.stderr));
    let without_token = run(&[&["--ca", &root], &own[..]].concat()).await;
    assert!(text(&without_token.stderr).contains("authenticate"), "{}", text(&without_token.stderr));
    let refused = [
        vec!["--ca", &root, "--token-file", &token],
        [&["--ca", &stranger, "--token-file", &token], &own[..]].concat(),
        vec!["--ca", &root, "--token-file", &token, "--certificate", &stranger, "--key", &strange_key],
    ];
    for arguments in refused {
        let output = run(&arguments).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output.stderr));
    }
    let mixed = run(&["--ca", &root, "--certificate", &chain, "--key", &strange_key]).await;
    assert!(text(&mixed.stderr).contains("use certificate"), "{}", text(&mixed.stderr));
    let half = run(&["--ca", &root, "--certificate", &chain]).await;
    assert_eq!(half.status.code(), Some(2), "a certificate takes its key");
}
