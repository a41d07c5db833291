//! `bench load`: so many cameras at such a rate, and what comes back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::footage::{Footage, Sent};
use super::process::{Node, NodeArgs};
use super::report::{Quantiles, Report, Row, Subject, text};
use super::{Format, keep, overhead, page};
use crate::cli::picture;
use crate::client::{Receiver, Reply, Sender, drop_word};
use crate::server::wire::{FrameResult, Target, Verdict};

/// How long the first answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Arguments of `sam4mllm bench load`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    node: NodeArgs,
    /// Numbers of streams.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4, 8], value_parser = clap::value_parser!(u32).range(1..=64))]
    streams: Vec<u32>,
    /// Frames a second, of each stream.
    #[arg(long, value_delimiter = ',', default_values_t = [5, 10, 15, 30], value_parser = clap::value_parser!(u32).range(1..=240))]
    fps: Vec<u32>,
    /// Seconds of each pair of the two.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Targets of each stream.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=3))]
    targets: u32,
    /// Size of the streams' frames.
    #[arg(long, default_value = "640x480", value_parser = size)]
    size: (u32, u32),
    /// How they are sent.
    #[arg(long, value_enum, default_value_t = Sent::Jpeg)]
    sent: Sent,
    /// Frames of which the node's own time is measured, for each kind of frame; 0 for none.
    #[arg(long, default_value_t = 300)]
    overhead: u32,
    /// Another build of this program, whose own time is measured in turns with this one's.
    #[arg(long, value_name = "PROGRAM")]
    against: Option<PathBuf>,
    /// Folder to write the report to, as JSON and as one self-contained page.
    #[arg(long, short, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let sides @ [width, height] = picture::size(text)?;
    let fits = sides.iter().all(|side| (64..=2048).contains(side));
    if fits { Ok((width, height)) } else { Err("sides of 64 to 2048 pixels are expected".to_owned()) }
}

/// Runs the benchmark.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let footage = Arc::new(Footage::new(args.node.backend, &args.node.bundle, args.size, args.sent)?);
    let mut node = Node::start(&args.node, None).await?;
    let about = node.client().await?.describe().await?.provenance.unwrap_or_default();
    let mut rows = Vec::new();
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len}  {eta} left  {msg}").context("make a bar")?;
    let bar = ProgressBar::new((args.streams.len() * args.fps.len()) as u64).with_style(style);
    for &streams in &args.streams {
        for &fps in &args.fps {
            bar.set_message(format!("{streams} streams of {fps} frames a second"));
            rows.push(point(&node, &footage, args, (streams, fps)).await?);
            node.check()?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    drop(node);
    let overheads = match args.overhead {
        0 => Vec::new(),
        frames => overhead::measure(args.node.threads, args.against.as_deref(), frames).await?,
    };
    let report = Report {
        subject: Subject::of(about, args.node.threads),
        size: args.size,
        sent: args.sent,
        targets: args.targets,
        seconds: args.seconds,
        rows,
        overheads,
    };
    let json = serde_json::to_string_pretty(&report)? + "\n";
    if let Some(folder) = &args.output {
        keep(folder, ("load", args.node.backend), &json, &page::load(&report))?;
    }
    match args.format {
        Format::Json => print!("{json}"),
        Format::Text => print!("{}", text(&report)),
    }
    Ok(())
}

/// What one camera saw.
#[derive(Debug, Default)]
struct Seen {
    sent: u64,
    /// Of each frame that was answered, from the moment that the frame was due to its whole reply.
    latencies: Vec<Duration>,
    /// By reason.
    dropped: BTreeMap<String, u64>,
}

/// So many streams at such a rate.
async fn point(node: &Node, footage: &Arc<Footage>, args: &Args, (streams, fps): (u32, u32)) -> anyhow::Result<Row> {
    let mut cameras = Vec::new();
    for _ in 0..streams {
        cameras.push(Camera::open(node, footage.clone(), args.targets).await?);
    }
    let before = node.usage();
    let start = Instant::now();
    let every = Duration::from_secs(1) / fps;
    // Cameras do not click at once.
    let begin = |i: usize| tokio::time::Instant::from_std(start) + every * i as u32 / streams;
    let frames = u64::from(args.seconds * fps);
    let running: Vec<_> =
        cameras.into_iter().enumerate().map(|(i, c)| tokio::spawn(c.run(begin(i), every, frames))).collect();
    let mut all = Seen::default();
    for camera in running {
        let seen = camera.await??;
        all.sent += seen.sent;
        all.latencies.extend(seen.latencies);
        seen.dropped.into_iter().for_each(|(reason, n)| *all.dropped.entry(reason).or_default() += n);
    }
    let took = start.elapsed();
    let busy = node.usage().zip(before).map(|(after, before)| (after.processor - before.processor).as_secs_f64());
    Ok(Row {
        streams,
        fps,
        offered: u64::from(streams) * frames,
        sent: all.sent,
        answered: all.latencies.len() as u64,
        answered_per_s: all.latencies.len() as f64 / took.as_secs_f64(),
        latency_ms: Quantiles::of(all.latencies),
        dropped: all.dropped,
        cores: busy.map(|busy| busy / took.as_secs_f64()),
    })
}

/// One stream over a connection of its own, whose targets have been looked at.
struct Camera {
    sender: Sender,
    receiver: Receiver,
    footage: Arc<Footage>,
    /// The last reply to the frames before the measured ones.
    before: FrameResult,
}

impl Camera {
    async fn open(node: &Node, footage: Arc<Footage>, targets: u32) -> anyhow::Result<Self> {
        let (mut sender, mut receiver) = node.client().await?.stream().await?.split();
        let commands = footage.commands.iter().take(targets as usize).enumerate();
        let target =
            |(i, c): (usize, &String)| Target { target_id: i.to_string(), command: c.clone(), ..Target::default() };
        sender.set(commands.map(target).collect()).await?;
        let start = Instant::now();
        loop {
            let frame = footage.frame(0);
            sender.frame(frame).await?;
            let before = frame_of(receiver.reply().await?.context("the node ended the stream")?)?;
            if before.targets.iter().all(|t| t.verdict() != Verdict::Pending) {
                return Ok(Self { sender, receiver, footage, before });
            }
            if start.elapsed() > PATIENCE {
                bail!("nothing was grounded within {PATIENCE:?}");
            }
        }
    }

    /// Sends `frames` frames, one `every` so long from `start` on, and takes the replies.
    async fn run(self, start: tokio::time::Instant, every: Duration, frames: u64) -> anyhow::Result<Seen> {
        let Self { mut sender, mut receiver, footage, before } = self;
        let first = before.seq + 1;
        // A frame that is held up on its way was due all the same: its wait is latency.
        let due = move |seq: u64| start + every * u32::try_from(seq.saturating_sub(first)).unwrap_or(u32::MAX);
        let sending = tokio::spawn(async move {
            let end = due(first + frames);
            let mut sent = 0;
            while sent < frames && tokio::time::Instant::now() < end {
                tokio::time::sleep_until(due(first + sent)).await;
                sender.frame(footage.frame(sent)).await?;
                sent += 1;
            }
            anyhow::Ok(sent)
        });
        let (mut latencies, mut last) = (Vec::new(), before.clone());
        while let Some(reply) = receiver.reply().await? {
            let frame = frame_of(reply)?;
            if frame.revision == 0 {
                latencies.push(due(frame.seq).elapsed());
            }
            last = frame;
        }
        let sent = sending.await??;
        Ok(Seen { sent, latencies, dropped: dropped_since(&before, &last) })
    }
}

fn frame_of(reply: Reply) -> anyhow::Result<FrameResult> {
    match reply {
        Reply::Frame(frame) => Ok(*frame),
        Reply::Rejected(r) => bail!("a frame was rejected: {}", r.error.unwrap_or_default().message),
        Reply::Answer(_) => bail!("an answer to what nobody asked"),
    }
}

/// Frames that were dropped between two replies, by reason.
fn dropped_since(before: &FrameResult, after: &FrameResult) -> BTreeMap<String, u64> {
    let count = |frame: &FrameResult| {
        let dropped = frame.counters.iter().flat_map(|c| &c.dropped);
        dropped.map(|d| (drop_word(d.reason()), d.frames)).collect::<BTreeMap<_, _>>()
    };
    let before = count(before);
    let since = count(after).into_iter().map(|(reason, n)| (reason, n - before.get(reason).unwrap_or(&0)));
    since.filter(|(_, n)| *n > 0).map(|(reason, n)| (reason.to_lowercase(), n)).collect()
}
