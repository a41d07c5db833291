//! Reports as text.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde_json::{Value, json};

use crate::cli::quantile;
use crate::eval::html::{COLUMNS, cells};
use crate::eval::{Metrics, Report, Row, VariantReport};

/// A table with a header.
pub(super) fn table<'a>(header: impl IntoIterator<Item = &'a str>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(header);
    table
}

fn metrics_row(name: &str, m: &Metrics) -> Vec<String> {
    [name.to_owned()].into_iter().chain(cells(m)).collect()
}

/// The comparison of variants, then the parts of the last one.
pub(super) fn report(report: &Report, grounding: &[Duration]) -> String {
    let mut text = String::new();
    let mut all = table([""].into_iter().chain(COLUMNS));
    for v in &report.variants {
        all.add_row(metrics_row(&v.name, &v.metrics));
    }
    let _ = writeln!(text, "{all}");
    if report.variants.len() > 1 {
        let _ = writeln!(text, "gIoU by part\n{}", comparison(&report.variants));
    }
    if let Some(last) = report.variants.last() {
        let mut parts = table([last.name.as_str()].into_iter().chain(COLUMNS));
        for (name, metrics) in named_parts(last) {
            parts.add_row(metrics_row(&name, &metrics));
        }
        let _ = writeln!(text, "{parts}\n{}", signals(report));
    }
    for v in &report.variants {
        let points =
            v.point_accuracy.map_or(String::new(), |p| format!(", {:.1} % of confident points right", 100.0 * p));
        let _ = writeln!(
            text,
            "{}: {:.2} passes a grounding ({:.1} one by one){points}, {} malformed answers",
            v.name, v.passes_per_grounding, v.one_by_one_per_grounding, v.malformed
        );
    }
    let [p50, p95] = quantiles(grounding);
    let _ = writeln!(text, "{} groundings in this run: p50 {p50:.1} ms, p95 {p95:.1} ms", grounding.len());
    text
}

fn named_parts(v: &VariantReport) -> Vec<(String, Metrics)> {
    let rows = [&v.by_type, &v.by_size, &v.by_occlusion, &v.by_filling].into_iter().flatten();
    let near = (v.near_misses.samples > 0).then(|| ("near misses".to_owned(), v.near_misses));
    rows.map(|Row { name, metrics }| (name.clone(), *metrics)).chain(near).collect()
}

/// gIoU of every part by every variant.
fn comparison(variants: &[VariantReport]) -> Table {
    let mut by_part = table(["", "n"].into_iter().chain(variants.iter().map(|v| v.name.as_str())));
    let parts: Vec<_> = variants.iter().map(named_parts).collect();
    for (i, (name, metrics)) in parts.iter().take(1).flatten().enumerate() {
        let giou = parts.iter().map(|p| p.get(i).map_or(String::new(), |(_, m)| format!("{:.3}", m.giou)));
        by_part.add_row([name.clone(), metrics.samples.to_string()].into_iter().chain(giou));
    }
    by_part
}

/// What confidences are worth.
fn signals(report: &Report) -> Table {
    let mut rows = table(["confidence in IoU >= 0.5", "by", "instances", "right", "AUROC", "ECE"]);
    for v in &report.variants {
        let c = &v.calibration;
        for s in &c.signals {
            let auroc = s.auroc.map_or(String::new(), |a| format!("{a:.3}"));
            let right = format!("{:.3}", c.confidence.accuracy);
            let ece = format!("{:.3}", s.ece);
            rows.add_row([v.name.clone(), s.name.to_owned(), c.confidence.count.to_string(), right, auroc, ece]);
        }
    }
    rows
}

/// p50 and p95 in milliseconds; 0 where there are none.
fn quantiles(times: &[Duration]) -> [f64; 2] {
    let mut ms: Vec<f64> = times.iter().map(|t| t.as_secs_f64() * 1e3).collect();
    ms.sort_by(f64::total_cmp);
    [0.5, 0.95].map(|q| quantile(&ms, q).unwrap_or(0.0))
}

/// Times of this run's groundings, for the file beside the report.
pub(super) fn timings(times: &[Duration]) -> Value {
    let [p50, p95] = quantiles(times);
    let seconds: f64 = times.iter().map(Duration::as_secs_f64).sum();
    json!({ "groundings": times.len(), "p50_ms": p50, "p95_ms": p95, "seconds": seconds })
}
