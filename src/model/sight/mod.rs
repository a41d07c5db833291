//! What a language model sees of a frame: how each family cuts it up, and how the tokens of the pieces are put together.
//!
//! | family | a frame is | its tokens |
//! |---|---|---|
//! | LLaVA | one square | those of the square |
//! | LLaVA-NeXT | the whole, squashed, and tiles of the best of some shapes | the whole, then row by row across tiles, each row with an end |
//! | Qwen-VL | patches at about its own size | row by row, at positions with a row and a column |

mod patches;
mod settings;
mod square;
mod tiles;

use std::path::Path;

use super::front::Inputs;
use super::stages::LoadError;
use super::{ModelError, take_f32};
use crate::engine::bundle::ImageSpec;
use crate::engine::{Engine, Tensor, TensorInfo};
use crate::frame::Image;
use crate::geometry::{ModelPx, Size, SourcePx};
use crate::import::{Front, PIXEL_BYTES, PIXEL_VALUES};
use patches::Patches;
use settings::{Checkpoint, Processor};
use square::Square;
use tiles::Tiles;

const VISION: &str = "vision";
const QWEN_2_5: &str = "Qwen2_5_VLForConditionalGeneration";
const QWEN_3: &str = "Qwen3VLForConditionalGeneration";

/// A position in a conversation: time, row, column. Models whose positions have one axis know the first.
pub type Position = [i32; 3];

/// What a language model is given for a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Image tokens, `f32[N, D]`.
    pub embeds: Vec<f32>,
    /// What is added to the output of the text model's first layers at those tokens, `f32[N, D]` each.
    pub deepstack: Vec<Vec<f32>>,
    /// Where each token is, from where the image begins; empty: one behind the other.
    pub positions: Vec<Position>,
    /// How many positions the image takes; only where `positions` says something.
    pub span: i32,
}

impl Seen {
    /// Tokens at consecutive positions.
    fn plain(embeds: Vec<f32>) -> Self {
        Self { embeds, deepstack: Vec::new(), positions: Vec::new(), span: 0 }
    }
}

/// A family's way to see.
pub trait Sight: Send {
    /// Runs the vision engine on a frame; tokens are `width` wide. The engine takes bytes, as [`on_bytes`](super::on_bytes)
    /// has it do with [`front`](Self::front).
    ///
    /// # Errors
    /// Engine failures, misshapen outputs, a frame that cannot be resized.
    fn see(&mut self, vision: &mut dyn Engine, width: usize, image: &Image) -> Result<Seen, ModelError>;

    /// What bytes of a frame become.
    fn front(&self) -> Front;

    /// The size that a frame of `size` is resized to; `None` for families that cut it up otherwise or see a part of it.
    ///
    /// # Errors
    /// A frame that cannot be resized.
    fn input(&self, size: Size<SourcePx>) -> Result<Option<Size<ModelPx>>, ModelError> {
        let _ = size;
        Ok(None)
    }
}

/// The tensors that carry features to the text model's first layers: a vision engine's outputs, a decoder's inputs.
pub(crate) fn deepstack(tensors: &[TensorInfo]) -> Vec<String> {
    tensors.iter().map(|tensor| tensor.name.clone()).filter(|name| name.starts_with("deepstack.")).collect()
}

/// Whether a decoder's positions have three axes.
pub(crate) fn has_axes(decoder: &dyn Engine) -> bool {
    decoder.inputs().iter().any(|input| input.name == "position_ids" && input.shape.len() == 3)
}

/// One square, fed as `spec` says.
pub fn square(spec: &ImageSpec) -> Box<dyn Sight> {
    Box::new(Square::of(spec))
}

/// The way of the checkpoint in `dir` whose vision engine is `vision`, which may take bytes or floats. `spec` goes before what the checkpoint's
/// `preprocessor_config.json` says, for models that see one square.
///
/// # Errors
/// [`LoadError::Config`] where a file cannot be read, or asks for what there is no way to do.
pub fn open(dir: &Path, spec: Option<&ImageSpec>, vision: &dyn Engine) -> Result<Box<dyn Sight>, LoadError> {
    let checkpoint = Checkpoint::read(dir)?;
    let class = checkpoint.class()?;
    let processor = || Processor::read(dir);
    match (class.as_str(), spec) {
        ("LlavaForConditionalGeneration", Some(spec)) => Ok(square(spec)),
        (_, Some(_)) => Err(checkpoint.error(format!(
            "{class} sees frames as its own preprocessor_config.json says: [mllm.image] must not be given"
        ))),
        ("LlavaNextForConditionalGeneration", None) => Ok(Box::new(Tiles::new(&checkpoint, processor()?, vision)?)),
        (QWEN_2_5 | QWEN_3, None) => Ok(Box::new(Patches::new(&checkpoint, processor()?)?)),
        _ => Ok(Box::new(Square::new(processor()?, vision)?)),
    }
}

/// What bytes of a frame become for the checkpoint in `dir`; `spec` as for [`open`].
///
/// # Errors
/// [`LoadError::Config`] where a file cannot be read.
pub(super) fn front(dir: &Path, spec: Option<&ImageSpec>) -> Result<Front, LoadError> {
    match spec {
        Some(spec) => Ok(Front::of(spec)),
        None => Ok(Processor::read(dir)?.front()),
    }
}

/// How far the dimensions of the vision graph of the checkpoint in `dir` reach, by name: smallest, usual and largest size.
/// Nothing where its frames are squares of one size.
///
/// # Errors
/// [`LoadError::Config`] where a file cannot be read.
pub(super) fn reach(dir: &Path) -> Result<Vec<(&'static str, [u32; 3])>, LoadError> {
    let checkpoint = Checkpoint::read(dir)?;
    match checkpoint.class()?.as_str() {
        QWEN_2_5 | QWEN_3 => Ok(Patches::new(&checkpoint, Processor::read(dir)?)?.reach()),
        _ => Ok(Vec::new()),
    }
}

/// Runs a tower on one picture, `u8[1, height, width, 3]`: its tokens, `f32[N, width]`.
fn run_square(vision: &mut dyn Engine, width: usize, picture: Inputs) -> Result<Vec<f32>, ModelError> {
    let mut outputs = run(vision, width, picture, &["image_embeds"])?;
    Ok(outputs.remove(0))
}

/// The outputs `names`, `f32[1, N, width]` each.
fn run(
    vision: &mut dyn Engine,
    width: usize,
    inputs: Vec<(&str, Tensor<'_>)>,
    names: &[&str],
) -> Result<Vec<Vec<f32>>, ModelError> {
    let outputs = vision.run(inputs, names)?;
    if outputs.len() != names.len() {
        let what = format!("gave {} outputs, expected {}", outputs.len(), names.len());
        return Err(ModelError::Output { engine: VISION, tensor: "*", what });
    }
    let take = |embeds: Tensor<'static>| {
        let shape = [1, embeds.shape().get(1).copied().unwrap_or(0), width];
        take_f32(embeds, &shape, VISION, "image_embeds")
    };
    outputs.into_iter().map(take).collect()
}

/// The size of the square that a tower's graph takes.
fn tower_size(vision: &dyn Engine) -> Option<Size<ModelPx>> {
    let size = |input: &TensorInfo| match (input.name.as_str(), &input.shape[..]) {
        (PIXEL_BYTES, [_, Some(height), Some(width), _]) | (PIXEL_VALUES, [_, _, Some(height), Some(width)]) => {
            Some(Size::new(u32::try_from(*width).ok()?, u32::try_from(*height).ok()?))
        }
        _ => None,
    };
    vision.inputs().iter().find_map(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::DataType;
    use crate::engine::fake::FakeEngine;

    /// The size of a tower that takes pixels of `shape` under `name`.
    fn size(name: &str, shape: [Option<usize>; 4]) -> Option<Size<ModelPx>> {
        let info = |name: &str, shape: &[Option<usize>]| TensorInfo {
            name: name.to_owned(),
            data_type: DataType::F32,
            shape: shape.to_vec(),
        };
        let fake = FakeEngine::new(VISION, |_, _| Ok(Vec::new()));
        tower_size(&fake.with_signature(vec![info("more", &[Some(1)]), info(name, &shape)], Vec::new()))
    }

    #[test]
    fn a_tower_has_its_size_with_and_without_a_front() {
        assert_eq!(size(PIXEL_BYTES, [Some(1), Some(20), Some(30), Some(3)]), Some(Size::new(30, 20)));
        assert_eq!(size(PIXEL_VALUES, [Some(1), Some(3), Some(20), Some(30)]), Some(Size::new(30, 20)));
        assert_eq!(size(PIXEL_VALUES, [Some(1), Some(3), None, Some(30)]), None);
        assert_eq!(size("pixels", [Some(1), Some(3), Some(20), Some(30)]), None);
    }
}
