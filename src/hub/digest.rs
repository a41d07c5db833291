//! What a hub knows files by: SHA-256 of large ones, git's own hash of small ones.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::repo::is_hex;
use crate::engine::bundle::hex;

/// The hash of a file, in lower-case hex digits; also the name of its blob in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Digest {
    /// SHA-256 of the bytes: files in large-file storage.
    Sha256(String),
    /// SHA-1 of `blob`, a space, the length, a zero byte and the bytes: files that git holds itself.
    Git(String),
}

impl Digest {
    /// Takes hex digits; which hash it is shows in their number.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if is_hex(text, 64) {
            Some(Self::Sha256(text.to_owned()))
        } else if is_hex(text, 40) {
            Some(Self::Git(text.to_owned()))
        } else {
            None
        }
    }

    /// The hex digits.
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::Git(hex) => hex,
        }
    }

    /// Begins hashing a file of `bytes` bytes.
    pub(super) fn hasher(&self, bytes: u64) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Self::Git(_) => Hasher::Git(Sha1::new_with_prefix(format!("blob {bytes}\0"))),
        }
    }
}

/// A hash in the making.
pub(super) enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Git(hasher) => hasher.update(bytes),
        }
    }

    /// The hex digits.
    pub(super) fn finish(self) -> String {
        match self {
            Self::Sha256(hasher) => hex(&hasher.finalize()),
            Self::Git(hasher) => hex(&hasher.finalize()),
        }
    }

    /// Takes in a whole file; gives its length.
    pub(super) fn read(&mut self, path: &Path) -> io::Result<u64> {
        let mut file = File::open(path)?;
        let mut piece = vec![0; 1 << 20];
        let mut bytes = 0;
        loop {
            let n = file.read(&mut piece)?;
            if n == 0 {
                return Ok(bytes);
            }
            self.update(&piece[..n]);
            bytes += n as u64;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_git_and_of_sha256sum() {
        // `printf 'hello\n' | git hash-object --stdin`, `printf 'hello\n' | sha256sum`.
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        for hash in [git, sha] {
            let digest = Digest::parse(hash).unwrap();
            let mut hasher = digest.hasher(6);
            hasher.update(b"hel");
            hasher.update(b"lo\n");
            assert_eq!(hasher.finish(), hash);
            assert_eq!(digest.as_str(), hash);
        }
        assert_eq!(Digest::parse(&git.to_uppercase()), None);
        assert_eq!(Digest::parse("../../x"), None);
    }
}
