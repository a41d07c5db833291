//! SAM: a frame to its embedding, an embedding and prompts to masks. SAM 2 too: its embedding has two finer levels.
//! An embedding stays where the image encoder computes, if the mask decoder can read it there.

mod features;

use super::front::on_bytes;
use super::preprocess::{Placement, Preprocessor};
use super::upsample::Upsampler;
use super::{ModelError, exactly, take_f32};
use crate::engine::bundle::ImageSpec;
use crate::engine::{Engine, Tensor};
use crate::frame::Image;
use crate::geometry::{Point, Size};
use crate::mask::Mask;
use crate::prompt::Prompt;

pub(super) use features::Features;

const ENCODER: &str = "image_encoder";
const DECODER: &str = "mask_decoder";
/// Most prompts in one pass: bounds the memory of a frame with very many targets.
pub(super) const MAX_BATCH: usize = 16;

/// Windows of a frame whose embeddings are kept; the oldest goes first.
pub(crate) const MAX_WINDOWS: usize = 16;
/// Masks a prompt gets: one for "the" mask, three for the multimask output.
const TOKENS: usize = 4;

// The labels of `point_labels`.
const OFF: i32 = 0;
const ON: i32 = 1;
const TOP_LEFT: i32 = 2;
const BOTTOM_RIGHT: i32 = 3;
const NOT_A_POINT: i32 = -1;

/// SAM's encoding of one frame.
pub struct SamEmbedding {
    features: Features,
    placement: Placement,
}

impl SamEmbedding {
    /// Where the frame lies in SAM's input.
    pub fn placement(&self) -> Placement {
        self.placement
    }

    /// The embedding, `f32[1, C, h, w]`, and the finer levels of SAM 2, `f32[1, C0, 4h, 4w]` and `f32[1, C1, 2h, 2w]`, on
    /// the host. Where the encoder computes elsewhere, the first call copies them.
    ///
    /// # Errors
    /// [`ModelError::Engine`] where that copy fails.
    pub fn tensors(&self) -> Result<&[Tensor<'static>], ModelError> {
        Ok(self.features.tensors()?)
    }

    /// Where masks of `low` = (width, height) logits go. SAM 2's are resized to the frame at once, without the way over
    /// the size of the input; but for what would be padding of a letterbox, which has to be cut off on that way.
    fn placement_of_masks(&self, low: (usize, usize)) -> Placement {
        if !self.features.have_finer() || self.placement.resized != self.placement.input {
            return self.placement;
        }
        let low = Size::new(low.0 as u32, low.1 as u32);
        Placement { resized: low, input: low, ..self.placement }
    }
}

/// One mask with SAM's opinion of it.
#[derive(Debug, Clone, PartialEq)]
pub struct SamMask {
    /// The mask in source pixels.
    pub mask: Mask,
    /// Predicted IoU, clamped to `0.0..=1.0`.
    pub score: f32,
}

/// The image encoder.
pub struct SamEncoder {
    engine: Box<dyn Engine>,
    preprocessor: Preprocessor,
}

impl SamEncoder {
    /// An encoder fed as `spec` says.
    pub fn new(engine: Box<dyn Engine>, spec: &ImageSpec) -> Self {
        let preprocessor = Preprocessor::new(spec);
        Self { engine: on_bytes(engine, &preprocessor.front()), preprocessor }
    }

    /// Encodes a frame.
    ///
    /// # Errors
    /// Engine failures, a misshapen output; NaN and infinity, unless the output stays where the engine computes: there
    /// they show in the masks.
    pub fn embed(&mut self, image: &Image) -> Result<SamEmbedding, ModelError> {
        let (pixels, placement) = self.preprocessor.run(image)?;
        Ok(SamEmbedding { features: Features::of(&mut *self.engine, pixels)?, placement })
    }
}

/// The prompt encoder and mask decoder.
pub struct SamDecoder {
    engine: Box<dyn Engine>,
    /// For the last frame size; a stream keeps its own.
    upsampler: Option<Upsampler>,
}

impl SamDecoder {
    /// A decoder.
    pub fn new(engine: Box<dyn Engine>) -> Self {
        Self { engine, upsampler: None }
    }

    /// One mask a prompt, in order: of the three multimask outputs the one with the highest predicted IoU.
    ///
    /// Prompts go through in batches; those with fewer points are padded with points that are none.
    ///
    /// # Errors
    /// [`ModelError::Prompt`] for a prompt with neither box nor points, or with coordinates that are not finite;
    /// engine failures; a misshapen output; NaN.
    pub fn decode(&mut self, embedding: &SamEmbedding, prompts: &[Prompt]) -> Result<Vec<SamMask>, ModelError> {
        let mut masks = Vec::with_capacity(prompts.len());
        for batch in prompts.chunks(MAX_BATCH) {
            self.decode_batch(embedding, batch, &mut masks)?;
        }
        Ok(masks)
    }

    fn decode_batch(
        &mut self,
        embedding: &SamEmbedding,
        prompts: &[Prompt],
        masks: &mut Vec<SamMask>,
    ) -> Result<(), ModelError> {
        let count = prompts.len();
        let [h, w] = embedding.features.grid();
        let (low_w, low_h) = (4 * w, 4 * h);
        let (coords, labels) = tokens(prompts, embedding)?;
        let inputs = vec![
            ("point_coords", coords),
            ("point_labels", labels),
            ("mask_input", Tensor::f32(&[count, 1, low_h, low_w], vec![0.0; count * low_h * low_w])),
            ("has_mask_input", Tensor::f32(&[count, 1, 1, 1], vec![0.0; count])),
        ];
        let outputs = embedding.features.decode(&mut *self.engine, inputs, &["low_res_masks", "iou_scores"])?;
        let [logits, scores] = exactly(outputs, DECODER)?;
        let logits = take_f32(logits, &[count, TOKENS, low_h, low_w], DECODER, "low_res_masks")?;
        let scores = take_f32(scores, &[count, TOKENS], DECODER, "iou_scores")?;
        let upsampler = self.upsampler(embedding.placement_of_masks((low_w, low_h)), (low_w, low_h));
        for (logits, scores) in logits.chunks_exact(TOKENS * low_h * low_w).zip(scores.chunks_exact(TOKENS)) {
            let (best, score) = best_of_multimask(scores);
            let logits = &logits[best * low_h * low_w..][..low_h * low_w];
            masks.push(SamMask { mask: upsampler.run(logits), score: score.clamp(0.0, 1.0) });
        }
        Ok(())
    }

    fn upsampler(&mut self, placement: Placement, low: (usize, usize)) -> &Upsampler {
        if self.upsampler.as_ref().is_some_and(|u| !u.fits(placement, low)) {
            self.upsampler = None;
        }
        self.upsampler.get_or_insert_with(|| Upsampler::new(placement, low))
    }
}

/// The multimask output with the highest score, the first of equals; `scores` holds no NaN.
fn best_of_multimask(scores: &[f32]) -> (usize, f32) {
    let mut best = 1;
    for i in 2..scores.len() {
        if scores[i] > scores[best] {
            best = i;
        }
    }
    (best, scores[best])
}

/// `point_coords: f32[B, T, 2]` in model input pixels and `point_labels: i32[B, T]`.
///
/// Points come first, then the box's corners, or one point that is none where there is no box: the order of
/// `transformers`' `SamPromptEncoder`, which itself adds the half pixel. `Sam2PromptEncoder` has such a point behind a box
/// too.
fn tokens(prompts: &[Prompt], embedding: &SamEmbedding) -> Result<(Tensor<'static>, Tensor<'static>), ModelError> {
    let scale = embedding.placement.scale();
    let boxed = if embedding.features.have_finer() { 3 } else { 2 };
    let length = |p: &Prompt| p.points.len() + if p.bbox.is_some() { boxed } else { 1 };
    let longest = prompts.iter().map(length).max().unwrap_or(0);
    let (mut coords, mut labels) = (Vec::new(), Vec::new());
    for (i, prompt) in prompts.iter().enumerate() {
        if prompt.bbox.is_none() && prompt.points.is_empty() {
            return Err(ModelError::Prompt(format!("prompt {i} has neither box nor points")));
        }
        let corners = prompt
            .bbox
            .iter()
            .flat_map(|b| [(Point::new(b.x1, b.y1), TOP_LEFT), (Point::new(b.x2, b.y2), BOTTOM_RIGHT)]);
        let points = prompt.points.iter().map(|(p, on)| (*p, if *on { ON } else { OFF }));
        for (point, label) in points.chain(corners) {
            let p = scale.point(point);
            if !(p.x.is_finite() && p.y.is_finite()) {
                return Err(ModelError::Prompt(format!("prompt {i} has a coordinate that is not finite")));
            }
            coords.extend([p.x, p.y]);
            labels.push(label);
        }
        coords.resize((i + 1) * longest * 2, 0.0);
        labels.resize((i + 1) * longest, NOT_A_POINT);
    }
    let count = prompts.len();
    Ok((Tensor::f32(&[count, longest, 2], coords), Tensor::i32(&[count, longest], labels)))
}

fn output(engine: &'static str, tensor: &'static str, what: impl Into<String>) -> ModelError {
    ModelError::Output { engine, tensor, what: what.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::bundle::{Filter, Fit, Resampler};
    use crate::engine::fake::FakeEngine;
    use crate::geometry::{BBox, Size, SourcePx};

    fn embedding(source: (u32, u32)) -> SamEmbedding {
        fitted(source, Fit::Letterbox)
    }

    fn fitted(source: (u32, u32), fit: Fit) -> SamEmbedding {
        let spec = ImageSpec {
            fit,
            width: 64,
            height: 64,
            filter: Filter::Bilinear,
            resampler: Resampler::Torchvision,
            mean: [0.5; 3],
            std: [0.5; 3],
        };
        SamEmbedding {
            features: Features::new(vec![Tensor::f32(&[1, 2, 4, 4], vec![0.5; 32])]).expect("fits"),
            placement: Placement::of(Size::<SourcePx>::new(source.0, source.1), &spec),
        }
    }

    fn prompts() -> Vec<Prompt> {
        vec![
            Prompt {
                bbox: Some(BBox::new(10.0, 20.0, 60.0, 40.0)),
                points: vec![(Point::new(30.0, 30.0), true), (Point::new(50.0, 24.0), false)],
            },
            Prompt { bbox: None, points: vec![(Point::new(100.0, 10.0), true)] },
        ]
    }

    #[test]
    fn prompts_become_padded_tokens_in_model_pixels() {
        // 128 x 64 letterboxed into 64 x 64: halved.
        let (coords, labels) = tokens(&prompts(), &embedding((128, 64))).expect("valid");
        assert_eq!((coords.shape(), labels.shape()), (&[2, 4, 2][..], &[2, 4][..]));
        let want = [15.0, 15.0, 25.0, 12.0, 5.0, 10.0, 30.0, 20.0, 50.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(coords.as_f32(), Some(&want[..]));
        assert_eq!(labels.data(), &crate::engine::Data::I32(vec![1, 0, 2, 3, 1, -1, -1, -1].into()));
    }

    #[test]
    fn levels_of_sam_2_are_checked_and_handed_on() {
        let levels = |fine: [usize; 4], value: f32| {
            let tensor = |shape: [usize; 4], value| Tensor::f32(&shape, vec![value; shape.iter().product()]);
            vec![tensor([1, 8, 4, 4], 0.5), tensor(fine, value), tensor([1, 2, 8, 8], 0.5)]
        };
        for (outputs, name) in [
            (levels([1, 1, 8, 8], 0.5), "high_res_features_0"),
            (levels([1, 0, 16, 16], 0.5), "high_res_features_0"),
            (levels([1, 1, 16, 16], f32::NAN), "high_res_features_0"),
            (levels([1, 1, 16, 16], 0.5)[..2].to_vec(), "*"),
        ] {
            let error = Features::new(outputs).err().expect("is refused");
            assert!(matches!(error, ModelError::Output { engine: ENCODER, tensor, .. } if tensor == name), "{error}");
        }
        let features = Features::new(levels([1, 1, 16, 16], 0.5)).expect("fits");
        let seen = SamEmbedding { features, ..embedding((128, 64)) };
        let engine = FakeEngine::new(DECODER, |inputs, _| {
            let names: Vec<_> = inputs.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names[..3], ["image_embedding", "high_res_features_0", "high_res_features_1"]);
            assert_eq!(inputs[4].1.data(), &crate::engine::Data::I32(vec![1, 0, 2, 3, -1, 1, -1, -1, -1, -1].into()));
            // On in the upper half.
            let logits: Vec<f32> = (0..2048).map(|i| if i / 16 % 16 < 8 { 1.0 } else { -1.0 }).collect();
            Ok(vec![Tensor::f32(&[2, 4, 16, 16], logits), Tensor::f32(&[2, 4], vec![0.5; 8])])
        });
        let mut decoder = SamDecoder::new(Box::new(engine));
        let masks = decoder.decode(&seen, &prompts()).expect("decodes");
        // The lower half of a letterbox is padding.
        assert_eq!(masks[0].mask.area(), 128 * 64);
        let features = Features::new(levels([1, 1, 16, 16], 0.5)).expect("fits");
        let seen = SamEmbedding { features, ..fitted((128, 64), Fit::Squash) };
        let masks = decoder.decode(&seen, &prompts()).expect("decodes");
        let bbox = masks[0].mask.bbox().expect("is not empty");
        assert_eq!((masks[0].mask.area(), bbox.y1, bbox.y2), (128 * 32, 0.0, 32.0));
    }

    #[test]
    fn the_best_of_three_wins_and_the_single_mask_is_ignored() {
        let engine = FakeEngine::new(DECODER, |inputs, _| {
            assert_eq!(inputs[1].1.shape(), [2, 4, 2]);
            // Mask i of each prompt is positive in the first i rows of logits only.
            let logits: Vec<f32> = (0..2 * TOKENS)
                .flat_map(|m| (0..256).map(move |e| if e / 16 < m % TOKENS { 1.0 } else { -1.0 }))
                .collect();
            let scores = vec![0.99, 0.1, 0.7, 0.3, 0.99, 1.4, 0.7, 0.3];
            Ok(vec![Tensor::f32(&[2, 4, 16, 16], logits), Tensor::f32(&[2, 4], scores)])
        });
        let masks = SamDecoder::new(Box::new(engine)).decode(&embedding((64, 64)), &prompts()).expect("decodes");
        let rows: Vec<_> = masks.iter().map(|m| m.mask.bbox().expect("not empty").y2).collect();
        // Two and one rows of 16, each 4 source pixels high.
        assert_eq!(rows, [8.0, 4.0]);
        assert_eq!((masks[0].score, masks[1].score), (0.7, 1.0));
    }

    #[test]
    fn many_prompts_go_through_in_bounded_batches() {
        let engine = FakeEngine::new(DECODER, |inputs, _| {
            let n = inputs[1].1.shape()[0];
            Ok(vec![Tensor::f32(&[n, 4, 16, 16], vec![1.0; n * 1024]), Tensor::f32(&[n, 4], vec![0.5; n * 4])])
        });
        let calls = engine.calls();
        let prompts = vec![prompts()[1].clone(); 35];
        let masks = SamDecoder::new(Box::new(engine)).decode(&embedding((64, 64)), &prompts).expect("decodes");
        assert_eq!(masks.len(), 35);
        let sizes: Vec<_> = calls.all().iter().map(|call| call.inputs[1].1.shape()[0]).collect();
        assert_eq!(sizes, [16, 16, 3]);
    }

    #[test]
    fn bad_prompts_and_bad_outputs_are_errors() {
        type Outputs = fn() -> Vec<Tensor<'static>>;
        let outputs: [Outputs; 4] = [
            || vec![Tensor::f32(&[1, 4, 16, 16], vec![f32::NAN; 1024]), Tensor::f32(&[1, 4], vec![0.5; 4])],
            || vec![Tensor::f32(&[1, 4, 16, 16], vec![1.0; 1024]), Tensor::f32(&[1, 4], vec![f32::NAN; 4])],
            || vec![Tensor::f32(&[1, 3, 16, 16], vec![1.0; 768]), Tensor::f32(&[1, 3], vec![0.5; 3])],
            || vec![Tensor::i32(&[1, 4, 16, 16], vec![1; 1024]), Tensor::f32(&[1, 4], vec![0.5; 4])],
        ];
        for (i, make) in outputs.into_iter().enumerate() {
            let mut decoder = SamDecoder::new(Box::new(FakeEngine::new(DECODER, move |_, _| Ok(make()))));
            let error = decoder.decode(&embedding((64, 64)), &prompts()[1..]).expect_err("bad output");
            assert!(matches!(error, ModelError::Output { engine: DECODER, .. }), "case {i}: {error}");
        }
        let mut decoder = SamDecoder::new(Box::new(FakeEngine::new(DECODER, |_, _| Ok(Vec::new()))));
        for prompt in
            [Prompt::default(), Prompt { bbox: Some(BBox::new(f32::INFINITY, 0.0, 1.0, 1.0)), points: vec![] }]
        {
            let error = decoder.decode(&embedding((64, 64)), &[prompt]).expect_err("bad prompt");
            assert!(matches!(error, ModelError::Prompt(_)), "{error}");
        }
    }
}
