//! `sam4mllm dataset`: scenes, clips and training streams.

use std::io::BufWriter;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::Subcommand;

use crate::dataset::{self, Assets, SceneGenerator, SceneKind, SceneOptions, Split, StreamOptions};

/// Arguments of `sam4mllm dataset`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write scenes to stdout for a trainer, without end unless --count is given.
    Stream(StreamArgs),
    /// Print every word an expression can hold, one a line.
    Vocabulary(VocabularyArgs),
}

#[derive(Debug, clap::Args)]
struct SceneArgs {
    /// Which scenes.
    #[arg(long, value_enum, default_value_t = Split::Train)]
    split: Split,
    /// Another seed gives other scenes.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Longest image side in pixels.
    #[arg(long, default_value_t = 320, value_parser = clap::value_parser!(u32).range(16..=2048))]
    side: u32,
    /// Least and greatest number of objects, as in 3..9.
    #[arg(long, default_value = "3..9", value_parser = parse_objects)]
    objects: RangeInclusive<usize>,
    /// Directory of objects.csv and sprites.
    #[arg(long, default_value = "engines/tabletop")]
    assets: PathBuf,
}

impl SceneArgs {
    fn generator(&self) -> anyhow::Result<SceneGenerator> {
        Ok(SceneGenerator::new(&Assets::load(&self.assets)?, self.split, self.seed))
    }

    fn options(&self, kind: SceneKind) -> SceneOptions {
        SceneOptions { longest_side: self.side, kind, objects: self.objects.clone() }
    }
}

fn parse_objects(text: &str) -> Result<RangeInclusive<usize>, String> {
    let parse = |t: &str| t.parse::<usize>().map_err(|e| e.to_string());
    let (lo, hi) = text.split_once("..").ok_or("two numbers are expected, as in 3..9")?;
    let (lo, hi) = (parse(lo)?, parse(hi.trim_start_matches('='))?);
    if lo < 1 || lo > hi || hi > 32 {
        return Err("1 to 32 objects, the lesser number first, are expected".to_owned());
    }
    Ok(lo..=hi)
}

#[derive(Debug, clap::Args)]
struct StreamArgs {
    #[command(flatten)]
    scenes: SceneArgs,
    /// Index of the first scene.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Number of scenes; without end where it is not given.
    #[arg(long)]
    count: Option<u64>,
    /// Worker threads; the bytes do not depend on it.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    threads: u64,
    /// Whole tabletops or single objects.
    #[arg(long, value_enum, default_value_t = SceneKind::Scenes)]
    kind: SceneKind,
    /// Expressions per scene.
    #[arg(long, default_value_t = 10)]
    expressions: usize,
}

#[derive(Debug, clap::Args)]
struct VocabularyArgs {
    /// Directory of objects.csv and sprites.
    #[arg(long, default_value = "engines/tabletop")]
    assets: PathBuf,
    /// Print the nouns instead that only the test split uses, always for something absent.
    #[arg(long)]
    held_out: bool,
}

/// Runs the subcommand.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Stream(args) => run_stream(&args),
        Command::Vocabulary(args) => run_vocabulary(&args),
    }
}

fn run_stream(args: &StreamArgs) -> anyhow::Result<()> {
    let options = StreamOptions {
        start: args.start,
        count: args.count,
        expressions: args.expressions,
        threads: args.threads as usize,
        scenes: args.scenes.options(args.kind),
    };
    let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    Ok(dataset::stream(&args.scenes.generator()?, &options, &mut out)?)
}

fn run_vocabulary(args: &VocabularyArgs) -> anyhow::Result<()> {
    if args.held_out {
        dataset::held_out_nouns().iter().for_each(|word| println!("{word}"));
        return Ok(());
    }
    let assets = Assets::load(&args.assets)?;
    dataset::vocabulary(assets.lexicon()).iter().for_each(|word| println!("{word}"));
    Ok(())
}
