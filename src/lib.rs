//! `sam4mllm`: a command and camera frames in, masks with evidence out.

pub mod cli;
pub mod dataset;
pub mod geometry;
pub mod mask;
