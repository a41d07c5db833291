//! Reading a Hugging Face checkpoint directory: `config.json` and one or several safetensors files, or one file that
//! `torch.save` wrote.
//!
//! Files come from outside, so headers are hostile until checked. Only headers are read here; a tensor's bytes are
//! read when something must be computed from them, in pieces, never the whole file. Nothing is mapped into memory: a
//! file that is truncated while it is mapped kills the process, a short read is an error.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::adapter::{self, LowRank};
use super::config::{self, Config};
use super::error::{ImportError, ImportErrorKind as Kind};
use super::families::sam::sizes;
use super::torch;

/// Longest safetensors header that is read, in bytes; the format's own limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Longest index of shards that is read, in bytes; that of a model of hundreds of layers has one megabyte.
const MAX_INDEX_BYTES: u64 = 64 << 20;

/// An opened checkpoint directory.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    dir: PathBuf,
    config: Config,
    files: Vec<TensorFile>,
    tensors: HashMap<String, Located>,
    /// An attached adapter's low-rank changes, by the matrix they change.
    low_rank: BTreeMap<String, LowRank>,
    /// What an attached adapter replaced: its own key, and the tensor that was there, by name.
    replaced: BTreeMap<String, (String, Located)>,
    /// What the checkpoint calls a tensor that the family calls otherwise.
    spelling: Option<fn(&str) -> String>,
}

/// One safetensors file.
#[derive(Debug)]
pub(crate) struct TensorFile {
    /// Where it is.
    pub path: PathBuf,
}

/// Where a tensor's bytes are.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    /// Index into [`Checkpoint::files`].
    pub file: usize,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// First byte, from the start of the file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Steps between elements along each dimension, where they do not lie one after the other; then `bytes` is the
    /// reach from the first to the last.
    pub strides: Option<Vec<usize>>,
}

impl Located {
    /// Whether the elements lie one after the other.
    pub(crate) fn lies_in_order(&self) -> bool {
        self.strides.is_none()
    }
}

impl Checkpoint {
    /// Opens the checkpoint in `dir`: `config.json` and `model.safetensors`, or the shards that
    /// `model.safetensors.index.json` names.
    pub(crate) fn open(dir: &Path) -> Result<Self, ImportError> {
        let single = dir.join("model.safetensors");
        let index = dir.join("model.safetensors.index.json");
        if dir.join(adapter::SETTINGS).exists() {
            return Err(ImportError::new(Kind::Unsupported, dir.join(adapter::SETTINGS))
                .because("an adapter is given beside its base checkpoint, in a directory of its own"));
        }
        let path = dir.join("config.json");
        // Segmenters of other authors come as one file of tensors, without a word about their sizes.
        let bare = !path.exists() && (single.exists() || pickled_file(dir)?.is_some());
        let config = if bare { Config::absent(dir) } else { Config::read(&path)? };
        let mut checkpoint = Self {
            dir: dir.to_owned(),
            config,
            files: Vec::new(),
            tensors: HashMap::new(),
            low_rank: BTreeMap::new(),
            replaced: BTreeMap::new(),
            spelling: None,
        };
        if !single.exists() && index.exists() {
            checkpoint.read_shards(&index)?;
        } else if let (false, Some(file)) = (single.exists(), pickled_file(dir)?) {
            checkpoint.tensors = torch::tensors_of(&file, 0)?;
            checkpoint.files.push(TensorFile { path: file });
        } else {
            checkpoint.read_file(single, None)?;
        }
        if checkpoint.config.is_absent() {
            checkpoint.config = sizes::infer(&checkpoint)?;
        }
        Ok(checkpoint)
    }

    /// Sets what the checkpoint calls the tensors that its family calls otherwise.
    pub(crate) fn spell(&mut self, spelling: fn(&str) -> String) {
        self.spelling = Some(spelling);
    }

    /// What the checkpoint calls the tensor that its family calls `name`.
    pub(crate) fn stored_name<'n>(&self, name: &'n str) -> Cow<'n, str> {
        match self.spelling {
            Some(spelling) => spelling(name).into(),
            None => name.into(),
        }
    }

    /// The directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// `config.json`.
    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// The safetensors files.
    pub(crate) fn files(&self) -> &[TensorFile] {
        &self.files
    }

    /// Names of all tensors, in no order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(&*self.stored_name(name))
    }

    /// The tensor of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&Located> {
        self.tensors.get(&*self.stored_name(name))
    }

    /// The low-rank changes of an attached adapter, by the name of the matrix that each changes.
    pub(crate) fn low_rank(&self) -> &BTreeMap<String, LowRank> {
        &self.low_rank
    }

    /// What an attached adapter replaced: its own key, and the tensor that was there, by name.
    pub(crate) fn replaced(&self) -> &BTreeMap<String, (String, Located)> {
        &self.replaced
    }

    /// Adds a safetensors file whose tensors are not the checkpoint's own; gives them, sorted by name.
    pub(crate) fn add_file(&mut self, path: &Path) -> Result<Vec<(String, Located)>, ImportError> {
        let mut tensors = tensors_of(path, self.files.len())?;
        tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.files.push(TensorFile { path: path.to_owned() });
        Ok(tensors)
    }

    /// Puts a tensor of an added file, which is `key` there, in the place of the checkpoint's own of the same shape.
    pub(crate) fn replace(&mut self, name: String, key: &str, located: Located) {
        if let Some(base) = self.tensors.insert(name.clone(), located) {
            self.replaced.insert(name, (key.to_owned(), base));
        }
    }

    /// Adds the halves of a low-rank change of the matrix `target`.
    pub(crate) fn add_pair(&mut self, target: String, pair: LowRank, a: Located, b: Located) {
        self.tensors.insert(pair.a.clone(), a);
        self.tensors.insert(pair.b.clone(), b);
        self.low_rank.insert(target, pair);
    }

    /// Finds a tensor and checks its shape.
    pub(crate) fn locate(&self, name: &str, shape: &[usize]) -> Result<&Located, ImportError> {
        self.locate_stored(&self.stored_name(name), shape)
    }

    /// The tensor that the checkpoint itself calls `name`.
    pub(crate) fn get_stored(&self, name: &str) -> Option<&Located> {
        self.tensors.get(name)
    }

    /// Finds a tensor, whatever its shape.
    pub(crate) fn find(&self, name: &str) -> Result<&Located, ImportError> {
        self.find_stored(&self.stored_name(name))
    }

    fn find_stored(&self, name: &str) -> Result<&Located, ImportError> {
        // Where there is one file it is that one; of several it is not known which.
        let place = match &self.files[..] {
            [file] => &file.path,
            _ => &self.dir,
        };
        self.tensors.get(name).ok_or_else(|| ImportError::new(Kind::MissingTensor, place).at(name))
    }

    /// As [`Checkpoint::locate`], by the checkpoint's own name.
    pub(crate) fn locate_stored(&self, name: &str, shape: &[usize]) -> Result<&Located, ImportError> {
        let located = self.find_stored(name)?;
        if located.shape != shape {
            return Err(ImportError::new(Kind::Shape, &self.files[located.file].path)
                .at(name)
                .because(format!("is {:?}, {:?} follows from config.json", located.shape, shape)));
        }
        Ok(located)
    }

    /// Finds a tensor, checks its shape and gives its elements as float.
    pub(crate) fn read_f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ImportError> {
        self.read_located(name, self.locate(name, shape)?)
    }

    /// The elements of a tensor as float.
    pub(crate) fn read_located(&self, name: &str, located: &Located) -> Result<Vec<f32>, ImportError> {
        let mut values = Vec::with_capacity(located.shape.iter().product());
        self.for_each_f32(name, located, |piece| {
            values.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(values)
    }

    /// Gives a tensor's elements as float, piece by piece, so that no tensor is ever whole in memory.
    pub(crate) fn for_each_f32(
        &self,
        name: &str,
        located: &Located,
        mut each: impl FnMut(&mut [f32]) -> Result<(), ImportError>,
    ) -> Result<(), ImportError> {
        let path = &self.files[located.file].path;
        let open = |e| ImportError::new(Kind::Open, path).at(name).because(e);
        let (width, convert) = converter(located.dtype)
            .ok_or_else(|| ImportError::new(Kind::Dtype, path).at(name).because(format!("is {:?}", located.dtype)))?;
        let mut file = File::open(path).map_err(open)?;
        file.seek(SeekFrom::Start(located.offset)).map_err(open)?;
        if let Some(strides) = &located.strides {
            let mut bytes = vec![0; located.bytes as usize];
            file.read_exact(&mut bytes).map_err(open)?;
            let mut values = Vec::with_capacity(bytes.len() / width);
            convert(&bytes, &mut values);
            return each(&mut torch::in_order(&values, &located.shape, strides));
        }
        let mut left = located.bytes as usize;
        let mut bytes = vec![0; left.min(1 << 20)];
        let mut values = Vec::with_capacity(bytes.len() / width);
        while left > 0 {
            let n = left.min(bytes.len());
            file.read_exact(&mut bytes[..n]).map_err(open)?;
            values.clear();
            convert(&bytes[..n], &mut values);
            each(&mut values)?;
            left -= n;
        }
        Ok(())
    }

    fn read_shards(&mut self, index: &Path) -> Result<(), ImportError> {
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let text = config::read_text(index, MAX_INDEX_BYTES)?;
        let parsed: Index =
            serde_json::from_str(&text).map_err(|e| ImportError::new(Kind::Config, index).because(e))?;
        let mut shards: BTreeMap<String, HashSet<String>> = BTreeMap::new();
        for (tensor, file) in parsed.weight_map {
            shards.entry(file).or_default().insert(tensor);
        }
        for (file, tensors) in shards {
            let plain = Path::new(&file).file_name().is_some_and(|name| name == file.as_str());
            if !plain {
                return Err(ImportError::new(Kind::Corrupt, index).at(file).because("is not a plain file name"));
            }
            self.read_file(self.dir.join(file), Some(tensors))?;
        }
        Ok(())
    }

    /// Reads a file's header and adds its tensors, or only those in `wanted`, all of which must be there.
    fn read_file(&mut self, path: PathBuf, wanted: Option<HashSet<String>>) -> Result<(), ImportError> {
        let mut found: HashMap<String, Located> = tensors_of(&path, self.files.len())?.into_iter().collect();
        if let Some(wanted) = &wanted {
            if let Some(missing) = wanted.iter().filter(|name| !found.contains_key(*name)).min() {
                return Err(ImportError::new(Kind::MissingTensor, &path).at(missing.as_str()));
            }
            found.retain(|name, _| wanted.contains(name));
        }
        self.tensors.extend(found);
        self.files.push(TensorFile { path });
        Ok(())
    }
}

/// The one file that `torch.save` wrote into `dir`, if there is one.
fn pickled_file(dir: &Path) -> Result<Option<PathBuf>, ImportError> {
    let open = |e| ImportError::new(Kind::Open, dir).because(e);
    if !dir.is_dir() {
        return Ok(None);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(open)? {
        let path = entry.map_err(open)?.path();
        if path.extension().is_some_and(|e| e == "pt" || e == "pth") {
            found.push(path);
        }
    }
    found.sort();
    match &found[..] {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        [_, second, ..] => {
            Err(ImportError::new(Kind::Unsupported, second).because("more than one .pt or .pth file: which is meant?"))
        }
    }
}

/// The tensors of a file, in no order; `file` is the index that they are to name it by.
fn tensors_of(path: &Path, file: usize) -> Result<Vec<(String, Located)>, ImportError> {
    let (data_start, metadata) = read_header(path)?;
    let located = |info: &TensorInfo| Located {
        file,
        dtype: info.dtype,
        shape: info.shape.clone(),
        offset: data_start + info.data_offsets.0 as u64,
        bytes: (info.data_offsets.1 - info.data_offsets.0) as u64,
        strides: None,
    };
    Ok(metadata.tensors().into_iter().map(|(name, info)| (name, located(info))).collect())
}

/// Reads and checks a header: where the data starts, and tensors that cover the data exactly.
fn read_header(path: &Path) -> Result<(u64, Metadata), ImportError> {
    let open = |e| ImportError::new(Kind::Open, path).because(e);
    let corrupt = |why: String| ImportError::new(Kind::Corrupt, path).because(why);
    let mut file = File::open(path).map_err(open)?;
    let bytes = file.metadata().map_err(open)?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(|_| corrupt(format!("{bytes} bytes hold no header")))?;
    let header_bytes = u64::from_le_bytes(length);
    if header_bytes > MAX_HEADER_BYTES.min(bytes - 8) {
        return Err(corrupt(format!("header of {header_bytes} bytes in a file of {bytes}")));
    }
    let mut header = vec![0; header_bytes as usize];
    file.read_exact(&mut header).map_err(open)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|e| ImportError::new(Kind::Corrupt, path).because(e))?;
    let data_start = 8 + header_bytes;
    let expected = data_start + metadata.data_len() as u64;
    if expected != bytes {
        return Err(corrupt(format!("{bytes} bytes, its header describes {expected}")));
    }
    Ok((data_start, metadata))
}

type Convert = fn(&[u8], &mut Vec<f32>);

/// Bytes an element, and how to read elements as float; `None` for types that are no floats of 16 or 32 bits.
fn converter(dtype: Dtype) -> Option<(usize, Convert)> {
    match dtype {
        Dtype::F32 => Some((4, |bytes, out| {
            let (values, _) = bytes.as_chunks::<4>();
            out.extend(values.iter().map(|b| f32::from_le_bytes(*b)));
        })),
        Dtype::F16 => Some((2, |bytes, out| {
            let (values, _) = bytes.as_chunks::<2>();
            out.extend(values.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()));
        })),
        Dtype::BF16 => Some((2, |bytes, out| {
            let (values, _) = bytes.as_chunks::<2>();
            out.extend(values.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()));
        })),
        _ => None,
    }
}
