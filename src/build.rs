//! Compiles protocol buffers into `OUT_DIR`, without `protoc`; with the feature `tensorrt`, its shim too.

use std::error::Error;
use std::path::PathBuf;

use prost_types::{DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto};

fn main() -> Result<(), Box<dyn Error>> {
    engine_version()?;
    onnx()?;
    #[cfg(feature = "tensorrt")]
    tensorrt::shim()?;
    perception()?;
    recording()
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

/// The subset of ONNX that is written here: messages only.
fn onnx() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=src/engine/onnx.proto");
    let descriptors = protox::compile(["src/engine/onnx.proto"], ["src/engine"])?;
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
    let descriptors = compiler.file_descriptor_set();
    let contract = descriptors.file.iter().find(|file| file.package() == "sam4mllm.v1").ok_or("no contract")?;
    let (messages, enums) = (contract.message_type.iter().map(message), contract.enum_type.iter().map(values));
    let tables = [("MESSAGES", messages.collect::<String>()), ("ENUMS", enums.collect())];
    let script = tables.map(|(name, rows)| format!("export const {name} = {{\n{rows}}};\n")).concat();
    std::fs::write(out.join("contract.js"), format!("// Written by build.rs from perception.proto.\n{script}"))?;
    // Pixels stay in the buffer that they were received in.
    let pixels = ["Frame.data", "Depth.data"].map(|field| format!(".sam4mllm.v1.{field}"));
    let config = pixels.iter().fold(tonic_prost_build::configure(), tonic_prost_build::Builder::bytes);
    config.compile_fds(descriptors)?;
    Ok(())
}

/// A message as the page's `wire.js` reads it: number, name, type and kind of each field, by number.
fn message(message: &DescriptorProto) -> String {
    let mut fields: Vec<_> = message.field.iter().collect();
    fields.sort_by_key(|field| field.number());
    let row = |field: &&FieldDescriptorProto| {
        let scalar = field.r#type().as_str_name().trim_start_matches("TYPE_").to_lowercase();
        let named = field.type_name().rsplit('.').next().filter(|name| !name.is_empty());
        let kind = match (field.label().as_str_name(), field.oneof_index) {
            ("LABEL_REPEATED", _) => "repeated",
            (_, Some(_)) => "optional",
            _ => "single",
        };
        format!(
            "    [{}, \"{}\", \"{scalar}\", \"{kind}\", \"{}\"],\n",
            field.number(),
            field.name(),
            named.unwrap_or("")
        )
    };
    format!("  {}: [\n{}  ],\n", message.name(), fields.iter().map(row).collect::<String>())
}

/// An enum's words by number, without what they all begin with.
fn values(values: &EnumDescriptorProto) -> String {
    let common = values.value.first().map_or("", |zero| zero.name().trim_end_matches("UNSPECIFIED"));
    let word = |value: &EnumValueDescriptorProto| {
        format!("{}: \"{}\", ", value.number(), value.name().trim_start_matches(common))
    };
    format!("  {}: {{ {}}},\n", values.name(), values.value.iter().map(word).collect::<String>())
}

/// What recordings hold besides: messages, and the descriptors that are written into each.
fn recording() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let files = ["sam4mllm/recording/v1/recording.proto", "foxglove/CompressedImage.proto"];
    for (file, descriptors) in files.iter().zip(["recording.bin", "foxglove.bin"]) {
        let mut compiler = protox::Compiler::new(["proto"])?;
        compiler.include_imports(true).open_files([file])?;
        std::fs::write(out.join(descriptors), compiler.encode_file_descriptor_set())?;
    }
    let folder = out.join("recording");
    std::fs::create_dir_all(&folder)?;
    let mut config = prost_build::Config::new();
    // A folder of its own: the contract's messages have been generated already.
    config.out_dir(folder).extern_path(".sam4mllm.v1", "crate::server::wire");
    config.bytes([".foxglove.CompressedImage.data"]);
    config.compile_fds(protox::compile(files, ["proto"])?)?;
    Ok(())
}

/// The C++ between TensorRT and this crate.
#[cfg(feature = "tensorrt")]
mod tensorrt {
    use std::env;
    use std::error::Error;
    use std::path::{Path, PathBuf};

    const SHIM: &str = "src/engine/tensorrt/shim.cpp";
    /// Folders of `NvInfer.h` and of `cuda_runtime_api.h`, which it includes.
    const TENSORRT: (&str, &str) = ("TENSORRT_INCLUDE_DIR", "NvInfer.h");
    const CUDA: (&str, &str) = ("CUDA_INCLUDE_DIR", "cuda_runtime_api.h");

    /// Compiles the shim against the headers at hand. Nothing is linked but C++'s own library.
    pub fn shim() -> Result<(), Box<dyn Error>> {
        for part in ["shim.cpp", "shim_callbacks.h", "shim_versions.h"] {
            println!("cargo::rerun-if-changed=src/engine/tensorrt/{part}");
        }
        let arch = env::var("CARGO_CFG_TARGET_ARCH")?;
        let distribution = format!("/usr/include/{arch}-linux-gnu");
        let tensorrt =
            find(TENSORRT, &[&distribution, "/usr/include", "/usr/local/tensorrt/include"]).ok_or(format!(
                "the feature `tensorrt` needs TensorRT's headers: install `libnvinfer-headers-dev` and \
             `libnvonnxparsers-dev` (JetPack has them), or set {} to the folder of NvInfer.h and NvOnnxParser.h",
                TENSORRT.0
            ))?;
        let home = env::var("CUDA_HOME").unwrap_or_else(|_| "/usr/local/cuda".into());
        println!("cargo::rerun-if-env-changed=CUDA_HOME");
        let toolkit = format!("{home}/include");
        let cuda = find(CUDA, &[&toolkit, &distribution, "/usr/include"]).ok_or(format!(
            "the feature `tensorrt` needs CUDA's headers: install `cuda-cudart-dev`, or set {} to the folder of \
             cuda_runtime_api.h; no CUDA is linked",
            CUDA.0
        ))?;
        // For tests that compile against the same.
        println!("cargo::rustc-env=SAM4MLLM_TENSORRT_INCLUDE={}", tensorrt.display());
        println!("cargo::rustc-env=SAM4MLLM_CUDA_INCLUDE={}", cuda.display());
        // `-isystem`: warnings in NVIDIA's headers are not ours.
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").file(SHIM).flag("-isystem").flag(&tensorrt).flag("-isystem").flag(&cuda);
        // For tests: errors of memory in the shim end the process.
        println!("cargo::rerun-if-env-changed=SAM4MLLM_SANITIZE");
        if env::var_os("SAM4MLLM_SANITIZE").is_some() {
            build.flag("-fsanitize=address,undefined").flag("-fno-sanitize-recover=all");
            // rustc links without the compiler's usual libraries, so they are named.
            for argument in ["-fsanitize=address", "-lasan", "-lubsan"] {
                println!("cargo::rustc-link-arg={argument}");
            }
        }
        build.warnings(true).extra_warnings(true).try_compile("sam4mllm_tensorrt")?;
        Ok(())
    }

    /// The folder that the environment variable names, else the first of `usual` that has the file.
    fn find((variable, file): (&str, &str), usual: &[&str]) -> Option<PathBuf> {
        println!("cargo::rerun-if-env-changed={variable}");
        let named = env::var_os(variable).map(PathBuf::from);
        let folders = named.map_or_else(|| usual.iter().map(PathBuf::from).collect(), |named| vec![named]);
        folders.into_iter().find(|folder| Path::new(folder).join(file).exists())
    }
}
