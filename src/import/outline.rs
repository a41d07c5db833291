//! What a checkpoint's graphs will take of memory, from its headers alone: nothing is written, no weights are read.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use super::error::ImportError;
use super::front::{Front, put_before};
use super::onnx::{GraphProto, ModelProto, NodeProto};
use super::shapes::{Known, infer};
use super::weights::Weights;
use super::{Adapter, Form, Port, build, open, port};

/// Operators whose result is another view of their first input's elements.
const VIEWS: [&str; 3] = ["Reshape", "Unsqueeze", "TensorScatter"];

/// Operators that may write over an input that nobody reads any more.
const IN_PLACE: [&str; 18] = [
    "Add",
    "Div",
    "Max",
    "Sub",
    "Mul",
    "Pow",
    "Where",
    "Relu",
    "Sigmoid",
    "Tanh",
    "Erf",
    "Sqrt",
    "Reciprocal",
    "Neg",
    "Softmax",
    "Sin",
    "Cos",
    "Cast",
];

/// A checkpoint's graphs as an import would write them.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outline {
    /// The checkpoint's class.
    pub class: String,
    /// The graphs, in the order in which they run.
    pub graphs: Vec<GraphOutline>,
}

/// One graph of an [`Outline`].
#[derive(Debug)]
pub struct GraphOutline {
    graph: GraphProto,
}

/// Reads a checkpoint's configuration and headers, and builds its graphs in memory.
///
/// # Errors
/// As [`import_adapted`](super::import_adapted), but for what only weights' values show.
pub fn outline(
    dir: impl AsRef<Path>,
    adapter: Option<Adapter<'_>>,
    form: impl Into<Form>,
) -> Result<Outline, ImportError> {
    let form = form.into();
    let (checkpoint, family, adapter) = open(dir.as_ref(), adapter)?;
    let mode = adapter.map(|report| report.mode).unwrap_or_default();
    let mut weights = Weights::new(&checkpoint, mode, form.precision, None);
    let models = build(&checkpoint, family, form, &mut weights)?;
    weights.finish()?;
    let graph = |model: ModelProto| GraphOutline { graph: model.graph.unwrap_or_default() };
    Ok(Outline { class: family.class().to_owned(), graphs: models.into_iter().map(graph).collect() })
}

/// Bytes of a graph's parts, for one choice of its sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct GraphBytes {
    /// Weights as an engine keeps them: cast and turned when it is loaded, quantised ones as they are.
    pub weights: u64,
    /// The most that values between input and output take at once, where each is let go after its last reader and
    /// elementwise operators write over what they read. What kernels need besides is not in it.
    pub activations: u64,
    /// What is handed in, but for caches of keys and values.
    pub inputs: u64,
    /// What comes out, but for such caches.
    pub outputs: u64,
    /// Caches of keys and values, as they come in.
    pub cache_in: u64,
    /// The same as they come out.
    pub cache_out: u64,
}

impl GraphOutline {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.graph.name
    }

    /// The same with `front` before it, as plans have it; as it is where it takes no picture.
    pub fn with_front(mut self, front: &Front) -> Self {
        // What is refused is left as it was.
        let _ = put_before(&mut self.graph, front);
        self
    }

    /// What it takes.
    pub fn inputs(&self) -> impl Iterator<Item = Port> + '_ {
        self.graph.input.iter().map(port)
    }

    /// What it gives.
    pub fn outputs(&self) -> impl Iterator<Item = Port> + '_ {
        self.graph.output.iter().map(port)
    }

    /// What its parts take where dimensions of a name have the size in `sizes`.
    ///
    /// # Errors
    /// [`ImportErrorKind::Unsupported`](super::ImportErrorKind::Unsupported) for a dimension without a size.
    pub fn bytes(&self, sizes: &BTreeMap<&str, u64>) -> Result<GraphBytes, ImportError> {
        let known = infer(&self.graph, sizes)?;
        let sum = |names: &mut dyn Iterator<Item = &String>| names.map(|name| known[name].bytes()).sum();
        let is_cache = |name: &&String| name.starts_with("past_") || name.starts_with("present_");
        let names_in = || self.graph.input.iter().map(|info| &info.name);
        let names_out = || self.graph.output.iter().map(|info| &info.name);
        let folded = Folded::of(&self.graph);
        Ok(GraphBytes {
            weights: folded.weights(&self.graph, &known),
            activations: activations(&self.graph, &known, &folded),
            inputs: sum(&mut names_in().filter(|name| !is_cache(name))),
            outputs: sum(&mut names_out().filter(|name| !is_cache(name))),
            cache_in: sum(&mut names_in().filter(is_cache)),
            cache_out: sum(&mut names_out().filter(is_cache)),
        })
    }
}

/// What does not hang on a graph's inputs.
struct Folded<'g> {
    /// Computed once, when the graph is loaded.
    constant: HashSet<&'g str>,
    /// Weights in few bits made wide by the kernel that reads them: never in memory.
    dequantised: HashSet<&'g str>,
}

impl<'g> Folded<'g> {
    fn of(graph: &'g GraphProto) -> Self {
        let constant = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
        let mut folded = Self { constant, dequantised: HashSet::new() };
        for node in &graph.node {
            let outputs = node.output.iter().map(String::as_str);
            let mut inputs = node.input.iter().filter(|name| !name.is_empty());
            if node.op_type == "DequantizeLinear"
                || folded.dequantised.contains(node.input[0].as_str()) && is_view_of_weight(node)
            {
                folded.dequantised.extend(outputs);
            } else if inputs.all(|name| folded.constant.contains(name.as_str())) {
                folded.constant.extend(outputs);
            }
        }
        folded
    }

    fn is_run(&self, node: &NodeProto) -> bool {
        let known = |name: &String| self.constant.contains(name.as_str()) || self.dequantised.contains(name.as_str());
        !node.output.iter().all(known)
    }

    /// The constants that something reads with every run.
    fn weights(&self, graph: &GraphProto, known: &HashMap<String, Known>) -> u64 {
        let reads = |node: &&NodeProto| node.op_type == "DequantizeLinear" || self.is_run(node);
        let names = graph.node.iter().filter(reads).flat_map(|node| &node.input);
        let read: HashSet<&String> = names.filter(|name| self.constant.contains(name.as_str())).collect();
        read.into_iter().map(|name| known[name].bytes()).sum()
    }
}

fn is_view_of_weight(node: &NodeProto) -> bool {
    matches!(node.op_type.as_str(), "Cast" | "Transpose" | "Reshape")
}

/// Values that are in memory while a graph runs.
struct Live<'g> {
    /// What each value's elements lie in: itself, or what it is a view of or has taken over.
    root: HashMap<&'g str, &'g str>,
    /// Readers of each root that are yet to come.
    readers: HashMap<&'g str, usize>,
    /// Bytes of the roots that are counted.
    bytes: HashMap<&'g str, u64>,
    now: u64,
    most: u64,
}

/// The most that values take at once.
fn activations<'g>(graph: &'g GraphProto, known: &HashMap<String, Known>, folded: &Folded<'g>) -> u64 {
    let mut live = Live { root: HashMap::new(), readers: HashMap::new(), bytes: HashMap::new(), now: 0, most: 0 };
    let nodes: Vec<&NodeProto> = graph.node.iter().filter(|node| folded.is_run(node)).collect();
    for name in nodes.iter().flat_map(|node| &node.input) {
        *live.readers.entry(name).or_default() += 1;
    }
    // They lie outside: their place is there before and after the run.
    let outside: HashSet<&str> = graph.input.iter().chain(&graph.output).map(|info| info.name.as_str()).collect();
    for node in nodes {
        live.run(node, known, &outside);
    }
    live.most
}

impl<'g> Live<'g> {
    fn run(&mut self, node: &'g NodeProto, known: &HashMap<String, Known>, outside: &HashSet<&str>) {
        for output in &node.output {
            let (name, bytes) = (output.as_str(), known[output].bytes());
            let view = VIEWS.contains(&node.op_type.as_str());
            match self.heir(node, bytes, view).filter(|_| !outside.contains(name)) {
                Some(root) => {
                    *self.readers.entry(root).or_default() += self.readers.get(name).copied().unwrap_or(0);
                    self.root.insert(name, root);
                }
                None if outside.contains(name) => {}
                None => {
                    self.bytes.insert(name, bytes);
                    self.now = self.now.saturating_add(bytes);
                }
            }
        }
        self.most = self.most.max(self.now);
        for input in &node.input {
            let root = self.root_of(input);
            let left = self.readers.entry(root).or_default();
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.now = self.now.saturating_sub(self.bytes.remove(root).unwrap_or(0));
            }
        }
        for output in &node.output {
            let name = output.as_str();
            if self.readers.get(name).is_none_or(|&readers| readers == 0) && !self.root.contains_key(name) {
                self.now = self.now.saturating_sub(self.bytes.remove(name).unwrap_or(0));
            }
        }
    }

    /// What a value's elements lie in.
    fn root_of(&self, name: &'g str) -> &'g str {
        self.root.get(name).copied().unwrap_or(name)
    }

    /// The value whose memory a node's output takes: what it is a view of, or what only this node reads yet.
    fn heir(&self, node: &'g NodeProto, bytes: u64, view: bool) -> Option<&'g str> {
        let root = |name: &'g String| self.root_of(name);
        if view {
            return node.input.first().map(root);
        }
        let in_place = IN_PLACE.contains(&node.op_type.as_str());
        let last = |root: &&'g str| {
            let uses = node.input.iter().filter(|name| self.root_of(name) == *root);
            self.readers.get(*root) == Some(&uses.count()) && self.bytes.get(*root).is_some_and(|&b| b >= bytes)
        };
        node.input.iter().map(root).find(last).filter(|_| in_place)
    }
}
