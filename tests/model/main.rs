//! The models against their Python originals.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod pipeline;
mod preprocess;
mod selftest;
mod stock;
#[path = "../reference/stored.rs"]
mod stored;
