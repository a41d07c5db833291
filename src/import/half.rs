//! A graph with its matrix products in 16-bit floats and everything else in 32.
//!
//! A strongly typed engine computes in the types that the graph says, so precision is decided here. Only products,
//! convolutions and attention are narrowed, between casts: they are where the time goes. Normalisation, softmax and the
//! residual sum keep their 32 bits, as their sums and squares leave the range of 16 (known from EfficientViT-SAM); so do
//! inputs and outputs, but for a cache that is updated in place: it is as wide as what reads it. The backend fuses the
//! casts with their neighbours and folds those of weights.

use std::collections::{HashMap, HashSet};

use super::onnx::attribute_proto::AttributeType;
use super::onnx::tensor_proto::DataType;
use super::onnx::{AttributeProto, GraphProto, ModelProto, NodeProto, type_proto};

/// Operators that are narrowed; all their inputs are floats.
const PRODUCTS: [&str; 5] = ["MatMul", "Gemm", "Conv", "ConvTranspose", "Attention"];

/// Operators that hand the elements of their first input on, whatever their type.
const CARRIERS: [&str; 4] = ["Transpose", "Reshape", "Slice", "Unsqueeze"];

/// Narrows the products of a built graph.
pub(super) fn halve(model: &mut ModelProto) {
    let Some(graph) = &mut model.graph else { return };
    let outputs: HashSet<String> = graph.output.iter().map(|output| output.name.clone()).collect();
    let mut halves = Halves { narrow: HashMap::new(), widened: HashSet::new(), outputs, nodes: Vec::new() };
    for tensor in graph.initializer.iter().filter(|tensor| tensor.data_type == DataType::Float16 as i32) {
        halves.narrow.insert(tensor.name.clone(), tensor.name.clone());
    }
    for node in std::mem::take(&mut graph.node) {
        match node.op_type.as_str() {
            "TensorScatter" => halves.hold(node, graph),
            op if PRODUCTS.contains(&op) => halves.halve(node),
            op if CARRIERS.contains(&op) => halves.carry(node),
            _ => halves.keep(node),
        }
    }
    graph.node = without_unread_casts(halves.nodes, &halves.outputs);
}

/// What is known of a graph's values while its nodes pass by.
struct Halves {
    /// The 16-bit value of the same elements; its own name for one that has 16 bits itself.
    narrow: HashMap<String, String>,
    /// Values of 16 bits that have a copy of 32.
    widened: HashSet<String>,
    outputs: HashSet<String>,
    nodes: Vec<NodeProto>,
}

impl Halves {
    fn is_half(&self, value: &str) -> bool {
        self.narrow.get(value).is_some_and(|narrow| narrow == value)
    }

    /// The 16-bit value of `value`'s elements, cast where there is none yet.
    fn narrow(&mut self, value: &str) -> String {
        if let Some(narrow) = self.narrow.get(value) {
            return narrow.clone();
        }
        let narrow = format!("{value}/f16");
        self.nodes.push(cast(value, &narrow, DataType::Float16));
        self.narrow.insert(value.to_owned(), narrow.clone());
        narrow
    }

    /// A product, with casts around it.
    fn halve(&mut self, mut node: NodeProto) {
        for input in node.input.iter_mut().filter(|input| !input.is_empty()) {
            *input = self.narrow(input);
        }
        let wide = std::mem::take(&mut node.output);
        node.output = wide.iter().map(|output| format!("{output}/product")).collect();
        self.nodes.push(node);
        for wide in wide {
            let narrow = format!("{wide}/product");
            self.nodes.push(cast(&narrow, &wide, DataType::Float));
            self.narrow.insert(wide, narrow);
        }
    }

    /// A node that hands elements on: of 16 bits where they come as such.
    fn carry(&mut self, mut node: NodeProto) {
        let (from, to) = (node.input[0].clone(), node.output[0].clone());
        match self.narrow.get(&from).cloned() {
            Some(narrow) if narrow == from => {
                self.narrow.insert(to.clone(), to);
                self.nodes.push(node);
            }
            Some(narrow) => {
                let carried = format!("{to}/f16");
                node.input[0] = narrow;
                node.output[0].clone_from(&carried);
                self.nodes.push(node);
                self.nodes.push(cast(&carried, &to, DataType::Float));
                self.narrow.insert(to, carried);
            }
            None => self.nodes.push(node),
        }
    }

    /// A cache that is updated in place: of 16 bits, itself and what is written into it.
    fn hold(&mut self, mut node: NodeProto, graph: &mut GraphProto) {
        let [cache, update] = [0, 1].map(|i| node.input[i].clone());
        node.input[1] = self.narrow(&update);
        for name in [cache, node.output[0].clone()] {
            let infos = graph.input.iter_mut().chain(&mut graph.output).filter(|info| info.name == name);
            for of in infos.filter_map(|info| info.r#type.as_mut()) {
                if let Some(type_proto::Value::TensorType(tensor)) = &mut of.value {
                    tensor.elem_type = DataType::Float16 as i32;
                }
            }
            self.narrow.insert(name.clone(), name);
        }
        self.nodes.push(node);
    }

    /// A node that stays as it is: what it reads has 32 bits, but where it casts or dequantises.
    fn keep(&mut self, mut node: NodeProto) {
        match node.op_type.as_str() {
            "DequantizeLinear" => {
                if node.input.get(1).is_some_and(|scales| self.is_half(scales)) {
                    self.narrow.insert(node.output[0].clone(), node.output[0].clone());
                }
            }
            "Cast" => {
                let to_float = node.attribute.iter().any(|a| a.name == "to" && a.i == DataType::Float as i64);
                if to_float && self.is_half(&node.input[0]) {
                    self.narrow.insert(node.output[0].clone(), node.input[0].clone());
                }
            }
            _ => {
                for input in &mut node.input {
                    if self.is_half(input) {
                        let wide = format!("{input}/f32");
                        if self.widened.insert(input.clone()) {
                            self.nodes.push(cast(input, &wide, DataType::Float));
                        }
                        *input = wide;
                    }
                }
            }
        }
        self.nodes.push(node);
    }
}

/// The nodes but for casts that nobody reads any more.
fn without_unread_casts(nodes: Vec<NodeProto>, outputs: &HashSet<String>) -> Vec<NodeProto> {
    let read: HashSet<String> = nodes.iter().flat_map(|node| node.input.iter().cloned()).collect();
    let is_read = |node: &NodeProto| node.output.iter().any(|name| read.contains(name) || outputs.contains(name));
    nodes.into_iter().filter(|node| node.op_type != "Cast" || is_read(node)).collect()
}

fn cast(from: &str, to: &str, data_type: DataType) -> NodeProto {
    NodeProto {
        input: vec![from.to_owned()],
        output: vec![to.to_owned()],
        name: format!("{to}/cast"),
        op_type: "Cast".to_owned(),
        attribute: vec![integer("to", data_type as i64)],
    }
}

fn integer(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), i: value, r#type: AttributeType::Int as i32, ..AttributeProto::default() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::onnx::{TensorProto, TypeProto, ValueInfoProto};
    use super::*;

    fn node(op: &str, input: &[&str], output: &str) -> NodeProto {
        NodeProto {
            input: input.iter().map(|&name| name.to_owned()).collect(),
            output: vec![output.to_owned()],
            name: format!("{output}_node"),
            op_type: op.to_owned(),
            attribute: Vec::new(),
        }
    }

    fn lines(model: &ModelProto) -> Vec<String> {
        let nodes = model.graph.iter().flat_map(|graph| &graph.node);
        nodes.map(|n| format!("{}({}) -> {}", n.op_type, n.input.join(", "), n.output[0])).collect()
    }

    #[test]
    fn only_products_are_narrowed_and_values_keep_their_names() {
        let node = [node("Softmax", &["x"], "s"), node("MatMul", &["s", "w"], "y"), node("MatMul", &["s", "v"], "z")];
        let graph = GraphProto { node: node.to_vec(), output: ["y", "z"].map(info).to_vec(), ..GraphProto::default() };
        let mut model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        halve(&mut model);
        assert_eq!(
            lines(&model),
            [
                "Softmax(x) -> s",
                "Cast(s) -> s/f16",
                "Cast(w) -> w/f16",
                "MatMul(s/f16, w/f16) -> y/product",
                "Cast(y/product) -> y",
                "Cast(v) -> v/f16",
                "MatMul(s/f16, v/f16) -> z/product",
                "Cast(z/product) -> z",
            ]
        );
        let nodes = model.graph.unwrap().node;
        assert_eq!(nodes[1].attribute[0].i, 10);
        assert_eq!(nodes[4].attribute[0].i, 1);
    }

    fn info(name: &str) -> ValueInfoProto {
        let tensor = type_proto::Tensor { elem_type: DataType::Float as i32, shape: None };
        let of = TypeProto { value: Some(type_proto::Value::TensorType(tensor)) };
        ValueInfoProto { name: name.to_owned(), r#type: Some(of) }
    }

    /// Weights that have 16 bits are read as they are, and so is a cache that is updated in place.
    #[test]
    fn what_has_16_bits_is_not_cast_there_and_back() {
        let mut to_float = node("Cast", &["w"], "w32");
        to_float.attribute = vec![integer("to", DataType::Float as i64)];
        let node = [
            to_float,
            node("Transpose", &["w32"], "t"),
            node("MatMul", &["x", "t"], "k"),
            node("TensorScatter", &["past", "k", "at"], "present"),
            node("Slice", &["present", "from", "to"], "keys"),
            node("Attention", &["q", "keys", "keys"], "y"),
            node("Neg", &["keys"], "n"),
        ];
        let weight = TensorProto { name: "w".into(), data_type: DataType::Float16 as i32, ..TensorProto::default() };
        let graph = GraphProto {
            node: node.to_vec(),
            initializer: vec![weight],
            input: ["x", "past"].map(info).to_vec(),
            output: ["present", "y", "n"].map(info).to_vec(),
            ..GraphProto::default()
        };
        let mut model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        halve(&mut model);
        assert_eq!(
            lines(&model),
            [
                "Transpose(w) -> t/f16",
                "Cast(x) -> x/f16",
                "MatMul(x/f16, t/f16) -> k/product",
                "TensorScatter(past, k/product, at) -> present",
                "Slice(present, from, to) -> keys",
                "Cast(q) -> q/f16",
                "Attention(q/f16, keys, keys) -> y/product",
                "Cast(y/product) -> y",
                "Cast(keys) -> keys/f32",
                "Neg(keys/f32) -> n",
            ]
        );
        let graph = model.graph.unwrap();
        let element = |info: &ValueInfoProto| match info.r#type.as_ref().and_then(|of| of.value.as_ref()) {
            Some(type_proto::Value::TensorType(tensor)) => tensor.elem_type,
            None => 0,
        };
        assert_eq!(graph.input.iter().map(element).collect::<Vec<_>>(), [1, 10]);
        assert_eq!(graph.output.iter().map(element).collect::<Vec<_>>(), [10, 1, 1]);
    }
}
