//! What a checkpoint's own files say about the frames it is shown.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::engine::bundle::{Filter, Resampler};
use crate::geometry::{ModelPx, Size};
use crate::import::Front;
use crate::model::preprocess::Pixels;
use crate::model::stages::{LoadError, read_json};

/// Largest side or edge that is believed, in pixels.
const MAX_SIDE: u64 = 1 << 14;
/// Most pixels of a resized frame that are believed.
const MAX_PIXELS: u64 = 1 << 28;

/// A JSON file of a checkpoint.
pub(super) struct Checkpoint {
    path: PathBuf,
    value: Value,
}

impl Checkpoint {
    /// Reads `config.json` in `dir`.
    pub(super) fn read(dir: &Path) -> Result<Self, LoadError> {
        Self::file(dir.join("config.json"))
    }

    fn file(path: PathBuf) -> Result<Self, LoadError> {
        let value = read_json(&path)?;
        Ok(Self { path, value })
    }

    /// What is wrong with the file.
    pub(super) fn error(&self, what: impl Into<String>) -> LoadError {
        LoadError::Config { path: self.path.clone(), what: what.into() }
    }

    /// The class name.
    pub(super) fn class(&self) -> Result<String, LoadError> {
        let class = self.value["architectures"][0].as_str();
        class.map(str::to_owned).ok_or_else(|| self.error("has no `architectures`"))
    }

    /// The value at a path of keys; `None` where it is absent or null.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(&self.value, |value, key| value.get(key)).filter(|value| !value.is_null())
    }

    /// A whole number from 1 to `most`.
    pub(super) fn count(&self, path: &[&str], default: u64, most: u64) -> Result<u64, LoadError> {
        let Some(value) = self.at(path) else { return Ok(default) };
        let wrong = || self.error(format!("`{}` is not in 1..={most}", path.join(".")));
        value.as_u64().filter(|n| (1..=most).contains(n)).ok_or_else(wrong)
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, LoadError> {
        let Some(value) = self.at(&[key]) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.error(format!("`{key}` is not true or false")))
    }

    /// A side or edge in pixels.
    fn side(&self, path: &[&str]) -> Result<Option<u32>, LoadError> {
        if self.at(path).is_none() {
            return Ok(None);
        }
        self.count(path, 1, MAX_SIDE).map(|n| Some(n as u32))
    }

    fn three(&self, key: &str, default: f32) -> Result<[f32; 3], LoadError> {
        let Some(value) = self.at(&[key]) else { return Ok([default; 3]) };
        let numbers = value.as_array().map(|list| list.iter().filter_map(Value::as_f64).collect::<Vec<_>>());
        match numbers.as_deref() {
            Some(&[r, g, b]) if [r, g, b].iter().all(|x| x.abs() < 1e3) => Ok([r as f32, g as f32, b as f32]),
            _ => Err(self.error(format!("`{key}` is not three numbers"))),
        }
    }
}

/// `preprocessor_config.json`.
pub(super) struct Processor {
    file: Checkpoint,
    pub(super) mean: [f32; 3],
    pub(super) std: [f32; 3],
    pub(super) filter: Filter,
}

/// How a frame gets its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fitting {
    /// Both axes are scaled to the size.
    Squash(Size<ModelPx>),
    /// The shorter side is scaled to the edge; the middle of that size is cut out.
    Crop(u32, Size<ModelPx>),
}

impl Processor {
    /// Reads the file in `dir`.
    pub(super) fn read(dir: &Path) -> Result<Self, LoadError> {
        let file = Checkpoint::file(dir.join("preprocessor_config.json"))?;
        for step in ["do_resize", "do_rescale"] {
            if !file.flag(step, true)? {
                return Err(file.error(format!("`{step}` is false: frames of any size and bytes are shown")));
            }
        }
        let factor = file.at(&["rescale_factor"]).map_or(Some(1.0 / 255.0), Value::as_f64);
        if factor.is_none_or(|factor| (factor * 255.0 - 1.0).abs() > 1e-6) {
            return Err(file.error("`rescale_factor` is not 1/255"));
        }
        let filter = match file.at(&["resample"]).map_or(Some(3), Value::as_u64) {
            Some(2) => Filter::Bilinear,
            Some(3) => Filter::Bicubic,
            _ => return Err(file.error("`resample` is neither 2 (bilinear) nor 3 (bicubic)")),
        };
        let (mut mean, mut std) = (file.three("image_mean", 0.5)?, file.three("image_std", 0.5)?);
        if !file.flag("do_normalize", true)? {
            (mean, std) = ([0.0; 3], [1.0; 3]);
        }
        if std.iter().any(|s| *s <= 0.0) {
            return Err(file.error("`image_std` is not positive"));
        }
        Ok(Self { file, mean, std, filter })
    }

    /// What resizes.
    pub(super) fn pixels(&self) -> Pixels {
        Pixels::new(self.filter, Resampler::Pillow)
    }

    /// What normalises.
    pub(super) fn front(&self) -> Front {
        Front { mean: self.mean, std: self.std, padded: false }
    }

    /// What is wrong with the file.
    pub(super) fn error(&self, what: impl Into<String>) -> LoadError {
        self.file.error(what)
    }

    /// How a frame becomes one square.
    pub(super) fn fitting(&self) -> Result<Fitting, LoadError> {
        if self.file.flag("do_pad", false)? {
            return Err(self.error("`do_pad` is true: padding to a square is not known"));
        }
        let (height, width) = (self.file.side(&["size", "height"])?, self.file.side(&["size", "width"])?);
        let edge = self.file.side(&["size", "shortest_edge"])?;
        let crop = self.crop()?;
        match (height.zip(width), edge, crop) {
            (Some((h, w)), _, None) => Ok(Fitting::Squash(Size::new(w, h))),
            (Some((h, w)), _, Some(crop)) if crop == Size::new(w, h) => Ok(Fitting::Squash(crop)),
            (None, Some(edge), Some(crop)) if crop.width <= edge && crop.height <= edge => {
                Ok(Fitting::Crop(edge, crop))
            }
            _ => Err(self.error("`size` and `crop_size` are not those of one square")),
        }
    }

    /// What is cut out of the middle, if anything is.
    pub(super) fn crop(&self) -> Result<Option<Size<ModelPx>>, LoadError> {
        if !self.file.flag("do_center_crop", self.file.at(&["crop_size"]).is_some())? {
            return Ok(None);
        }
        let (height, width) = (self.file.side(&["crop_size", "height"])?, self.file.side(&["crop_size", "width"])?);
        let both = height.zip(width).map(|(h, w)| Size::new(w, h));
        both.map(Some).ok_or_else(|| self.error("`crop_size` has no height and width"))
    }

    /// The side of the squashed whole: `size`'s edge, or its equal sides.
    pub(super) fn whole(&self) -> Result<Size<ModelPx>, LoadError> {
        let (height, width) = (self.file.side(&["size", "height"])?, self.file.side(&["size", "width"])?);
        let edge = self.file.side(&["size", "shortest_edge"])?.map(|edge| Size::new(edge, edge));
        let both = height.zip(width).map(|(h, w)| Size::new(w, h));
        both.or(edge).ok_or_else(|| self.error("`size` has neither height and width nor shortest_edge"))
    }

    /// Least and most pixels of a frame, where it keeps its shape.
    pub(super) fn pixel_range(&self) -> Result<(u64, u64), LoadError> {
        let one = |own: &str, of_size: &str, default| match self.file.at(&[own]) {
            Some(_) => self.file.count(&[own], default, MAX_PIXELS),
            None => self.file.count(&["size", of_size], default, MAX_PIXELS),
        };
        let least = one("min_pixels", "shortest_edge", 56 * 56)?;
        let most = one("max_pixels", "longest_edge", 28 * 28 * 1280)?;
        if least > most { Err(self.error("`min_pixels` is above `max_pixels`")) } else { Ok((least, most)) }
    }

    /// A whole number.
    pub(super) fn count(&self, key: &str, default: u64) -> Result<u64, LoadError> {
        self.file.count(&[key], default, MAX_SIDE)
    }
}
