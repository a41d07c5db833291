//! Why TensorRT could not do what was asked.

use std::fmt;
use std::path::Path;

/// Kinds of [`TensorRtError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorRtErrorKind {
    /// The libraries are not where they are looked for, or cannot be loaded.
    Library,
    /// The libraries are of another version than the headers that this binary was compiled against.
    Version,
    /// There is no GPU that the driver knows, or no driver.
    Driver,
    /// Plans cannot be built for the device that was named.
    Device,
    /// The ONNX parser does not take a graph.
    Parse,
    /// A dimension varies and nobody said how far.
    Shapes,
    /// The builder gives no plan.
    Build,
    /// A plan, or what is written beside it, is not whole.
    Plan,
    /// A plan was built by another version, for another GPU, from another graph or with other options.
    Foreign,
    /// A file of the plan cache cannot be read or written.
    Cache,
    /// An engine or a context refuses what is asked of it.
    Run,
    /// The GPU, or the host for it, has too little memory left.
    Memory,
}

/// A node that the ONNX parser does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeFault {
    /// Place in the graph, from 0; `None` where no node is at fault.
    pub index: Option<usize>,
    /// The node's name; empty where it has none.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// What the parser says.
    pub text: String,
    /// The parser's `ErrorCode`.
    pub code: i32,
}

impl fmt::Display for NodeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            Some(index) => write!(f, "node {index} `{}` ({}): {}", self.name, self.op, self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// TensorRT, its libraries or its plans failed; says at what, and why.
#[derive(Debug, thiserror::Error)]
#[error("{} {subject}: {why}", match .kind {
    TensorRtErrorKind::Library => "load",
    TensorRtErrorKind::Version => "match version of",
    TensorRtErrorKind::Driver => "find",
    TensorRtErrorKind::Device => "build for",
    TensorRtErrorKind::Parse => "parse",
    TensorRtErrorKind::Shapes => "bound shapes of",
    TensorRtErrorKind::Build => "build",
    TensorRtErrorKind::Plan => "read",
    TensorRtErrorKind::Foreign => "accept",
    TensorRtErrorKind::Cache => "use",
    TensorRtErrorKind::Run => "use",
    TensorRtErrorKind::Memory => "allocate on",
})]
pub struct TensorRtError {
    kind: TensorRtErrorKind,
    subject: String,
    why: String,
    nodes: Vec<NodeFault>,
}

impl TensorRtError {
    /// An error of `kind` about `subject`.
    pub(super) fn new(kind: TensorRtErrorKind, subject: impl Into<String>, why: impl Into<String>) -> Self {
        Self { kind, subject: subject.into(), why: why.into(), nodes: Vec::new() }
    }

    /// A graph that the parser does not take, with all that it said.
    pub(super) fn parse(graph: &str, nodes: Vec<NodeFault>) -> Self {
        let why = match nodes.as_slice() {
            [] => "the parser gives no reason".to_owned(),
            nodes => nodes.iter().map(NodeFault::to_string).collect::<Vec<_>>().join("; "),
        };
        Self { nodes, ..Self::new(TensorRtErrorKind::Parse, format!("graph `{graph}`"), why) }
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(path: &Path, why: std::io::Error) -> Self {
        Self::new(TensorRtErrorKind::Cache, format!("`{}`", path.display()), why.to_string())
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> TensorRtErrorKind {
        self.kind
    }

    /// The nodes that the parser does not take, in its order.
    pub fn nodes(&self) -> &[NodeFault] {
        &self.nodes
    }
}
