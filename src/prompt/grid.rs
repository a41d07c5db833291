//! Candidates of round 2: points spread evenly over the proposal.

use std::sync::OnceLock;

use crate::geometry::{BBox, Grid, GridScale, Point};
use crate::rng::SceneRng;

/// Points of [`Candidates::BlueNoise`]. Source: the paper's released settings.
pub const BLUE_NOISE_POINTS: usize = 15;
/// Random places that are tried for each point already there; the one farthest from all of them is taken.
const BLUE_NOISE_TRIES: usize = 64;

/// How candidates are laid over a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Candidates {
    /// The centres of equal cells, row by row.
    ///
    /// Source: arXiv 2409.10542, section 3.3 (PQPP, 5×5).
    Grid {
        /// At least 1.
        columns: usize,
        /// At least 1.
        rows: usize,
    },
    /// [`BLUE_NOISE_POINTS`] points of one fixed pattern: irregular, yet none close to another.
    BlueNoise,
}

impl Candidates {
    /// The points over `proposal`, each rounded to the grid.
    ///
    /// They are grid points, not pixels: what is asked about and what SAM is later told is the same place.
    pub fn over(self, proposal: BBox<Grid>, scale: GridScale) -> Vec<Point<Grid>> {
        match self {
            Self::Grid { columns, rows } => candidates(proposal, columns, rows, scale),
            Self::BlueNoise => {
                let place = |start: f32, side: f32, share: f32, steps: u32| {
                    (start + side * share).round().clamp(0.0, steps as f32)
                };
                let point = |&(x, y): &(f32, f32)| {
                    Point::new(
                        place(proposal.x1, proposal.width(), x, scale.x),
                        place(proposal.y1, proposal.height(), y, scale.y),
                    )
                };
                blue_noise().iter().map(point).collect()
            }
        }
    }
}

/// `5x5` or `blue-noise`, as reports and flags call it.
impl std::fmt::Display for Candidates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Grid { columns, rows } => write!(f, "{columns}x{rows}"),
            Self::BlueNoise => f.write_str("blue-noise"),
        }
    }
}

/// The pattern, as shares of the box's sides: of many random places always the one farthest from all points before, the
/// box being a torus, so that the edges get no more than their part.
///
/// Source: Mitchell, "Spectrally optimal sampling for distribution ray tracing", SIGGRAPH 1991 (best candidate).
fn blue_noise() -> &'static [(f32, f32)] {
    static PATTERN: OnceLock<Vec<(f32, f32)>> = OnceLock::new();
    PATTERN.get_or_init(|| {
        let mut rng = SceneRng::new(&[BLUE_NOISE_POINTS as u64]);
        let mut points: Vec<(f32, f32)> = Vec::with_capacity(BLUE_NOISE_POINTS);
        while points.len() < BLUE_NOISE_POINTS {
            let gap = |p: (f32, f32)| points.iter().map(|q| torus_square(p, *q)).fold(f32::MAX, f32::min);
            let mut best = ((rng.unit(), rng.unit()), 0.0);
            best.1 = gap(best.0);
            for _ in 0..BLUE_NOISE_TRIES * points.len() {
                let p = (rng.unit(), rng.unit());
                if gap(p) > best.1 {
                    best = (p, gap(p));
                }
            }
            points.push(best.0);
        }
        points
    })
}

/// Squared distance in a unit square whose opposite edges touch.
fn torus_square(a: (f32, f32), b: (f32, f32)) -> f32 {
    let along = |a: f32, b: f32| {
        let d = (a - b).abs();
        d.min(1.0 - d)
    };
    let (dx, dy) = (along(a.0, b.0), along(a.1, b.1));
    dx * dx + dy * dy
}

/// The centres of `columns` × `rows` equal cells over `proposal`, row by row, each rounded to the grid.
///
/// Source: arXiv 2409.10542, section 3.3 (PQPP, 5×5).
pub fn candidates(proposal: BBox<Grid>, columns: usize, rows: usize, scale: GridScale) -> Vec<Point<Grid>> {
    let centre = |(start, side): (f32, f32), (i, n): (usize, usize), steps: u32| {
        (start + side * (i as f32 + 0.5) / n as f32).round().clamp(0.0, steps as f32)
    };
    (0..rows)
        .flat_map(|row| (0..columns).map(move |column| (column, row)))
        .map(|(column, row)| {
            Point::new(
                centre((proposal.x1, proposal.width()), (column, columns), scale.x),
                centre((proposal.y1, proposal.height()), (row, rows), scale.y),
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
        let points = candidates(BBox::new(100.0, 200.0, 200.0, 300.0), 2, 2, GridScale::square(999));
        let xy: Vec<_> = points.iter().map(|p| (p.x, p.y)).collect();
        assert_eq!(xy, [(125.0, 225.0), (175.0, 225.0), (125.0, 275.0), (175.0, 275.0)]);
        let same = Candidates::Grid { columns: 2, rows: 2 }
            .over(BBox::new(100.0, 200.0, 200.0, 300.0), GridScale::square(999));
        assert_eq!(same, points);
    }

    #[test]
    fn blue_noise_is_spread_and_always_the_same() {
        let points = Candidates::BlueNoise.over(BBox::new(0.0, 0.0, 900.0, 900.0), GridScale::square(999));
        assert_eq!(points.len(), BLUE_NOISE_POINTS);
        for (i, p) in points.iter().enumerate() {
            // Fifteen cells of a perfect lattice lie 0.28 apart, random points hardly ever 0.1.
            assert!(points[..i].iter().all(|q| (p.x - q.x).hypot(p.y - q.y) > 0.15 * 900.0), "{points:?}");
        }
        for (column, row) in (0..9).map(|i| (i % 3, i / 3)) {
            let cell = BBox::new(
                300.0 * column as f32,
                300.0 * row as f32,
                300.0 * (column + 1) as f32,
                300.0 * (row + 1) as f32,
            );
            assert!(points.iter().any(|p| cell.contains(*p)), "nothing in column {column}, row {row}");
        }
        let rows: std::collections::HashSet<u32> = points.iter().map(|p| p.y as u32).collect();
        assert!(rows.len() > 12, "a lattice, not noise");
    }

    proptest! {
        #[test]
        fn candidates_lie_inside_their_box(x in 0u32..999, y in 0u32..999, w in 1u32..999, h in 1u32..999, n in 1usize..8) {
            let bbox = BBox::new(x as f32, y as f32, (x + w).min(999) as f32, (y + h).min(999) as f32);
            for layout in [Candidates::Grid { columns: n, rows: n }, Candidates::BlueNoise] {
                let points = layout.over(bbox, GridScale::square(999));
                prop_assert_eq!(points.len(), if layout == Candidates::BlueNoise { 15 } else { n * n });
                prop_assert!(points.iter().all(|p| bbox.contains(*p) && p.x.fract() == 0.0 && p.y.fract() == 0.0));
            }
        }
    }
}
