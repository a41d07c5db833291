//! Generated from `onnx.proto`.

#![allow(missing_docs, clippy::all, clippy::pedantic)]

include!(concat!(env!("OUT_DIR"), "/sam4mllm.onnx.rs"));
