//! The picture while it is being made, and the view that maps its pixels to the scene.

use super::rng::sin_cos_turns;

/// Maps scene units (longest image side = 1, y down, origin at the top left corner) to pixels: a similarity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct View {
    /// Pixels per scene unit, rotated: `[s cos, s sin]`.
    axis: [f32; 2],
    /// Pixel position of the scene's origin.
    origin: [f32; 2],
}

impl View {
    /// The view that shows a scene of unit longest side on `longest` pixels.
    pub fn plain(longest: u32) -> Self {
        Self { axis: [longest as f32, 0.0], origin: [0.0, 0.0] }
    }

    /// A camera that looks at scene point `at` in the middle of `size` pixels, `pixels` per unit, rolled by `turns`.
    pub fn camera(size: (u32, u32), at: [f32; 2], pixels: f32, turns: f32) -> Self {
        let (s, c) = sin_cos_turns(turns);
        let axis = [pixels * c, pixels * s];
        let middle = [size.0 as f32 / 2.0, size.1 as f32 / 2.0];
        let origin = [middle[0] - (axis[0] * at[0] - axis[1] * at[1]), middle[1] - (axis[1] * at[0] + axis[0] * at[1])];
        Self { axis, origin }
    }

    /// Rotation and scale as a matrix, row-major.
    pub fn matrix(&self) -> [f32; 4] {
        [self.axis[0], -self.axis[1], self.axis[1], self.axis[0]]
    }

    /// Pixel position of a scene point.
    pub fn to_pixels(self, p: [f32; 2]) -> [f32; 2] {
        let m = self.matrix();
        [self.origin[0] + m[0] * p[0] + m[1] * p[1], self.origin[1] + m[2] * p[0] + m[3] * p[1]]
    }

    /// Scene point under a pixel position.
    pub fn to_scene(self, x: f32, y: f32) -> [f32; 2] {
        let (dx, dy) = (x - self.origin[0], y - self.origin[1]);
        let n = self.axis[0] * self.axis[0] + self.axis[1] * self.axis[1];
        [(self.axis[0] * dx + self.axis[1] * dy) / n, (self.axis[0] * dy - self.axis[1] * dx) / n]
    }
}

/// An RGB picture in f32, `0.0..=255.0` a channel, row-major `[height, width, 3]`, with its instance map.
#[derive(Debug)]
pub(crate) struct Canvas {
    pub width: usize,
    pub height: usize,
    pub rgb: Vec<f32>,
    /// u8, `[height, width]`: 0 background, i + 1 the i-th drawn object on top.
    pub map: Vec<u8>,
    view: View,
}

impl Canvas {
    pub fn new(width: u32, height: u32, view: View) -> Self {
        let (width, height) = (width as usize, height as usize);
        Self { width, height, rgb: vec![0.0; width * height * 3], map: vec![0; width * height], view }
    }

    pub fn view(&self) -> View {
        self.view
    }

    pub fn row_mut(&mut self, y: usize) -> &mut [f32] {
        &mut self.rgb[y * self.width * 3..][..self.width * 3]
    }
}
