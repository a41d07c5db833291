//! A node in a process of its own, on a free port.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::client::Client;
use crate::memory;
use crate::server::settings::BackendName;

/// How long the node may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Which node is measured.
#[derive(Debug, Clone, clap::Args)]
pub struct NodeArgs {
    /// What answers: the bundle's models, or colour words without any.
    #[arg(long, value_enum, default_value_t = BackendName::Rten)]
    pub backend: BackendName,
    /// Bundle folder; the cameras' pictures are drawn from what is in it.
    #[arg(long, default_value = "engines/tabletop")]
    pub bundle: PathBuf,
    /// Threads an engine; by default one a core.
    #[arg(long)]
    pub threads: Option<usize>,
}

/// What a process has used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Processor time, of all threads.
    pub processor: Duration,
    /// Pages that were mapped in when they were touched, without reading from a disk.
    pub page_faults: u64,
}

/// A running node; killed with whoever holds it.
#[derive(Debug)]
pub struct Node {
    child: Child,
    address: String,
}

impl Node {
    /// Starts `serve` of `binary`, or of this very program, and waits until it is ready.
    pub async fn start(args: &NodeArgs, binary: Option<&Path>) -> anyhow::Result<Self> {
        static NODES: AtomicU32 = AtomicU32::new(0);
        let number = NODES.fetch_add(1, Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("sam4mllm-bench-{}-{number}", std::process::id()));
        let binary = binary.map_or_else(std::env::current_exe, |path| Ok(path.to_owned()))?;
        let mut command = Command::new(&binary);
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-filter", "warn", "--address-file"]).arg(&file);
        command.arg("--bundle").arg(&args.bundle).args(args.threads.map(|n| format!("--threads={n}")));
        let backend = clap::ValueEnum::to_possible_value(&args.backend).context("the backend has a name")?;
        command.args(["--backend", backend.get_name()]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let mut child = child.with_context(|| format!("start {}", binary.display()))?;
        let address = address(&mut child, &file).await;
        let _ = std::fs::remove_file(&file);
        let node = Self { child, address: address? };
        node.client().await?.ready(READY_WITHIN).await?;
        Ok(node)
    }

    /// Where it listens, host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// A new connection.
    pub async fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::connect(format!("http://{}", self.address)).await?)
    }

    /// Its memory in use, in bytes.
    pub fn resident_bytes(&self) -> Option<u64> {
        memory::resident_bytes_of(self.child.id())
    }

    /// What it has used so far; `None` where the system does not say.
    pub fn usage(&self) -> Option<Usage> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // Fields 10, 14 and 15, counted from behind the name, which may hold anything. Source: proc(5).
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |i: usize| fields.get(i)?.parse::<u64>().ok();
        // In USER_HZ, which is 100 on every Linux.
        let processor = Duration::from_millis(10 * (field(11)? + field(12)?));
        Some(Usage { processor, page_faults: field(7)? })
    }

    /// Whether it still runs.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the node ended: {status}"),
            None => Ok(()),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn address(child: &mut Child, file: &Path) -> anyhow::Result<String> {
    let start = Instant::now();
    loop {
        if let Ok(text) = std::fs::read_to_string(file) {
            return Ok(text.trim().to_owned());
        }
        if let Some(status) = child.try_wait()? {
            bail!("the node ended before it listened: {status}");
        }
        if start.elapsed() > READY_WITHIN {
            let _ = child.kill();
            bail!("the node did not listen within {READY_WITHIN:?}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
