//! Plots as inline SVG; colours come from the page's style sheet, so that they follow light and dark.

use std::fmt::Display;

use super::super::reliability::Reliability;
use super::super::report::Row;
use super::page::Page;

/// Edges of the inside of a plot, in the plot's own units.
const LEFT: f64 = 38.0;
const TOP: f64 = 10.0;
const WIDTH: f64 = 270.0;
const HEIGHT: f64 = 180.0;
/// Height of a bar of a list with the gap to the next.
const BAR: f64 = 22.0;
/// Where the bars of a list begin, and how long one of value 1 is.
const NAMES: f64 = 132.0;
const LENGTH: f64 = 140.0;

/// A number as SVG takes it: two decimals are far below a pixel.
fn unit(v: f64) -> String {
    format!("{v:.2}")
}

/// Accuracy over confidence: a bar a bin, the diagonal of perfect calibration, and how full each bin is.
pub(super) fn reliability(page: &mut Page, r: &Reliability) {
    frame(page, "confidence", "share that is right", |page| {
        let most = r.bins.iter().map(|b| b.count).max().unwrap_or(0).max(1) as f64;
        for bin in r.bins.iter().filter(|b| b.count > 0) {
            let title = format!("{} at {:.3}, {:.3} right", bin.count, bin.confidence, bin.accuracy);
            column(page, "fill", (bin.from, bin.to), bin.accuracy, &title);
            // Along the bottom, so that a bin of three does not look like one of three hundred.
            column(page, "count", (bin.from, bin.to), 0.12 * bin.count as f64 / most, &title);
        }
        line(page, "diagonal", [(0.0, 0.0), (1.0, 1.0)]);
    });
}

/// How many expressions reached which IoU.
pub(super) fn histogram(page: &mut Page, counts: &[usize]) {
    let most = counts.iter().max().copied().unwrap_or(0).max(1) as f64;
    frame(page, "IoU", "share of the fullest", |page| {
        for (i, &count) in counts.iter().enumerate() {
            let edge = |i: usize| i as f64 / counts.len() as f64;
            let title = format!("{count} of IoU {:.2} to {:.2}", edge(i), edge(i + 1));
            column(page, "fill", (edge(i), edge(i + 1)), count as f64 / most, &title);
        }
    });
}

/// A bar for each part: its gIoU.
pub(super) fn bars(page: &mut Page, rows: &[Row]) {
    let height = BAR * rows.len() as f64 + 4.0;
    let view = format!("0 0 320 {}", unit(height));
    page.open("svg", &[("viewBox", &view), ("role", &"img"), ("aria-label", &"gIoU by part")]);
    for (i, row) in rows.iter().enumerate() {
        let y = BAR * i as f64 + 2.0;
        let (value, middle) = (row.metrics.giou, unit(y + BAR * 0.68));
        page.element("text", &[("x", &unit(NAMES - 6.0)), ("y", &middle), ("text-anchor", &"end")], &row.name);
        rect(page, "track", [NAMES, y, LENGTH, BAR - 6.0], &"");
        rect(page, "fill", [NAMES, y, LENGTH * value, BAR - 6.0], &format!("{} samples", row.metrics.samples));
        let label = format!("{value:.3}");
        page.element("text", &[("x", &unit(NAMES + LENGTH + 6.0)), ("y", &middle)], label);
    }
    page.close("svg");
}

/// Axes from 0 to 1 with what `inside` draws.
fn frame(page: &mut Page, x: &str, y: &str, inside: impl Fn(&mut Page)) {
    let label = format!("{y} over {x}");
    page.open("svg", &[("viewBox", &"0 0 320 232"), ("role", &"img"), ("aria-label", &label)]);
    for i in 0..=4 {
        let v = f64::from(i) / 4.0;
        line(page, "grid", [(0.0, v), (1.0, v)]);
        let at = format!("{v:.2}");
        let (along, up) = (unit(LEFT + WIDTH * v), unit(TOP + HEIGHT * (1.0 - v) + 4.0));
        let below = unit(TOP + HEIGHT + 14.0);
        page.element("text", &[("x", &along), ("y", &below), ("text-anchor", &"middle")], &at);
        page.element("text", &[("x", &unit(LEFT - 5.0)), ("y", &up), ("text-anchor", &"end")], &at);
    }
    inside(page);
    line(page, "axis", [(0.0, 0.0), (1.0, 0.0)]);
    let (middle, bottom) = (unit(LEFT + WIDTH / 2.0), unit(TOP + HEIGHT + 30.0));
    page.element("text", &[("x", &middle), ("y", &bottom), ("text-anchor", &"middle")], label);
    page.close("svg");
}

/// A bar that stands on the axis, from and to in `0.0..=1.0`, `value` in `0.0..=1.0`.
fn column(page: &mut Page, class: &'static str, (from, to): (f64, f64), value: f64, title: &dyn Display) {
    let (x, w, h) = (LEFT + WIDTH * from, WIDTH * (to - from), HEIGHT * value);
    rect(page, class, [x + 0.75, TOP + HEIGHT - h, (w - 1.5).max(0.5), h], title);
}

fn rect(page: &mut Page, class: &'static str, [x, y, w, h]: [f64; 4], title: &dyn Display) {
    let (x, y, w, h) = (unit(x), unit(y), unit(w), unit(h));
    page.open("rect", &[("class", &class), ("x", &x), ("y", &y), ("width", &w), ("height", &h)]);
    page.element("title", &[], title).close("rect");
}

fn line(page: &mut Page, class: &'static str, ends: [(f64, f64); 2]) {
    let [(x1, y1), (x2, y2)] = ends.map(|(x, y)| (unit(LEFT + WIDTH * x), unit(TOP + HEIGHT * (1.0 - y))));
    page.open("line", &[("class", &class), ("x1", &x1), ("y1", &y1), ("x2", &x2), ("y2", &y2)]).close("line");
}
