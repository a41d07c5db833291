//! Imported graphs, kept between runs.
//!
//! The graphs hold no weights but links into the bundle, so an entry belongs to one bundle at one place: its key is
//! the bundle's fingerprint, its path, the form of its graphs and the importer's version. Entries appear whole or not at all, and of
//! two processes that import the same bundle at once the second waits for the first and takes what it wrote.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest, Sha256};

use super::error::{ImportError, ImportErrorKind as Kind};
use super::settle::{Part, Taken, check_target, is_whole};
use super::{Adapter, Form, IMPORTER_VERSION, ImportReport, families, fill};
use crate::engine::bundle::Bundle;

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
/// manifest names. `out` appears when both are whole, in the place of what an earlier import wrote there.
///
/// # Errors
/// As [`import`](super::import()); also where a checkpoint's class is not the one that the manifest names.
pub fn import_bundle(
    bundle: &Bundle,
    out: impl AsRef<Path>,
    form: impl Into<Form>,
) -> Result<[ImportReport; 2], ImportError> {
    let out = out.as_ref();
    check_target(out)?;
    let part = Part::new(out, Taken::Refuse)?;
    let mut reports = fill_both(bundle, part.dir(), form.into())?;
    let place = part.settle()?;
    reports.iter_mut().zip(["mllm", "sam"]).for_each(|(report, name)| report.move_to(&place.join(name)));
    Ok(reports)
}

/// Writes the graphs of both checkpoints of a bundle into `mllm` and `sam` under `dir`.
fn fill_both(bundle: &Bundle, dir: &Path, form: Form) -> Result<[ImportReport; 2], ImportError> {
    let manifest = bundle.manifest();
    let one = |checkpoint: PathBuf, adapter: Option<Adapter<'_>>, name: &str, class: &str| {
        let report = fill(&checkpoint, adapter, &dir.join(name), form)?;
        if families::is_blind(&report.class) {
            let why = "has no eyes: a bundle takes a language model with images, and a segmenter";
            return Err(ImportError::new(Kind::Unsupported, checkpoint.join("config.json"))
                .at(report.class)
                .because(why));
        }
        if report.class == class {
            return Ok(report);
        }
        let why = format!("the bundle's manifest says {class}");
        Err(ImportError::new(Kind::Unsupported, checkpoint.join("config.json")).at(report.class).because(why))
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
    let scratch = Scratch::new().map_err(|e| ImportError::new(Kind::Write, env::temp_dir()).because(e))?;
    fill_both(bundle, &scratch.0, form.into())
}

/// A new directory that is nobody else's; removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        loop {
            let name = format!("sam4mllm-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let dir = env::temp_dir().join(name);
            match fs::DirBuilder::new().mode(0o700).create(&dir) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| Self(dir)),
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
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
    let form = form.into();
    let dir = cache_dir.as_ref().join(key(bundle, form)?);
    if is_whole(&dir) {
        return Ok(Imported { dir, fresh: false });
    }
    let part = Part::new(&dir, Taken::Wait)?;
    if is_whole(&dir) {
        return Ok(Imported { dir, fresh: false });
    }
    fill_both(bundle, part.dir(), form)?;
    part.settle()?;
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
