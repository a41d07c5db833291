//! Colour filter mosaics to RGB, by bilinear interpolation: the mean of the two or four nearest samples of a colour,
//! halves up. Beyond the border the mosaic goes on mirrored about its outermost pixels, which keeps its pattern.

use super::encoding::Mosaic;

/// RGB of a mosaic, `u8[height, width]`, of at least 2 x 2 pixels.
pub(super) fn demosaic(mosaic: Mosaic, grey: &[u8], width: usize, out: &mut [u8]) {
    let height = grey.len() / width;
    let row = |y: usize| &grey[y * width..][..width];
    let (red_x, red_y) = mosaic.red();
    for (y, out) in out.chunks_exact_mut(3 * width).enumerate() {
        let (above, here, below) = (row(before(y)), row(y), row(after(y, height)));
        // The rows of red and those of blue differ only in which of the two is "mine".
        let red_row = y % 2 == red_y;
        let mine_at = if red_row { red_x } else { 1 - red_x };
        for (x, out) in out.chunks_exact_mut(3).enumerate() {
            let (left, right) = (before(x), after(x, width));
            let (mine, green, other) = if x % 2 == mine_at {
                let green = mean4([here[left], here[right], above[x], below[x]]);
                (here[x], green, mean4([above[left], above[right], below[left], below[right]]))
            } else {
                (mean2(here[left], here[right]), here[x], mean2(above[x], below[x]))
            };
            let [red, blue] = if red_row { [mine, other] } else { [other, mine] };
            (out[0], out[1], out[2]) = (red, green, blue);
        }
    }
}

fn before(at: usize) -> usize {
    if at == 0 { 1 } else { at - 1 }
}

fn after(at: usize, side: usize) -> usize {
    if at + 1 == side { side - 2 } else { at + 1 }
}

fn mean2(a: u8, b: u8) -> u8 {
    (u16::from(a) + u16::from(b)).div_ceil(2) as u8
}

fn mean4(v: [u8; 4]) -> u8 {
    ((v.iter().map(|v| u16::from(*v)).sum::<u16>() + 2) / 4) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Normalised convolution of the samples of each colour with a tent, the mosaic mirrored: another way to say
    /// the same.
    fn tent(mosaic: &str, grey: &[u8], w: i64, h: i64) -> Vec<u8> {
        let mirror = |i: i64, n: i64| {
            if i < 0 {
                -i
            } else if i >= n {
                2 * n - 2 - i
            } else {
                i
            }
        };
        let colour = |x: i64, y: i64| mosaic.as_bytes()[((y & 1) * 2 + (x & 1)) as usize];
        let mut out = Vec::new();
        for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
            for wanted in *b"rgb" {
                let (mut sum, mut weights) = (0.0, 0.0);
                for (dy, dx) in (-1..=1).flat_map(|dy| (-1i64..=1).map(move |dx| (dy, dx))) {
                    // Green lies so densely that its own diagonals are not needed.
                    let near = (2 - dx.abs()) * (2 - i64::abs(dy));
                    let weight = if wanted == b'g' && near == 1 { 0 } else { near } as f64;
                    let own = colour(x, y) == wanted;
                    if colour(x + dx + 2, y + dy + 2) == wanted && (!own || (dx, dy) == (0, 0)) {
                        sum += weight * f64::from(grey[(mirror(y + dy, h) * w + mirror(x + dx, w)) as usize]);
                        weights += weight;
                    }
                }
                out.push((sum / weights + 0.5).floor() as u8);
            }
        }
        out
    }

    #[test]
    fn it_is_a_tent_over_each_colour() {
        let cases = [("rggb", Mosaic::Rggb), ("bggr", Mosaic::Bggr), ("gbrg", Mosaic::Gbrg), ("grbg", Mosaic::Grbg)];
        for (name, mosaic) in cases {
            for (w, h) in [(2, 2), (7, 5), (6, 9), (2, 5)] {
                let grey: Vec<u8> = (0..w * h).map(|i| (i * 73 + i * i * 29) as u8).collect();
                let mut out = vec![0; grey.len() * 3];
                demosaic(mosaic, &grey, w, &mut out);
                assert_eq!(out, tent(name, &grey, w as i64, h as i64), "{name} {w}x{h}");
            }
        }
    }
}
