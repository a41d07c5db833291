//! Weights of BF16 for a runtime that does not know them: widened to 32 bits while they are read.
//!
//! The graph on disk refers to them where they lie in the checkpoint. What `rten` is given is the same graph with floats
//! in their place, and the bytes of every tensor that lies outside it.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use prost::Message;

use super::onnx::tensor_proto::{DataLocation, DataType};
use super::onnx::{GraphProto, ModelProto, StringStringEntryProto, TensorProto};
use super::{EngineError, EngineErrorKind as Kind};

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// A graph without tensors of BF16, and its weights.
pub(super) struct Widened {
    /// The graph.
    pub onnx: Vec<u8>,
    /// What lies outside it, by the name that the graph has for it.
    pub external: Vec<(String, Vec<u8>)>,
}

/// Whether a graph has weights of BF16.
pub(super) fn has_bf16(model: &ModelProto) -> bool {
    model.graph.iter().flat_map(|graph| &graph.initializer).any(is_bf16)
}

fn is_bf16(tensor: &TensorProto) -> bool {
    tensor.data_type == DataType::Bfloat16 as i32
}

/// Reads the weights of a graph in `dir`, those of BF16 as 32-bit floats.
///
/// # Errors
/// Of `engine`: [`Kind::Open`] for weights that cannot be read, [`Kind::Load`] for a tensor that does not say where its
/// bytes are, or has none of its own length there.
pub(super) fn widen(mut model: ModelProto, dir: &Path, engine: &str) -> Result<Widened, EngineError> {
    let mut external = Vec::new();
    if let Some(graph) = &mut model.graph {
        skip_casts(graph);
        for tensor in &mut graph.initializer {
            if tensor.data_location() == DataLocation::External {
                let name = format!("{}.onnx_data", external.len());
                let bytes = read(tensor, dir)
                    .map_err(|e| EngineError::new(e.kind, engine, e.source).at_tensor(tensor.name.as_str()))?;
                tensor.external_data = place(&name, bytes.len());
                external.push((name, bytes));
            }
            if is_bf16(tensor) {
                tensor.raw_data = wide(&tensor.raw_data);
                tensor.data_type = DataType::Float as i32;
            }
        }
    }
    Ok(Widened { onnx: model.encode_to_vec(), external })
}

/// Takes out what casts BF16 weights to 32-bit floats: they are.
fn skip_casts(graph: &mut GraphProto) {
    let is_output = |name: &str| graph.output.iter().any(|output| output.name == name);
    let wide: HashSet<&str> = graph.initializer.iter().filter(|t| is_bf16(t)).map(|t| &*t.name).collect();
    let mut stands_for = HashMap::new();
    for node in graph.node.iter().filter(|node| node.op_type == "Cast") {
        let to_float = node.attribute.iter().any(|a| a.name == "to" && a.i == DataType::Float as i64);
        if let ([from], [to]) = (&node.input[..], &node.output[..])
            && to_float
            && wide.contains(from.as_str())
            && !is_output(to)
        {
            stands_for.insert(to.clone(), from.clone());
        }
    }
    graph.node.retain(|node| !node.output.first().is_some_and(|output| stands_for.contains_key(output)));
    for input in graph.node.iter_mut().flat_map(|node| &mut node.input) {
        if let Some(weight) = stands_for.get(input) {
            input.clone_from(weight);
        }
    }
}

/// Why a tensor's bytes are not there.
struct Fault {
    kind: Kind,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl Fault {
    fn new(kind: Kind, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { kind, source: source.into() }
    }
}

/// The bytes of a tensor in another file, those of BF16 widened.
fn read(tensor: &TensorProto, dir: &Path) -> Result<Vec<u8>, Fault> {
    let entry =
        |key: &str| tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
    let number = |key: &str| {
        let number = entry(key).and_then(|value| value.parse::<u64>().ok());
        number.ok_or_else(|| Fault::new(Kind::Load, format!("has no `{key}` of its data")))
    };
    let (offset, length) = (number("offset")?, number("length")?);
    let file = entry("location").unwrap_or_default();
    // As `rten` itself has it: beside the graph, and named as weights are.
    let named = Path::new(file).extension().and_then(|e| e.to_str()).is_some_and(|e| e.starts_with("onnx_data"));
    if !named || Path::new(file).file_name().is_none_or(|name| name != file) {
        return Err(Fault::new(Kind::Load, format!("lies in `{file}`, which is not beside the graph")));
    }
    let open = |e: std::io::Error| Fault::new(Kind::Open, format!("read `{file}`: {e}"));
    let mut file_of = File::open(dir.join(file)).map_err(open)?;
    let there = file_of.metadata().map_err(open)?.len();
    if offset.checked_add(length).is_none_or(|end| end > there) {
        return Err(Fault::new(Kind::Load, format!("ends behind the {there} bytes of `{file}`")));
    }
    file_of.seek(SeekFrom::Start(offset)).map_err(open)?;
    let length = length as usize;
    if !is_bf16(tensor) {
        let mut bytes = vec![0; length];
        file_of.read_exact(&mut bytes).map_err(open)?;
        return Ok(bytes);
    }
    let mut bytes = vec![0; length / 2 * 4];
    let mut piece = vec![0; length.min(PIECE)];
    for to in bytes.chunks_mut(2 * PIECE) {
        let piece = &mut piece[..to.len() / 2];
        file_of.read_exact(piece).map_err(open)?;
        widen_into(piece, to);
    }
    Ok(bytes)
}

fn wide(narrow: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; narrow.len() / 2 * 4];
    widen_into(narrow, &mut bytes);
    bytes
}

/// A BF16 is the upper half of a 32-bit float; `to` is zero.
fn widen_into(narrow: &[u8], to: &mut [u8]) {
    for (to, from) in to.as_chunks_mut::<4>().0.iter_mut().zip(narrow.as_chunks::<2>().0) {
        to[2..].copy_from_slice(from);
    }
}

fn place(location: &str, bytes: usize) -> Vec<StringStringEntryProto> {
    let entries = [("location", location.to_owned()), ("offset", "0".to_owned()), ("length", bytes.to_string())];
    entries.map(|(key, value)| StringStringEntryProto { key: key.to_owned(), value }).to_vec()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn model(entries: &[(&str, &str)]) -> ModelProto {
        let entry = |(key, value): &(&str, &str)| StringStringEntryProto { key: (*key).into(), value: (*value).into() };
        let tensor = TensorProto {
            name: "w".into(),
            dims: vec![2],
            data_type: DataType::Bfloat16 as i32,
            data_location: DataLocation::External as i32,
            external_data: entries.iter().map(entry).collect(),
            ..TensorProto::default()
        };
        let graph = GraphProto { initializer: vec![tensor], ..GraphProto::default() };
        ModelProto { graph: Some(graph), ..ModelProto::default() }
    }

    #[test]
    fn numbers_are_the_same_with_more_bits() {
        let dir = tempfile::tempdir().unwrap();
        let numbers = [-1.5f32, 3.140625, f32::INFINITY].map(half::bf16::from_f32);
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        std::fs::write(dir.path().join("a.onnx_data"), &bytes).unwrap();
        let model = model(&[("location", "a.onnx_data"), ("offset", "2"), ("length", "4")]);
        assert!(has_bf16(&model));
        let widened = widen(model, dir.path(), "e").unwrap();
        let wanted: Vec<u8> = [3.140625f32, f32::INFINITY].iter().flat_map(|n| n.to_le_bytes()).collect();
        assert_eq!(widened.external[0].1, wanted);
        assert!(!has_bf16(&ModelProto::decode(&*widened.onnx).unwrap()));
    }

    #[test]
    fn weights_that_are_not_where_they_should_be_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.onnx_data"), [0; 8]).unwrap();
        let cases: [(&[(&str, &str)], Kind); 6] = [
            (&[("location", "b.onnx_data"), ("offset", "0"), ("length", "4")], Kind::Open),
            (&[("location", "a.onnx_data"), ("offset", "6"), ("length", "4")], Kind::Load),
            (&[("location", "a.onnx_data"), ("offset", "18446744073709551615"), ("length", "4")], Kind::Load),
            (&[("location", "a.onnx_data"), ("offset", "-1"), ("length", "4")], Kind::Load),
            (&[("location", "../a.onnx_data"), ("offset", "0"), ("length", "4")], Kind::Load),
            (&[("location", "passwd"), ("offset", "0"), ("length", "4")], Kind::Load),
        ];
        for (entries, kind) in cases {
            let error = widen(model(entries), dir.path(), "e").err().unwrap();
            assert_eq!((error.kind(), error.tensor()), (kind, Some("w")), "{entries:?}: {error}");
        }
    }
}
