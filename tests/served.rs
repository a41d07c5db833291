//! The binary in a process of its own, and a node that it serves. Each test program includes this and uses its part.

#![allow(dead_code)]

use std::fs::File;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Nothing takes a tenth of it on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Calls `look` until there is something.
pub fn waited<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process of the binary; killed where the test ends, its log shown where it fails.
pub struct Process {
    child: Child,
    folder: tempfile::TempDir,
}

impl Process {
    pub fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // Files, for nobody reads a pipe while the process runs, and one that is full would stop it.
        let file = |name: &str| Stdio::from(File::create(folder.path().join(name)).expect("a file"));
        let child = Command::new(env!("CARGO_BIN_EXE_sam4mllm"))
            .args(arguments)
            .env_remove("RUST_LOG")
            .env("SAM4MLLM_CACHE", folder.path())
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .expect("starts");
        Self { child, folder }
    }

    /// As the system knows it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn said(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(name)).unwrap_or_default()
    }

    /// What it has said on stderr so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.said("stderr")).into_owned()
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().expect("runs kill").success());
    }

    /// Waits for its end; what it said.
    pub fn end(mut self) -> Output {
        let status = waited("the end of the process", || self.child.try_wait().expect("can be waited for"));
        Output { status, stdout: self.said("stdout"), stderr: self.said("stderr") }
    }

    /// Asks it to end, and waits for that; its exit code.
    pub fn stop(self) -> Option<i32> {
        self.signal("TERM");
        self.end().status.code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A served node.
pub struct Served {
    pub process: Process,
    /// Host and port.
    pub address: String,
}

impl Served {
    /// `serve` with `arguments`, on a free port.
    pub fn start(arguments: &[&str]) -> Self {
        Self::on("127.0.0.1:0", arguments)
    }

    /// A node that answers colour words without any model.
    pub fn fake(arguments: &[&str]) -> Self {
        Self::start(&[&["--backend", "fake"], arguments].concat())
    }

    /// `serve` on `listen`; a port of 0 for any.
    pub fn on(listen: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("address");
        let fixed = ["serve", "--listen", listen, "--address-file", file.to_str().expect("UTF-8")];
        let process = Process::start(&[&fixed, arguments].concat());
        let address = waited("the node's address", || std::fs::read_to_string(&file).ok());
        Self { process, address: address.trim().to_owned() }
    }

    /// Where a client finds it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
