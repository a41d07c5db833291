//! `W + s · B · A`, while W passes by.

/// Adds a low-rank product to a matrix `[out, in]` that comes in pieces, row by row.
pub(crate) struct Merge {
    /// `[rank, in]`.
    a: Vec<f32>,
    /// `[out, rank]`, times s.
    b: Vec<f32>,
    input: usize,
    rank: usize,
    /// Elements of the matrix that have passed.
    passed: usize,
    /// The row of `s · B · A` that is passing.
    row: Vec<f32>,
}

impl Merge {
    /// For A of `[rank, in]`, B of `[out, rank]`, and s.
    pub(crate) fn new(a: Vec<f32>, mut b: Vec<f32>, rank: usize, scale: f32) -> Self {
        let input = a.len() / rank;
        b.iter_mut().for_each(|x| *x *= scale);
        Self { a, b, input, rank, passed: 0, row: vec![0.0; input] }
    }

    /// Adds its part of the product to the next elements of the matrix.
    pub(crate) fn add(&mut self, mut values: &mut [f32]) {
        while !values.is_empty() {
            let (row, column) = (self.passed / self.input, self.passed % self.input);
            if column == 0 {
                self.compute(row);
            }
            let (now, rest) = values.split_at_mut(values.len().min(self.input - column));
            now.iter_mut().zip(&self.row[column..]).for_each(|(w, delta)| *w += delta);
            self.passed += now.len();
            values = rest;
        }
    }

    fn compute(&mut self, row: usize) {
        self.row.fill(0.0);
        let factors = &self.b[row * self.rank..][..self.rank];
        for (&factor, line) in factors.iter().zip(self.a.chunks_exact(self.input)) {
            self.row.iter_mut().zip(line).for_each(|(sum, &x)| *sum += factor * x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_length_give_the_whole_sum() {
        let (rank, input, output, scale) = (3, 5, 4, 0.5);
        let wave = |n: usize, f: f32| (0..n).map(|i| (i as f32 * f).sin()).collect::<Vec<_>>();
        let (w, a, b) = (wave(output * input, 0.7), wave(rank * input, 1.3), wave(output * rank, 2.1));
        let wanted: Vec<f32> = (0..output * input)
            .map(|i| {
                let products = (0..rank).map(|k| b[i / input * rank + k] * a[k * input + i % input]);
                w[i] + scale * products.sum::<f32>()
            })
            .collect();
        for piece in [1, 3, 5, 7, 20] {
            let mut merge = Merge::new(a.clone(), b.clone(), rank, scale);
            let mut merged = w.clone();
            merged.chunks_mut(piece).for_each(|values| merge.add(values));
            assert!(merged.iter().zip(&wanted).all(|(x, y)| (x - y).abs() < 1e-6), "{piece}: {merged:?} {wanted:?}");
        }
    }
}
