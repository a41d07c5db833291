//! The settings file, environment and flags of the binary, and `serve --check`.

use std::path::Path;
use std::process::{Command, Output};

use sam4mllm::server::wire;
use sam4mllm::server::wire::perception_client::PerceptionClient;
use tonic::Request;
use tonic::transport::Channel;

use crate::access::pem;
use crate::harness::soon;
use crate::served::Served;

fn serve(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sam4mllm"));
    command.arg("serve").args(args).env_remove("RUST_LOG").envs(env.iter().copied());
    command.output().expect("runs")
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("writes");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn bad_files_and_values_exit_with_64_and_name_the_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let cases = [
        ("max_target = 3", "unknown field `max_target`"),
        ("max_targets = \"three\"", "max_targets"),
        ("backend = \"fake\"\nmax_targets = 0", "`max_targets`: must be in 1..=256"),
        ("backend = \"fake\"\nlisten = \"0.0.0.0:0\"", "`tls_certificate` and `tls_key`"),
        ("backend = \"fake\"\nlog_filter = \"a=b=c\"", "`log_filter`"),
        ("backend = \"fake\"\notlp_endpoint = \"https://collector:4317\"", "`otlp_endpoint`"),
    ];
    for (text, said) in cases {
        let file = write(folder.path(), "node.toml", text);
        let output = serve(&["--config", &file], &[]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{text:?}: {log}");
        assert!(log.contains(said), "{text:?}: {log}");
    }
    let output = serve(&["--config", "nowhere.toml"], &[]);
    assert_eq!(output.status.code(), Some(64));
    // The environment goes before the file, and a flag before both.
    let file = write(folder.path(), "node.toml", "backend = \"fake\"\nmax_targets = 300");
    let check = |args: &[&str], env: &[(&str, &str)]| {
        let all = [&["--check", "--listen", "127.0.0.1:0", "--config", &file][..], args].concat();
        serve(&all, env).status.code()
    };
    assert_eq!(check(&[], &[]), Some(64));
    assert_eq!(check(&[], &[("SAM4MLLM_MAX_TARGETS", "5")]), Some(0));
    assert_eq!(check(&["--max-targets", "0"], &[("SAM4MLLM_MAX_TARGETS", "5")]), Some(64));
}

#[test]
fn a_check_tries_everything_and_serves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = write(folder.path(), "tokens", "planner 00112233445566778899aabb\n");
    let (certificate, key) = (pem("server.pem"), pem("server.key"));
    let settings = |key: &Path| {
        let socket = folder.path().join("node.sock");
        format!(
            "backend = \"fake\"\nlisten = \"127.0.0.1:0\"\nmetrics_listen = \"127.0.0.1:0\"\nunix_socket = {socket:?}\n\
             tls_certificate = {certificate:?}\ntls_key = {key:?}\ntokens_file = {tokens:?}\n"
        )
    };
    let good = serve(&["--check", "--config", &write(folder.path(), "good.toml", &settings(&key))], &[]);
    let table = String::from_utf8_lossy(&good.stdout);
    assert_eq!(good.status.code(), Some(0), "{table}{}", String::from_utf8_lossy(&good.stderr));
    for row in ["settings", "TLS", "tokens", "listen", "metrics", "Unix socket", "strategy"] {
        assert!(table.contains(row), "no {row} in {table}");
    }
    assert!(!table.contains("FAULT") && !table.contains("00112233445566778899aabb"), "{table}");
    assert!(!folder.path().join("node.sock").exists(), "it leaves nothing behind");
    let bad = settings(&pem("client.key"));
    let bad = serve(&["--check", "--config", &write(folder.path(), "bad.toml", &bad)], &[]);
    let table = String::from_utf8_lossy(&bad.stdout);
    assert_eq!(bad.status.code(), Some(1), "{table}");
    assert!(table.contains("FAULT") && table.contains("client.key"), "{table}");
    // The other checks are made all the same.
    assert!(table.contains("tokens") && table.contains("strategy"), "{table}");
}

#[test]
fn no_log_shows_a_token_however_much_is_logged() {
    let folder = tempfile::tempdir().expect("a folder");
    let (right, wrong) = ("00112233445566778899aabb", "ffeeddccbbaa99887766");
    let tokens = write(folder.path(), "tokens", &format!("planner {right}\n"));
    let filter = "debug,sam4mllm=trace,tonic=trace,hyper=trace";
    let served = Served::fake(&["--tokens-file", &tokens, "--log-filter", filter]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("starts");
    let ask = |token: &str| {
        runtime.block_on(async {
            let channel = Channel::from_shared(served.url()).expect("an address");
            let mut client = PerceptionClient::new(soon("a connection", channel.connect()).await.expect("connects"));
            let mut request = Request::new(wire::DescribeRequest {});
            let value = format!("Bearer {token}").parse().expect("ascii");
            request.metadata_mut().insert("authorization", value);
            soon("an answer", client.describe(request)).await.map(drop).map_err(|status| status.code())
        })
    };
    assert_eq!(ask(right), Ok(()));
    assert_eq!(ask(wrong), Err(tonic::Code::Unauthenticated));
    served.process.signal("TERM");
    let output = served.process.end();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("DEBUG"), "much is logged: {log}");
    for token in [right, wrong] {
        assert!(!log.contains(token), "{token} is in {log}");
    }
}

/// The unit that is shipped, with this binary in place of the installed one.
#[test]
fn systemd_takes_the_unit() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("launch/systemd/sam4mllm.service");
    let text = std::fs::read_to_string(unit).expect("is shipped");
    let installed = "/usr/local/bin/sam4mllm";
    assert_eq!(text.matches(installed).count(), 2);
    let folder = tempfile::tempdir().expect("a folder");
    let copy = write(folder.path(), "sam4mllm.service", &text.replace(installed, env!("CARGO_BIN_EXE_sam4mllm")));
    let Ok(output) = Command::new("systemd-analyze").args(["verify", "--man=no", &copy]).output() else {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "skipped: 1 test, no systemd-analyze");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("sam4mllm.service"), "{said}");
}
