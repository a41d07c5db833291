//! The binary itself: `serve --backend fake`, signals and exit codes.

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// A served node in a process of its own; killed if a test fails.
pub struct Served {
    child: Option<Child>,
    pub address: String,
    _folder: tempfile::TempDir,
}

impl Served {
    pub fn start(extra: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("address");
        let child = Command::new(env!("CARGO_BIN_EXE_sam4mllm"))
            .args(["serve", "--backend", "fake", "--listen", "127.0.0.1:0", "--address-file"])
            .arg(&file)
            .args(extra)
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut served = Self { child: Some(child), address: String::new(), _folder: folder };
        let start = Instant::now();
        served.address = loop {
            if let Ok(text) = std::fs::read_to_string(&file) {
                break text.trim().to_owned();
            }
            assert!(start.elapsed() < PATIENCE, "no address");
            std::thread::sleep(Duration::from_millis(5));
        };
        served
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("runs").id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().expect("runs kill").success());
    }

    pub fn end(mut self) -> Output {
        let mut child = self.child.take().expect("runs");
        let start = Instant::now();
        while child.try_wait().expect("can be waited for").is_none() {
            if start.elapsed() > PATIENCE {
                let _ = child.kill();
                panic!("does not end");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.wait_with_output().expect("has output")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn signals_end_it_well_and_stdout_stays_clean() {
    for signal in ["TERM", "INT"] {
        let served = Served::start(&["--log-format", "json"]);
        assert!(served.address.starts_with("127.0.0.1:") && !served.address.ends_with(":0"), "{}", served.address);
        let address = served.address.clone();
        served.signal(signal);
        let output = served.end();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{signal}: {log}");
        assert!(output.stdout.is_empty());
        assert!(log.contains(&address), "the address is logged: {log}");
        for line in log.lines() {
            serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        }
    }
}

#[test]
fn exit_codes_tell_bad_settings_from_bad_usage() {
    let cases: [(&[&str], i32); 10] = [
        (&["--max-targets", "0"], 64),
        (&["--max-message-mib", "0"], 64),
        (&["--max-message-mib", "4294967295"], 64),
        (&["--window-mib", "0"], 64),
        (&["--max-targets", "many"], 2),
        (&["--listen", "nowhere"], 64),
        // What the fake was not taught, and what nobody is.
        (&["--strategy", "ppg"], 64),
        (&["--strategy", "guess"], 2),
        // An address that is not this machine's.
        (&["--listen", "192.0.2.1:1", "--allow-plaintext", "true"], 1),
        // Others could listen in.
        (&["--listen", "192.0.2.1:1"], 64),
    ];
    for (arguments, code) in cases {
        let output = Command::new(env!("CARGO_BIN_EXE_sam4mllm"))
            .args(["serve", "--backend", "fake"])
            .args(arguments)
            .output()
            .expect("runs");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.is_empty());
    }
}
