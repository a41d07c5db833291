//! Imported graphs, kept between runs.
//!
//! The graphs hold no weights but links into the bundle, so an entry belongs to one bundle at one place: its key is
//! the bundle's fingerprint, its path, the form of its graphs and the importer's version. Entries appear whole or not at all: they are written
//! under another name and renamed, so two processes may import the same bundle at once.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::{ImportError, ImportErrorKind as Kind};
use super::{Adapter, Form, IMPORTER_VERSION, ImportReport, families, import_adapted};
use crate::engine::bundle::Bundle;

/// File that lists what an entry consists of; written last.
const CONTENTS: &str = "contents.json";

/// Where a bundle's graphs are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    dir: PathBuf,
    fresh: bool,
}

impl Imported {
    /// The directory of the language model's graphs.
    pub fn mllm_dir(&self) -> PathBuf {
        self.dir.join("mllm")
    }

    /// The directory of SAM's graphs.
    pub fn sam_dir(&self) -> PathBuf {
        self.dir.join("sam")
    }

    /// A graph of the language model: `vision`, `embed` or `decoder`.
    pub fn mllm_graph(&self, name: &str) -> PathBuf {
        self.mllm_dir().join(format!("{name}.onnx"))
    }

    /// A graph of SAM: `image_encoder` or `mask_decoder`.
    pub fn sam_graph(&self, name: &str) -> PathBuf {
        self.sam_dir().join(format!("{name}.onnx"))
    }

    /// Whether the graphs were written by this call rather than found.
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }
}

/// The directory for imported graphs: `$XDG_CACHE_HOME/sam4mllm`, else `~/.cache/sam4mllm`, else one under the
/// system's directory for temporary files.
pub fn default_cache_dir() -> PathBuf {
    let absolute = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .unwrap_or_else(env::temp_dir)
        .join("sam4mllm")
}

/// Imports both checkpoints of a bundle into `out/mllm` and `out/sam`, the language model with the adapter that the
/// manifest names.
///
/// # Errors
/// As [`import`]; also where a checkpoint's class is not the one that the manifest names.
pub fn import_bundle(
    bundle: &Bundle,
    out: impl AsRef<Path>,
    form: impl Into<Form>,
) -> Result<[ImportReport; 2], ImportError> {
    let (out, manifest, form) = (out.as_ref(), bundle.manifest(), form.into());
    let one = |dir: PathBuf, adapter: Option<Adapter<'_>>, name: &str, class: &str| {
        let report = import_adapted(&dir, adapter, out.join(name), form)?;
        if families::is_blind(&report.class) {
            let why = "has no eyes: a bundle takes a language model with images, and a segmenter";
            return Err(ImportError::new(Kind::Unsupported, dir.join("config.json")).at(report.class).because(why));
        }
        if report.class == class {
            return Ok(report);
        }
        let why = format!("the bundle's manifest says {class}");
        Err(ImportError::new(Kind::Unsupported, dir.join("config.json")).at(report.class).because(why))
    };
    let adapter_dir = bundle.adapter_dir();
    let adapter = adapter_dir.as_deref().map(|dir| Adapter { dir, mode: manifest.mllm.adapter_mode });
    Ok([
        one(bundle.mllm_dir(), adapter, "mllm", &manifest.mllm.class)?,
        one(bundle.sam_dir(), None, "sam", &manifest.sam.class)?,
    ])
}

/// Says what importing a bundle gives, and leaves nothing behind.
///
/// # Errors
/// As [`import_bundle`].
pub fn describe_bundle(bundle: &Bundle, form: impl Into<Form>) -> Result<[ImportReport; 2], ImportError> {
    let part = Part::new(&env::temp_dir())?;
    import_bundle(bundle, &part.dir, form)
}

/// Gives a bundle's graphs from the cache, and imports the bundle first where they are not in it.
///
/// # Errors
/// As [`import_bundle`]; also where the cache cannot be written.
pub fn import_cached(
    bundle: &Bundle,
    cache_dir: impl AsRef<Path>,
    form: impl Into<Form>,
) -> Result<Imported, ImportError> {
    let (cache_dir, form) = (cache_dir.as_ref(), form.into());
    let dir = cache_dir.join(key(bundle, form)?);
    if is_whole(&dir) {
        return Ok(Imported { dir, fresh: false });
    }
    fs::create_dir_all(cache_dir).map_err(|e| ImportError::new(Kind::Write, cache_dir).because(e))?;
    let part = Part::new(cache_dir)?;
    import_bundle(bundle, &part.dir, form)?;
    write_contents(&part.dir)?;
    part.settle(&dir)?;
    Ok(Imported { dir, fresh: true })
}

/// An entry's name.
fn key(bundle: &Bundle, form: Form) -> Result<String, ImportError> {
    let path = fs::canonicalize(bundle.dir()).map_err(|e| ImportError::new(Kind::Open, bundle.dir()).because(e))?;
    let digest: [u8; 32] = Sha256::digest(path.as_os_str().as_encoded_bytes()).into();
    let place = u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]);
    let (level, precision) = (form.level.name(), form.precision.name());
    Ok(format!("{}-{place:08x}-{level}-{precision}-v{IMPORTER_VERSION}", bundle.fingerprint()))
}

/// A directory that is being filled; removed unless it settles.
struct Part {
    dir: PathBuf,
}

impl Part {
    fn new(cache_dir: &Path) -> Result<Self, ImportError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = cache_dir.join(format!(".sam4mllm-{}-{count}", std::process::id()));
        // Left by a dead process of the same number.
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).map_err(|e| ImportError::new(Kind::Write, &dir).because(e))?;
        Ok(Self { dir })
    }

    /// Takes the entry's name. A whole entry that another process settled meanwhile is as good and stays; a broken
    /// one, whose bundle was replaced, makes way.
    fn settle(self, dir: &Path) -> Result<(), ImportError> {
        let write = |e| ImportError::new(Kind::Write, dir).because(e);
        for _ in 0..3 {
            match fs::rename(&self.dir, dir) {
                Ok(()) => return Ok(()),
                Err(_) if is_whole(dir) => return Ok(()),
                Err(e) if !dir.exists() => return Err(write(e)),
                Err(_) => {
                    let stale = self.dir.with_extension("stale");
                    if fs::rename(dir, &stale).is_ok() {
                        let _ = fs::remove_dir_all(&stale);
                    }
                }
            }
        }
        fs::rename(&self.dir, dir).map_err(write)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A file of an entry.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Item {
    name: String,
    bytes: u64,
    /// Of a graph; weights have been checked with the bundle.
    sha256: Option<[u8; 32]>,
}

/// Lists an entry's files, through links.
fn contents(dir: &Path) -> std::io::Result<Vec<Item>> {
    let mut items = Vec::new();
    for part in ["mllm", "sam"] {
        for entry in fs::read_dir(dir.join(part))? {
            let entry = entry?;
            let (name, path) = (entry.file_name(), entry.path());
            let is_graph = path.extension().is_some_and(|extension| extension == "onnx");
            let sha256 = if is_graph { Some(Sha256::digest(fs::read(&path)?).into()) } else { None };
            let name = format!("{part}/{}", name.to_string_lossy());
            items.push(Item { name, bytes: fs::metadata(&path)?.len(), sha256 });
        }
    }
    items.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(items)
}

fn write_contents(dir: &Path) -> Result<(), ImportError> {
    let path = dir.join(CONTENTS);
    let listed = contents(dir).and_then(|items| fs::write(&path, serde_json::to_vec(&items)?));
    listed.map_err(|e| ImportError::new(Kind::Write, &path).because(e))
}

/// Whether an entry is there as it was written, and its links still lead to files of the same length.
fn is_whole(dir: &Path) -> bool {
    let written: Option<Vec<Item>> =
        fs::read(dir.join(CONTENTS)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    written.is_some() && written == contents(dir).ok()
}
