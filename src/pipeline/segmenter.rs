//! SAM's side of the pipeline.

use super::{Embedding, PipelineError, Segment, Segmented};
use crate::frame::Image;
use crate::model::sam::{SamDecoder, SamEmbedding, SamEncoder};
use crate::prompt::Prompt;

/// SAM: one embedding a frame, one batch of prompts for all its targets.
pub struct Segmenter {
    encoder: SamEncoder,
    decoder: SamDecoder,
}

impl Segmenter {
    /// A segmenter from SAM's two halves.
    pub fn new(encoder: SamEncoder, decoder: SamDecoder) -> Self {
        Self { encoder, decoder }
    }
}

impl Segment for Segmenter {
    fn embed(&mut self, image: &Image) -> Result<Embedding, PipelineError> {
        Ok(Embedding { data: Box::new(self.encoder.embed(image)?) })
    }

    fn segment(&mut self, embedding: &Embedding, prompts: &[Prompt]) -> Result<Vec<Segmented>, PipelineError> {
        let Some(embedding) = embedding.data.downcast_ref::<SamEmbedding>() else {
            let what = "is the embedding of another segmenter".to_owned();
            return Err(PipelineError::Output { engine: "image_encoder", what });
        };
        let masks = self.decoder.decode(embedding, prompts)?;
        Ok(masks.into_iter().map(|m| Segmented { mask: m.mask, score: m.score }).collect())
    }
}
