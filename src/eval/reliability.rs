//! Whether a confidence means what it says: expected calibration error, and AUROC.

use serde::Serialize;

/// A confidence in `0.0..=1.0` with what became of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// What was said, `0.0..=1.0`.
    pub confidence: f64,
    /// Whether it was right.
    pub right: bool,
}

/// A range of confidences, with what was said and what was true on average.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bin {
    /// Lower edge, inclusive but for 0.
    pub from: f64,
    /// Upper edge.
    pub to: f64,
    /// Outcomes in it.
    pub count: usize,
    /// Their mean confidence; 0 where there are none.
    pub confidence: f64,
    /// Share of them that were right; 0 where there are none.
    pub accuracy: f64,
}

/// How a confidence and the truth go together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reliability {
    /// Outcomes.
    pub count: usize,
    /// Share of them that were right; 0 where there are none.
    pub accuracy: f64,
    /// Expected calibration error: the mean over outcomes of the gap between confidence and accuracy of their bin.
    ///
    /// Source: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015.
    pub ece: f64,
    /// Probability that a right outcome has the higher confidence than a wrong one, ties counting half; `None` where
    /// all are right or all are wrong.
    pub auroc: Option<f64>,
    /// Bins of equal width.
    pub bins: Vec<Bin>,
}

impl Reliability {
    /// Sorts `outcomes` into `bins` bins of equal width, at least one: the lower edge belongs to its bin, and 1 to the last.
    pub fn of(outcomes: &[Outcome], bins: usize) -> Self {
        let n = bins.max(1);
        let mut sums = vec![(0usize, 0.0f64, 0usize); n];
        for o in outcomes {
            let sum = &mut sums[((o.confidence * n as f64) as usize).min(n - 1)];
            *sum = (sum.0 + 1, sum.1 + o.confidence, sum.2 + usize::from(o.right));
        }
        let bin = |(i, &(count, confidence, right)): (usize, &(usize, f64, usize))| {
            let per = |sum: f64| if count == 0 { 0.0 } else { sum / count as f64 };
            let edge = |i: usize| i as f64 / n as f64;
            Bin { from: edge(i), to: edge(i + 1), count, confidence: per(confidence), accuracy: per(right as f64) }
        };
        let bins: Vec<Bin> = sums.iter().enumerate().map(bin).collect();
        let all = outcomes.len().max(1) as f64;
        Self {
            count: outcomes.len(),
            accuracy: outcomes.iter().filter(|o| o.right).count() as f64 / all,
            ece: bins.iter().map(|b| b.count as f64 / all * (b.accuracy - b.confidence).abs()).sum(),
            auroc: auroc(outcomes),
            bins,
        }
    }
}

/// The area under the curve of true over false positive rate, by ranks; `None` where all are right or all are wrong.
pub fn auroc(outcomes: &[Outcome]) -> Option<f64> {
    let mut sorted = outcomes.to_vec();
    sorted.sort_by(|a, b| a.confidence.total_cmp(&b.confidence));
    let (mut ranks, mut before) = (0.0, 0usize);
    // Equal confidences share the mean of their ranks.
    for tied in sorted.chunk_by(|a, b| a.confidence == b.confidence) {
        let rank = before as f64 + (tied.len() as f64 + 1.0) / 2.0;
        ranks += rank * tied.iter().filter(|o| o.right).count() as f64;
        before += tied.len();
    }
    let right = outcomes.iter().filter(|o| o.right).count() as f64;
    let wrong = outcomes.len() as f64 - right;
    (right > 0.0 && wrong > 0.0).then(|| (ranks - right * (right + 1.0) / 2.0) / (right * wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(list: &[(f64, bool)]) -> Vec<Outcome> {
        list.iter().map(|&(confidence, right)| Outcome { confidence, right }).collect()
    }

    #[test]
    fn bins_gaps_and_ranks() {
        let r = Reliability::of(&outcomes(&[(0.0, false), (0.05, true), (0.95, true), (1.0, true)]), 10);
        assert_eq!((r.bins.len(), r.bins[0].count, r.bins[9].count, r.accuracy), (10, 2, 2, 0.75));
        // |0.5 - 0.025| and |1 - 0.975|, half of the outcomes each.
        assert!((r.ece - (0.475 + 0.025) / 2.0).abs() < 1e-12, "{}", r.ece);
        assert_eq!(r.auroc, Some(1.0));
    }

    #[test]
    fn ties_count_half() {
        assert_eq!(auroc(&outcomes(&[(0.5, true), (0.5, false)])), Some(0.5));
        assert_eq!(auroc(&outcomes(&[(0.2, true), (0.5, true), (0.5, false), (0.9, false)])), Some(0.125));
    }

    #[test]
    fn one_sided_sets_have_no_auroc() {
        for list in [&[(0.3, true), (0.9, true)][..], &[(0.3, false)], &[]] {
            let r = Reliability::of(&outcomes(list), 15);
            assert_eq!((r.auroc, r.count), (None, list.len()));
            assert!(r.ece.is_finite());
        }
    }
}
