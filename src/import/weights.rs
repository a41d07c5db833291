//! From a checkpoint's tensors to ONNX initializers, without copying where that is possible.
//!
//! A tensor of F32, F16 or BF16 stays where it is: the initializer names the safetensors file and the tensor's place in it. The
//! runtimes take external data only from the graph's own directory, and `rten` only under certain extensions, so the
//! directory gets a link `model-00001.onnx_data` to each safetensors file that is used. Tensors of other types, and
//! those that the importer computes, go to one sidecar, `computed.onnx_data`, written once and shared by all graphs.
//!
//! So do the matrices that an adapter is merged into, and only those.
//!
//! For a checkpoint of 8 billion parameters this reads a few hundred kilobytes and writes as many. TensorRT takes BF16 as
//! it is; `rten` does not know it, so the CPU backend widens such weights while it reads them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use safetensors::Dtype;

use super::adapter::{AdapterMode, LowRank, Merge};
use super::checkpoint::{Checkpoint, Located};
use super::error::{ImportError, ImportErrorKind as Kind};
use super::form::Precision;
use super::onnx::tensor_proto::{DataLocation, DataType};
use super::onnx::{StringStringEntryProto, TensorProto};
use super::quantise::{Layout, quantise};

/// The file that holds what is not in the checkpoint as it is needed.
const SIDECAR: &str = "computed.onnx_data";

/// Constants up to this many bytes are written into the graph itself.
const INLINE_BYTES: usize = 1 << 10;

/// Where the sidecar's tensors start: a cache line, enough for every runtime.
const ALIGNMENT: u64 = 64;

/// Hands out a checkpoint's tensors as initializers of graphs in one directory.
pub(crate) struct Weights<'c> {
    checkpoint: &'c Checkpoint,
    /// What becomes of the adapter that is attached to the checkpoint, if one is.
    mode: AdapterMode,
    /// What those matrices are stored as that may be quantised.
    precision: Precision,
    /// Where what is computed and links go; `None` where graphs are only looked at: then nothing that the graphs do
    /// not hang on is read, and nothing is written.
    out: Option<PathBuf>,
    links: BTreeMap<usize, String>,
    sidecar: Option<BufWriter<File>>,
    sidecar_bytes: u64,
    /// Where converted tensors are in the sidecar, so that two graphs share one copy.
    converted: HashMap<String, (u64, u64)>,
    used: BTreeSet<String>,
    /// Matrices whose low-rank change was merged, or is computed beside them.
    adapted: BTreeSet<String>,
    data_types: BTreeMap<String, u64>,
    in_place_bytes: u64,
    quantised: u64,
    /// Which tensors may stay unused; anything may where nothing is said.
    spare: Option<fn(&str) -> bool>,
}

/// What was done with the tensors of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct WeightReport {
    /// Parameters that the graphs use, each counted once.
    pub parameters: u64,
    /// The same by the element type that they have in the checkpoint.
    pub data_types: BTreeMap<String, u64>,
    /// Bytes that are referenced where they lie in the checkpoint.
    pub in_place_bytes: u64,
    /// Bytes that were written beside the graphs.
    pub written_bytes: u64,
    /// Parameters that were written in 8 or 4 bits.
    #[serde(skip_serializing_if = "is_none")]
    pub quantised: u64,
    /// Tensors of the checkpoint that no graph uses, sorted.
    pub unused: Vec<String>,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

/// A matrix in few bits, `[in, out]`, as initializers; their names are still to be set.
pub(crate) struct QuantisedInitializer {
    /// The numbers.
    pub numbers: TensorProto,
    /// What they are worth: 16-bit floats.
    pub scales: TensorProto,
    /// Rows that share their scales; none where all of a column's do.
    pub block: Option<usize>,
}

/// A checkpoint tensor as an initializer.
pub(crate) struct Initializer {
    /// The initializer; its name is still to be set.
    pub proto: TensorProto,
    /// Whether it is of 16 bits, of either kind, and needs a cast.
    pub half: bool,
}

impl<'c> Weights<'c> {
    /// Tensors of `checkpoint` for graphs in `out`, which exists, or for graphs that are only looked at.
    pub(crate) fn new(checkpoint: &'c Checkpoint, mode: AdapterMode, precision: Precision, out: Option<&Path>) -> Self {
        Self {
            checkpoint,
            mode,
            precision,
            out: out.map(Path::to_owned),
            links: BTreeMap::new(),
            sidecar: None,
            sidecar_bytes: 0,
            converted: HashMap::new(),
            used: BTreeSet::new(),
            adapted: BTreeSet::new(),
            data_types: BTreeMap::new(),
            in_place_bytes: 0,
            quantised: 0,
            spare: None,
        }
    }

    /// What matrices that may be quantised are stored as.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// The checkpoint.
    pub(crate) fn checkpoint(&self) -> &'c Checkpoint {
        self.checkpoint
    }

    /// The tensor `name` of `shape`, seen as `dims` (the same elements in the same order).
    pub(crate) fn tensor(&mut self, name: &str, shape: &[usize], dims: &[usize]) -> Result<Initializer, ImportError> {
        debug_assert_eq!(shape.iter().product::<usize>(), dims.iter().product::<usize>(), "{name}");
        let checkpoint = self.checkpoint;
        let name = &*checkpoint.stored_name(name);
        let located = checkpoint.locate_stored(name, shape)?;
        let first_use = self.count(name, located);
        if let (AdapterMode::Merge, Some(pair)) = (self.mode, checkpoint.low_rank().get(name)) {
            let (offset, bytes) = self.merge(name, located, pair)?;
            return Ok(Initializer { proto: external(dims, DataType::Float, SIDECAR, offset, bytes), half: false });
        }
        let direct = match located.dtype {
            Dtype::F32 if located.lies_in_order() && located.offset.is_multiple_of(4) => Some(DataType::Float),
            Dtype::F16 if located.lies_in_order() && located.offset.is_multiple_of(2) => Some(DataType::Float16),
            Dtype::BF16 if located.lies_in_order() && located.offset.is_multiple_of(2) => Some(DataType::Bfloat16),
            _ => None,
        };
        let Some(data_type) = direct else {
            let (offset, bytes) = self.convert(name, located, |_| {})?;
            let proto = external(dims, DataType::Float, SIDECAR, offset, bytes);
            return Ok(Initializer { proto, half: false });
        };
        if first_use {
            self.in_place_bytes += located.bytes;
        }
        let link = self.link(located.file)?;
        let proto = external(dims, data_type, &link, located.offset, located.bytes);
        Ok(Initializer { proto, half: data_type != DataType::Float })
    }

    /// Notes that the tensor `name` is used; answers whether for the first time.
    fn count(&mut self, name: &str, located: &Located) -> bool {
        let first_use = self.used.insert(name.to_owned());
        if first_use {
            let of_type = self.data_types.entry(format!("{:?}", located.dtype)).or_default();
            *of_type += located.shape.iter().product::<usize>() as u64;
        }
        first_use
    }

    /// The matrix `name` of `[out, in]` in few bits, turned; `None` where it stays as it is.
    pub(crate) fn quantised(
        &mut self,
        name: &str,
        [output, input]: [usize; 2],
    ) -> Result<Option<QuantisedInitializer>, ImportError> {
        if !matches!(self.precision, Precision::Int8 | Precision::Int4) {
            return Ok(None);
        }
        let checkpoint = self.checkpoint;
        let name = &*checkpoint.stored_name(name);
        let located = checkpoint.locate_stored(name, &[output, input])?;
        if self.out.is_none() {
            return Ok(self.quantised_unread(name, located, [output, input]));
        }
        let merged = checkpoint.low_rank().get(name).filter(|_| self.mode == AdapterMode::Merge);
        let mut merge = merged.map(|pair| self.merge_of(name, [output, input], pair)).transpose()?;
        let mut values = Vec::with_capacity(output * input);
        checkpoint.for_each_f32(name, located, |piece| {
            if let Some(merge) = &mut merge {
                merge.add(piece);
            }
            values.extend_from_slice(piece);
            Ok(())
        })?;
        let Some(quantised) = quantise(&values, [output, input], self.precision) else { return Ok(None) };
        self.count(name, located);
        self.quantised += values.len() as u64;
        let numbers = self.put(&[input, output], quantised.data_type, &quantised.numbers)?;
        let scales: Vec<u8> = quantised.scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
        let blocks = quantised.block.map(|block| input / block);
        let dims: Vec<usize> = blocks.into_iter().chain([output]).collect();
        let scales = self.put(&dims, DataType::Float16, &scales)?;
        Ok(Some(QuantisedInitializer { numbers, scales, block: quantised.block }))
    }

    /// As [`quantised`](Self::quantised) of a matrix that no one will read: its values are taken to be ordinary ones.
    fn quantised_unread(
        &mut self,
        name: &str,
        located: &Located,
        [output, input]: [usize; 2],
    ) -> Option<QuantisedInitializer> {
        let Layout { data_type, block, .. } = Layout::of([output, input], self.precision)?;
        self.count(name, located);
        if self.mode == AdapterMode::Merge && self.checkpoint.low_rank().contains_key(name) {
            self.adapted.insert(name.to_owned());
        }
        self.quantised += (output * input) as u64;
        let dims: Vec<usize> = block.map(|block| input / block).into_iter().chain([output]).collect();
        Some(QuantisedInitializer {
            numbers: external(&[input, output], data_type, SIDECAR, 0, 0),
            scales: external(&dims, DataType::Float16, SIDECAR, 0, 0),
            block,
        })
    }

    /// Writes computed bytes to the sidecar.
    fn put(&mut self, dims: &[usize], data_type: DataType, bytes: &[u8]) -> Result<TensorProto, ImportError> {
        let offset = self.align()?;
        self.write(bytes)?;
        Ok(external(dims, data_type, SIDECAR, offset, bytes.len() as u64))
    }

    /// The elements of the tensor `name`, for a constant that is computed of them.
    pub(crate) fn read(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ImportError> {
        let checkpoint = self.checkpoint;
        let name = &*checkpoint.stored_name(name);
        let located = checkpoint.locate_stored(name, shape)?;
        self.count(name, located);
        checkpoint.read_located(name, located)
    }

    /// The low-rank change of the matrix `name` that is to be computed beside it. Who asks must compute it.
    pub(crate) fn side_path(&mut self, name: &str) -> Option<&'c LowRank> {
        let pair = self.checkpoint.low_rank().get(name).filter(|_| self.mode == AdapterMode::Keep)?;
        self.adapted.insert(name.to_owned());
        Some(pair)
    }

    /// A computed float constant, inline where it is small.
    pub(crate) fn constant(&mut self, dims: &[usize], values: &[f32]) -> Result<TensorProto, ImportError> {
        debug_assert_eq!(dims.iter().product::<usize>(), values.len());
        self.computed(dims, DataType::Float, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    /// Computed integers, inline where they are few.
    pub(crate) fn integers(&mut self, dims: &[usize], values: &[i32]) -> Result<TensorProto, ImportError> {
        debug_assert_eq!(dims.iter().product::<usize>(), values.len());
        self.computed(dims, DataType::Int32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn computed(&mut self, dims: &[usize], data_type: DataType, bytes: Vec<u8>) -> Result<TensorProto, ImportError> {
        if bytes.len() <= INLINE_BYTES {
            return Ok(inline(dims, data_type, bytes));
        }
        self.put(dims, data_type, &bytes)
    }

    /// Finishes the sidecar and says what was done.
    pub(crate) fn finish(mut self) -> Result<WeightReport, ImportError> {
        if let Some(mut file) = self.sidecar.take() {
            file.flush().map_err(|e| self.write_error(e))?;
        }
        self.check_adapted()?;
        self.refuse_unknown()?;
        let mut unused: Vec<String> =
            self.checkpoint.names().filter(|name| !self.used.contains(*name)).map(str::to_owned).collect();
        unused.sort();
        Ok(WeightReport {
            parameters: self.data_types.values().sum(),
            data_types: self.data_types,
            in_place_bytes: self.in_place_bytes,
            written_bytes: self.sidecar_bytes,
            quantised: self.quantised,
            unused,
        })
    }

    /// From now on every tensor of the checkpoint must be used, or be one that `spare` knows.
    pub(crate) fn expect_all_but(&mut self, spare: fn(&str) -> bool) {
        self.spare = Some(spare);
    }

    /// Refuses a checkpoint with tensors that belong to no part of the model: it is of another model, or damaged.
    fn refuse_unknown(&self) -> Result<(), ImportError> {
        let Some(spare) = self.spare else { return Ok(()) };
        let mut unknown: Vec<&str> =
            self.checkpoint.names().filter(|name| !self.used.contains(*name) && !spare(name)).collect();
        unknown.sort_unstable();
        let Some(first) = unknown.first() else { return Ok(()) };
        let file =
            self.checkpoint.get_stored(first).map_or(self.checkpoint.dir(), |l| &self.checkpoint.files()[l.file].path);
        Err(ImportError::new(Kind::UnknownTensor, file).at(*first).because(match unknown.len() {
            1 => "belongs to no part of the model".to_owned(),
            more => format!("belongs to no part of the model, nor do {} others", more - 1),
        }))
    }

    /// Writes a matrix to the sidecar with its low-rank change in it, once.
    fn merge(&mut self, name: &str, located: &Located, pair: &LowRank) -> Result<(u64, u64), ImportError> {
        if self.converted.contains_key(name) {
            return self.convert(name, located, |_| {});
        }
        let &[output, input] = &located.shape[..] else { unreachable!("only matrices have low-rank changes") };
        let mut merge = self.merge_of(name, [output, input], pair)?;
        self.convert(name, located, |values| merge.add(values))
    }

    /// What adds a low-rank change to the matrix `name`.
    fn merge_of(&mut self, name: &str, [output, input]: [usize; 2], pair: &LowRank) -> Result<Merge, ImportError> {
        let a = self.checkpoint.read_f32(&pair.a, &[pair.rank, input])?;
        let b = self.checkpoint.read_f32(&pair.b, &[output, pair.rank])?;
        self.used.extend([pair.a.clone(), pair.b.clone()]);
        self.adapted.insert(name.to_owned());
        Ok(Merge::new(a, b, pair.rank, pair.scale))
    }

    /// Refuses an adapter of which something is lost: what no graph computes and would not have been nothing.
    fn check_adapted(&self) -> Result<(), ImportError> {
        let lost = |located: &Located, key: &str| {
            ImportError::new(Kind::AdapterTarget, &self.checkpoint.files()[located.file].path)
                .at(key)
                .because("it changes weights that no graph computes with")
        };
        for (_, pair) in self.checkpoint.low_rank().iter().filter(|(target, _)| !self.adapted.contains(*target)) {
            let b = self.checkpoint.get(&pair.b).expect("both halves of a pair are tensors");
            // Layers that the loss does not reach, such as those behind the features that are taken, stay at B = 0.
            let mut changes = false;
            self.checkpoint.for_each_f32(&pair.b, b, |values| {
                changes |= values.iter().any(|&x| x != 0.0);
                Ok(())
            })?;
            if changes {
                return Err(lost(b, &pair.key));
            }
        }
        for (name, (key, base)) in self.checkpoint.replaced().iter().filter(|(name, _)| !self.used.contains(*name)) {
            let located = self.checkpoint.get(name).expect("what replaces a tensor is one");
            let mut before = Vec::new();
            self.checkpoint.for_each_f32(name, base, |values| {
                before.extend_from_slice(values);
                Ok(())
            })?;
            if before != self.checkpoint.read_f32(name, &located.shape)? {
                return Err(lost(located, key));
            }
        }
        Ok(())
    }

    /// Writes a tensor to the sidecar as float, once, after `change`.
    fn convert(
        &mut self,
        name: &str,
        located: &Located,
        mut change: impl FnMut(&mut [f32]),
    ) -> Result<(u64, u64), ImportError> {
        if let Some(place) = self.converted.get(name) {
            return Ok(*place);
        }
        if self.out.is_none() {
            return Ok((0, 0));
        }
        let offset = self.align()?;
        self.checkpoint.for_each_f32(name, located, |values| {
            change(values);
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            self.write(&bytes)
        })?;
        let place = (offset, self.sidecar_bytes - offset);
        self.converted.insert(name.to_owned(), place);
        Ok(place)
    }

    /// Name of the link to a safetensors file, made on first use.
    fn link(&mut self, file: usize) -> Result<String, ImportError> {
        if let Some(name) = self.links.get(&file) {
            return Ok(name.clone());
        }
        let name = format!("model-{:05}.onnx_data", file + 1);
        let Some(out) = &self.out else { return Ok(name) };
        let path = out.join(&name);
        let target = &self.checkpoint.files()[file].path;
        let target = fs::canonicalize(target).map_err(|e| ImportError::new(Kind::Open, target).because(e))?;
        link_or_copy(&target, &path).map_err(|e| ImportError::new(Kind::Write, &path).because(e))?;
        self.links.insert(file, name.clone());
        Ok(name)
    }

    fn align(&mut self) -> Result<u64, ImportError> {
        let padding = self.sidecar_bytes.next_multiple_of(ALIGNMENT) - self.sidecar_bytes;
        self.write(&[0; ALIGNMENT as usize][..padding as usize])?;
        Ok(self.sidecar_bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ImportError> {
        let Some(out) = &self.out else { return Ok(()) };
        if self.sidecar.is_none() {
            let path = out.join(SIDECAR);
            let file = remove(&path).and_then(|()| File::create(path)).map_err(|e| self.write_error(e))?;
            self.sidecar = Some(BufWriter::new(file));
        }
        let file = self.sidecar.as_mut().expect("the sidecar was just opened");
        let outcome = file.write_all(bytes);
        outcome.map_err(|e| self.write_error(e))?;
        self.sidecar_bytes += bytes.len() as u64;
        Ok(())
    }

    fn write_error(&self, source: std::io::Error) -> ImportError {
        ImportError::new(Kind::Write, self.out.as_deref().unwrap_or(Path::new("")).join(SIDECAR)).because(source)
    }
}

/// An initializer with its bytes in the graph.
pub(crate) fn inline(dims: &[usize], data_type: DataType, raw_data: Vec<u8>) -> TensorProto {
    TensorProto {
        dims: dims.iter().map(|&d| d as i64).collect(),
        data_type: data_type as i32,
        raw_data,
        ..TensorProto::default()
    }
}

/// An initializer with its bytes in another file.
fn external(dims: &[usize], data_type: DataType, location: &str, offset: u64, bytes: u64) -> TensorProto {
    let entry = |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
    TensorProto {
        dims: dims.iter().map(|&d| d as i64).collect(),
        data_type: data_type as i32,
        external_data: vec![
            entry("location", location.to_owned()),
            entry("offset", offset.to_string()),
            entry("length", bytes.to_string()),
        ],
        data_location: DataLocation::External as i32,
        ..TensorProto::default()
    }
}

/// Makes `path` stand for `target` without copying where the file system can.
fn link_or_copy(target: &Path, path: &Path) -> std::io::Result<()> {
    remove(path)?;
    #[cfg(unix)]
    if std::os::unix::fs::symlink(target, path).is_ok() {
        return Ok(());
    }
    if fs::hard_link(target, path).is_ok() {
        return Ok(());
    }
    fs::copy(target, path).map(|_| ())
}

/// Removes what an earlier import left, which may be a link: writing through it would destroy the checkpoint.
fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
