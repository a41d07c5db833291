//! The models against their Python originals.

#![allow(clippy::unwrap_used, missing_docs)]

mod preprocess;
