//! Fits what a confidence is worth: from raw confidences and what became of them to a bundle's calibration.
//!
//! Platt's scaling with Platt's targets, by Newton's method: the one optimum, the same on every run. The bias and the
//! mask's part are taken only where they pay.

use super::record::Instance;
use super::reliability::{Outcome, Reliability};
use crate::engine::bundle::{Calibration, MaskCalibration};
use crate::prompt::logit;

/// Fewest right and fewest wrong instances from which anything is fitted.
pub const LEAST_EACH: usize = 10;
/// Steps of Newton's method; it takes about ten.
const MAX_STEPS: usize = 100;
/// Keeps the system solvable where two signals are one.
const RIDGE: f64 = 1e-6;

/// Kinds of [`FitError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FitErrorKind {
    /// Too few right ones or too few wrong ones; all right and all wrong are among this.
    OneSided,
    /// A confidence is not in `0.0..=1.0`.
    Range,
    /// Surer answers are not more often right.
    Uninformative,
}

/// No calibration can be fitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("fit calibration: {detail}")]
pub struct FitError {
    kind: FitErrorKind,
    detail: String,
}

impl FitError {
    fn new(kind: FitErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into() }
    }

    /// What is wrong.
    pub fn kind(&self) -> FitErrorKind {
        self.kind
    }
}

/// A calibration with what it makes of the instances it was fitted on.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// To be stored.
    pub calibration: Calibration,
    /// The language model's confidence as it was.
    pub raw: Reliability,
    /// The same calibrated.
    pub language: Reliability,
    /// SAM's predicted IoU as it is.
    pub score: Reliability,
    /// Their product as it is.
    pub product: Reliability,
    /// With the mask; equal to `language` where the mask does not help.
    pub with_mask: Reliability,
}

/// Fits to `instances`, whose `language` must be raw; reliability in `bins` bins.
///
/// # Errors
/// Every [`FitErrorKind`].
pub fn fit(instances: &[Instance], bins: usize) -> Result<Fitted, FitError> {
    check(instances)?;
    let reliability = |confidence: &dyn Fn(&Instance) -> f32| -> Reliability {
        let outcomes: Vec<Outcome> = instances.iter().map(|i| i.judged(confidence(i))).collect();
        Reliability::of(&outcomes, bins)
    };
    let alone = fit_language(instances)?;
    let language = reliability(&|i| alone.language(i.language));
    let with = |c: &Calibration| reliability(&|i| c.with_mask(c.language(i.language), i.signs()));
    let joined = fit_mask(instances, alone).map(|c| (c, with(&c))).filter(|(_, r)| r.auroc > language.auroc);
    let (calibration, with_mask) = joined.unwrap_or((alone, language.clone()));
    Ok(Fitted {
        calibration,
        raw: reliability(&|i| i.language),
        language,
        score: reliability(&|i| i.score),
        product: reliability(&|i| i.language * i.score),
        with_mask,
    })
}

fn check(instances: &[Instance]) -> Result<(), FitError> {
    let signals = || instances.iter().flat_map(|i| [i.language, i.score]);
    if let Some(bad) = signals().find(|p| !(0.0..=1.0).contains(p)) {
        return Err(FitError::new(FitErrorKind::Range, format!("a confidence of {bad} is no probability")));
    }
    let right = instances.iter().filter(|i| i.is_right()).count();
    let wrong = instances.len() - right;
    if right.min(wrong) < LEAST_EACH {
        let detail = format!(
            "{right} instances are right and {wrong} wrong; at least {LEAST_EACH} of each are needed, so answer more"
        );
        return Err(FitError::new(FitErrorKind::OneSided, detail));
    }
    Ok(())
}

/// Temperature, with a bias where it pays by the Bayesian information criterion.
fn fit_language(instances: &[Instance]) -> Result<Calibration, FitError> {
    let x = |i: &Instance| f64::from(logit(i.language));
    let (one, one_loss) = regress(instances, |i| [x(i)]);
    let (two, two_loss) = regress(instances, |i| [x(i), 1.0]);
    let pays = 2.0 * (one_loss - two_loss) > (instances.len() as f64).ln();
    // A confidence that is too low throughout can need a bias before its slope means anything.
    let (weight, bias) = if pays || one[0] < 0.01 { (two[0], two[1]) } else { (one[0], 0.0) };
    let fitted = Calibration { temperature: (1.0 / weight) as f32, bias: bias as f32, mask: None };
    match weight > 0.0 && fitted.validate().is_ok() {
        true => Ok(fitted),
        false => Err(FitError::new(FitErrorKind::Uninformative, "surer answers are not more often right")),
    }
}

/// What the mask adds to `alone`: its score, and how it fills the box where that pays by the Bayesian information
/// criterion. `None` where the score does not speak for a mask.
fn fit_mask(instances: &[Instance], alone: Calibration) -> Option<Calibration> {
    let score = |i: &Instance| f64::from(logit(i.score));
    let language = |i: &Instance| f64::from(logit(alone.language(i.language)));
    let with = |l: f64, s: f64, f: f64, b: f64| {
        let mask = MaskCalibration { language: l as f32, score: s as f32, fill: f as f32, bias: b as f32 };
        let fitted = Calibration { mask: Some(mask), ..alone };
        (s > 0.0 && fitted.validate().is_ok()).then_some(fitted)
    };
    let ([l, s, f, b], four_loss) = regress(instances, |i| [language(i), score(i), f64::from(i.fill), 1.0]);
    let (three, three_loss) = regress(instances, |i| [language(i), score(i), 1.0]);
    let pays = 2.0 * (three_loss - four_loss) > (instances.len() as f64).ln();
    pays.then(|| with(l, s, f, b)).flatten().or_else(|| {
        let [l, mut s, mut b] = three;
        if l < 0.0 {
            ([s, b], _) = regress(instances, |i| [score(i), 1.0]);
        }
        with(l.max(0.0), s, 0.0, b)
    })
}

/// The weights of a logistic regression on `signals`, and its loss (negative log-likelihood).
///
/// Targets are Platt's (n+ + 1)/(n+ + 2) and 1/(n- + 2) instead of 1 and 0, so that the optimum is finite even where the
/// signals tell right from wrong without fault.
fn regress<const N: usize>(instances: &[Instance], signals: impl Fn(&Instance) -> [f64; N]) -> ([f64; N], f64) {
    let right = instances.iter().filter(|i| i.is_right()).count() as f64;
    let wrong = instances.len() as f64 - right;
    let (high, low) = ((right + 1.0) / (right + 2.0), 1.0 / (wrong + 2.0));
    let rows: Vec<([f64; N], f64)> =
        instances.iter().map(|i| (signals(i), if i.is_right() { high } else { low })).collect();
    let mut weights = [0.0; N];
    let mut best = loss(&rows, &weights);
    for _ in 0..MAX_STEPS {
        let step = newton_step(&rows, &weights);
        let (mut scale, before) = (1.0, best);
        // Halved until it helps; far from the optimum a whole step may overshoot.
        while scale > 1e-6 {
            let next: [f64; N] = std::array::from_fn(|i| weights[i] - scale * step[i]);
            let reached = loss(&rows, &next);
            if reached < best {
                (weights, best) = (next, reached);
                break;
            }
            scale /= 2.0;
        }
        if before - best < 1e-10 * before.abs().max(1.0) {
            break;
        }
    }
    (weights, best)
}

fn dot<const N: usize>(a: &[f64; N], b: &[f64; N]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn loss<const N: usize>(rows: &[([f64; N], f64)], weights: &[f64; N]) -> f64 {
    // -t ln p - (1 - t) ln (1 - p), without overflow.
    let one = |(x, t): &([f64; N], f64)| {
        let z = dot(x, weights);
        z.max(0.0) - t * z + (-z.abs()).exp().ln_1p()
    };
    rows.iter().map(one).sum()
}

fn newton_step<const N: usize>(rows: &[([f64; N], f64)], weights: &[f64; N]) -> [f64; N] {
    let (mut gradient, mut hessian) = ([0.0; N], [[0.0; N]; N]);
    for (x, t) in rows {
        let p = 1.0 / (1.0 + (-dot(x, weights)).exp());
        for i in 0..N {
            gradient[i] += (p - t) * x[i];
            for j in 0..N {
                hessian[i][j] += p * (1.0 - p) * x[i] * x[j];
            }
        }
    }
    (0..N).for_each(|i| hessian[i][i] += RIDGE);
    solve(hessian, gradient)
}

/// Solves `a x = b` for a positive definite `a`, by elimination.
fn solve<const N: usize>(mut a: [[f64; N]; N], mut b: [f64; N]) -> [f64; N] {
    for i in 0..N {
        for j in i + 1..N {
            let factor = a[j][i] / a[i][i];
            let row = a[i];
            a[j].iter_mut().zip(row).for_each(|(v, above)| *v -= factor * above);
            b[j] -= factor * b[i];
        }
    }
    for i in (0..N).rev() {
        let known: f64 = (i + 1..N).map(|j| a[i][j] * b[j]).sum();
        b[i] = (b[i] - known) / a[i][i];
    }
    b
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::SceneRng;

    fn sigmoid(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }

    /// Instances that are right with probability `sigmoid(a * logit(language) + s * logit(score) + f * fill + b)`.
    fn filled(count: usize, (a, s, f, b): (f64, f64, f64, f64)) -> Vec<Instance> {
        let mut rng = SceneRng::new(&[7]);
        let draw = |_| {
            let (language, score, fill) = (rng.range(0.02, 0.98), rng.range(0.02, 0.98), rng.range(0.2, 1.5));
            let p = sigmoid(a * f64::from(logit(language)) + s * f64::from(logit(score)) + f * f64::from(fill) + b);
            let iou = if f64::from(rng.unit()) < p { 0.9 } else { 0.1 };
            Instance { language, score, fill, confidence: language, iou }
        };
        (0..count).map(draw).collect()
    }

    /// Of which the fill tells nothing.
    fn drawn(count: usize, (a, s, b): (f64, f64, f64)) -> Vec<Instance> {
        filled(count, (a, s, 0.0, b))
    }

    #[test]
    fn a_known_law_is_found_again() {
        let fitted = fit(&drawn(20_000, (0.5, 0.8, -0.6)), 15).expect("fits");
        let mask = fitted.calibration.mask.expect("the mask helps");
        // The weight of the raw logit is that of both steps together.
        let weight = mask.language / fitted.calibration.temperature;
        assert!((weight - 0.5).abs() < 0.05 && (mask.score - 0.8).abs() < 0.05, "{fitted:?}");
        let bias = mask.language * fitted.calibration.bias + mask.bias;
        assert!((bias + 0.6).abs() < 0.06, "{bias}");
        assert!(fitted.raw.ece > 0.1 && fitted.language.ece < 0.02 && fitted.with_mask.ece < 0.02, "{fitted:?}");
        let auroc = |r: &Reliability| r.auroc.expect("both kinds");
        // Scaling keeps the order, but for what `f32` rounds together.
        assert!((auroc(&fitted.language) - auroc(&fitted.raw)).abs() < 1e-4, "{fitted:?}");
        assert!(auroc(&fitted.with_mask) > auroc(&fitted.language) + 0.05, "{fitted:?}");
    }

    #[test]
    fn how_a_mask_fills_its_box_counts_where_it_tells_something() {
        let fitted = fit(&filled(20_000, (0.5, 0.8, -1.5, 1.0)), 15).expect("fits");
        let mask = fitted.calibration.mask.expect("the mask helps");
        assert!((mask.fill + 1.5).abs() < 0.1 && fitted.with_mask.ece < 0.02, "{fitted:?}");
        let without = fit(&drawn(20_000, (0.5, 0.8, 0.0)), 15).expect("fits").calibration.mask;
        assert_eq!(without.expect("the mask helps").fill, 0.0);
    }

    #[test]
    fn what_does_not_pay_is_left_out() {
        let fitted = fit(&drawn(4000, (0.4, 0.0, 0.0)), 15).expect("fits");
        assert_eq!(fitted.calibration.bias, 0.0);
        assert!((fitted.calibration.temperature - 2.5).abs() < 0.4, "{:?}", fitted.calibration);
        let against = fit(&drawn(4000, (0.4, -0.5, 0.0)), 15).expect("fits");
        assert_eq!((against.calibration.mask, &against.with_mask), (None, &against.language));
    }

    #[test]
    fn faultless_signals_stay_finite() {
        let mut instances = drawn(200, (1.0, 0.0, 0.0));
        instances.iter_mut().for_each(|i| i.iou = f64::from(u8::from(i.language > 0.5)));
        let fitted = fit(&instances, 15).expect("fits");
        fitted.calibration.validate().expect("in range");
        assert_eq!(fitted.language.auroc, Some(1.0));
    }

    #[test]
    fn unfit_inputs_are_refused() {
        let all =
            |iou: f64| drawn(100, (1.0, 0.0, 0.0)).into_iter().map(move |i| Instance { iou, ..i }).collect::<Vec<_>>();
        for instances in [all(0.9), all(0.1), Vec::new()] {
            let error = fit(&instances, 15).expect_err("one side only");
            assert_eq!(error.kind(), FitErrorKind::OneSided);
            assert!(error.to_string().contains("answer more"), "{error}");
        }
        let mut bad = drawn(100, (1.0, 0.0, 0.0));
        bad[3].language = f32::NAN;
        assert_eq!(fit(&bad, 15).expect_err("NaN").kind(), FitErrorKind::Range);
        let backwards = fit(&drawn(2000, (-1.0, 0.0, 0.0)), 15).expect_err("backwards");
        assert_eq!(backwards.kind(), FitErrorKind::Uninformative);
    }
}
