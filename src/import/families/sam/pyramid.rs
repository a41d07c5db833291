//! SAM 2's neck: what each stage of its backbone gives, brought to one width, and coarse levels added to finer ones. The
//! mask decoder takes three: the image's embedding, and two finer ones, already as narrow as it adds them.
//!
//! Source: `transformers`, `Sam2VisionNeck` and `Sam2Model.get_image_embeddings`.

use serde_json::json;

use super::hiera::{Hiera, Stage};
use super::{HIGH_RES, Sizes};
use crate::import::Level;
use crate::import::config::Config;
use crate::import::error::ImportError;
use crate::import::graph::{Dim, F32, Graph, Value};
use crate::import::nn;
use crate::import::onnx::ModelProto;
use crate::import::weights::Weights;

const NAME: &str = "vision_encoder.neck.convs";
/// Levels that the mask decoder takes.
const LEVELS: usize = 3;

/// The image encoder as its configuration describes it.
#[derive(Debug)]
pub(super) struct Pyramid {
    /// Of the image and the embedding.
    pub sizes: Sizes,
    hiera: Hiera,
    /// Stages that the next coarser level is added to.
    fed: Vec<bool>,
}

impl Pyramid {
    /// Reads a `vision_config`.
    pub(super) fn read(config: &Config) -> Result<Self, ImportError> {
        let kind = config.text("model_type", "sam2_vision_model")?;
        if kind != "sam2_vision_model" {
            return Err(config.unsupported("model_type", format!("`{kind}` is not sam2_vision_model")));
        }
        for (key, only) in [("fpn_kernel_size", 1), ("fpn_stride", 1), ("fpn_padding", 0), ("num_feature_levels", 3)] {
            if config.integers(key, &[only])? != [only] {
                return Err(config.unsupported(key, format!("is not {only}")));
            }
        }
        let hiera = Hiera::read(&config.part("backbone_config")?)?;
        let stages = hiera.stages();
        let channels = config.dim("fpn_hidden_size", 256)?;
        let widths: Vec<i64> = stages.iter().rev().map(|[_, width]| *width as i64).collect();
        if config.integers("backbone_channel_list", &[768, 384, 192, 96])? != widths {
            return Err(config.wrong("backbone_channel_list", format!("is not {widths:?}, as the backbone gives them")));
        }
        let sizes: Vec<_> = stages.iter().take(LEVELS).map(|[grid, _]| [*grid; 2]).collect();
        let given = config.get("backbone_feature_sizes").cloned();
        if given.unwrap_or_else(|| json!([[256, 256], [128, 128], [64, 64]])) != json!(sizes) {
            return Err(config.wrong("backbone_feature_sizes", format!("is not {sizes:?}, as the backbone gives them")));
        }
        let top_down = config.integers("fpn_top_down_levels", &[2, 3])?;
        let fed: Vec<bool> =
            (0..stages.len()).map(|at| at + 1 < stages.len() && top_down.contains(&(at as i64))).collect();
        for (pair, _) in stages.windows(2).zip(&fed).filter(|(_, fed)| **fed) {
            if pair[0][0] != 2 * pair[1][0] {
                return Err(config.unsupported("fpn_top_down_levels", "has a level that is not twice the next"));
            }
        }
        let [[finest, _], [finer, _], [grid, _], ..] = stages[..] else {
            return Err(config.unsupported("backbone_config", "has fewer than 3 stages"));
        };
        if finest != 4 * grid || finer != 2 * grid {
            return Err(config.unsupported("backbone_feature_sizes", "are not four times and twice the last"));
        }
        let sizes = Sizes::of_cells(hiera.side, grid, channels);
        Ok(Self { sizes, hiera, fed })
    }

    /// Builds the graph `image_encoder`.
    pub(super) fn build(&self, level: Level, weights: &mut Weights<'_>) -> Result<ModelProto, ImportError> {
        let mut graph = Graph::new("image_encoder", level, weights);
        let g = &mut graph;
        let Sizes { side, channels, .. } = self.sizes;
        let dims = [Dim::Fixed(1), Dim::Fixed(self.hiera.image_channels), Dim::Fixed(side), Dim::Fixed(side)];
        let pixels = g.input::<F32>("pixel_values", &dims);
        let stages = self.hiera.build(g, &pixels)?;
        let levels = g.scoped("neck", |g| self.levels(g, &stages))?;
        let nothing = g.weight("no_memory_embedding", &[1, 1, channels])?;
        let embedding = g.add(&levels[2], &nothing);
        self.give(g, "image_embedding", &embedding, [1, channels]);
        for (at, (name, finer)) in HIGH_RES.into_iter().enumerate() {
            let width = self.sizes.width(finer);
            let narrow = pointwise(g, &levels[at], &format!("mask_decoder.conv_s{at}"), [channels, width])?;
            self.give(g, name, &narrow, [finer, width]);
        }
        Ok(graph.finish())
    }

    /// The levels, the finest first: `[1, cells, channels]` each.
    fn levels(&self, g: &mut Graph<'_, '_>, stages: &[Stage]) -> Result<Vec<Value<F32>>, ImportError> {
        let channels = self.sizes.channels;
        let mut levels: Vec<Value<F32>> = Vec::with_capacity(stages.len());
        // The convolutions are counted from the coarsest on.
        for (at, (stage, fed)) in stages.iter().zip(&self.fed).rev().enumerate() {
            let own = pointwise(g, &stage.tokens, &format!("{NAME}.{at}"), [stage.width, channels])?;
            let level = match levels.last() {
                Some(coarser) if *fed => {
                    let coarser = doubled(g, coarser, [stage.grid / 2, channels]);
                    g.add(&own, &coarser)
                }
                _ => own,
            };
            levels.push(level);
        }
        levels.reverse();
        Ok(levels)
    }

    /// Declares tokens an output, as an image of `finer` times the embedding's grid.
    fn give(&self, g: &mut Graph<'_, '_>, name: &str, tokens: &Value<F32>, [finer, width]: [usize; 2]) {
        let side = finer * self.sizes.grid;
        let turned = g.transpose(tokens, &[0, 2, 1]);
        let image = g.reshape(&turned, &[1, width as i64, side as i64, side as i64]);
        g.output(name, &image, &[Dim::Fixed(1), Dim::Fixed(width), Dim::Fixed(side), Dim::Fixed(side)]);
    }
}

/// A convolution of one cell over tokens: `[1, cells, input]` → `[1, cells, output]`.
fn pointwise(
    g: &mut Graph<'_, '_>,
    x: &Value<F32>,
    name: &str,
    [input, output]: [usize; 2],
) -> Result<Value<F32>, ImportError> {
    let kernel = g.weight_as(&format!("{name}.weight"), &[output, input, 1, 1], &[output, input])?;
    let bias = g.weight(&format!("{name}.bias"), &[output])?;
    let x = nn::times_transposed(g, x, &kernel);
    Ok(g.add(&x, &bias))
}

/// Every cell as four: `[1, side · side, width]` → `[1, 4 · side · side, width]`.
fn doubled(g: &mut Graph<'_, '_>, x: &Value<F32>, [side, width]: [usize; 2]) -> Value<F32> {
    let n = side as i64;
    let x = g.reshape(x, &[1, n, 1, n, 1, width as i64]);
    let x = g.expand(&x, &[1, side, 2, side, 2, width]);
    g.reshape(&x, &[1, 4 * n * n, width as i64])
}
