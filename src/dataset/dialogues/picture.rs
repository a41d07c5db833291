//! Pictures: those of data sets are referred to and, for SAM, decoded; those of scenes are written.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::super::readers::ImageRef;
use super::DialogueError;
use crate::frame::{Encoded, FrameLimits, Image, decode};
use crate::geometry::{Size, SourcePx};

/// Largest file of a picture that is decoded for SAM.
const MAX_BYTES: u64 = 64 << 20;

/// The picture of a subject.
#[derive(Debug)]
pub(super) enum Picture {
    /// A file that is referred to.
    File(PathBuf),
    /// A scene: its file's name, and its pixels.
    Scene { name: String, image: Image },
}

impl Picture {
    /// Pixels for SAM.
    ///
    /// # Errors
    /// What is wrong with the file, in words.
    pub(super) fn pixels(&self) -> Result<Image, String> {
        match self {
            Self::Scene { image, .. } => Ok(image.clone()),
            Self::File(path) => {
                let bytes = bytes(path)?;
                let encoded = Encoded::sniffed(&bytes).ok_or("is neither JPEG, PNG nor WebP")?;
                decode(&encoded, FrameLimits::default()).map_err(|e| e.to_string())
            }
        }
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| e.to_string())?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MAX_BYTES { Err(format!("more than {MAX_BYTES} bytes")) } else { Ok(bytes) }
}

/// Looks into the header of a data set's picture.
///
/// # Errors
/// [`DialogueError::Picture`] where it is missing, no picture, or of another size than the data set says.
pub(super) fn check(image: &ImageRef, record: &str) -> Result<Size<SourcePx>, DialogueError> {
    image.check().map_err(|e| {
        let what = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
        DialogueError::Picture { record: record.to_owned(), path: image.path.clone(), what }
    })
}
