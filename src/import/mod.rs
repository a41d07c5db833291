//! Hugging Face checkpoint directories in, ONNX graphs out, in Rust: no Python and no torch on the robot.
//!
//! [`import`] reads `config.json` for the class and its shapes, and the headers of the safetensors files; it writes
//! one graph for each part that runs on its own (see [`families`]) and refers to the weights where they lie. What it
//! cannot import it refuses by name: a graph that is nearly right gives masks that are nearly right.

pub mod families;

mod adapter;
mod attention;
mod cache;
mod checkpoint;
mod compose;
mod config;
mod error;
mod form;
mod front;
mod fused;
mod graph;
mod half;
mod nn;
mod outline;
#[cfg(feature = "tensorrt")]
mod product;
mod quantise;
mod settle;
mod shapes;
#[cfg(feature = "tensorrt")]
mod sizes;
mod torch;
mod weights;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use prost::Message;
use serde::Serialize;

pub use adapter::{Adapter, AdapterMode, AdapterReport};
pub use cache::{Imported, default_cache_dir, describe_bundle, import_bundle, import_cached};
pub(crate) use compose::end_token;
pub use compose::{ComposeError, Composition, compose};
pub use error::{ImportError, ImportErrorKind};
pub use form::{Form, Level, Precision};
pub use front::{Front, PIXEL_BYTES, PIXEL_EXTENT, PIXEL_VALUES, take_bytes};
pub use outline::{GraphBytes, GraphOutline, Outline, outline};
#[cfg(feature = "tensorrt")]
pub use product::half_product;
#[cfg(feature = "tensorrt")]
pub use sizes::fix_sizes;
pub use weights::WeightReport;

use crate::engine::onnx;
use checkpoint::Checkpoint;
use error::ImportErrorKind as Kind;
use families::Family;
use onnx::tensor_proto::{DataLocation, DataType};
use onnx::tensor_shape_proto::{Dimension, dimension};
use onnx::{ModelProto, TensorProto, ValueInfoProto, type_proto};
pub(crate) use settle::Making;
use settle::{Part, Taken, check_target};
use weights::Weights;

/// Grows with every change of what is written, so that cached graphs of older importers are not used.
pub const IMPORTER_VERSION: u32 = 3;

/// What [`import`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ImportReport {
    /// The checkpoint's class.
    pub class: String,
    /// The graphs, in the order in which they run.
    pub graphs: Vec<GraphReport>,
    /// What became of the weights.
    pub weights: WeightReport,
    /// What became of the adapter, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<AdapterReport>,
    /// How long it took.
    pub elapsed: Duration,
}

/// One graph that [`import`] wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct GraphReport {
    /// Its name; the file is `{name}.onnx`.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Number of operators.
    pub nodes: usize,
    /// The same by kind.
    pub operators: BTreeMap<String, usize>,
    /// Number of the checkpoint's parameters in it.
    pub parameters: u64,
    /// What it takes.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Port>,
}

/// An input or output of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Element type: `f32`, `f16` or `i32`; the last stands for 64 bits too.
    pub data_type: &'static str,
    /// Dimensions: numbers, and names of those that vary.
    pub shape: Vec<String>,
}

impl ImportReport {
    /// Says that the graphs are in `dir` now.
    fn move_to(&mut self, dir: &Path) {
        self.graphs.iter_mut().for_each(|graph| graph.path = dir.join(file_name(&graph.name)));
    }
}

/// Imports the checkpoint in `dir` and writes its graphs into `out`. That directory appears when all of it is written, in
/// the place of what an earlier import wrote there; where anything fails, what was there stays.
///
/// # Errors
/// Whatever in the checkpoint the importer cannot stand for, with file and tensor or key; failures to write;
/// [`ImportErrorKind::Busy`] where another import is writing `out`, and [`ImportErrorKind::Write`] where `out` holds what
/// no import wrote.
pub fn import(
    dir: impl AsRef<Path>,
    out: impl AsRef<Path>,
    form: impl Into<Form>,
) -> Result<ImportReport, ImportError> {
    import_adapted(dir, None, out, form)
}

/// Imports the checkpoint in `dir` with a LoRA adapter on it; otherwise as [`import`].
///
/// # Errors
/// As [`import`]; also an adapter that does not fit the checkpoint in every part, with the tensor or key at fault.
pub fn import_adapted(
    dir: impl AsRef<Path>,
    adapter: Option<Adapter<'_>>,
    out: impl AsRef<Path>,
    form: impl Into<Form>,
) -> Result<ImportReport, ImportError> {
    let out = out.as_ref();
    check_target(out)?;
    let part = Part::new(out, Taken::Refuse)?;
    let mut report = fill(dir.as_ref(), adapter, part.dir(), form.into())?;
    report.move_to(&part.settle()?);
    Ok(report)
}

/// Writes the graphs of the checkpoint in `dir` into `out`, file by file.
fn fill(dir: &Path, adapter: Option<Adapter<'_>>, out: &Path, form: Form) -> Result<ImportReport, ImportError> {
    let start = Instant::now();
    let (checkpoint, family, adapter) = open(dir, adapter)?;
    fs::create_dir_all(out).map_err(|e| ImportError::new(Kind::Write, out).because(e))?;
    let mode = adapter.as_ref().map(|report| report.mode).unwrap_or_default();
    let mut weights = Weights::new(&checkpoint, mode, form.precision, Some(out));
    let models = build(&checkpoint, family, form, &mut weights)?;
    let weights = weights.finish()?;
    let graphs = models.iter().map(|model| write(model, out)).collect::<Result<_, _>>()?;
    Ok(ImportReport { class: family.class().to_owned(), graphs, weights, adapter, elapsed: start.elapsed() })
}

/// Opens a checkpoint and attaches an adapter to it.
fn open(
    dir: &Path,
    adapter: Option<Adapter<'_>>,
) -> Result<(Checkpoint, &'static Family, Option<AdapterReport>), ImportError> {
    let mut checkpoint = Checkpoint::open(dir)?;
    let family = families::find(checkpoint.config())?;
    if let Some(spelling) = family.spelling(&checkpoint) {
        checkpoint.spell(spelling);
    }
    let attach = |adapter: Adapter<'_>| adapter::attach(&mut checkpoint, &adapter, family.aliases());
    let adapter = adapter.map(attach).transpose()?;
    Ok((checkpoint, family, adapter))
}

/// Builds a checkpoint's graphs.
fn build(
    checkpoint: &Checkpoint,
    family: &Family,
    form: Form,
    weights: &mut Weights<'_>,
) -> Result<Vec<ModelProto>, ImportError> {
    let mut models = family.build(checkpoint, form.level, weights)?;
    if form.precision.is_half() {
        models.iter_mut().for_each(half::halve);
    }
    Ok(models)
}

fn file_name(graph: &str) -> String {
    format!("{graph}.onnx")
}

fn write(model: &ModelProto, out: &Path) -> Result<GraphReport, ImportError> {
    let graph = model.graph.as_ref().expect("a built model has a graph");
    let path = out.join(file_name(&graph.name));
    fs::write(&path, model.encode_to_vec()).map_err(|e| ImportError::new(Kind::Write, &path).because(e))?;
    let mut operators = BTreeMap::new();
    graph.node.iter().for_each(|node| *operators.entry(node.op_type.clone()).or_default() += 1);
    Ok(GraphReport {
        operators,
        name: graph.name.clone(),
        path,
        nodes: graph.node.len(),
        parameters: graph.initializer.iter().filter(|i| is_weight(i)).map(elements).sum(),
        inputs: graph.input.iter().map(port).collect(),
        outputs: graph.output.iter().map(port).collect(),
    })
}

/// Whether an initializer is a tensor of the checkpoint rather than computed.
fn is_weight(initializer: &TensorProto) -> bool {
    let name = &initializer.name;
    initializer.data_location() == DataLocation::External && name.contains('.') && !name.ends_with(quantise::SCALES)
}

fn elements(initializer: &TensorProto) -> u64 {
    initializer.dims.iter().map(|&d| d as u64).product()
}

fn port(info: &ValueInfoProto) -> Port {
    let value = info.r#type.as_ref().and_then(|t| t.value.as_ref());
    let tensor = value.map(|type_proto::Value::TensorType(tensor)| tensor);
    let dims = tensor.and_then(|tensor| tensor.shape.as_ref()).map(|shape| shape.dim.as_slice()).unwrap_or_default();
    let dim = |dim: &Dimension| match &dim.value {
        Some(dimension::Value::DimValue(size)) => size.to_string(),
        Some(dimension::Value::DimParam(name)) => name.clone(),
        None => "?".to_owned(),
    };
    let data_type = match tensor.and_then(|tensor| DataType::try_from(tensor.elem_type).ok()) {
        Some(DataType::Float) => "f32",
        Some(DataType::Float16) => "f16",
        Some(DataType::Uint8) => "u8",
        _ => "i32",
    };
    Port { name: info.name.clone(), data_type, shape: dims.iter().map(dim).collect() }
}
