//! LLaVA: a frame as one square.

use super::settings::{Fitting, Processor};
use super::{Seen, Sight, run_square, tower_size};
use crate::engine::Engine;
use crate::engine::bundle::ImageSpec;
use crate::frame::Image;
use crate::geometry::{ModelPx, Size};
use crate::import::Front;
use crate::model::ModelError;
use crate::model::front::picture;
use crate::model::preprocess::{Pixels, Preprocessor};
use crate::model::stages::LoadError;

/// Longest side in shorter ones, of a frame whose middle is cut out.
const MAX_RATIO: u64 = 200;

/// One square.
pub(super) enum Square {
    /// As a bundle's manifest says.
    Spec(Box<Preprocessor>),
    /// As the checkpoint says.
    Fitted(Box<Pixels>, Front, Fitting),
}

impl Square {
    pub(super) fn of(spec: &ImageSpec) -> Self {
        Self::Spec(Box::new(Preprocessor::new(spec)))
    }

    pub(super) fn new(processor: Processor, vision: &dyn Engine) -> Result<Self, LoadError> {
        let fitting = processor.fitting()?;
        let (Fitting::Squash(size) | Fitting::Crop(_, size)) = fitting;
        if tower_size(vision) != Some(size) {
            let what = format!("gives {} x {}, not what the vision tower takes", size.width, size.height);
            return Err(processor.error(what));
        }
        Ok(Self::Fitted(Box::new(processor.pixels()), processor.front(), fitting))
    }
}

impl Sight for Square {
    fn see(&mut self, vision: &mut dyn Engine, width: usize, image: &Image) -> Result<Seen, ModelError> {
        let picture = match self {
            Self::Spec(preprocessor) => preprocessor.run(image)?.0,
            Self::Fitted(pixels, front, Fitting::Squash(size)) => {
                picture(pixels.resize(image, *size)?, *size, *size, front.padded)
            }
            Self::Fitted(pixels, front, Fitting::Crop(edge, size)) => {
                let whole = by_shorter_side(image, *edge)?;
                let rgb = pixels.resize(image, whole)?;
                picture(middle(&rgb, whole, *size), *size, *size, front.padded)
            }
        };
        Ok(Seen::plain(run_square(vision, width, picture)?))
    }

    fn front(&self) -> Front {
        match self {
            Self::Spec(preprocessor) => preprocessor.front(),
            Self::Fitted(_, front, _) => *front,
        }
    }
}

/// The frame's size once its shorter side is `edge`; the longer one is rounded down.
///
/// # Errors
/// [`ModelError::Frame`] where it would be too long to hold.
fn by_shorter_side(image: &Image, edge: u32) -> Result<Size<ModelPx>, ModelError> {
    let (w, h) = (u64::from(image.size().width), u64::from(image.size().height));
    let (short, long) = (w.min(h).max(1), w.max(h));
    if long / short > MAX_RATIO {
        return Err(ModelError::Frame(format!("{w} x {h}: one side is more than {MAX_RATIO} times the other")));
    }
    let long = (u64::from(edge) * long / short) as u32;
    Ok(if w <= h { Size::new(edge, long) } else { Size::new(long, edge) })
}

/// The middle of packed RGB bytes; `size` is no larger than `whole`.
fn middle(rgb: &[u8], whole: Size<ModelPx>, size: Size<ModelPx>) -> Vec<u8> {
    let (top, left) = ((whole.height - size.height) / 2, (whole.width - size.width) / 2);
    let rows = rgb.chunks_exact(whole.width as usize * 3).skip(top as usize).take(size.height as usize);
    rows.flat_map(|row| &row[left as usize * 3..][..size.width as usize * 3]).copied().collect()
}
