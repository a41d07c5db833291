//! Files that `torch.save` wrote: a zip of one pickle and of storages, of which tensors are views.
//!
//! The pickle is read as data ([`pickle`](crate::pickle)): it may name a tensor's rebuilding and the storages' types and
//! nothing else, and nothing is called. Storages lie uncompressed in the zip, so a tensor is a place in the file, as it is
//! in safetensors, and is read or linked where it lies.

#[cfg(test)]
mod tests;
mod zip;

use std::collections::HashMap;
use std::path::Path;

use safetensors::Dtype;

use super::checkpoint::Located;
use super::error::{ImportError, ImportErrorKind as Kind};
use crate::pickle::{Limits, Pickle, ValueId};

use zip::{Archive, Entry};

/// Longest pickle that is read, in bytes; that of a model of a thousand tensors has a hundred thousand.
const MAX_PICKLE_BYTES: u64 = 64 << 20;
/// Most elements that are gathered one by one.
const MAX_STRIDED_BYTES: u64 = 1 << 30;
/// Dictionaries inside each other that are looked into for the tensors.
const WRAPPERS: [&str; 4] = ["state_dict", "model", "model_state", "module"];

const TENSOR: &str = "torch._utils._rebuild_tensor_v2";
const PARAMETER: &str = "torch._utils._rebuild_parameter";

/// Everything that the pickle of a state dict names.
const NAMES: &[&str] = &[
    TENSOR,
    PARAMETER,
    "collections.OrderedDict",
    "torch.FloatStorage",
    "torch.HalfStorage",
    "torch.BFloat16Storage",
    "torch.DoubleStorage",
    "torch.LongStorage",
    "torch.IntStorage",
    "torch.ShortStorage",
    "torch.CharStorage",
    "torch.ByteStorage",
    "torch.BoolStorage",
];

/// The tensors of the file at `path`; `file` is the index that they are to name it by.
///
/// # Errors
/// [`Kind::Corrupt`] for what is no such file or names anything else than tensors, with the tensor where it is known.
pub(super) fn tensors_of(path: &Path, file: usize) -> Result<HashMap<String, Located>, ImportError> {
    let archive = Archive::open(path)?;
    let corrupt = |why: String| ImportError::new(Kind::Corrupt, path).because(why);
    let (name, entry) = archive.find("data.pkl").ok_or_else(|| corrupt("holds no `data.pkl`".to_owned()))?;
    if entry.bytes > MAX_PICKLE_BYTES {
        return Err(corrupt(format!("`{name}` of {} bytes is longer than {MAX_PICKLE_BYTES}", entry.bytes)));
    }
    let root = name.strip_suffix("data.pkl").unwrap_or_default();
    if let Some(order) = archive.get(&format!("{root}byteorder")) {
        let order = archive.read(order)?;
        if order != b"little" {
            return Err(corrupt("its numbers are not little-endian".to_owned()));
        }
    }
    let bytes = archive.read(entry)?;
    let limits = Limits { values: 4 << 20, depth: 64, names: NAMES };
    let pickle = Pickle::read(&bytes, limits).map_err(|e| ImportError::new(Kind::Corrupt, path).at(name).because(e))?;
    Reader { path, file, pickle: &pickle, archive: &archive, root }.state_dict()
}

struct Reader<'a> {
    path: &'a Path,
    file: usize,
    pickle: &'a Pickle<'a>,
    archive: &'a Archive,
    /// What the entries' names begin with.
    root: &'a str,
}

impl Reader<'_> {
    fn state_dict(&self) -> Result<HashMap<String, Located>, ImportError> {
        let mut dict = self.pickle.root();
        // A training loop keeps its model among other things.
        for _ in 0..WRAPPERS.len() {
            let Some(pairs) = self.pickle.pairs(dict) else { break };
            let inner = WRAPPERS.iter().find_map(|wrapper| {
                let named = |(key, _): &&(ValueId, ValueId)| self.pickle.text(*key).is_some_and(|k| k == *wrapper);
                pairs.iter().rev().find(named).map(|(_, value)| *value).filter(|v| self.pickle.pairs(*v).is_some())
            });
            match inner {
                Some(inner) => dict = inner,
                None => break,
            }
        }
        let pairs = self.pickle.pairs(dict).ok_or_else(|| self.corrupt("is not a dictionary of tensors"))?;
        let mut tensors = HashMap::with_capacity(pairs.len());
        for (key, value) in pairs {
            let name = self.pickle.text(*key).ok_or_else(|| self.corrupt("a key is not a text"))?.into_owned();
            if let Some(located) = self.tensor(*value).map_err(|e| e.at(name.as_str()))? {
                tensors.insert(name, located);
            }
        }
        if tensors.is_empty() {
            return Err(self.corrupt("holds no tensors"));
        }
        Ok(tensors)
    }

    /// A tensor's place; `None` for what is no tensor, such as a counter beside them.
    fn tensor(&self, id: ValueId) -> Result<Option<Located>, ImportError> {
        let Some((name, arguments)) = self.pickle.call(id) else { return Ok(None) };
        match (name, arguments) {
            (PARAMETER, [data, ..]) => match self.pickle.call(*data) {
                Some((TENSOR, arguments)) => self.view(arguments).map(Some),
                _ => Err(self.corrupt("is a parameter of something that is no tensor")),
            },
            (TENSOR, arguments) => self.view(arguments).map(Some),
            _ => Err(self.corrupt(format!("is made by `{name}`"))),
        }
    }

    /// `(storage, offset, size, stride, ..)`: where that view lies in the file.
    fn view(&self, arguments: &[ValueId]) -> Result<Located, ImportError> {
        let [storage, offset, size, stride, ..] = arguments else {
            return Err(self.corrupt("is rebuilt of fewer than four things"));
        };
        let (entry, dtype, width, count) = self.storage(*storage)?;
        let offset = self.whole(*offset)?;
        let (shape, strides) = (self.wholes(*size)?, self.wholes(*stride)?);
        if shape.len() != strides.len() {
            return Err(self.corrupt("has not as many strides as dimensions"));
        }
        let elements = product(&shape).ok_or_else(|| self.corrupt("has more elements than there are numbers"))?;
        let last = reach(&shape, &strides).ok_or_else(|| self.corrupt("reaches beyond every file"))?;
        let end = if elements == 0 { Some(offset) } else { offset.checked_add(last).and_then(|e| e.checked_add(1)) };
        if end.is_none_or(|end| end > count) {
            return Err(self.corrupt(format!("reaches beyond its storage of {count} elements")));
        }
        let dense = is_dense(&shape, &strides);
        let spanned = if elements == 0 { 0 } else { last + 1 };
        let bytes = if dense { elements } else { spanned } as u64 * width;
        if !dense && (bytes > MAX_STRIDED_BYTES || elements > spanned) {
            return Err(self.corrupt("repeats elements, or is a view over too many of them"));
        }
        Ok(Located {
            file: self.file,
            dtype,
            shape,
            offset: entry.offset + offset as u64 * width,
            bytes,
            strides: (!dense).then_some(strides),
        })
    }

    /// A storage's entry, element type, width of an element in bytes, and number of elements.
    fn storage(&self, id: ValueId) -> Result<(&Entry, Dtype, u64, usize), ImportError> {
        let Some([kind, class, key, _, count, ..]) = self.pickle.persistent(id) else {
            return Err(self.corrupt("is not a view of a storage"));
        };
        let kind = self.pickle.text(*kind).unwrap_or_default();
        if kind != "storage" {
            return Err(self.corrupt("is a view of something that is no storage"));
        }
        let class = self.pickle.name(*class).unwrap_or_default();
        let (dtype, width) = element(class).ok_or_else(|| self.corrupt(format!("is a view of a `{class}`")))?;
        let key = self.pickle.text(*key).ok_or_else(|| self.corrupt("names its storage by no text"))?;
        let name = format!("{}data/{key}", self.root);
        let entry = self.archive.get(&name).ok_or_else(|| self.corrupt(format!("its storage `{name}` is missing")))?;
        let count = self.whole(*count)?;
        if (count as u64).checked_mul(width) != Some(entry.bytes) {
            let why = format!("its storage `{name}` has {} bytes, not {count} elements of {width}", entry.bytes);
            return Err(self.corrupt(why));
        }
        Ok((entry, dtype, width, count))
    }

    fn whole(&self, id: ValueId) -> Result<usize, ImportError> {
        let value = self.pickle.int(id).and_then(|n| usize::try_from(n).ok());
        value.ok_or_else(|| self.corrupt("a size, stride or offset is not a whole number"))
    }

    fn wholes(&self, id: ValueId) -> Result<Vec<usize>, ImportError> {
        let items = self.pickle.items(id).filter(|items| items.len() <= 8);
        let items = items.ok_or_else(|| self.corrupt("its shape is no tuple of at most eight sizes"))?;
        items.iter().map(|item| self.whole(*item)).collect()
    }

    fn corrupt(&self, why: impl Into<String>) -> ImportError {
        ImportError::new(Kind::Corrupt, self.path).because(why.into())
    }
}

/// What a storage's class holds.
fn element(class: &str) -> Option<(Dtype, u64)> {
    Some(match class.strip_prefix("torch.")? {
        "FloatStorage" => (Dtype::F32, 4),
        "HalfStorage" => (Dtype::F16, 2),
        "BFloat16Storage" => (Dtype::BF16, 2),
        "DoubleStorage" => (Dtype::F64, 8),
        "LongStorage" => (Dtype::I64, 8),
        "IntStorage" => (Dtype::I32, 4),
        "ShortStorage" => (Dtype::I16, 2),
        "CharStorage" => (Dtype::I8, 1),
        "ByteStorage" => (Dtype::U8, 1),
        "BoolStorage" => (Dtype::BOOL, 1),
        _ => return None,
    })
}

fn product(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n)).filter(|n| *n <= isize::MAX as usize / 8)
}

/// Distance from the first element to the last, in elements.
fn reach(shape: &[usize], strides: &[usize]) -> Option<usize> {
    shape.iter().zip(strides).try_fold(0usize, |sum, (&n, &stride)| {
        n.saturating_sub(1).checked_mul(stride).and_then(|far| sum.checked_add(far))
    })
}

/// Whether elements lie one after the other, the last dimension innermost; a dimension of one element has any stride.
fn is_dense(shape: &[usize], strides: &[usize]) -> bool {
    let mut step = 1usize;
    shape.iter().zip(strides).rev().all(|(&n, &stride)| {
        let fits = n <= 1 || stride == step;
        step = step.saturating_mul(n.max(1));
        fits
    })
}

/// The elements of a view in the order of its dimensions; `values` are those from its first to its last.
pub(super) fn in_order(values: &[f32], shape: &[usize], strides: &[usize]) -> Vec<f32> {
    let mut places = vec![0usize];
    for (&n, &stride) in shape.iter().zip(strides) {
        places = places.iter().flat_map(|place| (0..n).map(move |i| place + i * stride)).collect();
    }
    places.into_iter().map(|place| values[place]).collect()
}
