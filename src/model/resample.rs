//! Resizing to the very bytes that Pillow gives, for towers whose own processor resized with it.
//!
//! [`fast_image_resize`] weighs with 16 bits and is now and then one level of 255 off, which a model that normalises by
//! a small deviation shows in its third digit. This weighs with 22 bits, as Pillow does. Pillow 13 begins with the rows
//! for some tall pictures, which is not done here: their bytes differ by a few levels.

use crate::engine::bundle::Filter;

/// Bits of a weight behind the point.
const PRECISION: u32 = 22;

/// For one output: where its inputs begin, and their weights.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

fn kernel(filter: Filter, x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    match filter {
        Filter::Bilinear => (1.0 - x).max(0.0),
        Filter::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        Filter::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        Filter::Bicubic => 0.0,
    }
}

/// The taps of every output along an axis of `from` inputs.
fn taps(filter: Filter, from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let support = stretch * if filter == Filter::Bicubic { 2.0 } else { 1.0 };
    let one = |i: usize| {
        let centre = (i as f64 + 0.5) * scale;
        let first = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(from);
        let weights: Vec<f64> = (first..end).map(|x| kernel(filter, (x as f64 - centre + 0.5) / stretch)).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |w: &f64| (w / sum * f64::from(1 << PRECISION)).round() as i32;
        Taps { first, weights: weights.iter().map(fixed).collect() }
    };
    (0..to).map(one).collect()
}

fn level(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Packed RGB bytes of `[width, height]` at another size: columns first, then rows. No size is zero.
pub(crate) fn resize(rgb: &[u8], from: [usize; 2], to: [usize; 2], filter: Filter) -> Vec<u8> {
    let wide = if from[0] == to[0] { rgb.to_vec() } else { columns(rgb, from, to[0], filter) };
    if from[1] == to[1] { wide } else { rows(&wide, [to[0], from[1]], to[1], filter) }
}

fn columns(rgb: &[u8], from: [usize; 2], width: usize, filter: Filter) -> Vec<u8> {
    let taps = taps(filter, from[0], width);
    let mut out = Vec::with_capacity(width * from[1] * 3);
    for row in rgb.chunks_exact(from[0] * 3) {
        for Taps { first, weights } in &taps {
            let mut sums = [1 << (PRECISION - 1); 3];
            for (pixel, weight) in row[first * 3..].chunks_exact(3).zip(weights) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * weight;
                }
            }
            out.extend(sums.map(level));
        }
    }
    out
}

fn rows(rgb: &[u8], from: [usize; 2], height: usize, filter: Filter) -> Vec<u8> {
    let bytes = from[0] * 3;
    let mut out = Vec::with_capacity(bytes * height);
    let mut sums = vec![0i32; bytes];
    for Taps { first, weights } in taps(filter, from[1], height) {
        sums.fill(1 << (PRECISION - 1));
        for (row, weight) in rgb[first * bytes..].chunks_exact(bytes).zip(weights) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i32::from(*value) * weight;
            }
        }
        out.extend(sums.iter().map(|sum| level(*sum)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_colour_stays_itself() {
        for filter in [Filter::Bilinear, Filter::Bicubic] {
            let grey = [0u8, 117, 255].repeat(31 * 17);
            for to in [[7, 5], [31, 40], [64, 17], [1, 1]] {
                let found = resize(&grey, [31, 17], to, filter);
                assert_eq!(found, [0u8, 117, 255].repeat(to[0] * to[1]), "{filter:?} {to:?}");
            }
        }
    }
}
