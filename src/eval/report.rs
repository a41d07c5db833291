//! The figures, from records alone.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::metrics::{Metrics, Score, mean};
use super::record::{Answer, Instance, Record, TargetFacts};
use super::reliability::{Outcome, Reliability, auroc};
use super::variant::Variant;

/// Bars of the IoU histogram, of equal width.
pub const IOU_BINS: usize = 20;

/// Everything that was measured; the same from the same records.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whose answers they are.
    pub bundle: BundleInfo,
    /// What was answered, as the source describes itself.
    pub source: Value,
    /// Expressions answered.
    pub samples: usize,
    /// One a variant, in their order.
    pub variants: Vec<VariantReport>,
}

/// Which weights answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BundleInfo {
    /// The bundle's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its fingerprint.
    pub fingerprint: String,
}

/// The figures of one variant.
#[derive(Debug, Clone, Serialize)]
pub struct VariantReport {
    /// `box`, `pqpp-5x5`.
    pub name: String,
    /// Over all samples.
    pub metrics: Metrics,
    /// By expression type, by name of the type.
    pub by_type: Vec<Row>,
    /// By the targets' share of the picture.
    pub by_size: Vec<Row>,
    /// By how much of the most hidden target is hidden.
    pub by_occlusion: Vec<Row>,
    /// By how much of its box a target fills.
    pub by_filling: Vec<Row>,
    /// No-target expressions that are almost right.
    pub near_misses: Metrics,
    /// How often each verdict was given: type, then verdict.
    pub verdicts: BTreeMap<String, BTreeMap<&'static str, usize>>,
    /// Answers that could not be read.
    pub malformed: usize,
    /// Passes through the language model a grounding.
    pub passes_per_grounding: f64,
    /// What they are one token at a time.
    pub one_by_one_per_grounding: f64,
    /// Tokens of all answers whose two best logits differ so little that drafts could change them.
    pub near_ties: u64,
    /// Share of confident points that are right, where the box is on the right object; `None` without such points.
    pub point_accuracy: Option<f64>,
    /// Expressions with a target by IoU, in bins of equal width; 1 belongs to the last.
    pub iou_histogram: [usize; IOU_BINS],
    /// What the confidences of instances are worth.
    pub calibration: Calibrations,
}

/// Figures of a part of the samples.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The part.
    pub name: String,
    /// Its figures.
    #[serde(flatten)]
    pub metrics: Metrics,
}

/// What confidences of instances say about "the mask has an IoU of at least 0.5 with a target".
#[derive(Debug, Clone, Serialize)]
pub struct Calibrations {
    /// The confidence that a robot is told.
    pub confidence: Reliability,
    /// What it is made of, and other ways of making it.
    pub signals: Vec<Signal>,
}

/// One signal of confidence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Signal {
    /// What it is.
    pub name: &'static str,
    /// See [`Reliability::auroc`].
    pub auroc: Option<f64>,
    /// See [`Reliability::ece`].
    pub ece: f64,
}

impl Report {
    /// The figures of `records`, which have one answer for each of `variants`; reliability in `bins` bins.
    pub fn of(bundle: BundleInfo, source: Value, variants: &[Variant], records: &[Record], bins: usize) -> Self {
        let variant = |(i, v): (usize, &Variant)| VariantReport::of(v.to_string(), records, i, bins);
        let variants = variants.iter().enumerate().map(variant).collect();
        Self { bundle, source, samples: records.len(), variants }
    }
}

impl VariantReport {
    fn of(name: String, records: &[Record], at: usize, bins: usize) -> Self {
        let pairs: Vec<(&Record, &Answer)> = records.iter().map(|r| (r, &r.answers[at])).collect();
        let by_facts = |name: fn(&TargetFacts) -> &'static str, order: &[&'static str]| {
            let mut rows = rows(&pairs, |r| r.target.as_ref().map(name));
            rows.sort_by_key(|row| order.iter().position(|o| *o == row.name));
            rows
        };
        let asked = || pairs.iter().filter(|(_, a)| a.passes > 0);
        let points = pairs.iter().fold([0, 0], |[r, n], (_, a)| [r + a.points[0], n + a.points[1]]);
        Self {
            name,
            metrics: Metrics::of(pairs.iter().map(|(_, a)| a.score)),
            by_type: rows(&pairs, |r| Some(&r.kind)),
            by_size: by_facts(TargetFacts::size, &["small", "medium", "large"]),
            by_occlusion: by_facts(
                TargetFacts::occlusion,
                &["not hidden", "hidden below 20 %", "hidden 20-60 %", "hidden 60 % or more", "unknown"],
            ),
            by_filling: by_facts(TargetFacts::filling, &["fills below 50 %", "fills 50-70 %", "fills 70 % or more"]),
            near_misses: Metrics::of(pairs.iter().filter(|(r, _)| r.near_miss).map(|(_, a)| a.score)),
            verdicts: verdicts(&pairs),
            malformed: pairs.iter().filter(|(_, a)| a.malformed.is_some()).count(),
            passes_per_grounding: mean(asked().map(|(_, a)| f64::from(a.passes))),
            one_by_one_per_grounding: mean(asked().map(|(_, a)| f64::from(a.one_by_one))),
            near_ties: asked().map(|(_, a)| u64::from(a.near_ties)).sum(),
            point_accuracy: (points[1] > 0).then(|| points[0] as f64 / points[1] as f64),
            iou_histogram: iou_histogram(pairs.iter().map(|(_, a)| a.score)),
            calibration: Calibrations::of(pairs.iter().flat_map(|(_, a)| &a.instances), bins),
        }
    }
}

impl Calibrations {
    /// Of all `instances`; those of expressions without a target are wrong.
    pub fn of<'a>(instances: impl Iterator<Item = &'a Instance> + Clone, bins: usize) -> Self {
        let judge = |signal: fn(&Instance) -> f32| -> Vec<Outcome> {
            instances.clone().map(|i| i.judged(signal(i).clamp(0.0, 1.0))).collect()
        };
        let named = |name, of: fn(&Instance) -> f32| {
            let outcomes = judge(of);
            Signal { name, auroc: auroc(&outcomes), ece: Reliability::of(&outcomes, bins).ece }
        };
        Self {
            confidence: Reliability::of(&judge(|i| i.confidence), bins),
            signals: vec![
                named("language model", |i| i.language),
                named("predicted IoU", |i| i.score),
                named("product", |i| i.language * i.score),
                named("confidence", |i| i.confidence),
            ],
        }
    }
}

/// Figures by whatever `part` says; samples of which it says nothing are left out.
fn rows<'a, N: AsRef<str> + 'a>(
    pairs: &[(&'a Record, &'a Answer)],
    part: impl Fn(&'a Record) -> Option<N>,
) -> Vec<Row> {
    let mut parts: BTreeMap<String, Vec<Score>> = BTreeMap::new();
    for (record, answer) in pairs {
        if let Some(name) = part(record) {
            parts.entry(name.as_ref().to_owned()).or_default().push(answer.score);
        }
    }
    parts.into_iter().map(|(name, scores)| Row { name, metrics: Metrics::of(scores) }).collect()
}

fn verdicts(pairs: &[(&Record, &Answer)]) -> BTreeMap<String, BTreeMap<&'static str, usize>> {
    let mut counts: BTreeMap<String, BTreeMap<&'static str, usize>> = BTreeMap::new();
    for (record, answer) in pairs {
        *counts.entry(record.kind.clone()).or_default().entry(answer.verdict.word()).or_default() += 1;
    }
    counts
}

fn iou_histogram(scores: impl Iterator<Item = Score>) -> [usize; IOU_BINS] {
    let mut bins = [0; IOU_BINS];
    scores.filter(|s| s.has_target).for_each(|s| bins[((s.iou() * IOU_BINS as f64) as usize).min(IOU_BINS - 1)] += 1);
    bins
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::super::journal::tests::record;
    use super::*;
    use crate::pipeline::Strategy;

    /// A report over `records`, all answered by box.
    pub(in super::super) fn report(records: &[Record]) -> Report {
        let bundle = BundleInfo { name: "b".into(), version: "1".into(), fingerprint: "f".into() };
        Report::of(bundle, json!({ "data": "test" }), &[Variant::plain(Strategy::Box)], records, 10)
    }

    #[test]
    fn parts_add_up_and_stand_in_order() {
        let mut records: Vec<Record> = (0..12).map(|i| record(i, 0)).collect();
        for (i, r) in records.iter_mut().enumerate() {
            r.kind = ["name", "colour", "none"][i % 3].to_owned();
            let facts = r.target.as_mut().expect("has one");
            (facts.area, facts.hidden) = ([0.001, 0.01, 0.2][i % 3], Some([0.0, 0.1, 0.5][i / 4]));
        }
        records[2].target = None;
        records[2].near_miss = true;
        records[2].answers[0].score = Score { intersection: 0, union: 9, has_target: false, answered: true };
        let report = report(&records);
        let v = &report.variants[0];
        let names = |rows: &[Row]| rows.iter().map(|r| (r.name.clone(), r.metrics.samples)).collect::<Vec<_>>();
        let named = |list: &[(&str, usize)]| list.iter().map(|(n, c)| ((*n).to_owned(), *c)).collect::<Vec<_>>();
        assert_eq!(names(&v.by_type), named(&[("colour", 4), ("name", 4), ("none", 4)]));
        assert_eq!(names(&v.by_size), named(&[("small", 4), ("medium", 4), ("large", 3)]));
        assert_eq!(
            names(&v.by_occlusion),
            named(&[("not hidden", 3), ("hidden below 20 %", 4), ("hidden 20-60 %", 4)])
        );
        assert_eq!((v.near_misses.samples, v.near_misses.n_acc, v.metrics.with_target), (1, 0.0, 11));
        assert_eq!(v.iou_histogram.iter().sum::<usize>(), 11);
        assert_eq!(v.verdicts["name"]["found"], 4);
        assert_eq!((v.passes_per_grounding, v.point_accuracy), (7.0, Some(0.75)));
        assert_eq!((v.calibration.confidence.count, v.calibration.confidence.bins.len()), (12, 10));
    }

    #[test]
    fn nothing_answered_is_a_report_too() {
        let report = report(&[]);
        assert_eq!((report.samples, report.variants[0].metrics), (0, Metrics::default()));
        assert_eq!((report.variants[0].point_accuracy, report.variants[0].calibration.confidence.auroc), (None, None));
        serde_json::to_string(&report).expect("is JSON");
    }
}
