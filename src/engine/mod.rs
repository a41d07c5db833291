//! Engines: loaded models with named tensors in and out, whatever runs them.
//!
//! An [`Engine`] is synchronous and owned by one thread; whoever needs concurrency puts a thread around it.

pub mod bundle;
pub mod fake;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc;
pub(crate) mod onnx;
#[cfg(feature = "tensorrt")]
pub mod paired;
mod resident;
pub mod rten;
#[cfg(feature = "tensorrt")]
pub mod tensorrt;
mod widen;

use std::borrow::Cow;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) use glibc::keep_freed;
pub use resident::{Held, Resident};

/// Does nothing: how this system's allocator keeps memory is its own affair.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn keep_freed() {}

/// The elements of a tensor, row-major.
#[derive(Debug, Clone, PartialEq)]
pub enum Data<'a> {
    /// 32-bit floats.
    F32(Cow<'a, [f32]>),
    /// 32-bit integers; stands for ONNX `int64`, `int32` and `bool` alike.
    I32(Cow<'a, [i32]>),
    /// Bytes: pixels.
    U8(Cow<'a, [u8]>),
}

/// A dense row-major tensor that owns its elements or borrows them.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor<'a> {
    shape: Vec<usize>,
    data: Data<'a>,
}

impl<'a> Tensor<'a> {
    /// A float tensor; `data` is a `Vec<f32>` (owned) or a `&[f32]` (borrowed).
    ///
    /// # Panics
    /// Where the number of elements is not the product of `shape`.
    pub fn f32(shape: &[usize], data: impl Into<Cow<'a, [f32]>>) -> Self {
        let data = data.into();
        assert_eq!(shape.iter().product::<usize>(), data.len(), "elements of a tensor of shape {shape:?}");
        Self { shape: shape.to_vec(), data: Data::F32(data) }
    }

    /// An integer tensor; `data` is a `Vec<i32>` (owned) or a `&[i32]` (borrowed).
    ///
    /// # Panics
    /// Where the number of elements is not the product of `shape`.
    pub fn i32(shape: &[usize], data: impl Into<Cow<'a, [i32]>>) -> Self {
        let data = data.into();
        assert_eq!(shape.iter().product::<usize>(), data.len(), "elements of a tensor of shape {shape:?}");
        Self { shape: shape.to_vec(), data: Data::I32(data) }
    }

    /// A tensor of bytes; `data` is a `Vec<u8>` (owned) or a `&[u8]` (borrowed).
    ///
    /// # Panics
    /// Where the number of elements is not the product of `shape`.
    pub fn u8(shape: &[usize], data: impl Into<Cow<'a, [u8]>>) -> Self {
        let data = data.into();
        assert_eq!(shape.iter().product::<usize>(), data.len(), "elements of a tensor of shape {shape:?}");
        Self { shape: shape.to_vec(), data: Data::U8(data) }
    }

    /// A tensor of those elements.
    ///
    /// # Panics
    /// Where their number is not the product of `shape`.
    pub fn of(shape: &[usize], data: Data<'a>) -> Self {
        match data {
            Data::F32(values) => Self::f32(shape, values),
            Data::I32(values) => Self::i32(shape, values),
            Data::U8(values) => Self::u8(shape, values),
        }
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements with their type.
    pub fn data(&self) -> &Data<'a> {
        &self.data
    }

    /// Type of the elements.
    pub fn data_type(&self) -> DataType {
        match self.data {
            Data::F32(_) => DataType::F32,
            Data::I32(_) => DataType::I32,
            Data::U8(_) => DataType::U8,
        }
    }

    /// The elements of a float tensor, row-major; `None` for others.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(v) => Some(v),
            Data::I32(_) | Data::U8(_) => None,
        }
    }

    /// The elements of a float tensor, by value; `None` for others.
    pub fn into_f32(self) -> Option<Vec<f32>> {
        match self.data {
            Data::F32(v) => Some(v.into_owned()),
            Data::I32(_) | Data::U8(_) => None,
        }
    }

    /// Another view of the same elements.
    pub fn view(&self) -> Tensor<'_> {
        let data = match &self.data {
            Data::F32(v) => Data::F32(Cow::Borrowed(&**v)),
            Data::I32(v) => Data::I32(Cow::Borrowed(&**v)),
            Data::U8(v) => Data::U8(Cow::Borrowed(&**v)),
        };
        Tensor { shape: self.shape.clone(), data }
    }

    /// The same tensor with elements of its own.
    pub fn into_owned(self) -> Tensor<'static> {
        let data = match self.data {
            Data::F32(v) => Data::F32(Cow::Owned(v.into_owned())),
            Data::I32(v) => Data::I32(Cow::Owned(v.into_owned())),
            Data::U8(v) => Data::U8(Cow::Owned(v.into_owned())),
        };
        Tensor { shape: self.shape, data }
    }

    /// Splits into shape and elements.
    pub fn into_parts(self) -> (Vec<usize>, Data<'a>) {
        (self.shape, self.data)
    }
}

/// Type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataType {
    /// 32-bit float.
    F32,
    /// 32-bit integer; stands for ONNX `int64`, `int32` and `bool` alike.
    I32,
    /// Byte.
    U8,
}

/// Name, type and shape of an engine's input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name in the graph.
    pub name: String,
    /// Type of the elements.
    pub data_type: DataType,
    /// Dimensions; `None` where they vary from call to call.
    pub shape: Vec<Option<usize>>,
}

/// Kinds of [`EngineError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineErrorKind {
    /// The model file is missing or not readable.
    Open,
    /// The model file is not a model that the backend understands.
    Load,
    /// An input is missing, unknown, or of the wrong type or shape.
    Input,
    /// The backend failed while it computed.
    Run,
}

/// An engine failed; says which one, at which tensor, and why.
#[derive(Debug, thiserror::Error)]
#[error("{} engine `{engine}`{}", match .kind {
    EngineErrorKind::Open => "open",
    EngineErrorKind::Load => "load",
    EngineErrorKind::Input => "feed",
    EngineErrorKind::Run => "run",
}, .tensor.as_ref().map(|t| format!(", tensor `{t}`")).unwrap_or_default())]
pub struct EngineError {
    kind: EngineErrorKind,
    engine: String,
    tensor: Option<String>,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl EngineError {
    /// An error of `kind` in `engine`.
    pub fn new(
        kind: EngineErrorKind,
        engine: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { kind, engine: engine.into(), tensor: None, source: source.into() }
    }

    /// Names the tensor at fault.
    #[must_use]
    pub fn at_tensor(mut self, tensor: impl Into<String>) -> Self {
        self.tensor = Some(tensor.into());
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> EngineErrorKind {
        self.kind
    }

    /// The tensor at fault, where one is.
    pub fn tensor(&self) -> Option<&str> {
        self.tensor.as_deref()
    }
}

/// A loaded model: named tensors in, named tensors out, dynamic shapes.
///
/// Not `Sync`: one thread owns an engine.
pub trait Engine: Send {
    /// The engine's name, as logs and errors show it.
    fn name(&self) -> &str;

    /// What it takes.
    fn inputs(&self) -> &[TensorInfo];

    /// What it can give.
    fn outputs(&self) -> &[TensorInfo];

    /// Runs the model and returns the tensors named in `outputs`, in that order.
    ///
    /// # Errors
    /// [`EngineErrorKind::Input`] for a missing, unknown or misshapen input; [`EngineErrorKind::Run`] otherwise.
    fn run(&mut self, inputs: Vec<(&str, Tensor<'_>)>, outputs: &[&str]) -> Result<Vec<Tensor<'static>>, EngineError>;

    /// The cache of an empty conversation; `None` where the engine keeps none, and is given all of it with every run.
    fn empty_cache(&mut self) -> Option<Box<dyn Resident>> {
        None
    }

    /// As [`run`](Self::run) of a decoder, behind a conversation that [`empty_cache`](Self::empty_cache) or an earlier
    /// call gave: `inputs` are without the cache, and what comes back beside `outputs` is the longer one.
    ///
    /// # Errors
    /// As [`run`](Self::run); also for a cache of another engine.
    fn run_resident(
        &mut self,
        inputs: Vec<(&str, Tensor<'_>)>,
        cache: &dyn Resident,
        outputs: &[&str],
    ) -> Result<(Vec<Tensor<'static>>, Box<dyn Resident>), EngineError> {
        let _ = (inputs, cache, outputs);
        Err(EngineError::new(EngineErrorKind::Input, self.name(), "the engine keeps no caches"))
    }

    /// Whether [`run_held`](Self::run_held) can be called: the engine computes elsewhere than on the host.
    fn can_hold(&self) -> bool {
        false
    }

    /// As [`run`](Self::run); the outputs stay where the engine computes, and as they are whatever it runs after that.
    ///
    /// # Errors
    /// As [`run`](Self::run); also for an engine that [cannot](Self::can_hold).
    fn run_held(&mut self, inputs: Vec<(&str, Tensor<'_>)>, outputs: &[&str]) -> Result<Box<dyn Held>, EngineError> {
        let _ = (inputs, outputs);
        Err(EngineError::new(EngineErrorKind::Input, self.name(), "the engine holds no outputs"))
    }

    /// As [`run`](Self::run) with what `held` holds as inputs of those names too. They do not pass the host where this
    /// engine can read the memory that they are in.
    ///
    /// # Errors
    /// As [`run`](Self::run); also where they cannot be had.
    fn run_with(
        &mut self,
        held: &dyn Held,
        inputs: Vec<(&str, Tensor<'_>)>,
        outputs: &[&str],
    ) -> Result<Vec<Tensor<'static>>, EngineError> {
        self.run(with_fetched(held, inputs)?, outputs)
    }
}

/// `inputs`, and what `held` holds, which is fetched.
fn with_fetched<'a>(
    held: &'a dyn Held,
    mut inputs: Vec<(&'a str, Tensor<'a>)>,
) -> Result<Vec<(&'a str, Tensor<'a>)>, EngineError> {
    let names = held.infos().iter().map(|info| info.name.as_str());
    inputs.extend(names.zip(held.fetch()?));
    Ok(inputs)
}
