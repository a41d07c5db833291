//! Raw rows to RGB rows, a pixel in a few operations and none of them a branch.
//!
//! YUV is BT.601, the matrix that ROS (`cv_bridge`) and USB cameras use: with Kr = 0.299, Kb = 0.114 and
//! Kg = 1 - Kr - Kb, for limited range
//!
//! ```text
//! y = 255 (Y - 16) / 219    u = 255 (U - 128) / 224    v = 255 (V - 128) / 224
//! R = y + 2 (1 - Kr) v
//! G = y - 2 (1 - Kb) Kb / Kg u - 2 (1 - Kr) Kr / Kg v
//! B = y + 2 (1 - Kb) u
//! ```
//!
//! and for full range with y = Y, u = U - 128, v = V - 128; rounded to the nearest and clamped to `0..=255`. Pixels
//! that share chroma get the same, without interpolation. Source: ITU-R BT.601-7, section 2.5; JFIF 1.02.

/// What luma and chroma add to each colour.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix {
    y: f32,
    y_offset: f32,
    r_v: f32,
    g_u: f32,
    g_v: f32,
    b_u: f32,
}

impl Matrix {
    /// BT.601 for luma steps of `y` from `black` on and chroma steps of `c`.
    const fn bt601(y: f64, black: f64, c: f64) -> Self {
        const KR: f64 = 0.299;
        const KB: f64 = 0.114;
        const KG: f64 = 1.0 - KR - KB;
        Self {
            y: y as f32,
            y_offset: (-y * black) as f32,
            r_v: (c * 2.0 * (1.0 - KR)) as f32,
            g_u: (-c * 2.0 * (1.0 - KB) * KB / KG) as f32,
            g_v: (-c * 2.0 * (1.0 - KR) * KR / KG) as f32,
            b_u: (c * 2.0 * (1.0 - KB)) as f32,
        }
    }

    /// For limited or full range.
    pub(super) fn of(full_range: bool) -> &'static Self {
        const LIMITED: Matrix = Matrix::bt601(255.0 / 219.0, 16.0, 255.0 / 224.0);
        const FULL: Matrix = Matrix::bt601(1.0, 0.0, 1.0);
        if full_range { &FULL } else { &LIMITED }
    }
}

/// Pixels that are converted at a time: enough to fill vector registers, few enough to stay in the first cache.
const LANES: usize = 64;
const PAIRS: usize = LANES / 2;

/// Luma and chroma of some pixels, apart.
struct Block {
    y: [u8; LANES],
    u: [u8; PAIRS],
    v: [u8; PAIRS],
}

/// Where the samples of two neighbours are: in one row of Y, Y and chroma together, or in two rows.
#[derive(Debug, Clone, Copy)]
pub(super) enum Samples<'a> {
    /// Four bytes for two pixels; the positions of both Y, U and V in them.
    Interleaved { row: &'a [u8], y: [usize; 2], u: usize, v: usize },
    /// A row of Y and one of chroma pairs; the positions of U and V in those.
    Planar { luma: &'a [u8], chroma: &'a [u8], u: usize, v: usize },
}

impl Samples<'_> {
    /// Fills the block with pixels from `from` on, as many as there are.
    fn read(&self, from: usize, pixels: usize, block: &mut Block) {
        let chroma = block.u.iter_mut().zip(&mut block.v);
        match *self {
            Self::Interleaved { row, y, u, v } => {
                let groups = row[2 * from..][..2 * pixels].chunks_exact(4);
                for ((group, (to_u, to_v)), to_y) in groups.zip(chroma).zip(block.y.chunks_exact_mut(2)) {
                    (to_y[0], to_y[1], *to_u, *to_v) = (group[y[0]], group[y[1]], group[u], group[v]);
                }
            }
            Self::Planar { luma, chroma: pairs, u, v } => {
                block.y[..pixels].copy_from_slice(&luma[from..][..pixels]);
                for (pair, (to_u, to_v)) in pairs[from..][..pixels].chunks_exact(2).zip(chroma) {
                    (*to_u, *to_v) = (pair[u], pair[v]);
                }
            }
        }
    }
}

/// Converts one row of YUV to RGB; `out` has three bytes for each of its pixels, whose number is even.
pub(super) fn yuv_row(matrix: &Matrix, samples: Samples<'_>, out: &mut [u8]) {
    let mut block = Block { y: [0; LANES], u: [0; PAIRS], v: [0; PAIRS] };
    for (i, out) in out.chunks_mut(3 * LANES).enumerate() {
        let pixels = out.len() / 3;
        samples.read(i * LANES, pixels, &mut block);
        if let Ok(out) = <&mut [u8; 3 * LANES]>::try_from(&mut *out) {
            yuv_block(matrix, &block, out);
        } else {
            let mut last = [0; 3 * LANES];
            yuv_block(matrix, &block, &mut last);
            out.copy_from_slice(&last[..out.len()]);
        }
    }
}

fn yuv_block(m: &Matrix, block: &Block, out: &mut [u8; 3 * LANES]) {
    // By colour: what the pixel's chroma adds.
    let mut add = [[0f32; LANES]; 3];
    for i in 0..PAIRS {
        let (u, v) = (f32::from(block.u[i]) - 128.0, f32::from(block.v[i]) - 128.0);
        let of = [m.r_v * v + m.y_offset, m.g_u * u + m.g_v * v + m.y_offset, m.b_u * u + m.y_offset];
        for (add, of) in add.iter_mut().zip(of) {
            (add[2 * i], add[2 * i + 1]) = (of, of);
        }
    }
    let mut pixels = [0u32; LANES];
    for i in 0..LANES {
        let y = f32::from(block.y[i]) * m.y;
        pixels[i] = byte(y + add[0][i]) | byte(y + add[1][i]) << 8 | byte(y + add[2][i]) << 16;
    }
    // Four pixels are three words.
    for (p, out) in pixels.chunks_exact(4).zip(out.chunks_exact_mut(12)) {
        let words = [p[0] | p[1] << 24, p[1] >> 8 | p[2] << 16, p[2] >> 16 | p[3] << 8];
        for (word, out) in words.iter().zip(out.chunks_exact_mut(4)) {
            out.copy_from_slice(&word.to_le_bytes());
        }
    }
}

/// The nearest integer, clamped to `0..=255`.
fn byte(value: f32) -> u32 {
    // Comparisons rather than `clamp`, and the addition rather than a cast, because they stay in vector registers:
    // floats at 2^23 are one apart, so that adding 2^23 rounds, and leaves the integer in the low bits.
    let low = if value > 0.0 { value } else { 0.0 };
    let high = if low < 255.0 { low } else { 255.0 };
    (high + 8_388_608.0).to_bits() & 0xFF
}

/// Converts one row of pixels of `N` bytes, the red, green and blue ones at the given positions.
pub(super) fn packed_row<const N: usize>(row: &[u8], rgb: [usize; 3], out: &mut [u8]) {
    for (pixel, out) in row.chunks_exact(N).zip(out.chunks_exact_mut(3)) {
        (out[0], out[1], out[2]) = (pixel[rgb[0]], pixel[rgb[1]], pixel[rgb[2]]);
    }
}

/// Converts one row of grey pixels of `N` bytes, of which the one at `high` counts.
pub(super) fn grey_row<const N: usize>(row: &[u8], high: usize, out: &mut [u8]) {
    for (pixel, out) in row.chunks_exact(N).zip(out.chunks_exact_mut(3)) {
        out.fill(pixel[high]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The formula above, in doubles.
    fn rgb(y: u8, u: u8, v: u8, full: bool) -> [f64; 3] {
        let (y, u, v) = (f64::from(y), f64::from(u) - 128.0, f64::from(v) - 128.0);
        let (y, u, v) =
            if full { (y, u, v) } else { ((y - 16.0) * 255.0 / 219.0, u * 255.0 / 224.0, v * 255.0 / 224.0) };
        [y + 1.402 * v, y - 0.114 * 1.772 / 0.587 * u - 0.299 * 1.402 / 0.587 * v, y + 1.772 * u]
    }

    #[test]
    fn every_colour_is_rounded_as_the_formula_says() {
        let mut out = [0; 3 * 256];
        for full in [false, true] {
            let mut ties = 0;
            for (u, v) in (0..=255).flat_map(|u| (0..=255).map(move |v| (u, v))) {
                let luma: Vec<u8> = (0..=255).collect();
                let chroma = [u, v].repeat(128);
                yuv_row(Matrix::of(full), Samples::Planar { luma: &luma, chroma: &chroma, u: 0, v: 1 }, &mut out);
                for (y, got) in (0..=255).zip(out.chunks(3)) {
                    for (exact, got) in rgb(y, u, v, full).into_iter().zip(got) {
                        let exact = exact.clamp(0.0, 255.0);
                        // Halfway between two integers either is the nearest.
                        let tie = ((exact.fract() - 0.5).abs()) < 1e-4;
                        ties += u32::from(tie);
                        let off = (exact - f64::from(*got)).abs();
                        assert!(off <= if tie { 0.5001 } else { 0.5 }, "{y} {u} {v} {full}: {exact} {got}");
                    }
                }
            }
            assert!(ties < 3 * (1 << 24) / 100, "{ties} ties say nothing");
        }
    }

    #[test]
    fn known_colours_are_known() {
        // BT.601's colour bars at 100 %, limited range.
        let bars: [([u8; 3], [u8; 3]); 6] = [
            ([235, 128, 128], [255, 255, 255]),
            ([16, 128, 128], [0, 0, 0]),
            ([81, 90, 240], [254, 0, 0]),
            ([145, 54, 34], [0, 255, 1]),
            ([41, 240, 110], [0, 0, 255]),
            ([210, 16, 146], [255, 255, 0]),
        ];
        for ([y, u, v], expected) in bars {
            let mut out = [0; 6];
            let row = [y, u, y, v];
            yuv_row(Matrix::of(false), Samples::Interleaved { row: &row, y: [0, 2], u: 1, v: 3 }, &mut out);
            for (got, want) in out.iter().zip(expected.iter().cycle()) {
                assert!(got.abs_diff(*want) <= 1, "{row:?}: {out:?}");
            }
            assert_eq!(out[..3], out[3..]);
        }
    }
}
