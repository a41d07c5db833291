//! `--fit` and `--sweep`: what is chosen on the val split.

use anyhow::Context;
use serde_json::json;

use super::tables::table;
use super::{Args, Subject, number, progress_bar};
use crate::cli::Format;
use crate::engine::bundle::{self, Calibration};
use crate::eval::fit::{Fitted, fit as fit_to};
use crate::eval::sweep::{Grid, Setting, best, sweep as sweep_over};
use crate::eval::{Instance, Reliability, Source, Variant};
use crate::pipeline::Strategy;
use crate::prompt::PointThresholds;

/// Fits a calibration to the raw confidences, prints what it makes of them, and stores it where that is asked for.
pub(super) fn fit(args: &Args, subject: &mut Subject, source: &dyn Source) -> anyhow::Result<()> {
    subject.grounder.set_calibration(Calibration::IDENTITY);
    let strategy = subject.grounder.strategies().usual();
    let variants = [Variant::plain(strategy)];
    let (records, _) = args.answer(subject, &variants, source)?;
    let instances: Vec<Instance> = records.iter().flat_map(|r| &r.answers[0].instances).copied().collect();
    let fitted = fit_to(&instances, args.bins as usize)?;
    let calibration = &fitted.calibration;
    let fingerprint = match args.write {
        true => Some(bundle::calibrate(subject.bundle.dir(), calibration).context("store the calibration")?),
        false => None,
    };
    match args.format {
        Format::Json => {
            let signals =
                signals(&fitted).map(|(name, r)| json!({ "name": name, "auroc": number(r.auroc), "ece": r.ece }));
            let report = json!({ "source": source.describe(), "strategy": strategy, "instances": instances.len(),
                "calibration": calibration, "signals": signals, "written": fingerprint });
            println!("{report:#}");
        }
        Format::Text => print(&fitted, fingerprint.as_deref()),
    }
    Ok(())
}

fn signals(fitted: &Fitted) -> [(&'static str, &Reliability); 5] {
    [
        ("language model, raw", &fitted.raw),
        ("predicted IoU, raw", &fitted.score),
        ("product, raw", &fitted.product),
        ("language model, calibrated", &fitted.language),
        ("with mask, calibrated", &fitted.with_mask),
    ]
}

fn print(fitted: &Fitted, fingerprint: Option<&str>) {
    let c = &fitted.calibration;
    let mut rows = table(["confidence in IoU >= 0.5", "instances", "right", "AUROC", "ECE"]);
    for (name, r) in signals(fitted) {
        let auroc = r.auroc.map_or(String::new(), |a| format!("{a:.3}"));
        rows.add_row([
            name.to_owned(),
            r.count.to_string(),
            format!("{:.3}", r.accuracy),
            auroc,
            format!("{:.3}", r.ece),
        ]);
    }
    println!("{rows}");
    println!("temperature {:.3}, bias {:.3}", c.temperature, c.bias);
    match c.mask {
        Some(m) => println!(
            "with mask: language {:.3}, score {:.3}, fill {:.3}, bias {:.3}",
            m.language, m.score, m.fill, m.bias
        ),
        None => println!("the mask does not help"),
    }
    match fingerprint {
        Some(fingerprint) => println!("stored; the bundle's fingerprint is now {fingerprint}"),
        None => println!("not stored; --write does that"),
    }
}

/// Tries thresholds, prints what they give, and recommends.
pub(super) fn sweep(args: &Args, subject: &mut Subject, source: &dyn Source) -> anyhow::Result<()> {
    let variant = Variant::plain(subject.grounder.strategies().usual());
    let thresholds = subject.grounder.thresholds();
    let own = thresholds.point;
    let grid = match variant.strategy {
        Strategy::Pqpp => Grid::default(),
        // Nobody is asked about points, so nothing depends on these.
        Strategy::Box | Strategy::Ppg => {
            let half = vec![PointThresholds { positive: 0.5, negative: 0.5 }.positive];
            Grid { positive: half.clone(), negative: half, ..Grid::default() }
        }
    };
    let bar = progress_bar(source.pictures());
    let Subject { grounder, segmenter, .. } = subject;
    let settings = sweep_over((grounder, thresholds), segmenter, source, (variant, &grid), &mut || bar.inc(1))?;
    bar.finish_and_clear();
    let best = best(&settings, args.min_n_acc);
    match args.format {
        Format::Json => {
            let all: Vec<_> = settings.iter().map(setting).collect();
            let report = json!({ "source": source.describe(), "strategy": variant.strategy, "settings": all,
                "min_n_acc": args.min_n_acc, "best": best.map(setting) });
            println!("{report:#}");
        }
        Format::Text => {
            println!("{}", sweep_table(&settings, best));
            println!("the bundle has found {}, positive {}, negative {}", thresholds.found, own.positive, own.negative);
            match best {
                Some(s) => println!(
                    "best gIoU with N-acc of at least {}: found {}, positive {}, negative {}",
                    args.min_n_acc, s.found, s.point.positive, s.point.negative
                ),
                None => println!("no setting reaches N-acc {}", args.min_n_acc),
            }
        }
    }
    Ok(())
}

fn setting(s: &Setting) -> serde_json::Value {
    let PointThresholds { positive, negative } = s.point;
    json!({ "found": s.found, "positive": positive, "negative": negative, "metrics": s.metrics })
}

/// For each point thresholds the best `found`, and for the best of them every `found`.
fn sweep_table(settings: &[Setting], best: Option<&Setting>) -> comfy_table::Table {
    let mut rows =
        table(["found", "positive", "negative", "gIoU", "target gIoU", "cIoU", "P@0.5", "N-acc", "T-acc", ""]);
    let chosen = best.or(settings.first());
    let shown = settings.iter().filter(|s| chosen.is_some_and(|c| s.point == c.point || s.found == c.found));
    for s in shown {
        let m = &s.metrics;
        let figures = [m.giou, m.target_giou, m.ciou, m.p50, m.n_acc, m.t_acc].map(|v| format!("{v:.3}"));
        let thresholds = [s.found, s.point.positive, s.point.negative].map(|v| v.to_string());
        let mark = if best == Some(s) { "best" } else { "" };
        rows.add_row(thresholds.into_iter().chain(figures).chain([mark.to_owned()]));
    }
    rows
}
