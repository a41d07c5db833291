//! `sam4mllm demo`: the whole node in one command. Starts it, streams a rendered clip to it over gRPC as JPEG frames,
//! and holds every mask against the rendered truth.

mod client;
mod pictures;
mod score;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::serve::model_backend;
use super::stages::StageArgs;
use crate::dataset::{Assets, Clip, ClipOptions, Split};
use crate::server::{RecordConfig, Server, ServerConfig};

/// Arguments of `sam4mllm demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    stages: StageArgs,
    /// Another seed, another clip.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Frames to stream.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(60..=10_000))]
    frames: u32,
    /// Commands to give, in the clip's order: a plain one, a relation, an absent object, then more.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(3..=16))]
    commands: u32,
    /// Folder for overlays and the animated picture.
    #[arg(long, short, default_value = "target/demo")]
    output: PathBuf,
    /// Folder of the scenes' sprites and object table.
    #[arg(long, default_value = "engines/tabletop")]
    assets: PathBuf,
    /// Only the table: no pictures.
    #[arg(long)]
    no_pictures: bool,
    /// Record the stream to this folder, for `sam4mllm replay`.
    #[arg(long, value_name = "FOLDER")]
    record: Option<PathBuf>,
}

/// Mean IoU below which the demo fails.
const MIN_IOU: f64 = 0.6;

/// Runs the demo; fails where an absent object is found or the masks are bad.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let assets = Assets::load(&args.assets).context("load the scenes' assets")?;
    let options = ClipOptions { seed: args.seed, frames: args.frames as usize, size: (640, 480), split: Split::Val };
    let clip = Clip::new(&assets, options);
    let mut commands = clip.commands();
    commands.truncate(args.commands as usize);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (answers, ready) = runtime.block_on(stream(&args, &clip, &commands))?;

    let scores: Vec<_> = commands.iter().enumerate().map(|(i, c)| score::Score::of(&clip, c, &answers, i)).collect();
    if !args.no_pictures {
        pictures::write(&args.output, &clip, &commands, &answers).context("write pictures")?;
        eprintln!("pictures in {}", args.output.display());
    }
    println!("{}", score::table(&commands, &scores));
    println!("{} frames of 640x480 over gRPC, node ready after {:.2} s", answers.len(), ready.as_secs_f64());
    let good = score::passed(&commands, &scores, MIN_IOU);
    println!("{}", if good { "demo passed" } else { "demo FAILED: an absent object was found, or mean IoU < 0.6" });
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Serves the bundle on a free port and streams the clip to it.
async fn stream(
    args: &Args,
    clip: &Clip,
    commands: &[crate::dataset::Expression],
) -> anyhow::Result<(Vec<client::Answer>, std::time::Duration)> {
    let start = std::time::Instant::now();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let record =
        args.record.clone().map(|folder| RecordConfig { folder, max_bytes: u64::MAX, draft: args.stages.draft });
    let config = ServerConfig { record, ..ServerConfig::default() };
    let server = Server::build(config, listener, model_backend(&args.stages)?).await?;
    let address = server.address()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.run(async move {
        let _ = stopped.await;
    }));
    let connected = client::connect(address).await?;
    let ready = start.elapsed();
    eprintln!("node ready on {address} after {:.2} s", ready.as_secs_f64());
    let style = ProgressStyle::with_template("{bar:40} frame {pos}/{len}  {msg}").expect("the template is valid");
    let bar = ProgressBar::new(clip.frames() as u64).with_style(style);
    let answers = client::stream(connected, clip, commands, |ms| {
        bar.inc(1);
        bar.set_message(format!("{ms:.0} ms"));
    })
    .await;
    bar.finish_and_clear();
    let _ = stop.send(());
    serving.await??;
    Ok((answers?, ready))
}
