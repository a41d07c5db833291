//! Where pictures with commands and truth come from: rendered scenes, or a data set of the field.

mod collection;
mod tabletop;

pub use collection::Collected;
pub use tabletop::{Tabletop, TabletopOptions};

use std::path::PathBuf;

use serde_json::Value;

use crate::dataset::readers::ReadError;
use crate::frame::Image;
use crate::mask::Mask;
use crate::prompt::CountHint;

/// A picture and what is asked about it.
#[derive(Debug, Clone)]
pub struct Picture {
    /// The picture.
    pub image: Image,
    /// What is asked, in the order in which it is.
    pub samples: Vec<Sample>,
}

/// An expression with its truth.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Its place in the source, for people.
    pub id: String,
    /// The words; from outside.
    pub expression: String,
    /// Its type, by which figures are split.
    pub kind: String,
    /// It has no target, but almost.
    pub near_miss: bool,
    /// How many targets it may have, as the asker knows.
    pub hint: CountHint,
    /// The mask of each target, of the picture's size; none where there is no target.
    pub targets: Vec<Mask>,
    /// Hidden share of the most hidden target, `0.0..=1.0`; `None` where nobody knows.
    pub hidden: Option<f32>,
    /// Pixels that count neither for nor against.
    pub ignored: Option<Mask>,
}

impl Sample {
    /// The pixels of all targets; `None` where there is none.
    pub fn truth(&self) -> Option<Mask> {
        let (first, rest) = self.targets.split_first()?;
        let mut all = first.clone();
        rest.iter().for_each(|mask| all.union_with(mask));
        Some(all)
    }
}

/// Pictures with samples, in a fixed order; the same picture for the same index every time.
pub trait Source {
    /// Number of pictures.
    fn pictures(&self) -> u64;

    /// What decides which samples there are: name, split, options. Two sources with equal descriptions over unchanged
    /// files give the same samples.
    fn describe(&self) -> Value;

    /// Picture `index`, below [`Source::pictures`].
    ///
    /// # Errors
    /// A picture that cannot be opened, or is not of its masks' size.
    fn picture(&self, index: u64) -> Result<Picture, SourceError>;
}

/// A picture of a source cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The data set is damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The picture cannot be decoded.
    #[error("decode picture `{}` of {record}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// Who needs it.
        record: String,
        /// Why.
        source: image::ImageError,
    },
    /// A mask is not of the picture's size.
    #[error("fit mask of {record}: its size is not that of `{}`", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Whose mask.
        record: String,
    },
    /// No record of the data set can be evaluated on.
    #[error("find expressions of split `{split}` in the data set: {why}")]
    Empty {
        /// The split.
        split: &'static str,
        /// What is there instead.
        why: String,
    },
}
