//! How much memory a bundle or a checkpoint will take, before anything of it is imported, built or run.
//!
//! Weights, caches and what goes in and out are counted in the graphs that an import would write. Activations are what
//! values take between input and output where each is let go after its last reader; kernels' own memory is not known. On
//! a GPU they are counted at the longest shapes of a plan's profiles, since a context reserves memory for those; on the
//! CPU for the passes that run.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::mllm::MAX_TREE_TOKENS;
use super::sam::{MAX_BATCH, MAX_WINDOWS};
use super::sight;
use super::stages::{LoadError, max_positions_of, read_json};
use crate::engine::bundle::Bundle;
use crate::import::{Adapter, Form, Front, GraphBytes, GraphOutline, Level, Outline, Precision, outline};

/// Tokens of an image where the class takes any number: one of 896 pixels a side.
const USUAL_IMAGE_TOKENS: u64 = 1024;

/// Longest conversation that is believed; far above any model, far below overflow.
const MAX_POSITIONS: u64 = 1 << 24;

/// Tokens of a prompt beside its image's.
const WORDS: u64 = 64;

/// Patches of a window, and those that become one token, of Qwen-VL.
const WINDOW_PATCHES: u64 = 64;
const PATCHES_PER_TOKEN: u64 = 4;

/// Points of a prompt: a grid of 5 x 5 beside a box's corners; and the most that a plan takes.
const POINTS: u64 = 28;
const MAX_POINTS: u64 = 64;

/// The node itself without models, measured on x86-64: 14 MiB, with room for threads' stacks and frames.
const NODE_BYTES: u64 = 48 << 20;

/// A CUDA context and the libraries of TensorRT. Taken to be half a GiB, not measured; NVIDIA states no figure.
const CUDA_BYTES: u64 = 512 << 20;

/// What runs the graphs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// `rten` on the CPU.
    Cpu,
    /// Plans on a GPU.
    TensorRt,
}

/// What is asked of a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// What runs it.
    pub runtime: Runtime,
    /// How its graphs are written.
    pub form: Form,
    /// Longest conversation in tokens. Default: as long as the checkpoint knows.
    pub context: Option<u64>,
    /// Tokens of an image. Default: as many as the class makes of one; 1024 where it takes any number.
    pub image_tokens: Option<u64>,
    /// Sessions at once. Range: 1 and up.
    pub sessions: u64,
}

/// Bytes of one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Share {
    /// The graph.
    pub graph: String,
    /// Its weights.
    pub weights: u64,
    /// Its activations.
    pub activations: u64,
}

/// What a bundle takes, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Footprint {
    /// What runs it.
    pub runtime: Runtime,
    /// Which operators the graphs use.
    pub level: &'static str,
    /// What they compute in.
    pub precision: &'static str,
    /// Longest conversation, in tokens; 0 without a language model.
    pub context: u64,
    /// Tokens of an image.
    pub image_tokens: u64,
    /// By graph.
    pub graphs: Vec<Share>,
    /// All graphs' weights.
    pub weights: u64,
    /// Keys and values of one token.
    pub cache_per_token: u64,
    /// Keys and values of the conversations in memory at once, with copies.
    pub cache: u64,
    /// Activations of the graphs that run at once.
    pub activations: u64,
    /// SAM's embeddings of the frames at hand, and the language model's of one image.
    pub embeddings: u64,
    /// What goes in and out of the graphs.
    pub buffers: u64,
    /// The program, its libraries, the GPU's context.
    pub program: u64,
    /// All of it.
    pub total: u64,
}

/// Of what a [`Footprint`] is.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// Both models of a bundle.
    Bundle(&'a Bundle),
    /// A checkpoint's directory.
    Checkpoint(&'a Path),
}

/// Says what a bundle or a checkpoint takes of memory.
///
/// # Errors
/// [`LoadError::Import`] as an import's; [`LoadError::Config`] for a `config.json` without what the count hangs on, and
/// for a context that is longer than the model knows.
pub fn footprint(subject: Subject<'_>, demand: Demand) -> Result<Footprint, LoadError> {
    let parts = Parts::read(subject, demand)?;
    let sizes = Sizes::of(&parts, demand)?;
    let fixed = sizes.passes(demand);
    let mut counted = Counted::default();
    for graph in parts.outlines.iter().flat_map(|outline| &outline.graphs) {
        counted.add(graph, &fixed, demand.runtime)?;
    }
    let windows = parts.windows * 2 * demand.sessions;
    let embeddings = counted.embedding * windows + counted.image_token * sizes.image_tokens;
    let program = match demand.runtime {
        Runtime::Cpu => NODE_BYTES,
        Runtime::TensorRt => NODE_BYTES + CUDA_BYTES,
    };
    let (activations, buffers) = (counted.activations(demand.runtime), counted.buffers);
    let cache = counted.cache(demand);
    Ok(Footprint {
        runtime: demand.runtime,
        level: demand.form.level.name(),
        precision: demand.form.precision.name(),
        context: sizes.context,
        image_tokens: sizes.image_tokens,
        weights: counted.weights,
        cache_per_token: counted.cache_per_token,
        cache,
        activations,
        embeddings,
        buffers,
        program,
        total: [counted.weights, cache, activations, embeddings, buffers, program]
            .into_iter()
            .fold(0, u64::saturating_add),
        graphs: counted.graphs,
    })
}

/// What is known of the subject before sizes are chosen.
struct Parts {
    outlines: Vec<Outline>,
    /// `config.json` of the language model, where there is one, and where it is.
    config: Option<(serde_json::Value, std::path::PathBuf)>,
    /// Embeddings of one frame that SAM keeps.
    windows: u64,
}

impl Parts {
    fn read(subject: Subject<'_>, demand: Demand) -> Result<Self, LoadError> {
        let (dirs, windows) = match subject {
            Subject::Checkpoint(dir) => (vec![(dir.to_owned(), None)], 1),
            Subject::Bundle(bundle) => {
                let dirs = vec![(bundle.mllm_dir(), bundle.adapter_dir()), (bundle.sam_dir(), None)];
                (dirs, if bundle.manifest().sam.zoom.is_some() { MAX_WINDOWS as u64 } else { 1 })
            }
        };
        let mut parts = Self { outlines: Vec::new(), config: None, windows };
        for (dir, adapter) in dirs {
            let mode = match subject {
                Subject::Bundle(bundle) => bundle.manifest().mllm.adapter_mode,
                Subject::Checkpoint(_) => Default::default(),
            };
            let mut outline = outline(&dir, adapter.as_deref().map(|dir| Adapter { dir, mode }), demand.form)?;
            if demand.runtime == Runtime::TensorRt {
                // Whatever the numbers in it, it takes the same.
                let front = Front { mean: [0.0; 3], std: [1.0; 3], padded: true };
                outline.graphs = outline.graphs.into_iter().map(|graph| graph.with_front(&front)).collect();
            }
            if outline.graphs.iter().any(|graph| graph.name() == "decoder") {
                let path = dir.join("config.json");
                parts.config = Some((read_json(&path)?, path));
            }
            parts.outlines.push(outline);
        }
        Ok(parts)
    }

    /// The graph that looks at images; a language model without eyes has none.
    fn vision(&self) -> Option<&GraphOutline> {
        self.outlines.iter().flat_map(|outline| &outline.graphs).find(|graph| graph.name() == "vision")
    }

    /// Tokens that the class makes of one image, where it always makes as many.
    fn image_tokens(&self) -> Option<u64> {
        let (config, _) = self.config.as_ref()?;
        let tokens =
            self.vision()?.outputs().find(|port| port.name == "image_embeds")?.shape.get(1)?.parse::<u64>().ok()?;
        let side = config["vision_config"]["image_size"].as_u64().filter(|&side| side > 0);
        let (Some(shapes), Some(side)) = (config["image_grid_pinpoints"].as_array(), side) else { return Some(tokens) };
        // The whole and the tiles of the largest shape, each row of them with an end.
        let tiles = |shape: &serde_json::Value| Some([shape[0].as_u64()? / side, shape[1].as_u64()? / side]);
        let most = shapes.iter().filter_map(tiles).max_by_key(|[rows, columns]| rows.saturating_mul(*columns));
        let ([rows, columns], patches) = (most.unwrap_or([0, 0]), tokens.saturating_sub(1));
        let ends = patches.isqrt().saturating_mul(rows);
        Some(patches.saturating_mul(rows.saturating_mul(columns).saturating_add(1)).saturating_add(ends))
    }
}

/// How long everything is.
#[derive(Default)]
struct Sizes {
    context: u64,
    image_tokens: u64,
    prompt: u64,
    /// How far a plan's profile of the vision graph reaches, where that is not fixed.
    reach: Vec<(&'static str, u64)>,
}

impl Sizes {
    fn of(parts: &Parts, demand: Demand) -> Result<Self, LoadError> {
        let Some((config, path)) = &parts.config else { return Ok(Self::default()) };
        let error = |what: String| LoadError::Config { path: path.clone(), what };
        let known = max_positions_of(config).filter(|known| *known <= MAX_POSITIONS);
        let known = known.ok_or_else(|| error("has no believable `text_config.max_position_embeddings`".into()))?;
        let context = demand.context.unwrap_or(known);
        if !(2..=known).contains(&context) {
            return Err(error(format!("conversations of {context} tokens are not within 2 to {known}")));
        }
        let image_tokens = match parts.vision() {
            Some(_) => demand.image_tokens.or_else(|| parts.image_tokens()).unwrap_or(USUAL_IMAGE_TOKENS),
            None => 0,
        };
        if image_tokens >= context {
            return Err(error(format!("an image of {image_tokens} tokens does not fit a conversation of {context}")));
        }
        let reach = match demand.runtime {
            Runtime::TensorRt => sight::reach(path.parent().unwrap_or(Path::new("")))?,
            Runtime::Cpu => Vec::new(),
        };
        let reach = reach.into_iter().map(|(name, [.., most])| (name, u64::from(most))).collect();
        Ok(Self { context, image_tokens, prompt: (image_tokens + WORDS).min(context), reach })
    }

    /// Sizes of the graphs' dimensions: in the passes that run, and at the ends of a plan's profiles.
    fn passes(&self, demand: Demand) -> Passes {
        let (context, tree) = (self.context.max(2), MAX_TREE_TOKENS as u64);
        let capacity = context + tree;
        let pass = |sequence: u64, past: u64, total: u64, logits: u64, prompts: u64, points: u64| {
            let patches = (self.image_tokens * PATCHES_PER_TOKEN).next_multiple_of(WINDOW_PATCHES).max(WINDOW_PATCHES);
            BTreeMap::from([
                ("sequence", sequence),
                ("past", past),
                ("total", total),
                ("logits", logits),
                ("capacity", capacity),
                ("prompts", prompts),
                ("points", points),
                ("windows", patches / WINDOW_PATCHES),
                ("patches", patches),
            ])
        };
        let asked = tree.min(context - 1);
        let runs = vec![
            pass(self.prompt.max(1), 0, self.prompt.max(1), 1, 1, POINTS),
            pass(asked, context - asked, context, asked, MAX_BATCH as u64, POINTS),
        ];
        let mut ends = match demand.form.level {
            Level::Portable => pass(context, context - 1, 2 * context - 1, context, MAX_BATCH as u64, MAX_POINTS),
            Level::Fused => pass(context, 0, capacity, context, MAX_BATCH as u64, MAX_POINTS),
        };
        ends.extend(self.reach.iter().copied());
        Passes { runs, ends }
    }
}

/// Sizes of the dimensions in the passes that are counted.
struct Passes {
    runs: Vec<BTreeMap<&'static str, u64>>,
    ends: BTreeMap<&'static str, u64>,
}

/// What the graphs add up to.
#[derive(Default)]
struct Counted {
    graphs: Vec<Share>,
    weights: u64,
    cache_per_token: u64,
    cache_in: u64,
    buffers: u64,
    /// Of one image of SAM's.
    embedding: u64,
    /// Of one of the language model's image tokens.
    image_token: u64,
}

impl Counted {
    fn add(&mut self, graph: &GraphOutline, passes: &Passes, runtime: Runtime) -> Result<(), LoadError> {
        let sized = |sizes: &BTreeMap<&'static str, u64>| {
            // Without windows one of all patches.
            let windowed = graph.inputs().any(|port| port.shape.iter().any(|size| size == "windows"));
            let mut sizes = sizes.clone();
            if windowed {
                sizes.insert("patches", WINDOW_PATCHES);
            }
            graph.bytes(&sizes)
        };
        let runs = passes.runs.iter().map(sized).collect::<Result<Vec<GraphBytes>, _>>()?;
        let most = |part: fn(&GraphBytes) -> u64| runs.iter().map(part).max().unwrap_or(0);
        let (activations, copies) = match runtime {
            Runtime::Cpu => (most(|run| run.activations.saturating_add(run.outputs).saturating_add(run.cache_out)), 1),
            // Pinned and on the GPU.
            Runtime::TensorRt => (sized(&passes.ends)?.activations, 2),
        };
        let weights = most(|run| run.weights);
        self.weights += weights;
        self.buffers += copies * most(|run| run.inputs) + if copies == 2 { 2 * most(|run| run.outputs) } else { 0 };
        match graph.name() {
            "decoder" => {
                let longest = runs.last().copied().unwrap_or_default();
                let sizes = passes.runs.last().expect("there are passes");
                let in_place = longest.cache_out == longest.cache_in;
                let [held, room] = if in_place { [sizes["capacity"]; 2] } else { [sizes["past"], sizes["total"]] };
                self.cache_per_token = longest.cache_in.checked_div(held).unwrap_or(0);
                self.cache_in = self.cache_per_token * room;
            }
            "image_encoder" => self.embedding = most(|run| run.outputs),
            "embed" => {
                self.image_token =
                    most(|run| run.outputs) / passes.runs.iter().map(|p| p["sequence"]).max().unwrap_or(1)
            }
            _ => {}
        }
        self.graphs.push(Share { graph: graph.name().to_owned(), weights, activations });
        Ok(())
    }

    /// On the CPU one graph of each model runs at a time, and lets go of what it took; a plan's context keeps it.
    fn activations(&self, runtime: Runtime) -> u64 {
        let of = |names: &[&str]| {
            let chosen = self.graphs.iter().filter(|share| names.contains(&share.graph.as_str()));
            chosen.map(|share| share.activations).max().unwrap_or(0)
        };
        match runtime {
            Runtime::Cpu => of(&["vision", "embed", "decoder"]).saturating_add(of(&["image_encoder", "mask_decoder"])),
            Runtime::TensorRt => self.graphs.iter().map(|share| share.activations).fold(0, u64::saturating_add),
        }
    }

    /// A frame's prefix is kept beside the conversation on it. Caches that are not updated in place come out longer than
    /// they went in: on the CPU that is among a pass's outputs, on a GPU there is one more of each on both sides.
    fn cache(&self, demand: Demand) -> u64 {
        let copies = match (demand.runtime, demand.form.level) {
            (Runtime::TensorRt, Level::Portable) => 6,
            _ => 2,
        };
        self.cache_in * copies
    }
}

/// The precisions that `runtime` computes in.
pub fn precisions(runtime: Runtime) -> &'static [Precision] {
    match runtime {
        Runtime::Cpu => &[Precision::Fp32],
        Runtime::TensorRt => &[Precision::Fp32, Precision::Fp16, Precision::Int8, Precision::Int4],
    }
}
