//! Compiles protocol buffers into `OUT_DIR`, without `protoc`.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    engine_version()?;
    onnx()?;
    perception()
}

/// The version of rten that is linked, for replies to name: no crate knows its own from outside.
fn engine_version() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=Cargo.lock");
    let lock = std::fs::read_to_string("Cargo.lock")?;
    let package = lock.split("[[package]]").find(|p| p.lines().any(|line| line == "name = \"rten\""));
    let version = package.and_then(|p| p.lines().find_map(|l| l.strip_prefix("version = \"")?.strip_suffix('"')));
    println!("cargo::rustc-env=SAM4MLLM_RTEN_VERSION={}", version.ok_or("Cargo.lock has no rten")?);
    Ok(())
}

/// The importer's subset of ONNX: messages only.
fn onnx() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=src/import/onnx.proto");
    let descriptors = protox::compile(["src/import/onnx.proto"], ["src/import"])?;
    prost_build::Config::new().compile_fds(descriptors)?;
    Ok(())
}

/// The wire contract: messages, client, server, and the descriptors that reflection serves.
fn perception() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(["sam4mllm/v1/perception.proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("perception.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure().compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
