//! What the objects lie on: a texture of the bank, coloured by a ramp, seen at a random scale and angle.

use super::canvas::Canvas;
use super::rng::{SceneRng, sin_cos_turns};
use super::split::Split;
use super::texture::{Pattern, SIDE};

pub(crate) use super::texture::Textures;

type Rgb = [f32; 3];

/// A family of backgrounds: patterns and the palettes they come in.
struct Material {
    patterns: &'static [Pattern],
    /// Dark and light end of the ramp, sRGB 0..=255.
    palettes: &'static [(Rgb, Rgb)],
    /// Share of the ramp that the texture spans.
    contrast: (f32, f32),
    /// Texels per longest image side.
    texels: (f32, f32),
}

const TRAINED: [Material; 5] = [
    Material {
        patterns: &[Pattern::WoodFine, Pattern::WoodRings, Pattern::Planks],
        palettes: &[
            ([92.0, 58.0, 34.0], [178.0, 128.0, 84.0]),
            ([140.0, 104.0, 70.0], [214.0, 180.0, 138.0]),
            ([176.0, 150.0, 118.0], [236.0, 218.0, 190.0]),
            ([46.0, 32.0, 24.0], [108.0, 78.0, 58.0]),
            ([120.0, 112.0, 104.0], [190.0, 182.0, 172.0]),
        ],
        contrast: (0.45, 1.0),
        texels: (180.0, 460.0),
    },
    Material {
        patterns: &[Pattern::Marble, Pattern::Granite, Pattern::Clouds],
        palettes: &[
            ([150.0, 150.0, 154.0], [242.0, 242.0, 244.0]),
            ([60.0, 62.0, 68.0], [132.0, 134.0, 140.0]),
            ([150.0, 134.0, 114.0], [226.0, 214.0, 196.0]),
            ([34.0, 36.0, 42.0], [96.0, 98.0, 106.0]),
        ],
        contrast: (0.4, 1.0),
        texels: (160.0, 420.0),
    },
    Material {
        patterns: &[Pattern::Weave, Pattern::Twill, Pattern::Clouds],
        palettes: &[
            ([150.0, 40.0, 44.0], [206.0, 96.0, 96.0]),
            ([40.0, 62.0, 112.0], [98.0, 126.0, 178.0]),
            ([60.0, 96.0, 66.0], [128.0, 160.0, 128.0]),
            ([176.0, 166.0, 146.0], [232.0, 226.0, 210.0]),
            ([104.0, 70.0, 120.0], [166.0, 134.0, 180.0]),
            ([196.0, 156.0, 70.0], [238.0, 210.0, 140.0]),
            ([84.0, 86.0, 92.0], [150.0, 152.0, 158.0]),
            ([204.0, 204.0, 208.0], [246.0, 246.0, 248.0]),
        ],
        contrast: (0.35, 0.9),
        texels: (200.0, 520.0),
    },
    Material {
        patterns: &[Pattern::Fibres, Pattern::Grain, Pattern::Clouds],
        palettes: &[
            ([214.0, 210.0, 202.0], [252.0, 250.0, 246.0]),
            ([178.0, 150.0, 112.0], [214.0, 190.0, 152.0]),
            ([226.0, 214.0, 184.0], [250.0, 242.0, 220.0]),
            ([150.0, 178.0, 196.0], [196.0, 218.0, 230.0]),
        ],
        contrast: (0.2, 0.7),
        texels: (160.0, 500.0),
    },
    Material {
        patterns: &[Pattern::Clouds, Pattern::Grain],
        palettes: &[
            ([70.0, 96.0, 130.0], [200.0, 216.0, 232.0]),
            ([120.0, 84.0, 70.0], [236.0, 206.0, 178.0]),
            ([54.0, 60.0, 66.0], [176.0, 182.0, 188.0]),
            ([86.0, 118.0, 92.0], [206.0, 224.0, 200.0]),
            ([150.0, 110.0, 140.0], [236.0, 216.0, 232.0]),
            ([190.0, 190.0, 194.0], [250.0, 250.0, 252.0]),
        ],
        contrast: (0.05, 0.2),
        texels: (120.0, 400.0),
    },
];

/// Held-out looks: known materials in palettes never trained on, and four patterns of their own.
const HELD_OUT: [Material; 5] = [
    Material {
        patterns: &[Pattern::WoodFine, Pattern::WoodRings, Pattern::Planks],
        palettes: &[([112.0, 46.0, 30.0], [186.0, 100.0, 70.0]), ([150.0, 128.0, 78.0], [222.0, 204.0, 150.0])],
        contrast: (0.45, 1.0),
        texels: (180.0, 460.0),
    },
    Material {
        patterns: &[Pattern::Terrazzo, Pattern::Marble, Pattern::Granite],
        palettes: &[
            ([92.0, 116.0, 106.0], [190.0, 206.0, 196.0]),
            ([134.0, 110.0, 106.0], [226.0, 204.0, 198.0]),
            ([112.0, 118.0, 128.0], [220.0, 224.0, 232.0]),
        ],
        contrast: (0.4, 1.0),
        texels: (200.0, 420.0),
    },
    Material {
        patterns: &[Pattern::Gingham, Pattern::Weave, Pattern::Twill],
        palettes: &[
            ([58.0, 124.0, 128.0], [150.0, 198.0, 200.0]),
            ([196.0, 120.0, 130.0], [244.0, 204.0, 208.0]),
            ([110.0, 116.0, 70.0], [190.0, 194.0, 150.0]),
        ],
        contrast: (0.35, 0.9),
        texels: (200.0, 520.0),
    },
    Material {
        patterns: &[Pattern::Ruled, Pattern::Fibres, Pattern::Cork],
        palettes: &[
            ([186.0, 196.0, 178.0], [240.0, 246.0, 234.0]),
            ([164.0, 124.0, 84.0], [216.0, 176.0, 130.0]),
            ([214.0, 196.0, 200.0], [250.0, 238.0, 240.0]),
        ],
        contrast: (0.3, 0.8),
        texels: (200.0, 500.0),
    },
    Material {
        patterns: &[Pattern::Clouds, Pattern::Grain],
        palettes: &[
            ([52.0, 104.0, 110.0], [190.0, 222.0, 222.0]),
            ([130.0, 122.0, 74.0], [232.0, 228.0, 190.0]),
            ([104.0, 92.0, 128.0], [220.0, 212.0, 236.0]),
        ],
        contrast: (0.05, 0.2),
        texels: (120.0, 400.0),
    },
];

/// A background, ready to be painted at any resolution.
#[derive(Debug, Clone)]
pub(crate) struct Background {
    base: Layer,
    detail: Layer,
    /// Mean of the ramp index and how it changes from one image side to the other; all in `0.0..=255.0`.
    offset: f32,
    slope: [f32; 2],
    ramp: Box<[Rgb; 256]>,
    /// How much faster the texture runs at the top, as on a table that is seen at an angle.
    tilt: f32,
}

#[derive(Debug, Clone)]
struct Layer {
    pattern: Pattern,
    weight: f32,
    origin: [f32; 2],
    /// Texels per unit (longest image side) along x and y.
    step: [f32; 2],
}

impl Layer {
    fn new(pattern: Pattern, weight: f32, texels: f32, turns: f32, rng: &mut SceneRng) -> Self {
        let (s, c) = sin_cos_turns(turns);
        // Far from zero, so that no coordinate is negative and truncation is a floor.
        let mut origin = || 16.0 * SIDE as f32 + rng.range(0.0, SIDE as f32);
        Self { pattern, weight, origin: [origin(), origin()], step: [c * texels, s * texels] }
    }
}

impl Background {
    /// Draws a background of the looks that `split` may use.
    pub fn random(split: Split, rng: &mut SceneRng) -> Self {
        let materials = if split.held_out() { &HELD_OUT } else { &TRAINED };
        let material = rng.pick(materials);
        let pattern = *rng.pick(material.patterns);
        let (mut dark, mut light) = *rng.pick(material.palettes);
        for (d, l) in dark.iter_mut().zip(&mut light) {
            let shift = rng.spread(12.0);
            *d = (*d + shift).clamp(0.0, 255.0);
            *l = (*l + shift + rng.spread(8.0)).clamp(0.0, 255.0);
        }
        let contrast = rng.range(material.contrast.0, material.contrast.1);
        let turns = if rng.chance(0.6) { rng.spread(0.03) + 0.25 * rng.below(2) as f32 } else { rng.unit() };
        let texels = rng.range(material.texels.0, material.texels.1);
        let fine = rng.range(0.03, 0.16);
        let (finer, fine_turns) = (rng.range(260.0, 620.0), rng.unit());
        let room = 255.0 * (1.0 - contrast).max(0.1) * rng.range(0.2, 0.9);
        let (s, c) = sin_cos_turns(rng.unit());
        Self {
            base: Layer::new(pattern, contrast, texels, turns, rng),
            detail: Layer::new(Pattern::Grain, fine, finer, fine_turns, rng),
            offset: 127.5 * (1.0 - contrast - fine) - room / 2.0 * (s + c) * 0.5,
            slope: [c * room, s * room],
            ramp: ramp(dark, light, rng),
            tilt: if rng.chance(0.5) { rng.range(0.0, 0.7) } else { 0.0 },
        }
    }

    /// Paints every pixel of `canvas` as its view shows the surface.
    pub fn paint(&self, textures: &Textures, canvas: &mut Canvas) {
        let view = canvas.view();
        let (base, detail) = (textures.get(self.base.pattern), textures.get(self.detail.pattern));
        for y in 0..canvas.height {
            let [x0, v] = view.to_scene(0.5, y as f32 + 0.5);
            let [x1, v1] = view.to_scene(1.5, y as f32 + 0.5);
            let (dx, dv) = (x1 - x0, v1 - v);
            let stretch = 1.0 + self.tilt * (0.6 - v).max(0.0);
            let start = |l: &Layer| {
                let (px, py) = ((x0 - 0.5) * stretch, v * stretch);
                [
                    l.origin[0] + px * l.step[0] - py * l.step[1],
                    l.origin[1] + px * l.step[1] + py * l.step[0],
                    (dx * l.step[0] - dv * l.step[1]) * stretch,
                    (dx * l.step[1] + dv * l.step[0]) * stretch,
                ]
            };
            let (b, d) = (start(&self.base), start(&self.detail));
            let (bw, dw) = (self.base.weight, self.detail.weight);
            let (level, rise) =
                (self.offset + self.slope[0] * x0 + self.slope[1] * v, self.slope[0] * dx + self.slope[1] * dv);
            for (x, out) in canvas.row_mut(y).chunks_exact_mut(3).enumerate() {
                let t = x as f32;
                let value = bw * base.sample(b[0] + t * b[2], b[1] + t * b[3])
                    + dw * detail.sample(d[0] + t * d[2], d[1] + t * d[3])
                    + level
                    + t * rise;
                out.copy_from_slice(&self.ramp[value.clamp(0.0, 255.0) as usize]);
            }
        }
    }
}

/// Colours from `dark` to `light`, bent a little in the middle so that not every ramp is a straight line.
fn ramp(dark: Rgb, light: Rgb, rng: &mut SceneRng) -> Box<[Rgb; 256]> {
    let bend: Rgb = std::array::from_fn(|_| rng.spread(14.0));
    Box::new(std::array::from_fn(|i| {
        let t = i as f32 / 255.0;
        std::array::from_fn(|c| (dark[c] + (light[c] - dark[c]) * t + bend[c] * 4.0 * t * (1.0 - t)).clamp(0.0, 255.0))
    }))
}
