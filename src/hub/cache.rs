//! The cache that the hub's own clients keep too: what one has fetched no other fetches again.
//!
//! ```text
//! models--organisation--name/
//!   blobs/HASH                  the bytes of a file, under what they hash to
//!   refs/main                   the commit that a branch or tag was last seen at
//!   snapshots/COMMIT/FILE       a link to its blob
//! .locks/models--organisation--name/HASH.lock
//! ```

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use super::digest::Digest;
use super::error::{HubError, HubErrorKind as Kind};
use super::listing::{Listing, RemoteFile, check_name};
use super::repo::{Pinned, Repo, is_hex};

/// Deepest directory tree of a snapshot that is looked through.
const MAX_DEPTH: usize = 16;

/// How often a lock that another process holds is tried.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// One repository's part of the cache.
#[derive(Debug, Clone)]
pub(super) struct RepoCache {
    dir: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    pub(super) fn new(cache: &Path, repo: &Repo) -> Self {
        let name = repo.cache_name();
        Self { dir: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    /// Where the bytes of that hash are, or would be.
    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(digest.as_str())
    }

    /// Where bytes of that hash gather.
    pub(super) fn incomplete(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs").join(format!("{}.incomplete", digest.as_str()))
    }

    /// The directory of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.dir.join("snapshots").join(commit)
    }

    /// Whether the blob of a file is there and its bytes are those of its hash.
    pub(super) fn holds(&self, file: &RemoteFile) -> Result<bool, HubError> {
        let blob = self.blob(&file.digest);
        if !self.has_length(file) {
            return Ok(false);
        }
        let mut hasher = file.digest.hasher(file.bytes);
        let bytes = hasher.read(&blob).map_err(|e| HubError::io(&blob, e))?;
        Ok(bytes == file.bytes && hasher.finish() == file.digest.as_str())
    }

    /// Whether a blob of the file's name and length is there.
    pub(super) fn has_length(&self, file: &RemoteFile) -> bool {
        fs::metadata(self.blob(&file.digest)).is_ok_and(|found| found.is_file() && found.len() == file.bytes)
    }

    /// Locks the blob of that hash against every other pull, of this program and of the hub's own clients; `waits` is
    /// called once where another holds it, `stopped` tells to give up.
    pub(super) fn lock(
        &self,
        digest: &Digest,
        waits: impl FnOnce(),
        stopped: impl Fn() -> bool,
    ) -> Result<File, HubError> {
        let path = self.locks.join(format!("{}.lock", digest.as_str()));
        let io = |e| HubError::io(&path, e);
        for dir in [&self.locks, &self.dir.join("blobs")] {
            fs::create_dir_all(dir).map_err(|e| HubError::io(dir, e))?;
        }
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
        let mut waits = Some(waits);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(e)) => return Err(io(e)),
                Err(TryLockError::WouldBlock) if stopped() => {
                    return Err(HubError::new(Kind::Stopped, digest.as_str()));
                }
                Err(TryLockError::WouldBlock) => {
                    if let Some(waits) = waits.take() {
                        waits();
                    }
                    thread::sleep(LOCK_POLL);
                }
            }
        }
    }

    /// Puts the link to a file's blob into the snapshot of a commit.
    pub(super) fn link(&self, commit: &str, file: &RemoteFile) -> Result<(), HubError> {
        let path = self.snapshot(commit).join(&file.name);
        let up = "../".repeat(2 + file.name.matches('/').count());
        let target = PathBuf::from(format!("{up}blobs/{}", file.digest.as_str()));
        if fs::read_link(&path).is_ok_and(|there| there == target) {
            return Ok(());
        }
        replace(&path, |part| symlink(&target, part)).map_err(|e| HubError::io(&path, e))
    }

    /// Remembers which commit a branch or tag is.
    pub(super) fn remember(&self, pinned: &Pinned, commit: &str) -> Result<(), HubError> {
        if pinned.revision.is_commit() {
            return Ok(());
        }
        let path = self.dir.join("refs").join(pinned.revision.as_str());
        // A cache that nobody may write to is as good as another one where all is there.
        if fs::read_to_string(&path).is_ok_and(|there| there.trim() == commit) {
            return Ok(());
        }
        replace(&path, |part| fs::write(part, commit)).map_err(|e| HubError::io(&path, e))
    }

    /// What the cache knows of a repository, as the hub would list it.
    ///
    /// # Errors
    /// [`Kind::Offline`] where it knows nothing of the revision, or holds files that are no links to blobs.
    pub(super) fn listing(&self, pinned: &Pinned) -> Result<Listing, HubError> {
        let absent = |why: String| HubError::new(Kind::Offline, pinned.to_string()).because(why);
        let commit = if pinned.revision.is_commit() {
            pinned.revision.as_str().to_owned()
        } else {
            let path = self.dir.join("refs").join(pinned.revision.as_str());
            let text = fs::read_to_string(&path).unwrap_or_default();
            Some(text.trim().to_owned())
                .filter(|commit| is_hex(commit, 40))
                .ok_or_else(|| absent(format!("{} names no commit; pull once with the hub at hand", path.display())))?
        };
        let mut files = Vec::new();
        self.walk(&commit, "", MAX_DEPTH, &mut files).map_err(|e| absent(e.to_string()))?;
        files.sort_by(|a, b| a.name.cmp(&b.name));
        if files.is_empty() {
            return Err(absent(format!("nothing of commit {commit} is in {}", self.dir.display())));
        }
        Ok(Listing { commit, files })
    }

    fn walk(&self, commit: &str, below: &str, depth: usize, files: &mut Vec<RemoteFile>) -> io::Result<()> {
        let dir = self.snapshot(commit).join(below);
        if depth == 0 {
            return Err(io::Error::other(format!("{} is nested too deeply", dir.display())));
        }
        if !dir.exists() {
            return Ok(());
        }
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let name = format!("{below}{}", entry.file_name().to_string_lossy());
            check_name(&name).map_err(|e| io::Error::other(e.told()))?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                self.walk(commit, &format!("{name}/"), depth - 1, files)?;
                continue;
            }
            let blob = fs::read_link(&path).ok().and_then(|to| to.file_name()?.to_str().and_then(Digest::parse));
            let no_link = || io::Error::other(format!("{} is no link to a blob, so it has no hash", path.display()));
            let digest = blob.ok_or_else(no_link)?;
            files.push(RemoteFile { name, bytes: fs::metadata(&path)?.len(), digest });
        }
        Ok(())
    }
}

/// Makes `path` anew with `make`, beside it first: whoever looks sees the old or the new one.
pub(super) fn replace(path: &Path, make: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let dir = path.parent().expect("a file has a directory");
    fs::create_dir_all(dir)?;
    let name = path.file_name().expect("a file has a name").to_string_lossy();
    let part = dir.join(format!(".{name}.{}", own_suffix()));
    let made = make(&part).and_then(|()| fs::rename(&part, path));
    // It is left where that failed, and where both are names of one file, for which a rename does nothing.
    match fs::remove_file(&part) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => made.and(Err(e)),
        _ => made,
    }
}

/// What no other process and no other thread puts behind a name, in other containers either, where every process may have
/// the same number.
fn own_suffix() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{:?}-{}", std::process::id(), thread::current().id(), now.as_nanos())
}
