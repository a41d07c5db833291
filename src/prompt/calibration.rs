//! What a confidence is worth: from what the models say of an answer to the probability that it is right.

use crate::engine::bundle::Calibration;

/// Nearest to 0 and 1 that a probability is taken for: what lies beyond says "surely", and has no finite logit.
const EDGE: f32 = 1e-4;

/// What a mask tells of an instance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MaskSigns {
    /// SAM's predicted IoU, `0.0..=1.0`; NaN says nothing.
    pub score: f32,
    /// The mask's area on its own frame over that of the language model's box, at most 1.5: a mask that is large for the
    /// box is often of something else.
    pub fill: f32,
}

/// A mask that is larger than this, in areas of the box, is no more suspect for it.
const MOST_FILL: f32 = 1.5;

impl MaskSigns {
    /// Of a mask of `area` pixels that was drawn for a box of `box_area` pixels.
    pub fn new(score: f32, area: u64, box_area: f32) -> Self {
        // A box of no area is filled whatever the mask is; nothing over nothing would be NaN.
        Self { score, fill: (area as f32 / box_area.max(1.0)).min(MOST_FILL) }
    }
}

impl Calibration {
    /// A confidence is worth what it says, with a mask and without.
    pub const IDENTITY: Self = Self { temperature: 1.0, bias: 0.0, mask: None };

    /// The probability, from the language model's `confidence` alone; both in `0.0..=1.0`.
    pub fn language(&self, confidence: f32) -> f32 {
        // Exactly what it was: no rounding where nothing is to be done.
        if self.temperature == 1.0 && self.bias == 0.0 {
            return confidence;
        }
        sigmoid(logit(confidence) / self.temperature + self.bias)
    }

    /// The probability, once SAM has drawn the mask; `confidence` is already calibrated.
    ///
    /// NaN for a score is as good as none: then `confidence` stays.
    pub fn with_mask(&self, confidence: f32, signs: MaskSigns) -> f32 {
        let MaskSigns { score, fill } = signs;
        match self.mask {
            Some(m) if !score.is_nan() => {
                sigmoid(m.language * logit(confidence) + m.score * logit(score) + m.fill * fill + m.bias)
            }
            _ => confidence,
        }
    }
}

/// `ln(p / (1 - p))`, with `p` kept off 0 and 1.
pub(crate) fn logit(p: f32) -> f32 {
    let p = p.clamp(EDGE, 1.0 - EDGE);
    (p / (1.0 - p)).ln()
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::engine::bundle::MaskCalibration;

    /// Of a mask that fills half of the box.
    fn signs(score: f32) -> MaskSigns {
        MaskSigns::new(score, 50, 100.0)
    }

    #[test]
    fn identity_changes_no_bit() {
        for p in [0.0, 1e-9, 0.1, 0.3, 0.999_999, 1.0] {
            assert_eq!(Calibration::IDENTITY.language(p).to_bits(), f32::to_bits(p));
            assert_eq!(Calibration::IDENTITY.with_mask(p, signs(0.2)).to_bits(), f32::to_bits(p));
        }
    }

    #[test]
    fn temperature_bias_and_mask_do_what_they_say() {
        let c = Calibration { temperature: 2.0, bias: 0.0, mask: None };
        assert!((c.language(0.9) - 0.75).abs() < 1e-6, "the logit of 0.9 is twice that of 0.75");
        let c = Calibration { temperature: 1.0, bias: -(9f32.ln()), mask: None };
        assert!((c.language(0.9) - 0.5).abs() < 1e-6);
        let mask = MaskCalibration { language: 1.0, score: 1.0, fill: 0.0, bias: 0.0 };
        let c = Calibration { mask: Some(mask), ..Calibration::IDENTITY };
        assert!((c.with_mask(0.75, signs(0.75)) - 0.9).abs() < 1e-6);
        assert_eq!(c.with_mask(0.75, signs(f32::NAN)), 0.75);
        let mask = MaskCalibration { fill: -2.0 * 9f32.ln(), ..mask };
        let c = Calibration { mask: Some(mask), ..Calibration::IDENTITY };
        assert!((c.with_mask(0.75, signs(0.75)) - 0.5).abs() < 1e-6, "half a box takes the logit of 0.9 away");
    }

    #[test]
    fn fill_is_a_share_of_the_box_and_has_an_upper_end() {
        let fill = |area, box_area| MaskSigns::new(0.5, area, box_area).fill;
        assert_eq!((fill(50, 100.0), fill(120, 100.0)), (0.5, 1.2));
        for (area, box_area) in [(1_000_000, 100.0), (5, 0.0), (u64::MAX, f32::INFINITY), (7, f32::NAN)] {
            assert!((0.0..=MOST_FILL).contains(&fill(area, box_area)), "{area} of {box_area}");
        }
        assert_eq!(fill(0, 0.0), 0.0);
    }

    proptest! {
        #[test]
        fn results_are_probabilities_in_the_same_order(
            (a, b, score) in (0f32..=1.0, 0f32..=1.0, 0f32..=1.0), t in 0.01f32..100.0, bias in -20f32..20.0,
        ) {
            let mask = Some(MaskCalibration { language: 1.0 / t, score: 1.0, fill: -1.0, bias });
            let c = Calibration { temperature: t, bias, mask };
            let (pa, pb) = (c.language(a), c.language(b));
            prop_assert!((0.0..=1.0).contains(&pa) && (a <= b) <= (pa <= pb));
            prop_assert!((0.0..=1.0).contains(&c.with_mask(pa, signs(score))));
        }
    }
}
