//! `sam4mllm bench`: a node under load, over real sockets: how fast it answers, what it drops, what it adds to the
//! engines' time, and whether its memory stays what it was.
//!
//! The node is a process of its own, as on a robot: its memory and its processor time are told apart from the cameras'.

mod footage;
mod http2;
mod overhead;
mod page;
mod process;
mod report;
mod soak;
mod streams;

use std::path::Path;

use anyhow::Context;
use clap::Subcommand;

use super::Format;
use crate::server::settings::BackendName;

/// Arguments of `sam4mllm bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Streams and frame rates against latency and drops, and what the node adds to its engines' time.
    Load(streams::Args),
    /// Cameras and planners that come and go for minutes: does the node's memory stay flat?
    Soak(soak::Args),
}

/// Runs the subcommand.
pub fn run(args: Args) -> anyhow::Result<()> {
    // As the node does, so that frames cost little on their way to it.
    crate::engine::keep_freed();
    // Cameras of a few streams, and the relay in front of the node.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match args.command {
        Command::Load(args) => runtime.block_on(streams::run(&args)),
        Command::Soak(args) => runtime.block_on(soak::run(&args)),
    }
}

/// Writes a report to `folder` as `name.json` and `name.html`, under another name where no models answered.
fn keep(folder: &Path, (name, backend): (&str, BackendName), json: &str, html: &str) -> anyhow::Result<()> {
    let name = if backend == BackendName::Fake { format!("{name}-fake") } else { name.to_owned() };
    std::fs::create_dir_all(folder).with_context(|| format!("make folder {}", folder.display()))?;
    for (ending, text) in [("json", json), ("html", html)] {
        let path = folder.join(format!("{name}.{ending}"));
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        eprintln!("{}", path.display());
    }
    Ok(())
}
