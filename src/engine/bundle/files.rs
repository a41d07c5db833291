//! The files of a bundle: what is there, how long it is, what it hashes to.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sha2::{Digest, Sha256};

use super::manifest::{FileEntry, Manifest};
use super::{BundleError, BundleErrorKind, Verify};

/// Deepest directory tree that is searched for unlisted files.
const MAX_DEPTH: usize = 8;

/// Checks every listed file, then that the model directories hold nothing else.
pub(super) fn check(dir: &Path, manifest: &Manifest, verify: Verify) -> Result<(), BundleError> {
    for (path, entry) in &manifest.files {
        check_size(dir, path, entry)?;
    }
    if verify == Verify::Hashes {
        check_hashes(dir, &manifest.files)?;
    }
    match model_files(dir, manifest)?.into_iter().find(|path| !manifest.files.contains_key(path)) {
        None => Ok(()),
        Some(path) => Err(BundleError::new(BundleErrorKind::Unlisted, path)
            .because("only listed files are hashed; `sam4mllm engine seal` lists them")),
    }
}

fn check_size(dir: &Path, path: &str, entry: &FileEntry) -> Result<(), BundleError> {
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
    Ok(())
}

fn check_hashes(dir: &Path, files: &BTreeMap<String, FileEntry>) -> Result<(), BundleError> {
    let paths: Vec<&String> = files.keys().collect();
    for ((path, entry), hash) in files.iter().zip(hash_all(dir, &paths)) {
        let hash = hash?;
        if hash != entry.sha256 {
            let why = format!("SHA-256 {hash}, manifest says {}", entry.sha256);
            return Err(BundleError::new(BundleErrorKind::Hash, path).because(why));
        }
    }
    Ok(())
}

/// SHA-256 of files under `dir`, in their order. Several are read at once, the longest first: hashing is bound by a core
/// (about 1.5 GB/s with the instructions for it), and the files of a checkpoint are alike in length.
pub(super) fn hash_all(dir: &Path, paths: &[&String]) -> Vec<Result<String, BundleError>> {
    let length = |path: &String| fs::metadata(dir.join(path)).map_or(0, |found| found.len());
    let mut longest: Vec<usize> = (0..paths.len()).collect();
    longest.sort_by_cached_key(|&index| Reverse(length(paths[index])));
    let hash = |path: &str| {
        let hash = hash_file(&dir.join(path)).map_err(|e| BundleError::new(BundleErrorKind::Io, path).because(e))?;
        Ok(hex(&hash))
    };
    let (next, slots) = (AtomicUsize::new(0), paths.iter().map(|_| OnceLock::new()).collect::<Vec<_>>());
    let work = || {
        while let Some(&index) = longest.get(next.fetch_add(1, Ordering::Relaxed)) {
            slots[index].get_or_init(|| hash(paths[index]));
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(paths.len());
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    slots.into_iter().map(|slot| slot.into_inner().expect("every file was hashed")).collect()
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

/// From this length on a file of a checkpoint is linked rather than copied, in bytes. Smaller ones are those that people
/// edit, and an edit must reach neither the checkpoint nor a cache.
pub(crate) const LINKED_BYTES: u64 = 16 << 20;

/// Gives a checkpoint's file the name `to` too, which must not be there: the same bytes where it is long and the file
/// system is the same, else a copy.
pub(crate) fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    if fs::metadata(from)?.len() < LINKED_BYTES || fs::hard_link(from, to).is_err() {
        fs::copy(from, to)?;
    }
    Ok(())
}

/// SHA-256 of a file, read in pieces.
fn hash_file(path: &Path) -> io::Result<[u8; 32]> {
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
