//! Which picture a record is about, across data sets.

use std::path::{Component, Path, PathBuf};

use super::error::{ReadError, ReadErrorKind};
use crate::geometry::{Size, SourcePx};

/// Longest side of a picture that is accepted, in pixels. COCO's are at most 640, ReasonSeg's a few thousand.
const MAX_SIDE: u32 = 16_384;
/// Most pixels of a picture that is accepted; a mask takes one byte each.
const MAX_PIXELS: u64 = 100_000_000;
/// Digits of a picture's name in COCO.
const COCO_DIGITS: usize = 12;

/// What tells pictures apart across data sets: RefCOCO and its kin, gRefCOCO and most of LLaVA show COCO's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ImageId {
    /// COCO's number, the same in its releases of 2014 and 2017.
    Coco(u64),
    /// The file's name without folder and extension. Two sets may use one name for two pictures; then more is held out
    /// than has to be, never less.
    Named(String),
}

impl ImageId {
    /// The id that a file's name tells: COCO's where it is twelve digits, alone or behind `COCO_<split>_`.
    pub fn of_path(path: &Path) -> Self {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let digits = match stem.strip_prefix("COCO_") {
            Some(rest) => rest.rsplit('_').next().unwrap_or_default(),
            None => &stem,
        };
        let coco = digits.len() == COCO_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
        match digits.parse() {
            Ok(number) if coco => Self::Coco(number),
            _ => Self::Named(stem.into_owned()),
        }
    }
}

/// A picture on disk; it is not opened unless its size is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRef {
    /// What tells it apart across data sets.
    pub id: ImageId,
    /// Where it lies.
    pub path: PathBuf,
    /// Its size as the data set says; `None` where it does not (LLaVA).
    pub size: Option<Size<SourcePx>>,
}

impl ImageRef {
    /// Opens the picture's header and holds its size against the data set's.
    ///
    /// # Errors
    /// [`ReadErrorKind::Picture`] where it is missing or no picture, [`ReadErrorKind::Size`] where the sizes differ or
    /// it is too large.
    pub fn check(&self) -> Result<Size<SourcePx>, ReadError> {
        let found = picture_size(&self.path)?;
        match self.size {
            Some(size) if size != found => Err(size_error(&self.path, found, size)),
            _ => Ok(found),
        }
    }
}

/// The size that a picture's header states, in source pixels.
pub(super) fn picture_size(path: &Path) -> Result<Size<SourcePx>, ReadError> {
    let reader = image::ImageReader::open(path).and_then(|r| r.with_guessed_format());
    let reader = reader.map_err(|e| ReadError::new(ReadErrorKind::Picture, path).because(e))?;
    let (width, height) =
        reader.into_dimensions().map_err(|e| ReadError::new(ReadErrorKind::Picture, path).because(e))?;
    accept(width.into(), height.into()).map_err(|reason| ReadError::new(ReadErrorKind::Size, path).because(reason))
}

/// A size within the limits, or what is wrong with it.
pub(super) fn accept(width: u64, height: u64) -> Result<Size<SourcePx>, String> {
    let side = |s: u64| u32::try_from(s).ok().filter(|s| (1..=MAX_SIDE).contains(s));
    match (side(width), side(height)) {
        (Some(w), Some(h)) if width * height <= MAX_PIXELS => Ok(Size::new(w, h)),
        _ => Err(format!("{width} x {height}: sides of 1 to {MAX_SIDE}, {MAX_PIXELS} pixels in all are accepted")),
    }
}

/// Two sizes that should be one.
pub(super) fn size_error(file: &Path, found: Size<SourcePx>, expected: Size<SourcePx>) -> ReadError {
    let (f, e) = (found, expected);
    let reason = format!("{} x {}, expected {} x {}", f.width, f.height, e.width, e.height);
    ReadError::new(ReadErrorKind::Size, file).because(reason)
}

/// `name` below `folder`; `None` where it is absolute, climbs out or names nothing.
pub(super) fn below(folder: &Path, name: &str) -> Option<PathBuf> {
    let inside = Path::new(name).components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    (inside && Path::new(name).file_name().is_some()).then(|| folder.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_picture_has_one_id_in_every_data_set() {
        for path in ["COCO_train2014_000000581857.jpg", "coco/train2017/000000581857.jpg", "000000581857.jpg"] {
            assert_eq!(ImageId::of_path(Path::new(path)), ImageId::Coco(581_857), "{path}");
        }
        for (path, stem) in [("gqa/images/2354786.jpg", "2354786"), ("0a1b2c3d4e5f6789.jpg", "0a1b2c3d4e5f6789")] {
            assert_eq!(ImageId::of_path(Path::new(path)), ImageId::Named(stem.to_owned()), "{path}");
        }
    }

    #[test]
    fn names_stay_in_their_folder() {
        let folder = Path::new("/data");
        assert_eq!(below(folder, "coco/1.jpg"), Some(PathBuf::from("/data/coco/1.jpg")));
        for name in ["/etc/passwd", "../1.jpg", "coco/../../1.jpg", "", "."] {
            assert_eq!(below(folder, name), None, "{name}");
        }
    }
}
