//! Candidates of round 2: points spread evenly over the proposal.

use crate::geometry::{BBox, Grid, GridScale, Point};

/// The centres of `columns` × `rows` equal cells over `proposal`, row by row, each rounded to the grid.
///
/// They are grid points, not pixels: what is asked about and what SAM is later told is the same place.
/// Source: arXiv 2409.10542, section 3.3 (PQPP, 5×5).
pub fn candidates(proposal: BBox<Grid>, columns: usize, rows: usize, scale: GridScale) -> Vec<Point<Grid>> {
    let limit = scale.0 as f32;
    let centre = |start: f32, side: f32, i: usize, n: usize| {
        (start + side * (i as f32 + 0.5) / n as f32).round().clamp(0.0, limit)
    };
    (0..rows)
        .flat_map(|row| (0..columns).map(move |column| (column, row)))
        .map(|(column, row)| {
            Point::new(
                centre(proposal.x1, proposal.width(), column, columns),
                centre(proposal.y1, proposal.height(), row, rows),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cell_centres_row_by_row() {
        let points = candidates(BBox::new(100.0, 200.0, 200.0, 300.0), 2, 2, GridScale(999));
        let xy: Vec<_> = points.iter().map(|p| (p.x, p.y)).collect();
        assert_eq!(xy, [(125.0, 225.0), (175.0, 225.0), (125.0, 275.0), (175.0, 275.0)]);
    }

    proptest! {
        #[test]
        fn candidates_lie_inside_their_box(x in 0u32..999, y in 0u32..999, w in 1u32..999, h in 1u32..999, n in 1usize..8) {
            let bbox = BBox::new(x as f32, y as f32, (x + w).min(999) as f32, (y + h).min(999) as f32);
            let points = candidates(bbox, n, n, GridScale(999));
            prop_assert_eq!(points.len(), n * n);
            prop_assert!(points.iter().all(|p| bbox.contains(*p) && p.x.fract() == 0.0 && p.y.fract() == 0.0));
        }
    }
}
