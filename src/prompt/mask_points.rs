//! A mask to what a language model is taught to say of it: its box, and points on and off it.

use super::codec::{GridLabel, GridPrompt};
use super::ppg::Ppg;
use crate::geometry::{BBox, Grid, GridScale, Point};
use crate::mask::Mask;
use crate::rng::SceneRng;

/// Most columns and rows of a box that are looked at; a grid of three digits is looked at whole.
const MAX_STEPS: u32 = 1024;

/// Kinds of [`EncodeError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeErrorKind {
    /// No pixel is on.
    Empty,
    /// The mask is so small that its box has no area on the grid.
    Degenerate,
    /// Fewer points on the mask than are wanted.
    Positives,
    /// Fewer points in the box off the mask than are wanted: it may fill its box.
    Negatives,
}

/// A mask cannot be said in the language model's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("encode mask: {}", match .kind {
    EncodeErrorKind::Empty => "it is empty",
    EncodeErrorKind::Degenerate => "its box has no area on the grid",
    EncodeErrorKind::Positives => "too few points on it",
    EncodeErrorKind::Negatives => "too few points in its box and off it",
})]
pub struct EncodeError {
    kind: EncodeErrorKind,
}

impl EncodeError {
    fn new(kind: EncodeErrorKind) -> Self {
        Self { kind }
    }

    /// What is wrong.
    pub fn kind(&self) -> EncodeErrorKind {
        self.kind
    }
}

/// The grid points of a mask's box, by what the mask says of them.
///
/// They are grid points and not pixels: rounding a pixel to the grid can move it off a thin mask, and what is taught
/// must be true of the place that is written.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskPoints {
    bbox: BBox<Grid>,
    on: Vec<Point<Grid>>,
    off: Vec<Point<Grid>>,
}

impl MaskPoints {
    /// Those of `mask`; like pixels, the points of the box do not count its right and bottom edges.
    ///
    /// # Errors
    /// [`EncodeErrorKind::Empty`], [`EncodeErrorKind::Degenerate`].
    pub fn of(mask: &Mask, scale: GridScale) -> Result<Self, EncodeError> {
        let bbox = mask.bbox().ok_or(EncodeError::new(EncodeErrorKind::Empty))?;
        let bbox = scale.bbox_to_grid(bbox, mask.size());
        if bbox.area() <= 0.0 {
            return Err(EncodeError::new(EncodeErrorKind::Degenerate));
        }
        let steps = |from: f32, to: f32| {
            let (from, to) = (from as u32, to as u32);
            (from..to).step_by((to - from).div_ceil(MAX_STEPS) as usize)
        };
        let points =
            steps(bbox.y1, bbox.y2).flat_map(|y| steps(bbox.x1, bbox.x2).map(move |x| Point::new(x as f32, y as f32)));
        let (on, off) = points.partition(|p| mask.at(scale.to_source(*p, mask.size())));
        Ok(Self { bbox, on, off })
    }

    /// The mask's box.
    pub fn bbox(&self) -> BBox<Grid> {
        self.bbox
    }

    /// `positives` different points on the mask, then `negatives` different ones in its box and off it, drawn evenly;
    /// the same ones from the same seed.
    ///
    /// # Errors
    /// [`EncodeErrorKind::Positives`], [`EncodeErrorKind::Negatives`].
    pub fn choose(&self, positives: usize, negatives: usize, seed: u64) -> Result<Vec<GridLabel>, EncodeError> {
        self.draw(positives, negatives, &mut SceneRng::new(&[seed]))
    }

    /// The mask as an answer of PPG says it, with as many groups as `ppg` has; the same ones from the same seed.
    ///
    /// # Errors
    /// [`EncodeErrorKind::Positives`], [`EncodeErrorKind::Negatives`].
    pub fn prompt(&self, ppg: Ppg<'_>, seed: u64) -> Result<GridPrompt, EncodeError> {
        Ok(GridPrompt { bbox: self.bbox, groups: self.groups(ppg, ppg.groups(), seed)? })
    }

    /// `count` groups of points as `ppg` has them; the same ones from the same seed.
    ///
    /// # Errors
    /// [`EncodeErrorKind::Positives`], [`EncodeErrorKind::Negatives`].
    pub fn groups(&self, ppg: Ppg<'_>, count: usize, seed: u64) -> Result<Vec<Vec<GridLabel>>, EncodeError> {
        let mut rng = SceneRng::new(&[seed]);
        (0..count).map(|_| self.draw(ppg.positives(), ppg.negatives(), &mut rng)).collect()
    }

    fn draw(&self, positives: usize, negatives: usize, rng: &mut SceneRng) -> Result<Vec<GridLabel>, EncodeError> {
        let on = distinct(&self.on, positives, rng).ok_or(EncodeError::new(EncodeErrorKind::Positives))?;
        let off = distinct(&self.off, negatives, rng).ok_or(EncodeError::new(EncodeErrorKind::Negatives))?;
        Ok(on.into_iter().map(|p| (p, true)).chain(off.into_iter().map(|p| (p, false))).collect())
    }
}

/// `count` different elements of `pool`, in the order in which they were drawn; `None` where it has fewer.
pub(super) fn distinct<T: Copy>(pool: &[T], count: usize, rng: &mut SceneRng) -> Option<Vec<T>> {
    if pool.len() < count {
        return None;
    }
    let mut drawn: Vec<usize> = Vec::with_capacity(count);
    while drawn.len() < count {
        let i = rng.below(pool.len());
        if !drawn.contains(&i) {
            drawn.push(i);
        }
    }
    Some(drawn.into_iter().map(|i| pool[i]).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::geometry::Size;
    use crate::prompt::Answer;
    use crate::prompt::ppg::tests::dialect;

    const SCALE: GridScale = GridScale::square(999);

    fn ellipse(size: (u32, u32), centre: (f32, f32), radii: (f32, f32)) -> Mask {
        Mask::from_fn(Size::new(size.0, size.1), |x, y| {
            let (dx, dy) = ((x as f32 + 0.5 - centre.0) / radii.0, (y as f32 + 0.5 - centre.1) / radii.1);
            dx * dx + dy * dy <= 1.0
        })
    }

    #[test]
    fn points_come_from_the_seed_alone() {
        let points = MaskPoints::of(&ellipse((640, 480), (300.0, 200.0), (90.0, 60.0)), SCALE).expect("has a box");
        let chosen = points.choose(5, 3, 7).expect("has enough");
        assert_eq!(chosen, points.choose(5, 3, 7).expect("has enough"));
        assert_ne!(chosen, points.choose(5, 3, 8).expect("has enough"));
        assert_eq!(chosen.iter().map(|(_, on)| *on).collect::<Vec<_>>(), [[true; 5].as_slice(), &[false; 3]].concat());
    }

    #[test]
    fn masks_that_cannot_be_said_are_refused() {
        let size = Size::new(4000, 3000);
        let empty = Mask::empty(size);
        assert_eq!(MaskPoints::of(&empty, SCALE).expect_err("empty").kind(), EncodeErrorKind::Empty);
        let mut speck = empty.clone();
        speck.set(2001, 1500, true);
        assert_eq!(MaskPoints::of(&speck, SCALE).expect_err("a speck").kind(), EncodeErrorKind::Degenerate);
        let full = MaskPoints::of(&Mask::from_fn(Size::new(999, 999), |_, _| true), SCALE).expect("has a box");
        assert_eq!(full.choose(1, 1, 0).expect_err("fills its box").kind(), EncodeErrorKind::Negatives);
        assert_eq!(full.choose(2, 0, 0).map(|c| c.len()), Ok(2));
        let dot = MaskPoints::of(&Mask::from_fn(Size::new(999, 999), |x, y| x == 5 && y == 5), SCALE).expect("a box");
        assert_eq!(dot.choose(2, 0, 0).expect_err("one point").kind(), EncodeErrorKind::Positives);
        assert_eq!(dot.choose(1, 0, 0), Ok(vec![(Point::new(5.0, 5.0), true)]));
    }

    #[test]
    fn a_mask_on_a_finer_grid_is_looked_at_in_steps() {
        let points = MaskPoints::of(&ellipse((200, 200), (100.0, 100.0), (99.0, 99.0)), GridScale::square(99_999))
            .expect("a box");
        assert!(points.on.len() + points.off.len() <= (MAX_STEPS * MAX_STEPS) as usize);
        assert!(points.choose(16, 16, 1).is_ok());
    }

    proptest! {
        // Each case looks at every pixel and every grid point of a box.
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_mask_is_said_and_read_back_with_true_labels(
            size in (64u32..1300, 64u32..700), (cx, cy) in (0.2f32..0.8, 0.2f32..0.8),
            (rx, ry) in (0.03f32..0.4, 0.03f32..0.4), seed in any::<u64>(), (p, n, k) in (1usize..5, 0usize..4, 1usize..3),
        ) {
            let (w, h) = (size.0 as f32, size.1 as f32);
            let mask = ellipse(size, (cx * w, cy * h), (rx * w, ry * h));
            let d = dialect(p, n, k);
            let ppg = d.ppg().expect("has PPG");
            let said = MaskPoints::of(&mask, SCALE).expect("has a box").prompt(ppg, seed).expect("has points");
            let text = ppg.write(std::slice::from_ref(&said)).expect("sayable");
            let Ok(Answer::Targets(read)) = ppg.parse(&text) else { panic!("unreadable {text}") };
            prop_assert_eq!(&read[..], &[said][..]);
            let tight = mask.bbox().expect("not empty");
            let back = SCALE.bbox_to_source(read[0].bbox, mask.size());
            prop_assert!((back.x1 - tight.x1).abs() <= w / 999.0 && (back.y2 - tight.y2).abs() <= h / 999.0);
            for (point, on) in read[0].groups.iter().flatten() {
                prop_assert_eq!(mask.at(SCALE.to_source(*point, mask.size())), *on);
            }
        }
    }
}
