//! Draws a layout: background, then each object's shadow and the object itself, from back to front.

use super::assets::{Assets, SPRITE_SIDE, Sprite};
use super::canvas::{Canvas, View};
use super::layout::{Item, Layout};
use super::pose::{Inverse, Pose, invert, multiply};
use super::rng::{SceneRng, sin_cos_turns};

/// Light that all objects of a scene share.
#[derive(Debug, Clone)]
pub(crate) struct Light {
    /// Where shadows fall, in units of the object's size.
    shadow: [f32; 2],
    /// Blur of the shadow's edge, in units of the object's size.
    softness: f32,
    /// Darkness of a full shadow, `0.0..=1.0`.
    strength: f32,
}

impl Light {
    /// Draws a light.
    pub fn random(rng: &mut SceneRng) -> Self {
        let (s, c) = sin_cos_turns(rng.unit());
        let length = rng.range(0.02, 0.16);
        Self { shadow: [c * length, s * length], softness: rng.range(0.025, 0.09), strength: rng.range(0.3, 0.66) }
    }
}

/// A tiny change of an object's own colour: it must still be called by the same colour word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tint([f32; 9]);

impl Tint {
    /// Draws a tint: ±4° of hue, ±10 % of saturation, ±9 % of brightness.
    pub fn random(rng: &mut SceneRng) -> Self {
        let (s, c) = sin_cos_turns(rng.spread(4.0 / 360.0));
        let (saturation, brightness) = (rng.range(0.9, 1.08), rng.range(0.9, 1.07));
        // Rotation about the grey axis: the diagonal and the two neighbours of every row.
        let (a, b, d) = (c + (1.0 - c) / 3.0, (1.0 - c) / 3.0 - s * 0.577_350_3, (1.0 - c) / 3.0 + s * 0.577_350_3);
        let hue = [a, b, d, d, a, b, b, d, a];
        let luma = [0.299, 0.587, 0.114];
        Self(std::array::from_fn(|i| brightness * (saturation * hue[i] + (1.0 - saturation) * luma[i % 3])))
    }
}

/// What one object covers, in pixels.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Drawn {
    /// Pixels of its whole silhouette inside the frame.
    pub full: u32,
}

/// Draws every item of `layout` over what `canvas` holds; the i-th item becomes i + 1 in its instance map.
pub(crate) fn draw(assets: &Assets, layout: &Layout, light: &Light, tints: &[Tint], canvas: &mut Canvas) -> Vec<Drawn> {
    let mut drawn = Vec::with_capacity(layout.items.len());
    for (index, (item, tint)) in layout.items.iter().zip(tints).enumerate() {
        let sprite = assets.sprite(item.class);
        let placed = Placed::new(item, sprite, canvas.view());
        placed.draw_shadow(light, canvas);
        drawn.push(placed.draw(tint, index as u8 + 1, canvas));
    }
    drawn
}

/// An object in pixel coordinates.
struct Placed<'a> {
    sprite: &'a Sprite,
    centre: [f32; 2],
    inverse: Inverse,
    /// Bounding box of the silhouette in pixels.
    bounds: [f32; 4],
    size: f32,
}

impl<'a> Placed<'a> {
    fn new(item: &Item, sprite: &'a Sprite, view: View) -> Self {
        let m = multiply(view.matrix(), item.pose.m);
        let pose = Pose { centre: view.to_pixels(item.pose.centre), m, g: item.pose.g };
        let bounds = pose.bounds(sprite);
        let size = (bounds[2] - bounds[0]).max(bounds[3] - bounds[1]);
        Self { sprite, centre: pose.centre, inverse: Inverse { m: invert(m), g: pose.g }, bounds, size }
    }

    /// The mip level whose texels are about as large as the pixels.
    fn level(&self) -> usize {
        let m = self.inverse.m;
        let texels = (m[0] * m[3] - m[1] * m[2]).abs().sqrt() * self.sprite.extent;
        let mut level = 0;
        while texels / (1 << level) as f32 > 1.55 && level + 1 < self.sprite.levels.len() {
            level += 1;
        }
        level
    }

    fn draw(&self, tint: &Tint, id: u8, canvas: &mut Canvas) -> Drawn {
        let level = self.level();
        let texels = &self.sprite.levels[level];
        let scale = texels.side as f32 / SPRITE_SIDE as f32;
        let (side, last) = (texels.side, texels.side as f32 - 1.001);
        let to_texel = self.sprite.extent * scale;
        let origin = [self.sprite.centre[0] * scale - 0.5, self.sprite.centre[1] * scale - 0.5];
        let (columns, rows) = self.pixels(self.bounds, 1.0, canvas);
        let mut full = 0;
        for y in rows {
            let row = &mut canvas.rgb[y * canvas.width * 3..][..canvas.width * 3];
            let map = &mut canvas.map[y * canvas.width..][..canvas.width];
            for x in columns.clone() {
                let p = self.inverse.local([x as f32 + 0.5 - self.centre[0], y as f32 + 0.5 - self.centre[1]]);
                let (u, v) = (origin[0] + p[0] * to_texel, origin[1] + p[1] * to_texel);
                if !(u >= 0.0 && v >= 0.0 && u < last && v < last) {
                    continue;
                }
                let (iu, iv) = (u as usize, v as usize);
                let pixel = bilinear(&texels.texels, iv * side + iu, side, u - iu as f32, v - iv as f32);
                if pixel[3] < 1.0 {
                    continue;
                }
                blend(&mut row[x * 3..x * 3 + 3], pixel, &tint.0);
                if pixel[3] > 127.5 {
                    map[x] = id;
                    full += 1;
                }
            }
        }
        Drawn { full }
    }

    /// Columns and rows of the frame that `bounds`, grown by `margin` pixels, touch.
    fn pixels(
        &self,
        bounds: [f32; 4],
        margin: f32,
        canvas: &Canvas,
    ) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let cut = |lo: f32, hi: f32, limit: usize| {
            let a = (lo - margin).floor().clamp(0.0, limit as f32) as usize;
            let b = (hi + margin).ceil().clamp(0.0, limit as f32) as usize;
            a..b.max(a)
        };
        (cut(bounds[0], bounds[2], canvas.width), cut(bounds[1], bounds[3], canvas.height))
    }

    /// Darkens the canvas under a blurred, displaced silhouette that is computed on a coarse grid.
    fn draw_shadow(&self, light: &Light, canvas: &mut Canvas) {
        let cell = (self.size / 26.0).max(1.0);
        let reach = 3.0 * light.softness * self.size + 2.0 * cell;
        let far = [light.shadow[0] * self.size, light.shadow[1] * self.size];
        let near = [far[0] * 0.3, far[1] * 0.3];
        let b = self.bounds;
        let bounds = [
            b[0] + far[0].min(0.0) - reach,
            b[1] + far[1].min(0.0) - reach,
            b[2] + far[0].max(0.0) + reach,
            b[3] + far[1].max(0.0) + reach,
        ];
        let (columns, rows) = self.pixels(bounds, 0.0, canvas);
        if columns.is_empty() || rows.is_empty() {
            return;
        }
        let mut grid = Grid::new(bounds, cell);
        let level = (self.level() + 2).min(self.sprite.levels.len() - 1);
        grid.fill(|x, y| {
            let at = |o: [f32; 2]| {
                let p = self.inverse.local([x - self.centre[0] - o[0], y - self.centre[1] - o[1]]);
                f32::from(self.sprite.alpha(level, p))
            };
            (0.45 * at(near) + 0.55 * at(far)) * (light.strength / 255.0)
        });
        let radius = ((light.softness * self.size / cell) as usize).clamp(1, 6);
        grid.blur(radius);
        grid.blur(radius);
        grid.darken(columns, rows, canvas);
    }
}

#[inline(always)]
fn bilinear(texels: &[[u8; 4]], at: usize, side: usize, fu: f32, fv: f32) -> [f32; 4] {
    let (a, b, c, d) = (texels[at], texels[at + 1], texels[at + side], texels[at + side + 1]);
    let (wa, wb, wc, wd) = ((1.0 - fu) * (1.0 - fv), fu * (1.0 - fv), (1.0 - fu) * fv, fu * fv);
    std::array::from_fn(|i| wa * f32::from(a[i]) + wb * f32::from(b[i]) + wc * f32::from(c[i]) + wd * f32::from(d[i]))
}

/// Puts a premultiplied pixel (`0.0..=255.0`) over `under`.
#[inline(always)]
fn blend(under: &mut [f32], pixel: [f32; 4], tint: &[f32; 9]) {
    let [r, g, b, a] = pixel;
    let rest = 1.0 - a * (1.0 / 255.0);
    for (c, out) in under.iter_mut().enumerate() {
        let colour = tint[c * 3] * r + tint[c * 3 + 1] * g + tint[c * 3 + 2] * b;
        *out = *out * rest + colour.clamp(0.0, a);
    }
}

/// A coarse scalar field over a part of the picture.
struct Grid {
    columns: usize,
    rows: usize,
    origin: [f32; 2],
    cell: f32,
    values: Vec<f32>,
}

impl Grid {
    fn new(bounds: [f32; 4], cell: f32) -> Self {
        let count = |lo: f32, hi: f32| ((hi - lo) / cell).ceil() as usize + 1;
        let (columns, rows) = (count(bounds[0], bounds[2]), count(bounds[1], bounds[3]));
        Self { columns, rows, origin: [bounds[0], bounds[1]], cell, values: vec![0.0; columns * rows] }
    }

    fn fill(&mut self, f: impl Fn(f32, f32) -> f32) {
        for j in 0..self.rows {
            for i in 0..self.columns {
                let (x, y) = (self.origin[0] + i as f32 * self.cell, self.origin[1] + j as f32 * self.cell);
                self.values[j * self.columns + i] = f(x, y);
            }
        }
    }

    /// A box blur over `2 * radius + 1` cells each way.
    fn blur(&mut self, radius: usize) {
        let norm = 1.0 / (2 * radius + 1) as f32;
        let mut line = vec![0.0; self.columns.max(self.rows) + 2 * radius + 1];
        for j in 0..self.rows {
            let row = &mut self.values[j * self.columns..][..self.columns];
            box_line(row.iter_mut(), radius, norm, &mut line);
        }
        for i in 0..self.columns {
            let column = self.values[i..].iter_mut().step_by(self.columns);
            box_line(column, radius, norm, &mut line);
        }
    }

    fn darken(&self, columns: std::ops::Range<usize>, rows: std::ops::Range<usize>, canvas: &mut Canvas) {
        let mut line = vec![0.0f32; self.columns];
        let step = 1.0 / self.cell;
        for y in rows {
            let v = ((y as f32 + 0.5 - self.origin[1]) * step).clamp(0.0, self.rows as f32 - 1.001);
            let (j, f) = (v as usize, v - v.floor());
            let (top, bottom) = (&self.values[j * self.columns..], &self.values[(j + 1) * self.columns..]);
            for (i, out) in line.iter_mut().enumerate() {
                *out = top[i] * (1.0 - f) + bottom[i] * f;
            }
            let start = (columns.start as f32 + 0.5 - self.origin[0]) * step;
            let row = &mut canvas.rgb[(y * canvas.width + columns.start) * 3..][..columns.len() * 3];
            for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
                let u = (start + x as f32 * step).clamp(0.0, self.columns as f32 - 1.001);
                let i = u as usize;
                let shade = line[i] + (line[i + 1] - line[i]) * (u - i as f32);
                // The sky still lights a shadow: it is a little bluer than what is lit.
                pixel[0] *= 1.0 - shade;
                pixel[1] *= 1.0 - 0.97 * shade;
                pixel[2] *= 1.0 - 0.91 * shade;
            }
        }
    }
}

fn box_line<'a>(values: impl Iterator<Item = &'a mut f32>, radius: usize, norm: f32, line: &mut [f32]) {
    let mut cells: Vec<&mut f32> = values.collect();
    let n = cells.len();
    line[..n + 2 * radius + 1].fill(0.0);
    for (i, v) in cells.iter().enumerate() {
        line[i + radius] = **v;
    }
    let mut sum: f32 = line[..2 * radius].iter().sum();
    for (i, out) in cells.iter_mut().enumerate() {
        sum += line[i + 2 * radius];
        **out = sum * norm;
        sum -= line[i];
    }
}
