//! What can be wrong with a bundle.

use std::error::Error;

/// Kinds of [`BundleError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BundleErrorKind {
    /// There is no manifest, or it cannot be read.
    Open,
    /// The manifest is not TOML, or has unknown or missing keys.
    Parse,
    /// A value in the manifest is out of its range.
    Invalid,
    /// A path in the manifest is absolute, climbs out of the bundle or names no file.
    Path,
    /// A listed file is not there.
    Missing,
    /// A listed file has another length.
    Size,
    /// A listed file has another SHA-256.
    Hash,
    /// A file in a model directory is not listed.
    Unlisted,
    /// A file is there but cannot be read, or the manifest cannot be written.
    Io,
}

/// A bundle is not what it claims to be; says which file or manifest key is at fault, and why.
#[derive(Debug, thiserror::Error)]
#[error("{} `{place}`", match .kind {
    BundleErrorKind::Open => "open bundle manifest",
    BundleErrorKind::Parse => "parse bundle manifest",
    BundleErrorKind::Invalid => "validate bundle manifest, key",
    BundleErrorKind::Path => "resolve bundle path",
    BundleErrorKind::Missing => "find bundle file",
    BundleErrorKind::Size => "check size of bundle file",
    BundleErrorKind::Hash => "check hash of bundle file",
    BundleErrorKind::Unlisted => "find manifest entry of bundle file",
    BundleErrorKind::Io => "access bundle file",
})]
pub struct BundleError {
    kind: BundleErrorKind,
    place: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl BundleError {
    /// An error of `kind` at `place`: a file, relative to the bundle, or a dotted manifest key.
    pub(super) fn new(kind: BundleErrorKind, place: impl Into<String>) -> Self {
        Self { kind, place: place.into(), source: None }
    }

    /// Adds the reason.
    pub(super) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> BundleErrorKind {
        self.kind
    }

    /// The file (relative to the bundle) or the dotted manifest key at fault.
    pub fn place(&self) -> &str {
        &self.place
    }
}
