//! How well a command's object is followed: clips in which something happens to it, frame by frame through the node's own
//! code, on the clips' own clock.
//!
//! - *Mean IoU* is over all frames in which a pixel of the object is seen, those before the first answer included; no mask
//!   counts 0.
//! - A *switch* is where a mask begins to lie on another object more than on its own; on which it lies is judged by the
//!   pixels of both that are seen.
//! - *Found without* is the share of frames answered FOUND of those in which nothing of the object is seen: of the
//!   clip's own command, and of one that means nothing in any frame. *Absent without* is the share of them that are
//!   answered ABSENT, and *absent with* that of the frames in which the object is seen.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dataset::{Scene, Story, StoryClip, encode_jpeg};
use crate::frame::{Encoding, Image, Layout};
use crate::geometry::Size;
use crate::mask::Mask;
use crate::node::{
    FrameIn, FrameReply, Manner, NodeConfig, NodeError, Origin, Phrasing, Stages, TargetReply, Trial, Verdict,
};
use crate::overlay::{Item, draw};

/// Pictures that are kept of each clip.
const PICTURES: usize = 4;
/// Their width, in pixels, and quality.
const PICTURE: (u32, u8) = (240, 70);
/// Of the camera's JPEG.
const QUALITY: u8 = 90;
const NAMES: [&str; 2] = ["there", "absent"];

/// How clips are shown.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pace {
    /// Frames a second.
    pub fps: u32,
    /// What a grounding takes, in milliseconds.
    pub grounding_ms: u64,
}

impl Pace {
    /// The frames of a clip that takes `seconds`.
    pub fn frames(self, seconds: u32) -> usize {
        (self.fps * seconds) as usize
    }

    /// Masks that are so old since their grounding were carried here from it.
    fn carried_within(self) -> Duration {
        Duration::from_millis(self.grounding_ms + 1) + Duration::from_secs(1) / self.fps
    }
}

/// What one clip came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Followed {
    /// The clip.
    pub seed: u64,
    /// What happens in it.
    pub story: Story,
    /// What was asked for.
    pub command: String,
    /// What was asked for and is not there.
    pub absent: String,
    /// IoU of each frame; `None` where nothing of the object is seen.
    pub ious: Vec<Option<f32>>,
    /// Frames where its mask begins to lie on another object, and whether the language model put it there.
    pub switches: Vec<(u32, bool)>,
    /// Frames without the object, and those of them that are answered FOUND and ABSENT: its own command, then the absent
    /// one.
    pub without: [[u32; 3]; 2],
    /// Frames in which the object is seen and answered ABSENT.
    pub denied: u32,
    /// Groundings of the command.
    pub groundings: u32,
    /// JPEG files, with the masks, and the frames that they are of; none of a clip that was read from a file.
    #[serde(skip)]
    pub pictures: Vec<(usize, Vec<u8>)>,
}

impl Followed {
    /// Over the frames in which the object is seen; `None` where there are none.
    pub fn mean_iou(&self) -> Option<f64> {
        mean(self.ious.iter().flatten())
    }
}

fn mean<'a>(ious: impl Iterator<Item = &'a f32>) -> Option<f64> {
    let (sum, n) = ious.fold((0.0, 0u64), |(sum, n), iou| (sum + f64::from(*iou), n + 1));
    (n > 0).then(|| sum / n as f64)
}

/// Figures over several clips.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// Clips.
    pub clips: usize,
    /// Frames in which the object is seen.
    pub seen: usize,
    /// Over those.
    pub mean_iou: f64,
    /// Switches while tracking, and groundings on another object.
    pub switches: [usize; 2],
    /// Frames without the object.
    pub without: u32,
    /// The share of those that are answered FOUND.
    pub found_without: f64,
    /// The share of those that are answered ABSENT.
    pub absent_without: f64,
    /// The share of `seen` that are.
    pub absent_with: f64,
}

impl Figures {
    /// Of `clips`.
    pub fn of<'a>(clips: impl Iterator<Item = &'a Followed> + Clone) -> Self {
        let count = |grounded: bool| clips.clone().flat_map(|c| &c.switches).filter(|s| s.1 == grounded).count();
        let sum = |i: usize| clips.clone().flat_map(|c| c.without).map(|w| w[i]).sum::<u32>();
        let seen = clips.clone().flat_map(|c| &c.ious).flatten().count();
        let of_without = |i: usize| f64::from(sum(i)) / f64::from(sum(0).max(1));
        Self {
            clips: clips.clone().count(),
            seen,
            mean_iou: mean(clips.clone().flat_map(|c| c.ious.iter().flatten())).unwrap_or(0.0),
            switches: [count(false), count(true)],
            without: sum(0),
            found_without: of_without(1),
            absent_without: of_without(2),
            absent_with: f64::from(clips.map(|c| c.denied).sum::<u32>()) / seen.max(1) as f64,
        }
    }
}

/// Shows `told` to a new session of a node on `stages`, and holds its answers against the truth; `progress` is called
/// after every frame.
///
/// # Errors
/// Where a stage cannot be built or fails.
pub fn follow(
    told: &StoryClip,
    seed: u64,
    (config, stages): (NodeConfig, Stages),
    pace: Pace,
    mut progress: impl FnMut(),
) -> Result<Followed, NodeError> {
    let phrasing = Phrasing::new(&config, stages.strategies);
    let mut trial = Trial::new(config, stages, Duration::from_millis(pace.grounding_ms))?;
    let texts = [&told.command.text, &told.absent.text];
    let targets = NAMES.iter().zip(texts).map(|(n, t)| phrasing.target((*n).to_owned(), t, Manner::default()));
    trial.input(|input| input.set_targets(targets.collect()))?;
    let frames = told.clip.frames();
    let mut followed = Followed {
        seed,
        story: told.story,
        command: texts[0].clone(),
        absent: texts[1].clone(),
        ious: Vec::with_capacity(frames),
        switches: Vec::new(),
        without: [[0; 3]; 2],
        denied: 0,
        groundings: 0,
        pictures: Vec::new(),
    };
    let (mut elsewhere, mut grounded) = (false, None);
    for number in 0..frames {
        let scene = told.clip.frame(number);
        let at = Duration::from_secs(1) * number as u32 / pace.fps;
        let reply = trial.frame(frame(&scene, number), at)?;
        let Some([there, absent]) = reply.targets.get(..2) else { continue };
        let (truth, mask) = (scene.mask(told.target()), shown(there, &reply));
        let seen = truth.area() > 0;
        followed.ious.push(seen.then(|| mask.as_ref().and_then(|m| m.iou(&truth)).unwrap_or(0.0)));
        let on = mask.as_ref().is_some_and(|mask| lies_elsewhere(mask, &scene, told.target()));
        if on && !elsewhere {
            let by_words =
                there.instances.iter().any(|i| i.origin == Origin::Grounded || i.grounded_age < pace.carried_within());
            followed.switches.push((number as u32, by_words));
        }
        elsewhere = on;
        for ((counts, target), without) in followed.without.iter_mut().zip([there, absent]).zip([!seen, true]) {
            if without {
                counts[0] += 1;
                counts[1] += u32::from(target.verdict == Verdict::Found);
                counts[2] += u32::from(target.verdict == Verdict::Absent);
            }
        }
        followed.denied += u32::from(seen && there.verdict == Verdict::Absent);
        let last = there.grounding.as_ref().map(|(seq, _)| *seq);
        followed.groundings += u32::from(last.is_some() && last != grounded);
        grounded = last;
        if (number + 1).is_multiple_of((frames / PICTURES).max(1)) {
            followed.pictures.extend(picture(&scene, mask.as_ref(), &truth).map(|jpeg| (number, jpeg)));
        }
        progress();
    }
    Ok(followed)
}

fn frame(scene: &Scene, number: usize) -> FrameIn {
    let (width, height) = (scene.size.width as usize, scene.size.height as usize);
    let seq = number as u64 + 1;
    match encode_jpeg(&scene.rgb, width, height, QUALITY) {
        Some(jpeg) => FrameIn::of_pixels(seq, Encoding::Jpeg, Layout::default(), jpeg),
        None => {
            let layout = Layout::packed(scene.size.width, scene.size.height);
            FrameIn::of_pixels(seq, Encoding::Rgb8, layout, scene.rgb.clone())
        }
    }
}

/// What a robot would act upon.
fn shown(target: &TargetReply, reply: &FrameReply) -> Option<Mask> {
    let acts = matches!(target.verdict, Verdict::Found | Verdict::Ambiguous);
    let masks = target.instances.iter().filter(|i| acts && i.mask_seq() == reply.meta.seq).map(|i| i.mask().clone());
    masks.reduce(|mut all, mask| {
        all.union_with(&mask);
        all
    })
}

/// Whether it lies on another object more than on its own.
fn lies_elsewhere(mask: &Mask, scene: &Scene, target: usize) -> bool {
    let mut on = vec![0u64; scene.objects.len() + 1];
    for (bit, id) in mask.bits().iter().zip(&scene.instance_map) {
        on[usize::from(*id)] += u64::from(*bit);
    }
    let own = on[target + 1];
    on.iter().enumerate().skip(1).any(|(id, pixels)| id != target + 1 && *pixels > own)
}

fn picture(scene: &Scene, mask: Option<&Mask>, truth: &Mask) -> Option<Vec<u8>> {
    let image = Image::from_rgb(scene.size, scene.rgb.clone())?;
    let item = |mask, bbox, colour| Item { mask, bbox, points: &[], label: String::new(), colour };
    let items = [item(mask, None, 0), item(None, truth.bbox(), 1)];
    let drawn = draw(&image, &items, None);
    let Size { width, height, .. } = drawn.size();
    let picture = image::RgbImage::from_raw(width, height, drawn.rgb().to_vec())?;
    let size = (PICTURE.0, height * PICTURE.0 / width);
    let small = image::imageops::resize(&picture, size.0, size.1, image::imageops::FilterType::Triangle);
    encode_jpeg(small.as_raw(), size.0 as usize, size.1 as usize, PICTURE.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(ious: &[Option<f32>], switches: &[(u32, bool)], without: [[u32; 3]; 2]) -> Followed {
        Followed {
            seed: 1,
            story: Story::Motion,
            command: "the cup".into(),
            absent: "the axe".into(),
            ious: ious.to_vec(),
            switches: switches.to_vec(),
            without,
            denied: 1,
            groundings: 1,
            pictures: Vec::new(),
        }
    }

    #[test]
    fn figures_count_every_frame_once() {
        let clips = [
            followed(&[Some(0.0), Some(1.0), None], &[(1, false)], [[1, 1, 0], [3, 0, 2]]),
            followed(&[Some(0.5), Some(0.5), Some(1.0)], &[(0, true), (2, false)], [[0, 0, 0], [3, 0, 3]]),
        ];
        let figures = Figures::of(clips.iter());
        assert_eq!((figures.clips, figures.seen, figures.without), (2, 5, 7));
        assert!((figures.mean_iou - 0.6).abs() < 1e-9 && (figures.found_without - 1.0 / 7.0).abs() < 1e-9);
        assert!((figures.absent_without - 5.0 / 7.0).abs() < 1e-9 && (figures.absent_with - 0.4).abs() < 1e-9);
        assert_eq!(figures.switches, [2, 1]);
        assert_eq!(clips[0].mean_iou(), Some(0.5));
    }
}
