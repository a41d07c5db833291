//! A graph with its matrix products in 16-bit floats and everything else in 32.
//!
//! A strongly typed engine computes in the types that the graph says, so precision is decided here. Only products and
//! convolutions are narrowed, between casts: they are where the time goes. Normalisation, softmax and the residual sum
//! keep their 32 bits, as their sums and squares leave the range of 16 (known from EfficientViT-SAM); so do inputs and
//! outputs. The backend fuses the casts with their neighbours and folds those of weights.

use std::collections::HashSet;

use prost::Message;

use super::error::{ImportError, ImportErrorKind as Kind};
use super::onnx::attribute_proto::AttributeType;
use super::onnx::tensor_proto::DataType;
use super::onnx::{AttributeProto, ModelProto, NodeProto};

/// Operators that are narrowed; all their inputs are floats.
const PRODUCTS: [&str; 4] = ["MatMul", "Gemm", "Conv", "ConvTranspose"];

/// Narrows the products of `onnx`, a graph that [`import`](super::import) wrote.
///
/// # Errors
/// [`ImportErrorKind::Corrupt`](Kind::Corrupt) for bytes that are not a graph.
pub fn halve_products(onnx: &[u8]) -> Result<Vec<u8>, ImportError> {
    let mut model = ModelProto::decode(onnx).map_err(|e| ImportError::new(Kind::Corrupt, "graph").because(e))?;
    if let Some(graph) = &mut model.graph {
        let mut narrowed = HashSet::new();
        let nodes = std::mem::take(&mut graph.node);
        graph.node = nodes.into_iter().flat_map(|node| halve(node, &mut narrowed)).collect();
    }
    Ok(model.encode_to_vec())
}

/// The node, with casts around it where it is a product. `narrowed` holds the values that have a narrow copy already.
fn halve(mut node: NodeProto, narrowed: &mut HashSet<String>) -> Vec<NodeProto> {
    if !PRODUCTS.contains(&node.op_type.as_str()) {
        return vec![node];
    }
    let mut nodes = Vec::new();
    for input in node.input.iter_mut().filter(|input| !input.is_empty()) {
        let narrow = format!("{input}/f16");
        if narrowed.insert(input.clone()) {
            nodes.push(cast(input, &narrow, DataType::Float16));
        }
        *input = narrow;
    }
    let wide = std::mem::take(&mut node.output);
    node.output = wide.iter().map(|output| format!("{output}/product")).collect();
    let widened: Vec<_> = wide.iter().map(|wide| cast(&format!("{wide}/product"), wide, DataType::Float)).collect();
    nodes.push(node);
    nodes.extend(widened);
    nodes
}

fn cast(from: &str, to: &str, data_type: DataType) -> NodeProto {
    let attribute = AttributeProto {
        name: "to".to_owned(),
        i: data_type as i64,
        r#type: AttributeType::Int as i32,
        ..AttributeProto::default()
    };
    NodeProto {
        input: vec![from.to_owned()],
        output: vec![to.to_owned()],
        name: format!("{to}/cast"),
        op_type: "Cast".to_owned(),
        attribute: vec![attribute],
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::onnx::GraphProto;
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

    #[test]
    fn only_products_are_narrowed_and_values_keep_their_names() {
        let node = [node("Softmax", &["x"], "s"), node("MatMul", &["s", "w"], "y"), node("MatMul", &["s", "v"], "z")];
        let graph = GraphProto { node: node.to_vec(), ..GraphProto::default() };
        let model = ModelProto { graph: Some(graph), ..ModelProto::default() };
        let halved = ModelProto::decode(&*halve_products(&model.encode_to_vec()).unwrap()).unwrap();
        let nodes = halved.graph.unwrap().node;
        let lines = nodes.iter().map(|n| format!("{}({}) -> {}", n.op_type, n.input.join(", "), n.output[0]));
        assert_eq!(
            lines.collect::<Vec<_>>(),
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
        assert_eq!(nodes[1].attribute[0].i, 10);
        assert_eq!(nodes[4].attribute[0].i, 1);
    }

    #[test]
    fn noise_is_refused() {
        assert_eq!(halve_products(&[0xff; 40]).unwrap_err().kind(), Kind::Corrupt);
    }
}
