//! What is pulled: `organisation/name@revision`.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::error::{HubError, HubErrorKind as Kind};

/// The branch that is meant where no revision is given.
pub const DEFAULT_REVISION: &str = "main";

/// Longest name of an organisation, a repository or a revision, in bytes.
const MAX_NAME: usize = 96;

/// A model repository of a hub: `organisation/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Repo(String);

impl Repo {
    /// As it is written in addresses: `organisation/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name of its directory in the cache, as the hub's own clients call it.
    pub(super) fn cache_name(&self) -> String {
        format!("models--{}", self.0.replace('/', "--"))
    }
}

impl FromStr for Repo {
    type Err = HubError;

    /// Letters, digits, `-`, `_` and `.` on both sides of one `/`, as the hub allows.
    fn from_str(text: &str) -> Result<Self, HubError> {
        let refuse = |why: &'static str| Err(HubError::new(Kind::Name, text).because(why));
        let Some((organisation, name)) = text.split_once('/') else {
            return refuse("a repository is written organisation/name");
        };
        for part in [organisation, name] {
            let plain = part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
            if part.is_empty() || part.len() > MAX_NAME || !plain {
                return refuse("organisation and name are letters, digits, `-`, `_` and `.`");
            }
            // `--` separates the two in the cache, so it must not stand inside.
            if part.starts_with(['.', '-']) || part.ends_with(['.', '-']) || part.contains("..") || part.contains("--")
            {
                return refuse("neither begins or ends with `.` or `-`, or holds `..` or `--`");
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Repo {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|e: HubError| e.told())
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A branch, a tag or a commit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Revision(String);

impl Revision {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a commit, which never becomes another; branches and tags do.
    pub fn is_commit(&self) -> bool {
        is_hex(&self.0, 40)
    }
}

impl FromStr for Revision {
    type Err = HubError;

    /// A name of git's: no spaces, no `..`, nothing that is empty between slashes.
    fn from_str(text: &str) -> Result<Self, HubError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/' | b'+');
        let parts = text.split('/').all(|part| !part.is_empty() && !part.starts_with(['.', '-']));
        if text.len() > MAX_NAME || !text.bytes().all(plain) || text.contains("..") || !parts {
            return Err(HubError::new(Kind::Name, text).because("a revision is a branch, a tag or a commit"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Revision {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|e: HubError| e.told())
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A repository at a revision: `organisation/name@revision`, without the revision at [`DEFAULT_REVISION`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pinned {
    /// Where.
    pub repo: Repo,
    /// Which state of it.
    pub revision: Revision,
}

/// A repository as it is written on a command line; an error is one line with its reason.
///
/// # Errors
/// Those of [`Pinned::from_str`].
pub fn read_pinned(text: &str) -> Result<Pinned, String> {
    text.parse().map_err(|error: HubError| error.told())
}

impl FromStr for Pinned {
    type Err = HubError;

    fn from_str(text: &str) -> Result<Self, HubError> {
        let (repo, revision) = text.split_once('@').unwrap_or((text, DEFAULT_REVISION));
        Ok(Self { repo: repo.parse()?, revision: revision.parse()? })
    }
}

impl fmt::Display for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.repo, self.revision)
    }
}

/// Whether `text` is `digits` lower-case hex digits.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn repositories_and_revisions_are_taken_apart() {
        let pinned: Pinned = "llava-hf/llama3-llava-next-8b-hf".parse().unwrap();
        assert_eq!(pinned.to_string(), "llava-hf/llama3-llava-next-8b-hf@main");
        assert_eq!(pinned.repo.cache_name(), "models--llava-hf--llama3-llava-next-8b-hf");
        let pinned: Pinned = "a/b.c@refs/pr/3".parse().unwrap();
        assert_eq!((pinned.repo.as_str(), pinned.revision.as_str()), ("a/b.c", "refs/pr/3"));
        assert!("0123456789abcdef0123456789abcdef01234567".parse::<Revision>().unwrap().is_commit());
        assert!(!"0123456".parse::<Revision>().unwrap().is_commit());
    }

    #[test]
    fn what_would_leave_the_cache_is_refused() {
        for text in ["b", "", "/b", "a/", "a/b/c", "../b", "a/..", "a/.b", "a--x/b", "a/b\\c", "a/b c", "a/b\n", "a/é"]
        {
            assert_eq!(text.parse::<Repo>().unwrap_err().kind(), Kind::Name, "{text:?}");
        }
        for text in ["", "..", "a/../b", "/a", "a/", "a//b", "a b", "a\\b", "a\0", "-x", &"a".repeat(97)] {
            assert_eq!(text.parse::<Revision>().unwrap_err().kind(), Kind::Name, "{text:?}");
        }
    }
}
