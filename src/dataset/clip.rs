//! A short film: the camera drifts over a tabletop, one or two objects move, and everything is known in every frame.

mod story;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::DatasetError;
use super::assets::Assets;
use super::background::Background;
use super::canvas::{Canvas, View};
use super::compose::{self, Light, Tint};
use super::degrade::Camera;
use super::expression::{Builder, Draft, Expression, ExpressionType, World};
use super::layout::Layout;
use super::render::{PictureFormat, segmentation, write_json};
use super::rng::{SceneRng, sin_cos_turns};
use super::scene::{Object, Scene, ground_truth};
use super::split::Split;
use crate::geometry::{Size, SourcePx};

pub use story::{Story, StoryClip};

/// Longest side at which the truth of all frames is worked out before any frame is rendered.
const SCOUT_SIDE: u32 = 192;
/// Layouts that are tried until one has a command of each needed type that stays true.
const LAYOUTS: u64 = 64;
/// A target shows at least this share of its silhouette, and of its greatest visible area, in every frame.
const TARGET_VISIBLE: f32 = 0.4;

/// A command that a clip should offer.
struct Wanted {
    kinds: &'static [ExpressionType],
    near_miss: bool,
    /// By noun and colour alone.
    plain: bool,
    /// Whether a layout without it is turned down.
    needed: bool,
}

const WANTED: [Wanted; 7] = {
    use ExpressionType as T;
    const fn wanted(kinds: &'static [T], near_miss: bool, plain: bool, needed: bool) -> Wanted {
        Wanted { kinds, near_miss, plain, needed }
    }
    [
        wanted(&[T::Name, T::Colour], false, true, true),
        wanted(&[T::Relation], false, false, true),
        wanted(&[T::None], false, true, true),
        wanted(&[T::Size, T::Position, T::Ordinal], false, false, false),
        wanted(&[T::Several], false, false, false),
        wanted(&[T::None], true, false, false),
        wanted(&[T::Name, T::Colour, T::Kind], false, false, false),
    ]
};

/// What a clip shows.
#[derive(Debug, Clone)]
pub struct ClipOptions {
    /// Another seed gives another clip.
    pub seed: u64,
    /// Number of frames. Default: 60. Range: 1..=100,000.
    pub frames: usize,
    /// Frame size in pixels. Default: 640 × 480. Range per side: 16..=2048.
    pub size: (u32, u32),
    /// Whose backgrounds and templates are used. Default: val.
    pub split: Split,
}

impl Default for ClipOptions {
    fn default() -> Self {
        Self { seed: 0, frames: 60, size: (640, 480), split: Split::Val }
    }
}

/// A film that renders any of its frames.
#[derive(Debug, Clone)]
pub struct Clip {
    assets: Assets,
    options: ClipOptions,
    layout: Layout,
    movers: Vec<Mover>,
    path: CameraPath,
    background: Background,
    light: Light,
    tints: Vec<Tint>,
    camera: Camera,
    commands: Vec<Expression>,
}

/// A smooth motion of one object from where it lies to somewhere else.
#[derive(Debug, Clone)]
struct Mover {
    item: usize,
    /// In units of the longest image side.
    by: [f32; 2],
    turns: f32,
    /// Part of the clip, `0.0..=1.0`, in which it moves.
    during: (f32, f32),
}

/// A smooth hand-held drift.
#[derive(Debug, Clone)]
struct CameraPath {
    pan: [f32; 2],
    zoom: f32,
    roll: f32,
    phase: [f32; 4],
}

impl CameraPath {
    fn random(rng: &mut SceneRng) -> Self {
        Self {
            pan: [rng.range(0.015, 0.045), rng.range(0.01, 0.035)],
            zoom: rng.range(0.02, 0.06),
            roll: rng.range(0.002, 0.01),
            phase: [rng.unit(), rng.unit(), rng.unit(), rng.unit()],
        }
    }

    /// The view at time `t` in `0.0..=1.0` of a frame of `size` pixels.
    fn view(&self, t: f32, size: (u32, u32)) -> View {
        let longest = size.0.max(size.1) as f32;
        let wave = |speed: f32, phase: f32| sin_cos_turns(speed * t + phase).0;
        let middle = [size.0 as f32 / longest / 2.0, size.1 as f32 / longest / 2.0];
        let at =
            [middle[0] + self.pan[0] * wave(0.9, self.phase[0]), middle[1] + self.pan[1] * wave(0.7, self.phase[1])];
        let pixels = longest * (1.0 + self.zoom * wave(0.6, self.phase[2]));
        View::camera(size, at, pixels, self.roll * wave(0.8, self.phase[3]))
    }
}

impl Clip {
    /// A clip whose [`Clip::commands`] hold in every frame.
    pub fn new(assets: &Assets, options: ClipOptions) -> Self {
        let mut best: Option<Self> = None;
        for attempt in 0..LAYOUTS {
            let mut clip = Self::draw(assets, options.clone(), attempt);
            if clip.find_commands(attempt) {
                return clip;
            }
            if best.as_ref().is_none_or(|b| clip.commands.len() > b.commands.len()) {
                best = Some(clip);
            }
        }
        best.expect("at least one layout was tried")
    }

    fn draw(assets: &Assets, options: ClipOptions, attempt: u64) -> Self {
        let mut rng = SceneRng::new(&[0x636c_6970, options.split.salt(), options.seed, attempt]);
        let longest = options.size.0.max(options.size.1) as f32;
        let extent = [options.size.0 as f32 / longest, options.size.1 as f32 / longest];
        let layout = inset(assets, &options, extent, &mut rng);
        let movers = movers(&layout, extent, &mut rng);
        Self {
            assets: assets.clone(),
            path: CameraPath::random(&mut rng),
            background: Background::random(options.split, &mut rng),
            light: Light::random(&mut rng),
            tints: layout.items.iter().map(|_| Tint::random(&mut rng)).collect(),
            camera: Camera::random(&mut rng).without_jpeg(),
            commands: Vec::new(),
            movers,
            layout,
            options,
        }
    }

    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.options.frames
    }

    /// Frame size in pixels.
    pub fn size(&self) -> Size<SourcePx> {
        Size::new(self.options.size.0, self.options.size.1)
    }

    /// Commands that are true in every frame: the first three are a name or colour, a relation and an absent object.
    /// Their targets index [`Scene::objects`] of any frame.
    pub fn commands(&self) -> Vec<Expression> {
        self.commands.clone()
    }

    /// Renders frame `index`. Its objects are the same in every frame, in the same order; one that is hidden has an
    /// empty box.
    pub fn frame(&self, index: usize) -> Scene {
        let (width, height) = self.options.size;
        let layout = self.layout_at(self.time(index));
        let mut canvas = Canvas::new(width, height, self.path.view(self.time(index), self.options.size));
        self.background.paint(self.assets.textures(), &mut canvas);
        let drawn = compose::draw(&self.assets, &layout, &self.light, &self.tints, &mut canvas);
        let mut rng = SceneRng::new(&[0x6672_616d, self.options.seed, index as u64]);
        let rgb = self.camera.expose(&mut canvas, &mut rng);
        Scene {
            size: Size::new(width, height),
            rgb,
            objects: ground_truth(&layout, &drawn, &canvas),
            instance_map: canvas.map,
            main: None,
            split: self.options.split,
            words: [rng.bits(), self.options.seed, index as u64],
            lexicon: Arc::clone(self.assets.lexicon()),
        }
    }

    fn time(&self, index: usize) -> f32 {
        index as f32 / (self.options.frames.max(2) - 1) as f32
    }

    fn layout_at(&self, t: f32) -> Layout {
        let mut layout = self.layout.clone();
        for mover in &self.movers {
            let (from, to) = mover.during;
            let s = ((t - from) / (to - from)).clamp(0.0, 1.0);
            let s = s * s * (3.0 - 2.0 * s);
            let pose = &mut layout.items[mover.item].pose;
            pose.centre = [pose.centre[0] + s * mover.by[0], pose.centre[1] + s * mover.by[1]];
            pose.turn(s * mover.turns);
        }
        layout
    }

    /// The objects of those frames as they are seen at a small size.
    fn scout(&self, frames: impl Iterator<Item = usize>) -> (Size<SourcePx>, Vec<Vec<Object>>) {
        let (w, h) = self.options.size;
        let longest = w.max(h);
        let side = |s: u32| (s * SCOUT_SIDE / longest).max(1);
        let size = (side(w), side(h));
        let frames = frames.map(|i| {
            let layout = self.layout_at(self.time(i));
            let mut canvas = Canvas::new(size.0, size.1, self.path.view(self.time(i), size));
            let drawn = compose::draw(&self.assets, &layout, &self.light, &self.tints, &mut canvas);
            ground_truth(&layout, &drawn, &canvas)
        });
        (Size::new(size.0, size.1), frames.collect())
    }

    /// Finds commands that hold throughout; true where there is one of each needed type.
    fn find_commands(&mut self, attempt: u64) -> bool {
        let (size, frames) = self.scout(0..self.options.frames);
        let lexicon = self.assets.lexicon();
        let worlds: Vec<World> = frames.iter().map(|objects| World::new(objects, size, lexicon)).collect();
        let steady = |object: usize| {
            let greatest = frames.iter().map(|f| f[object].area).max().unwrap_or(0) as f32;
            frames
                .iter()
                .all(|f| f[object].visible >= TARGET_VISIBLE && f[object].area as f32 >= TARGET_VISIBLE * greatest)
        };
        let holds = |draft: &Draft| {
            draft.targets.iter().all(|&t| steady(t)) && worlds.iter().all(|w| w.resolve(&draft.query) == draft.answer())
        };
        let mut rng = SceneRng::new(&[0x636d_6473, self.options.seed, attempt]);
        let Some(first) = frames.first() else { return false };
        let builder = Builder::new(first, size, lexicon, self.options.split);
        let mut find = |wanted: &Wanted, taken: &[Expression]| {
            (0..80).find_map(|_| {
                let kind = *rng.pick(wanted.kinds);
                let fits = |d: &Draft| d.near_miss == wanted.near_miss && (!wanted.plain || d.is_plain()) && holds(d);
                let draft = builder.draft(kind, &mut rng).filter(fits)?;
                let fresh = |t: &Expression| t.targets != draft.targets || draft.targets.is_empty();
                taken.iter().all(fresh).then_some(())?;
                builder.word(&draft, &mut rng).filter(|e| taken.iter().all(|t| t.text != e.text))
            })
        };
        let mut commands = Vec::new();
        for wanted in &WANTED {
            commands.extend(find(wanted, &commands));
            if wanted.needed && commands.last().is_none_or(|c: &Expression| !wanted.kinds.contains(&c.kind)) {
                self.commands = commands;
                return false;
            }
        }
        self.commands = commands;
        true
    }

    /// Writes `frames/` (JPEG) and `clip.json` (truth per frame, commands) below `out`; `progress` is called after
    /// every frame.
    ///
    /// # Errors
    /// [`DatasetError`] where a file cannot be written.
    pub fn write(&self, out: &Path, mut progress: impl FnMut()) -> Result<(), DatasetError> {
        let folder = out.join("frames");
        fs::create_dir_all(&folder).map_err(|e| DatasetError::io(&folder, e))?;
        let mut frames = Vec::with_capacity(self.frames());
        for index in 0..self.frames() {
            let scene = self.frame(index);
            let file = PictureFormat::Jpeg.write(&scene, &folder.join(format!("{index:06}")))?;
            let objects: Vec<Value> = (0..scene.objects.len()).map(|o| self.object(&scene, o)).collect();
            frames.push(json!({"file_name": file, "objects": objects}));
            progress();
        }
        let commands: Vec<Value> = self
            .commands
            .iter()
            .map(|c| json!({"type": c.kind.word(), "text": c.text, "targets": c.targets, "near_miss": c.near_miss}))
            .collect();
        let (width, height) = self.options.size;
        let truth = json!({"width": width, "height": height, "seed": self.options.seed, "commands": commands, "frames": frames});
        write_json(&out.join("clip.json"), &truth)
    }

    fn object(&self, scene: &Scene, id: usize) -> Value {
        let o = &scene.objects[id];
        json!({
            "id": id, "class": o.class, "name": self.assets.classes()[o.class].name,
            "bbox": [o.bbox.x1, o.bbox.y1, o.bbox.width(), o.bbox.height()],
            "area": o.area, "visible": o.visible, "segmentation": segmentation(&scene.mask(id)),
        })
    }
}

/// A layout that keeps clear of the frame's border, so that the drifting camera loses nothing.
fn inset(assets: &Assets, options: &ClipOptions, extent: [f32; 2], rng: &mut SceneRng) -> Layout {
    const SHARE: f32 = 0.84;
    let mut layout = Layout::tabletop(assets, options.split, extent, &(4..=7), rng);
    for item in &mut layout.items {
        item.pose.centre = std::array::from_fn(|a| extent[a] / 2.0 + (item.pose.centre[a] - extent[a] / 2.0) * SHARE);
        item.pose.scale(SHARE * 1.1);
    }
    layout
}

/// One or two motions towards another part of the table.
fn movers(layout: &Layout, extent: [f32; 2], rng: &mut SceneRng) -> Vec<Mover> {
    let mut items: Vec<usize> = (0..layout.items.len()).collect();
    rng.shuffle(&mut items);
    items.truncate(rng.between(1, 2));
    let motion = |item: usize| {
        let from = layout.items[item].pose.centre;
        let length = rng.range(0.14, 0.32);
        // Away from the nearest border, a quarter turn at most to either side.
        let inward = [extent[0] / 2.0 - from[0], extent[1] / 2.0 - from[1]];
        let norm = (inward[0] * inward[0] + inward[1] * inward[1]).sqrt().max(0.05);
        let (s, c) = sin_cos_turns(rng.spread(0.22));
        let by = [(inward[0] * c - inward[1] * s) / norm * length, (inward[0] * s + inward[1] * c) / norm * length];
        let start = rng.range(0.05, 0.35);
        Mover { item, by, turns: rng.spread(30.0) / 360.0, during: (start, start + rng.range(0.35, 0.6)) }
    };
    items.into_iter().map(motion).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::assets;
    use super::*;

    #[test]
    fn commands_hold_in_every_frame() {
        for seed in 1..=20 {
            let options = ClipOptions { seed, frames: 24, size: (320, 240), ..ClipOptions::default() };
            let clip = Clip::new(assets(), options);
            let commands = clip.commands();
            let kinds: Vec<_> = commands.iter().map(|c| c.kind).collect();
            assert!(matches!(kinds[0], ExpressionType::Name | ExpressionType::Colour), "seed {seed}: {kinds:?}");
            assert_eq!(kinds[1..3], [ExpressionType::Relation, ExpressionType::None], "seed {seed}");
            for index in 0..clip.frames() {
                let scene = clip.frame(index);
                for command in &commands {
                    for &t in &command.targets {
                        let seen = scene.objects[t].visible;
                        assert!(seen >= TARGET_VISIBLE - 0.05, "seed {seed}, frame {index}, {}: {seen}", command.text);
                    }
                }
            }
        }
    }

    #[test]
    fn something_moves() {
        let clip = Clip::new(assets(), ClipOptions { seed: 3, frames: 10, ..ClipOptions::default() });
        let (first, last) = (clip.frame(0), clip.frame(9));
        assert_eq!(first.objects.len(), last.objects.len());
        let shift = |i: usize| {
            let (a, b) = (first.objects[i].bbox.centre(), last.objects[i].bbox.centre());
            (a.x - b.x).abs().max((a.y - b.y).abs())
        };
        assert!((0..first.objects.len()).any(|i| shift(i) > 50.0), "an object crosses a part of the frame");
        assert_eq!(clip.frame(4).rgb, clip.frame(4).rgb, "a frame is the same on every call");
    }
}
