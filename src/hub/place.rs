//! From the cache into a directory of one's own.

use std::path::Path;

use super::cache::replace;
use super::error::HubError;
use crate::engine::bundle::link_or_copy;

/// Puts the bytes of `blob` at `to`. Weights become a second name of the same bytes where the file system is the same, so
/// they take no room twice and stay when the cache is emptied; everything else is copied.
pub(super) fn place(blob: &Path, to: &Path) -> Result<(), HubError> {
    replace(to, |part| link_or_copy(blob, part)).map_err(|e| HubError::io(to, e))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::engine::bundle::LINKED_BYTES;

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
