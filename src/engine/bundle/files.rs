//! The files of a bundle: what is there, how long it is, what it hashes to.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use super::manifest::{FileEntry, Manifest};
use super::{BundleError, BundleErrorKind, Verify};

/// Deepest directory tree that is searched for unlisted files.
const MAX_DEPTH: usize = 8;

/// Checks every listed file, then that the model directories hold nothing else.
pub(super) fn check(dir: &Path, manifest: &Manifest, verify: Verify) -> Result<(), BundleError> {
    for (path, entry) in &manifest.files {
        check_file(dir, path, entry, verify)?;
    }
    match model_files(dir, manifest)?.into_iter().find(|path| !manifest.files.contains_key(path)) {
        None => Ok(()),
        Some(path) => Err(BundleError::new(BundleErrorKind::Unlisted, path)
            .because("only listed files are hashed; `sam4mllm engine seal` lists them")),
    }
}

fn check_file(dir: &Path, path: &str, entry: &FileEntry, verify: Verify) -> Result<(), BundleError> {
    let full = dir.join(path);
    let found = fs::metadata(&full).map_err(|e| {
        let kind = if e.kind() == io::ErrorKind::NotFound { BundleErrorKind::Missing } else { BundleErrorKind::Io };
        BundleError::new(kind, path).because(e)
    })?;
    if !found.is_file() {
        return Err(BundleError::new(BundleErrorKind::Missing, path).because("is not a file"));
    }
    if found.len() != entry.bytes {
        let why = format!("{} bytes, manifest says {}", found.len(), entry.bytes);
        return Err(BundleError::new(BundleErrorKind::Size, path).because(why));
    }
    if verify == Verify::Hashes {
        let hash = hex(&hash_file(&full).map_err(|e| BundleError::new(BundleErrorKind::Io, path).because(e))?);
        if hash != entry.sha256 {
            let why = format!("SHA-256 {hash}, manifest says {}", entry.sha256);
            return Err(BundleError::new(BundleErrorKind::Hash, path).because(why));
        }
    }
    Ok(())
}

/// All files of the model directories and the adapter's, relative to the bundle; those whose name starts with a dot are ignored, since
/// nothing reads them and tools leave them about.
pub(super) fn model_files(dir: &Path, manifest: &Manifest) -> Result<BTreeSet<String>, BundleError> {
    let mut found = BTreeSet::new();
    for directory in [&manifest.mllm.directory, &manifest.sam.directory].into_iter().chain(&manifest.mllm.adapter) {
        walk(dir, directory, MAX_DEPTH, &mut found)?;
    }
    Ok(found)
}

fn walk(dir: &Path, relative: &str, depth: usize, found: &mut BTreeSet<String>) -> Result<(), BundleError> {
    let io = |e: io::Error| BundleError::new(BundleErrorKind::Io, relative).because(e);
    if depth == 0 {
        return Err(BundleError::new(BundleErrorKind::Path, relative).because("is nested too deeply"));
    }
    for entry in fs::read_dir(dir.join(relative)).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            return Err(BundleError::new(BundleErrorKind::Path, relative).because("holds a file name beyond UTF-8"));
        };
        if name.starts_with('.') {
            continue;
        }
        let path = format!("{relative}/{name}");
        if entry.path().is_dir() {
            walk(dir, &path, depth - 1, found)?;
        } else {
            found.insert(path);
        }
    }
    Ok(())
}

/// SHA-256 of a file, read in pieces.
pub(super) fn hash_file(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        let n = file.read(&mut piece)?;
        if n == 0 {
            return Ok(hasher.finalize().into());
        }
        hasher.update(&piece[..n]);
    }
}

/// SHA-256 of bytes.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// Lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
