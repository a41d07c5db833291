//! Compiles the stand-in against the headers of the shim.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use sam4mllm::engine::tensorrt::Library;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tensorrt/standin");
const TENSORRT: &str = env!("SAM4MLLM_TENSORRT_INCLUDE");
const CUDA: &str = env!("SAM4MLLM_CUDA_INCLUDE");

/// Writes the stand-in into `folder` under the names of the libraries that are asked for: one library with several
/// names is loaded once.
pub fn standin(folder: &Path) {
    let headers = std::fs::read_to_string(Path::new(TENSORRT).join("NvInferImpl.h")).expect("TensorRT's headers");
    std::fs::write(folder.join("refusals.h"), refusals(&headers)).expect("is written");
    let library = folder.join("standin.so");
    let mut command = Command::new(std::env::var("CXX").unwrap_or_else(|_| "c++".into()));
    command.args(["-std=c++17", "-shared", "-fPIC", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror"]);
    if std::env::var_os("SAM4MLLM_SANITIZE").is_some() {
        command.args(["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
    }
    command.args(["-isystem", TENSORRT, "-isystem", CUDA, "-I", SOURCES, "-I"]).arg(folder);
    command
        .args(["tensorrt.cpp", "cuda.cpp", "graphs.cpp", "mapped.cpp"].map(|file| format!("{SOURCES}/{file}")))
        .arg("-o")
        .arg(&library);
    assert!(command.status().expect("the compiler that the shim was built with runs").success());
    let core = Library::file_name();
    let parser = match core.strip_prefix("libnvinfer.") {
        Some(version) => format!("libnvonnxparser.{version}"),
        None => "libtensorrt_onnxparser_rtx.so.1".to_owned(),
    };
    for name in [core.as_str(), parser.as_str(), "libcuda.so", "libcuda.so.1"] {
        std::os::unix::fs::symlink(&library, folder.join(name)).expect("is linked");
    }
}

/// Classes with every function of TensorRT's interfaces, which say that the stand-in does not know it: the interfaces
/// grow with every version, and what is implemented stays the same.
fn refusals(headers: &str) -> String {
    let mut code = "#pragma once\n#include \"standin.h\"\n#include <NvInfer.h>\n".to_owned();
    code += "namespace nvinfer1 {\nnamespace apiv {\n";
    // The last two are not in the headers of every version.
    let classes = ["Runtime", "CudaEngine", "ExecutionContext", "EngineInspector", "RuntimeConfig", "RuntimeCache"];
    for class in classes {
        let Some((_, start)) = headers.split_once(&format!("class V{class} : public VRoot\n{{")) else { continue };
        let body = start.split_once("\n};").expect("the class ends").0;
        let lines = body.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split("//").next());
        let body = lines.collect::<Vec<_>>().join(" ");
        // Nothing fails when a text is written to.
        let _ = writeln!(code, "struct Refusing{class} : V{class} {{");
        for declaration in body.split(';').filter_map(|text| text.split_once("virtual ")) {
            let text = declaration.1.split_whitespace().collect::<Vec<_>>().join(" ");
            if let Some(text) = text.strip_suffix("= 0") {
                let _ = writeln!(code, "    {text} {{ standin::unexpected(\"V{class}: {text}\"); }}");
            }
        }
        code += "};\n";
    }
    code + "}  // namespace apiv\n}  // namespace nvinfer1\n"
}
