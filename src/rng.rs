//! The only source of randomness, of scenes and of training points, with range helpers whose values never change.
//!
//! The helpers are written out here because those of `rand` may draw differently in another version;
//! a scene must stay the same scene for years.

use rand_core::Rng as _;
use rand_pcg::Pcg64Mcg;

/// A generator seeded by a list of numbers.
#[derive(Debug, Clone)]
pub struct SceneRng(Pcg64Mcg);

impl SceneRng {
    /// The generator that belongs to `parts`, in that order.
    pub fn new(parts: &[u64]) -> Self {
        let mut state = 0x5334_4d34_4c4c_4d31u64;
        for &part in parts {
            state = splitmix(state ^ part.wrapping_mul(0xff51_afd7_ed55_8ccd));
        }
        let (low, high) = (splitmix(state), splitmix(state ^ 0x9e37_79b9_7f4a_7c15));
        Self(Pcg64Mcg::new((u128::from(high) << 64) | u128::from(low)))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `0.0..1.0`, in steps of 2⁻²⁴.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Uniform in `lo..hi`.
    pub fn range(&mut self, lo: f32, hi: f32) -> f32 {
        lo + (hi - lo) * self.unit()
    }

    /// Uniform in `-limit..limit`.
    pub fn spread(&mut self, limit: f32) -> f32 {
        self.range(-limit, limit)
    }

    /// Uniform in `0..n`; `n` must not be 0.
    pub fn below(&mut self, n: usize) -> usize {
        debug_assert!(n > 0, "an empty range has no element");
        (((self.bits() >> 32) * n as u64) >> 32) as usize
    }

    /// Uniform in `lo..=hi`.
    pub fn between(&mut self, lo: usize, hi: usize) -> usize {
        lo + self.below(hi - lo + 1)
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f32) -> bool {
        self.unit() < p
    }

    /// A uniformly drawn element; `items` must not be empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// An index drawn in proportion to `weights`, which must not all be 0.
    pub fn weighted(&mut self, weights: &[f32]) -> usize {
        let mut left = self.unit() * weights.iter().sum::<f32>();
        for (i, &w) in weights.iter().enumerate() {
            if left < w {
                return i;
            }
            left -= w;
        }
        weights.iter().rposition(|&w| w > 0.0).expect("some weight is positive")
    }

    /// Puts `items` in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// One step of splitmix64, used to spread related seeds apart.
pub(crate) fn splitmix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Sine and cosine of an angle in turns (1.0 is a full circle), good to 1e-6.
///
/// Polynomials of plain IEEE operations: the C library's functions differ between platforms in the last bit,
/// which would move pixels.
pub fn sin_cos_turns(turns: f32) -> (f32, f32) {
    let t = turns - turns.floor();
    let quarter = (t * 4.0 + 0.5) as i32;
    let x = (t - quarter as f32 * 0.25) * std::f32::consts::TAU;
    let x2 = x * x;
    let sin = x * (1.0 - x2 * (1.0 / 6.0 - x2 * (1.0 / 120.0 - x2 / 5040.0)));
    let cos = 1.0 - x2 * (0.5 - x2 * (1.0 / 24.0 - x2 * (1.0 / 720.0 - x2 / 40320.0)));
    match quarter & 3 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay() {
        let mut rng = SceneRng::new(&[1, 2, 3]);
        let drawn: Vec<usize> = (0..8).map(|_| rng.below(100)).collect();
        assert_eq!(drawn, [53, 29, 44, 74, 63, 3, 82, 99]);
    }

    #[test]
    fn sine_is_right() {
        for i in -400..400 {
            let t = i as f32 / 100.0;
            let (s, c) = sin_cos_turns(t);
            let exact = f64::from(t) * std::f64::consts::TAU;
            assert!((f64::from(s) - exact.sin()).abs() < 2e-6, "sin {t}");
            assert!((f64::from(c) - exact.cos()).abs() < 2e-6, "cos {t}");
        }
    }
}
