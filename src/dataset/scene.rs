//! A rendered scene with its ground truth, and the generator that makes scene `i` from (split, seed, `i`) alone.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::assets::Assets;
use super::background::Background;
use super::canvas::{Canvas, View};
use super::compose::{self, Drawn, Light, Tint};
use super::degrade::Camera;
use super::expression::{self, Expression, Lexicon};
use super::layout::Layout;
use super::rng::SceneRng;
use super::split::Split;
use crate::geometry::{BBox, Size, SourcePx};
use crate::mask::Mask;

/// What a scene shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum SceneKind {
    /// A tabletop with several objects.
    Scenes,
    /// One object in the middle of a square, often with neighbours that peek in.
    Crops,
}

/// How large and how full the scenes are.
#[derive(Debug, Clone)]
pub struct SceneOptions {
    /// Longest image side in pixels. Default: 320. Range: 16..=2048.
    pub longest_side: u32,
    /// Default: scenes.
    pub kind: SceneKind,
    /// Number of objects. Default: 3..=9. Range: 1..=32.
    pub objects: RangeInclusive<usize>,
}

impl Default for SceneOptions {
    fn default() -> Self {
        Self { longest_side: 320, kind: SceneKind::Scenes, objects: 3..=9 }
    }
}

/// One object of a scene, as far as it is seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Row of `objects.csv`, from 0.
    pub class: usize,
    /// Tight box of the visible part in pixels; right and bottom exclusive.
    pub bbox: BBox<SourcePx>,
    /// Visible pixels.
    pub area: u32,
    /// Visible share of the part of the silhouette that lies inside the frame, in `0.0..=1.0`.
    pub visible: f32,
}

impl Object {
    /// Pixels of the whole silhouette inside the frame, hidden ones included.
    pub fn full_area(&self) -> f32 {
        if self.area == 0 { 0.0 } else { self.area as f32 / self.visible }
    }
}

/// A picture with everything that is known about it.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Image size.
    pub size: Size<SourcePx>,
    /// u8, row-major `[height, width, 3]`, sRGB.
    pub rgb: Vec<u8>,
    /// From back to front: every object of which at least one pixel is seen; of a clip, all objects in every frame, so
    /// that an index means the same object throughout.
    pub objects: Vec<Object>,
    /// u8, row-major `[height, width]`: 0 background, i + 1 the visible part of `objects[i]`.
    pub instance_map: Vec<u8>,
    /// Of a crop: the index of the object in the middle.
    pub main: Option<usize>,
    pub(crate) split: Split,
    pub(crate) words: [u64; 3],
    pub(crate) lexicon: Arc<Lexicon>,
}

impl Scene {
    /// The visible part of one object.
    pub fn mask(&self, object: usize) -> Mask {
        self.mask_of(&[object])
    }

    /// The visible parts of several objects together.
    pub fn mask_of(&self, objects: &[usize]) -> Mask {
        let mut wanted = [false; 256];
        for &o in objects {
            wanted[o + 1] = true;
        }
        let width = self.size.width as usize;
        Mask::from_fn(self.size, |x, y| wanted[self.instance_map[y as usize * width + x as usize] as usize])
    }

    /// Up to `count` referring expressions with their targets; fewer where the scene offers no more different ones.
    /// The first `k` are the same for every `count >= k`.
    pub fn expressions(&self, count: usize) -> Vec<Expression> {
        expression::generate(self, count, &mut SceneRng::new(&self.words))
    }

    /// Up to `count` expressions that say what is not meant ("the mug, not the red one"), as [`Scene::expressions`].
    /// One in ten or so excludes everything it names, and has no target.
    pub fn exclusions(&self, count: usize) -> Vec<Expression> {
        let [stream, seed, index] = self.words;
        expression::generate_exclusions(self, count, &mut SceneRng::new(&[stream, seed, index, EXCLUSIONS]))
    }

    /// The nouns that name the objects.
    pub fn lexicon(&self) -> &Lexicon {
        &self.lexicon
    }
}

/// Makes the scenes of one split.
#[derive(Debug, Clone)]
pub struct SceneGenerator {
    assets: Assets,
    split: Split,
    seed: u64,
}

/// Keeps the words of exclusions apart from those of other expressions.
const EXCLUSIONS: u64 = 1;

/// Independent streams of randomness of one scene, so that a change to one does not shift the others.
#[derive(Debug, Clone, Copy)]
enum Stream {
    Layout = 1,
    Look = 2,
    Camera = 3,
    Words = 4,
}

impl SceneGenerator {
    /// A generator of the scenes of `split`; another `seed` gives other scenes.
    pub fn new(assets: &Assets, split: Split, seed: u64) -> Self {
        Self { assets: assets.clone(), split, seed }
    }

    /// The assets it draws from.
    pub fn assets(&self) -> &Assets {
        &self.assets
    }

    /// Another one gives other scenes.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Scene `index`: the same bytes on every call, on every thread.
    pub fn scene(&self, index: u64, options: &SceneOptions) -> Scene {
        let salt = [self.split.salt(), self.seed, index, options.kind as u64];
        let stream = |s: Stream| {
            let mut parts = salt.to_vec();
            parts.push(s as u64);
            SceneRng::new(&parts)
        };
        let mut rng = stream(Stream::Layout);
        let (width, height) = frame(options, &mut rng);
        let longest = width.max(height);
        let extent = [width as f32 / longest as f32, height as f32 / longest as f32];
        let layout = match options.kind {
            SceneKind::Scenes => Layout::tabletop(&self.assets, self.split, extent, &options.objects, &mut rng),
            SceneKind::Crops => Layout::crop(&self.assets, extent, &mut rng),
        };
        let mut rng = stream(Stream::Look);
        let background = Background::random(self.split, &mut rng);
        let light = Light::random(&mut rng);
        let tints: Vec<Tint> = layout.items.iter().map(|_| Tint::random(&mut rng)).collect();
        let mut canvas = Canvas::new(width, height, View::plain(longest));
        background.paint(self.assets.textures(), &mut canvas);
        let drawn = compose::draw(&self.assets, &layout, &light, &tints, &mut canvas);
        let mut rng = stream(Stream::Camera);
        let rgb = Camera::random(&mut rng).expose(&mut canvas, &mut rng);
        let truth = ground_truth(&layout, &drawn, &canvas);
        let main = layout.main.map(|m| truth[..m].iter().filter(|o| o.area > 0).count());
        let (objects, instance_map) = only_seen(truth, canvas.map);
        Scene {
            size: Size::new(width, height),
            rgb,
            objects,
            instance_map,
            main,
            split: self.split,
            words: [stream(Stream::Words).bits(), self.seed, index],
            lexicon: Arc::clone(self.assets.lexicon()),
        }
    }
}

/// The image size: 4:3 most often, also 1:1, 16:9 and 3:4; crops are square.
fn frame(options: &SceneOptions, rng: &mut SceneRng) -> (u32, u32) {
    let side = options.longest_side;
    let short = |share: f32| (side as f32 * share + 0.5) as u32;
    match options.kind {
        SceneKind::Crops => (side, side),
        SceneKind::Scenes => match rng.weighted(&[0.55, 0.15, 0.2, 0.1]) {
            0 => (side, short(0.75)),
            1 => (side, side),
            2 => (side, short(0.5625)),
            _ => (short(0.75), side),
        },
    }
}

/// Boxes and areas of the visible parts, one per item; an item of which nothing is seen has an empty box.
pub(crate) fn ground_truth(layout: &Layout, drawn: &[Drawn], canvas: &Canvas) -> Vec<Object> {
    let mut boxes = vec![[u32::MAX, u32::MAX, 0, 0]; drawn.len() + 1];
    let mut areas = vec![0u32; drawn.len() + 1];
    for (y, row) in canvas.map.chunks_exact(canvas.width).enumerate() {
        for (x, &id) in row.iter().enumerate().filter(|&(_, &id)| id != 0) {
            let (x, y, b) = (x as u32, y as u32, &mut boxes[id as usize]);
            *b = [b[0].min(x), b[1].min(y), b[2].max(x + 1), b[3].max(y + 1)];
            areas[id as usize] += 1;
        }
    }
    let objects = layout.items.iter().zip(drawn).enumerate().map(|(i, (item, drawn))| {
        let area = areas[i + 1];
        let b = if area == 0 { [0.0; 4] } else { boxes[i + 1].map(|v| v as f32) };
        let visible = area as f32 / drawn.full.max(1) as f32;
        Object { class: item.class, bbox: BBox::new(b[0], b[1], b[2], b[3]), area, visible }
    });
    objects.collect()
}

/// Drops objects of which nothing is seen and renumbers the instance map.
fn only_seen(objects: Vec<Object>, mut map: Vec<u8>) -> (Vec<Object>, Vec<u8>) {
    if objects.iter().all(|o| o.area > 0) {
        return (objects, map);
    }
    let mut renumber = vec![0u8; objects.len() + 1];
    let mut next = 0;
    for (i, _) in objects.iter().enumerate().filter(|(_, o)| o.area > 0) {
        next += 1;
        renumber[i + 1] = next;
    }
    map.iter_mut().for_each(|id| *id = renumber[*id as usize]);
    (objects.into_iter().filter(|o| o.area > 0).collect(), map)
}

#[cfg(test)]
mod tests {
    use super::super::tests::assets;
    use super::*;

    #[test]
    fn boxes_areas_and_masks_agree() {
        let generator = SceneGenerator::new(assets(), Split::Train, 1);
        for kind in [SceneKind::Scenes, SceneKind::Crops] {
            for index in 0..40 {
                let scene = generator.scene(index, &SceneOptions { longest_side: 128, kind, ..Default::default() });
                assert_eq!(scene.rgb.len(), scene.size.pixels() * 3);
                for (i, object) in scene.objects.iter().enumerate() {
                    let mask = scene.mask(i);
                    assert_eq!(mask.bbox(), Some(object.bbox), "scene {index}, object {i}");
                    assert_eq!(mask.area(), u64::from(object.area), "scene {index}, object {i}");
                    assert!(object.visible > 0.0 && object.visible <= 1.0);
                }
            }
        }
    }

    #[test]
    fn a_crop_knows_its_main_object() {
        let generator = SceneGenerator::new(assets(), Split::Train, 1);
        let options = SceneOptions { longest_side: 64, kind: SceneKind::Crops, ..Default::default() };
        for index in 0..200 {
            let scene = generator.scene(index, &options);
            let main = &scene.objects[scene.main.expect("every crop has one")];
            assert!(main.visible > 0.4, "crop {index}: {}", main.visible);
            let side = main.bbox.width().max(main.bbox.height()) / 64.0;
            assert!((0.2..=1.0).contains(&side), "crop {index}: {side}");
        }
    }

    #[test]
    fn resolution_does_not_change_the_content() {
        let generator = SceneGenerator::new(assets(), Split::Val, 0);
        for index in 0..20 {
            let at = |side| generator.scene(index, &SceneOptions { longest_side: side, ..Default::default() });
            let (small, large) = (at(160), at(480));
            assert_eq!(small.objects.len(), large.objects.len());
            for (a, b) in small.objects.iter().zip(&large.objects) {
                assert_eq!(a.class, b.class);
                assert!((a.bbox.x1 - b.bbox.x1 / 3.0).abs() <= 2.0 && (a.bbox.y2 - b.bbox.y2 / 3.0).abs() <= 2.0);
            }
        }
    }
}
