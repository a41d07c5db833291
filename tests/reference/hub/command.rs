//! `sam4mllm engine pull` as it is typed.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::server::{Reply, Server, Shelf, Stream, files_of};
use super::{REPO, hub, nonsense, serve, usual};
use crate::reference;

const TOKEN: &str = "hf_never_to_be_shown";

/// The program, in an environment of its own below `home`.
pub fn program(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sam4mllm"));
    command.args(args).env_clear().env("HOME", home);
    command
}

pub fn run(command: &mut Command) -> (bool, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.success(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn a_checkpoint_is_pulled_and_imported() {
    let mut shelf = Shelf::default();
    let commit = shelf.add_dir(REPO, &reference("mllms/llava-next"));
    let server = serve(shelf, usual);
    let home = TempDir::new().unwrap();
    let (out, graphs) = (home.path().join("out"), home.path().join("graphs"));
    let pull = ["engine", "pull", REPO, "-o", out.to_str().unwrap(), "--endpoint", &server.url()];
    let (ok, stdout, stderr) = run(&mut program(home.path(), &pull));
    assert!(ok, "{stderr}");
    assert_eq!(stdout, format!("{}\n", out.display()));
    assert!(stderr.contains(&commit) && stderr.contains("7 files"), "{stderr}");
    assert!(home.path().join(".cache/huggingface/hub/models--tests--model/refs/main").exists());
    let import = ["engine", "import", out.to_str().unwrap(), "-o", graphs.to_str().unwrap()];
    let (ok, stdout, stderr) = run(&mut program(home.path(), &import));
    assert!(ok && stdout.starts_with("LlavaNextForConditionalGeneration"), "{stdout}{stderr}");

    // The same from the cache, with the hub gone; and only what is named.
    drop(server);
    let again = home.path().join("again");
    let offline = ["engine", "pull", REPO, "--include", "*.json", "-o", again.to_str().unwrap()];
    let (ok, _, stderr) = run(program(home.path(), &offline).env("HF_HUB_OFFLINE", "1"));
    assert!(ok && stderr.contains("0 of 0 B fetched"), "{stderr}");
    let mut expected = files_of(&reference("mllms/llava-next"));
    expected.retain(|name, _| name.ends_with(".json"));
    assert_eq!(files_of(&again), expected);
}

#[test]
fn segmenters_of_torch_are_pulled_and_imported() {
    let mut shelf = Shelf::default();
    shelf.add_dir("tests/sam", &reference("checkpoints/sam-authors"));
    let server = serve(shelf, usual);
    let home = TempDir::new().unwrap();
    let (out, graphs) = (home.path().join("out"), home.path().join("graphs"));
    let pull = ["engine", "pull", "tests/sam", "-o", out.to_str().unwrap()];
    let (ok, _, stderr) = run(program(home.path(), &pull).env("HF_ENDPOINT", server.url()));
    assert!(ok, "{stderr}");
    let import = ["engine", "import", out.to_str().unwrap(), "-o", graphs.to_str().unwrap()];
    let (ok, stdout, stderr) = run(&mut program(home.path(), &import));
    assert!(ok && stdout.starts_with("SamModel"), "{stdout}{stderr}");
}

#[test]
fn a_token_is_sent_and_never_shown() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("a-token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let (server, _) = hub(5000, |request, shelf| {
        let known = request.header("authorization") == Some(&format!("Bearer {TOKEN}"));
        Some(if known { shelf.answer(request) } else { Reply::new(401, "") })
    });
    let pull = ["engine", "pull", REPO, "--endpoint", &server.url()];
    let with = |name: &str, value: &str, more: &[&str]| {
        let args = [&pull, more].concat();
        run(program(home.path(), &args).env("RUST_LOG", "trace").env(name, value))
    };
    let from_file = ["--token-file", file.to_str().unwrap()];
    for (ok, stdout, stderr) in
        [with("HF_TOKEN", TOKEN, &[]), with("HF_TOKEN_PATH", file.to_str().unwrap(), &[]), with("X", "", &from_file)]
    {
        assert!(ok, "{stderr}");
        assert!(!stdout.contains(TOKEN) && !stderr.contains(TOKEN), "{stderr}");
    }
    let (ok, _, stderr) =
        with("HF_TOKEN", TOKEN, &["--no-token", "--hub-cache", file.with_extension("c").to_str().unwrap()]);
    assert!(!ok && stderr.contains("--token-file") && !stderr.contains(TOKEN), "{stderr}");
    let (ok, _, stderr) = run(program(home.path(), &["engine", "pull", REPO]).env("HF_TOKEN", "hf_a b"));
    assert!(!ok && stderr.contains("HF_TOKEN") && !stderr.contains("hf_a b"), "{stderr}");
}

/// A server's side of TLS, with the certificate for `localhost` that the tests' root signed.
fn encrypted() -> impl Fn(TcpStream) -> Option<Box<dyn Stream>> {
    let tls = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node/tls");
    let chain = vec![CertificateDer::from_pem_file(tls.join("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(tls.join("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls_graviola::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    move |stream| {
        let connection = ServerConnection::new(config.clone()).ok()?;
        Some(Box::new(StreamOwned::new(connection, stream)))
    }
}

#[test]
fn https_goes_by_the_roots_of_the_system() {
    let mut shelf = Shelf::default();
    shelf.add(REPO, nonsense(300_000));
    let server = Server::start_with(move |request| shelf.answer(request), encrypted());
    let home = TempDir::new().unwrap();
    let endpoint = format!("https://localhost:{}", server.address.port());
    let pull = ["engine", "pull", REPO, "-o", home.path().join("out").to_str().unwrap(), "--endpoint", &endpoint]
        .map(str::to_owned);
    let pull: Vec<&str> = pull.iter().map(String::as_str).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node/tls/root.pem");
    let stranger = root.with_file_name("stranger.pem");

    let (ok, _, stderr) = run(program(home.path(), &pull).env("SSL_CERT_FILE", stranger));
    assert!(!ok && stderr.contains("set up TLS for `localhost:"), "{stderr}");
    assert!(server.seen("").is_empty());
    let (ok, _, stderr) = run(program(home.path(), &pull).env("SSL_CERT_FILE", root).env("HF_TOKEN", TOKEN));
    assert!(ok, "{stderr}");
    assert_eq!(files_of(&home.path().join("out")), nonsense(300_000));
}
