//! Points deep inside a mask, and deep beside it: what SAM is told is on the instance, and what is not.

use crate::geometry::{BBox, Point, SourcePx};
use crate::mask::Mask;

/// Cells along the longer side of the grid on which depths are measured.
const DEPTH_CELLS: u32 = 64;

/// Up to `count` points deep inside `mask`: the deepest first, then each as far as can be from those before, at half
/// of the greatest depth or deeper.
pub(super) fn inner_points(mask: &Mask, count: usize) -> Vec<Point<SourcePx>> {
    let Some(bbox) = mask.bbox() else { return Vec::new() };
    deep_points(bbox, |x, y| mask.row(y)[x as usize] == 1, count)
}

/// Up to `count` points of `bbox` deep beside `mask`, chosen likewise, without those less than `clear` pixels from it.
pub(super) fn outer_points(mask: &Mask, bbox: BBox<SourcePx>, count: usize, clear: f32) -> Vec<Point<SourcePx>> {
    let mut points = deep_points(bbox.clipped(mask.size()), |x, y| mask.row(y)[x as usize] == 0, count);
    points.retain(|p| !reaches(mask, *p, clear));
    points
}

/// Whether a pixel of `mask` is within `distance` of `p`.
fn reaches(mask: &Mask, p: Point<SourcePx>, distance: f32) -> bool {
    let span = |at: f32, limit: u32| ((at - distance).max(0.0) as u32)..((at + distance).ceil() as u32).min(limit);
    span(p.y, mask.size().height).any(|y| {
        let row = mask.row(y);
        let dy = y as f32 + 0.5 - p.y;
        let near = |x: u32| (x as f32 + 0.5 - p.x).powi(2) + dy * dy < distance * distance;
        span(p.x, mask.size().width).any(|x| row[x as usize] == 1 && near(x))
    })
}

/// Up to `count` points deep inside the part of `bbox`, in whole pixels, that is `on`.
fn deep_points(bbox: BBox<SourcePx>, on: impl Fn(u32, u32) -> bool, count: usize) -> Vec<Point<SourcePx>> {
    let (left, top) = (bbox.x1.round() as u32, bbox.y1.round() as u32);
    let (w, h) = ((bbox.x2.round() as u32).saturating_sub(left), (bbox.y2.round() as u32).saturating_sub(top));
    if w == 0 || h == 0 {
        return Vec::new();
    }
    let step = w.max(h).div_ceil(DEPTH_CELLS);
    let (columns, rows) = (w.div_ceil(step) as usize, h.div_ceil(step) as usize);
    let pixel = |cell: usize| {
        let (column, row) = ((cell % columns) as u32, (cell / columns) as u32);
        // The centre of the cell; the last ones may be cut short by the box.
        ((left + column * step + step / 2).min(left + w - 1), (top + row * step + step / 2).min(top + h - 1))
    };
    let on: Vec<bool> = (0..columns * rows).map(pixel).map(|(x, y)| on(x, y)).collect();
    let depths = depths(&on, columns);
    let deepest = depths.iter().copied().max().unwrap_or(0);
    if deepest == 0 {
        return Vec::new();
    }
    let inner: Vec<usize> = (0..depths.len()).filter(|c| depths[*c] * 2 >= deepest && depths[*c] > 0).collect();
    let Some(first) = inner.iter().copied().find(|c| depths[*c] == deepest) else { return Vec::new() };
    let mut chosen = vec![first];
    let apart = |a: usize, b: usize| {
        let (dx, dy) = ((a % columns).abs_diff(b % columns), (a / columns).abs_diff(b / columns));
        dx * dx + dy * dy
    };
    while chosen.len() < count {
        let gap = |c: usize| chosen.iter().map(|p| apart(c, *p)).min().unwrap_or(0);
        // The first of equals, so that the choice does not depend on anything but the mask.
        let Some(next) = inner.iter().copied().reduce(|a, b| if gap(b) > gap(a) { b } else { a }) else { break };
        if gap(next) == 0 {
            break;
        }
        chosen.push(next);
    }
    chosen.into_iter().map(pixel).map(|(x, y)| Point::new(x as f32 + 0.5, y as f32 + 0.5)).collect()
}

/// The distance of each cell to the nearest cell that is off or outside, in thirds of a cell (chamfer 3-4).
fn depths(on: &[bool], columns: usize) -> Vec<u32> {
    // A border of cells that are off spares the edge cases.
    let (w, rows) = (columns + 2, on.len() / columns);
    let mut d = vec![0u32; w * (rows + 2)];
    for (i, _) in on.iter().enumerate().filter(|(_, on)| **on) {
        d[(i / columns + 1) * w + i % columns + 1] = u32::MAX / 2;
    }
    let inside = |d: &[u32]| (0..d.len()).filter(|i| d[*i] > 0).collect::<Vec<_>>();
    let cells = inside(&d);
    for &i in &cells {
        d[i] = d[i].min(d[i - 1] + 3).min(d[i - w] + 3).min(d[i - w - 1] + 4).min(d[i - w + 1] + 4);
    }
    for &i in cells.iter().rev() {
        d[i] = d[i].min(d[i + 1] + 3).min(d[i + w] + 3).min(d[i + w + 1] + 4).min(d[i + w - 1] + 4);
    }
    d.chunks_exact(w).skip(1).take(rows).flat_map(|row| row[1..=columns].to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::geometry::Size;

    const SIZE: Size<SourcePx> = Size::new(160, 120);

    #[test]
    fn a_hollow_object_gets_no_point_in_its_hole() {
        let ring = Mask::from_fn(SIZE, |x, y| {
            let d = (x as f32 - 60.0).hypot(y as f32 - 60.0);
            (12.0..24.0).contains(&d)
        });
        let points = inner_points(&ring, 3);
        assert_eq!(points.len(), 3);
        assert!(points.iter().all(|p| ring.at(*p)));
    }

    #[test]
    fn what_lies_beside_the_object_in_its_box_gets_points() {
        // An L; the rest of its box is free.
        let l = Mask::from_fn(SIZE, |x, y| (20..80).contains(&x) && (20..80).contains(&y) && (x < 40 || y >= 60));
        let bbox = l.bbox().expect("not empty");
        let points = outer_points(&l, bbox, 2, 6.0);
        assert_eq!(points.len(), 2);
        assert!(points.iter().all(|p| bbox.contains(*p) && p.x > 46.0 && p.y < 54.0), "{points:?}");
        // Nowhere in there is so far from it.
        assert_eq!(outer_points(&l, bbox, 2, 60.0), []);
        assert_eq!(outer_points(&Mask::from_fn(SIZE, |_, _| true), bbox, 2, 1.0), []);
    }

    proptest! {
        #[test]
        fn inner_points_lie_on_any_mask(bits in prop::collection::vec(0u8..=1, 300 * 40), n in 1usize..5) {
            let mask = Mask::from_bits(Size::new(300, 40), bits).expect("sizes match");
            let points = inner_points(&mask, n);
            prop_assert!(points.len() <= n);
            prop_assert!(points.iter().all(|p| mask.at(*p)));
        }

        #[test]
        fn outer_points_lie_clear_of_any_mask(
            bits in prop::collection::vec(0u8..=1, 30 * 40),
            [x1, y1, x2, y2] in prop::array::uniform4(-9f32..60.0),
            n in 1usize..5,
        ) {
            let mask = Mask::from_bits(Size::new(30, 40), bits).expect("sizes match");
            let points = outer_points(&mask, BBox::new(x1, y1, x2, y2), n, 1.5);
            let off = |p: &Point<SourcePx>| {
                [(0.0, 0.0), (-0.9, 0.0), (0.9, 0.0), (0.0, -0.9), (0.0, 0.9)]
                    .iter()
                    .all(|(dx, dy)| !mask.at(Point::new(p.x + dx, p.y + dy)))
            };
            prop_assert!(points.len() <= n);
            prop_assert!(points.iter().all(|p| off(p) && p.x < 30.0 && p.y < 40.0));
        }
    }
}
