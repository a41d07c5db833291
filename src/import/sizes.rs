//! Named dimensions of a graph's inputs and outputs, set to one size.

use prost::Message;

use super::error::{ImportError, ImportErrorKind as Kind};
use super::onnx::tensor_shape_proto::dimension::Value;
use super::onnx::{ModelProto, type_proto};

/// Sets every dimension called `name` of the inputs and outputs of `onnx` to `size`. A cache that is updated in place
/// must have a fixed size in TensorRT, and how long conversations are is nobody's to say before a plan is built.
///
/// # Errors
/// [`ImportErrorKind::Corrupt`](Kind::Corrupt) for bytes that are not a graph.
pub fn fix_sizes(onnx: &[u8], name: &str, size: u32) -> Result<Vec<u8>, ImportError> {
    let mut model = ModelProto::decode(onnx).map_err(|e| ImportError::new(Kind::Corrupt, "graph").because(e))?;
    let graph = model.graph.iter_mut();
    let types =
        graph.flat_map(|graph| graph.input.iter_mut().chain(&mut graph.output)).filter_map(|i| i.r#type.as_mut());
    let shapes = types.filter_map(|of| match &mut of.value {
        Some(type_proto::Value::TensorType(tensor)) => tensor.shape.as_mut(),
        None => None,
    });
    for dim in shapes.flat_map(|shape| &mut shape.dim) {
        if dim.value == Some(Value::DimParam(name.to_owned())) {
            dim.value = Some(Value::DimValue(size.into()));
        }
    }
    Ok(model.encode_to_vec())
}
