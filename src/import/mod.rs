//! Hugging Face checkpoint directories in, ONNX graphs out, in Rust: no Python and no torch on the robot.
//!
//! [`import`] reads `config.json` for the class and its shapes, and the headers of the safetensors files; it writes
//! one graph for each part that runs on its own (see [`families`]) and refers to the weights where they lie. What it
//! cannot import it refuses by name: a graph that is nearly right gives masks that are nearly right.

pub mod families;

mod cache;
mod checkpoint;
mod config;
mod error;
mod graph;
mod nn;
mod onnx;
mod weights;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use prost::Message;

pub use cache::{Imported, default_cache_dir, import_bundle, import_cached};
pub use error::{ImportError, ImportErrorKind};
pub use weights::WeightReport;

use checkpoint::Checkpoint;
use error::ImportErrorKind as Kind;
use onnx::ModelProto;
use weights::Weights;

/// Grows with every change of what is written, so that cached graphs of older importers are not used.
pub const IMPORTER_VERSION: u32 = 1;

/// Which operators a graph may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Level {
    /// Opset 17, basic operators: `rten`, TensorRT from 10.3.
    Portable,
}

impl Level {
    /// Version of ONNX's operator set.
    pub fn opset(self) -> i64 {
        match self {
            Self::Portable => 17,
        }
    }
}

/// What [`import`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportReport {
    /// The checkpoint's class.
    pub class: String,
    /// The graphs, in the order in which they run.
    pub graphs: Vec<GraphReport>,
    /// What became of the weights.
    pub weights: WeightReport,
    /// How long it took.
    pub elapsed: Duration,
}

/// One graph that [`import`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GraphReport {
    /// Its name; the file is `{name}.onnx`.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Number of operators.
    pub nodes: usize,
}

/// Imports the checkpoint in `dir` and writes its graphs into `out`, which is made where it is missing.
///
/// # Errors
/// Whatever in the checkpoint the importer cannot stand for, with file and tensor or key; and failures to write.
pub fn import(dir: impl AsRef<Path>, out: impl AsRef<Path>, level: Level) -> Result<ImportReport, ImportError> {
    let (dir, out, start) = (dir.as_ref(), out.as_ref(), Instant::now());
    let checkpoint = Checkpoint::open(dir)?;
    let family = families::find(checkpoint.config())?;
    fs::create_dir_all(out).map_err(|e| ImportError::new(Kind::Write, out).because(e))?;
    let mut weights = Weights::new(&checkpoint, out);
    let models = family.build(&checkpoint, level, &mut weights)?;
    let weights = weights.finish()?;
    let graphs = models.iter().map(|model| write(model, out)).collect::<Result<_, _>>()?;
    Ok(ImportReport { class: family.class().to_owned(), graphs, weights, elapsed: start.elapsed() })
}

fn write(model: &ModelProto, out: &Path) -> Result<GraphReport, ImportError> {
    let graph = model.graph.as_ref().expect("a built model has a graph");
    let path = out.join(format!("{}.onnx", graph.name));
    fs::write(&path, model.encode_to_vec()).map_err(|e| ImportError::new(Kind::Write, &path).because(e))?;
    Ok(GraphReport { name: graph.name.clone(), path, nodes: graph.node.len() })
}
