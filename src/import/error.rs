//! Why a checkpoint could not be imported.

use std::error::Error;
use std::path::Path;

/// Kinds of [`ImportError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImportErrorKind {
    /// A file is missing or cannot be read.
    Open,
    /// `config.json` or the safetensors index is not JSON, or a key is missing or of the wrong type.
    Config,
    /// A value in `config.json` is one that the importer has no graph for, or contradicts another.
    Unsupported,
    /// The checkpoint's class is not one of those that can be imported.
    UnknownClass,
    /// A safetensors file's header or length is not what the format demands.
    Corrupt,
    /// A tensor that the class needs is in none of the files.
    MissingTensor,
    /// A tensor is there that no part of the model has.
    UnknownTensor,
    /// A tensor has another shape than `config.json` says.
    Shape,
    /// A tensor has a dtype that cannot be read as float.
    Dtype,
    /// An adapter was made for another class than the checkpoint's.
    AdapterBase,
    /// An adapter changes something that the checkpoint does not have, or that no graph computes.
    AdapterTarget,
    /// The graphs cannot be written.
    Write,
    /// Another import is filling the same directory.
    Busy,
}

/// An import failed; says at which file, and at which tensor or config key, and why.
#[derive(Debug, thiserror::Error)]
#[error("{} `{file}`{}", match .kind {
    ImportErrorKind::Open => "open",
    ImportErrorKind::Config => "parse",
    ImportErrorKind::Unsupported => "support configuration in",
    ImportErrorKind::UnknownClass => "find importer for class in",
    ImportErrorKind::Corrupt => "read tensors of",
    ImportErrorKind::MissingTensor => "find tensor in",
    ImportErrorKind::UnknownTensor => "place tensor of",
    ImportErrorKind::Shape => "check tensor shape in",
    ImportErrorKind::Dtype => "check tensor dtype in",
    ImportErrorKind::AdapterBase => "match base class of adapter",
    ImportErrorKind::AdapterTarget => "find what is changed by adapter",
    ImportErrorKind::Write => "write",
    ImportErrorKind::Busy => "reserve",
}, .item.as_ref().map(|item| format!(", at `{item}`")).unwrap_or_default())]
pub struct ImportError {
    kind: ImportErrorKind,
    file: String,
    item: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl ImportError {
    /// An error of `kind` in `file`.
    pub(crate) fn new(kind: ImportErrorKind, file: impl AsRef<Path>) -> Self {
        Self { kind, file: file.as_ref().display().to_string(), item: None, source: None }
    }

    /// A file that cannot be read.
    #[cfg(feature = "tensorrt")]
    pub(crate) fn unreadable(file: &Path, source: std::io::Error) -> Self {
        Self::new(ImportErrorKind::Open, file).because(source)
    }

    /// Names the tensor or the dotted config key at fault.
    pub(crate) fn at(mut self, item: impl Into<String>) -> Self {
        self.item = Some(item.into());
        self
    }

    /// Adds the reason.
    pub(crate) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ImportErrorKind {
        self.kind
    }

    /// The file at fault.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The tensor or the dotted config key at fault, where there is one.
    pub fn item(&self) -> Option<&str> {
        self.item.as_deref()
    }
}
