//! What a language model is taught of PQPP's second round: points over a box, what the mask says of each, and how
//! many of them one question asks about.
//!
//! Source: arXiv 2409.10542, section 3.3, and its released settings.

use super::codec::GridLabel;
use super::mask_points::distinct;
use crate::geometry::{BBox, Grid, GridScale, Point};
use crate::mask::Mask;
use crate::rng::{SceneRng, sin_cos_turns};

/// Least distance of two points, as a fraction of the box's sides.
pub const POISSON_RADIUS: f32 = 0.1;
/// New points are looked for between this many radii and one from an old one; close together they fill the box best.
const REACH: f32 = 1.05;
/// How often a neighbour of a point is looked for before it counts as surrounded.
const TRIES: usize = 30;
/// Mean and standard deviation of the number of points in a question.
const QUESTION_POINTS: (f32, f32) = (10.0, 4.0);
/// Fewest and most points in a question.
const QUESTION_RANGE: (f32, f32) = (1.0, 20.0);

/// Points of the grid spread over `bbox` at random, no two closer than [`POISSON_RADIUS`]: nearly 100 over a box that is
/// large on the grid, fewer over a small one, none over one without area. The same ones from the same seed.
///
/// Distances are measured with the box scaled to a unit square. Source: Bridson, "Fast Poisson disk sampling in arbitrary
/// dimensions", SIGGRAPH 2007 sketches.
pub fn poisson_disk(bbox: BBox<Grid>, seed: u64) -> Vec<Point<Grid>> {
    if bbox.area() <= 0.0 {
        return Vec::new();
    }
    let mut rng = SceneRng::new(&[seed]);
    // Every point is rounded at once, so that the distances hold for what is written.
    let mut points = vec![Point::new(rng.range(bbox.x1, bbox.x2).round(), rng.range(bbox.y1, bbox.y2).round())];
    let mut active = points.clone();
    while !active.is_empty() {
        let i = rng.below(active.len());
        let neighbour = (0..TRIES).find_map(|_| {
            let (sin, cos) = sin_cos_turns(rng.unit());
            let distance = POISSON_RADIUS * rng.range(1.0, REACH);
            let (dx, dy) = (distance * cos * bbox.width(), distance * sin * bbox.height());
            let p = Point::new((active[i].x + dx).round(), (active[i].y + dy).round());
            (bbox.contains(p) && points.iter().all(|q| are_apart(p, *q, bbox))).then_some(p)
        });
        match neighbour {
            Some(p) => {
                points.push(p);
                active.push(p);
            }
            None => drop(active.swap_remove(i)),
        }
    }
    points
}

/// Whether two points are at least [`POISSON_RADIUS`] from each other, the box being a unit square.
fn are_apart(a: Point<Grid>, b: Point<Grid>, bbox: BBox<Grid>) -> bool {
    let (dx, dy) = ((a.x - b.x) / bbox.width(), (a.y - b.y) / bbox.height());
    dx * dx + dy * dy >= POISSON_RADIUS * POISSON_RADIUS
}

/// Each point with what `mask` says of its place.
pub fn label_points(points: &[Point<Grid>], mask: &Mask, scale: GridScale) -> Vec<GridLabel> {
    points.iter().map(|p| (*p, mask.at(scale.to_source(*p, mask.size())))).collect()
}

/// How many points a question asks about: normal with mean 10 and standard deviation 4, rounded, clipped to `1..=20`.
/// The same number from the same seed.
pub fn question_size(seed: u64) -> usize {
    size(&mut SceneRng::new(&[seed]))
}

fn size(rng: &mut SceneRng) -> usize {
    // The sum of twelve uniform numbers has variance 1 and is normal for all that matters here; unlike a logarithm or
    // a cosine it is the same on every platform.
    let normal = (0..12).map(|_| rng.unit()).sum::<f32>() - 6.0;
    let (mean, deviation) = QUESTION_POINTS;
    (mean + deviation * normal).round().clamp(QUESTION_RANGE.0, QUESTION_RANGE.1) as usize
}

/// The points of one question: [`question_size`] of `points`, or all where there are fewer, in random order. The same
/// ones from the same seed.
pub fn draw_question(points: &[GridLabel], seed: u64) -> Vec<GridLabel> {
    let mut rng = SceneRng::new(&[seed]);
    let count = size(&mut rng).min(points.len());
    distinct(points, count, &mut rng).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::geometry::Size;

    #[test]
    fn a_large_box_has_nearly_a_hundred_points() {
        for seed in 0..20 {
            let n = poisson_disk(BBox::new(100.0, 50.0, 900.0, 700.0), seed).len();
            assert!((82..=105).contains(&n), "{n} points from seed {seed}");
        }
        assert!(poisson_disk(BBox::new(5.0, 5.0, 5.0, 9.0), 0).is_empty());
    }

    #[test]
    fn every_place_of_the_box_has_a_point_nearby() {
        let points = poisson_disk(BBox::new(0.0, 0.0, 999.0, 999.0), 3);
        let near = |x: f32, y: f32| points.iter().map(|p| (p.x - x).hypot(p.y - y)).fold(f32::MAX, f32::min);
        for (x, y) in (0..20).flat_map(|i| (0..20).map(move |j| (i as f32 * 52.0, j as f32 * 52.0))) {
            // A wider gap would have been filled, nearly always.
            assert!(near(x, y) < 130.0, "nothing near {x},{y}");
        }
    }

    #[test]
    fn question_sizes_follow_the_law() {
        let sizes: Vec<f32> = (0..20_000).map(|seed| question_size(seed) as f32).collect();
        assert!(sizes.iter().all(|n| (1.0..=20.0).contains(n)));
        let mean = sizes.iter().sum::<f32>() / sizes.len() as f32;
        let sd = (sizes.iter().map(|n| (n - mean).powi(2)).sum::<f32>() / sizes.len() as f32).sqrt();
        // Clipping takes a little off the tails.
        assert!((mean - 10.0).abs() < 0.1 && (sd - 4.0).abs() < 0.2, "mean {mean}, sd {sd}");
        let at = |n: f32| sizes.iter().filter(|s| **s == n).count() as f32 / sizes.len() as f32;
        // P(x < 1.5) and P(x > 19.5) of that normal.
        assert!((at(1.0) - 0.0168).abs() < 0.005 && (at(20.0) - 0.0088).abs() < 0.004, "{} {}", at(1.0), at(20.0));
    }

    #[test]
    fn questions_hold_different_points_with_their_labels() {
        let bbox = BBox::new(100.0, 100.0, 900.0, 900.0);
        let mask = Mask::from_fn(Size::new(500, 500), |x, _| x < 250);
        let points = label_points(&poisson_disk(bbox, 1), &mask, GridScale::square(999));
        for seed in 0..200 {
            let question = draw_question(&points, seed);
            assert_eq!(question.len(), question_size(seed));
            assert_eq!(question, draw_question(&points, seed));
            for (i, (p, on)) in question.iter().enumerate() {
                assert_eq!(*on, p.x / 999.0 * 500.0 < 250.0, "{p:?}");
                assert!(question[..i].iter().all(|(q, _)| q != p), "twice: {p:?}");
            }
        }
        assert_eq!(draw_question(&points[..1], 5).len(), 1);
        assert!(draw_question(&[], 5).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn points_lie_in_the_box_and_apart(
            (x, y) in (0u32..990, 0u32..990), (w, h) in (1u32..999, 1u32..999), seed in any::<u64>(),
        ) {
            let bbox = BBox::new(x as f32, y as f32, (x + w).min(999) as f32, (y + h).min(999) as f32);
            let points = poisson_disk(bbox, seed);
            prop_assert!(!points.is_empty());
            prop_assert_eq!(&points, &poisson_disk(bbox, seed));
            for (i, a) in points.iter().enumerate() {
                prop_assert!(bbox.contains(*a) && a.x.fract() == 0.0 && a.y.fract() == 0.0);
                for b in &points[..i] {
                    let (dx, dy) = ((a.x - b.x) / bbox.width(), (a.y - b.y) / bbox.height());
                    prop_assert!(dx.hypot(dy) >= POISSON_RADIUS * 0.999);
                }
            }
        }
    }
}
