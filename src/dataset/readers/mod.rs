//! Data sets of referring-expression segmentation, read into one kind of [`Record`].
//!
//! ```text
//!  refs(unc).p ──pickle──▶┐
//!  grefs(unc).json ──────▶├─ refs ─┬─▶ Record ──▶ HeldOut::drop_from ──▶ dialogue, evaluation
//!  instances.json ──coco──────────▶┘      ▲
//!  ReasonSeg's folder, LLaVA's list ──────┘
//! ```
//!
//! [`read`] parses each file once, checks all that it keeps, and keeps polygons and run lengths: a mask is rasterised
//! where [`Target::mask`] asks for it. A file of a gigabyte costs the memory of the annotations that are referred to.
//! Everything is untrusted: damage is a [`ReadError`] that names the file and the record.
//!
//! [`read_sound`] leaves damaged records out and says which; it is for training only, for a figure measured on what is
//! left compares with nobody's.
//!
//! Rejected: one pass without holding records (leakage is known only once every held-out split is).

mod coco;
mod damage;
mod error;
mod grefcoco;
mod image;
mod json;
mod leakage;
mod llava;
mod reason_seg;
mod record;
mod refcoco;
mod refs;
mod region;
mod summary;
#[cfg(test)]
mod tests;

use self::damage::Damage;

pub use crate::pickle::{PickleError, PickleErrorKind};
pub use error::{ReadError, ReadErrorKind};
pub use image::{ImageId, ImageRef};
pub use leakage::{Dropped, HeldOut};
pub use record::{Content, Files, Record, Referring, Source, SourceExpression, SourceSplit, Speaker, Target, Turn};
pub use region::Region;
pub use summary::SourceSummary;

/// A data set as it was read.
#[derive(Debug, Clone)]
pub struct Collection {
    /// In the order of the files.
    pub records: Vec<Record>,
    /// Conversations that were left out because they are about no picture.
    pub without_picture: usize,
}

/// Reads a data set.
///
/// # Errors
/// Every [`ReadError`].
pub fn read(source: Source, files: &Files) -> Result<Collection, ReadError> {
    read_with(source, files, &mut Damage::Stop)
}

/// Reads what is sound of a data set, and says what was left out.
///
/// # Errors
/// Those that are not of one record: a file that is missing, or is no JSON or pickle at all.
pub fn read_sound(source: Source, files: &Files) -> Result<(Collection, Vec<ReadError>), ReadError> {
    let mut damaged = Vec::new();
    let collection = read_with(source, files, &mut Damage::Skip(&mut damaged))?;
    Ok((collection, damaged))
}

fn read_with(source: Source, files: &Files, damage: &mut Damage<'_>) -> Result<Collection, ReadError> {
    let (records, without_picture) = match source {
        Source::RefCoco | Source::RefCocoPlus | Source::RefCocoG => {
            let refs = refcoco::read(files, damage)?;
            (refs::join(source, files, refs, damage)?, 0)
        }
        Source::GRefCoco => {
            let refs = grefcoco::read(files, damage)?;
            (refs::join(source, files, refs, damage)?, 0)
        }
        Source::ReasonSeg => (reason_seg::read(files, damage)?, 0),
        Source::Llava => llava::read(files, damage)?,
    };
    Ok(Collection { records, without_picture })
}
