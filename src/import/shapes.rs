//! Types and shapes of a graph's values, for one choice of its named dimensions.
//!
//! Knows the operators that the families write and no others. What a shape hangs on (`Shape`, constants of integers) is
//! computed; nothing else is.

use std::collections::{BTreeMap, HashMap};

use super::error::{ImportError, ImportErrorKind as Kind};
use super::onnx::tensor_proto::DataType;
use super::onnx::tensor_shape_proto::dimension;
use super::onnx::{GraphProto, NodeProto, TensorProto, ValueInfoProto, type_proto};

/// Type, dimensions and, of integers that shapes hang on, contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub data_type: DataType,
    pub dims: Vec<u64>,
    contents: Option<Vec<i64>>,
}

impl Known {
    fn new(data_type: DataType, dims: Vec<u64>) -> Self {
        Self { data_type, dims, contents: None }
    }

    /// Number of elements.
    pub(super) fn elements(&self) -> u64 {
        self.dims.iter().fold(1, |product: u64, &size| product.saturating_mul(size))
    }

    /// What it takes, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        let elements = self.elements();
        match self.data_type {
            DataType::Int4 => elements.div_ceil(2),
            DataType::Int8 | DataType::Uint8 | DataType::Bool => elements,
            DataType::Float16 | DataType::Bfloat16 => elements.saturating_mul(2),
            DataType::Int64 => elements.saturating_mul(8),
            DataType::Undefined | DataType::Float | DataType::Int32 => elements.saturating_mul(4),
        }
    }
}

/// All values of `graph` where dimensions called by a name have the size in `sizes`.
///
/// # Errors
/// [`Kind::Unsupported`] for a dimension without a size and for an operator that is not known, with its name.
pub(super) fn infer(graph: &GraphProto, sizes: &BTreeMap<&str, u64>) -> Result<HashMap<String, Known>, ImportError> {
    let mut values = HashMap::new();
    for tensor in &graph.initializer {
        values.insert(tensor.name.clone(), constant(tensor));
    }
    for info in &graph.input {
        values.insert(info.name.clone(), input(info, sizes).ok_or_else(|| refuse(graph, &info.name))?);
    }
    for node in &graph.node {
        let outputs = outputs(node, &values).ok_or_else(|| refuse(graph, &node.name))?;
        values.extend(node.output.iter().cloned().zip(outputs));
    }
    Ok(values)
}

fn refuse(graph: &GraphProto, item: &str) -> ImportError {
    ImportError::new(Kind::Unsupported, format!("{}.onnx", graph.name)).at(item).because("its shape cannot be told")
}

fn constant(tensor: &TensorProto) -> Known {
    let data_type = DataType::try_from(tensor.data_type).unwrap_or_default();
    let contents = match data_type {
        DataType::Int64 => Some(tensor.raw_data.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect()),
        _ => None,
    };
    let dims = tensor.dims.iter().map(|&size| size.max(0) as u64).collect();
    Known { data_type, dims, contents }
}

fn input(info: &ValueInfoProto, sizes: &BTreeMap<&str, u64>) -> Option<Known> {
    let type_proto::Value::TensorType(tensor) = info.r#type.as_ref()?.value.as_ref()?;
    let size = |value: &Option<dimension::Value>| match value.as_ref()? {
        dimension::Value::DimValue(size) => u64::try_from(*size).ok(),
        dimension::Value::DimParam(name) => sizes.get(name.as_str()).copied(),
    };
    let dims = tensor.shape.as_ref()?.dim.iter().map(|dim| size(&dim.value)).collect::<Option<_>>()?;
    Some(Known::new(DataType::try_from(tensor.elem_type).ok()?, dims))
}

/// What a node gives; `None` where that cannot be told.
fn outputs(node: &NodeProto, values: &HashMap<String, Known>) -> Option<Vec<Known>> {
    let input = |index: usize| node.input.get(index).and_then(|name| values.get(name));
    let first = input(0)?;
    let of = |dims: Vec<u64>| Some(vec![Known::new(first.data_type, dims)]);
    match node.op_type.as_str() {
        "Relu" | "Sigmoid" | "Tanh" | "Erf" | "Sqrt" | "Reciprocal" | "Sin" | "Cos" | "Neg" | "Softmax"
        | "LayerNormalization" | "RMSNormalization" | "RotaryEmbedding" | "TensorScatter" => of(first.dims.clone()),
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" => of(broadcast(&first.dims, &input(1)?.dims)?),
        "Equal" | "Less" => Some(vec![Known::new(DataType::Bool, broadcast(&first.dims, &input(1)?.dims)?)]),
        "Where" => {
            let dims = broadcast(&broadcast(&first.dims, &input(1)?.dims)?, &input(2)?.dims)?;
            Some(vec![Known::new(input(1)?.data_type, dims)])
        }
        "Cast" => {
            let data_type = DataType::try_from(i32::try_from(integer(node, "to")?).ok()?).ok()?;
            Some(vec![Known::new(data_type, first.dims.clone())])
        }
        "DequantizeLinear" => Some(vec![Known::new(input(1)?.data_type, first.dims.clone())]),
        "MatMul" => of(product(&first.dims, &input(1)?.dims)?),
        "Attention" => {
            let (width, mut dims) = (*input(2)?.dims.last()?, first.dims.clone());
            *dims.last_mut()? = width;
            of(dims)
        }
        "Conv" => of(convolution(node, &first.dims, &input(1)?.dims)?),
        "ReduceMean" => {
            let mut dims = first.dims.clone();
            *dims.last_mut()? = 1;
            of(dims)
        }
        _ => moved(node, values),
    }
}

/// The same of an operator that only moves elements.
fn moved(node: &NodeProto, values: &HashMap<String, Known>) -> Option<Vec<Known>> {
    let input = |index: usize| node.input.get(index).and_then(|name| values.get(name));
    let contents = |index: usize| input(index)?.contents.as_deref();
    let first = input(0)?;
    let of = |dims: Vec<u64>| Some(vec![Known::new(first.data_type, dims)]);
    match node.op_type.as_str() {
        "Expand" => {
            let wanted: Vec<u64> = contents(1)?.iter().map(|&size| size as u64).collect();
            of(broadcast(&first.dims, &wanted)?)
        }
        "Pad" => {
            let (before, after) = contents(1)?.split_at_checked(first.dims.len())?;
            of(first.dims.iter().zip(before.iter().zip(after)).map(|(d, (a, b))| d + (a + b) as u64).collect())
        }
        "Reshape" => of(reshaped(first, contents(1)?)?),
        "Shape" => Some(vec![shape_of(node, &first.dims)?]),
        "Transpose" => {
            let order = &node.attribute.iter().find(|a| a.name == "perm")?.ints;
            of(order.iter().map(|&axis| first.dims.get(axis as usize).copied()).collect::<Option<_>>()?)
        }
        "Unsqueeze" => {
            let (mut dims, axis) = (first.dims.clone(), *contents(1)?.first()?);
            let axis = at(axis, dims.len() + 1)?;
            dims.insert(axis, 1);
            of(dims)
        }
        "Concat" => {
            let mut dims = first.dims.clone();
            let axis = at(integer(node, "axis")?, dims.len())?;
            dims[axis] = 0;
            for name in &node.input {
                dims[axis] += values.get(name)?.dims.get(axis)?;
            }
            of(dims)
        }
        "Slice" => {
            let (start, end, axis) = (*contents(1)?.first()?, *contents(2)?.first()?, *contents(3)?.first()?);
            let mut dims = first.dims.clone();
            let size = dims.get_mut(at(axis, first.dims.len())?)?;
            let clamp = |i: i64| if i < 0 { i + *size as i64 } else { i }.clamp(0, *size as i64) as u64;
            *size = clamp(end).saturating_sub(clamp(start));
            of(dims)
        }
        "Split" => {
            let axis = at(integer(node, "axis")?, first.dims.len())?;
            let part = |&size: &i64| {
                let mut dims = first.dims.clone();
                dims[axis] = size as u64;
                Known::new(first.data_type, dims)
            };
            Some(contents(1)?.iter().map(part).collect())
        }
        "Gather" => {
            let axis = at(integer(node, "axis")?, first.dims.len())?;
            of([&first.dims[..axis], &input(1)?.dims, &first.dims[axis + 1..]].concat())
        }
        _ => None,
    }
}

fn integer(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|attribute| attribute.name == name).map(|attribute| attribute.i)
}

/// An axis that may count from the end.
fn at(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

fn broadcast(a: &[u64], b: &[u64]) -> Option<Vec<u64>> {
    let rank = a.len().max(b.len());
    let size = |dims: &[u64], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
    let one = |i: usize| match (size(a, i), size(b, i)) {
        (1, n) | (n, 1) => Some(n),
        (n, m) => (n == m).then_some(n),
    };
    (0..rank).map(one).collect()
}

fn product(a: &[u64], b: &[u64]) -> Option<Vec<u64>> {
    let ([outer_a @ .., rows, inner], [outer_b @ .., inner_b, columns]) = (a, b) else { return None };
    let mut dims = broadcast(outer_a, outer_b).filter(|_| inner == inner_b)?;
    dims.extend([*rows, *columns]);
    Some(dims)
}

fn convolution(node: &NodeProto, image: &[u64], kernel: &[u64]) -> Option<Vec<u64>> {
    let [batch, _, sides @ ..] = image else { return None };
    let ints = |name: &str| node.attribute.iter().find(|a| a.name == name).map(|a| &a.ints[..]);
    let (pads, strides) = (ints("pads")?, ints("strides")?);
    let mut dims = vec![*batch, *kernel.first()?];
    for (axis, &side) in sides.iter().enumerate() {
        let padded = side + (*pads.get(axis)? + *pads.get(axis + sides.len())?) as u64;
        dims.push(padded.checked_sub(*kernel.get(axis + 2)?)?.checked_div(*strides.get(axis)? as u64)? + 1);
    }
    Some(dims)
}

fn reshaped(from: &Known, wanted: &[i64]) -> Option<Vec<u64>> {
    let kept = |(i, &size): (usize, &i64)| match size {
        0 => from.dims.get(i).copied(),
        -1 => Some(1),
        size => u64::try_from(size).ok(),
    };
    let mut dims: Vec<u64> = wanted.iter().enumerate().map(kept).collect::<Option<_>>()?;
    if let Some(open) = wanted.iter().position(|&size| size == -1) {
        dims[open] = from.elements().checked_div(dims.iter().product())?;
    }
    Some(dims)
}

fn shape_of(node: &NodeProto, dims: &[u64]) -> Option<Known> {
    let end = |name: &str, default: usize| integer(node, name).map_or(default, |i| i as usize);
    let part = dims.get(end("start", 0)..end("end", dims.len()))?;
    let contents = Some(part.iter().map(|&size| size as i64).collect());
    Some(Known { data_type: DataType::Int64, dims: vec![part.len() as u64], contents })
}
