//! Pictures that may not be trained on.
//!
//! The sets share COCO's pictures and split them differently: a picture of one set's test split is in another's
//! training split, and RefCOCOg of Google even in both of its own. As the paper does, training records of a picture
//! that any held-out split has are dropped.
//!
//! Source: arXiv 2409.10542, section 4.

use std::collections::HashSet;

use super::image::ImageId;
use super::record::Record;

/// The pictures of held-out splits, of any number of data sets.
#[derive(Debug, Clone, Default)]
pub struct HeldOut {
    images: HashSet<ImageId>,
}

/// What was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Dropped {
    /// Training records.
    pub records: usize,
    /// Their expressions.
    pub expressions: usize,
    /// Their pictures.
    pub images: usize,
}

impl HeldOut {
    /// Adds the pictures of every record that is not of a training split.
    pub fn add<'a>(&mut self, records: impl IntoIterator<Item = &'a Record>) {
        let held_out = records.into_iter().filter(|r| r.split.held_out());
        self.images.extend(held_out.map(|r| r.image.id.clone()));
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Drops the training records of these pictures, and says how many.
    pub fn drop_from(&self, records: &mut Vec<Record>) -> Dropped {
        let (mut dropped, mut images) = (Dropped::default(), HashSet::new());
        records.retain(|record| {
            let leaks = !record.split.held_out() && self.images.contains(&record.image.id);
            if leaks {
                dropped.records += 1;
                dropped.expressions += record.referring().map_or(0, |r| r.expressions.len());
                images.insert(record.image.id.clone());
            }
            !leaks
        });
        dropped.images = images.len();
        dropped
    }
}
