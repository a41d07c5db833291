//! Graphs in, plans out.

use std::marker::PhantomData;
use std::ops::Deref;
use std::path::Path;
use std::ptr::{self, NonNull};

use super::super::error::{NodeFault, TensorRtError, TensorRtErrorKind as Kind};
use super::super::result::{self, Refused, c_path, made};
use super::super::sys;
use super::config::{BuildOptions, Config};
use super::library::Library;
use super::recorder::Recorder;

/// Builds plans from ONNX graphs; on a machine without a GPU too, where a compute capability is named
/// ([`BuildOptions::sm`]).
#[derive(Debug)]
pub struct Builder {
    raw: NonNull<sys::Builder>,
    library: Library,
    /// After `raw`: the builder reports to it until it is gone.
    recorder: Recorder,
}

// SAFETY: a builder is bound to no thread, only to one at a time, which `!Sync` keeps.
unsafe impl Send for Builder {}

impl Builder {
    /// A builder of the libraries.
    ///
    /// # Errors
    /// [`Kind::Build`] where TensorRT makes none; its log says why.
    pub fn new(library: Library) -> Result<Self, TensorRtError> {
        let recorder = Recorder::new();
        // SAFETY: the table holds a function of the libraries, whose version `Library` has checked; the recorder goes
        // after the builder.
        let raw = made(unsafe { sys::trt_builder_new(library.as_ptr(), recorder.as_ptr()) })
            .map_err(|Refused| recorder.error(Kind::Build, "a builder"))?;
        Ok(Self { raw, library, recorder })
    }

    /// Sets how many threads a build uses. Default: 1. Range: 1 and up.
    ///
    /// # Errors
    /// [`Kind::Build`] for a number that TensorRT does not take.
    pub fn set_threads(&mut self, threads: u32) -> Result<(), TensorRtError> {
        let number = i32::try_from(threads).unwrap_or(i32::MAX);
        // SAFETY: the builder lives, and is used by this thread alone.
        result::done(unsafe { sys::trt_builder_threads(self.raw.as_ptr(), number) })
            .map_err(|Refused| self.error(Kind::Build, format!("with {threads} threads")))
    }

    /// Parses `onnx`, a graph called `graph` in messages, into a strongly typed network: every type is the graph's.
    /// Weights outside the graph are looked for beside `path`.
    ///
    /// # Errors
    /// [`Kind::Parse`] with every node that the parser does not take.
    pub fn parse(&self, graph: &str, onnx: &[u8], path: Option<&Path>) -> Result<Network<'_>, TensorRtError> {
        // SAFETY: the builder lives, and is used by this thread alone.
        let network = made(unsafe { sys::trt_network_new(self.raw.as_ptr()) });
        let network = network.map_err(|Refused| self.error(Kind::Build, "a network"))?;
        let mut network = Network { raw: network, parser: None, name: graph.to_owned(), builder: self };
        // SAFETY: the network lives until after the parser's last use of it.
        let parser = made(unsafe { sys::trt_parser_new(self.library.as_ptr(), network.raw.as_ptr()) });
        let parser = parser.map_err(|Refused| self.error(Kind::Build, "an ONNX parser"))?;
        network.parser = Some(parser);
        let path = path.map(c_path).transpose();
        let path = path.map_err(|Refused| TensorRtError::new(Kind::Parse, graph, "its path has a zero byte"))?;
        let beside = path.as_ref().map_or(ptr::null(), |path| path.as_ptr());
        // SAFETY: bytes and path outlive the call, after which the parser has no use for them; the network is the
        // parser's, and lives.
        let taken =
            unsafe { sys::trt_parser_parse(parser.as_ptr(), network.raw.as_ptr(), onnx.as_ptr(), onnx.len(), beside) };
        if taken { Ok(network) } else { Err(TensorRtError::parse(graph, network.faults())) }
    }

    /// What the plans are to be like.
    ///
    /// # Errors
    /// [`Kind::Device`] for a compute capability that the libraries do not build for.
    pub fn config(&self, options: &BuildOptions) -> Result<Config<'_>, TensorRtError> {
        Config::new(self, options)
    }

    pub(super) fn as_ptr(&self) -> *mut sys::Builder {
        self.raw.as_ptr()
    }

    /// The libraries that it is of.
    pub fn library(&self) -> Library {
        self.library
    }

    pub(super) fn error(&self, kind: Kind, subject: impl Into<String>) -> TensorRtError {
        self.recorder.error(kind, subject)
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        // SAFETY: whatever was made from the builder borrows it, and is gone.
        unsafe { sys::trt_builder_free(self.raw.as_ptr()) };
    }
}

/// An input of a [`Network`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Input {
    /// Its name.
    pub name: String,
    /// Its dimensions, outermost first.
    pub dims: Vec<Dimension>,
}

/// A dimension of a network's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dimension {
    /// Always the same.
    Fixed(i64),
    /// Varies; dimensions of one name are equal in one call. The name is empty where the graph has none.
    Named(String),
}

/// A parsed graph.
#[derive(Debug)]
pub struct Network<'b> {
    raw: NonNull<sys::Network>,
    /// Holds the weights that the network refers to.
    parser: Option<NonNull<sys::Parser>>,
    name: String,
    builder: &'b Builder,
}

impl<'b> Network<'b> {
    /// Number of layers before TensorRT fuses them.
    pub fn layers(&self) -> usize {
        // SAFETY: the network lives.
        usize::try_from(unsafe { sys::trt_network_layers(self.raw.as_ptr()) }).unwrap_or(0)
    }

    /// What the graph takes.
    pub fn inputs(&self) -> Vec<Input> {
        // SAFETY: the network lives.
        let count = unsafe { sys::trt_network_inputs(self.raw.as_ptr()) };
        (0..count).filter_map(|index| self.input(index)).collect()
    }

    fn input(&self, index: i32) -> Option<Input> {
        let mut tensor = sys::Tensor { data_type: 0, mode: 0, rank: 0, dims: [0; sys::MAX_DIMS] };
        // SAFETY: the network lives, and the index is below the number of inputs.
        let name = unsafe { sys::trt_network_input(self.raw.as_ptr(), index, &mut tensor) };
        if name.is_null() {
            return None;
        }
        let dimension = |(axis, &size): (i32, &i64)| match size {
            // SAFETY: the network lives; the axis is below the rank.
            -1 => unsafe { Dimension::Named(result::text(sys::trt_network_input_dim(self.raw.as_ptr(), index, axis))) },
            size => Dimension::Fixed(size),
        };
        let dims = (0..).zip(result::dims(&tensor.dims, tensor.rank)?).map(dimension).collect();
        // SAFETY: the name lives as long as the network.
        Some(Input { name: unsafe { result::text(name) }, dims })
    }

    /// Builds the plan. Takes seconds to many minutes.
    ///
    /// # Errors
    /// [`Kind::Build`] with what TensorRT reported; also for a configuration of another builder.
    pub fn build(&mut self, config: &mut Config<'b>) -> Result<Serialized<'b>, TensorRtError> {
        let subject = format!("a plan of graph `{}`", self.name);
        if !ptr::eq(self.builder, config.builder()) {
            return Err(TensorRtError::new(Kind::Build, subject, "the configuration is another builder's"));
        }
        // SAFETY: all three live, and belong together; this thread alone uses them, as none is `Sync`.
        let plan = unsafe { sys::trt_build(self.builder.as_ptr(), self.raw.as_ptr(), config.as_ptr()) };
        let plan = made(plan).map_err(|Refused| match config.is_cancelled() {
            true => TensorRtError::new(Kind::Build, subject.as_str(), "was cancelled"),
            false => self.builder.error(Kind::Build, subject.as_str()),
        })?;
        Ok(Serialized { raw: plan, builder: PhantomData })
    }

    /// What the parser said, node by node.
    fn faults(&self) -> Vec<NodeFault> {
        let Some(parser) = self.parser else { return Vec::new() };
        // SAFETY: the parser lives, and the indices are below the number of its errors.
        let count = unsafe { sys::trt_parser_errors(parser.as_ptr()) };
        let fault = |index| {
            let null = ptr::null();
            let mut error = sys::ParserError { code: 0, node: -1, text: null, name: null, op: null };
            // SAFETY: as above; the texts live as long as the parser.
            unsafe {
                sys::trt_parser_error(parser.as_ptr(), index, &mut error);
                NodeFault {
                    index: usize::try_from(error.node).ok(),
                    name: result::text(error.name),
                    op: result::text(error.op),
                    text: result::text(error.text),
                    code: error.code,
                }
            }
        };
        (0..count).map(fault).collect()
    }
}

impl Drop for Network<'_> {
    fn drop(&mut self) {
        // SAFETY: both live, and nothing refers to them: plans have bytes of their own. The parser goes first: its end
        // reaches into the network (freed the other way round, RTX 1.7 crashes), while the network's does not look at
        // the weights that are the parser's.
        unsafe {
            if let Some(parser) = self.parser {
                sys::trt_parser_free(parser.as_ptr());
            }
            sys::trt_network_free(self.raw.as_ptr());
        }
    }
}

/// A plan, or a timing cache, in TensorRT's memory; read as a slice of bytes.
#[derive(Debug)]
pub struct Serialized<'b> {
    raw: NonNull<sys::Memory>,
    builder: PhantomData<&'b Builder>,
}

impl<'b> Serialized<'b> {
    /// # Safety
    /// `raw` must be owned by nobody else, and live as long as what `'b` borrows.
    pub(super) unsafe fn new(raw: NonNull<sys::Memory>) -> Self {
        Self { raw, builder: PhantomData }
    }
}

impl Deref for Serialized<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the block lives as long as `self`.
        unsafe { result::bytes(self.raw) }
    }
}

impl Drop for Serialized<'_> {
    fn drop(&mut self) {
        // SAFETY: slices of it borrow `self`, and are gone.
        unsafe { sys::trt_memory_free(self.raw.as_ptr()) };
    }
}
