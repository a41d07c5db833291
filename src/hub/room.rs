//! Whether what is to be written has room, before the first byte of it is fetched.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::{HubError, HubErrorKind as Kind};

/// What is to be written, by file system.
#[derive(Debug, Default)]
pub(super) struct Room {
    needed: BTreeMap<u64, (PathBuf, u64)>,
}

impl Room {
    /// Adds bytes that are to be written below `dir`.
    pub(super) fn add(&mut self, dir: &Path, bytes: u64) -> Result<(), HubError> {
        let (there, device) = file_system(dir).map_err(|e| HubError::io(dir, e))?;
        let entry = self.needed.entry(device).or_insert((there, 0));
        entry.1 = entry.1.saturating_add(bytes);
        Ok(())
    }

    /// Holds every file system's free space against what is to be written there.
    ///
    /// # Errors
    /// [`Kind::Disk`] with both numbers.
    pub(super) fn check(&self) -> Result<(), HubError> {
        for (dir, needed) in self.needed.values() {
            let found = rustix::fs::statvfs(dir).map_err(|e| HubError::io(dir, e.into()))?;
            let free = found.f_bavail.saturating_mul(found.f_frsize);
            if *needed > free {
                let why = format!("{needed} bytes are to be written, {free} are free");
                return Err(HubError::new(Kind::Disk, dir.display().to_string()).because(why));
            }
        }
        Ok(())
    }
}

/// Whether two directories, which need not exist yet, will be on one file system.
pub(super) fn are_together(a: &Path, b: &Path) -> io::Result<bool> {
    Ok(file_system(a)?.1 == file_system(b)?.1)
}

/// The nearest directory above `dir`, or itself, that exists, and its device.
fn file_system(dir: &Path) -> io::Result<(PathBuf, u64)> {
    let absolute = std::path::absolute(dir)?;
    let there = absolute.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    Ok((there.to_owned(), fs::metadata(there)?.dev()))
}
