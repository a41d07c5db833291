//! From the cache into a directory of one's own.

use std::fs;
use std::io;
use std::path::Path;

use super::cache::own_suffix;
use super::error::HubError;
use crate::engine::bundle::LINKED_BYTES;

/// Puts the bytes of `blob` at `to`. Weights become a second name of the same bytes where the file system is the same, so
/// they take no room twice and stay when the cache is emptied; everything else is copied.
pub(super) fn place(blob: &Path, to: &Path) -> Result<(), HubError> {
    put(blob, to).map_err(|e| HubError::io(to, e))
}

fn put(blob: &Path, to: &Path) -> io::Result<()> {
    let dir = to.parent().expect("a file has a directory");
    fs::create_dir_all(dir)?;
    let name = to.file_name().expect("a file has a name").to_string_lossy();
    let part = dir.join(format!(".{name}.{}", own_suffix()));
    if fs::metadata(blob)?.len() < LINKED_BYTES || fs::hard_link(blob, &part).is_err() {
        fs::copy(blob, &part)?;
    }
    fs::rename(&part, to)?;
    // Two names of one file: the rename did nothing, and the part is left.
    match fs::remove_file(&part) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn weights_are_linked_and_small_files_copied() {
        let dir = tempfile::tempdir().unwrap();
        for (bytes, links) in [(LINKED_BYTES, 2), (LINKED_BYTES - 1, 1)] {
            let (blob, to) = (dir.path().join(format!("blob{links}")), dir.path().join(format!("out{links}/file")));
            fs::File::create(&blob).unwrap().set_len(bytes).unwrap();
            for _ in 0..2 {
                place(&blob, &to).unwrap();
                let found = fs::metadata(&to).unwrap();
                assert_eq!((found.len(), found.nlink()), (bytes, links));
                assert_eq!(fs::read_dir(to.parent().unwrap()).unwrap().count(), 1);
            }
        }
    }
}
