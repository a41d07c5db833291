//! SAM's side of the pipeline.

use std::sync::{Arc, Mutex, PoisonError};

use super::zoom::Window;
use super::{Embedding, PipelineError, Segment, Segmented};
use crate::engine::bundle::Zoom;
use crate::frame::Image;
use crate::model::sam::{MAX_WINDOWS, SamDecoder, SamEmbedding, SamEncoder};
use crate::prompt::Prompt;

/// SAM: one embedding a frame, or with a [`Zoom`] one for each window of it; one batch of prompts for all targets of each.
pub struct Segmenter {
    encoder: SamEncoder,
    decoder: SamDecoder,
    zoom: Option<Zoom>,
}

/// A frame as the segmenter sees it.
struct Seen {
    image: Image,
    /// Filled as prompts ask for them.
    windows: Mutex<Vec<(Window, Arc<SamEmbedding>)>>,
}

impl Segmenter {
    /// A segmenter from SAM's two halves, that looks at a boxed object as near as `zoom` says.
    pub fn new(encoder: SamEncoder, decoder: SamDecoder, zoom: Option<Zoom>) -> Self {
        Self { encoder, decoder, zoom }
    }

    /// The embedding of one window, made once.
    fn window(&mut self, seen: &Seen, window: Window) -> Result<Arc<SamEmbedding>, PipelineError> {
        let kept = || seen.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, embedding)) = kept().iter().find(|(w, _)| *w == window) {
            return Ok(embedding.clone());
        }
        let embedding = Arc::new(self.encoder.embed(&window.cut(&seen.image))?);
        let mut windows = kept();
        if windows.len() >= MAX_WINDOWS {
            windows.remove(0);
        }
        windows.push((window, embedding.clone()));
        Ok(embedding)
    }
}

impl Segment for Segmenter {
    fn embed(&mut self, image: &Image) -> Result<Embedding, PipelineError> {
        let seen = Seen { image: image.clone(), windows: Mutex::default() };
        // With a zoom most frames are never looked at as a whole.
        if self.zoom.is_none() {
            self.window(&seen, Window::whole(image.size()))?;
        }
        Ok(Embedding { data: Box::new(seen) })
    }

    fn segment(&mut self, embedding: &Embedding, prompts: &[Prompt]) -> Result<Vec<Segmented>, PipelineError> {
        let Some(seen) = embedding.data.downcast_ref::<Seen>() else {
            let what = "is the embedding of another segmenter".to_owned();
            return Err(PipelineError::Output { engine: "image_encoder", what });
        };
        let size = seen.image.size();
        let mut batches: Vec<(Window, Vec<usize>)> = Vec::new();
        for (i, prompt) in prompts.iter().enumerate() {
            let window = Window::of(prompt, size, self.zoom);
            match batches.iter_mut().find(|(w, _)| *w == window) {
                Some((_, members)) => members.push(i),
                None => batches.push((window, vec![i])),
            }
        }
        let mut answers: Vec<Option<Segmented>> = vec![None; prompts.len()];
        for (window, members) in batches {
            let embedding = self.window(seen, window)?;
            let inside: Vec<Prompt> = members.iter().map(|i| window.enter(&prompts[*i])).collect();
            for (i, answer) in members.into_iter().zip(self.decoder.decode(&embedding, &inside)?) {
                answers[i] = Some(Segmented { mask: window.leave(answer.mask, size), score: answer.score });
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Tensor;
    use crate::engine::bundle::{Filter, Fit, ImageSpec, Resampler};
    use crate::engine::fake::{Calls, FakeEngine};
    use crate::geometry::{BBox, Size};

    const SPEC: ImageSpec = ImageSpec {
        fit: Fit::Letterbox,
        width: 16,
        height: 16,
        filter: Filter::Bilinear,
        resampler: Resampler::Torchvision,
        mean: [0.0; 3],
        std: [1.0; 3],
    };

    /// Embeds the mean of what it is shown; masks are the whole of that, scored with its brightness.
    fn segmenter(zoom: Option<Zoom>) -> (Segmenter, Calls) {
        let encoder = FakeEngine::new("encoder", |inputs, _| {
            let pixels = inputs[0].1.as_f32().expect("floats");
            let mean = pixels.iter().sum::<f32>() / pixels.len() as f32;
            Ok(vec![Tensor::f32(&[1, 1, 2, 2], vec![mean; 4])])
        });
        let decoder = FakeEngine::new("decoder", |inputs, _| {
            let (mean, count) = (inputs[0].1.as_f32().expect("floats")[0], inputs[1].1.shape()[0]);
            Ok(vec![
                Tensor::f32(&[count, 4, 8, 8], vec![1.0; count * 256]),
                Tensor::f32(&[count, 4], vec![mean; count * 4]),
            ])
        });
        let passes = encoder.calls();
        let encoder = SamEncoder::new(Box::new(encoder), &SPEC);
        (Segmenter::new(encoder, SamDecoder::new(Box::new(decoder)), zoom), passes)
    }

    /// Black on the left, white on the right.
    fn frame() -> Image {
        let rgb: Vec<u8> = (0..64 * 64).flat_map(|i| [if i % 64 < 32 { 0u8 } else { 255 }; 3]).collect();
        Image::from_rgb(Size::new(64, 64), rgb).expect("sizes match")
    }

    fn boxes() -> Vec<Prompt> {
        let prompt = |x: f32| Prompt { bbox: Some(BBox::new(x, 20.0, x + 8.0, 28.0)), points: Vec::new() };
        vec![prompt(44.0), prompt(8.0), prompt(44.0)]
    }

    #[test]
    fn each_box_is_looked_at_in_a_window_of_its_own_that_is_encoded_once() {
        let (mut segmenter, passes) = segmenter(Some(Zoom { factor: 2.0, least_side: 4 }));
        let embedding = segmenter.embed(&frame()).expect("embeds");
        assert_eq!(passes.count(), 0, "nothing was asked yet");
        for _ in 0..2 {
            let answers = segmenter.segment(&embedding, &boxes()).expect("segments");
            let seen: Vec<_> = answers.iter().map(|a| (a.mask.bbox(), a.score)).collect();
            let window = |x: f32| Some(BBox::new(x, 16.0, x + 16.0, 32.0));
            assert_eq!(seen, [(window(40.0), 1.0), (window(4.0), 0.0), (window(40.0), 1.0)]);
            assert_eq!(passes.count(), 2);
        }
    }

    #[test]
    fn without_a_zoom_the_whole_frame_is_encoded_once() {
        let (mut segmenter, passes) = segmenter(None);
        let embedding = segmenter.embed(&frame()).expect("embeds");
        let answers = segmenter.segment(&embedding, &boxes()).expect("segments");
        assert!(answers.iter().all(|a| a.mask.area() == 64 * 64 && (a.score - 0.5).abs() < 0.01));
        assert_eq!(passes.count(), 1);
    }

    #[test]
    fn more_windows_than_are_kept_still_get_their_masks() {
        let (mut segmenter, _) = segmenter(Some(Zoom { factor: 1.0, least_side: 2 }));
        let embedding = segmenter.embed(&frame()).expect("embeds");
        let prompt =
            |i: usize| Prompt { bbox: Some(BBox::new(i as f32, 0.0, i as f32 + 4.0, 4.0)), points: Vec::new() };
        let prompts: Vec<_> = (0..MAX_WINDOWS + 5).map(prompt).collect();
        let answers = segmenter.segment(&embedding, &prompts).expect("segments");
        assert!(answers.iter().zip(&prompts).all(|(a, p)| a.mask.bbox() == p.bbox));
    }
}
