//! An instance between groundings: SAM is prompted from the last mask, and its answer is judged before it is believed.
//!
//! A prompt from the last mask always yields some mask, also where the object has been taken away. So each answer
//! has to look like the instance: SAM's score, its area, its place and its colours. An answer that still does, but less
//! than it did, or that became another shape at once, is believed and called a [`Drift`]: a reason to ask the language model
//! again.

use super::Segmented;
use super::colours::Colours;
use super::deep_points::{inner_points, outer_points};
use crate::frame::Image;
use crate::geometry::{Point, SourcePx};
use crate::mask::Mask;
use crate::prompt::Prompt;

/// Points inside the mask that a prompt gets at most.
const INNER_POINTS: usize = 3;
/// Points beside it, but in its box, where something else may lie that looks alike; and how far from the mask they are at
/// least, in square roots of its area: an object in motion is not where it was.
const OUTER_POINTS: usize = 2;
const CLEAR: f32 = 0.12;

/// When an instance counts as lost.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrackLimits {
    /// SAM's predicted IoU below which the mask is not believed. Default: 0.4. Range: 0.0..=1.0.
    pub min_score: f32,
    /// Largest factor between the areas of consecutive masks. Default: 2.0. At least 1.
    pub max_area_ratio: f32,
    /// Largest factor between the areas of a mask and of the grounded one. Default: 4.0. At least 1.
    pub max_area_drift: f32,
    /// Largest step of the centroid between consecutive masks, in square roots of the area. Default: 0.75.
    pub max_jump: f32,
    /// Least similarity to the grounded instance's colours (Bhattacharyya coefficient). Default: 0.5.
    /// Range: 0.0..=1.0.
    pub min_colour: f32,
    /// How far the box grows to each side before it prompts SAM, as a fraction of that side. Default: 0.06.
    pub box_growth: f32,
    /// When an instance is still followed, but no longer what was grounded.
    pub drift: DriftLimits,
}

/// When a tracked instance has drifted from what was grounded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DriftLimits {
    /// Least share of the grounded mask's predicted IoU that SAM still gives. Default: 0.8. Range: 0.0..=1.0; 0 for
    /// never.
    pub score_share: f32,
    /// Largest factor between the areas of a mask and of the grounded one. Default: 1.6. At least 1.
    pub area_ratio: f32,
    /// Least similarity to the grounded instance's colours (Bhattacharyya coefficient). Default: 0.75. Range: 0.0..=1.0;
    /// 0 for never.
    pub colour: f32,
    /// Least overlap (intersection over union) with the mask a moment before, moved onto this one: what spreads to a neighbour
    /// while something covers the object keeps its area. A larger step of the area is one of the shape, too. Default: 0.6.
    /// Range: 0.0..=1.0; 0 for never.
    pub shape: f32,
}

impl Default for DriftLimits {
    fn default() -> Self {
        Self { score_share: 0.8, area_ratio: 1.6, colour: 0.75, shape: 0.6 }
    }
}

impl Default for TrackLimits {
    fn default() -> Self {
        Self {
            min_score: 0.4,
            max_area_ratio: 2.0,
            max_area_drift: 4.0,
            max_jump: 0.75,
            min_colour: 0.5,
            box_growth: 0.06,
            drift: DriftLimits::default(),
        }
    }
}

/// Why a mask is not that of the tracked instance any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LostReason {
    /// The frame's size changed.
    Size,
    /// No pixel is on.
    Empty,
    /// SAM does not believe in the mask.
    Score,
    /// The area changed at once, or drifted too far since the grounding.
    Area,
    /// The mask is somewhere else.
    Jump,
    /// The pixels under the mask do not look like the instance.
    Colour,
}

/// How a mask that is believed has drifted from the grounded one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Drift {
    /// SAM's predicted IoU fell.
    Score,
    /// The area grew or shrank.
    Area,
    /// The pixels under the mask look different.
    Colour,
    /// Since then it became another shape from one frame to the next.
    Shape,
}

/// How like two instances are, wherever and whenever they were seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Likeness {
    /// Similarity of the grounded colours (Bhattacharyya coefficient), `0.0..=1.0`.
    pub colour: f32,
    /// Between the centroids of the last masks, in pixels.
    pub distance: f32,
}

/// What is remembered of one instance.
#[derive(Debug, Clone)]
pub struct Track {
    limits: TrackLimits,
    last: Mask,
    shape: Shape,
    grounded_area: f32,
    /// NaN where nobody said.
    grounded_score: f32,
    colours: Colours,
    drift: Option<Drift>,
    /// It once became another shape from one frame to the next.
    reshaped: bool,
}

impl Track {
    /// Starts from a grounded mask on its frame; `None` for an empty mask or one of another size.
    pub fn start(image: &Image, mask: Mask, limits: TrackLimits) -> Option<Self> {
        if image.size() != mask.size() {
            return None;
        }
        let shape = Shape::of(&mask)?;
        let colours = Colours::of(image, &mask, shape.area);
        let (grounded_area, grounded_score) = (shape.area, f32::NAN);
        Some(Self { limits, grounded_area, grounded_score, shape, colours, last: mask, drift: None, reshaped: false })
    }

    /// The same, where SAM gave the grounded mask that predicted IoU: a fall from it is a [`Drift`].
    #[must_use]
    pub fn scored(self, grounded_score: f32) -> Self {
        Self { grounded_score, ..self }
    }

    /// Pixels of the last mask.
    pub fn area(&self) -> f32 {
        self.shape.area
    }

    /// How the last mask has drifted from the grounded one.
    pub fn drift(&self) -> Option<Drift> {
        self.drift
    }

    /// How like this one `other` is; `None` where their frames differ in size.
    pub fn likeness(&self, other: &Self) -> Option<Likeness> {
        (self.last.size() == other.last.size()).then(|| Likeness {
            colour: self.colours.similarity(&other.colours),
            distance: self.shape.distance(other.shape),
        })
    }

    /// The last mask that was believed.
    pub fn mask(&self) -> &Mask {
        &self.last
    }

    /// What SAM is given on a later frame: the last mask's box, slightly grown, points deep inside the mask, and, where that
    /// comes `soon` enough for the object not to be there by then, points in the box that are well outside. The same mask
    /// always gives the same prompt.
    pub fn prompt(&self, soon: bool) -> Prompt {
        let bbox = self.last.bbox().map(|b| b.expanded(self.limits.box_growth, self.last.size()));
        let clear = CLEAR * self.shape.area.sqrt();
        let outer = bbox.iter().filter(|_| soon).flat_map(|b| outer_points(&self.last, *b, OUTER_POINTS, clear));
        let inner = inner_points(&self.last, INNER_POINTS);
        let points = inner.into_iter().map(|p| (p, true)).chain(outer.map(|p| (p, false))).collect();
        Prompt { bbox, points }
    }

    /// Judges SAM's answer on a later frame, and remembers it where it is believed; one that comes `soon` has to have about
    /// the same shape, too.
    ///
    /// # Errors
    /// The first [`LostReason`] that applies; the track then keeps its last believed mask.
    pub fn update(&mut self, image: &Image, answer: &Segmented, soon: bool) -> Result<(), LostReason> {
        let limits = self.limits;
        if answer.mask.size() != self.last.size() || image.size() != self.last.size() {
            return Err(LostReason::Size);
        }
        let shape = Shape::of(&answer.mask).ok_or(LostReason::Empty)?;
        // NaN is not believed either.
        if !matches!(answer.score.partial_cmp(&limits.min_score), Some(o) if o.is_ge()) {
            return Err(LostReason::Score);
        }
        let ratio = |a: f32, b: f32| (a / b).max(b / a);
        if ratio(shape.area, self.shape.area) > limits.max_area_ratio
            || ratio(shape.area, self.grounded_area) > limits.max_area_drift
        {
            return Err(LostReason::Area);
        }
        if self.shape.distance(shape) > limits.max_jump * self.shape.area.sqrt() {
            return Err(LostReason::Jump);
        }
        let colour = Colours::of(image, &answer.mask, shape.area).similarity(&self.colours);
        if colour < limits.min_colour {
            return Err(LostReason::Colour);
        }
        let least = limits.drift.shape;
        if soon && !self.reshaped && least > 0.0 {
            self.reshaped = self.overlap(&answer.mask, shape) < least;
        }
        self.drift = if answer.score < limits.drift.score_share * self.grounded_score {
            Some(Drift::Score)
        } else if ratio(shape.area, self.grounded_area) > limits.drift.area_ratio {
            Some(Drift::Area)
        } else if colour < limits.drift.colour {
            Some(Drift::Colour)
        } else {
            self.reshaped.then_some(Drift::Shape)
        };
        (self.last, self.shape) = (answer.mask.clone(), shape);
        Ok(())
    }

    /// Intersection over union of the last mask, moved onto `mask`, and that; it is of `shape`.
    fn overlap(&self, mask: &Mask, shape: Shape) -> f32 {
        let (from, to) = (self.shape.centroid, shape.centroid);
        let (dx, dy) = ((to.x - from.x).round() as i32, (to.y - from.y).round() as i32);
        let both = mask.overlap_moved(&self.last, dx, dy, shape.rows.0..shape.rows.1) as f32;
        both / (shape.area + self.shape.area - both)
    }
}

/// Size and place of a mask.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Pixels that are on, more than 0.
    area: f32,
    centroid: Point<SourcePx>,
    /// The first row with any of them, and the one behind the last.
    rows: (u32, u32),
}

impl Shape {
    fn of(mask: &Mask) -> Option<Self> {
        let (mut area, mut sum_x, mut sum_y) = (0u64, 0u64, 0u64);
        let mut rows = (mask.size().height, 0);
        for y in 0..mask.size().height {
            let (mut count, mut columns) = (0u64, 0u64);
            for (x, &bit) in mask.row(y).iter().enumerate() {
                count += u64::from(bit);
                columns += u64::from(bit) * x as u64;
            }
            area += count;
            sum_x += columns;
            sum_y += count * u64::from(y);
            if count > 0 {
                rows = (rows.0.min(y), y + 1);
            }
        }
        let mean = |sum: u64| (sum as f64 / area as f64 + 0.5) as f32;
        (area > 0).then(|| Self { area: area as f32, centroid: Point::new(mean(sum_x), mean(sum_y)), rows })
    }

    /// Between the centroids, in pixels.
    fn distance(self, other: Self) -> f32 {
        (other.centroid.x - self.centroid.x).hypot(other.centroid.y - self.centroid.y)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Size;

    const SIZE: Size<SourcePx> = Size::new(160, 120);

    fn disc(cx: f32, cy: f32, r: f32) -> Mask {
        Mask::from_fn(SIZE, |x, y| (x as f32 + 0.5 - cx).hypot(y as f32 + 0.5 - cy) < r)
    }

    /// Grey, with `mask` in `rgb`.
    fn scene(mask: &Mask, rgb: [u8; 3]) -> Image {
        let bytes: Vec<u8> = mask.bits().iter().flat_map(|b| if *b == 1 { rgb } else { [128, 120, 110] }).collect();
        Image::from_rgb(SIZE, bytes).expect("sizes match")
    }

    fn track() -> Track {
        let mask = disc(60.0, 60.0, 20.0);
        Track::start(&scene(&mask, [200, 30, 30]), mask, TrackLimits::default()).expect("not empty")
    }

    fn answer(mask: Mask, score: f32) -> Segmented {
        Segmented { mask, score }
    }

    #[test]
    fn prompts_hold_the_box_and_deep_points() {
        let prompt = track().prompt(true);
        let bbox = prompt.bbox.expect("has a box");
        assert!((bbox.x1 - 37.6).abs() < 0.5 && (bbox.x2 - 82.4).abs() < 0.5, "{bbox:?}");
        let (on, off): (Vec<_>, Vec<_>) = prompt.points.iter().partition(|(_, on)| *on);
        assert_eq!((on.len(), off.len()), (INNER_POINTS, OUTER_POINTS));
        let far = |p: Point<SourcePx>| (p.x - 60.0).hypot(p.y - 60.0);
        assert!(prompt.points[0].1 && far(prompt.points[0].0) < 2.0, "{:?}", prompt.points[0]);
        assert!(on.iter().all(|(p, _)| far(*p) < 12.0), "{on:?} are near the border");
        assert!(off.iter().all(|(p, _)| far(*p) > 23.0 && bbox.contains(*p)), "{off:?} are near the border");
    }

    #[test]
    fn slight_motion_is_followed() {
        let mut track = track();
        for step in 1..6 {
            let mask = disc(60.0 + 6.0 * step as f32, 60.0, 20.0 + step as f32);
            let image = scene(&mask, [190, 40, 35]);
            assert_eq!(track.update(&image, &answer(mask.clone(), 0.8), true), Ok(()));
            assert_eq!(track.mask(), &mask);
        }
    }

    #[test]
    fn what_no_longer_looks_like_the_instance_is_lost() {
        let same = || disc(60.0, 60.0, 20.0);
        let red = |m: &Mask| scene(m, [200, 30, 30]);
        let cases = [
            (red(&same()), answer(Mask::empty(SIZE), 0.9), LostReason::Empty),
            (red(&same()), answer(same(), 0.3), LostReason::Score),
            (red(&same()), answer(same(), f32::NAN), LostReason::Score),
            (red(&same()), answer(disc(60.0, 60.0, 31.0), 0.9), LostReason::Area),
            (red(&same()), answer(disc(60.0, 60.0, 12.0), 0.9), LostReason::Area),
            (red(&disc(95.0, 60.0, 20.0)), answer(disc(95.0, 60.0, 20.0), 0.9), LostReason::Jump),
            // The object is gone: the same shape, cut out of the table.
            (scene(&Mask::empty(SIZE), [0; 3]), answer(same(), 0.9), LostReason::Colour),
            (red(&same()), answer(Mask::empty(Size::new(10, 10)), 0.9), LostReason::Size),
        ];
        for (image, answer, reason) in cases {
            let mut track = track();
            assert_eq!(track.update(&image, &answer, true), Err(reason));
            assert_eq!(track.mask(), &same(), "{reason:?}");
        }
    }

    #[test]
    fn what_is_still_followed_may_have_drifted() {
        let same = || disc(60.0, 60.0, 20.0);
        let red = |m: &Mask| scene(m, [200, 30, 30]);
        // As large as the disc.
        let bar = || Mask::from_fn(SIZE, |x, y| (20..100).contains(&x) && (52..68).contains(&y));
        let cases = [
            ("nothing", red(&same()), answer(same(), 0.85), None),
            ("score", red(&same()), answer(same(), 0.7), Some(Drift::Score)),
            ("area", red(&same()), answer(disc(60.0, 60.0, 25.6), 0.9), Some(Drift::Area)),
            ("area", red(&same()), answer(disc(60.0, 60.0, 15.6), 0.9), Some(Drift::Area)),
            // Half of it is somebody else's.
            ("colour", scene(&disc(42.0, 60.0, 20.0), [200, 30, 30]), answer(same(), 0.9), Some(Drift::Colour)),
            ("place", red(&disc(66.0, 58.0, 20.0)), answer(disc(66.0, 58.0, 20.0), 0.9), None),
            ("shape", red(&bar()), answer(bar(), 0.9), Some(Drift::Shape)),
        ];
        for (what, image, answer, drift) in cases {
            let mut track = track().scored(0.9);
            assert_eq!(track.update(&image, &answer, true), Ok(()), "{what}");
            assert_eq!(track.drift(), drift, "{what}");
            // It is about the last mask alone, unless it came to be another one's.
            assert_eq!(track.update(&red(&same()), &self::answer(same(), 0.9), true), Ok(()), "{what}");
            assert_eq!(track.drift(), drift.filter(|d| *d == Drift::Shape), "{what}");
        }
        // After a while anything may have turned.
        let mut track = self::track();
        assert_eq!((track.update(&red(&bar()), &answer(bar(), 0.9), false), track.drift()), (Ok(()), None));
        assert_eq!(track.prompt(false).points.len(), INNER_POINTS);
        // Without a score there is nothing to fall from.
        let mut track = self::track();
        assert_eq!((track.update(&red(&same()), &answer(same(), 0.45), true), track.drift()), (Ok(()), None));
    }

    #[test]
    fn likeness_is_of_colour_and_place() {
        let at = |x: f32, r: f32, rgb| {
            let mask = disc(x, 60.0, r);
            Track::start(&scene(&mask, rgb), mask, TrackLimits::default()).expect("not empty")
        };
        let (here, there) = (at(40.0, 10.0, [200, 30, 30]), at(100.0, 20.0, [200, 30, 30]));
        let like = here.likeness(&there).expect("the same size");
        assert!(like.colour > 0.99 && (like.distance - 60.0).abs() < 0.1, "{like:?}");
        assert!(here.likeness(&at(40.0, 10.0, [30, 60, 200])).expect("the same size").colour < 0.5);
        let size = Size::new(10, 10);
        let image = Image::from_rgb(size, vec![0; 300]).expect("sizes match");
        let other = Track::start(&image, Mask::from_fn(size, |_, _| true), TrackLimits::default());
        assert_eq!(here.likeness(&other.expect("not empty")), None);
    }

    #[test]
    fn slow_growth_ends_at_the_drift_limit() {
        let mut track = track();
        let mut radius = 20.0;
        let lost = (0..20).find_map(|_| {
            radius *= 1.2;
            let mask = disc(60.0, 60.0, radius);
            track.update(&scene(&mask, [200, 30, 30]), &answer(mask, 0.9), true).err()
        });
        assert_eq!(lost, Some(LostReason::Area));
        assert!(track.mask().area() <= 4 * disc(60.0, 60.0, 20.0).area());
    }
}
