//! Low-resolution mask logits to a mask in source pixels.
//!
//! Equal to `SamImageProcessor.post_process_masks` of `transformers`: bilinear to the padded model input, crop of
//! the padding, bilinear to the frame, threshold 0. Both steps are linear and separable, so each axis is one
//! sparse matrix: columns first, then rows, and only where a positive logit reaches.

use std::ops::Range;

use super::preprocess::Placement;
use crate::mask::Mask;

/// What one output position takes from the inputs: `weights` from `start` on.
struct Taps {
    start: usize,
    weights: Vec<f32>,
}

impl Taps {
    fn range(&self) -> Range<usize> {
        self.start..self.start + self.weights.len()
    }
}

/// Upsamples the logits of frames of one placement; the matrices are built once.
pub struct Upsampler {
    placement: Placement,
    low: (usize, usize),
    columns: Vec<Taps>,
    rows: Vec<Taps>,
}

impl Upsampler {
    /// For logits of `low` = (width, height) elements that cover the whole model input.
    pub fn new(placement: Placement, low: (usize, usize)) -> Self {
        let Placement { source, resized, input } = placement;
        Self {
            placement,
            low,
            columns: axis(low.0, input.width, resized.width, source.width),
            rows: axis(low.1, input.height, resized.height, source.height),
        }
    }

    /// Whether this upsampler is the one for `placement` and `low`.
    pub fn fits(&self, placement: Placement, low: (usize, usize)) -> bool {
        self.placement == placement && self.low == low
    }

    /// The mask of `logits`, `f32[height, width]` row-major; positive is on.
    ///
    /// # Panics
    /// Where the number of logits is not width × height.
    pub fn run(&self, logits: &[f32]) -> Mask {
        let (low_w, low_h) = self.low;
        assert_eq!(logits.len(), low_w * low_h, "logits cover the model input");
        let (w, h) = (self.placement.source.width as usize, self.placement.source.height as usize);
        let mut bits = vec![0u8; w * h];
        if let Some((xs, ys)) = positive_extent(logits, low_w) {
            let (columns, rows) = (reached(&self.columns, &xs), reached(&self.rows, &ys));
            let taken = || rows.clone().map(|y| self.rows[y].range());
            let needed = taken().map(|r| r.start).min().unwrap_or(0)..taken().map(|r| r.end).max().unwrap_or(0);
            let wide = self.widen(logits, &columns, &needed);
            let mut sum = vec![0f32; columns.len()];
            for y in rows {
                let taps = &self.rows[y];
                sum.fill(0.0);
                for (i, &weight) in taps.weights.iter().enumerate() {
                    let row = &wide[(taps.start + i - needed.start) * columns.len()..][..columns.len()];
                    sum.iter_mut().zip(row).for_each(|(s, v)| *s += weight * v);
                }
                let out = &mut bits[y * w..][columns.clone()];
                out.iter_mut().zip(&sum).for_each(|(bit, s)| *bit = u8::from(*s > 0.0));
            }
        }
        Mask::from_bits(self.placement.source, bits).expect("one byte a pixel, 0 or 1")
    }

    /// The rows `needed` of the logits, widened to the output's `columns`.
    fn widen(&self, logits: &[f32], columns: &Range<usize>, needed: &Range<usize>) -> Vec<f32> {
        let mut wide = Vec::with_capacity(columns.len() * needed.len());
        for row in needed.clone() {
            let row = &logits[row * self.low.0..][..self.low.0];
            wide.extend(
                self.columns[columns.clone()]
                    .iter()
                    .map(|taps| taps.weights.iter().zip(&row[taps.range()]).map(|(weight, v)| weight * v).sum::<f32>()),
            );
        }
        wide
    }
}

/// The columns and rows between which positive logits lie, or `None` where there are none.
fn positive_extent(logits: &[f32], width: usize) -> Option<(Range<usize>, Range<usize>)> {
    let mut extent: Option<(Range<usize>, Range<usize>)> = None;
    for (y, row) in logits.chunks_exact(width).enumerate() {
        let Some(first) = row.iter().position(|v| *v > 0.0) else { continue };
        let last = row.iter().rposition(|v| *v > 0.0).unwrap_or(first);
        extent = Some(match extent {
            Some((xs, ys)) => (xs.start.min(first)..xs.end.max(last + 1), ys.start..y + 1),
            None => (first..last + 1, y..y + 1),
        });
    }
    extent
}

/// The output positions that take anything from `inputs`; weights are never negative, so all others stay off.
fn reached(taps: &[Taps], inputs: &Range<usize>) -> Range<usize> {
    let meets = |t: &Taps| t.start < inputs.end && inputs.start < t.range().end;
    let first = taps.iter().position(meets).unwrap_or(0);
    first..taps.iter().rposition(meets).map_or(first, |last| last + 1)
}

/// The two bilinear steps of one axis as one matrix: `low` → `input`, cut to `resized`, → `source`.
fn axis(low: usize, input: u32, resized: u32, source: u32) -> Vec<Taps> {
    let (input, resized, source) = (input as usize, resized as usize, source as usize);
    let inner: Vec<_> = (0..resized).map(|i| bilinear(i, low, input)).collect();
    (0..source)
        .map(|i| {
            let (a, b, t) = bilinear(i, resized, source);
            let (start, end) = (inner[a].0, inner[b].1 + 1);
            let mut weights = vec![0f32; end - start];
            for (at, share) in [(a, 1.0 - t), (b, t)] {
                let (p, q, s) = inner[at];
                weights[p - start] += (share * (1.0 - s)) as f32;
                weights[q - start] += (share * s) as f32;
            }
            // The second neighbour may weigh nothing at all, and would widen the reach for nothing.
            let used = weights.iter().rposition(|w| *w > 0.0).map_or(1, |last| last + 1);
            weights.truncate(used);
            Taps { start, weights }
        })
        .collect()
}

/// Neighbours of output `i` and the weight of the second: `torch`'s `interpolate` with `align_corners=False`.
fn bilinear(i: usize, from: usize, to: usize) -> (usize, usize, f64) {
    let at = ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0);
    let a = (at as usize).min(from - 1);
    (a, (a + 1).min(from - 1), at - a as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::geometry::{Size, SourcePx};

    /// The definition, step by step.
    fn reference(logits: &[f32], low: (usize, usize), p: Placement) -> Mask {
        let resize = |v: &[f64], (w, h): (usize, usize), (ow, oh): (usize, usize)| -> Vec<f64> {
            let mut out = Vec::new();
            for y in 0..oh {
                let (a, b, t) = bilinear(y, h, oh);
                for x in 0..ow {
                    let (c, d, s) = bilinear(x, w, ow);
                    let row = |r: usize| v[r * w + c] * (1.0 - s) + v[r * w + d] * s;
                    out.push(row(a) * (1.0 - t) + row(b) * t);
                }
            }
            out
        };
        let side = |w: u32, h: u32| (w as usize, h as usize);
        let (input, resized) = (side(p.input.width, p.input.height), side(p.resized.width, p.resized.height));
        let logits: Vec<f64> = logits.iter().map(|v| f64::from(*v)).collect();
        let large = resize(&logits, low, input);
        let cut: Vec<f64> = large.chunks(input.0).take(resized.1).flat_map(|r| r[..resized.0].to_vec()).collect();
        let source = side(p.source.width, p.source.height);
        let out = resize(&cut, resized, source);
        Mask::from_fn(p.source, |x, y| out[y as usize * source.0 + x as usize] > 0.0)
    }

    fn placement(source: (u32, u32), resized: (u32, u32), input: (u32, u32)) -> Placement {
        Placement {
            source: Size::<SourcePx>::new(source.0, source.1),
            resized: Size::new(resized.0, resized.1),
            input: Size::new(input.0, input.1),
        }
    }

    proptest! {
        #[test]
        fn equals_the_two_step_definition(
            logits in prop::collection::vec(-4.0f32..3.0, 64),
            source in (1u32..90, 1u32..90),
            resized in (1u32..=32, 1u32..=32),
        ) {
            let p = placement(source, resized, (32, 32));
            let (got, want) = (Upsampler::new(p, (8, 8)).run(&logits), reference(&logits, (8, 8), p));
            // Sums in another order may differ within an ulp of zero.
            let differ = got.bits().iter().zip(want.bits()).filter(|(a, b)| a != b).count();
            prop_assert!(differ <= 1, "{differ} pixels differ");
        }
    }

    #[test]
    fn a_lone_positive_is_found_and_nothing_is_not() {
        let p = placement((640, 480), (256, 192), (256, 256));
        let up = Upsampler::new(p, (64, 64));
        let mut logits = vec![-1.0; 64 * 64];
        assert_eq!(up.run(&logits).area(), 0);
        logits[20 * 64 + 30] = 5.0;
        let mask = up.run(&logits);
        let bbox = mask.bbox().expect("not empty");
        // Low-res pixel (30, 20) covers source pixels 300..310 x 200..210.
        assert!((bbox.centre().x - 305.0).abs() < 1.0 && (bbox.centre().y - 205.0).abs() < 1.0, "{bbox:?}");
    }

    #[test]
    fn padding_leaves_no_trace() {
        // Everything positive lies in the padding below the frame.
        let p = placement((640, 320), (256, 128), (256, 256));
        let mut logits = vec![-1.0; 64 * 64];
        logits[40 * 64..].fill(9.0);
        assert_eq!(Upsampler::new(p, (64, 64)).run(&logits).area(), 0);
    }
}
