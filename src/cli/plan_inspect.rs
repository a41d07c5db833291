//! `sam4mllm engine inspect FILE.plan`: what a plan was built from, and where there is a GPU what it became.

use std::path::Path;

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use super::Format;
use crate::engine::tensorrt::backend::Element;
use crate::engine::tensorrt::plan::PlanRecord;
use crate::engine::tensorrt::{Device, Library, Plan, Runtime, TensorRtError};

/// What loading it shows.
#[derive(Debug, Serialize)]
struct Loaded {
    layers: usize,
    context_bytes: u64,
    streamable_bytes: u64,
    ports: Vec<Port>,
    /// TensorRT's own description of every layer.
    description: serde_json::Value,
}

#[derive(Debug, Serialize)]
struct Port {
    name: String,
    direction: &'static str,
    r#type: String,
    shape: Vec<i64>,
    /// Smallest, usual and largest shape by profile; none for outputs.
    reach: Vec<[Vec<i64>; 3]>,
}

/// Describes the plan at `path`, which its record stands beside.
pub fn run(path: &Path, format: Format) -> anyhow::Result<String> {
    let record = PlanRecord::read(path)?;
    let plan = Plan::open(path, &record.key)?;
    plan.read()?;
    let loaded = load(&plan);
    match format {
        Format::Text => Ok(text(&record, &loaded)),
        Format::Json => {
            let (loaded, why) = match loaded {
                Ok(loaded) => (Some(loaded), None),
                Err(error) => (None, Some(error.to_string())),
            };
            let value = serde_json::json!({ "record": record, "loaded": loaded, "not_loaded": why });
            Ok(format!("{value:#}\n"))
        }
    }
}

/// Loads it, if it is for this machine: a foreign one must not reach TensorRT.
fn load(plan: &Plan) -> Result<Loaded, TensorRtError> {
    let (library, device) = (Library::find()?, Device::open()?);
    plan.check_machine(library.version(), &device)?;
    let engine = Runtime::new(library)?.load(plan)?;
    let profiles = engine.profiles();
    let port = |port: crate::engine::tensorrt::safe::Port| Port {
        direction: if port.is_input { "in" } else { "out" },
        r#type: match Element::from_number(port.data_type) {
            Some(element) => element.name().to_owned(),
            None => format!("type {}", port.data_type),
        },
        reach: (0..profiles).filter_map(|profile| engine.reach(&port.name, profile)).collect(),
        name: port.name,
        shape: port.dims,
    };
    let text = engine.describe()?;
    Ok(Loaded {
        layers: engine.layers(),
        context_bytes: engine.context_bytes(),
        streamable_bytes: engine.streamable_bytes(),
        ports: engine.ports().into_iter().map(port).collect(),
        // What is not JSON is shown as it is.
        description: serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)),
    })
}

fn text(record: &PlanRecord, loaded: &Result<Loaded, TensorRtError>) -> String {
    let PlanRecord { key, layers, seconds, bytes, sha256 } = record;
    let mut about = Table::new();
    about.load_style(UTF8_FULL_CONDENSED);
    let size = format!("{bytes} bytes, sha256 {}, as its record says", sha256.get(..16).unwrap_or(sha256));
    let built = format!("{layers} layers before fusion, {seconds:.1} s");
    let rows = [
        ("graph", key.graph.as_str()),
        ("TensorRT", &key.tensorrt),
        ("device", &key.device),
        ("precision", &key.precision),
        ("ONNX", &key.onnx),
        ("weights", &key.weights),
        ("options, profiles", &key.options),
        ("built", &built),
        ("plan", &size),
    ];
    for (name, value) in rows {
        about.add_row([name, value]);
    }
    match loaded {
        Ok(loaded) => format!("{about}\n{}", loaded_text(loaded)),
        Err(error) => format!("{about}\nnot loaded, so nothing of its layers and memory: {error}\n"),
    }
}

fn loaded_text(loaded: &Loaded) -> String {
    let mut ports = Table::new();
    ports.load_style(UTF8_FULL_CONDENSED).set_header(["tensor", "", "type", "shape", "reaches from, to"]);
    for port in &loaded.ports {
        let reach = |[least, _, most]: &[Vec<i64>; 3]| format!("{least:?}, {most:?}");
        let reaches = port.reach.iter().map(reach).collect::<Vec<_>>().join("\n");
        let shape = format!("{:?}", port.shape);
        ports.add_row([port.name.as_str(), port.direction, port.r#type.as_str(), shape.as_str(), reaches.as_str()]);
    }
    format!(
        "{ports}\n{} layers after fusion, {} bytes for a context beside the weights, {} bytes of weights may be \
         streamed; --format json has every layer\n",
        loaded.layers, loaded.context_bytes, loaded.streamable_bytes
    )
}
