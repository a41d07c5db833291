//! Why a data set could not be read.

use std::error::Error;
use std::path::{Path, PathBuf};

/// Kinds of [`ReadError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadErrorKind {
    /// A file is missing or cannot be read.
    Io,
    /// A file is not JSON, or lacks what every such file has; `NaN` and `Infinity` are not JSON.
    Json,
    /// A file is no pickle of plain data.
    Pickle,
    /// A file is larger, or asks for more, than is accepted.
    TooLarge,
    /// A value is missing, of another type or out of its range.
    Value,
    /// Something is referred to that is not there.
    Unknown,
    /// An id is given twice.
    Duplicate,
    /// Corners are no polygon.
    Polygon,
    /// Run lengths cannot be decoded or do not add up.
    RunLengths,
    /// Two sizes of one picture differ, or a size is not accepted.
    Size,
    /// A picture's path is absolute or climbs out of its folder.
    Path,
    /// A picture cannot be opened or is no picture.
    Picture,
}

/// A data set is not what it should be; says which file and record are at fault, and why.
#[derive(Debug, thiserror::Error)]
#[error("{} `{}`{}", match .kind {
    ReadErrorKind::Io => "open",
    ReadErrorKind::Json => "parse",
    ReadErrorKind::Pickle => "unpickle",
    ReadErrorKind::TooLarge => "accept",
    ReadErrorKind::Value => "read value in",
    ReadErrorKind::Unknown => "resolve reference in",
    ReadErrorKind::Duplicate => "tell ids apart in",
    ReadErrorKind::Polygon => "read polygon in",
    ReadErrorKind::RunLengths => "read run lengths in",
    ReadErrorKind::Size => "check size in",
    ReadErrorKind::Path => "resolve path in",
    ReadErrorKind::Picture => "look into picture of",
}, file.display(), record.as_ref().map(|r| format!(", {r}")).unwrap_or_default())]
pub struct ReadError {
    kind: ReadErrorKind,
    file: PathBuf,
    record: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl ReadError {
    /// An error of `kind` in `file`.
    pub(super) fn new(kind: ReadErrorKind, file: &Path) -> Self {
        Self { kind, file: file.to_owned(), record: None, source: None }
    }

    /// Names the record, as in `ref 12`; what was named before lies deeper and is kept.
    pub(super) fn of(mut self, record: impl Into<String>) -> Self {
        self.record.get_or_insert_with(|| record.into());
        self
    }

    /// Adds the reason.
    pub(super) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ReadErrorKind {
        self.kind
    }

    /// The file at fault.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The record at fault, as in `annotation 12`, where one is.
    pub fn record(&self) -> Option<&str> {
        self.record.as_deref()
    }
}
