//! What goes from SAM's image encoder to its mask decoder.

use super::{ENCODER, output};
use crate::engine::{Engine, Tensor};
use crate::model::{ModelError, exactly};

const EMBEDDING: &str = "image_embedding";
/// The finer levels of SAM 2, and how many of their cells are along one of the embedding's.
const HIGH_RES: [(&str, usize); 2] = [("high_res_features_0", 4), ("high_res_features_1", 2)];

/// What an image encoder gives and a mask decoder takes.
pub(in crate::model) struct Features {
    /// `f32[1, C, h, w]`.
    embedding: Tensor<'static>,
    /// Of SAM 2: `f32[1, C0, 4h, 4w]` and `f32[1, C1, 2h, 2w]`.
    finer: Option<[Tensor<'static>; 2]>,
}

impl Features {
    /// What `encoder` is to be asked for.
    pub(in crate::model) fn names(encoder: &dyn Engine) -> Vec<&'static str> {
        let gives = |name: &str| encoder.outputs().iter().any(|output| output.name == name);
        let finer = HIGH_RES.into_iter().map(|(name, _)| name).filter(|name| gives(name));
        std::iter::once(EMBEDDING).chain(finer).collect()
    }

    /// The encoder's outputs of those names.
    ///
    /// # Errors
    /// [`ModelError::Output`] where one is misshapen, not of floats, or holds NaN or infinity.
    pub(in crate::model) fn new(outputs: Vec<Tensor<'static>>) -> Result<Self, ModelError> {
        for (tensor, name) in outputs.iter().zip([EMBEDDING, HIGH_RES[0].0, HIGH_RES[1].0]) {
            match tensor.as_f32() {
                Some(values) if values.iter().all(|v| v.is_finite()) => {}
                Some(_) => return Err(output(ENCODER, name, "holds NaN or infinity")),
                None => return Err(output(ENCODER, name, "is not of floats")),
            }
        }
        let (embedding, finer) = match outputs.len() {
            3 => exactly(outputs, ENCODER).map(|[embedding, finest, finer]| (embedding, Some([finest, finer])))?,
            _ => exactly(outputs, ENCODER).map(|[embedding]| (embedding, None))?,
        };
        let features = Self { embedding, finer };
        let [h, w] = features.grid()?;
        for (level, (name, times)) in features.finer.iter().flatten().zip(HIGH_RES) {
            if !matches!(*level.shape(), [1, c, y, x] if c > 0 && y == times * h && x == times * w) {
                return Err(misshapen(name, level));
            }
        }
        Ok(features)
    }

    /// Height and width of the embedding, in cells; neither is zero.
    pub(in crate::model) fn grid(&self) -> Result<[usize; 2], ModelError> {
        match *self.embedding.shape() {
            [1, c, h, w] if c * h * w > 0 => Ok([h, w]),
            _ => Err(misshapen(EMBEDDING, &self.embedding)),
        }
    }

    /// `f32[1, C, h, w]`.
    pub(super) fn embedding(&self) -> &Tensor<'static> {
        &self.embedding
    }

    /// The finer levels of SAM 2.
    pub(super) fn finer(&self) -> Option<&[Tensor<'static>; 2]> {
        self.finer.as_ref()
    }

    /// What a mask decoder takes of them, by name.
    pub(in crate::model) fn inputs(&self) -> impl Iterator<Item = (&'static str, Tensor<'_>)> {
        let finer = self.finer.iter().flatten().zip(HIGH_RES).map(|(tensor, (name, _))| (name, tensor.view()));
        std::iter::once((EMBEDDING, self.embedding.view())).chain(finer)
    }
}

fn misshapen(name: &'static str, tensor: &Tensor<'_>) -> ModelError {
    output(ENCODER, name, format!("has shape {:?}", tensor.shape()))
}
