//! `sam4mllm dataset`: scenes, clips, training streams and dialogues; what is in data sets of others.

mod inspect;

use std::io::BufWriter;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::Subcommand;
use comfy_table::Table;
use indicatif::{ProgressBar, ProgressStyle};

use super::dialogues;
use crate::dataset::{
    self, Assets, Clip, ClipOptions, ExpressionType, PictureFormat, RenderOptions, SceneGenerator, SceneKind,
    SceneOptions, Split, StreamOptions, Summary,
};

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
    /// Write pictures, COCO-style instances and expressions to a directory.
    Render(RenderArgs),
    /// Write a clip with a moving camera and moving objects, with the truth of every frame.
    Clip(ClipArgs),
    /// Print every word an expression can hold, one a line.
    Vocabulary(VocabularyArgs),
    /// Read a data set of referring expressions and print what is in it.
    Inspect(inspect::InspectArgs),
    /// Write conversations to train a language model on: boxes, points, no-target answers, general dialogue.
    Dialogues(Box<dialogues::DialoguesArgs>),
}

#[derive(Debug, clap::Args)]
struct SceneArgs {
    /// Which scenes.
    #[arg(long, value_enum, default_value_t = Split::Train)]
    split: Split,
    /// Another seed gives other scenes.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    look: LookArgs,
}

impl SceneArgs {
    fn generator(&self) -> anyhow::Result<SceneGenerator> {
        Ok(SceneGenerator::new(&self.look.assets()?, self.split, self.seed))
    }

    fn options(&self, kind: SceneKind) -> SceneOptions {
        self.look.options(kind)
    }
}

/// What rendered scenes look like.
#[derive(Debug, clap::Args)]
pub(super) struct LookArgs {
    /// Longest side of a scene in pixels.
    #[arg(long, default_value_t = 320, value_parser = clap::value_parser!(u32).range(16..=2048))]
    side: u32,
    /// Least and greatest number of a scene's objects, as in 3..9.
    #[arg(long, default_value = "3..9", value_parser = parse_objects)]
    objects: RangeInclusive<usize>,
    /// Directory of objects.csv and sprites.
    #[arg(long, default_value = "engines/tabletop")]
    assets: PathBuf,
}

impl LookArgs {
    pub(super) fn assets(&self) -> Result<Assets, dataset::DatasetError> {
        Assets::load(&self.assets)
    }

    pub(super) fn options(&self, kind: SceneKind) -> SceneOptions {
        SceneOptions { longest_side: self.side, kind, objects: self.objects.clone() }
    }
}

fn parse_size(text: &str) -> Result<(u32, u32), String> {
    let side = |t: &str| t.parse::<u32>().ok().filter(|s| (16..=2048).contains(s));
    let sides = text.split_once('x').and_then(|(w, h)| Some((side(w)?, side(h)?)));
    sides.ok_or_else(|| "two sides of 16 to 2048 pixels are expected, as in 640x480".to_owned())
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
    /// Expressions per scene that say what is not meant.
    #[arg(long, default_value_t = 0)]
    exclusions: usize,
}

#[derive(Debug, clap::Args)]
struct RenderArgs {
    /// Directory to write to.
    out: PathBuf,
    #[command(flatten)]
    scenes: SceneArgs,
    /// Index of the first scene.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Number of scenes.
    #[arg(long, default_value_t = 100)]
    count: u64,
    /// Expressions per scene.
    #[arg(long, default_value_t = 10)]
    expressions: usize,
    /// File format of the pictures.
    #[arg(long, value_enum, default_value_t = PictureFormat::Jpeg)]
    format: PictureFormat,
}

#[derive(Debug, clap::Args)]
struct ClipArgs {
    /// Directory to write to.
    out: PathBuf,
    /// Another seed gives another clip.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Number of frames.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    frames: u32,
    /// Frame size in pixels, as in 640x480.
    #[arg(long, default_value = "640x480", value_parser = parse_size)]
    size: (u32, u32),
    /// Whose backgrounds and templates to use.
    #[arg(long, value_enum, default_value_t = Split::Val)]
    split: Split,
    /// Directory of objects.csv and sprites.
    #[arg(long, default_value = "engines/tabletop")]
    assets: PathBuf,
}

#[derive(Debug, clap::Args)]
struct VocabularyArgs {
    /// Directory of objects.csv and sprites.
    #[arg(long, default_value = "engines/tabletop")]
    assets: PathBuf,
    /// Print the nouns instead that only the test split uses, always for something absent.
    #[arg(long)]
    held_out: bool,
    /// Print the wordings instead that only the test split uses, {x} for what is wanted, {is} for its verb.
    #[arg(long, conflicts_with = "held_out")]
    held_out_wordings: bool,
}

/// Runs the subcommand.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Stream(args) => run_stream(&args),
        Command::Render(args) => run_render(&args),
        Command::Clip(args) => run_clip(args),
        Command::Vocabulary(args) => run_vocabulary(&args),
        Command::Inspect(args) => inspect::run(args),
        Command::Dialogues(args) => dialogues::run(*args),
    }
}

fn run_stream(args: &StreamArgs) -> anyhow::Result<()> {
    let options = StreamOptions {
        start: args.start,
        count: args.count,
        expressions: args.expressions,
        exclusions: args.exclusions,
        threads: args.threads as usize,
        scenes: args.scenes.options(args.kind),
    };
    let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    Ok(dataset::stream(&args.scenes.generator()?, &options, &mut out)?)
}

fn run_render(args: &RenderArgs) -> anyhow::Result<()> {
    let options = RenderOptions {
        start: args.start,
        count: args.count,
        expressions: args.expressions,
        format: args.format,
        scenes: args.scenes.options(SceneKind::Scenes),
    };
    let bar = progress_bar(args.count);
    let summary = dataset::render(&args.scenes.generator()?, &options, &args.out, || bar.inc(1))?;
    bar.finish_and_clear();
    println!("{}", summary_table(&summary));
    Ok(())
}

fn progress_bar(count: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta}").expect("the template is constant");
    ProgressBar::new(count).with_style(style)
}

fn summary_table(s: &Summary) -> Table {
    let share = |part: u64, whole: u64| format!("{:.1} %", 100.0 * part as f64 / whole.max(1) as f64);
    let (least, greatest) = s.sides.unwrap_or_default();
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(["", "number", "share"]);
    table.add_row(["scenes".to_owned(), s.scenes.to_string(), String::new()]);
    table.add_row([
        "with two or more of one class".to_owned(),
        s.with_twins.to_string(),
        share(s.with_twins, s.scenes),
    ]);
    let sides = format!("sides {:.1} to {:.1} %", least * 100.0, greatest * 100.0);
    table.add_row(["objects".to_owned(), s.objects.to_string(), sides]);
    let total = s.total_expressions();
    table.add_row(["expressions".to_owned(), total.to_string(), String::new()]);
    for kind in ExpressionType::ALL {
        let n = s.expressions.get(&kind).copied().unwrap_or(0);
        table.add_row([format!("  {kind}"), n.to_string(), share(n, total)]);
    }
    let none = s.expressions.get(&ExpressionType::None).copied().unwrap_or(0);
    table.add_row(["near misses among none".to_owned(), s.near_misses.to_string(), share(s.near_misses, none)]);
    let occluded = share(s.occluded_targets, s.targets);
    table.add_row(["targets hidden by 20 to 60 %".to_owned(), s.occluded_targets.to_string(), occluded]);
    table
}

fn run_clip(args: ClipArgs) -> anyhow::Result<()> {
    let options = ClipOptions { seed: args.seed, frames: args.frames as usize, size: args.size, split: args.split };
    let clip = Clip::new(&Assets::load(&args.assets)?, options);
    let bar = progress_bar(u64::from(args.frames));
    clip.write(&args.out, || bar.inc(1))?;
    bar.finish_and_clear();
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(["type", "command", "targets"]);
    for command in clip.commands() {
        table.add_row([command.kind.word(), &command.text, &format!("{:?}", command.targets)]);
    }
    println!("{table}");
    Ok(())
}

fn run_vocabulary(args: &VocabularyArgs) -> anyhow::Result<()> {
    if args.held_out {
        dataset::held_out_nouns().iter().for_each(|word| println!("{word}"));
        return Ok(());
    }
    if args.held_out_wordings {
        dataset::held_out_wordings().iter().for_each(|wording| println!("{wording}"));
        return Ok(());
    }
    let assets = Assets::load(&args.assets)?;
    dataset::vocabulary(assets.lexicon()).iter().for_each(|word| println!("{word}"));
    Ok(())
}
