//! What decoding took, beside what it would have taken without drafts.

/// Logits of the two best tokens closer than this may change places when the same tokens are fed in passes of another
/// length, for sums of floats depend on how they are grouped.
pub const NEAR_TIE: f32 = 1e-3;

/// What was decoded, and how much of it had been drafted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decoded {
    /// Passes that the same tokens take one at a time, one question after the other, the image's own pass included.
    pub one_by_one: u32,
    /// Tokens that were drafted.
    pub drafted: u32,
    /// Drafted tokens that the model would have said itself.
    pub accepted: u32,
    /// Tokens whose two best logits differ by less than [`NEAR_TIE`]: only they could be others without drafts.
    pub near_ties: u32,
}

impl Decoded {
    /// Counts a token that was said.
    pub(super) fn token(&mut self, near_tie: bool) {
        self.one_by_one += 1;
        self.near_ties += u32::from(near_tie);
    }
}

impl std::ops::AddAssign for Decoded {
    fn add_assign(&mut self, other: Self) {
        self.one_by_one += other.one_by_one;
        self.drafted += other.drafted;
        self.accepted += other.accepted;
        self.near_ties += other.near_ties;
    }
}

/// Whether the two largest of `p` come from logits closer than [`NEAR_TIE`].
pub(super) fn is_near_tie(p: &[f32]) -> bool {
    let (best, second) = p.iter().fold((0f32, 0f32), |(best, second), &v| match v > best {
        true => (v, best),
        false => (best, second.max(v)),
    });
    are_near(best, second)
}

/// Whether two probabilities of one softmax come from logits closer than [`NEAR_TIE`].
pub(super) fn are_near(a: f32, b: f32) -> bool {
    (a.ln() - b.ln()).abs() < NEAR_TIE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_ties_are_told_by_logits() {
        let softmax = |logits: [f32; 3]| {
            let sum: f32 = logits.iter().map(|l| l.exp()).sum();
            logits.map(|l| l.exp() / sum)
        };
        assert!(is_near_tie(&softmax([1.0, 3.0, 2.9995])));
        assert!(is_near_tie(&softmax([3.0, 3.0, 1.0])));
        assert!(!is_near_tie(&softmax([1.0, 3.0, 2.998])));
        assert!(!is_near_tie(&[1.0, 0.0, 0.0]) && !is_near_tie(&[]));
    }
}
