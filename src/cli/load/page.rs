//! Reports as one page: no script, nothing that is loaded from elsewhere.

use std::fmt::Display;

use super::overhead::Overhead;
use super::report::{OVERHEAD_COLUMNS, ROW_COLUMNS, Report, overhead_cells, row_cells};
use super::soak;
use crate::eval::html::{Page, document};

/// Edges of the inside of a plot, in the plot's own units.
const LEFT: f64 = 46.0;
const TOP: f64 = 10.0;
const WIDTH: f64 = 262.0;
const HEIGHT: f64 = 170.0;
/// Strokes of lines, in turn.
const STROKES: [&str; 5] = ["#2f7fc4", "#e08a1e", "#3a9a5b", "#b2485d", "#7a5cc0"];

/// A line of a plot: what it is of, and its points.
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

/// The page of a load.
pub fn load(report: &Report) -> String {
    document("sam4mllm bench load", |page| {
        page.element("p", &[], report.about()).raw("\n");
        page.raw("<div class=\"grid\">\n");
        let lines = |value: fn(&super::report::Row) -> f64| {
            let mut streams: Vec<u32> = report.rows.iter().map(|r| r.streams).collect();
            streams.dedup();
            let line = |n: u32| {
                let rows = report.rows.iter().filter(|r| r.streams == n);
                let points = rows.map(|r| (f64::from(r.fps), value(r))).filter(|(_, y)| y.is_finite()).collect();
                Line { name: format!("{n} streams"), points }
            };
            streams.into_iter().map(line).collect::<Vec<_>>()
        };
        plot(page, "p95 latency, ms", "frames a second, each stream", &lines(|r| r.latency_ms.p95));
        plot(page, "p50 latency, ms", "frames a second, each stream", &lines(|r| r.latency_ms.p50));
        let share = |r: &super::report::Row| 100.0 * r.answered as f64 / r.offered.max(1) as f64;
        plot(page, "answered, %", "frames a second, each stream", &lines(share));
        page.raw("</div>\n");
        page.table(ROW_COLUMNS, report.rows.iter().map(row_cells));
        if !report.overheads.is_empty() {
            own_time(page, &report.overheads);
        }
    })
}

fn own_time(page: &mut Page, overheads: &[Overhead]) {
    page.element("h2", &[], "The node's own time, ms").raw("\n");
    let about = "One frame at a time, engines that are no models. Socket: from when the last piece of the request was \
                 handed to the node's socket until the first byte of its reply came out, by a relay outside of the node, \
                 which hands on so many Mbit/s, or as many as the machine does. Stamps: sent_ns less received_ns. Both \
                 without the stages embed and segment; waits for a processor, decoding, copies and the encoding of masks \
                 all count. Client and relay run on the same cores. Processor and page faults: the whole process for a \
                 frame, engines and all.";
    page.element("p", &[], about).raw("\n");
    page.table(OVERHEAD_COLUMNS, overheads.iter().map(overhead_cells));
}

/// The page of a soak.
pub fn soak(report: &soak::Report) -> String {
    document("sam4mllm bench soak", |page| {
        page.element("p", &[], report.about()).raw("\n");
        page.element("p", &[], report.judgement.says()).raw("\n");
        page.raw("<div class=\"grid\">\n");
        let points = report.samples.iter().map(|s| (s.at_s / 60.0, s.resident_mib)).collect();
        plot(page, "memory in use, MiB", "minutes", &[Line { name: "resident".to_owned(), points }]);
        let points = report.samples.iter().map(|s| (s.at_s / 60.0, s.streams as f64)).collect();
        plot(page, "streams", "minutes", &[Line { name: "open".to_owned(), points }]);
        page.raw("</div>\n");
        let rows = report.counts().map(|(name, n)| vec![name.to_owned(), n.to_string()]);
        page.table(["what", "how often"], rows);
    })
}

/// A number as SVG takes it.
fn unit(v: f64) -> String {
    format!("{v:.1}")
}

/// The next of 1, 2, 5, 10, ... at or above `v`.
fn round_up(v: f64) -> f64 {
    let magnitude = 10f64.powf(v.max(1e-6).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * magnitude).find(|r| *r >= v).unwrap_or(v)
}

/// Lines over one another, axes from 0.
fn plot(page: &mut Page, title: &str, x: &str, lines: &[Line]) {
    page.raw("<section class=\"card\">").element("h3", &[], title);
    let all = || lines.iter().flat_map(|l| &l.points);
    let most = |of: fn(&(f64, f64)) -> f64| round_up(all().map(of).fold(0.0, f64::max));
    let (across, up) = (most(|p| p.0), most(|p| p.1));
    let place = |(px, py): (f64, f64)| (LEFT + WIDTH * px / across, TOP + HEIGHT * (1.0 - py / up));
    page.open("svg", &[("viewBox", &"0 0 320 236"), ("role", &"img"), ("aria-label", &title)]);
    for i in 0..=4 {
        let share = f64::from(i) / 4.0;
        let (_, y) = place((0.0, share * up));
        segment(page, "grid", (LEFT, y), (LEFT + WIDTH, y));
        text(page, (LEFT - 5.0, y + 4.0), "end", &number(share * up));
        text(page, (LEFT + WIDTH * share, TOP + HEIGHT + 14.0), "middle", &number(share * across));
    }
    for (i, line) in lines.iter().enumerate() {
        let stroke = STROKES[i % STROKES.len()];
        let points: Vec<String> =
            line.points.iter().map(|p| place(*p)).map(|(x, y)| format!("{},{}", unit(x), unit(y))).collect();
        let points = points.join(" ");
        page.open("polyline", &[("points", &points), ("fill", &"none"), ("stroke", &stroke), ("stroke-width", &1.6)]);
        page.element("title", &[], &line.name).close("polyline");
        let (at, y) = (unit(LEFT + 6.0 + 62.0 * i as f64), unit(TOP + HEIGHT + 46.0));
        page.open("text", &[("x", &at), ("y", &y), ("style", &format!("fill: {stroke}"))])
            .text(&line.name)
            .close("text");
    }
    text(page, (LEFT + WIDTH / 2.0, TOP + HEIGHT + 30.0), "middle", &x);
    page.close("svg").raw("</section>\n");
}

fn number(v: f64) -> String {
    if v >= 10.0 || v == 0.0 { format!("{v:.0}") } else { format!("{v:.2}") }
}

fn text(page: &mut Page, (x, y): (f64, f64), anchor: &'static str, text: &dyn Display) {
    page.element("text", &[("x", &unit(x)), ("y", &unit(y)), ("text-anchor", &anchor)], text);
}

fn segment(page: &mut Page, class: &'static str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let ends: [(&'static str, &dyn Display); 5] =
        [("class", &class), ("x1", &unit(x1)), ("y1", &unit(y1)), ("x2", &unit(x2)), ("y2", &unit(y2))];
    page.open("line", &ends).close("line");
}
