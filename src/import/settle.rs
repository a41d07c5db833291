//! Directories of graphs that appear whole or not at all.
//!
//! What an import writes is written beside its target, under the target's name with a dot before and `.part` behind it,
//! and takes the name when it is whole. A process that dies leaves a directory that nothing takes for graphs, and the
//! next import into the same target empties it. While one process fills it another waits or is refused: a file in it is
//! locked, and the system lets go of the lock of a process that has died, wherever it ran.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::{ImportError, ImportErrorKind as Kind};

/// File that lists what a directory of graphs consists of; written last.
const CONTENTS: &str = "contents.json";

/// File that is locked while a directory is being filled.
const LOCK: &str = ".lock";

/// How often a directory is asked for that another process renames or removes meanwhile.
const TRIES: usize = 100;

/// What is done where another process fills the same directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Wait for it.
    Wait,
    /// Give [`Kind::Busy`].
    Refuse,
}

/// A directory that is being filled; removed unless it settles.
#[derive(Debug)]
pub(super) struct Part {
    dir: PathBuf,
    target: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
    settled: bool,
}

impl Part {
    /// An empty directory that is to become `target`.
    pub(super) fn new(target: &Path, taken: Taken) -> Result<Self, ImportError> {
        let target = resolve(target).map_err(|e| write_error(target, e))?;
        check_place(&target)?;
        let dir = beside(&target, "part");
        for _ in 0..TRIES {
            let Some(lock) = lock(&dir, taken, &target)? else { continue };
            let part = Self { dir, target, _lock: lock, settled: false };
            part.clear().map_err(|e| write_error(&part.dir, e))?;
            // Who died between the two renames has left what was there under its other name.
            let old = beside(&part.target, "old");
            if !part.target.exists() && old.is_dir() {
                fs::rename(&old, &part.target).map_err(|e| write_error(&part.target, e))?;
            }
            return Ok(part);
        }
        Err(ImportError::new(Kind::Busy, &target).because("other imports come and go there"))
    }

    /// Where to write.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes the target's name, with a list of what it consists of. Whatever had it makes way.
    pub(super) fn settle(mut self) -> Result<PathBuf, ImportError> {
        write_contents(&self.dir)?;
        let old = beside(&self.target, "old");
        let replace = || -> io::Result<()> {
            remove_dir(&old)?;
            match fs::rename(&self.dir, &self.target) {
                Ok(()) => return Ok(()),
                Err(e) if !self.target.is_dir() => return Err(e),
                Err(_) => fs::rename(&self.target, &old)?,
            }
            if let Err(error) = fs::rename(&self.dir, &self.target) {
                let _ = fs::rename(&old, &self.target);
                return Err(error);
            }
            // What is there now is whole; the next import removes what is left of the other.
            let _ = remove_dir(&old);
            Ok(())
        };
        replace().map_err(|e| write_error(&self.target, e))?;
        self.has_its_name();
        Ok(self.target.clone())
    }

    fn has_its_name(&mut self) {
        self.settled = true;
        let _ = fs::remove_file(self.target.join(LOCK));
    }

    /// Removes what a dead process left.
    fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else if entry.file_name() != LOCK {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.settled {
            let _ = self.clear();
            // Not all in one go: who comes next may have a lock of its own in there by now.
            let _ = fs::remove_file(self.dir.join(LOCK));
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

/// A bundle in the making: it is there whole or not at all, and only where nothing was.
#[derive(Debug)]
pub(crate) struct Making(Part);

impl Making {
    /// An empty directory that is to become `target`.
    ///
    /// # Errors
    /// [`Kind::Write`] where something is there already, [`Kind::Busy`] where another process makes one there.
    pub(crate) fn new(target: &Path) -> Result<Self, ImportError> {
        let making = Self(Part::new(target, Taken::Refuse)?);
        making.check_free()?;
        Ok(making)
    }

    /// Where to write.
    pub(crate) fn dir(&self) -> &Path {
        self.0.dir()
    }

    /// Takes the target's name.
    ///
    /// # Errors
    /// As [`Making::new`].
    pub(crate) fn settle(mut self) -> Result<(), ImportError> {
        self.check_free()?;
        // Over an empty directory this succeeds.
        fs::rename(&self.0.dir, &self.0.target).map_err(|e| write_error(&self.0.target, e))?;
        self.0.has_its_name();
        Ok(())
    }

    fn check_free(&self) -> Result<(), ImportError> {
        let target = &self.0.target;
        let empty = fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_none());
        if empty || !target.exists() {
            return Ok(());
        }
        Err(ImportError::new(Kind::Write, target).because("is there already: choose another directory, or remove it"))
    }
}

/// Refuses a target that holds what no import has written: it would be lost.
pub(super) fn check_target(target: &Path) -> Result<(), ImportError> {
    let refuse = |why: String| ImportError::new(Kind::Write, target).because(why);
    let found = match names(target) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(|e| write_error(target, e))?,
    };
    let listed: BTreeSet<String> = read_contents(target).into_iter().flatten().map(|item| item.name).collect();
    match found.into_iter().find(|name| !listed.contains(name)) {
        None => Ok(()),
        Some(name) => Err(refuse(format!(
            "holds `{name}`, which no import wrote, or one of an earlier version; name a directory of its own, or remove it"
        ))),
    }
}

/// Refuses a target that no other directory can take the place of.
fn check_place(target: &Path) -> Result<(), ImportError> {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    let refuse =
        |why: &str| Err(ImportError::new(Kind::Write, target).because(format!("{why}; name a directory in it")));
    if std::env::current_dir().is_ok_and(|here| here == target) {
        return refuse("is the working directory");
    }
    let mounted = target.exists() && target.parent().is_none_or(|parent| device(parent) != device(target));
    if mounted { refuse("is where a file system is mounted") } else { Ok(()) }
}

/// Whether a directory is there as it was written, and its links still lead to files of the same length.
pub(super) fn is_whole(dir: &Path) -> bool {
    let written = read_contents(dir);
    written.is_some() && written == contents(dir).ok()
}

/// A path that stays the same when a directory takes the place of what is there: through links, with a name at its end.
fn resolve(target: &Path) -> io::Result<PathBuf> {
    if target.exists() {
        return fs::canonicalize(target);
    }
    let name = target.file_name().ok_or_else(|| io::Error::other("is not the name of a directory"))?;
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent)?;
    Ok(fs::canonicalize(parent)?.join(name))
}

/// `.NAME.extension` beside `target`.
fn beside(target: &Path, extension: &str) -> PathBuf {
    let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    target.with_file_name(format!(".{name}.{extension}"))
}

/// Makes `dir` and locks it; `None` where its former owner renamed or removed it meanwhile.
fn lock(dir: &Path, taken: Taken, target: &Path) -> Result<Option<File>, ImportError> {
    let error = |e| write_error(dir, e);
    match fs::create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(error(e)),
        _ => {}
    }
    let path = dir.join(LOCK);
    let file = match OpenOptions::new().write(true).create(true).truncate(false).open(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(error)?,
    };
    match (file.try_lock(), taken) {
        (Ok(()), _) => {}
        (Err(TryLockError::Error(e)), _) => return Err(error(e)),
        (Err(TryLockError::WouldBlock), Taken::Refuse) => {
            return Err(
                ImportError::new(Kind::Busy, target).because("another import is writing there; try again later")
            );
        }
        (Err(TryLockError::WouldBlock), Taken::Wait) => {
            tracing::info!(target = %target.display(), "another process imports the same; waiting for it");
            file.lock().map_err(error)?;
        }
    }
    let mine = file.metadata().map_err(error)?;
    let same = fs::metadata(&path).is_ok_and(|found| (found.dev(), found.ino()) == (mine.dev(), mine.ino()));
    Ok(same.then_some(file))
}

fn write_error(path: &Path, source: io::Error) -> ImportError {
    ImportError::new(Kind::Write, path).because(source)
}

fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// A file of a directory of graphs.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Item {
    name: String,
    bytes: u64,
    /// Of a graph; of weights only the length is compared.
    sha256: Option<[u8; 32]>,
}

/// The files in `dir` and in the directories in it, sorted, but for the list itself and what begins with a dot: the lock,
/// and what file managers leave.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            for inner in fs::read_dir(entry.path())? {
                let inner = inner?.file_name().to_string_lossy().into_owned();
                names.extend((!inner.starts_with('.')).then(|| format!("{name}/{inner}")));
            }
        } else if name != CONTENTS && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Lists a directory's files, through links.
fn contents(dir: &Path) -> io::Result<Vec<Item>> {
    let item = |name: String| {
        let path = dir.join(&name);
        let is_graph = path.extension().is_some_and(|extension| extension == "onnx");
        let sha256 = if is_graph { Some(Sha256::digest(fs::read(&path)?).into()) } else { None };
        Ok(Item { name, bytes: fs::metadata(&path)?.len(), sha256 })
    };
    names(dir)?.into_iter().map(item).collect()
}

fn read_contents(dir: &Path) -> Option<Vec<Item>> {
    fs::read(dir.join(CONTENTS)).ok().and_then(|text| serde_json::from_slice(&text).ok())
}

fn write_contents(dir: &Path) -> Result<(), ImportError> {
    let path = dir.join(CONTENTS);
    let listed = contents(dir).and_then(|items| fs::write(&path, serde_json::to_vec(&items)?));
    listed.map_err(|e| write_error(&path, e))
}
