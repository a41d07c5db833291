//! Subcommands: the only place that prints. Data goes to stdout, everything else to stderr.

#![allow(clippy::print_stdout)]

mod dataset;
mod engine;
mod eval;
mod segment;
mod stages;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The eyes that robots listen with: commands and camera frames in, masks with evidence out.
#[derive(Debug, Parser)]
#[command(name = "sam4mllm", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Render synthetic tabletop scenes with ground truth.
    Dataset(dataset::Args),
    /// Import checkpoints, look at bundles, seal them.
    Engine(engine::Args),
    /// Answer a split of synthetic scenes and print the field's metrics.
    Eval(eval::Args),
    /// Find what a command names in one picture.
    Segment(segment::Args),
}

/// How a command prints its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Tables for people.
    Text,
    /// One JSON object for programs.
    Json,
}

/// Parses the process arguments, runs the subcommand and maps its outcome to an exit code:
/// 0 success, 1 failure, 2 usage, 64 bad configuration.
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Dataset(args) => dataset::run(args),
        Command::Engine(args) => engine::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Segment(args) => segment::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
