//! Samples and what is summed over them.

use serde::Serialize;

use crate::dataset::ExpressionType;
use crate::mask::Mask;

/// One answered expression.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// How the expression refers.
    pub kind: ExpressionType,
    /// No target, but almost.
    pub near_miss: bool,
    /// Pixels on in both the truth and the answer.
    pub intersection: u64,
    /// Pixels on in either.
    pub union: u64,
    /// Whether the expression has a target.
    pub has_target: bool,
    /// Whether the answer has a mask.
    pub answered: bool,
}

impl Sample {
    /// Compares an answer with the truth; both of one frame.
    ///
    /// `answer` is `None` where the verdict holds no mask, `truth` where there is no target.
    pub fn new(kind: ExpressionType, near_miss: bool, truth: Option<&Mask>, answer: Option<&Mask>) -> Self {
        let (intersection, union) = match (truth, answer) {
            (Some(t), Some(a)) => t.overlap(a).unwrap_or((0, t.area() + a.area())),
            (Some(m), None) | (None, Some(m)) => (0, m.area()),
            (None, None) => (0, 0),
        };
        Self { kind, near_miss, intersection, union, has_target: truth.is_some(), answered: answer.is_some() }
    }

    /// IoU in `0.0..=1.0`, with the convention for empty masks.
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
    /// The same at 0.7.
    pub p70: f64,
    /// The same at 0.9.
    pub p90: f64,
    /// Share of no-target samples answered without a mask.
    pub n_acc: f64,
    /// Share of samples with a target answered with a mask.
    pub t_acc: f64,
}

impl Metrics {
    /// Sums up `samples`.
    pub fn of<'a>(samples: impl Iterator<Item = &'a Sample> + Clone) -> Self {
        let all = samples.clone();
        let with = samples.clone().filter(|s| s.has_target);
        let without = samples.clone().filter(|s| !s.has_target);
        let (inter, union) = samples.clone().fold((0, 0), |(i, u), s| (i + s.intersection, u + s.union));
        let precision = |x: f64| mean(with.clone().map(|s| f64::from(u8::from(s.iou() >= x))));
        Self {
            samples: all.clone().count(),
            with_target: with.clone().count(),
            giou: mean(all.map(Sample::iou)),
            ciou: if union == 0 { 0.0 } else { inter as f64 / union as f64 },
            target_giou: mean(with.clone().map(Sample::iou)),
            p50: precision(0.5),
            p70: precision(0.7),
            p90: precision(0.9),
            n_acc: mean(without.map(|s| f64::from(u8::from(!s.answered)))),
            t_acc: mean(with.clone().map(|s| f64::from(u8::from(s.answered)))),
        }
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
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
        let kind = ExpressionType::Name;
        let (a, b) = (band(0, 4), band(2, 6));
        let samples = [
            Sample::new(kind, false, Some(&a), Some(&b)),
            Sample::new(kind, false, Some(&a), None),
            Sample::new(ExpressionType::None, true, None, Some(&b)),
            Sample::new(ExpressionType::None, false, None, None),
        ];
        let m = Metrics::of(samples.iter());
        assert_eq!(samples.map(|s| s.iou()), [2.0 / 6.0, 0.0, 0.0, 1.0]);
        assert_eq!(m.giou, (2.0 / 6.0 + 1.0) / 4.0);
        assert_eq!(m.ciou, 2.0 / 14.0);
        assert_eq!(m.target_giou, 1.0 / 6.0);
        assert_eq!((m.n_acc, m.t_acc, m.p50), (0.5, 0.5, 0.0));
    }
}
