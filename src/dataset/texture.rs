//! Tileable grey textures, computed once: the grain of wood, the veins of stone, the weave of cloth.

use super::rng::SceneRng;

/// Side of every texture in texels; a power of two.
pub(crate) const SIDE: usize = 512;
const MASK: i32 = SIDE as i32 - 1;

/// One tileable texture: u8, row-major `SIDE * SIDE`, mean near 128.
#[derive(Debug)]
pub(crate) struct Texture(Vec<u8>);

impl Texture {
    /// Bilinear sample at (`u`, `v`) in texels, wrapping; `0.0..=255.0`.
    #[inline(always)]
    pub fn sample(&self, u: f32, v: f32) -> f32 {
        // Eight bits of fraction are plenty, and integers wrap for free.
        let (iu, iv) = ((u * 256.0) as i32, (v * 256.0) as i32);
        let (fu, fv) = ((iu & 255) as f32 * (1.0 / 256.0), (iv & 255) as f32 * (1.0 / 256.0));
        let (x0, y0) = ((iu >> 8) & MASK, (iv >> 8) & MASK);
        let (x1, y1) = ((x0 + 1) & MASK, (y0 + 1) & MASK);
        let t = &self.0[..SIDE * SIDE];
        let at = |x: i32, y: i32| f32::from(t[(y as usize & (SIDE - 1)) * SIDE + (x as usize & (SIDE - 1))]);
        let top = at(x0, y0) + (at(x1, y0) - at(x0, y0)) * fu;
        let bottom = at(x0, y1) + (at(x1, y1) - at(x0, y1)) * fu;
        top + (bottom - top) * fv
    }

    /// Stretches `field` so that its 2nd and 98th percentile become 0 and 255.
    fn from_field(field: &[f32]) -> Self {
        let mut sorted: Vec<f32> = field.iter().step_by(7).copied().collect();
        sorted.sort_unstable_by(f32::total_cmp);
        let (lo, hi) = (sorted[sorted.len() / 50], sorted[sorted.len() - 1 - sorted.len() / 50]);
        let scale = 255.0 / (hi - lo).max(1e-6);
        Self(field.iter().map(|&v| ((v - lo) * scale).clamp(0.0, 255.0) as u8).collect())
    }

    fn from_fn(f: impl Fn(usize, usize) -> f32) -> Self {
        let field: Vec<f32> = (0..SIDE * SIDE).map(|i| f(i % SIDE, i / SIDE)).collect();
        Self::from_field(&field)
    }
}

/// Tileable value noise: a lattice of `px * py` random values per tile, smoothly interpolated, in `0.0..1.0`.
fn add_noise(field: &mut [f32], (px, py): (usize, usize), weight: f32, rng: &mut SceneRng) {
    let lattice: Vec<f32> = (0..px * py).map(|_| rng.unit()).collect();
    let smooth = |i: usize, p: usize| {
        let t = i as f32 * p as f32 / SIDE as f32;
        let (cell, f) = (t as usize, t - t.floor());
        (cell % p, (cell + 1) % p, f * f * (3.0 - 2.0 * f))
    };
    let columns: Vec<_> = (0..SIDE).map(|x| smooth(x, px)).collect();
    for (y, row) in field.chunks_exact_mut(SIDE).enumerate() {
        let (y0, y1, fy) = smooth(y, py);
        for (out, &(x0, x1, fx)) in row.iter_mut().zip(&columns) {
            let top = lattice[y0 * px + x0] * (1.0 - fx) + lattice[y0 * px + x1] * fx;
            let bottom = lattice[y1 * px + x0] * (1.0 - fx) + lattice[y1 * px + x1] * fx;
            *out += weight * (top * (1.0 - fy) + bottom * fy);
        }
    }
}

/// Fractal noise from `first` lattice cells per tile on, doubling per octave.
fn fractal(first: (usize, usize), octaves: u32, gain: f32, rng: &mut SceneRng) -> Vec<f32> {
    let mut field = vec![0.0; SIDE * SIDE];
    let mut weight = 1.0;
    for octave in 0..octaves {
        let cells = |p: usize| (p << octave).min(SIDE);
        add_noise(&mut field, (cells(first.0), cells(first.1)), weight, rng);
        weight *= gain;
    }
    field
}

/// A triangle wave of period 1 in `0.0..=1.0`.
fn triangle(t: f32) -> f32 {
    let f = t - t.floor();
    1.0 - (2.0 * f - 1.0).abs()
}

/// What a texture looks like. The last four are kept for [`super::Split::Test`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    Clouds,
    Grain,
    WoodFine,
    WoodRings,
    Planks,
    Marble,
    Granite,
    Weave,
    Twill,
    Fibres,
    Terrazzo,
    Gingham,
    Cork,
    Ruled,
}

const PATTERNS: [Pattern; 14] = [
    Pattern::Clouds,
    Pattern::Grain,
    Pattern::WoodFine,
    Pattern::WoodRings,
    Pattern::Planks,
    Pattern::Marble,
    Pattern::Granite,
    Pattern::Weave,
    Pattern::Twill,
    Pattern::Fibres,
    Pattern::Terrazzo,
    Pattern::Gingham,
    Pattern::Cork,
    Pattern::Ruled,
];

/// The bank of textures.
#[derive(Debug)]
pub(crate) struct Textures(Vec<Texture>);

impl Textures {
    /// Computes every texture (about 0.3 s).
    pub fn new() -> Self {
        Self(PATTERNS.iter().map(|&p| build(p, &mut SceneRng::new(&[0x7465_7874, p as u64]))).collect())
    }

    /// The texture of a pattern.
    pub fn get(&self, pattern: Pattern) -> &Texture {
        &self.0[pattern as usize]
    }
}

fn build(pattern: Pattern, rng: &mut SceneRng) -> Texture {
    match pattern {
        Pattern::Clouds => Texture::from_field(&fractal((4, 4), 6, 0.55, rng)),
        Pattern::Grain => Texture::from_field(&fractal((96, 96), 3, 0.8, rng)),
        Pattern::WoodFine => wood(rng, 6.0, 0.35),
        Pattern::WoodRings => wood(rng, 11.0, 1.0),
        Pattern::Planks => planks(rng),
        Pattern::Marble => marble(rng),
        Pattern::Granite => granite(rng),
        Pattern::Weave => weave(rng),
        Pattern::Twill => twill(rng),
        Pattern::Fibres => fibres(rng),
        Pattern::Terrazzo => terrazzo(rng),
        Pattern::Gingham => gingham(rng),
        Pattern::Cork => cork(rng),
        Pattern::Ruled => ruled(rng),
    }
}

fn wood(rng: &mut SceneRng, rings: f32, contrast: f32) -> Texture {
    let bend = fractal((2, 4), 3, 0.5, rng);
    let streaks = fractal((4, 64), 3, 0.7, rng);
    Texture::from_fn(|x, y| {
        let i = y * SIDE + x;
        let ring = triangle(y as f32 / SIDE as f32 * rings.floor() + bend[i] * 2.2);
        contrast * ring * ring + 0.75 * streaks[i]
    })
}

fn planks(rng: &mut SceneRng) -> Texture {
    let streaks = fractal((3, 80), 3, 0.7, rng);
    let bend = fractal((2, 5), 2, 0.5, rng);
    let tone: Vec<f32> = (0..8).map(|_| rng.unit()).collect();
    let shift: Vec<usize> = (0..8).map(|_| rng.below(SIDE)).collect();
    let seam: Vec<usize> = (0..8).map(|_| rng.below(SIDE)).collect();
    Texture::from_fn(|x, y| {
        let (plank, within) = (y / 64, y % 64);
        let sx = (x + shift[plank]) % SIDE;
        let i = y * SIDE + sx;
        let edge = within < 2 || (x + SIDE - seam[plank]) % SIDE < 2;
        let grain = 0.5 * streaks[i] + 0.35 * triangle(within as f32 / 23.0 + bend[i] * 2.0) + 0.5 * tone[plank];
        if edge { grain - 0.8 } else { grain }
    })
}

fn marble(rng: &mut SceneRng) -> Texture {
    let (a, b) = (fractal((3, 3), 6, 0.5, rng), fractal((5, 5), 5, 0.5, rng));
    Texture::from_fn(|x, y| {
        let i = y * SIDE + x;
        let vein = 1.0 - (a[i] - 0.98).abs() * 5.0;
        0.6 * b[i] - vein.max(0.0) * 0.8
    })
}

fn granite(rng: &mut SceneRng) -> Texture {
    let (a, b, c) = (fractal((40, 40), 3, 0.8, rng), fractal((70, 70), 3, 0.8, rng), fractal((4, 4), 3, 0.5, rng));
    Texture::from_fn(|x, y| {
        let i = y * SIDE + x;
        let dark = if a[i] > 1.45 { -0.6 } else { 0.0 };
        let light = if b[i] > 1.5 { 0.5 } else { 0.0 };
        dark + light + 0.3 * c[i] + 0.25 * a[i]
    })
}

fn weave(rng: &mut SceneRng) -> Texture {
    let (slub_x, slub_y) = (fractal((8, 64), 2, 0.6, rng), fractal((64, 8), 2, 0.6, rng));
    Texture::from_fn(|x, y| {
        let i = y * SIDE + x;
        let over = (x / 8 + y / 8) % 2 == 0;
        let (along, thread) = if over { (x % 8, slub_x[i]) } else { (y % 8, slub_y[i]) };
        let round = triangle((along as f32 + 0.5) / 8.0);
        let across = triangle(((if over { y } else { x }) % 8) as f32 / 8.0 + 0.06);
        0.5 * round + 0.4 * across + 0.5 * thread
    })
}

fn twill(rng: &mut SceneRng) -> Texture {
    let slub = fractal((64, 16), 3, 0.6, rng);
    Texture::from_fn(|x, y| triangle((x + y) as f32 / 16.0) * 0.8 + 0.6 * slub[y * SIDE + x])
}

fn fibres(rng: &mut SceneRng) -> Texture {
    let (a, b) = (fractal((16, 128), 2, 0.8, rng), fractal((128, 16), 2, 0.8, rng));
    let c = fractal((3, 3), 4, 0.5, rng);
    Texture::from_fn(|x, y| {
        let i = y * SIDE + x;
        a[i].max(b[i]) + 0.35 * c[i]
    })
}

/// Chips of random tone: each texel belongs to the nearest of a jittered lattice of seeds.
fn terrazzo(rng: &mut SceneRng) -> Texture {
    const CELLS: i32 = 22;
    let seeds: Vec<[f32; 3]> = (0..CELLS * CELLS).map(|_| [rng.unit(), rng.unit(), rng.unit()]).collect();
    let grain = fractal((128, 128), 2, 0.8, rng);
    Texture::from_fn(|x, y| {
        let (u, v) = (x as f32 * CELLS as f32 / SIDE as f32, y as f32 * CELLS as f32 / SIDE as f32);
        let (mut near, mut second, mut tone) = (9.0f32, 9.0f32, 0.5);
        for dy in -1..=1 {
            for dx in -1..=1 {
                let (cx, cy) = (u as i32 + dx, v as i32 + dy);
                let s = seeds[(cy.rem_euclid(CELLS) * CELLS + cx.rem_euclid(CELLS)) as usize];
                let (ex, ey) = (cx as f32 + s[0] - u, cy as f32 + s[1] - v);
                let d = ex * ex + ey * ey;
                if d < near {
                    (second, near, tone) = (near, d, s[2]);
                } else {
                    second = second.min(d);
                }
            }
        }
        let chip = second.sqrt() - near.sqrt() > 0.22;
        (if chip { tone } else { 0.62 }) + 0.12 * grain[y * SIDE + x]
    })
}

fn gingham(rng: &mut SceneRng) -> Texture {
    let slub = fractal((128, 128), 2, 0.7, rng);
    Texture::from_fn(|x, y| {
        let stripe = |t: usize| if (t / 32).is_multiple_of(2) { 0.5 } else { 0.0 };
        stripe(x) + stripe(y) + 0.15 * slub[y * SIDE + x]
    })
}

fn cork(rng: &mut SceneRng) -> Texture {
    let (a, b) = (fractal((28, 28), 3, 0.7, rng), fractal((48, 48), 2, 0.7, rng));
    Texture::from_fn(|x, y| {
        let i = y * SIDE + x;
        a[i] - if b[i] > 1.12 { 0.5 } else { 0.0 }
    })
}

fn ruled(rng: &mut SceneRng) -> Texture {
    let fibre = fractal((64, 64), 3, 0.7, rng);
    Texture::from_fn(|x, y| {
        let line = y % 32 < 2 || x % 256 < 2;
        (if line { 0.0 } else { 0.8 }) + 0.12 * fibre[y * SIDE + x]
    })
}
