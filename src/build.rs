//! Compiles protocol buffers into `OUT_DIR`, without `protoc`.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    onnx()
}

/// The importer's subset of ONNX: messages only.
fn onnx() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=src/import/onnx.proto");
    let descriptors = protox::compile(["src/import/onnx.proto"], ["src/import"])?;
    prost_build::Config::new().compile_fds(descriptors)?;
    Ok(())
}
