//! Bundles: a manifest (`bundle.toml`), the model directories it names, and a hash of every file.
//!
//! A bundle is checked as a whole before anything of it is used: a robot that runs on half an update, or on weights
//! with one flipped bit, gives masks that look right and are not.

mod calibrate;
mod dialects;
mod error;
mod files;
mod manifest;
mod outputs;
mod seal;
mod validate;

use std::fs;
use std::path::{Path, PathBuf};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use calibrate::{Calibration, MaskCalibration, calibrate};
pub use dialects::{Coordinates, DialectName, Json, Strategy};
pub use error::{BundleError, BundleErrorKind};
pub(crate) use files::{LINKED_BYTES, hex, link_or_copy};
pub use manifest::{
    AdapterMode, Dialect, FileEntry, Filter, Fit, ImageSpec, Layout, Manifest, Mllm, Ppg, Resampler, Sam,
    StreamThresholds, Thresholds, Zoom,
};
pub use outputs::{StoredOutputs, TensorPrint, store_outputs};
pub use seal::{Sealed, seal};
pub(crate) use validate::path_fault;

/// Name of the manifest inside a bundle's directory.
pub const MANIFEST: &str = "bundle.toml";

/// Longest manifest that is read, in bytes; a real one has a few kilobytes.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// How thoroughly [`Bundle::open`] checks the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// Size and SHA-256 of every file: what a node does at start.
    #[default]
    Hashes,
    /// Presence and size only: for tools that look at large bundles without running them.
    Sizes,
}

/// An opened bundle: its manifest is valid and its files are those that the manifest lists.
#[derive(Debug, Clone)]
pub struct Bundle {
    dir: PathBuf,
    manifest: Manifest,
    fingerprint: String,
}

impl Bundle {
    /// Opens the bundle in `dir`: reads `bundle.toml`, validates it, checks every listed file.
    ///
    /// # Errors
    /// Every way in which the directory is not exactly what its manifest says, with the file at fault.
    pub fn open(dir: impl AsRef<Path>, verify: Verify) -> Result<Self, BundleError> {
        let dir = dir.as_ref();
        let text = read_manifest(dir)?;
        let manifest = Manifest::parse(&text)?;
        files::check(dir, &manifest, verify)?;
        let fingerprint = files::hex(&files::sha256(text.as_bytes()))[..16].to_owned();
        Ok(Self { dir: dir.to_owned(), manifest, fingerprint })
    }

    /// The bundle's directory, as it was given.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The manifest, validated.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The first 16 hex digits of the manifest's SHA-256. The manifest holds every file's hash, so this stands for
    /// the whole bundle: in logs, cache keys and benchmark reports.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The directory of the language model's checkpoint.
    pub fn mllm_dir(&self) -> PathBuf {
        self.dir.join(&self.manifest.mllm.directory)
    }

    /// The directory of the language model's adapter, where there is one.
    pub fn adapter_dir(&self) -> Option<PathBuf> {
        self.manifest.mllm.adapter.as_ref().map(|adapter| self.dir.join(adapter))
    }

    /// The directory of SAM's checkpoint.
    pub fn sam_dir(&self) -> PathBuf {
        self.dir.join(&self.manifest.sam.directory)
    }
}

/// Reads `bundle.toml` under `dir`.
fn read_manifest(dir: &Path) -> Result<String, BundleError> {
    let path = dir.join(MANIFEST);
    let open = |source| BundleError::new(BundleErrorKind::Open, path.display().to_string()).because(source);
    let bytes = fs::metadata(&path).map_err(open)?.len();
    if bytes > MAX_MANIFEST_BYTES {
        return Err(BundleError::new(BundleErrorKind::Parse, MANIFEST)
            .because(format!("{bytes} bytes are more than {MAX_MANIFEST_BYTES}")));
    }
    fs::read_to_string(&path).map_err(open)
}
