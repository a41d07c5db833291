//! `sam4mllm engine decoder`: how near a decoder comes to what the GPU's memory and its products allow.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Serialize;

use super::plans::{Device as Target, init_logs};
use super::{Format, quantile};
use crate::engine::tensorrt::plan::{Made, Recipe, make};
use crate::engine::tensorrt::{Buffers, Builder, Device, Library, PlanStore, TensorRtEngine};
use crate::engine::{Engine, Tensor};
use crate::import::{Form, ImportReport, Level, Precision, import};
use crate::model::plans::{GraphOptions, PlanGraph, decoder_graph, product_graph};

/// Size of the memory that is copied to find out how fast it is.
const COPY_BYTES: usize = 256 << 20;

/// Arguments of `sam4mllm engine decoder`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A checkpoint of a language model with images; `tests/gpu/decoder/make.py` makes one of random weights.
    dir: PathBuf,
    /// What matrix products are computed in, and what the weights are stored as.
    #[arg(long, value_enum, default_value_t = Precision::Fp16)]
    precision: Precision,
    /// Which operators the graph is written with. Default: the most that this TensorRT takes.
    #[arg(long, value_enum)]
    level: Option<Level>,
    /// Tokens of the first pass.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    prompt: u32,
    /// Tokens that follow one by one.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    tokens: u32,
    /// How often all of that is done.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// Size of the matrices whose product is timed, to find out how fast products are at best.
    #[arg(long, default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..=32_768))]
    product: u32,
    /// Build for this and stop: `sm86`, as `engine build` takes it.
    #[arg(long)]
    build_for: Option<Target>,
    /// Folder for the graph, its weights where they are not the checkpoint's, and the plan.
    #[arg(long)]
    cache: PathBuf,
    /// How to print the figures.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Milliseconds, and what was reached of a ceiling.
#[derive(Debug, Serialize)]
struct Speed {
    /// p50, p95 on the GPU.
    gpu_ms: [f64; 2],
    /// The same with copies to the GPU and back.
    whole_ms: [f64; 2],
    tokens_per_s: f64,
    /// Of the ceiling that bounds it, by the p50 on the GPU.
    share: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    device: String,
    tensorrt: String,
    level: &'static str,
    precision: &'static str,
    plan_bytes: u64,
    built_in_s: f64,
    /// Parameters in products: all but those of the word embeddings, unless the head is tied to them.
    parameters: u64,
    /// What one token reads of weights, in bytes.
    weight_bytes: u64,
    /// Bytes a second of device memory, reads and writes together, measured.
    memory_ceiling: f64,
    /// Floating-point operations a second of products in 16 bits, measured.
    product_ceiling: f64,
    /// The pass of all of the prompt, bound by products.
    prompt: Speed,
    /// A token behind it, bound by memory.
    token: Speed,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<String> {
    init_logs();
    let library = Library::find()?;
    let level = args.level.unwrap_or(GraphOptions::highest_level(library.version()));
    let form = Form { level, precision: args.precision };
    let dir = args.cache.join(format!("decoder-{}-{}", level.name(), args.precision.name()));
    let imported = import(&args.dir, &dir, form)?;
    let positions = args.prompt.saturating_add(args.tokens);
    let graph = decoder_graph(dir.join("decoder.onnx"), form, positions)?;
    let store = PlanStore::open(args.cache.join("plans"))?;
    let recipe = Recipe::new(&library, args.build_for.and_then(|target| target.0))?;
    let plan = |graph: &PlanGraph, weights: &str| -> anyhow::Result<Made> {
        let builder = Builder::new(library)?;
        Ok(make(&builder, &store, &recipe, (&graph.source(weights), &graph.profiles), None)?)
    };
    let made = find_or(&store, &recipe, &library, &graph, &weights_key(&args.dir), &plan)?;
    let record = made.record().clone();
    if args.build_for.is_some() {
        let (mib, device) = (record.bytes as f64 / 1_048_576.0, recipe.device());
        return Ok(format!("decoder for {device}: {mib:.1} MiB, built in {:.1} s\n", record.seconds));
    }
    let device = Device::open()?;
    let memory_ceiling = device.copy_speed(COPY_BYTES)?;
    let size = args.product as usize;
    let product = find_or(&store, &recipe, &library, &product_graph(size), "", &plan)?;
    // Copied on boards too: what is measured there is products, not how fast mapped memory is read.
    let copies = Device::open_with(Buffers::Copied)?;
    let product_ceiling = multiply(TensorRtEngine::load("product", library, &copies, &product)?, size)?;
    let mut engine = TensorRtEngine::load("decoder", library, &device, &made)?;
    let times = converse(&mut engine, args)?;
    let (parameters, weight_bytes) = weights(&imported, args.precision)?;
    let operations = 2.0 * parameters as f64 * f64::from(args.prompt);
    let report = Report {
        device: format!("{} (sm{})", device.name(), device.sm()),
        tensorrt: library.version().to_string(),
        level: level.name(),
        precision: args.precision.name(),
        plan_bytes: record.bytes,
        built_in_s: record.seconds,
        parameters,
        weight_bytes,
        memory_ceiling,
        product_ceiling,
        prompt: times.prompt(f64::from(args.prompt), operations / product_ceiling),
        token: times.token(weight_bytes as f64 / memory_ceiling),
    };
    Ok(match args.format {
        Format::Json => serde_json::to_string_pretty(&report).context("write figures")? + "\n",
        Format::Text => text(&report, args),
    })
}

/// A plan that is there, or is built.
fn find_or(
    store: &PlanStore,
    recipe: &Recipe,
    library: &Library,
    graph: &PlanGraph,
    weights: &str,
    build: &dyn Fn(&PlanGraph, &str) -> anyhow::Result<Made>,
) -> anyhow::Result<crate::engine::tensorrt::Plan> {
    match store.look(&recipe.key(library, &graph.source(weights), &graph.profiles)) {
        Some(plan) => Ok(plan),
        None => Ok(build(graph, weights)?.plan),
    }
}

/// What stands for a checkpoint's weights in the key of its plan: where it is. Weights of random numbers do not matter.
pub fn weights_key(dir: &Path) -> String {
    dir.display().to_string()
}

/// Parameters in the decoder's products, and the bytes of them that a token reads.
fn weights(imported: &ImportReport, precision: Precision) -> anyhow::Result<(u64, u64)> {
    let decoder = imported.graphs.iter().find(|graph| graph.name == "decoder").context("there is a decoder")?;
    let (all, few) = (decoder.parameters, imported.weights.quantised);
    let wide = if precision == Precision::Fp32 { 4 } else { 2 };
    let narrow = match precision {
        Precision::Int8 => few,
        // A scale of 16 bits for each 128 weights at best.
        Precision::Int4 => few / 2 + few / 64,
        _ => 0,
    };
    Ok((all, all.saturating_sub(few) * wide + narrow))
}

/// Milliseconds of every pass, on the GPU alone and with copies.
#[derive(Default)]
struct Times {
    prompt: Vec<[f64; 2]>,
    token: Vec<[f64; 2]>,
}

impl Times {
    fn prompt(&self, tokens: f64, least_s: f64) -> Speed {
        speed(&self.prompt, tokens, least_s)
    }

    fn token(&self, least_s: f64) -> Speed {
        speed(&self.token, 1.0, least_s)
    }
}

fn speed(times: &[[f64; 2]], tokens: f64, least_s: f64) -> Speed {
    let sorted = |which: usize| {
        let mut ms: Vec<f64> = times.iter().map(|pair| pair[which]).collect();
        ms.sort_by(f64::total_cmp);
        [0.5, 0.95].map(|q| quantile(&ms, q).unwrap_or(f64::NAN))
    };
    let (gpu_ms, whole_ms) = (sorted(0), sorted(1));
    Speed { gpu_ms, whole_ms, tokens_per_s: tokens * 1e3 / whole_ms[0], share: least_s * 1e3 / gpu_ms[0] }
}

/// Passes of the whole prompt, each followed by single tokens. The first round warms up and does not count.
fn converse(engine: &mut TensorRtEngine, args: &Args) -> anyhow::Result<Times> {
    let width = engine.inputs().iter().find(|info| info.name == "inputs_embeds").and_then(|info| *info.shape.last()?);
    let width = width.context("the decoder takes embeddings of a fixed width")?;
    let Some(empty) = engine.empty_cache() else {
        bail!("this plan keeps no cache on the GPU: only graphs of the level `fused` do")
    };
    let mut times = Times::default();
    for run in 0..=args.runs {
        let mut cache = empty.clone();
        for step in 0..=args.tokens {
            let (new, past) = (if step == 0 { args.prompt as usize } else { 1 }, cache.tokens());
            let wave = (0..new * width).map(|i| ((i + past) as f32 * 0.37).sin() * 0.1).collect::<Vec<_>>();
            let mut bias = vec![0.0; new * (past + new)];
            for (row, values) in bias.chunks_exact_mut(past + new).enumerate() {
                values[past + row + 1..].fill(-3e4);
            }
            let inputs = vec![
                ("inputs_embeds", Tensor::f32(&[1, new, width], wave)),
                ("position_ids", Tensor::i32(&[1, new], (past as i32..(past + new) as i32).collect::<Vec<_>>())),
                ("attention_bias", Tensor::f32(&[1, 1, new, past + new], bias)),
                ("logit_indices", Tensor::i32(&[1], vec![new as i32 - 1])),
            ];
            cache = engine.run_resident(inputs, &*cache, &["logits"])?.1;
            let took = engine.times().context("a run was timed")?;
            let gpu = f64::from(took.compute_ms);
            let pair = [gpu, gpu + f64::from(took.upload_ms) + f64::from(took.download_ms)];
            if run > 0 {
                (if step == 0 { &mut times.prompt } else { &mut times.token }).push(pair);
            }
        }
    }
    Ok(times)
}

/// Operations a second of the fastest of ten products.
fn multiply(mut engine: TensorRtEngine, size: usize) -> anyhow::Result<f64> {
    let matrix = || Tensor::f32(&[size, size], vec![0.5; size * size]);
    let (a, b) = (matrix(), matrix());
    let mut least = f64::INFINITY;
    for _ in 0..10 {
        engine.run(vec![("a", a.view()), ("b", b.view())], &[])?;
        least = least.min(f64::from(engine.times().context("a run was timed")?.compute_ms));
    }
    Ok(2.0 * (size as f64).powi(3) / (least.max(1e-6) / 1e3))
}

fn text(report: &Report, args: &Args) -> String {
    let Report { device, tensorrt, level, precision, parameters, prompt, token, .. } = report;
    let line = |speed: &Speed| {
        let [p50, p95] = speed.gpu_ms;
        let (whole, per_s, share) = (speed.whole_ms[0], speed.tokens_per_s, speed.share * 100.0);
        format!(
            "p50 {p50:.2} ms, p95 {p95:.2} ms on the GPU, {whole:.2} ms with copies; {per_s:.0} tokens/s; {share:.0} %"
        )
    };
    format!(
        "{device}, {tensorrt}, {level}, {precision}: {:.2} G parameters, {:.2} GB of weights a token, plan of {:.2} GB \
         built in {:.0} s\nceilings, measured: memory {:.0} GB/s, products in 16 bits {:.1} TFLOP/s\n\
         pass of {} tokens: {} of the products' ceiling\ntoken behind it: {} of the memory's ceiling\n",
        *parameters as f64 / 1e9,
        report.weight_bytes as f64 / 1e9,
        report.plan_bytes as f64 / 1e9,
        report.built_in_s,
        report.memory_ceiling / 1e9,
        report.product_ceiling / 1e12,
        args.prompt,
        line(prompt),
        line(token),
    )
}
