//! `bench soak`: cameras and planners that come and go, for minutes.
//!
//! Flat is: of the samples after the first fifth, in which caches, thread stacks and the allocator's arenas fill, the
//! most of the second half is no more than [`ALLOWANCE`] above the most of the first, and neither is what a straight
//! line through all of them gains from its first to its last.

mod actors;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::footage::{Footage, Sent};
use super::process::{Node, NodeArgs};
use super::report::Subject;
use super::{Format, keep, page};
use actors::{Tally, camera, planner};

/// What memory may grow and still be called flat: a share of what it was, and mebibytes, whichever is more.
const ALLOWANCE: (f64, f64) = (0.05, 8.0);
/// Samples of a soak, at most one a second.
const SAMPLES: f64 = 240.0;
/// The share of the time before memory is judged.
const WARM_UP: f64 = 0.2;
const SIZE: (u32, u32) = (640, 480);

/// Arguments of `sam4mllm bench soak`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    node: NodeArgs,
    /// How long.
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    minutes: f64,
    /// Cameras at a time; each that goes is followed by another.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=32))]
    cameras: u32,
    /// Planners at a time, which ask without a camera of their own.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=32))]
    planners: u32,
    /// Frames a second of each camera.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=60))]
    fps: u32,
    /// Another seed, other comings and goings.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder to write the report to, as JSON and as one self-contained page.
    #[arg(long, short, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes = text.parse().ok().filter(|m| (0.1..=1440.0).contains(m));
    minutes.ok_or_else(|| "0.1 to 1440 minutes are expected".to_owned())
}

/// The node's memory at one moment.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sample {
    pub at_s: f64,
    pub resident_mib: f64,
    pub streams: u64,
}

/// Whether memory stayed.
#[derive(Debug, Clone, Serialize)]
pub struct Judgement {
    pub flat: bool,
    /// The most in the first and in the second half after the warm-up.
    pub most_mib: [f64; 2],
    /// What a straight line through them gains from the first sample to the last.
    pub trend_mib: f64,
    pub allowance_mib: f64,
}

impl Judgement {
    /// `None` where there are too few samples for two halves.
    fn of(samples: &[Sample]) -> Option<Self> {
        let from = samples.last()?.at_s * WARM_UP;
        let settled: Vec<&Sample> = samples.iter().filter(|s| s.at_s >= from).collect();
        let (first, second) = settled.split_at(settled.len() / 2);
        if first.len() < 2 {
            return None;
        }
        let most = [first, second].map(|half| half.iter().map(|s| s.resident_mib).fold(0.0, f64::max));
        let allowance_mib = (ALLOWANCE.0 * most[0]).max(ALLOWANCE.1);
        let trend_mib = slope(&settled) * (settled[settled.len() - 1].at_s - settled[0].at_s);
        let flat = most[1] - most[0] <= allowance_mib && trend_mib <= allowance_mib;
        Some(Self { flat, most_mib: most, trend_mib, allowance_mib })
    }

    /// In a sentence.
    pub fn says(&self) -> String {
        let Self { flat, most_mib: [first, second], trend_mib, allowance_mib } = self;
        format!(
            "memory {} flat: at most {first:.1} MiB in the first half, {second:.1} MiB in the second; a straight line \
             through both gains {trend_mib:+.1} MiB ({allowance_mib:.1} MiB are allowed)",
            if *flat { "is" } else { "is NOT" }
        )
    }
}

/// Mebibytes a second, by least squares.
fn slope(samples: &[&Sample]) -> f64 {
    let mean = |of: fn(&Sample) -> f64| samples.iter().map(|s| of(s)).sum::<f64>() / samples.len() as f64;
    let (t, m) = (mean(|s| s.at_s), mean(|s| s.resident_mib));
    let both: f64 = samples.iter().map(|s| (s.at_s - t) * (s.resident_mib - m)).sum();
    both / samples.iter().map(|s| (s.at_s - t).powi(2)).sum::<f64>().max(f64::MIN_POSITIVE)
}

/// Everything.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub subject: Subject,
    pub minutes: f64,
    pub judgement: Judgement,
    pub tally: std::collections::BTreeMap<&'static str, u64>,
    pub samples: Vec<Sample>,
}

impl Report {
    /// What was done where, in a sentence.
    pub fn about(&self) -> String {
        format!("{:.1} minutes; {}", self.minutes, self.subject.says())
    }

    /// What happened, and how often.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.tally.iter().map(|(name, n)| (*name, *n))
    }
}

/// Runs the soak; fails where memory is not flat or the node said something that it must not.
pub async fn run(args: &Args) -> anyhow::Result<()> {
    let footage = Arc::new(Footage::new(args.node.backend, &args.node.bundle, SIZE, Sent::Jpeg)?);
    let mut node = Node::start(&args.node, None).await?;
    let about = node.client().await?.describe().await?.provenance.unwrap_or_default();
    let (tally, address) = (Arc::new(Tally::default()), Arc::<str>::from(format!("http://{}", node.address())));
    let until = Instant::now() + Duration::from_secs_f64(60.0 * args.minutes);
    let mut actors = tokio::task::JoinSet::new();
    for number in 0..u64::from(args.cameras) {
        let (address, footage, tally) = (address.clone(), footage.clone(), tally.clone());
        actors.spawn(camera((address, footage, tally), (args.seed, number), args.fps, until));
    }
    for number in 0..u64::from(args.planners) {
        let (address, footage, tally) = (address.clone(), footage.clone(), tally.clone());
        actors.spawn(planner((address, footage, tally), (args.seed, number), until));
    }
    let samples = watch(&mut node, &mut actors, &tally, until).await?;
    while let Some(ended) = actors.join_next().await {
        ended??;
    }
    node.check()?;
    drop(node);
    let report = Report {
        subject: Subject::of(about, args.node.threads),
        minutes: args.minutes,
        judgement: Judgement::of(&samples).context("there are too few samples of the node's memory")?,
        tally: tally.counts(),
        samples,
    };
    let json = serde_json::to_string_pretty(&report)? + "\n";
    if let Some(folder) = &args.output {
        keep(folder, ("soak", args.node.backend), &json, &page::soak(&report))?;
    }
    match args.format {
        Format::Json => print!("{json}"),
        Format::Text => {
            report.counts().for_each(|(name, n)| println!("{n:8} {name}"));
            println!("{}\n{}", report.about(), report.judgement.says());
        }
    }
    match (tally.wrong().as_slice(), report.judgement.flat) {
        ([], true) => Ok(()),
        ([], false) => bail!("{}", report.judgement.says()),
        (wrong, _) => bail!("the node said what it must not: {}", wrong.join("; ")),
    }
}

/// Samples the node's memory until the end; ends at once where the node or an actor does.
async fn watch(
    node: &mut Node,
    actors: &mut tokio::task::JoinSet<anyhow::Result<()>>,
    tally: &Tally,
    until: Instant,
) -> anyhow::Result<Vec<Sample>> {
    let start = Instant::now();
    let whole = until.saturating_duration_since(start);
    let every = whole.div_f64(SAMPLES).max(Duration::from_millis(200)).min(Duration::from_secs(5));
    let style = ProgressStyle::with_template("{bar:40} {elapsed} of {len} s  {msg}").context("make a bar")?;
    let bar = ProgressBar::new(whole.as_secs()).with_style(style);
    let mut samples = Vec::new();
    while Instant::now() < until {
        tokio::time::sleep(every).await;
        node.check()?;
        // Until the end nobody leaves but by an error.
        if let Some(ended) = actors.try_join_next()
            && Instant::now() < until
        {
            ended??;
        }
        let Some(bytes) = node.resident_bytes() else { bail!("the system does not say how much memory a process has") };
        let (at_s, resident_mib) = (start.elapsed().as_secs_f64(), bytes as f64 / f64::from(1 << 20));
        samples.push(Sample { at_s, resident_mib, streams: tally.open() });
        bar.set_position(at_s as u64);
        bar.set_message(format!("{resident_mib:.1} MiB"));
    }
    bar.finish_and_clear();
    Ok(samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(memory: impl Fn(f64) -> f64) -> Judgement {
        let sample = |i: u32| {
            let at_s = f64::from(i) * 2.0;
            Sample { at_s, resident_mib: memory(at_s), streams: 1 }
        };
        Judgement::of(&(1..=100).map(sample).collect::<Vec<_>>()).expect("samples enough")
    }

    #[test]
    fn what_grows_is_not_flat_and_what_wobbles_is() {
        assert!(judged(|t| 100.0 + 3.0 * (t / 7.0).sin()).flat);
        assert!(judged(|t| if t < 30.0 { t } else { 120.0 }).flat, "the warm-up does not count");
        let leak = judged(|t| 100.0 + 0.15 * t);
        assert!(!leak.flat && (leak.trend_mib - 0.15 * 160.0).abs() < 0.5, "{leak:?}");
        assert!(!judged(|t| if t < 150.0 { 100.0 } else { 120.0 }).flat, "one step counts");
        assert!(Judgement::of(&[]).is_none());
    }
}
