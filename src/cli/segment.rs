//! `sam4mllm segment`: one picture and one command to a verdict, masks and an overlay, without a server.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use super::{Format, picture::PictureArgs, stages::StageArgs};
use crate::frame::Image;
use crate::mask::{Mask, Rle};
use crate::overlay::{Banner, Item, Tone, draw};
use crate::pipeline::{Decoded, FrameSam, Ground, Grounding, Outcome, SamDrafts, Segmented, Strategy, segment_groups};
use crate::prompt::{CountHint, LabelledPoint, PointLabel};

/// Arguments of `sam4mllm segment`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Picture: JPEG, PNG or WebP, or with --raw a camera's bytes.
    image: PathBuf,
    /// What to look for, as one would say it.
    command: String,
    #[command(flatten)]
    picture: PictureArgs,
    #[command(flatten)]
    stages: StageArgs,
    /// How many targets the command may have.
    #[arg(long, value_enum, default_value_t = Count::Any)]
    count: Count,
    /// Write the picture with mask, box and points to this PNG file.
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// How to print the result.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// How many targets a command may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Count {
    /// Exactly one; several matches are ambiguous.
    One,
    /// One or more.
    Some,
    /// None, one or several.
    Any,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Report {
    verdict: &'static str,
    /// Confidence in the verdict, 0 to 1.
    confidence: f32,
    command: String,
    strategy: Strategy,
    /// The language model's first answer, verbatim.
    answer: String,
    /// Why that answer could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    malformed: Option<String>,
    /// Passes through the language model.
    passes: u32,
    /// Passes that the same words take one token at a time.
    passes_one_by_one: u32,
    /// Tokens that were drafted, and those of them that the language model would have said itself.
    drafted: u32,
    accepted: u32,
    /// Tokens that could be others without drafts.
    near_ties: u32,
    /// `[width, height]`.
    size: [u32; 2],
    instances: Vec<Instance>,
    /// Milliseconds by stage.
    timings_ms: Vec<(&'static str, f64)>,
}

#[derive(Debug, Serialize)]
struct Instance {
    /// `[x1, y1, x2, y2]` in pixels of the picture: the language model's proposal.
    r#box: [f32; 4],
    confidence: f32,
    points: Vec<Point>,
    /// SAM's predicted IoU.
    mask_score: f32,
    /// Pixels of the mask.
    area: u64,
    mask: MaskJson,
}

#[derive(Debug, Serialize)]
struct Point {
    x: f32,
    y: f32,
    p_yes: f32,
    label: &'static str,
}

/// COCO's compressed run-length encoding.
#[derive(Debug, Serialize)]
struct MaskJson {
    /// `[height, width]`, as COCO has it.
    size: [u32; 2],
    counts: String,
}

/// Runs the subcommand.
pub fn run(args: Args) -> anyhow::Result<()> {
    let image = args.picture.read(&args.image)?;
    let bundle = args.stages.open()?;
    let start = Instant::now();
    let mut stages = args.stages.load(&bundle)?;
    let mut timings = vec![("load", start.elapsed())];
    let hint = match args.count {
        Count::One => CountHint::One,
        Count::Some => CountHint::OneOrMore,
        Count::Any => CountHint::NoneOrMore,
    };
    let command = stages.grounder.check(&args.command, hint)?;
    let mut sam = FrameSam::new(&mut stages.segmenter, &image);
    let mut drafts = SamDrafts::new(&[], |prompts| sam.segment(prompts));
    let grounding = stages.grounder.ground_drafted(&image, &command, &mut drafts, None);
    let mut grounding = grounding.context("ground the command")?;
    timings.extend(&grounding.timings);
    let masks = masks(sam, &grounding, &mut timings).context("segment the picture")?;
    let calibration = stages.grounder.calibration();
    for (instance, mask) in grounding.instances.iter_mut().zip(&masks) {
        instance.confidence = calibration.with_mask(instance.confidence, mask.signs(&instance.proposal));
    }
    let verdict = verdict(&grounding, &masks, bundle.manifest().dialect.thresholds.mask_score);
    let report = report(&command.text, &image, &grounding, &masks, verdict, &timings);
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Format::Text => print(&report),
    }
    if let Some(path) = &args.output {
        write(path, &overlay(&image, &command.text, &grounding, &masks, verdict))?;
    }
    Ok(())
}

/// Writes a picture as PNG.
pub(super) fn write(path: &Path, image: &Image) -> anyhow::Result<()> {
    let size = image.size();
    let colour = image::ExtendedColorType::Rgb8;
    image::save_buffer_with_format(path, image.rgb(), size.width, size.height, colour, image::ImageFormat::Png)
        .with_context(|| format!("write {}", path.display()))
}

/// One mask an instance.
fn masks(
    mut sam: FrameSam<'_>,
    grounding: &Grounding,
    timings: &mut Vec<(&'static str, Duration)>,
) -> anyhow::Result<Vec<Segmented>> {
    if grounding.instances.is_empty() {
        return Ok(Vec::new());
    }
    let start = Instant::now();
    let (stage, embedding) = sam.ready()?;
    timings.push(("embed", start.elapsed()));
    let start = Instant::now();
    let groups: Vec<_> = grounding.instances.iter().map(|i| i.prompts()).collect();
    let masks = segment_groups(stage, embedding, &groups)?;
    timings.push(("masks", start.elapsed()));
    Ok(masks)
}

/// The grounding's outcome, unless SAM believes in none of the masks.
fn verdict(grounding: &Grounding, masks: &[Segmented], mask_score: f32) -> Outcome {
    let believed = |m: &Segmented| m.score >= mask_score && m.mask.area() > 0;
    match grounding.outcome {
        Outcome::Found if !masks.iter().any(believed) => Outcome::Unsure,
        outcome => outcome,
    }
}

fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Found => "FOUND",
        Outcome::Absent => "ABSENT",
        Outcome::Ambiguous => "AMBIGUOUS",
        Outcome::Unsure => "UNSURE",
    }
}

fn report(
    command: &str,
    image: &Image,
    grounding: &Grounding,
    masks: &[Segmented],
    verdict: Outcome,
    timings: &[(&'static str, Duration)],
) -> Report {
    let instance = |(i, m): (&crate::pipeline::GroundedInstance, &Segmented)| Instance {
        r#box: [i.proposal.x1, i.proposal.y1, i.proposal.x2, i.proposal.y2],
        confidence: i.confidence,
        points: i.points.iter().map(point).collect(),
        mask_score: m.score,
        area: m.mask.area(),
        mask: mask_json(&m.mask),
    };
    let Decoded { one_by_one, drafted, accepted, near_ties } = grounding.decoded;
    Report {
        verdict: word(verdict),
        confidence: grounding.confidence,
        command: command.to_owned(),
        strategy: grounding.strategy,
        answer: grounding.answer.clone(),
        malformed: grounding.malformed.map(|e| e.to_string()),
        passes: grounding.passes,
        passes_one_by_one: one_by_one,
        drafted,
        accepted,
        near_ties,
        size: [image.size().width, image.size().height],
        instances: grounding.instances.iter().zip(masks).map(instance).collect(),
        timings_ms: timings.iter().map(|(stage, time)| (*stage, time.as_secs_f64() * 1e3)).collect(),
    }
}

fn point(p: &LabelledPoint) -> Point {
    let label = match p.label {
        PointLabel::On => "on",
        PointLabel::Off => "off",
        PointLabel::Unsure => "unsure",
    };
    Point { x: p.point.x, y: p.point.y, p_yes: p.p_yes, label }
}

fn mask_json(mask: &Mask) -> MaskJson {
    let size = mask.size();
    MaskJson { size: [size.height, size.width], counts: Rle::encode(mask).to_coco_string() }
}

fn print(report: &Report) {
    println!("{}  {:.2}  \"{}\"", report.verdict, report.confidence, report.command);
    println!("answer: {}", report.answer);
    if let Some(why) = &report.malformed {
        println!("malformed: {why}");
    }
    if !report.instances.is_empty() {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header(["#", "box", "confidence", "points on/off/unsure", "mask score", "mask pixels"]);
        for (i, instance) in report.instances.iter().enumerate() {
            let count = |label| instance.points.iter().filter(|p| p.label == label).count();
            let [x1, y1, x2, y2] = instance.r#box;
            table.add_row([
                (i + 1).to_string(),
                format!("{x1:.0},{y1:.0} {x2:.0},{y2:.0}"),
                format!("{:.2}", instance.confidence),
                format!("{}/{}/{}", count("on"), count("off"), count("unsure")),
                format!("{:.2}", instance.mask_score),
                instance.area.to_string(),
            ]);
        }
        println!("{table}");
    }
    let stages: Vec<_> = report.timings_ms.iter().map(|(stage, ms)| format!("{stage} {ms:.1} ms")).collect();
    let (passes, one_by_one) = (report.passes, report.passes_one_by_one);
    println!("{passes} passes, {one_by_one} one by one; {}", stages.join(", "));
}

/// The picture of a grounding and its masks.
fn overlay(image: &Image, command: &str, grounding: &Grounding, masks: &[Segmented], verdict: Outcome) -> Image {
    let pairs = grounding.instances.iter().zip(masks).enumerate();
    let items: Vec<_> = pairs
        .map(|(i, (instance, m))| Item {
            mask: Some(&m.mask),
            bbox: Some(instance.proposal),
            points: &instance.points,
            label: format!("{} {:.2}", i + 1, m.score),
            colour: i,
        })
        .collect();
    let tone = match verdict {
        Outcome::Found => Tone::Good,
        Outcome::Absent => Tone::Neutral,
        Outcome::Ambiguous | Outcome::Unsure => Tone::Doubt,
    };
    let banner = Banner {
        verdict: word(verdict).to_owned(),
        tone,
        text: command.to_owned(),
        note: format!("{:.2}", grounding.confidence),
    };
    draw(image, &items, Some(&banner))
}
