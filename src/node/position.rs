//! Where an object is in space: its mask's share of the depth image, through a pinhole.
//!
//! A mask spills over the object's edge, and a depth image mixes near and far there. So the depth that most of the
//! mask has decides what counts: of the pixels that were measured those are used whose depth is within
//! max(3 · 1.4826 · MAD, 2 cm) of their median, MAD being the median of the distances to that median. For normally
//! distributed noise this is three standard deviations; an inclined plane is kept whole, and up to half of the pixels
//! may be of something else. The centroid is the mean of the used pixels' points, the extent the box around them.
//! Both are of the surface that the camera sees: the far side of an object is not guessed.

use crate::frame::{Depth, Intrinsics};
use crate::mask::Mask;

/// Measured pixels below which there is no position.
const MIN_PIXELS: usize = 16;
/// Standard deviations from the median within which depth counts.
const SPREAD: f32 = 3.0;
/// The standard deviation of a normal distribution whose MAD is 1.
const DEVIATIONS_PER_MAD: f32 = 1.4826;
/// Metres from the median within which depth counts in any case.
const TOLERANCE: f32 = 0.02;

/// A depth image and the camera that it was seen with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scene {
    /// Of the frame's size.
    pub depth: Depth,
    pub intrinsics: Intrinsics,
}

/// Where an object's visible surface is: metres in the camera's optical frame, x right, y down, z forward (REP 103).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// The mean of the used pixels' points.
    pub centroid: [f32; 3],
    /// The least of each coordinate.
    pub min: [f32; 3],
    /// The greatest of each coordinate.
    pub max: [f32; 3],
    /// Pixels of the mask that have depth.
    pub measured: u32,
    /// Those that count: at least half of them.
    pub used: u32,
    /// The lens distorts, which is not corrected.
    pub distorted: bool,
}

impl Scene {
    /// The position of what the mask covers; `None` where fewer than 16 of its pixels have depth.
    pub(super) fn locate(&self, mask: &Mask) -> Option<Position> {
        let pixels = self.measured(mask);
        if pixels.len() < MIN_PIXELS {
            return None;
        }
        let mut depths: Vec<f32> = pixels.iter().map(|(_, _, z)| *z).collect();
        let middle = median(&mut depths);
        depths.iter_mut().for_each(|z| *z = (*z - middle).abs());
        let reach = (SPREAD * DEVIATIONS_PER_MAD * median(&mut depths)).max(TOLERANCE);
        let (mut sum, mut min, mut max, mut used) = ([0.0; 3], [f64::INFINITY; 3], [f64::NEG_INFINITY; 3], 0u32);
        for (x, y, z) in pixels.iter().filter(|(_, _, z)| (z - middle).abs() <= reach) {
            let point = self.intrinsics.point(*x, *y, *z);
            for axis in 0..3 {
                sum[axis] += point[axis];
                min[axis] = min[axis].min(point[axis]);
                max[axis] = max[axis].max(point[axis]);
            }
            used += 1;
        }
        Some(Position {
            centroid: sum.map(|s| (s / f64::from(used)) as f32),
            min: min.map(|v| v as f32),
            max: max.map(|v| v as f32),
            measured: u32::try_from(pixels.len()).unwrap_or(u32::MAX),
            used,
            distorted: self.intrinsics.distorted,
        })
    }

    /// Column, row and depth of the mask's pixels that have depth.
    fn measured(&self, mask: &Mask) -> Vec<(u32, u32, f32)> {
        let Some(b) = mask.bbox() else { return Vec::new() };
        let columns = b.x1 as usize..b.x2 as usize;
        let mut pixels = Vec::new();
        for y in b.y1 as u32..b.y2 as u32 {
            let row = &mask.row(y)[columns.clone()];
            let on = row.iter().zip(b.x1 as u32..).filter(|(bit, _)| **bit == 1);
            pixels.extend(on.filter_map(|(_, x)| Some((x, y, self.depth.metres(x, y)?))));
        }
        pixels
    }
}

/// The upper median of at least one number, none of them NaN.
fn median(values: &mut [f32]) -> f32 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{DepthEncoding, Layout};
    use crate::geometry::Size;

    const W: u32 = 160;
    const H: u32 = 120;
    const CAMERA: Intrinsics = Intrinsics { fx: 150.0, fy: 140.0, cx: 79.5, cy: 59.5, distorted: false };

    fn scene(metres: impl Fn(u32, u32) -> f32) -> Scene {
        let values = (0..H).flat_map(|y| (0..W).map(move |x| (x, y)));
        let data: Vec<u8> = values.flat_map(|(x, y)| metres(x, y).to_le_bytes()).collect();
        let depth = Depth::new(DepthEncoding::Metres, &Layout::packed(W, H), data).expect("is one");
        Scene { depth, intrinsics: CAMERA }
    }

    fn mask(x: std::ops::Range<u32>, y: std::ops::Range<u32>) -> Mask {
        Mask::from_fn(Size::new(W, H), |px, py| x.contains(&px) && y.contains(&py))
    }

    fn near(a: [f32; 3], b: [f32; 3], tolerance: f32, what: &str) {
        assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance), "{what}: {a:?} is not {b:?}");
    }

    #[test]
    fn a_plane_across_the_axis_is_a_rectangle() {
        let p = scene(|_, _| 1.5).locate(&mask(50..110, 20..60)).expect("is measured");
        // Columns 50 to 109 about 79.5, rows 20 to 59 about 59.5.
        near(p.min, [-29.5 * 0.01, -39.5 * 1.5 / 140.0, 1.5], 1e-6, "min");
        near(p.max, [29.5 * 0.01, -0.5 * 1.5 / 140.0, 1.5], 1e-6, "max");
        near(p.centroid, [0.0, -20.0 * 1.5 / 140.0, 1.5], 1e-6, "centroid");
        assert_eq!((p.measured, p.used, p.distorted), (60 * 40, 60 * 40, false));
    }

    #[test]
    fn an_inclined_plane_is_kept_whole() {
        // z = 1 + x / 2 in space: a ray of slope s meets it at z = 1 / (1 - s / 2).
        let slope = |x: u32| (f64::from(x) - CAMERA.cx) / CAMERA.fx;
        let z = |x: u32| 1.0 / (1.0 - slope(x) / 2.0);
        let p = scene(|x, _| z(x) as f32).locate(&mask(20..140, 50..70)).expect("is measured");
        assert_eq!(p.used, 120 * 20);
        near(p.min, [(slope(20) * z(20)) as f32, -9.5 / 140.0 * z(139) as f32, z(20) as f32], 1e-5, "min");
        near(p.max, [(slope(139) * z(139)) as f32, 9.5 / 140.0 * z(139) as f32, z(139) as f32], 1e-5, "max");
        let mean = (20..140).map(z).sum::<f64>() / 120.0;
        near(p.centroid, [(2.0 * (mean - 1.0)) as f32, 0.0, mean as f32], 1e-5, "centroid");
    }

    #[test]
    fn what_spills_over_the_edge_does_not_count() {
        // A box of 30 x 30 pixels at 0.8 m before a wall at 2 m, seen by a mask of 40 x 40.
        let inside = |x: u32, y: u32| (60..90).contains(&x) && (40..70).contains(&y);
        let p = scene(|x, y| if inside(x, y) { 0.8 } else { 2.0 }).locate(&mask(55..95, 35..75)).expect("is measured");
        assert_eq!((p.measured, p.used), (1600, 900));
        let truth = scene(|_, _| 0.8).locate(&mask(60..90, 40..70)).expect("is measured");
        assert_eq!((p.centroid, p.min, p.max), (truth.centroid, truth.min, truth.max));
    }

    #[test]
    fn a_box_with_noise_holes_and_flying_pixels_is_where_it_is() {
        // 4 mm of noise, every fifth pixel a hole, every seventh anywhere; counted so that they lie in no column.
        let number = |x: u32, y: u32| y * (W + 3) + x;
        let depth = |x: u32, y: u32| {
            let i = number(x, y);
            match i {
                _ if i.is_multiple_of(5) => [0.0, f32::NAN, f32::INFINITY, -1.0][(i / 5 % 4) as usize],
                _ if i.is_multiple_of(7) => 0.3 + (i % 91) as f32 * 0.1,
                _ => 1.2 + ((i * 37 % 17) as f32 - 8.0) * 0.0005,
            }
        };
        let m = mask(40..120, 30..90);
        let p = scene(depth).locate(&m).expect("is measured");
        let holes = (0..H)
            .flat_map(|y| (0..W).map(move |x| (x, y)))
            .filter(|(x, y)| (40..120).contains(x) && (30..90).contains(y) && number(*x, *y).is_multiple_of(5));
        assert_eq!(p.measured as usize, 80 * 60 - holes.count());
        near(p.centroid, [0.0, 0.0, 1.2], 0.003, "centroid");
        near(p.max, [39.5 * 1.2 / 150.0, 29.5 * 1.2 / 140.0, 1.204], 0.02, "max");
        near(p.min, [-39.5 * 1.2 / 150.0, -29.5 * 1.2 / 140.0, 1.196], 0.02, "min");
        assert!(p.used * 100 > p.measured * 80, "{p:?}");
    }

    #[test]
    fn too_few_pixels_are_no_position() {
        let few = |n: u32| scene(move |x, y| if y == 50 && x < 40 + n { 1.0 } else { f32::NAN });
        let m = mask(40..100, 40..60);
        assert_eq!(few(15).locate(&m), None);
        assert_eq!(few(16).locate(&m).map(|p| p.used), Some(16));
        assert_eq!(few(16).locate(&Mask::empty(Size::new(W, H))), None);
        assert_eq!(scene(|_, _| 0.0).locate(&m), None);
        // Two of three clusters may be far apart: there is a median all the same.
        let p = scene(|x, _| [0.4, 900.0, 0.4][(x % 3) as usize]).locate(&m).expect("is measured");
        assert_eq!(p.centroid[2], 0.4);
    }
}
