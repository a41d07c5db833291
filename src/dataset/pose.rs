//! Where and how an object lies: an affine map with a little perspective.

use super::assets::Sprite;
use super::rng::{SceneRng, sin_cos_turns};

/// Maps a sprite's local points (see [`Sprite::hull`]) to the scene: `centre + m p / (1 + g · p)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pose {
    /// Scene position of the sprite's centre, in units of the longest image side.
    pub centre: [f32; 2],
    /// Row-major 2 × 2.
    pub m: [f32; 4],
    /// Perspective.
    pub g: [f32; 2],
}

impl Pose {
    /// A pose at the origin whose bounding box has the longer side `side`.
    pub fn random(sprite: &Sprite, side: f32, rng: &mut SceneRng) -> Self {
        let turns = if rng.chance(0.18) { rng.unit() } else { rng.spread(25.0 / 360.0) };
        let (s, c) = sin_cos_turns(turns);
        let (shear, aspect) = if rng.chance(0.5) { (rng.spread(0.16), rng.range(0.86, 1.16)) } else { (0.0, 1.0) };
        let mirror = if rng.chance(0.3) { -1.0 } else { 1.0 };
        let local = [mirror * aspect, shear, 0.0, 1.0 / aspect];
        let m = multiply([c, -s, s, c], local);
        let g = if rng.chance(0.5) { [rng.spread(0.2), rng.spread(0.2)] } else { [0.0; 2] };
        let mut pose = Self { centre: [0.0; 2], m, g };
        let [x1, y1, x2, y2] = pose.bounds(sprite);
        pose.scale(side / (x2 - x1).max(y2 - y1));
        pose
    }

    /// Multiplies the size.
    pub fn scale(&mut self, factor: f32) {
        self.m = self.m.map(|v| v * factor);
    }

    /// Turns the object about its centre.
    pub fn turn(&mut self, turns: f32) {
        let (s, c) = sin_cos_turns(turns);
        self.m = multiply([c, -s, s, c], self.m);
    }

    /// Bounding box `[x1, y1, x2, y2]` of the silhouette in scene units.
    pub fn bounds(&self, sprite: &Sprite) -> [f32; 4] {
        let mut b = [f32::MAX, f32::MAX, f32::MIN, f32::MIN];
        for &p in &sprite.hull {
            let w = 1.0 / (1.0 + self.g[0] * p[0] + self.g[1] * p[1]);
            let x = self.centre[0] + (self.m[0] * p[0] + self.m[1] * p[1]) * w;
            let y = self.centre[1] + (self.m[2] * p[0] + self.m[3] * p[1]) * w;
            b = [b[0].min(x), b[1].min(y), b[2].max(x), b[3].max(y)];
        }
        b
    }

    /// The map from scene offsets (from `centre`) back to local points.
    pub fn inverse(&self) -> Inverse {
        Inverse { m: invert(self.m), g: self.g }
    }
}

/// Maps an offset from an object's centre to the sprite's local point.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Inverse {
    pub m: [f32; 4],
    pub g: [f32; 2],
}

impl Inverse {
    /// The local point at offset `o`.
    #[inline(always)]
    pub fn local(&self, o: [f32; 2]) -> [f32; 2] {
        let r = [self.m[0] * o[0] + self.m[1] * o[1], self.m[2] * o[0] + self.m[3] * o[1]];
        let w = 1.0 / (1.0 - self.g[0] * r[0] - self.g[1] * r[1]).max(0.05);
        [r[0] * w, r[1] * w]
    }
}

/// `a b` for row-major 2 × 2 matrices.
pub(crate) fn multiply(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
    [a[0] * b[0] + a[1] * b[2], a[0] * b[1] + a[1] * b[3], a[2] * b[0] + a[3] * b[2], a[2] * b[1] + a[3] * b[3]]
}

/// The inverse of a row-major 2 × 2 matrix that is not singular.
pub(crate) fn invert(m: [f32; 4]) -> [f32; 4] {
    let d = 1.0 / (m[0] * m[3] - m[1] * m[2]);
    [m[3] * d, -m[1] * d, -m[2] * d, m[0] * d]
}
