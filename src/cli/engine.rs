//! `sam4mllm engine`: checkpoints to graphs, and what is in a bundle.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Subcommand;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use serde_json::json;

use super::{Format, bench};
use crate::engine::bundle::{Bundle, DialectName, MANIFEST, StoredOutputs, Verify, seal, store_outputs};
use crate::import::{
    Adapter, AdapterMode, Composition, Form, ImportReport, Level, Port, Precision, compose, default_cache_dir,
    describe_bundle, import_adapted, import_bundle, import_cached,
};
use crate::model::stages::{LoadOptions, run_self_test};

/// Arguments of `sam4mllm engine`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Turn a Hugging Face checkpoint, or both of a bundle, into ONNX graphs; with --sam, two checkpoints into a bundle.
    Import(ImportArgs),
    /// Fetch a checkpoint from a Hugging Face hub, or both of a recipe's and make a bundle of them.
    Pull(super::pull::Args),
    /// Which bundles can be made of published checkpoints, under which licences.
    Recipe(super::recipe::Args),
    /// Build TensorRT plans of a bundle's graphs, or find those that are built.
    #[cfg(feature = "tensorrt")]
    Build(super::plans::Args),
    /// Hold the GPU's engines against the CPU's, tensor by tensor.
    #[cfg(feature = "tensorrt")]
    Check(super::parity::Args),
    /// Time a decoder on the GPU against what its memory and its products allow.
    #[cfg(feature = "tensorrt")]
    Decoder(super::decoder::Args),
    /// Look for TensorRT's libraries, a driver and a GPU; ends with 1 where plans cannot run here.
    #[cfg(feature = "tensorrt")]
    Probe(super::gpu::BufferArgs),
    /// Say what a bundle or a checkpoint takes of memory, and which boards that fits.
    Plan(super::footprint::Args),
    /// Time a command and a tracked frame, stage by stage.
    Bench(bench::Args),
    /// Check a bundle and show what is in it.
    Inspect(InspectArgs),
    /// Write size and hash of every file into a bundle's manifest, and what its engines say to the self-test's input;
    /// everything else in it stays as it is.
    Seal(SealArgs),
}

#[derive(Debug, clap::Args)]
struct ImportArgs {
    /// A checkpoint directory, or a bundle.
    dir: PathBuf,
    /// Where the graphs go. Default: for a bundle, the cache that a node looks into.
    #[arg(short, long)]
    out: Option<PathBuf>,
    /// A LoRA adapter that peft saved, for a checkpoint; a bundle names its own in its manifest.
    #[arg(long)]
    adapter: Option<PathBuf>,
    /// Add the adapter to the weights, or compute it beside them.
    #[arg(long, value_enum, default_value_t = AdapterMode::Merge, requires = "adapter")]
    adapter_mode: AdapterMode,
    /// Which operators the graphs are written with: those that every runtime has, or those of TensorRT from 10.16 and
    /// TensorRT for RTX.
    #[arg(long, value_enum, default_value_t)]
    level: Level,
    /// What matrix products are computed in, and what the language model's weights are stored as. rten runs fp32.
    #[arg(long, value_enum, default_value_t = Precision::Fp32)]
    precision: Precision,
    /// Make a bundle of the language model in DIR and the segmenter in this directory, in the folder that --out names.
    #[arg(long, requires = "out", conflicts_with_all = ["adapter", "level", "precision"])]
    sam: Option<PathBuf>,
    /// With --sam: how the language model is spoken to. Default: `qwen_json` for Qwen2.5-VL, `qwen3_json` for Qwen3-VL,
    /// else `paper`.
    #[arg(long, value_enum, requires = "sam")]
    dialect: Option<DialectName>,
    /// With --sam: the bundle's name. Default: that of its folder.
    #[arg(long, requires = "sam")]
    name: Option<String>,
    /// With --sam: the licence of the weights, as SPDX writes it.
    #[arg(long, requires = "sam", default_value = "LicenseRef-unknown")]
    licence: String,
}

#[derive(Debug, clap::Args)]
struct InspectArgs {
    /// A bundle; where TensorRT is built in, also the file of a plan.
    bundle: PathBuf,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, clap::Args)]
struct SealArgs {
    /// A bundle.
    dir: PathBuf,
    /// Store no outputs for the self-test, and take out those that are stored: a node then tests shape and finiteness
    /// alone. For weights that this machine cannot run.
    #[arg(long)]
    no_self_test: bool,
}

/// Runs the subcommand.
pub fn run(args: Args) -> anyhow::Result<()> {
    let text = match args.command {
        Command::Bench(args) => bench::run(&args)?,
        #[cfg(feature = "tensorrt")]
        Command::Build(args) => super::plans::run(&args)?,
        #[cfg(feature = "tensorrt")]
        Command::Check(args) => {
            let (text, passed) = super::parity::run(&args)?;
            return outcome(&text, passed, "outputs of the GPU are not those of the CPU");
        }
        #[cfg(feature = "tensorrt")]
        Command::Decoder(args) => super::decoder::run(&args)?,
        #[cfg(feature = "tensorrt")]
        Command::Probe(args) => {
            let (text, complete) = super::probe::run(&args);
            return outcome(&text, complete, "plans cannot run on this machine");
        }
        Command::Plan(args) => {
            let (text, failed) = super::footprint::run(&args)?;
            std::io::stdout().write_all(text.as_bytes()).context("write to stdout")?;
            return failed.map_or(Ok(()), |why| bail!(why));
        }
        Command::Import(args) => run_import(&args)?,
        Command::Pull(args) => super::pull::run(&args)?,
        Command::Recipe(args) => super::recipe::run(&args)?,
        Command::Inspect(args) => run_inspect(&args)?,
        Command::Seal(args) => run_seal(&args)?,
    };
    std::io::stdout().write_all(text.as_bytes()).context("write to stdout")
}

/// Prints `text`, and fails with `why` where what it tells is not good.
#[cfg(feature = "tensorrt")]
fn outcome(text: &str, good: bool, why: &'static str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("write to stdout")?;
    if good { Ok(()) } else { bail!(why) }
}

fn run_seal(args: &SealArgs) -> anyhow::Result<String> {
    let sealed = seal(&args.dir)?;
    let (fingerprint, outputs) = if args.no_self_test {
        (store_outputs(&args.dir, None)?, 0)
    } else {
        let bundle = Bundle::open(&args.dir, Verify::Sizes)?;
        // What is stored is about these weights: graphs of an older seal must not answer for them.
        let cache = std::env::temp_dir().join(format!("sam4mllm-seal-{}", std::process::id()));
        let options = LoadOptions { cache_dir: Some(cache.clone()), ..LoadOptions::default() };
        let tested = run_self_test(&bundle, &options).context("run the engines for the self-test");
        let _ = std::fs::remove_dir_all(&cache);
        let outputs: StoredOutputs =
            tested?.into_iter().map(|t| (format!("{}.{}", t.engine, t.tensor), t.print)).collect();
        (store_outputs(&args.dir, Some(&outputs))?, outputs.len())
    };
    Ok(format!("{fingerprint}  {} files, {} bytes, {outputs} outputs for the self-test\n", sealed.files, sealed.bytes))
}

/// Makes a bundle of two checkpoints.
fn run_compose(args: &ImportArgs, sam: &Path, out: &Path) -> anyhow::Result<String> {
    let folder = out.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = args.name.clone().or(folder).context("--name is needed: the folder of --out has none")?;
    let parts = Composition { mllm: &args.dir, sam, dialect: args.dialect, name: &name, licence: &args.licence };
    let sealed = compose(&parts, out)?;
    Ok(format!("{}  {} files, {} bytes\n", sealed.fingerprint, sealed.files, sealed.bytes))
}

fn run_import(args: &ImportArgs) -> anyhow::Result<String> {
    if let (Some(sam), Some(out)) = (&args.sam, &args.out) {
        return run_compose(args, sam, out);
    }
    let form = Form { level: args.level, precision: args.precision };
    if !args.dir.join(MANIFEST).exists() {
        let out = args.out.as_ref().context("--out is needed for a checkpoint that is in no bundle")?;
        let adapter = args.adapter.as_deref().map(|dir| Adapter { dir, mode: args.adapter_mode });
        return Ok(summary(&import_adapted(&args.dir, adapter, out, form)?));
    }
    if args.adapter.is_some() {
        bail!(
            "a bundle names its adapter itself: put it in there, set `adapter` under [mllm] in {MANIFEST}, and seal it"
        );
    }
    let bundle = Bundle::open(&args.dir, Verify::Hashes)?;
    let Some(out) = &args.out else {
        let imported = import_cached(&bundle, default_cache_dir(), form)?;
        return Ok(format!("{}\n{}\n", imported.mllm_dir().display(), imported.sam_dir().display()));
    };
    Ok(import_bundle(&bundle, out, form)?.iter().map(summary).collect())
}

fn summary(report: &ImportReport) -> String {
    let weights = &report.weights;
    let adapter = report.adapter.as_ref().map_or_else(String::new, |adapter| {
        let done = match adapter.mode {
            AdapterMode::Merge => "merged",
            AdapterMode::Keep => "kept",
        };
        format!(
            "adapter: {} matrices of rank up to {} {done}, {} tensors replaced\n",
            adapter.low_rank, adapter.rank, adapter.replaced
        )
    });
    let quantised = match weights.quantised {
        0 => String::new(),
        count => format!("{count} parameters in few bits\n"),
    };
    format!(
        "{} in {:.1} ms: {} parameters; {} bytes in place, {} written, {} tensors unused\n{adapter}{quantised}{}\n",
        report.class,
        report.elapsed.as_secs_f64() * 1e3,
        weights.parameters,
        weights.in_place_bytes,
        weights.written_bytes,
        weights.unused.len(),
        graphs_table(&[report])
    )
}

fn run_inspect(args: &InspectArgs) -> anyhow::Result<String> {
    #[cfg(feature = "tensorrt")]
    if args.bundle.extension().is_some_and(|extension| extension == "plan") {
        return super::plan_inspect::run(&args.bundle, args.format);
    }
    let bundle = Bundle::open(&args.bundle, Verify::Hashes)?;
    let reports = describe_bundle(&bundle, Level::Portable)?;
    match args.format {
        Format::Text => Ok(describe(&bundle, &reports)),
        Format::Json => {
            let value = json!({
                "fingerprint": bundle.fingerprint(),
                "manifest": bundle.manifest(),
                "models": { "mllm": &reports[0], "sam": &reports[1] },
            });
            Ok(format!("{value:#}\n"))
        }
    }
}

fn describe(bundle: &Bundle, reports: &[ImportReport; 2]) -> String {
    let manifest = bundle.manifest();
    let mut about = table(&[]);
    about.add_row(["bundle", &format!("{} {}", manifest.name, manifest.version)]);
    about.add_row(["fingerprint", bundle.fingerprint()]);
    about.add_row(["licence", &manifest.licence]);
    about.add_row(["description", &manifest.description]);
    for (name, report) in ["mllm", "sam"].iter().zip(reports) {
        let types = report.weights.data_types.iter().map(|(name, count)| format!("{count} {name}"));
        let types = types.collect::<Vec<_>>().join(", ");
        about.add_row([*name, &format!("{}, parameters: {types}", report.class)]);
    }
    let mut text = format!("{about}\n{}\n{}\n", files_table(bundle), graphs_table(&[&reports[0], &reports[1]]));
    if !manifest.eval.is_empty() {
        let mut eval = table(&["eval", "figure"]);
        for (key, value) in &manifest.eval {
            eval.add_row([key.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)]);
        }
        text += &format!("{eval}\n");
    }
    text
}

fn files_table(bundle: &Bundle) -> Table {
    let mut table = table(&["file", "bytes", "sha256"]);
    for (path, entry) in &bundle.manifest().files {
        table.add_row([path.clone(), entry.bytes.to_string(), entry.sha256[..16].to_owned()]);
    }
    table
}

fn graphs_table(reports: &[&ImportReport]) -> Table {
    let mut table = table(&["graph", "operators", "parameters", "takes", "gives"]);
    for graph in reports.iter().flat_map(|report| &report.graphs) {
        let (nodes, parameters) = (graph.nodes.to_string(), graph.parameters.to_string());
        table.add_row([graph.name.clone(), nodes, parameters, ports(&graph.inputs), ports(&graph.outputs)]);
    }
    table
}

/// One port a line; those of a cache, which are alike for every layer, only for the first.
fn ports(ports: &[Port]) -> String {
    let of_later_layer = |name: &str| name.rsplit_once('.').is_some_and(|(_, layer)| layer != "0");
    let shown = ports.iter().filter(|port| !of_later_layer(&port.name));
    let line = |port: &Port| format!("{} {}[{}]", port.name, port.data_type, port.shape.join(", "));
    let mut lines: Vec<String> = shown.map(line).collect();
    if lines.len() < ports.len() {
        lines.push(format!("and {} of the other layers", ports.len() - lines.len()));
    }
    lines.join("\n")
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    if !header.is_empty() {
        table.set_header(header.to_vec());
    }
    table
}
