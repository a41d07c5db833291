//! Errors as people read them: with what caused them.

use std::fmt;

/// Shows an error and all its causes, the outermost first.
pub(crate) struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        std::iter::successors(self.0.source(), |e| e.source()).try_for_each(|cause| write!(f, ": {cause}"))
    }
}
