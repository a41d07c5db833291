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
        self.area as f32 / self.visible
    }
}

/// A picture with everything that is known about it.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Image size.
    pub size: Size<SourcePx>,
    /// u8, row-major `[height, width, 3]`, sRGB.
    pub rgb: Vec<u8>,
    /// Every object of which at least one pixel is seen, from back to front.
    pub objects: Vec<Object>,
    /// u8, row-major `[height, width]`: 0 background, i + 1 the visible part of `objects[i]`.
    pub instance_map: Vec<u8>,
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
        let (objects, instance_map) = ground_truth(&layout, &drawn, canvas);
        Scene {
            size: Size::new(width, height),
            rgb,
            objects,
            instance_map,
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

/// Boxes and areas of the visible parts; objects of which nothing is seen are dropped from both lists.
pub(crate) fn ground_truth(layout: &Layout, drawn: &[Drawn], canvas: Canvas) -> (Vec<Object>, Vec<u8>) {
    let mut boxes = vec![[u32::MAX, u32::MAX, 0, 0]; drawn.len() + 1];
    let mut areas = vec![0u32; drawn.len() + 1];
    let Canvas { width, mut map, .. } = canvas;
    for (y, row) in map.chunks_exact(width).enumerate() {
        for (x, &id) in row.iter().enumerate().filter(|&(_, &id)| id != 0) {
            let (x, y, b) = (x as u32, y as u32, &mut boxes[id as usize]);
            *b = [b[0].min(x), b[1].min(y), b[2].max(x + 1), b[3].max(y + 1)];
            areas[id as usize] += 1;
        }
    }
    let mut renumber = vec![0u8; drawn.len() + 1];
    let mut objects = Vec::with_capacity(drawn.len());
    for (i, (item, d)) in layout.items.iter().zip(drawn).enumerate().filter(|&(i, _)| areas[i + 1] > 0) {
        let b = boxes[i + 1].map(|v| v as f32);
        objects.push(Object {
            class: item.class,
            bbox: BBox::new(b[0], b[1], b[2], b[3]),
            area: areas[i + 1],
            visible: areas[i + 1] as f32 / d.full as f32,
        });
        renumber[i + 1] = objects.len() as u8;
    }
    if objects.len() < drawn.len() {
        map.iter_mut().for_each(|id| *id = renumber[*id as usize]);
    }
    (objects, map)
}
