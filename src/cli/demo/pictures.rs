//! What the demo leaves to look at: an overlay of each command, and the clip as an animated picture.

use std::fs::{self, File};
use std::path::Path;

use image::codecs::gif::{GifEncoder, Repeat};
use image::{Delay, Frame, RgbImage, imageops};

use super::client::Answer;
use super::score::{mask, result};
use crate::client;
use crate::dataset::{Clip, Expression};
use crate::frame::Image;
use crate::geometry::{BBox, Point};
use crate::overlay::{Banner, Item, Tone, draw};
use crate::prompt::{LabelledPoint, PointLabel};
use crate::server::wire;
use crate::server::wire::{Origin, TargetResult, Verdict};

/// Every how manieth frame is in the animated picture, and how wide it is.
const GIF_STEP: usize = 2;
const GIF_WIDTH: u32 = 400;

/// Writes `command-N.png` (the last frame) and `demo.gif` below `out`.
pub fn write(out: &Path, clip: &Clip, commands: &[Expression], answers: &[Answer]) -> anyhow::Result<()> {
    fs::create_dir_all(out)?;
    for (i, command) in commands.iter().enumerate() {
        let picture = overlay(clip, answers.len() - 1, command, answers, i)?;
        picture.save(out.join(format!("command-{i}.png")))?;
    }
    let mut gif = GifEncoder::new_with_speed(File::create(out.join("demo.gif"))?, 20);
    gif.set_repeat(Repeat::Infinite)?;
    // The commands take turns, each for its share of the clip.
    let share = answers.len().div_ceil(commands.len());
    for frame in (0..answers.len()).step_by(GIF_STEP) {
        let i = (frame / share).min(commands.len() - 1);
        let picture = overlay(clip, frame, &commands[i], answers, i)?;
        let height = picture.height() * GIF_WIDTH / picture.width();
        let small = imageops::resize(&picture, GIF_WIDTH, height, imageops::FilterType::Triangle);
        let rgba = image::DynamicImage::ImageRgb8(small).into_rgba8();
        gif.encode_frame(Frame::from_parts(rgba, 0, 0, Delay::from_numer_denom_ms(120, 1)))?;
    }
    Ok(())
}

fn overlay(
    clip: &Clip,
    frame: usize,
    command: &Expression,
    answers: &[Answer],
    index: usize,
) -> anyhow::Result<RgbImage> {
    let scene = clip.frame(frame);
    let image = Image::from_rgb(scene.size, scene.rgb).expect("a frame fills its size");
    let Some(result) = result(&answers[frame], index) else { anyhow::bail!("frame {frame} says nothing of it") };
    let masks: Vec<_> = result.instances.iter().map(|i| mask(i, image.size())).collect();
    let points: Vec<Vec<LabelledPoint>> = result.instances.iter().map(points).collect();
    let items = result.instances.iter().zip(&masks).zip(&points).enumerate();
    let items: Vec<Item<'_>> = items
        .map(|(n, ((instance, mask), points))| Item {
            mask: mask.as_ref(),
            bbox: instance.r#box.as_ref().map(|b| BBox::new(b.x1, b.y1, b.x2, b.y2)),
            points: if instance.origin() == Origin::Grounded { points } else { &[] },
            label: format!("{} {:.2}", origin(instance.origin()), instance.confidence),
            colour: n,
        })
        .collect();
    let picture = draw(&image, &items, Some(&banner(command, result, &answers[frame])));
    let (w, h) = (picture.size().width, picture.size().height);
    Ok(RgbImage::from_raw(w, h, picture.rgb().to_vec()).expect("a picture has three bytes a pixel"))
}

fn points(instance: &wire::Instance) -> Vec<LabelledPoint> {
    let evidence = instance.evidence.iter().flat_map(|e| &e.points);
    evidence
        .map(|p| LabelledPoint {
            point: Point::new(p.x, p.y),
            p_yes: p.p_yes,
            label: match p.label() {
                wire::PointLabel::On => PointLabel::On,
                wire::PointLabel::Off => PointLabel::Off,
                wire::PointLabel::Unsure | wire::PointLabel::Unspecified => PointLabel::Unsure,
            },
        })
        .collect()
}

fn banner(command: &Expression, result: &TargetResult, answer: &Answer) -> Banner {
    let verdict = result.verdict();
    Banner {
        verdict: client::verdict_word(verdict).to_owned(),
        tone: match verdict {
            Verdict::Found => Tone::Good,
            Verdict::Absent | Verdict::Pending | Verdict::Paused | Verdict::Unspecified => Tone::Neutral,
            Verdict::Ambiguous | Verdict::Unsure | Verdict::Lost => Tone::Doubt,
            Verdict::Failed => Tone::Bad,
        },
        text: command.text.clone(),
        note: format!("{:.0} ms", answer.latency.as_secs_f64() * 1e3),
    }
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Grounded => "grounded",
        Origin::Tracked => "tracked",
        Origin::Stale => "stale",
        Origin::Unspecified => "",
    }
}
