//! How one answer compares with the truth, and what is summed over many.

use serde::{Deserialize, Serialize};

use crate::mask::Mask;

/// IoU from which on an answer counts as right where only right and wrong are told apart.
pub const RIGHT_IOU: f64 = 0.5;

/// One answer against the truth, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Pixels on in both the truth and the answer.
    pub intersection: u64,
    /// Pixels on in either.
    pub union: u64,
    /// Whether the expression has a target.
    pub has_target: bool,
    /// Whether the answer has a mask.
    pub answered: bool,
}

impl Score {
    /// Compares an answer with the truth; both of one frame.
    ///
    /// `answer` is `None` where the verdict holds no mask, `truth` where there is no target. Pixels of `ignored` count
    /// neither for nor against.
    pub fn new(truth: Option<&Mask>, answer: Option<&Mask>, ignored: Option<&Mask>) -> Self {
        let (mut intersection, mut union) = (0, 0);
        let pixels = truth.or(answer).map_or(0, |m| m.bits().len());
        let on = |m: Option<&Mask>, i: usize| m.and_then(|m| m.bits().get(i)).is_some_and(|b| *b == 1);
        for i in (0..pixels).filter(|i| !on(ignored, *i)) {
            let (t, a) = (on(truth, i), on(answer, i));
            intersection += u64::from(t && a);
            union += u64::from(t || a);
        }
        Self { intersection, union, has_target: truth.is_some(), answered: answer.is_some() }
    }

    /// IoU in `0.0..=1.0`. Without a target 1 where nothing is answered and 0 otherwise; with a target 0 where nothing
    /// is answered. Source: gRefCOCO's metrics, arXiv 2306.00968.
    pub fn iou(&self) -> f64 {
        match (self.has_target, self.answered) {
            (false, answered) => f64::from(u8::from(!answered)),
            (true, false) => 0.0,
            (true, true) => self.intersection as f64 / self.union.max(1) as f64,
        }
    }
}

/// The field's figures over a set of samples; every rate in `0.0..=1.0`, 0 where the set has no such sample.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Metrics {
    /// Number of samples.
    pub samples: usize,
    /// Those of them that have a target.
    pub with_target: usize,
    /// Mean IoU; no-target samples count 1 or 0.
    pub giou: f64,
    /// Sum of intersections over sum of unions.
    pub ciou: f64,
    /// Mean IoU over the samples that have a target.
    pub target_giou: f64,
    /// Share of samples with a target whose IoU is at least 0.5.
    pub p50: f64,
    /// The same at 0.6.
    pub p60: f64,
    /// The same at 0.7.
    pub p70: f64,
    /// The same at 0.8.
    pub p80: f64,
    /// The same at 0.9.
    pub p90: f64,
    /// Share of no-target samples answered without a mask.
    pub n_acc: f64,
    /// Share of samples with a target answered with a mask.
    pub t_acc: f64,
}

impl Metrics {
    /// Sums up `scores`.
    pub fn of(scores: impl IntoIterator<Item = Score>) -> Self {
        let all: Vec<Score> = scores.into_iter().collect();
        let with = || all.iter().filter(|s| s.has_target);
        let without = || all.iter().filter(|s| !s.has_target);
        let (inter, union) = all.iter().fold((0, 0), |(i, u), s| (i + s.intersection, u + s.union));
        let precision = |x: f64| mean(with().map(|s| one_if(s.iou() >= x)));
        Self {
            samples: all.len(),
            with_target: with().count(),
            giou: mean(all.iter().map(Score::iou)),
            ciou: if union == 0 { 0.0 } else { inter as f64 / union as f64 },
            target_giou: mean(with().map(Score::iou)),
            p50: precision(0.5),
            p60: precision(0.6),
            p70: precision(0.7),
            p80: precision(0.8),
            p90: precision(0.9),
            n_acc: mean(without().map(|s| one_if(!s.answered))),
            t_acc: mean(with().map(|s| one_if(s.answered))),
        }
    }
}

fn one_if(yes: bool) -> f64 {
    f64::from(u8::from(yes))
}

pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0usize), |(sum, n), v| (sum + v, n + 1));
    if n == 0 { 0.0 } else { sum / n as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Size;

    fn band(from: u32, to: u32) -> Mask {
        Mask::from_fn(Size::new(10, 1), |x, _| (from..to).contains(&x))
    }

    #[test]
    fn conventions_of_the_field() {
        let (a, b) = (band(0, 4), band(2, 6));
        let samples = [
            Score::new(Some(&a), Some(&b), None),
            Score::new(Some(&a), None, None),
            Score::new(None, Some(&b), None),
            Score::new(None, None, None),
        ];
        let m = Metrics::of(samples);
        assert_eq!(samples.map(|s| s.iou()), [2.0 / 6.0, 0.0, 0.0, 1.0]);
        assert_eq!(m.giou, (2.0 / 6.0 + 1.0) / 4.0);
        assert_eq!(m.ciou, 2.0 / 14.0);
        assert_eq!(m.target_giou, 1.0 / 6.0);
        assert_eq!((m.n_acc, m.t_acc, m.p50), (0.5, 0.5, 0.0));
    }

    #[test]
    fn ignored_pixels_count_neither_way() {
        let (truth, answer) = (band(0, 4), band(2, 8));
        let score = Score::new(Some(&truth), Some(&answer), Some(&band(3, 7)));
        assert_eq!((score.intersection, score.union), (1, 4));
        let all = Score::new(Some(&truth), Some(&answer), Some(&band(0, 10)));
        assert_eq!((all.iou(), all.union), (0.0, 0));
    }

    #[test]
    fn precision_counts_its_own_threshold() {
        let score = |intersection| Score { intersection, union: 10, has_target: true, answered: true };
        let m = Metrics::of([5, 6, 7, 8, 9].map(score));
        assert_eq!([m.p50, m.p60, m.p70, m.p80, m.p90], [1.0, 0.8, 0.6, 0.4, 0.2]);
        assert_eq!(Metrics::of([]), Metrics::default());
    }
}
