//! What becomes of a damaged record.

use super::error::ReadError;

/// Whether damage stops a reader, or is noted and left out.
#[derive(Debug)]
pub(super) enum Damage<'a> {
    /// The first damaged record is an error.
    Stop,
    /// Damaged records are left out and their errors kept, in order.
    Skip(&'a mut Vec<ReadError>),
}

impl Damage<'_> {
    /// Whether damaged records are left out.
    pub(super) fn skips(&self) -> bool {
        matches!(self, Self::Skip(_))
    }

    /// A record as it was read; `None` where it was damaged and is left out.
    ///
    /// # Errors
    /// That of the record, where damage stops.
    pub(super) fn pass<T>(&mut self, outcome: Result<T, ReadError>) -> Result<Option<T>, ReadError> {
        match (outcome, self) {
            (Ok(record), _) => Ok(Some(record)),
            (Err(error), Self::Stop) => Err(error),
            (Err(error), Self::Skip(kept)) => {
                kept.push(error);
                Ok(None)
            }
        }
    }
}
