//! `sam4mllm dataset`: scenes, clips and training streams.

/// Arguments of `sam4mllm dataset`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the subcommand.
pub fn run(_args: Args) -> anyhow::Result<()> {
    Ok(())
}
