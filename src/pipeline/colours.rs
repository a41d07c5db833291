//! What an instance looks like: the colours under its mask.

use crate::frame::Image;
use crate::mask::Mask;

/// Pixels that a colour histogram is taken from, at most about.
const COLOUR_SAMPLES: f32 = 4096.0;
/// Levels of a colour channel in a histogram.
const LEVELS: usize = 4;

/// A histogram of the colours under a mask; sums to 1.
#[derive(Debug, Clone)]
pub(super) struct Colours([f32; LEVELS * LEVELS * LEVELS]);

impl Colours {
    /// Each pixel is shared among the eight nearest bins, so that a slight change of light changes little.
    pub(super) fn of(image: &Image, mask: &Mask, area: f32) -> Self {
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
    pub(super) fn similarity(&self, other: &Self) -> f32 {
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
