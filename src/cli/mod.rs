//! Subcommands: the only place that prints. Data goes to stdout, everything else to stderr.

#![allow(clippy::print_stdout)]

mod access;
mod bench;
mod dataset;
#[cfg(feature = "tensorrt")]
mod decoder;
mod demo;
mod dialogues;
mod engine;
mod eval;
mod footprint;
#[cfg(feature = "tensorrt")]
mod gpu;
mod load;
#[cfg(feature = "tensorrt")]
mod parity;
mod picture;
#[cfg(feature = "tensorrt")]
mod plan_inspect;
#[cfg(feature = "tensorrt")]
mod plans;
#[cfg(feature = "tensorrt")]
mod probe;
mod pull;
mod recipe;
mod replay;
#[cfg(feature = "ros2")]
mod ros2;
mod segment;
mod serve;
mod signals;
mod stages;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// As `EX_USAGE` of sysexits.h, which supervisors do not retry.
const BAD_CONFIG: u8 = 64;

/// The eyes that robots listen with: commands and camera frames in, masks with evidence out.
#[derive(Debug, Parser)]
#[command(name = "sam4mllm", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Put a node under load: latency, drops and its own time; whether its memory stays.
    Bench(load::Args),
    /// Render synthetic tabletop scenes with ground truth; look into the field's data sets.
    Dataset(dataset::Args),
    /// Start the node, stream a rendered clip to it and hold its answers against the truth.
    Demo(demo::Args),
    /// Import checkpoints, look at bundles, seal them.
    Engine(engine::Args),
    /// Answer a split of scenes or of a data set: the field's metrics, calibration, thresholds.
    Eval(eval::Args),
    /// Replay a recorded stream, and hold the answers against the recorded ones.
    Replay(replay::Args),
    /// Bridge ROS 2 topics to a node, over DDS, without ROS.
    #[cfg(feature = "ros2")]
    Ros2(ros2::Args),
    /// Find what a command names in one picture.
    Segment(segment::Args),
    /// Answer commands and camera frames over gRPC.
    Serve(Box<serve::Args>),
    /// Show a node's answers in the terminal, as they come.
    Watch(watch::Args),
}

/// How a command prints its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Tables for people.
    Text,
    /// One JSON object for programs.
    Json,
}

/// The value nearest to the share `q` of `sorted`; `None` where there is none.
fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    sorted.get(((sorted.len() as f64 - 1.0) * q).round() as usize).copied()
}

/// Parses the process arguments, runs the subcommand and maps its outcome to an exit code:
/// 0 success, 1 failure, 2 usage, 64 bad configuration.
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Bench(args) => load::run(args),
        Command::Dataset(args) => dataset::run(args),
        Command::Demo(args) => return demo::run(args).unwrap_or_else(failure),
        Command::Engine(args) => engine::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Replay(args) => replay::run(args),
        #[cfg(feature = "ros2")]
        Command::Ros2(args) => ros2::run(args),
        Command::Segment(args) => segment::run(args),
        Command::Serve(args) => serve::run(*args),
        Command::Watch(args) => watch::run(args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(error),
    }
}

fn failure(error: anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    let bad_config = error.is::<crate::node::ConfigError>()
        || error.is::<crate::pipeline::StrategyError>()
        || error.is::<crate::server::settings::SettingsError>();
    if bad_config { ExitCode::from(BAD_CONFIG) } else { ExitCode::FAILURE }
}
