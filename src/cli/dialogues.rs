//! `sam4mllm dataset dialogues`: conversations to train a language model on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use super::dataset::LookArgs;
use crate::dataset::dialogues::{
    ChatFormat, DialogueOptions, Excluded, Loading, Material, Output, Source, SourceSpec, Tally, TokenizerSpec,
    Wording, Written, load, write,
};
use crate::dataset::{Assets, SceneGenerator, SceneKind};
use crate::engine::bundle::{self, Bundle, Verify};
use crate::engine::rten::RtenOptions;
use crate::model::stages::LoadOptions;
use crate::pipeline::{GroupSearch, Segment, Segmenter, Strategies, Strategy, TRIED_GROUPS};
use crate::prompt::Dialect;

/// Arguments of `sam4mllm dataset dialogues`.
#[derive(Debug, clap::Args)]
pub(super) struct DialoguesArgs {
    /// Folder to write to.
    out: PathBuf,
    /// Where dialogues come from: FORMAT:PATH[@SPLIT][=WEIGHT] with a format of `dataset inspect`, or
    /// tabletop:SPLIT[=WEIGHT]. May be given more than once; weights are shares of the conversations.
    #[arg(long, required = true)]
    source: Vec<SourceSpec>,
    /// A data set whose val and test pictures may not be trained on, beside those of the sources: FORMAT:PATH[@SPLIT].
    #[arg(long)]
    exclude: Vec<Excluded>,
    /// Folder of a format's pictures. Default: that of its records.
    #[arg(long, value_name = "FORMAT=DIR", value_parser = parse_place)]
    images: Vec<(String, PathBuf)>,
    /// COCO's annotations of a format. Default: instances.json beside its records.
    #[arg(long, value_name = "FORMAT=FILE", value_parser = parse_place)]
    instances: Vec<(String, PathBuf)>,
    /// Whose trainer the file is for.
    #[arg(long, value_enum, default_value_t = ChatFormat::Trl)]
    format: ChatFormat,
    /// Conversations, at least; sources begin anew when they are spent. Default: every record once.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Another seed gives other points, hints and order.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Most expressions of one picture in a conversation.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=64))]
    pack: u64,
    /// Most tokens of a conversation, those of the picture among them.
    #[arg(long, default_value_t = 1536, value_parser = clap::value_parser!(u64).range(64..))]
    max_tokens: u64,
    /// What is taught; of several each expression gets one.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "pqpp")]
    strategy: Vec<Strategy>,
    /// Most targets of an expression that PQPP asks about points of.
    #[arg(long, default_value_t = 3)]
    questions: usize,
    /// Random groups of points that SAM tries for a mask with PPG.
    #[arg(long, default_value_t = TRIED_GROUPS, value_parser = parse_tried)]
    tried: usize,
    /// IoU with the truth below which SAM's mask of a group is not taught.
    #[arg(long, default_value_t = 0.5, value_parser = parse_share)]
    min_iou: f32,
    /// Worker threads, each with its own SAM; the bytes do not depend on it. Default: one a core.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=256))]
    threads: Option<u64>,
    /// Leave damaged records and pictures out, and count them.
    #[arg(long)]
    skip_damaged: bool,
    #[command(flatten)]
    words: WordArgs,
    #[command(flatten)]
    scenes: SceneArgs,
    /// Pictures below this folder are named relative to it, others by their whole path. Default: the folder written to.
    #[arg(long)]
    image_root: Option<PathBuf>,
    /// Print one JSON object for programs.
    #[arg(long)]
    json: bool,
}

/// Which language model is taught.
#[derive(Debug, clap::Args)]
struct WordArgs {
    /// Bundle whose dialect, tokenizer and SAM are used.
    #[arg(long, env = "SAM4MLLM_BUNDLE", default_value = "engines/tabletop")]
    bundle: PathBuf,
    /// Where imported graphs of SAM are kept; by default in the user's cache folder.
    #[arg(long, env = "SAM4MLLM_CACHE")]
    cache_dir: Option<PathBuf>,
    /// A TOML file whose [dialect] is used rather than the bundle's, for instance one with PPG.
    #[arg(long)]
    dialect: Option<PathBuf>,
    /// The target tokenizer, tokenizer.json. Default: the bundle's.
    #[arg(long)]
    tokenizer: Option<PathBuf>,
    /// The tokenizer's token that stands for the picture.
    #[arg(long, default_value = "<image>")]
    image_token: String,
    /// Tokens of a picture. Default: image_seq_length of the bundle's config.json.
    #[arg(long)]
    image_tokens: Option<usize>,
    /// Where the user's words are in a query, as in "USER: {content} ASSISTANT:". Default: between control tokens.
    #[arg(long)]
    turn: Option<String>,
}

/// What rendered scenes look like.
#[derive(Debug, clap::Args)]
struct SceneArgs {
    /// Another seed gives other scenes.
    #[arg(long, default_value_t = 0)]
    scene_seed: u64,
    #[command(flatten)]
    look: LookArgs,
}

fn parse_place(text: &str) -> Result<(String, PathBuf), String> {
    let (format, path) = text.split_once('=').ok_or("FORMAT=PATH is expected, as in refcoco=coco/train2014")?;
    Ok((<crate::dataset::readers::Source as clap::ValueEnum>::from_str(format, false)?.to_string(), path.into()))
}

fn parse_share(text: &str) -> Result<f32, String> {
    text.parse().ok().filter(|v| (0.0..=1.0).contains(v)).ok_or_else(|| "0.0 to 1.0 is expected".to_owned())
}

fn parse_tried(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=4096).contains(n)).ok_or_else(|| "1 to 4096 is expected".to_owned())
}

/// Runs the subcommand.
pub(super) fn run(args: DialoguesArgs) -> anyhow::Result<()> {
    let bundle = Bundle::open(&args.words.bundle, Verify::Sizes)
        .with_context(|| format!("open bundle {}", args.words.bundle.display()))?;
    let wording = args.words.wording(&bundle)?;
    let sources = load_sources(&args)?;
    let options = args.options();
    for strategy in &options.strategies {
        // Here too, for as a bad configuration it has an exit code of its own.
        Strategies::of(wording.dialect(), *strategy)?;
    }
    let segmenters = match options.strategies.contains(&Strategy::Ppg) {
        true => segmenters(&bundle, args.words.cache_dir.clone(), options.threads)?,
        false => Vec::new(),
    };
    let output = Output { folder: args.out, format: args.format, image_root: args.image_root };
    let bar = bar(options.count);
    let material = Material { sources: &sources, wording: &wording, options: &options };
    let written = write(material, segmenters, &output, |dialogues, jobs, all| {
        if let Some(all) = all {
            bar.set_length(all.max(jobs));
        }
        bar.set_position(if options.count.is_some() { dialogues } else { jobs });
        bar.set_message(format!("{dialogues} dialogues"));
    })?;
    bar.finish_and_clear();
    for error in &written.damaged {
        eprintln!("left out: {error}");
    }
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&report(&written))?),
        false => print(&written),
    }
    Ok(())
}

fn bar(count: Option<u64>) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {per_sec} {eta}  {msg}");
    ProgressBar::new(count.unwrap_or(0)).with_style(style.expect("the template is constant"))
}

impl DialoguesArgs {
    fn options(&self) -> DialogueOptions {
        let cores = || std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        DialogueOptions {
            seed: self.seed,
            count: self.count,
            pack: self.pack as usize,
            max_tokens: self.max_tokens as usize,
            strategies: self.strategy.clone(),
            questions: self.questions,
            search: GroupSearch { tried: self.tried, min_iou: self.min_iou, seed: 0 },
            threads: self.threads.unwrap_or_else(cores) as usize,
            skip_damaged: self.skip_damaged,
        }
    }
}

fn load_sources(args: &DialoguesArgs) -> anyhow::Result<Vec<Source>> {
    let places = |list: &[(String, PathBuf)]| list.iter().cloned().collect::<BTreeMap<_, _>>();
    let scenes = args.scenes.look.options(SceneKind::Scenes);
    let (instances, images) = (places(&args.instances), places(&args.images));
    let loading = Loading {
        instances: &instances,
        images: &images,
        excluded: &args.exclude,
        skip_damaged: args.skip_damaged,
        scenes: &scenes,
    };
    let mut assets: Option<Assets> = None;
    let (sources, damaged) = load(&args.source, &loading, |split| {
        if assets.is_none() {
            assets = Some(args.scenes.look.assets()?);
        }
        let assets = assets.as_ref().expect("they were just loaded");
        Ok(SceneGenerator::new(assets, split, args.scenes.scene_seed))
    })?;
    for error in damaged.iter().take(Written::MAX_DAMAGED) {
        let cause = std::error::Error::source(error).map(|e| format!(": {e}")).unwrap_or_default();
        eprintln!("left out: {error}{cause}");
    }
    Ok(sources)
}

/// A SAM for each worker; one thread each, so that what a worker computes does not depend on their number.
fn segmenters(bundle: &Bundle, cache: Option<PathBuf>, count: usize) -> anyhow::Result<Vec<Box<dyn Segment>>> {
    let options = LoadOptions { cache_dir: cache, sam: RtenOptions::default().threads(1), ..LoadOptions::default() };
    let load = |_| Ok(Box::new(Segmenter::load(bundle, &options)?) as Box<dyn Segment>);
    (0..count).map(load).collect::<anyhow::Result<_>>().context("load SAM")
}

#[derive(Deserialize)]
struct DialectFile {
    dialect: bundle::Dialect,
}

impl WordArgs {
    fn wording(&self, bundle: &Bundle) -> anyhow::Result<Wording> {
        let words = match &self.dialect {
            None => bundle.manifest().dialect.clone(),
            Some(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
                toml::from_str::<DialectFile>(&text).with_context(|| format!("parse {}", path.display()))?.dialect
            }
        };
        let folder = bundle.mllm_dir();
        let spec = TokenizerSpec {
            file: self.tokenizer.clone().unwrap_or_else(|| folder.join("tokenizer.json")),
            image_token: self.image_token.clone(),
            image_tokens: match self.image_tokens {
                Some(tokens) => tokens,
                None => image_tokens(&folder.join("config.json"))?,
            },
            turn: self.turn.clone(),
        };
        Ok(Wording::new(Dialect::compile(&words)?, &spec)?)
    }
}

fn image_tokens(config: &Path) -> anyhow::Result<usize> {
    let text = std::fs::read_to_string(config).with_context(|| format!("read {}", config.display()))?;
    let config_json: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("parse {}", config.display()))?;
    let tokens = config_json["image_seq_length"].as_u64().and_then(|n| usize::try_from(n).ok());
    tokens.with_context(|| format!("find image_seq_length in {}: give --image-tokens", config.display()))
}

#[derive(Serialize)]
struct Report<'a> {
    file: &'a Path,
    sources: BTreeMap<&'a str, SourceReport<'a>>,
    all: SourceReport<'a>,
}

#[derive(Serialize)]
struct SourceReport<'a> {
    #[serde(flatten)]
    tally: std::borrow::Cow<'a, Tally>,
    tokens_p50: Option<u32>,
    tokens_p95: Option<u32>,
    tokens_max: Option<u32>,
}

impl<'a> SourceReport<'a> {
    fn new(tally: std::borrow::Cow<'a, Tally>) -> Self {
        let [tokens_p50, tokens_p95, tokens_max] =
            tally.token_quantiles().map_or([None; 3], |quantiles| quantiles.map(Some));
        Self { tally, tokens_p50, tokens_p95, tokens_max }
    }
}

fn sum(written: &Written) -> Tally {
    written.sources.iter().fold(Tally::default(), |mut all, (_, tally)| {
        all.add(tally);
        all
    })
}

fn report(written: &Written) -> Report<'_> {
    use std::borrow::Cow;
    let sources =
        written.sources.iter().map(|(label, t)| (label.as_str(), SourceReport::new(Cow::Borrowed(t)))).collect();
    Report { file: &written.file, sources, all: SourceReport::new(Cow::Owned(sum(written))) }
}

fn print(written: &Written) {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "source",
        "dialogues",
        "expressions",
        "general",
        "taught",
        "dropped",
        "tokens p50",
        "p95",
        "max",
        "trained",
        "no target",
        "points",
        "yes",
    ]);
    let all = ("all".to_owned(), sum(written));
    for (label, tally) in written.sources.iter().chain((written.sources.len() > 1).then_some(&all)) {
        table.add_row(row(label, tally));
    }
    println!("{table}");
    for (reason, n) in &all.1.dropped {
        println!("dropped for `{}`: {n}", reason.word());
    }
    if all.1.damaged > 0 {
        println!("{} records and annotations are damaged", all.1.damaged);
    }
    println!("{}", written.file.display());
}

/// Figures that a source cannot have are left empty.
fn row(label: &str, t: &Tally) -> Vec<String> {
    let share = |part: u64, whole: u64| match whole {
        0 => String::new(),
        _ => format!("{:.1} %", 100.0 * part as f64 / whole as f64),
    };
    let [p50, p95, max] = t.token_quantiles().map_or([const { String::new() }; 3], |q| q.map(|n| n.to_string()));
    let tokens: u64 = t.tokens.iter().map(|n| u64::from(*n)).sum();
    vec![
        label.to_owned(),
        t.dialogues.to_string(),
        t.expressions.to_string(),
        t.conversations.to_string(),
        t.taught.to_string(),
        t.dropped.values().sum::<u64>().to_string(),
        p50,
        p95,
        max,
        share(t.trained_tokens, tokens),
        share(t.absent, t.found + t.absent),
        (t.yes + t.no).to_string(),
        share(t.yes, t.yes + t.no),
    ]
}
