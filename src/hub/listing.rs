//! What a hub says is in a repository. All of it is hostile: names, lengths and hashes are checked before any is used.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::digest::Digest;
use super::error::{HubError, HubErrorKind as Kind};
use super::repo::{Pinned, is_hex};
use crate::engine::bundle::path_fault;

/// Most files of a repository that are believed.
const MAX_FILES: usize = 20_000;

/// Longest path of a file that is believed, in bytes, and longest part of one between slashes.
const MAX_PATH: usize = 512;
const MAX_PART: usize = 200;

/// A repository at one commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listing {
    /// The commit: 40 hex digits.
    pub commit: String,
    /// Its files, in the hub's order; names are plain relative paths, and each comes once.
    pub files: Vec<RemoteFile>,
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteFile {
    /// Its path in the repository, with `/` between the parts.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
    /// What its bytes hash to.
    pub digest: Digest,
}

/// The answer to `/api/models/REPO/revision/REVISION?blobs=true`, as far as it is read.
#[derive(Deserialize)]
struct Answer {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    #[serde(alias = "oid")]
    sha256: String,
    size: Option<u64>,
}

impl Listing {
    /// Reads the hub's answer about `pinned`.
    ///
    /// # Errors
    /// [`Kind::Answer`] where it is not what the protocol demands, [`Kind::FileName`] of a name that is no plain relative
    /// path.
    pub(super) fn parse(json: &[u8], pinned: &Pinned) -> Result<Self, HubError> {
        let wrong = |why: String| HubError::new(Kind::Answer, pinned.to_string()).because(why);
        let answer: Answer = serde_json::from_slice(json).map_err(|e| wrong(e.to_string()))?;
        if !is_hex(&answer.sha, 40) {
            return Err(wrong("it names no commit".to_owned()));
        }
        if pinned.revision.is_commit() && answer.sha != pinned.revision.as_str() {
            return Err(wrong(format!("it is about commit {}", answer.sha)));
        }
        if answer.siblings.len() > MAX_FILES {
            return Err(wrong(format!("it lists {} files, more than {MAX_FILES}", answer.siblings.len())));
        }
        let files = answer.siblings.into_iter().map(|sibling| sibling.check(pinned));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        let mut seen = BTreeSet::new();
        if let Some(twice) = files.iter().find(|file| !seen.insert(file.name.to_lowercase())) {
            return Err(HubError::new(Kind::FileName, &twice.name).because("another file has the same name"));
        }
        Ok(Self { commit: answer.sha, files })
    }
}

impl Sibling {
    fn check(self, pinned: &Pinned) -> Result<RemoteFile, HubError> {
        check_name(&self.rfilename)?;
        let wrong = |why| HubError::new(Kind::Answer, format!("{pinned}, {}", self.rfilename)).because(why);
        let (hash, bytes) = match &self.lfs {
            Some(lfs) => (Some(&lfs.sha256), lfs.size.or(self.size)),
            None => (self.blob.as_ref(), self.size),
        };
        let digest = hash.and_then(|hash| Digest::parse(hash));
        let digest = digest.ok_or_else(|| wrong("the hub lists no hash of it, so nothing could be checked"))?;
        let bytes = bytes.ok_or_else(|| wrong("the hub lists no length of it"))?;
        Ok(RemoteFile { name: self.rfilename, bytes, digest })
    }
}

/// Refuses names that would be written anywhere but below the directory they belong to, here or on another system.
pub(super) fn check_name(name: &str) -> Result<(), HubError> {
    let refuse = |why: &'static str| {
        let shown: String = name.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect();
        Err(HubError::new(Kind::FileName, shown).because(why))
    };
    if let Some(why) = path_fault(name) {
        return refuse(why);
    }
    if name.chars().any(char::is_control) {
        return refuse("holds a control character");
    }
    if name.len() > MAX_PATH || name.split('/').any(|part| part.len() > MAX_PART) {
        return refuse("is too long");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn parse(json: &str) -> Result<Listing, HubError> {
        Listing::parse(json.as_bytes(), &"a/b".parse().unwrap())
    }

    fn one(name: &str) -> String {
        let name = serde_json::Value::from(name);
        format!(r#"{{"sha":"{COMMIT}","siblings":[{{"rfilename":{name},"size":3,"blobId":"{COMMIT}"}}]}}"#)
    }

    #[test]
    fn names_that_leave_the_directory_are_refused() {
        assert_eq!(parse(&one("text/config.json")).unwrap().files[0].name, "text/config.json");
        let long = "a/".repeat(300) + "b";
        for name in [
            "../x",
            "a/../../x",
            "/etc/x",
            "a//b",
            "./x",
            "a/",
            "",
            "a\\b",
            "..\\x",
            "C:x",
            "x\0",
            "a\nb",
            "\u{7f}",
            &long,
        ] {
            assert_eq!(parse(&one(name)).unwrap_err().kind(), Kind::FileName, "{name:?}");
        }
        let twice = one("a")
            .replace("[{", r#"[{"rfilename":"A","size":1,"blobId":"0123456789abcdef0123456789abcdef01234567"},{"#);
        assert_eq!(parse(&twice).unwrap_err().kind(), Kind::FileName);
    }

    #[test]
    fn answers_without_commit_hash_or_length_are_refused() {
        let good = one("a");
        for (from, to) in [
            (format!("\"sha\":\"{COMMIT}\""), "\"sha\":\"main\"".to_owned()),
            (format!("\"blobId\":\"{COMMIT}\""), "\"blobId\":null".to_owned()),
            (format!("\"blobId\":\"{COMMIT}\""), "\"blobId\":\"../../x\"".to_owned()),
            ("\"size\":3".to_owned(), "\"size\":null".to_owned()),
            ("\"size\":3".to_owned(), "\"size\":-3".to_owned()),
            ("siblings".to_owned(), "files".to_owned()),
        ] {
            let text = good.replacen(&from, &to, 1);
            assert_ne!(text, good);
            assert_eq!(parse(&text).unwrap_err().kind(), Kind::Answer, "{text}");
        }
        let other = "1123456789abcdef0123456789abcdef01234567";
        let pinned = format!("a/b@{other}").parse().unwrap();
        assert_eq!(Listing::parse(good.as_bytes(), &pinned).unwrap_err().kind(), Kind::Answer);
    }

    proptest! {
        #[test]
        fn no_answer_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), name in ".{0,40}") {
            let pinned = "a/b".parse().unwrap();
            let _ = Listing::parse(&bytes, &pinned);
            if let Ok(listing) = Listing::parse(one(&name).as_bytes(), &pinned) {
                let path = std::path::Path::new(&listing.files[0].name);
                prop_assert!(path.components().all(|c| matches!(c, std::path::Component::Normal(_))));
            }
        }
    }
}
