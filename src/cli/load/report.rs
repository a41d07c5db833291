//! What a load comes to, as data and as tables.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde::Serialize;

use super::footage::Sent;
use super::overhead::Overhead;
use crate::cli::quantile;
use crate::server::wire;

/// Where it was measured.
#[derive(Debug, Serialize)]
pub struct Host {
    pub processor: String,
    pub cores: usize,
    /// The load average of the last minute before the end: how busy the machine was with everything.
    pub load_average: Option<f64>,
    pub version: &'static str,
}

impl Host {
    /// This machine now.
    pub fn here() -> Self {
        let load = std::fs::read_to_string("/proc/loadavg").ok();
        Self {
            processor: crate::cli::bench::cpu(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load_average: load.and_then(|text| text.split_whitespace().next()?.parse().ok()),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Subject {
    pub bundle: String,
    pub fingerprint: String,
    pub engine: String,
    pub threads: Option<usize>,
    pub host: Host,
}

impl Subject {
    /// A node that says `about` of itself and has so many threads an engine, on this machine.
    pub fn of(about: wire::Provenance, threads: Option<usize>) -> Self {
        Self {
            bundle: about.bundle_name,
            fingerprint: about.bundle_fingerprint,
            engine: format!("{} {}", about.engine, about.engine_version),
            threads,
            host: Host::here(),
        }
    }

    /// In a part of a sentence.
    pub fn says(&self) -> String {
        let Self { bundle, fingerprint, engine, threads, host } = self;
        let Host { processor, cores, load_average, .. } = host;
        let load = load_average.map_or(String::new(), |load| format!(", load average {load:.1}"));
        let threads = threads.map_or("one a core".to_owned(), |n| n.to_string());
        format!("{bundle} {fingerprint} on {engine}, threads an engine: {threads}; {processor}, {cores} cores{load}")
    }
}

/// Of times, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Quantiles {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
}

impl Quantiles {
    /// NaN, which is null in JSON, where there are none.
    pub fn of(times: Vec<Duration>) -> Self {
        let mut ms: Vec<f64> = times.iter().map(|t| t.as_secs_f64() * 1e3).collect();
        ms.sort_by(f64::total_cmp);
        let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|q| quantile(&ms, q).unwrap_or(f64::NAN));
        Self { p50, p95, p99 }
    }

    /// For tables.
    pub fn cells(&self) -> [String; 3] {
        [self.p50, self.p95, self.p99].map(|v| if v.is_nan() { String::new() } else { format!("{v:.2}") })
    }
}

/// So many streams at such a rate.
#[derive(Debug, Serialize)]
pub struct Row {
    pub streams: u32,
    pub fps: u32,
    /// Frames that were to be sent.
    pub offered: u64,
    /// Frames that were: fewer where the connection held the cameras up.
    pub sent: u64,
    pub answered: u64,
    pub answered_per_s: f64,
    /// From the moment a frame was due to its whole reply.
    pub latency_ms: Quantiles,
    /// Frames that the node dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Processor cores that the node used on average.
    pub cores: Option<f64>,
}

impl Row {
    /// "12 superseded".
    pub fn drops(&self) -> String {
        let drops = self.dropped.iter().map(|(reason, n)| format!("{n} {}", reason.replace('_', " ")));
        drops.collect::<Vec<_>>().join(", ")
    }
}

/// Everything.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub subject: Subject,
    pub size: (u32, u32),
    pub sent: Sent,
    pub targets: u32,
    pub seconds: u32,
    pub rows: Vec<Row>,
    pub overheads: Vec<Overhead>,
}

impl Report {
    /// What was measured where, in a sentence.
    pub fn about(&self) -> String {
        let Self { subject, size: (width, height), sent, targets, seconds, .. } = self;
        let (subject, sent) = (subject.says(), sent.word());
        format!("{subject}; {width}x{height} {sent}, {targets} targets a stream, {seconds} s each")
    }
}

/// Names of the columns of [`row_cells`].
pub const ROW_COLUMNS: [&str; 10] =
    ["streams", "fps", "sent of offered", "answered", "a second", "p50 ms", "p95 ms", "p99 ms", "dropped", "cores"];

/// A row of the table of streams.
pub fn row_cells(row: &Row) -> Vec<String> {
    let mut cells = vec![
        row.streams.to_string(),
        row.fps.to_string(),
        format!("{} of {}", row.sent, row.offered),
        row.answered.to_string(),
        format!("{:.1}", row.answered_per_s),
    ];
    cells.extend(row.latency_ms.cells());
    cells.extend([row.drops(), row.cores.map_or(String::new(), |c| format!("{c:.2}"))]);
    cells
}

/// Names of the columns of [`overhead_cells`].
pub const OVERHEAD_COLUMNS: [&str; 14] = [
    "1920x1080",
    "targets",
    "Mbit/s",
    "program",
    "socket p50",
    "p95",
    "p99",
    "stamps p50",
    "p95",
    "p99",
    "decode",
    "encode",
    "processor",
    "page faults",
];

/// A row of the table of the node's own time, in milliseconds.
pub fn overhead_cells(o: &Overhead) -> Vec<String> {
    let mut cells = vec![o.sent.word().to_owned(), o.targets.to_string()];
    cells.extend([o.link_mbit.map_or("any".to_owned(), |mbit| mbit.to_string()), o.program.clone()]);
    cells.extend(o.socket_ms.cells());
    cells.extend(o.stamps_ms.cells());
    cells.extend([o.decode_ms, o.encode_ms].map(|v| format!("{v:.2}")));
    cells.push(o.processor_ms.map_or(String::new(), |v| format!("{v:.2}")));
    cells.push(o.page_faults.map_or(String::new(), |v| format!("{v:.0}")));
    cells
}

/// The report for people.
pub fn text(report: &Report) -> String {
    let table = |head: &[&str], rows: Vec<Vec<String>>| {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        table.set_header(head.to_vec());
        table.add_rows(rows);
        table
    };
    let rows = table(&ROW_COLUMNS, report.rows.iter().map(row_cells).collect());
    let mut text = format!("{rows}\n{}\n", report.about());
    if let Some(first) = report.overheads.first() {
        let rows = table(&OVERHEAD_COLUMNS, report.overheads.iter().map(overhead_cells).collect());
        text += &format!(
            "{rows}\nthe node's own time in ms, without its engines' (embed, segment), n = {}\n",
            first.frames
        );
    }
    text
}
