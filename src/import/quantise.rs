//! Weights in 8 or 4 bits: whole numbers, and what one of them is worth.
//!
//! Rounded to the nearest, symmetric around zero; the largest magnitude that shares a scale gets the largest number.
//! The matrices are turned, `[in, out]`, as the product reads them: TensorRT has kernels for blocks along the sum.

use half::f16;

use super::form::Precision;
use super::onnx::tensor_proto::DataType;

/// What the name of a matrix's scales ends with.
pub(super) const SCALES: &str = "/scales";

/// Weights that share a scale in 4 bits, along the sum of a product: the first that divides it.
const BLOCKS: [usize; 3] = [128, 64, 32];

/// A matrix `[in, out]` in few bits.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Quantised {
    /// Type of the numbers.
    pub data_type: DataType,
    /// The numbers, row by row; two a byte in 4 bits, the first in the low half.
    pub numbers: Vec<u8>,
    /// What a number is worth, `[in / block, out]`, or `[out]` without blocks.
    pub scales: Vec<f16>,
    /// Rows that share their scales; none where all of a column's do.
    pub block: Option<usize>,
}

/// How a matrix is stored, whatever its values.
pub(super) struct Layout {
    /// Type of the numbers.
    pub data_type: DataType,
    /// The largest number.
    most: f32,
    /// Rows that share their scales; none where all of a column's do.
    pub block: Option<usize>,
}

impl Layout {
    /// Of a matrix `[out, in]`; `None` for precisions of floats and sizes that no block divides.
    pub(super) fn of([output, input]: [usize; 2], precision: Precision) -> Option<Self> {
        match precision {
            Precision::Fp32 | Precision::Fp16 => None,
            Precision::Int8 => Some(Self { data_type: DataType::Int8, most: 127.0, block: None }),
            Precision::Int4 => {
                let block = BLOCKS.iter().find(|block| input.is_multiple_of(**block)).copied();
                let fits = block.is_some() && output.is_multiple_of(2);
                fits.then_some(Self { data_type: DataType::Int4, most: 7.0, block })
            }
        }
    }
}

/// Quantises a matrix `[out, in]`; `None` where it stays as it is: for precisions of floats, sizes that no block
/// divides, and values so large that 16-bit floats do not hold their scale.
pub(super) fn quantise(values: &[f32], [output, input]: [usize; 2], precision: Precision) -> Option<Quantised> {
    let Layout { data_type, most, block } = Layout::of([output, input], precision)?;
    let rows = block.unwrap_or(input);
    let mut scales = vec![f16::ZERO; input / rows * output];
    let mut numbers = vec![0i8; input * output];
    for (column, weights) in values.chunks_exact(input).enumerate() {
        for (part, weights) in weights.chunks_exact(rows).enumerate() {
            let scale = scale_of(weights, most)?;
            scales[part * output + column] = scale;
            // Divided by the scale as it is stored, so that its own rounding costs nothing.
            let scale = scale.to_f32();
            for (row, weight) in weights.iter().enumerate() {
                let number = (weight / scale).round().clamp(-most, most);
                numbers[(part * rows + row) * output + column] = number as i8;
            }
        }
    }
    let numbers = match data_type {
        DataType::Int4 => {
            numbers.as_chunks::<2>().0.iter().map(|[a, b]| (a & 15) as u8 | ((b & 15) as u8) << 4).collect()
        }
        _ => numbers.into_iter().map(|number| number as u8).collect(),
    };
    Some(Quantised { data_type, numbers, scales, block })
}

/// What 1 is worth where the largest magnitude of `weights` becomes `most`.
fn scale_of(weights: &[f32], most: f32) -> Option<f16> {
    let largest = weights.iter().fold(0f32, |largest, weight| largest.max(weight.abs()));
    let scale = f16::from_f32(largest / most);
    // All of them are zero, or as good as that in 16 bits.
    let scale = if scale == f16::ZERO { f16::MIN_POSITIVE } else { scale };
    (largest.is_finite() && scale.is_finite()).then_some(scale)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn wave(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 0.37).sin() * 0.1 * (1.0 + (i / 64) as f32)).collect()
    }

    /// The matrix `[out, in]` that the numbers stand for.
    fn back(q: &Quantised, [output, input]: [usize; 2]) -> Vec<f32> {
        let number = |i: usize| match q.data_type {
            DataType::Int4 => f32::from(((q.numbers[i / 2] >> (4 * (i % 2))) << 4) as i8 >> 4),
            _ => f32::from(q.numbers[i] as i8),
        };
        let rows = q.block.unwrap_or(input);
        let at =
            |column: usize, row: usize| number(row * output + column) * q.scales[row / rows * output + column].to_f32();
        (0..output).flat_map(|column| (0..input).map(move |row| (column, row))).map(|(c, r)| at(c, r)).collect()
    }

    #[test]
    fn no_weight_is_further_off_than_half_a_step() {
        let (shape, values) = ([6, 192], wave(6 * 192));
        for (precision, most, block) in [(Precision::Int8, 127.0, 192), (Precision::Int4, 7.0, 64)] {
            let quantised = quantise(&values, shape, precision).unwrap();
            let found = back(&quantised, shape);
            for (wanted, found) in values.chunks(block).zip(found.chunks(block)) {
                let largest = wanted.iter().fold(0f32, |m, v| m.max(v.abs()));
                let off = wanted.iter().zip(found).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
                // Half a step, and what the scale's own rounding takes from the largest.
                assert!(off <= largest / most * 0.5 * 1.01 + largest / 2048.0, "{precision:?}: {off} of {largest}");
                assert!(off > 0.0);
            }
        }
    }

    #[test]
    fn what_cannot_be_quantised_stays() {
        assert_eq!(quantise(&wave(64), [1, 64], Precision::Fp16), None);
        assert_eq!(quantise(&wave(80), [2, 40], Precision::Int4), None);
        assert_eq!(quantise(&wave(96), [3, 32], Precision::Int4), None);
        let mut values = wave(64);
        values[3] = f32::INFINITY;
        assert_eq!(quantise(&values, [1, 64], Precision::Int8), None);
        let zeros = quantise(&[0.0; 64], [2, 32], Precision::Int4).unwrap();
        assert!(zeros.numbers.iter().all(|n| *n == 0) && zeros.scales.iter().all(|s| s.is_finite()));
    }
}
