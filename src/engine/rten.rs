//! The CPU backend: `rten`, pure Rust, on ONNX files.

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use rten::{Dimension, Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView, ValueType};
use rten_tensor::prelude::*;

use super::onnx::ModelProto;
use super::widen::{has_bf16, widen};
use super::{Data, DataType, Engine, EngineError, EngineErrorKind as Kind, Tensor, TensorInfo};

/// Version of rten that is linked.
pub const VERSION: &str = env!("SAM4MLLM_RTEN_VERSION");

/// How [`RtenEngine::load`] sets an engine up.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct RtenOptions {
    /// Threads that one run uses; engines given clones of one pool share it.
    ///
    /// Default: a pool of the process, with one thread for each physical core.
    pub pool: Option<Arc<ThreadPool>>,
    /// Whether weights are also kept in the order in which matrix products read them. Measured on models of 4 to 5
    /// million parameters: passes over 30 positions are 1.1 times as fast, those over 1 and over 256 are not faster;
    /// loading takes twice the time and the weights twice the memory.
    ///
    /// Default: false.
    pub prepack: bool,
}

impl RtenOptions {
    /// Sets the number of threads. Range: 1 and up.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.pool = Some(Arc::new(ThreadPool::with_num_threads(threads.max(1))));
        self
    }

    /// Sets [`prepack`](Self::prepack).
    #[must_use]
    pub fn prepack(mut self, prepack: bool) -> Self {
        self.prepack = prepack;
        self
    }
}

/// A dimension that an input must have.
#[derive(Debug, Clone)]
enum Size {
    Fixed(usize),
    /// Dimensions of one name are equal in one call.
    Named(String),
}

/// A graph's input or output.
#[derive(Debug)]
struct Port {
    node: NodeId,
    shape: Option<Vec<Size>>,
}

/// An ONNX model in `rten`.
pub struct RtenEngine {
    name: String,
    model: Model,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    input_ports: Vec<Port>,
    output_ports: Vec<Port>,
    options: RunOptions,
}

impl RtenEngine {
    /// Loads `path`, an ONNX file whose external data lies beside it. The engine is called after the file.
    ///
    /// # Errors
    /// [`EngineErrorKind::Open`](Kind::Open) for a file that cannot be read, [`EngineErrorKind::Load`](Kind::Load)
    /// for a model that `rten` does not take.
    pub fn load(path: impl AsRef<Path>, options: &RtenOptions) -> Result<Self, EngineError> {
        let path = path.as_ref();
        let name = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let bytes = std::fs::read(path).map_err(|e| EngineError::new(Kind::Open, path.display().to_string(), e))?;
        // The reader in `rten` 0.27 never returns from a number of ten bytes or more, so noise is found here.
        let onnx: ModelProto =
            prost::Message::decode(&*bytes).map_err(|e| EngineError::new(Kind::Load, name.as_str(), e))?;
        drop(bytes);
        // Weights are read, not mapped: a bundle that is rewritten in place under a running node must neither change
        // its answers nor kill it.
        let mut loader = ModelOptions::with_all_ops();
        loader.prepack_weights(options.prepack);
        let widened =
            has_bf16(&onnx).then(|| widen(onnx, path.parent().unwrap_or(Path::new("")), &name)).transpose()?;
        let load = move || match widened {
            None => loader.load_file(path),
            Some(widened) => {
                for (name, bytes) in widened.external {
                    loader.external_data(&name, bytes);
                }
                loader.load(widened.onnx)
            }
        };
        let model = catch_unwind(AssertUnwindSafe(load))
            .map_err(|panic| EngineError::new(Kind::Load, name.as_str(), message(&panic)))?
            .map_err(|e| EngineError::new(Kind::Load, name.as_str(), e))?;
        let (inputs, input_ports) = ports(&model, model.input_ids(), &name)?;
        let (outputs, output_ports) = ports(&model, model.output_ids(), &name)?;
        let mut run = RunOptions::default();
        run.thread_pool.clone_from(&options.pool);
        Ok(Self { name, model, inputs, outputs, input_ports, output_ports, options: run })
    }

    /// Number of parameters in the graph, as loaded.
    pub fn parameters(&self) -> usize {
        self.model.total_params()
    }

    /// Checks every input's name, type and shape, and that none is missing or given twice.
    fn check(&self, inputs: &[(&str, Tensor<'_>)]) -> Result<Vec<NodeId>, EngineError> {
        let mut named: HashMap<&str, usize> = HashMap::new();
        let mut seen = vec![false; self.inputs.len()];
        let mut nodes = Vec::with_capacity(inputs.len());
        for (name, tensor) in inputs {
            let fault = |why: String| EngineError::new(Kind::Input, self.name.as_str(), why).at_tensor(*name);
            let index = self.inputs.iter().position(|info| info.name == *name);
            let index = index.ok_or_else(|| fault("the engine has no such input".into()))?;
            if std::mem::replace(&mut seen[index], true) {
                return Err(fault("is given twice".into()));
            }
            let (info, port) = (&self.inputs[index], &self.input_ports[index]);
            if tensor.data_type() != info.data_type {
                return Err(fault(format!("is {:?}, must be {:?}", tensor.data_type(), info.data_type)));
            }
            if let Some(shape) = &port.shape {
                check_shape(tensor.shape(), shape, &mut named).map_err(fault)?;
            }
            nodes.push(port.node);
        }
        match seen.iter().position(|seen| !seen) {
            None => Ok(nodes),
            Some(index) => Err(EngineError::new(Kind::Input, self.name.as_str(), "is missing")
                .at_tensor(self.inputs[index].name.as_str())),
        }
    }

    fn output_nodes(&self, outputs: &[&str]) -> Result<Vec<NodeId>, EngineError> {
        let find = |name: &&str| {
            let index = self.outputs.iter().position(|info| info.name == **name);
            index.map(|index| self.output_ports[index].node).ok_or_else(|| {
                EngineError::new(Kind::Input, self.name.as_str(), "the engine has no such output").at_tensor(*name)
            })
        };
        outputs.iter().map(find).collect()
    }
}

impl Engine for RtenEngine {
    fn name(&self) -> &str {
        &self.name
    }

    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&mut self, inputs: Vec<(&str, Tensor<'_>)>, outputs: &[&str]) -> Result<Vec<Tensor<'static>>, EngineError> {
        let nodes = self.check(&inputs)?;
        let wanted = self.output_nodes(outputs)?;
        // Checked inputs can still be nonsense to the graph, an index beyond a table for instance.
        let fed = nodes.into_iter().zip(inputs).map(|(node, (_, tensor))| (node, feed(tensor))).collect();
        let run = || self.model.run(fed, &wanted, Some(self.options.clone()));
        let values = catch_unwind(AssertUnwindSafe(run))
            .map_err(|panic| EngineError::new(Kind::Run, self.name.as_str(), message(&panic)))?
            .map_err(|e| EngineError::new(Kind::Run, self.name.as_str(), e))?;
        let give = |(value, name): (Value, &&str)| {
            give(value).ok_or_else(|| {
                EngineError::new(Kind::Run, self.name.as_str(), "is neither float nor integer").at_tensor(*name)
            })
        };
        values.into_iter().zip(outputs).map(give).collect()
    }
}

/// Reads name, type and shape of a model's inputs or outputs.
fn ports(model: &Model, nodes: &[NodeId], engine: &str) -> Result<(Vec<TensorInfo>, Vec<Port>), EngineError> {
    let mut infos = Vec::with_capacity(nodes.len());
    let mut ports = Vec::with_capacity(nodes.len());
    for &node in nodes {
        let refuse = |why: String| EngineError::new(Kind::Load, engine, why);
        let info = model.node_info(node).ok_or_else(|| refuse("has an input or output without a node".into()))?;
        let name = info.name().ok_or_else(|| refuse("has an input or output without a name".into()))?;
        let data_type = match info.dtype() {
            Some(ValueType::Tensor(rten::DataType::Float)) => DataType::F32,
            Some(ValueType::Tensor(rten::DataType::Int32)) => DataType::I32,
            Some(ValueType::Tensor(rten::DataType::UInt8)) => DataType::U8,
            other => return Err(refuse(format!("unsupported type {other:?}")).at_tensor(name)),
        };
        let shape = info.shape();
        let visible = shape.iter().flatten().map(|dimension| match dimension {
            Dimension::Fixed(size) => Some(*size),
            Dimension::Symbolic(_) => None,
        });
        infos.push(TensorInfo { name: name.to_owned(), data_type, shape: visible.collect() });
        let sizes = |shape: Vec<Dimension>| shape.into_iter().map(size).collect();
        ports.push(Port { node, shape: shape.map(sizes) });
    }
    Ok((infos, ports))
}

fn size(dimension: Dimension) -> Size {
    match dimension {
        Dimension::Fixed(size) => Size::Fixed(size),
        Dimension::Symbolic(name) => Size::Named(name),
    }
}

/// Checks a shape against the graph's; `named` holds the sizes that dimensions have had in this call.
fn check_shape<'p>(found: &[usize], wanted: &'p [Size], named: &mut HashMap<&'p str, usize>) -> Result<(), String> {
    let fits = found.len() == wanted.len()
        && found.iter().zip(wanted).all(|(&found, wanted)| match wanted {
            Size::Fixed(size) => found == *size,
            Size::Named(name) => *named.entry(name).or_insert(found) == found,
        });
    if fits {
        return Ok(());
    }
    let text = wanted.iter().map(|size| match size {
        Size::Fixed(size) => size.to_string(),
        Size::Named(name) => named.get(name.as_str()).map_or_else(|| name.clone(), |size| format!("{name} = {size}")),
    });
    Err(format!("is {found:?}, must be [{}]", text.collect::<Vec<_>>().join(", ")))
}

/// Hands a tensor to `rten`: by value where it is owned, so that its memory can be used again.
fn feed(tensor: Tensor<'_>) -> ValueOrView<'_> {
    use std::borrow::Cow;
    let (shape, data) = tensor.into_parts();
    match data {
        Data::F32(Cow::Owned(v)) => Value::from(rten_tensor::Tensor::from_data(&shape, v)).into(),
        Data::I32(Cow::Owned(v)) => Value::from(rten_tensor::Tensor::from_data(&shape, v)).into(),
        Data::U8(Cow::Owned(v)) => Value::from(rten_tensor::Tensor::from_data(&shape, v)).into(),
        Data::F32(Cow::Borrowed(v)) => rten_tensor::TensorView::from_data(&shape, v).into(),
        Data::I32(Cow::Borrowed(v)) => rten_tensor::TensorView::from_data(&shape, v).into(),
        Data::U8(Cow::Borrowed(v)) => rten_tensor::TensorView::from_data(&shape, v).into(),
    }
}

/// Takes a tensor from `rten`; without a copy where it is contiguous.
fn give(value: Value) -> Option<Tensor<'static>> {
    match value {
        Value::FloatTensor(tensor) => Some(owned(tensor, Tensor::f32)),
        Value::Int32Tensor(tensor) => Some(owned(tensor, Tensor::i32)),
        _ => None,
    }
}

fn owned<T: Clone>(
    tensor: rten_tensor::Tensor<T>,
    make: impl Fn(&[usize], Vec<T>) -> Tensor<'static>,
) -> Tensor<'static> {
    let shape = tensor.shape().to_vec();
    make(&shape, tensor.into_data())
}

/// The text of a panic.
fn message(panic: &Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.as_deref().unwrap_or("no message"))
}
