//! `sam4mllm engine plan`: whether a bundle or a checkpoint fits a board's memory, before it is imported or built.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::Context;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::Format;
use crate::engine::bundle::{Bundle, MANIFEST, Verify};
use crate::import::{Form, Level, Precision};
use crate::model::footprint::{Demand, Footprint, Runtime, Subject, footprint, precisions};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Width of a bar, in characters.
const BAR: u64 = 40;

/// Arguments of `sam4mllm engine plan`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A bundle, or the directory of a checkpoint. Only configurations and headers are read; hashes are not checked.
    dir: PathBuf,
    /// Ends with 1 where it does not fit this board.
    #[arg(long, value_enum)]
    board: Option<Board>,
    /// What products are computed in. Default: all are shown, and one that fits is enough.
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// Which operators the plans' graphs are written with: `fused` takes TensorRT from 10.16, which JetPack 6 is not.
    #[arg(long, value_enum, default_value_t)]
    level: Level,
    /// Longest conversation in tokens, as `engine build --positions` takes it. Default: as long as the checkpoint knows.
    #[arg(long)]
    context: Option<u64>,
    /// Tokens of an image. Default: what the class makes of one at most; 1024 where it takes any number.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    image_tokens: Option<u64>,
    /// Sessions at once.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    sessions: u64,
    /// MiB that the system and everything else on the board take: an assumption, look at `free` on yours.
    #[arg(long, default_value_t = 2048)]
    reserve: u64,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// A board; CPU and GPU share its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Board {
    /// Jetson Orin Nano, 8 GiB.
    #[value(name = "orin-nano-8g")]
    OrinNano8,
    /// Jetson Orin NX, 16 GiB.
    #[value(name = "orin-nx-16g")]
    OrinNx16,
    /// Jetson AGX Orin, 64 GiB.
    #[value(name = "agx-orin-64g")]
    AgxOrin64,
    /// Jetson AGX Thor, 128 GiB.
    Thor,
}

impl Board {
    const ALL: [Self; 4] = [Self::OrinNano8, Self::OrinNx16, Self::AgxOrin64, Self::Thor];

    fn name(self) -> &'static str {
        match self {
            Self::OrinNano8 => "orin-nano-8g",
            Self::OrinNx16 => "orin-nx-16g",
            Self::AgxOrin64 => "agx-orin-64g",
            Self::Thor => "thor",
        }
    }

    /// Source: NVIDIA's data sheets of the modules.
    fn memory(self) -> u64 {
        match self {
            Self::OrinNano8 => 8 * GIB,
            Self::OrinNx16 => 16 * GIB,
            Self::AgxOrin64 => 64 * GIB,
            Self::Thor => 128 * GIB,
        }
    }

    fn left(self, reserve_mib: u64) -> u64 {
        self.memory().saturating_sub(reserve_mib.saturating_mul(MIB))
    }
}

/// Whether one precision fits one board.
#[derive(Debug, Serialize)]
struct Fit {
    board: &'static str,
    /// What is left for the node.
    bytes: u64,
    runtime: Runtime,
    precision: &'static str,
    fits: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    footprints: Vec<Footprint>,
    reserve_bytes: u64,
    boards: Vec<Fit>,
}

/// Runs the subcommand; the second is why it failed the check that was asked for.
pub fn run(args: &Args) -> anyhow::Result<(String, Option<String>)> {
    let bundle = match args.dir.join(MANIFEST).exists() {
        true => Some(Bundle::open(&args.dir, Verify::Sizes)?),
        false => None,
    };
    let subject = bundle.as_ref().map_or(Subject::Checkpoint(&args.dir), Subject::Bundle);
    let mut footprints = Vec::new();
    for runtime in [Runtime::Cpu, Runtime::TensorRt] {
        let wanted = precisions(runtime).iter().filter(|&&precision| args.precision.is_none_or(|p| p == precision));
        for &precision in wanted {
            let level = if runtime == Runtime::Cpu { Level::Portable } else { args.level };
            let form = Form { level, precision };
            let Args { context, image_tokens, sessions, .. } = *args;
            footprints.push(footprint(subject, Demand { runtime, form, context, image_tokens, sessions })?);
        }
    }
    let boards = Board::ALL.into_iter().filter(|&board| args.board.is_none_or(|wanted| wanted == board));
    let fits = boards.flat_map(|board| footprints.iter().map(move |footprint| (board, footprint)));
    let boards: Vec<Fit> = fits.map(|(board, footprint)| fit(board, footprint, args.reserve)).collect();
    let failed =
        args.board.filter(|_| !boards.iter().any(|fit| fit.fits)).map(|board| why_not(board, &footprints, args));
    let report = Report { footprints, reserve_bytes: args.reserve.saturating_mul(MIB), boards };
    let text = match args.format {
        Format::Json => serde_json::to_string_pretty(&report).context("write figures")? + "\n",
        Format::Text => text(&report, args),
    };
    Ok((text, failed))
}

fn fit(board: Board, footprint: &Footprint, reserve: u64) -> Fit {
    let (bytes, Footprint { runtime, precision, total, .. }) = (board.left(reserve), footprint);
    Fit { board: board.name(), bytes, runtime: *runtime, precision, fits: *total <= bytes }
}

fn why_not(board: Board, footprints: &[Footprint], args: &Args) -> String {
    let least = footprints.iter().min_by_key(|footprint| footprint.total).expect("one precision is counted");
    let (needs, left) = (size(least.total), size(board.left(args.reserve)));
    let name = if args.precision.is_some() { least.precision.to_owned() } else { format!("even {}", least.precision) };
    format!("{name} takes {needs} of the {left} that {} has left", board.name())
}

/// Bytes with three figures.
fn size(bytes: u64) -> String {
    let (value, unit) = match bytes {
        GIB.. => (bytes as f64 / GIB as f64, "GiB"),
        MIB.. => (bytes as f64 / MIB as f64, "MiB"),
        _ => (bytes as f64 / 1024.0, "KiB"),
    };
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {unit}")
}

fn name(runtime: Runtime, precision: &str) -> String {
    match runtime {
        Runtime::Cpu => format!("CPU {precision}"),
        Runtime::TensorRt => format!("GPU {precision}"),
    }
}

fn text(report: &Report, args: &Args) -> String {
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let first = report.footprints.first();
    let mut text = format!("{}\n{}\n", parts_table(&report.footprints), graphs_table(&report.footprints));
    for board in Board::ALL.into_iter().filter(|&board| args.board.is_none_or(|wanted| wanted == board)) {
        let left = board.left(args.reserve);
        let _ = writeln!(text, "{}: {} of {} left for the node", board.name(), size(left), size(board.memory()));
        for footprint in &report.footprints {
            let Footprint { runtime, precision, total, .. } = footprint;
            let (bar, verdict) = (bar(*total, left, colour), if *total <= left { "fits" } else { "too large" });
            let _ = writeln!(text, "  {:9} {bar} {:>9}  {verdict}", name(*runtime, precision), size(*total));
        }
    }
    if let Some(Footprint { context, image_tokens, .. }) = first.filter(|first| first.context > 0) {
        let _ = writeln!(text, "conversations of up to {context} tokens, {image_tokens} of them an image");
    }
    text
}

/// How much of what is left something takes: green up to four fifths, yellow up to all of it, red beyond.
fn bar(total: u64, left: u64, colour: bool) -> String {
    let share = total as f64 / left.max(1) as f64;
    let full = ((share * BAR as f64).ceil() as usize).min(BAR as usize);
    let end = if share > 1.0 { "▶" } else { "│" };
    let bar = format!("{}{}{end}", "█".repeat(full), "░".repeat(BAR as usize - full));
    match (colour, share) {
        (false, _) => bar,
        (_, ..=0.8) => format!("\x1b[32m{bar}\x1b[0m"),
        (_, ..=1.0) => format!("\x1b[33m{bar}\x1b[0m"),
        _ => format!("\x1b[31m{bar}\x1b[0m"),
    }
}

fn table(header: Vec<String>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(header);
    table
}

fn align(table: &mut Table) {
    table.column_iter_mut().skip(1).for_each(|column| {
        column.set_cell_alignment(CellAlignment::Right);
    });
}

/// A row for each part, a column for each precision.
fn parts_table(footprints: &[Footprint]) -> Table {
    type Part = (&'static str, fn(&Footprint) -> u64);
    let parts: [Part; 8] = [
        ("weights", |f| f.weights),
        ("KV cache", |f| f.cache),
        ("  a token", |f| f.cache_per_token),
        ("activations", |f| f.activations),
        ("embeddings", |f| f.embeddings),
        ("in and out", |f| f.buffers),
        ("program", |f| f.program),
        ("all", |f| f.total),
    ];
    let names = footprints.iter().map(|f| name(f.runtime, f.precision));
    let mut table = table([String::new()].into_iter().chain(names).collect());
    for (part, of) in parts {
        table.add_row([part.to_owned()].into_iter().chain(footprints.iter().map(|f| size(of(f)))).collect::<Vec<_>>());
    }
    align(&mut table);
    table
}

/// Weights and activations of each graph.
fn graphs_table(footprints: &[Footprint]) -> Table {
    let names = footprints.iter().map(|f| name(f.runtime, f.precision));
    let mut table = table(["weights + activations".to_owned()].into_iter().chain(names).collect());
    let graphs = footprints.first().map(|first| first.graphs.as_slice()).unwrap_or_default();
    for (index, graph) in graphs.iter().enumerate() {
        let share = |f: &Footprint| {
            f.graphs.get(index).map_or_else(String::new, |g| format!("{} + {}", size(g.weights), size(g.activations)))
        };
        table.add_row([graph.graph.clone()].into_iter().chain(footprints.iter().map(share)).collect::<Vec<_>>());
    }
    align(&mut table);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_figures_and_bars_end_where_memory_does() {
        let sizes = [0, 1536, 5 * MIB, 150 * MIB, 12 * GIB + GIB / 2].map(size);
        assert_eq!(sizes, ["0.00 KiB", "1.50 KiB", "5.00 MiB", "150 MiB", "12.5 GiB"]);
        assert_eq!(bar(5, 10, false), format!("{}{}│", "█".repeat(20), "░".repeat(20)));
        assert_eq!(bar(11, 10, false), format!("{}▶", "█".repeat(40)));
        assert_eq!(bar(2, 0, true), format!("\x1b[31m{}▶\x1b[0m", "█".repeat(40)));
    }
}
