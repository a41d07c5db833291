//! What stands in front of a graph that looks at a picture, where the picture comes in bytes: normalisation, padding and
//! the order of dimensions.
//!
//! A picture in bytes is a quarter of one in 32-bit floats on its way to a GPU, and what is done to each of its pixels is
//! done there. Resizing is not among it: frames come in any size, the filters of the processors that models were trained
//! with are antialiased and round to bytes between their passes, and TensorRT resizes neither so nor by sizes that vary.
//! So the host resizes, to bytes, and the graph does the rest, with the operations of the host in the host's order and in
//! 32-bit floats.

use prost::Message;

use super::error::{ImportError, ImportErrorKind as Kind};
use super::graph::{Attr, Dim, Element, F32, I32, U8, attribute, value_info};
use super::onnx::tensor_proto::DataType;
use super::onnx::tensor_shape_proto::{Dimension, dimension};
use super::onnx::{GraphProto, ModelProto, NodeProto, TensorProto, TensorShapeProto, ValueInfoProto, type_proto};
use super::weights::inline;

/// What graphs take without a front: `f32[1, 3, H, W]`, or patches, `f32[W, T, 3 · p · p]`.
pub const PIXEL_VALUES: &str = "pixel_values";
/// The same in bytes, with a front: `u8[1, H, W, 3]`, or patches as above, `u8[W, T, 3 · p · p]`.
pub const PIXEL_BYTES: &str = "pixel_bytes";
/// Rows and columns that the frame fills, `i32[2]`, from the top left; the others are 0 once all is normalised.
pub const PIXEL_EXTENT: &str = "pixel_extent";

/// How bytes become what a graph takes: `(byte / 255 - mean) / std`, by channel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Front {
    /// Red, green, blue.
    pub mean: [f32; 3],
    /// Red, green, blue; none is zero.
    pub std: [f32; 3],
    /// Whether frames may fill a part of the picture.
    pub padded: bool,
}

impl Front {
    /// What a byte of a channel becomes.
    pub fn value(&self, channel: usize, byte: u8) -> f32 {
        (f32::from(byte) / 255.0 - self.mean[channel]) / self.std[channel]
    }
}

/// Puts `front` before the graph `onnx`, which then takes [`PIXEL_BYTES`] instead of [`PIXEL_VALUES`].
///
/// # Errors
/// [`ImportErrorKind::Corrupt`](Kind::Corrupt) for bytes that are not a graph, and
/// [`ImportErrorKind::Unsupported`](Kind::Unsupported) for one that takes no picture of three channels.
pub fn take_bytes(onnx: &[u8], front: &Front) -> Result<Vec<u8>, ImportError> {
    let mut model = ModelProto::decode(onnx).map_err(|e| ImportError::new(Kind::Corrupt, "graph").because(e))?;
    put_before(model.graph.get_or_insert_default(), front)?;
    Ok(model.encode_to_vec())
}

/// How a graph wants its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Planes of a picture.
    Planes { height: usize, width: usize },
    /// Rows of patches, each channel by channel.
    Patches { depth: usize },
}

/// As [`take_bytes`].
pub(super) fn put_before(graph: &mut GraphProto, front: &Front) -> Result<(), ImportError> {
    let refuse =
        |why: &str| ImportError::new(Kind::Unsupported, format!("{}.onnx", graph.name)).at(PIXEL_VALUES).because(why);
    let found = graph.input.iter().position(|info| info.name == PIXEL_VALUES);
    let at = found.ok_or_else(|| refuse("takes no pixels"))?;
    let dims = dims(&graph.input[at]);
    let layout = Layout::of(&dims).ok_or_else(|| refuse("is not of three channels"))?;
    let mut nodes = Nodes::default();
    let values = nodes.normalised(layout, front);
    let mut inputs = match layout {
        Layout::Planes { height, width } => {
            let values = if front.padded { nodes.padded(&values, [height, width]) } else { values };
            nodes.op("Transpose", &[&values], &[("perm", Attr::Ints(&[0, 3, 1, 2]))]);
            let sizes = [1, height, width, 3].map(Dim::Fixed);
            vec![value_info::<U8>(PIXEL_BYTES, &sizes)]
        }
        Layout::Patches { .. } => vec![of_shape::<U8>(PIXEL_BYTES, dims)],
    };
    if front.padded && matches!(layout, Layout::Planes { .. }) {
        inputs.push(value_info::<I32>(PIXEL_EXTENT, &[Dim::Fixed(2)]));
    }
    if let Some(last) = nodes.nodes.last_mut() {
        last.output = vec![PIXEL_VALUES.to_owned()];
    }
    graph.input.splice(at..=at, inputs);
    graph.node.splice(0..0, nodes.nodes);
    graph.initializer.extend(nodes.constants);
    Ok(())
}

impl Layout {
    fn of(dims: &[Dimension]) -> Option<Self> {
        let fixed = |dim: &Dimension| match dim.value {
            Some(dimension::Value::DimValue(size)) => usize::try_from(size).ok(),
            _ => None,
        };
        match dims {
            [_, channels, height, width] if fixed(channels) == Some(3) => {
                Some(Self::Planes { height: fixed(height)?, width: fixed(width)? })
            }
            [_, _, depth] => fixed(depth).filter(|depth| depth.is_multiple_of(3)).map(|depth| Self::Patches { depth }),
            _ => None,
        }
    }

    /// One number a channel, as wide as the last dimension of the bytes.
    fn spread(self, by_channel: [f32; 3]) -> Vec<f32> {
        let each = match self {
            Self::Planes { .. } => 1,
            Self::Patches { depth } => depth / 3,
        };
        by_channel.iter().flat_map(|value| std::iter::repeat_n(*value, each)).collect()
    }
}

/// Operators in the making.
#[derive(Default)]
struct Nodes {
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
}

impl Nodes {
    /// Bytes as the host's table has them.
    fn normalised(&mut self, layout: Layout, front: &Front) -> String {
        let (mean, std) = (layout.spread(front.mean), layout.spread(front.std));
        let x = self.op("Cast", &[PIXEL_BYTES], &[("to", Attr::Int(F32::DATA_TYPE as i64))]);
        let [most, mean, std] = [
            self.floats("most", &[], &[255.0]),
            self.floats("mean", &[mean.len()], &mean),
            self.floats("std", &[std.len()], &std),
        ];
        let x = self.op("Div", &[&x, &most], &[]);
        let x = self.op("Sub", &[&x, &mean], &[]);
        self.op("Div", &[&x, &std], &[])
    }

    /// `x`, `[1, H, W, 3]`, with zeros beyond the frame's extent.
    fn padded(&mut self, x: &str, [height, width]: [usize; 2]) -> String {
        let zero = self.floats("zero", &[], &[0.0]);
        let ones = inline(&[2], DataType::Int64, [1i64; 2].iter().flat_map(|n| n.to_le_bytes()).collect());
        let ones = self.constant("ones", ones);
        let ends = self.outputs("Split", &[PIXEL_EXTENT, &ones], &[("axis", Attr::Int(0))], 2);
        let axes = [("rows", [1, height, 1, 1]), ("columns", [1, 1, width, 1])];
        let mut x = x.to_owned();
        for ((name, shape), end) in axes.into_iter().zip(ends) {
            let count = shape.iter().product::<usize>() as i32;
            let places = inline(&shape, DataType::Int32, (0..count).flat_map(i32::to_le_bytes).collect());
            let places = self.constant(name, places);
            let inside = self.op("Less", &[&places, &end], &[]);
            x = self.op("Where", &[&inside, &x, &zero], &[]);
        }
        x
    }

    fn floats(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        self.constant(name, inline(dims, DataType::Float, values.iter().flat_map(|v| v.to_le_bytes()).collect()))
    }

    fn constant(&mut self, name: &str, proto: TensorProto) -> String {
        let name = format!("front/{name}");
        self.constants.push(TensorProto { name: name.clone(), ..proto });
        name
    }

    fn op(&mut self, op_type: &str, inputs: &[&str], attributes: &[(&str, Attr<'_>)]) -> String {
        self.outputs(op_type, inputs, attributes, 1).remove(0)
    }

    fn outputs(
        &mut self,
        op_type: &str,
        inputs: &[&str],
        attributes: &[(&str, Attr<'_>)],
        count: usize,
    ) -> Vec<String> {
        let name = format!("front/{op_type}_{}", self.nodes.len());
        let output: Vec<_> = (0..count).map(|i| format!("{name}:{i}")).collect();
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: output.clone(),
            name,
            op_type: op_type.to_owned(),
            attribute: attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
        });
        output
    }
}

fn dims(info: &ValueInfoProto) -> Vec<Dimension> {
    let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_ref().and_then(|of| of.value.as_ref()) else {
        return Vec::new();
    };
    tensor.shape.as_ref().map(|shape| shape.dim.clone()).unwrap_or_default()
}

fn of_shape<T: Element>(name: &str, dim: Vec<Dimension>) -> ValueInfoProto {
    let mut info = value_info::<T>(name, &[]);
    if let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_mut().and_then(|of| of.value.as_mut()) {
        tensor.shape = Some(TensorShapeProto { dim });
    }
    info
}
