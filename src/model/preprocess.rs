//! Frames to model inputs: resize, normalise, lay out; and the mapping of coordinates that goes with it.

use fast_image_resize::images::{Image as Resized, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::{ModelError, resample};
use crate::engine::Tensor;
use crate::engine::bundle::{Filter, Fit, ImageSpec, Resampler};
use crate::frame::Image;
use crate::geometry::{AxisScale, ModelPx, Size, SourcePx};

/// Where a frame lies in a model's input: at the origin, `resized` large, padding to the right and below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The frame's own size.
    pub source: Size<SourcePx>,
    /// The size it is resized to.
    pub resized: Size<ModelPx>,
    /// The size of the whole input.
    pub input: Size<ModelPx>,
}

impl Placement {
    /// Where a frame of size `source` goes. Neither side gets less than one pixel.
    ///
    /// Letterbox rounds half up, as `SamImageProcessor` of `transformers` does.
    pub fn of(source: Size<SourcePx>, spec: &ImageSpec) -> Self {
        let input = Size::new(spec.width, spec.height);
        let resized = match spec.fit {
            Fit::Squash => input,
            Fit::Letterbox => {
                let (w, h) = (f64::from(source.width), f64::from(source.height));
                let scale = (f64::from(spec.width) / w).min(f64::from(spec.height) / h);
                let side = |v: f64, limit: u32| ((v * scale + 0.5) as u32).clamp(1, limit);
                Size::new(side(w, spec.width), side(h, spec.height))
            }
        };
        Self { source, resized, input }
    }

    /// From source pixels to the model's; its inverse goes back.
    pub fn scale(&self) -> AxisScale<SourcePx, ModelPx> {
        AxisScale::between(self.source, self.resized)
    }
}

/// Resizes and normalises pixels as one model wants them.
pub(crate) struct Pixels {
    filter: Filter,
    /// `(value / 255 - mean) / std` of every byte, by channel.
    normalised: [[f32; 256]; 3],
    resizer: Resizer,
    resampler: Resampler,
}

impl Pixels {
    /// Of `std`, nothing is zero.
    pub(crate) fn new(filter: Filter, resampler: Resampler, [mean, std]: [[f32; 3]; 2]) -> Self {
        let normalised = std::array::from_fn(|c| std::array::from_fn(|byte| (byte as f32 / 255.0 - mean[c]) / std[c]));
        Self { filter, normalised, resizer: Resizer::new(), resampler }
    }

    /// A channel's value for a byte.
    pub(crate) fn value(&self, channel: usize, byte: u8) -> f32 {
        self.normalised[channel][usize::from(byte)]
    }

    /// `f32[3, height, width]`, RGB planes, of packed RGB bytes at the top left; the rest is 0.
    pub(crate) fn planes(&self, rgb: &[u8], size: Size<ModelPx>, input: Size<ModelPx>) -> Vec<f32> {
        let (w, h) = (input.width as usize, input.height as usize);
        let mut planes = vec![0f32; 3 * h * w];
        for (y, row) in rgb.chunks_exact(size.width as usize * 3).enumerate() {
            for (c, lut) in self.normalised.iter().enumerate() {
                let plane = &mut planes[(c * h + y) * w..][..size.width as usize];
                for (to, pixel) in plane.iter_mut().zip(row.chunks_exact(3)) {
                    *to = lut[usize::from(pixel[c])];
                }
            }
        }
        planes
    }

    /// The packed RGB bytes of the frame at size `to`, antialiased.
    ///
    /// # Errors
    /// [`ModelError::Frame`] where the frame cannot be resized.
    pub(crate) fn resize(&mut self, image: &Image, to: Size<ModelPx>) -> Result<Vec<u8>, ModelError> {
        let from = image.size();
        if (from.width, from.height) == (to.width, to.height) {
            return Ok(image.rgb().to_vec());
        }
        if self.resampler == Resampler::Pillow {
            let sizes = [[from.width, from.height], [to.width, to.height]].map(|size| size.map(|side| side as usize));
            return Ok(resample::resize(image.rgb(), sizes[0], sizes[1], self.filter));
        }
        // Catmull-Rom is the bicubic kernel with a = -0.5, which is Pillow's.
        let filter = match self.filter {
            Filter::Bilinear => FilterType::Bilinear,
            Filter::Bicubic => FilterType::CatmullRom,
        };
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false);
        let frame = |e: &dyn std::fmt::Display| ModelError::Frame(e.to_string());
        let source = ImageRef::new(from.width, from.height, image.rgb(), PixelType::U8x3).map_err(|e| frame(&e))?;
        // Columns before rows, as torch does: each pass rounds and clips, so their order shows in the result.
        let mut wide = Resized::new(to.width, from.height, PixelType::U8x3);
        self.resizer.resize(&source, &mut wide, &options).map_err(|e| frame(&e))?;
        let mut out = Resized::new(to.width, to.height, PixelType::U8x3);
        self.resizer.resize(&wide, &mut out, &options).map_err(|e| frame(&e))?;
        Ok(out.into_vec())
    }
}

/// Turns frames into a model's `pixel_values`.
pub struct Preprocessor {
    spec: ImageSpec,
    pixels: Pixels,
}

impl Preprocessor {
    /// A preprocessor for `spec`, whose `width`, `height` and `std` are not zero.
    pub fn new(spec: &ImageSpec) -> Self {
        Self { spec: spec.clone(), pixels: Pixels::new(spec.filter, spec.resampler, [spec.mean, spec.std]) }
    }

    /// Where a frame of size `source` lies in the input.
    pub fn placement(&self, source: Size<SourcePx>) -> Placement {
        Placement::of(source, &self.spec)
    }

    /// `pixel_values`: `f32[1, 3, height, width]`, RGB planes, padding 0.
    ///
    /// # Errors
    /// [`ModelError::Frame`] where the frame cannot be resized.
    pub fn run(&mut self, image: &Image) -> Result<(Tensor<'static>, Placement), ModelError> {
        let placement = self.placement(image.size());
        let rgb = self.pixels.resize(image, placement.resized)?;
        let planes = self.pixels.planes(&rgb, placement.resized, placement.input);
        let shape = [1, 3, placement.input.height as usize, placement.input.width as usize];
        Ok((Tensor::f32(&shape, planes), placement))
    }
}
