//! An instance between groundings: SAM is prompted from the last mask, and its answer is judged before it is believed.
//!
//! A prompt from the last mask always yields some mask, also where the object has been taken away. So each answer
//! has to look like the instance: SAM's score, its area, its place and its colours.

use super::Segmented;
use crate::frame::Image;
use crate::geometry::{Point, SourcePx};
use crate::mask::Mask;
use crate::prompt::Prompt;

/// Cells along the longer side of the grid on which depths are measured.
const DEPTH_CELLS: u32 = 64;
/// Points inside the mask that a prompt gets at most.
const INNER_POINTS: usize = 3;
/// Pixels that a colour histogram is taken from, at most about.
const COLOUR_SAMPLES: f32 = 4096.0;
/// Levels of a colour channel in a histogram.
const LEVELS: usize = 4;

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

/// What is remembered of one instance.
#[derive(Debug, Clone)]
pub struct Track {
    limits: TrackLimits,
    last: Mask,
    shape: Shape,
    grounded_area: f32,
    colours: Colours,
}

impl Track {
    /// Starts from a grounded mask on its frame; `None` for an empty mask or one of another size.
    pub fn start(image: &Image, mask: Mask, limits: TrackLimits) -> Option<Self> {
        if image.size() != mask.size() {
            return None;
        }
        let shape = Shape::of(&mask)?;
        let colours = Colours::of(image, &mask, shape.area);
        Some(Self { limits, grounded_area: shape.area, shape, colours, last: mask })
    }

    /// The last mask that was believed.
    pub fn mask(&self) -> &Mask {
        &self.last
    }

    /// What SAM is given on the next frame: the last mask's box, slightly grown, and points deep inside the mask.
    /// The same mask always gives the same prompt.
    pub fn prompt(&self) -> Prompt {
        let bbox = self.last.bbox().map(|b| b.expanded(self.limits.box_growth, self.last.size()));
        let points = inner_points(&self.last, INNER_POINTS).into_iter().map(|p| (p, true)).collect();
        Prompt { bbox, points }
    }

    /// Judges SAM's answer on the next frame, and remembers it where it is believed.
    ///
    /// # Errors
    /// The first [`LostReason`] that applies; the track then keeps its last believed mask.
    pub fn update(&mut self, image: &Image, answer: &Segmented) -> Result<(), LostReason> {
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
        let (dx, dy) = (shape.centroid.x - self.shape.centroid.x, shape.centroid.y - self.shape.centroid.y);
        if dx.hypot(dy) > limits.max_jump * self.shape.area.sqrt() {
            return Err(LostReason::Jump);
        }
        if Colours::of(image, &answer.mask, shape.area).similarity(&self.colours) < limits.min_colour {
            return Err(LostReason::Colour);
        }
        (self.last, self.shape) = (answer.mask.clone(), shape);
        Ok(())
    }
}

/// Size and place of a mask.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Pixels that are on, more than 0.
    area: f32,
    centroid: Point<SourcePx>,
}

impl Shape {
    fn of(mask: &Mask) -> Option<Self> {
        let (mut area, mut sum_x, mut sum_y) = (0u64, 0u64, 0u64);
        for y in 0..mask.size().height {
            let (mut count, mut columns) = (0u64, 0u64);
            for (x, &bit) in mask.row(y).iter().enumerate() {
                count += u64::from(bit);
                columns += u64::from(bit) * x as u64;
            }
            area += count;
            sum_x += columns;
            sum_y += count * u64::from(y);
        }
        let mean = |sum: u64| (sum as f64 / area as f64 + 0.5) as f32;
        (area > 0).then(|| Self { area: area as f32, centroid: Point::new(mean(sum_x), mean(sum_y)) })
    }
}

/// A histogram of the colours under a mask; sums to 1.
#[derive(Debug, Clone)]
struct Colours([f32; LEVELS * LEVELS * LEVELS]);

impl Colours {
    /// Each pixel is shared among the eight nearest bins, so that a slight change of light changes little.
    fn of(image: &Image, mask: &Mask, area: f32) -> Self {
        let step = ((area / COLOUR_SAMPLES).sqrt().ceil() as usize).max(1);
        let width = mask.size().width as usize;
        let mut bins = [0f32; LEVELS * LEVELS * LEVELS];
        for y in (0..mask.size().height as usize).step_by(step) {
            let (bits, rgb) = (mask.row(y as u32), &image.rgb()[y * width * 3..][..width * 3]);
            for x in (0..width).step_by(step).filter(|x| bits[*x] == 1) {
                share(&mut bins, &rgb[3 * x..3 * x + 3]);
            }
        }
        let sum: f32 = bins.iter().sum();
        if sum > 0.0 {
            bins.iter_mut().for_each(|b| *b /= sum);
        }
        Self(bins)
    }

    /// Bhattacharyya coefficient, `0.0..=1.0`; 1 where either is too small to have been sampled.
    fn similarity(&self, other: &Self) -> f32 {
        if self.0.iter().all(|b| *b == 0.0) || other.0.iter().all(|b| *b == 0.0) {
            return 1.0;
        }
        self.0.iter().zip(&other.0).map(|(a, b)| (a * b).sqrt()).sum()
    }
}

fn share(bins: &mut [f32], rgb: &[u8]) {
    let channel = |v: u8| {
        let at = f32::from(v) / 255.0 * (LEVELS - 1) as f32;
        let low = (at as usize).min(LEVELS - 2);
        (low, at - low as f32)
    };
    let [r, g, b] = [channel(rgb[0]), channel(rgb[1]), channel(rgb[2])];
    for corner in 0..8 {
        let pick =
            |(low, t): (usize, f32), bit: usize| if corner >> bit & 1 == 1 { (low + 1, t) } else { (low, 1.0 - t) };
        let ((r, a), (g, b), (b_, c)) = (pick(r, 0), pick(g, 1), pick(b, 2));
        bins[(r * LEVELS + g) * LEVELS + b_] += a * b * c;
    }
}

/// Up to `count` points deep inside `mask`: the deepest first, then each as far as can be from those before, at half
/// of the greatest depth or deeper.
fn inner_points(mask: &Mask, count: usize) -> Vec<Point<SourcePx>> {
    let Some(bbox) = mask.bbox() else { return Vec::new() };
    let (left, top) = (bbox.x1 as u32, bbox.y1 as u32);
    let (w, h) = (bbox.width() as u32, bbox.height() as u32);
    let step = w.max(h).div_ceil(DEPTH_CELLS).max(1);
    let (columns, rows) = (w.div_ceil(step) as usize, h.div_ceil(step) as usize);
    let pixel = |cell: usize| {
        let (column, row) = ((cell % columns) as u32, (cell / columns) as u32);
        // The centre of the cell; the last ones may be cut short by the box.
        ((left + column * step + step / 2).min(left + w - 1), (top + row * step + step / 2).min(top + h - 1))
    };
    let on: Vec<bool> = (0..columns * rows)
        .map(|cell| {
            let (x, y) = pixel(cell);
            mask.row(y)[x as usize] == 1
        })
        .collect();
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

    fn disc(cx: f32, cy: f32, r: f32) -> Mask {
        Mask::from_fn(SIZE, |x, y| (x as f32 + 0.5 - cx).hypot(y as f32 + 0.5 - cy) < r)
    }

    /// Grey, with `mask` in `rgb`.
    fn scene(mask: &Mask, rgb: [u8; 3]) -> Image {
        let bytes = mask.bits().iter().flat_map(|b| if *b == 1 { rgb } else { [128, 120, 110] }).collect();
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
        let prompt = track().prompt();
        let bbox = prompt.bbox.expect("has a box");
        assert!((bbox.x1 - 37.6).abs() < 0.5 && (bbox.x2 - 82.4).abs() < 0.5, "{bbox:?}");
        assert_eq!(prompt.points.len(), INNER_POINTS);
        let (deepest, on) = prompt.points[0];
        assert!(on && (deepest.x - 60.0).hypot(deepest.y - 60.0) < 2.0, "{deepest:?}");
        for (p, _) in prompt.points {
            assert!((p.x - 60.0).hypot(p.y - 60.0) < 12.0, "{p:?} is near the border");
        }
    }

    #[test]
    fn a_hollow_object_gets_no_point_in_its_hole() {
        let ring = Mask::from_fn(SIZE, |x, y| {
            let d = (x as f32 - 60.0).hypot(y as f32 - 60.0);
            (12.0..24.0).contains(&d)
        });
        let points = inner_points(&ring, INNER_POINTS);
        assert_eq!(points.len(), INNER_POINTS);
        assert!(points.iter().all(|p| ring.at(*p)));
    }

    #[test]
    fn slight_motion_is_followed() {
        let mut track = track();
        for step in 1..6 {
            let mask = disc(60.0 + 6.0 * step as f32, 60.0, 20.0 + step as f32);
            let image = scene(&mask, [190, 40, 35]);
            assert_eq!(track.update(&image, &answer(mask.clone(), 0.8)), Ok(()));
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
            assert_eq!(track.update(&image, &answer), Err(reason));
            assert_eq!(track.mask(), &same(), "{reason:?}");
        }
    }

    #[test]
    fn slow_growth_ends_at_the_drift_limit() {
        let mut track = track();
        let mut radius = 20.0;
        let lost = (0..20).find_map(|_| {
            radius *= 1.2;
            let mask = disc(60.0, 60.0, radius);
            track.update(&scene(&mask, [200, 30, 30]), &answer(mask, 0.9)).err()
        });
        assert_eq!(lost, Some(LostReason::Area));
        assert!(track.mask().area() <= 4 * disc(60.0, 60.0, 20.0).area());
    }

    proptest! {
        #[test]
        fn inner_points_lie_on_any_mask(bits in prop::collection::vec(0u8..=1, 300 * 40), n in 1usize..5) {
            let mask = Mask::from_bits(Size::new(300, 40), bits).expect("sizes match");
            let points = inner_points(&mask, n);
            prop_assert!(points.len() <= n);
            prop_assert!(points.iter().all(|p| mask.at(*p)));
        }
    }
}
