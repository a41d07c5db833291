//! Binary masks in source pixels: storage, COCO run-length encoding and polygons, overlap.

mod polygon;
mod rle;

pub use polygon::{Polygon, PolygonError};
pub use rle::{Rle, RleError};

use std::ops::Range;

use crate::geometry::{BBox, Point, Size, SourcePx};

/// Pixels that are counted in a byte, many at a time, before they are added up.
const RUN: usize = 128;

/// A binary mask of a frame: one byte a pixel, row-major, 0 off or 1 on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    size: Size<SourcePx>,
    bits: Vec<u8>,
}

impl Mask {
    /// An empty mask of `size`.
    pub fn empty(size: Size<SourcePx>) -> Self {
        Self { size, bits: vec![0; size.pixels()] }
    }

    /// A mask from its bytes, row-major; `None` where their number is not that of the pixels or one is not 0 or 1.
    pub fn from_bits(size: Size<SourcePx>, bits: Vec<u8>) -> Option<Self> {
        (bits.len() == size.pixels() && bits.iter().all(|b| *b <= 1)).then_some(Self { size, bits })
    }

    /// A mask from a predicate over pixel columns and rows.
    pub fn from_fn(size: Size<SourcePx>, mut on: impl FnMut(u32, u32) -> bool) -> Self {
        let mut bits = Vec::with_capacity(size.pixels());
        for y in 0..size.height {
            for x in 0..size.width {
                bits.push(u8::from(on(x, y)));
            }
        }
        Self { size, bits }
    }

    /// Size in source pixels.
    pub fn size(&self) -> Size<SourcePx> {
        self.size
    }

    /// The bytes, row-major `[height, width]`, each 0 or 1.
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// The bytes of row `y`.
    pub fn row(&self, y: u32) -> &[u8] {
        let w = self.size.width as usize;
        &self.bits[y as usize * w..][..w]
    }

    /// Sets one pixel; panics outside the mask.
    pub fn set(&mut self, x: u32, y: u32, on: bool) {
        self.bits[y as usize * self.size.width as usize + x as usize] = u8::from(on);
    }

    /// Whether the pixel under `p` is on; false outside the frame.
    pub fn at(&self, p: Point<SourcePx>) -> bool {
        if p.x < 0.0 || p.y < 0.0 || p.x >= self.size.width as f32 || p.y >= self.size.height as f32 {
            return false;
        }
        self.bits[p.y as usize * self.size.width as usize + p.x as usize] == 1
    }

    /// Number of pixels that are on.
    pub fn area(&self) -> u64 {
        self.bits.chunks(RUN).map(|run| u64::from(run.iter().sum::<u8>())).sum()
    }

    /// The tight box around the pixels that are on (right and bottom exclusive), or `None` for an empty mask.
    pub fn bbox(&self) -> Option<BBox<SourcePx>> {
        let (mut x1, mut y1, mut x2, mut y2) = (u32::MAX, u32::MAX, 0, 0);
        for y in 0..self.size.height {
            let row = self.row(y);
            let Some(first) = row.iter().position(|&b| b == 1) else { continue };
            let last = row.iter().rposition(|&b| b == 1).unwrap_or(first);
            x1 = x1.min(first as u32);
            x2 = x2.max(last as u32 + 1);
            y1 = y1.min(y);
            y2 = y + 1;
        }
        (x1 != u32::MAX).then(|| BBox::new(x1 as f32, y1 as f32, x2 as f32, y2 as f32))
    }

    /// Pixels on in both and pixels on in either; `None` where the sizes differ.
    pub fn overlap(&self, other: &Self) -> Option<(u64, u64)> {
        if self.size != other.size {
            return None;
        }
        let (mut inter, mut union) = (0u64, 0u64);
        for (a, b) in self.bits.chunks(RUN).zip(other.bits.chunks(RUN)) {
            let pairs = || a.iter().zip(b);
            inter += u64::from(pairs().map(|(a, b)| a & b).sum::<u8>());
            union += u64::from(pairs().map(|(a, b)| a | b).sum::<u8>());
        }
        Some((inter, union))
    }

    /// The mask as a part of one of `size`, its first pixel at (`left`, `top`); panics where it does not fit in there.
    pub fn pasted(&self, left: u32, top: u32, size: Size<SourcePx>) -> Self {
        assert!(left + self.size.width <= size.width && top + self.size.height <= size.height, "a part lies inside");
        let mut whole = Self::empty(size);
        for y in 0..self.size.height {
            let start = (top + y) as usize * size.width as usize + left as usize;
            whole.bits[start..][..self.size.width as usize].copy_from_slice(self.row(y));
        }
        whole
    }

    /// Pixels on in both among `rows` of this mask, `other` moved by `dx` columns and `dy` rows; panics where the sizes differ.
    pub fn overlap_moved(&self, other: &Self, dx: i32, dy: i32, rows: Range<u32>) -> u64 {
        assert_eq!(self.size, other.size, "masks of one frame share its size");
        let (w, h) = (self.size.width as i32, self.size.height as i32);
        // The columns and rows of this one that something of the other can come to.
        let columns = dx.max(0)..w.min(w.saturating_add(dx));
        let rows = dy.max(rows.start as i32)..h.min(h.saturating_add(dy)).min(rows.end as i32);
        if columns.is_empty() {
            return 0;
        }
        let (left, right) = (columns.start as usize, columns.end as usize);
        let row = |y: i32| {
            let theirs = &other.row((y - dy) as u32)[(columns.start - dx) as usize..(columns.end - dx) as usize];
            let pairs = self.row(y as u32)[left..right].chunks(RUN).zip(theirs.chunks(RUN));
            pairs.map(|(a, b)| u64::from(a.iter().zip(b).map(|(a, b)| a & b).sum::<u8>())).sum::<u64>()
        };
        rows.map(row).sum()
    }

    /// Intersection over union in `0.0..=1.0`; 1 where both are empty, `None` where the sizes differ.
    pub fn iou(&self, other: &Self) -> Option<f32> {
        self.overlap(other).map(|(i, u)| if u == 0 { 1.0 } else { (i as f64 / u as f64) as f32 })
    }

    /// The pixels that are on in `self` or in `other`; panics where the sizes differ.
    pub fn union_with(&mut self, other: &Self) {
        assert_eq!(self.size, other.size, "masks of one frame share its size");
        for (a, &b) in self.bits.iter_mut().zip(&other.bits) {
            *a |= b;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_overlaps_as_if_it_had_been_drawn_there() {
        let size = Size::new(300, 9);
        let on = |x: i32, y: i32| (0..300).contains(&x) && (0..9).contains(&y) && (x * 7 + y * 3).rem_euclid(5) < 2;
        let one = Mask::from_fn(size, |x, y| (x + y) % 3 > 0);
        let other = Mask::from_fn(size, |x, y| on(x as i32, y as i32));
        for (dx, dy) in [(0, 0), (1, 0), (-130, 2), (299, -8), (300, 0), (-400, 0), (0, 9), (i32::MAX, i32::MIN)] {
            for rows in [0..9, 2..7, 5..5] {
                let at = |x: u32, y: u32| {
                    rows.contains(&y) && on((x as i32).saturating_sub(dx), (y as i32).saturating_sub(dy))
                };
                let expected = one.overlap(&Mask::from_fn(size, at)).map(|(both, _)| both);
                assert_eq!(Some(one.overlap_moved(&other, dx, dy, rows.clone())), expected, "{dx} {dy} {rows:?}");
            }
        }
    }

    #[test]
    fn pixels_are_counted_whatever_their_number() {
        // A run of ones alone, what is shorter and longer than one, and more than a byte counts.
        for (width, height) in [(RUN as u32, 1), (1, 1), (127, 3), (300, 9)] {
            let size = Size::new(width, height);
            let all = Mask::from_fn(size, |_, _| true);
            let some = Mask::from_fn(size, |x, y| (x * 7 + y * 3) % 5 < 2);
            let pixels = u64::from(width * height);
            let on = some.bits().iter().filter(|b| **b == 1).count() as u64;
            assert_eq!((all.area(), some.area()), (pixels, on), "{width}x{height}");
            assert_eq!(all.overlap(&some), Some((on, pixels)), "{width}x{height}");
            assert_eq!(some.overlap(&Mask::empty(size)), Some((0, on)), "{width}x{height}");
        }
    }
}
