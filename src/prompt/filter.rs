//! The confidence filter: p(yes) and p(no) of a point to what SAM is told about it.

use super::PointLabel;

/// The least p(yes) + p(no) at which the answer counts as a yes or a no at all.
///
/// Below it most of the probability lies on some third token: the model is not answering the question.
pub const MIN_ANSWER_MASS: f32 = 0.5;

/// From which probability on a point is believed.
///
/// Source: the paper's released settings, positive 0.75 and negative 0.9.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PointThresholds {
    /// p(yes) above which a point is on the object, `0.0..=1.0`.
    pub positive: f32,
    /// p(no) above which a point is off the object, `0.0..=1.0`.
    pub negative: f32,
}

impl PointThresholds {
    /// Whether both are probabilities, and no point can be on and off at once.
    pub fn is_consistent(&self) -> bool {
        let p = 0.0..=1.0;
        p.contains(&self.positive) && p.contains(&self.negative) && self.positive + self.negative >= 1.0
    }

    /// p(yes) normalised over the two answers, and the label of the point.
    ///
    /// `yes` and `no` are probabilities from the softmax over the whole vocabulary. An answer with less than
    /// [`MIN_ANSWER_MASS`] on both together, or with NaN, is [`PointLabel::Unsure`].
    pub fn label(&self, yes: f32, no: f32) -> (f32, PointLabel) {
        let mass = yes + no;
        let p_yes = if mass > 0.0 { (yes / mass).clamp(0.0, 1.0) } else { 0.5 };
        let label = if !matches!(mass.partial_cmp(&MIN_ANSWER_MASS), Some(o) if o.is_ge()) {
            PointLabel::Unsure
        } else if p_yes > self.positive {
            PointLabel::On
        } else if 1.0 - p_yes > self.negative {
            PointLabel::Off
        } else {
            PointLabel::Unsure
        };
        (p_yes, label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_the_thresholds() {
        let t = PointThresholds { positive: 0.75, negative: 0.9 };
        let cases = [
            (0.9, 0.1, PointLabel::On),
            (0.7, 0.3, PointLabel::Unsure),
            (0.15, 0.85, PointLabel::Unsure),
            (0.05, 0.95, PointLabel::Off),
            // Nearly all of the mass is elsewhere, however lopsided the rest.
            (0.2, 0.001, PointLabel::Unsure),
            (0.001, 0.2, PointLabel::Unsure),
            (0.0, 0.0, PointLabel::Unsure),
            (f32::NAN, 0.9, PointLabel::Unsure),
        ];
        for (yes, no, label) in cases {
            assert_eq!(t.label(yes, no).1, label, "yes {yes}, no {no}");
        }
        assert!((t.label(0.6, 0.2).0 - 0.75).abs() < 1e-6);
    }

    #[test]
    fn overlapping_thresholds_are_inconsistent() {
        assert!(PointThresholds { positive: 0.75, negative: 0.9 }.is_consistent());
        assert!(!PointThresholds { positive: 0.4, negative: 0.5 }.is_consistent());
        assert!(!PointThresholds { positive: f32::NAN, negative: 0.9 }.is_consistent());
        assert!(!PointThresholds { positive: 1.5, negative: 0.9 }.is_consistent());
    }
}
