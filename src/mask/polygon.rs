//! Polygons to masks, by the rule of COCO's mask API.
//!
//! The rule: corners are snapped to a grid of fifths of a pixel (`trunc(5 * x + 0.5)`), edges between them are drawn
//! on that grid as digital lines, and a line that passes the middle of a pixel column flips every pixel of this column
//! from the row where it passes downwards. What is flipped an odd number of times is inside (even-odd). The union of
//! several parts is theirs pixel by pixel.
//!
//! Source: the published behaviour of `pycocotools.mask.frPyObjects`; `tests/dataset/polygons.json` holds what version
//! 2.0.11 gives. A line is solved for the columns it passes rather than drawn, so that work is bounded by the size of
//! the mask and not by how far outside of it a corner lies.
//!
//! Rejected: testing pixel centres against exact edges; simpler, but it differs from the field's masks along every
//! slanted edge.

use super::Mask;
use crate::geometry::{Size, SourcePx};

/// Grid steps a pixel.
const STEPS: f64 = 5.0;
/// Greatest distance of a corner from the origin, in pixels: far beyond any picture, and exact on the grid.
const MAX_COORDINATE: f64 = 1e6;

/// Why corners are no polygon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolygonError {
    /// The number of coordinates is odd.
    #[error("pair coordinates: {count} is odd")]
    Odd {
        /// How many there are.
        count: usize,
    },
    /// A coordinate is not a number, infinite, or further than a million pixels from the origin.
    #[error("place corner: coordinate {at} is not a number within a million pixels")]
    Coordinate {
        /// Index of the coordinate.
        at: usize,
    },
}

/// A closed polygon in source pixels: `x1, y1, x2, y2, ...`, a pixel's top left corner at its integer coordinates.
///
/// Fewer than three corners enclose nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Polygon {
    corners: Vec<[f64; 2]>,
}

impl Polygon {
    /// A polygon from COCO's flat list of coordinates, in source pixels.
    ///
    /// # Errors
    /// Every [`PolygonError`].
    pub fn new(coordinates: &[f64]) -> Result<Self, PolygonError> {
        let (pairs, rest) = coordinates.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(PolygonError::Odd { count: coordinates.len() });
        }
        match coordinates.iter().position(|c| c.is_nan() || c.abs() > MAX_COORDINATE) {
            Some(at) => Err(PolygonError::Coordinate { at }),
            None => Ok(Self { corners: pairs.to_vec() }),
        }
    }

    /// The corners in order, `[x, y]` each.
    pub fn corners(&self) -> &[[f64; 2]] {
        &self.corners
    }

    /// The area that the corners enclose, in square pixels; parts that are wound the other way round count negative.
    pub fn area(&self) -> f64 {
        let cross = |([ax, ay], [bx, by]): ([f64; 2], [f64; 2])| ax * by - bx * ay;
        self.edges().map(cross).sum::<f64>().abs() / 2.0
    }

    /// The pixels inside, of a frame of `size`; the polygon may reach beyond it.
    pub fn mask(&self, size: Size<SourcePx>) -> Mask {
        let mut mask = Mask::empty(size);
        for (a, b) in self.edges() {
            let (a, b) = (snap(a), snap(b));
            for x in columns(a[0], b[0], size.width) {
                let y = row_of(flip_height(a, b, i64::from(x) * STEPS as i64 + 2));
                if y < i64::from(size.height) {
                    mask.bits[y as usize * size.width as usize + x as usize] ^= 1;
                }
            }
        }
        flip_downwards(&mut mask);
        mask
    }

    /// The edges in order, the closing one last.
    fn edges(&self) -> impl Iterator<Item = ([f64; 2], [f64; 2])> + '_ {
        self.corners.iter().copied().zip(self.corners.iter().copied().cycle().skip(1))
    }
}

impl Mask {
    /// The union of `parts`, of a frame of `size`.
    pub fn from_polygons(size: Size<SourcePx>, parts: &[Polygon]) -> Self {
        let mut all = Self::empty(size);
        parts.iter().for_each(|part| all.union_with(&part.mask(size)));
        all
    }
}

/// A corner on the grid; truncation towards zero is the rule, on both sides of the origin.
fn snap([x, y]: [f64; 2]) -> [i64; 2] {
    [(STEPS * x + 0.5) as i64, (STEPS * y + 0.5) as i64]
}

/// The pixel columns of a frame `width` wide whose middle, between grid columns `5x + 2` and `5x + 3`, an edge from
/// grid column `a` to `b` passes.
fn columns(a: i64, b: i64, width: u32) -> std::ops::Range<u32> {
    let (left, right) = (a.min(b), a.max(b));
    // Column x is passed where left <= 5x + 2 and 5x + 3 <= right.
    let first = (left + 2).div_euclid(5).max(0);
    let end = (right - 3).div_euclid(5).saturating_add(1).clamp(first, i64::from(width).max(first));
    first as u32..end as u32
}

/// Grid row of the upper of the two pixels of the digital line from `a` to `b` at its step between grid columns `u` and
/// `u + 1`, which the line must pass.
fn flip_height(a: [i64; 2], b: [i64; 2], u: i64) -> i64 {
    let (dx, dy) = ((b[0] - a[0]).abs(), (b[1] - a[1]).abs());
    if dx >= dy {
        let (from, to) = if a[0] <= b[0] { (a, b) } else { (b, a) };
        let slope = (to[1] - from[1]) as f64 / dx as f64;
        let row = |u: i64| (from[1] as f64 + slope * (u - from[0]) as f64 + 0.5) as i64;
        return row(u).min(row(u + 1));
    }
    let (from, to) = if a[1] <= b[1] { (a, b) } else { (b, a) };
    let slope = (to[0] - from[0]) as f64 / dy as f64;
    let column = |t: i64| (from[0] as f64 + slope * t as f64 + 0.5) as i64;
    // Steep: a row moves by one column at most, in one direction, so the row after the step can be searched for.
    let passed = |t: i64| if slope > 0.0 { column(t) > u } else { column(t) <= u };
    let (mut before, mut after) = (0, dy);
    while after - before > 1 {
        let middle = before + (after - before) / 2;
        if passed(middle) { after = middle } else { before = middle }
    }
    from[1] + before
}

/// The first pixel row, in `0..`, whose middle lies at or below grid row `v`.
fn row_of(v: i64) -> i64 {
    ((v as f64 + 0.5) / STEPS - 0.5).max(0.0).ceil() as i64
}

/// Turns flips into pixels: each is on where the flips above and at it in its column are odd in number.
fn flip_downwards(mask: &mut Mask) {
    let width = mask.size.width as usize;
    for y in 1..mask.size.height as usize {
        let (above, row) = mask.bits[(y - 1) * width..][..2 * width].split_at_mut(width);
        row.iter_mut().zip(above).for_each(|(bit, above)| *bit ^= *above);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mask::Rle;

    /// Reference: `pycocotools` 2.0.11, written by `tests/dataset/make_polygons.py`.
    #[test]
    fn matches_cocos_mask_api() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/dataset/polygons.json");
        let cases: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).expect("the file is there")).expect("JSON");
        let (mut failed, mut pixels) = (Vec::new(), 0);
        let cases = cases.as_array().expect("a list");
        for (i, case) in cases.iter().enumerate() {
            let [height, width] = serde_json::from_value(case["size"].clone()).expect("two sides");
            let parts: Vec<Vec<f64>> = serde_json::from_value(case["parts"].clone()).expect("polygons");
            let parts: Vec<_> = parts.iter().map(|p| Polygon::new(p).expect("well formed")).collect();
            let mask = Mask::from_polygons(Size::new(width, height), &parts);
            pixels += mask.area();
            let counts = Rle::encode(&mask).to_coco_string();
            if counts != case["counts"] {
                failed.push((i, counts, case["counts"].clone()));
            }
        }
        eprintln!("{} masks compared, {pixels} pixels on, {} differ", cases.len(), failed.len());
        assert!(failed.is_empty(), "{failed:?}");
    }

    #[test]
    fn a_box_of_whole_pixels_is_exact() {
        let mask = Polygon::new(&[2.0, 1.0, 5.0, 1.0, 5.0, 4.0, 2.0, 4.0]).expect("well formed").mask(Size::new(8, 6));
        assert_eq!(mask, Mask::from_fn(Size::new(8, 6), |x, y| (2..5).contains(&x) && (1..4).contains(&y)));
    }

    #[test]
    fn odd_and_unplaceable_corners_are_refused() {
        assert_eq!(Polygon::new(&[1.0, 2.0, 3.0]), Err(PolygonError::Odd { count: 3 }));
        for bad in [f64::NAN, f64::INFINITY, -1.1e6] {
            assert_eq!(Polygon::new(&[1.0, 2.0, 3.0, bad]), Err(PolygonError::Coordinate { at: 3 }));
        }
    }

    fn arbitrary_polygon(reach: f64) -> impl Strategy<Value = Polygon> {
        prop::collection::vec(-reach..reach, 0..16)
            .prop_map(|c| Polygon::new(&c[..c.len() / 2 * 2]).expect("even and finite"))
    }

    proptest! {
        /// Every polygon, however far outside, leaves every column closed: the rows below it are off.
        #[test]
        fn nothing_below_the_lowest_corner_is_on(polygon in arbitrary_polygon(60.0)) {
            let mask = polygon.mask(Size::new(40, 80));
            prop_assert!((62..80).all(|y| mask.row(y).iter().all(|b| *b == 0)));
        }

        #[test]
        fn far_corners_cost_no_more_than_near_ones(polygon in arbitrary_polygon(MAX_COORDINATE)) {
            let _ = polygon.mask(Size::new(33, 17));
        }

        #[test]
        fn the_direction_of_the_corners_does_not_matter(polygon in arbitrary_polygon(50.0)) {
            let mut reversed = polygon.clone();
            reversed.corners.reverse();
            let size = Size::new(45, 45);
            prop_assert_eq!(polygon.mask(size), reversed.mask(size));
        }
    }
}
