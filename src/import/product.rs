//! A graph that multiplies two matrices, to find out how fast that is.

use prost::Message;

use super::form::{Form, Level};
use super::graph::{Dim, F16, value_info};
use super::onnx::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto};

/// `y = a · b`, all `f16[size, size]`.
pub fn half_product(size: usize) -> Vec<u8> {
    let form = Form::from(Level::Portable);
    let matrix = |name: &str| value_info::<F16>(name, &[Dim::Fixed(size), Dim::Fixed(size)]);
    let node = NodeProto {
        input: vec!["a".into(), "b".into()],
        output: vec!["y".into()],
        name: "product".into(),
        op_type: "MatMul".into(),
        attribute: Vec::new(),
    };
    let graph = GraphProto {
        node: vec![node],
        name: "product".into(),
        initializer: Vec::new(),
        input: vec![matrix("a"), matrix("b")],
        output: vec![matrix("y")],
    };
    let model = ModelProto {
        ir_version: form.ir_version(),
        producer_name: env!("CARGO_PKG_NAME").to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: form.opset() }],
        metadata_props: Vec::new(),
    };
    model.encode_to_vec()
}
