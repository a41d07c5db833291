//! A small builder of ONNX graphs with the element type of every value in its Rust type. Operators here are those that
//! every level has; [`fused`](super::fused) adds what only the fused one has.

use std::collections::HashMap;
use std::marker::PhantomData;

use super::error::ImportError;
use super::onnx::attribute_proto::AttributeType;
use super::onnx::tensor_proto::DataType;
use super::onnx::tensor_shape_proto::{Dimension, dimension};
use super::onnx::type_proto::{self, Tensor};
use super::onnx::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto::Value as TypeValue,
};
use super::weights::{Weights, inline};
use super::{Form, IMPORTER_VERSION, Level, quantise::SCALES};

/// Element types of graph values.
pub(crate) trait Element {
    /// ONNX's number for the type.
    const DATA_TYPE: DataType;
}

/// 32-bit float.
#[derive(Debug, Clone, Copy)]
pub(crate) enum F32 {}
/// 16-bit float of either kind; only weights are, and they are cast at once.
#[derive(Debug, Clone, Copy)]
pub(crate) enum F16 {}
/// 32-bit integer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum I32 {}
/// 64-bit integer: shapes and axes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum I64 {}
/// Byte; only pixels are, and they are cast at once.
#[derive(Debug, Clone, Copy)]
pub(crate) enum U8 {}
/// Truth value.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bool {}

impl Element for F32 {
    const DATA_TYPE: DataType = DataType::Float;
}
impl Element for F16 {
    const DATA_TYPE: DataType = DataType::Float16;
}
impl Element for I32 {
    const DATA_TYPE: DataType = DataType::Int32;
}
impl Element for I64 {
    const DATA_TYPE: DataType = DataType::Int64;
}
impl Element for U8 {
    const DATA_TYPE: DataType = DataType::Uint8;
}
impl Element for Bool {
    const DATA_TYPE: DataType = DataType::Bool;
}

/// A value in a graph: a name, with its element type.
#[derive(Debug)]
pub(crate) struct Value<T> {
    name: String,
    element: PhantomData<T>,
}

impl<T> Clone for Value<T> {
    fn clone(&self) -> Self {
        Self::named(self.name.clone())
    }
}

impl<T> Value<T> {
    fn named(name: String) -> Self {
        Self { name, element: PhantomData }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

/// A dimension of a graph's input or output.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Dim {
    /// Always the same.
    Fixed(usize),
    /// Varies from call to call; dimensions of one name are equal in one call.
    Named(&'static str),
}

/// An operator's parameter.
pub(super) enum Attr<'a> {
    Int(i64),
    Float(f32),
    Ints(&'a [i64]),
}

/// A graph that is being built.
pub(crate) struct Graph<'w, 'c> {
    weights: &'w mut Weights<'c>,
    level: Level,
    proto: GraphProto,
    scope: Vec<String>,
    constants: HashMap<Vec<i64>, String>,
    initializers: HashMap<String, String>,
    outputs: HashMap<String, String>,
    quantises: bool,
    count: usize,
}

impl<'w, 'c> Graph<'w, 'c> {
    /// An empty graph.
    pub(crate) fn new(name: &str, level: Level, weights: &'w mut Weights<'c>) -> Self {
        Self {
            weights,
            level,
            proto: GraphProto { name: name.to_owned(), ..GraphProto::default() },
            scope: Vec::new(),
            constants: HashMap::new(),
            initializers: HashMap::new(),
            outputs: HashMap::new(),
            quantises: false,
            count: 0,
        }
    }

    /// The level it is written at: which operators may be used.
    pub(crate) fn level(&self) -> Level {
        self.level
    }

    fn form(&self) -> Form {
        Form { level: self.level, precision: self.weights.precision() }
    }

    /// The finished model.
    pub(crate) fn finish(mut self) -> ModelProto {
        for name in self.proto.node.iter_mut().flat_map(|node| node.input.iter_mut().chain(&mut node.output)) {
            if let Some(output) = self.outputs.get(name) {
                name.clone_from(output);
            }
        }
        let form = self.form();
        ModelProto {
            ir_version: form.ir_version(),
            producer_name: env!("CARGO_PKG_NAME").to_owned(),
            producer_version: format!("{}-{IMPORTER_VERSION}", env!("CARGO_PKG_VERSION")),
            graph: Some(self.proto),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: form.opset() }],
            metadata_props: Vec::new(),
        }
    }

    /// Builds a part of the graph whose operators carry `name` in theirs.
    pub(crate) fn scoped<R>(&mut self, name: &str, build: impl FnOnce(&mut Self) -> R) -> R {
        self.scope.push(name.to_owned());
        let result = build(self);
        self.scope.pop();
        result
    }

    // Inputs, outputs and constants.

    /// Declares an input.
    pub(crate) fn input<T: Element>(&mut self, name: &str, dims: &[Dim]) -> Value<T> {
        self.proto.input.push(value_info::<T>(name, dims));
        Value::named(name.to_owned())
    }

    /// Declares `value`, which an operator computes, as the output `name`; no value is two outputs.
    pub(crate) fn output<T: Element>(&mut self, name: &str, value: &Value<T>, dims: &[Dim]) {
        // Renamed at the end: an `Identity` in between would copy, and every decoding step would pay for it.
        let earlier = self.outputs.insert(value.name.clone(), name.to_owned());
        debug_assert!(earlier.is_none(), "{name} is also an output of another name");
        self.proto.output.push(value_info::<T>(name, dims));
    }

    /// The checkpoint tensor `name`, which must have `shape`.
    pub(crate) fn weight(&mut self, name: &str, shape: &[usize]) -> Result<Value<F32>, ImportError> {
        self.weight_as(name, shape, shape)
    }

    /// The checkpoint tensor `name`, which must have `shape`, with its elements seen as `dims`.
    pub(crate) fn weight_as(&mut self, name: &str, shape: &[usize], dims: &[usize]) -> Result<Value<F32>, ImportError> {
        let key = format!("{name}{dims:?}");
        if let Some(known) = self.initializers.get(&key) {
            return Ok(Value::named(known.clone()));
        }
        let initializer = self.weights.tensor(name, shape, dims)?;
        let stored = if self.proto.initializer.iter().any(|i| i.name == name) { &key } else { name };
        self.proto.initializer.push(TensorProto { name: stored.to_owned(), ..initializer.proto });
        let value = if initializer.half {
            self.cast::<F16, F32>(&Value::named(stored.to_owned()))
        } else {
            Value::named(stored.to_owned())
        };
        self.initializers.insert(key, value.name.clone());
        Ok(value)
    }

    /// Lets the matrices of linear layers be stored in few bits, where the import was asked for that.
    pub(crate) fn quantise_linears(&mut self) {
        self.quantises = true;
    }

    /// The checkpoint matrix `name` of `[out, in]` where it is stored in few bits, turned: `[in, out]`.
    pub(crate) fn quantised(&mut self, name: &str, shape: [usize; 2]) -> Result<Option<Value<F32>>, ImportError> {
        if !self.quantises {
            return Ok(None);
        }
        let Some(found) = self.weights.quantised(name, shape)? else { return Ok(None) };
        let scales = format!("{name}{SCALES}");
        self.proto.initializer.push(TensorProto { name: name.to_owned(), ..found.numbers });
        self.proto.initializer.push(TensorProto { name: scales.clone(), ..found.scales });
        let attributes = match found.block {
            Some(block) => vec![("axis", Attr::Int(0)), ("block_size", Attr::Int(block as i64))],
            None => vec![("axis", Attr::Int(1))],
        };
        let weight = self.op::<F16>("DequantizeLinear", &[name, &scales], &attributes);
        Ok(Some(self.cast::<F16, F32>(&weight)))
    }

    /// The checkpoint tensors that this graph's are taken from.
    pub(crate) fn weights(&self) -> &Weights<'c> {
        self.weights
    }

    /// The same, to ask for what an adapter adds.
    pub(crate) fn weights_mut(&mut self) -> &mut Weights<'c> {
        self.weights
    }

    /// A computed constant.
    pub(crate) fn constant(&mut self, dims: &[usize], values: &[f32]) -> Result<Value<F32>, ImportError> {
        let proto = self.weights.constant(dims, values)?;
        Ok(self.initializer(proto, "constant"))
    }

    /// A scalar constant.
    pub(crate) fn scalar(&mut self, value: f32) -> Value<F32> {
        self.initializer(inline(&[], DataType::Float, value.to_le_bytes().to_vec()), "scalar")
    }

    /// An integer scalar constant.
    pub(crate) fn integer(&mut self, value: i32) -> Value<I32> {
        self.initializer(inline(&[], DataType::Int32, value.to_le_bytes().to_vec()), "integer")
    }

    /// A constant shape or list of axes.
    pub(super) fn indices(&mut self, values: &[i64]) -> Value<I64> {
        if let Some(name) = self.constants.get(values) {
            return Value::named(name.clone());
        }
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let value = self.initializer(inline(&[values.len()], DataType::Int64, bytes), "indices");
        self.constants.insert(values.to_vec(), value.name.clone());
        value
    }

    /// A computed constant of integers.
    pub(crate) fn integers(&mut self, dims: &[usize], values: &[i32]) -> Result<Value<I32>, ImportError> {
        let proto = self.weights.integers(dims, values)?;
        Ok(self.initializer(proto, "integers"))
    }

    fn initializer<T>(&mut self, proto: TensorProto, kind: &str) -> Value<T> {
        self.count += 1;
        let name = format!("{kind}_{}", self.count);
        self.proto.initializer.push(TensorProto { name: name.clone(), ..proto });
        Value::named(name)
    }

    // Operators.

    /// Elementwise sum, with broadcasting.
    pub(crate) fn add(&mut self, a: &Value<F32>, b: &Value<F32>) -> Value<F32> {
        self.op("Add", &[&a.name, &b.name], &[])
    }

    /// Elementwise difference, with broadcasting.
    pub(crate) fn sub(&mut self, a: &Value<F32>, b: &Value<F32>) -> Value<F32> {
        self.op("Sub", &[&a.name, &b.name], &[])
    }

    /// Elementwise product, with broadcasting.
    pub(crate) fn mul(&mut self, a: &Value<F32>, b: &Value<F32>) -> Value<F32> {
        self.op("Mul", &[&a.name, &b.name], &[])
    }

    /// The larger of two, element by element, with broadcasting.
    pub(crate) fn max(&mut self, a: &Value<F32>, b: &Value<F32>) -> Value<F32> {
        self.op("Max", &[&a.name, &b.name], &[])
    }

    /// Elementwise power, with broadcasting.
    pub(crate) fn pow(&mut self, a: &Value<F32>, b: &Value<F32>) -> Value<F32> {
        self.op("Pow", &[&a.name, &b.name], &[])
    }

    /// An elementwise function of one argument, such as `Relu` or `Erf`.
    pub(crate) fn map(&mut self, function: &str, x: &Value<F32>) -> Value<F32> {
        self.op(function, &[&x.name], &[])
    }

    /// Matrix product over the last two dimensions, with broadcasting over the others.
    pub(crate) fn matmul(&mut self, a: &Value<F32>, b: &Value<F32>) -> Value<F32> {
        self.op("MatMul", &[&a.name, &b.name], &[])
    }

    /// Softmax over the last dimension.
    pub(crate) fn softmax(&mut self, x: &Value<F32>) -> Value<F32> {
        self.op("Softmax", &[&x.name], &[("axis", Attr::Int(-1))])
    }

    /// Mean over the last dimension, which stays with size 1.
    pub(crate) fn mean_last(&mut self, x: &Value<F32>) -> Value<F32> {
        // An input since 18.
        if self.form().opset() >= 18 {
            let axes = self.indices(&[-1]);
            return self.op("ReduceMean", &[&x.name, &axes.name], &[("keepdims", Attr::Int(1))]);
        }
        self.op("ReduceMean", &[&x.name], &[("axes", Attr::Ints(&[-1])), ("keepdims", Attr::Int(1))])
    }

    /// Layer normalisation over the last dimension.
    pub(crate) fn layer_norm(
        &mut self,
        x: &Value<F32>,
        scale: &Value<F32>,
        bias: &Value<F32>,
        epsilon: f32,
    ) -> Value<F32> {
        let attributes = [("axis", Attr::Int(-1)), ("epsilon", Attr::Float(epsilon))];
        self.op("LayerNormalization", &[&x.name, &scale.name, &bias.name], &attributes)
    }

    /// Convolution of `[1, C, H, W]`, stride 1, with the same padding on all sides.
    pub(crate) fn conv(&mut self, x: &Value<F32>, kernel: &Value<F32>, padding: i64) -> Value<F32> {
        // The defaults are spelled out: `rten` asks for them.
        let one = Attr::Ints(&[1, 1]);
        let attributes = [("pads", Attr::Ints(&[padding; 4])), ("strides", one), ("dilations", Attr::Ints(&[1, 1]))];
        self.op("Conv", &[&x.name, &kernel.name], &attributes)
    }

    /// Convolution of `[1, C, H, W]` with a bias, the same padding on all sides, in groups of channels.
    pub(crate) fn conv_of(
        &mut self,
        x: &Value<F32>,
        [kernel, bias]: [&Value<F32>; 2],
        [stride, padding, groups]: [usize; 3],
    ) -> Value<F32> {
        let (stride, padding) = ([stride as i64; 2], [padding as i64; 4]);
        let attributes = [
            ("pads", Attr::Ints(&padding)),
            ("strides", Attr::Ints(&stride)),
            ("dilations", Attr::Ints(&[1, 1])),
            ("group", Attr::Int(groups as i64)),
        ];
        self.op("Conv", &[&x.name, &kernel.name, &bias.name], &attributes)
    }

    /// Repeats dimensions of size 1 until the shape is `dims`.
    pub(crate) fn expand<T>(&mut self, x: &Value<T>, dims: &[usize]) -> Value<T> {
        let dims: Vec<i64> = dims.iter().map(|&d| d as i64).collect();
        let dims = self.indices(&dims);
        self.op("Expand", &[&x.name, &dims.name], &[])
    }

    /// Puts `after[i]` zeros behind each dimension.
    pub(crate) fn pad_after(&mut self, x: &Value<F32>, after: &[usize]) -> Value<F32> {
        let pads: Vec<i64> = vec![0; after.len()].into_iter().chain(after.iter().map(|&n| n as i64)).collect();
        let pads = self.indices(&pads);
        self.op("Pad", &[&x.name, &pads.name], &[])
    }

    /// Another shape for the same elements; 0 keeps the input's dimension of that index, -1 is computed.
    pub(crate) fn reshape<T>(&mut self, x: &Value<T>, shape: &[i64]) -> Value<T> {
        let shape = self.indices(shape);
        self.op("Reshape", &[&x.name, &shape.name], &[])
    }

    /// The shape of `like` for the same elements.
    pub(crate) fn reshape_like<T, L>(&mut self, x: &Value<T>, like: &Value<L>) -> Value<T> {
        let shape: Value<I64> = self.op("Shape", &[&like.name], &[]);
        self.op("Reshape", &[&x.name, &shape.name], &[])
    }

    /// Dimensions in another order.
    pub(crate) fn transpose<T>(&mut self, x: &Value<T>, order: &[i64]) -> Value<T> {
        self.op("Transpose", &[&x.name], &[("perm", Attr::Ints(order))])
    }

    /// A new dimension of size 1.
    pub(crate) fn unsqueeze<T>(&mut self, x: &Value<T>, axis: i64) -> Value<T> {
        let axes = self.indices(&[axis]);
        self.op("Unsqueeze", &[&x.name, &axes.name], &[])
    }

    /// Values one after the other along `axis`.
    pub(crate) fn concat<T>(&mut self, values: &[&Value<T>], axis: i64) -> Value<T> {
        let names: Vec<&str> = values.iter().map(|v| v.name.as_str()).collect();
        self.op("Concat", &names, &[("axis", Attr::Int(axis))])
    }

    /// The elements `start..end` along `axis`; a negative `end` counts from the end, `i64::MAX` is the end.
    pub(crate) fn slice<T>(&mut self, x: &Value<T>, axis: i64, start: i64, end: i64) -> Value<T> {
        let (start, end, axis) = (self.indices(&[start]), self.indices(&[end]), self.indices(&[axis]));
        self.op("Slice", &[&x.name, &start.name, &end.name, &axis.name], &[])
    }

    /// Consecutive parts of the given sizes along `axis`.
    pub(crate) fn split<T>(&mut self, x: &Value<T>, axis: i64, sizes: &[usize]) -> Vec<Value<T>> {
        let sizes: Vec<i64> = sizes.iter().map(|&s| s as i64).collect();
        let lengths = self.indices(&sizes);
        let outputs: Vec<String> = sizes.iter().map(|_| self.fresh("Split")).collect();
        let mut node = self.node_of(&[&x.name, &lengths.name]);
        node.op_type = "Split".into();
        node.name = outputs[0].clone();
        node.output = outputs.clone();
        node.attribute = vec![attribute("axis", &Attr::Int(axis))];
        self.proto.node.push(node);
        outputs.into_iter().map(Value::named).collect()
    }

    /// The elements at `indices` along `axis`.
    pub(crate) fn gather<T>(&mut self, x: &Value<T>, indices: &Value<I32>, axis: i64) -> Value<T> {
        self.op("Gather", &[&x.name, &indices.name], &[("axis", Attr::Int(axis))])
    }

    /// Where two integers are equal, with broadcasting.
    pub(crate) fn equal(&mut self, a: &Value<I32>, b: &Value<I32>) -> Value<Bool> {
        self.op("Equal", &[&a.name, &b.name], &[])
    }

    /// `a` where the condition holds, `b` elsewhere, with broadcasting.
    pub(crate) fn select(&mut self, condition: &Value<Bool>, a: &Value<F32>, b: &Value<F32>) -> Value<F32> {
        self.op("Where", &[&condition.name, &a.name, &b.name], &[])
    }

    /// The same values as another type.
    pub(crate) fn cast<A: Element, B: Element>(&mut self, x: &Value<A>) -> Value<B> {
        self.op("Cast", &[&x.name], &[("to", Attr::Int(B::DATA_TYPE as i64))])
    }

    /// Any operator of one output.
    pub(super) fn op<T>(&mut self, op_type: &str, inputs: &[&str], attributes: &[(&str, Attr<'_>)]) -> Value<T> {
        let name = self.fresh(op_type);
        let mut node = self.node_of(inputs);
        node.op_type = op_type.to_owned();
        node.name.clone_from(&name);
        node.output = vec![name.clone()];
        node.attribute = attributes.iter().map(|(name, value)| attribute(name, value)).collect();
        self.proto.node.push(node);
        Value::named(name)
    }

    fn node_of(&self, inputs: &[&str]) -> NodeProto {
        NodeProto { input: inputs.iter().map(|&i| i.to_owned()).collect(), ..NodeProto::default() }
    }

    fn fresh(&mut self, op_type: &str) -> String {
        self.count += 1;
        let scope = self.scope.join("/");
        if scope.is_empty() { format!("{op_type}_{}", self.count) } else { format!("{scope}/{op_type}_{}", self.count) }
    }
}

pub(super) fn attribute(name: &str, value: &Attr<'_>) -> AttributeProto {
    let mut proto = AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
    match value {
        Attr::Int(i) => {
            proto.i = *i;
            proto.r#type = AttributeType::Int as i32;
        }
        Attr::Float(f) => {
            proto.f = *f;
            proto.r#type = AttributeType::Float as i32;
        }
        Attr::Ints(ints) => {
            proto.ints = ints.to_vec();
            proto.r#type = AttributeType::Ints as i32;
        }
    }
    proto
}

pub(super) fn value_info<T: Element>(name: &str, dims: &[Dim]) -> ValueInfoProto {
    let dim = dims
        .iter()
        .map(|dim| Dimension {
            value: Some(match dim {
                Dim::Fixed(n) => dimension::Value::DimValue(*n as i64),
                Dim::Named(name) => dimension::Value::DimParam((*name).to_owned()),
            }),
        })
        .collect();
    let tensor = Tensor { elem_type: T::DATA_TYPE as i32, shape: Some(TensorShapeProto { dim }) };
    let value: type_proto::Value = TypeValue::TensorType(tensor);
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { value: Some(value) }) }
}
