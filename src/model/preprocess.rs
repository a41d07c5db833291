//! Frames to model inputs: resized bytes, and the mapping of coordinates that goes with it. What bytes become is the
//! business of a [`Front`](crate::import::Front).

use fast_image_resize::images::{Image as Resized, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::front::{Inputs, picture};
use super::{ModelError, resample};
use crate::engine::bundle::{Filter, Fit, ImageSpec, Resampler};
use crate::frame::Image;
use crate::geometry::{AxisScale, ModelPx, Size, SourcePx};
use crate::import::Front;

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

/// Resizes pixels as one model wants them.
pub(crate) struct Pixels {
    filter: Filter,
    resizer: Resizer,
    resampler: Resampler,
}

impl Pixels {
    pub(crate) fn new(filter: Filter, resampler: Resampler) -> Self {
        Self { filter, resizer: Resizer::new(), resampler }
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

/// Turns frames into pictures of a model's size.
pub struct Preprocessor {
    spec: ImageSpec,
    pixels: Pixels,
}

impl Preprocessor {
    /// A preprocessor for `spec`, whose `width`, `height` and `std` are not zero.
    pub fn new(spec: &ImageSpec) -> Self {
        Self { spec: spec.clone(), pixels: Pixels::new(spec.filter, spec.resampler) }
    }

    /// What bytes become.
    pub fn front(&self) -> Front {
        Front::of(&self.spec)
    }

    /// Where a frame of size `source` lies in the input.
    pub fn placement(&self, source: Size<SourcePx>) -> Placement {
        Placement::of(source, &self.spec)
    }

    /// What an engine takes: [`PIXEL_BYTES`](crate::import::PIXEL_BYTES), `u8[1, height, width, 3]`, and of a letterbox
    /// [`PIXEL_EXTENT`](crate::import::PIXEL_EXTENT).
    ///
    /// # Errors
    /// [`ModelError::Frame`] where the frame cannot be resized.
    pub fn run(&mut self, image: &Image) -> Result<(Inputs, Placement), ModelError> {
        let placement = self.placement(image.size());
        let rgb = self.pixels.resize(image, placement.resized)?;
        Ok((picture(rgb, placement.resized, placement.input, self.front().padded), placement))
    }
}
