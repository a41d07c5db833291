//! `sam4mllm`: a command and camera frames in, masks with evidence out.

pub mod cli;
pub mod dataset;
pub mod engine;
pub mod eval;
pub mod frame;
pub mod geometry;
pub mod import;
pub mod mask;
pub mod model;
pub mod node;
pub mod overlay;
pub mod pipeline;
pub mod prompt;
pub mod server;
