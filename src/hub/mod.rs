//! Checkpoints from a Hugging Face hub, or from a mirror of one: pinned, checked, resumed, and from the cache where they
//! are there already.
//!
//! ```text
//! organisation/name@revision ─▶ listing (commit, names, lengths, hashes) ─▶ selection ─▶ room
//!                                                                                         │
//!            directory ◀── snapshot ◀── blob, renamed ◀── hash checked ◀── bytes, resumed ┘
//! ```
//!
//! The hub is not trusted: names, lengths and hashes are checked before any is used, an answer has a greatest length, and
//! nothing takes its final name whose bytes are not those of its hash. Only what the commit's own listing says is
//! believed about a file; what storage it comes from does not matter then.
//!
//! [`recipe`] says which two checkpoints make a bundle.

pub mod recipe;

mod cache;
mod client;
mod digest;
mod error;
mod fetch;
mod listing;
mod options;
mod place;
mod progress;
mod refusal;
mod repo;
mod room;
mod select;
mod token;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

pub use error::{HubError, HubErrorKind};
pub use options::{Asked, DEFAULT_ENDPOINT, HubOptions, Patience, TokenFrom};
pub use progress::Progress;
pub use repo::{DEFAULT_REVISION, Pinned, Repo, Revision, read_pinned};
pub use select::Selection;
pub use token::Token;

use cache::RepoCache;
use client::Client;
use error::HubErrorKind as Kind;
use fetch::{Source, patiently};
use listing::{Listing, RemoteFile};
use room::Room;

use crate::engine::bundle::LINKED_BYTES;

/// A hub, or its cache alone.
#[derive(Debug)]
pub struct Hub {
    options: HubOptions,
    /// None where the hub may not be asked.
    client: Option<Client>,
}

/// What is to be pulled: the files of a repository at one commit.
#[derive(Debug)]
pub struct Plan {
    pinned: Pinned,
    commit: String,
    files: Vec<RemoteFile>,
    cache: RepoCache,
    out: Option<PathBuf>,
}

/// What was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pulled {
    /// The commit that the revision stands for.
    pub commit: String,
    /// The directory that holds the files: the one that was asked for, else the cache's own of that commit.
    pub dir: PathBuf,
    /// The files.
    pub files: Vec<PulledFile>,
}

/// A file that was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PulledFile {
    /// Its path below the directory.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Whether it was fetched rather than found in the cache.
    pub fetched: bool,
}

impl Plan {
    /// What was asked for.
    pub fn pinned(&self) -> &Pinned {
        &self.pinned
    }

    /// The commit that the revision stands for: 40 hex digits.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// Number of files, and their bytes together.
    pub fn size(&self) -> (usize, u64) {
        (self.files.len(), self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes)))
    }
}

impl Hub {
    /// Prepares to ask a hub; asks nothing yet.
    ///
    /// # Errors
    /// [`HubErrorKind::Endpoint`], [`HubErrorKind::Token`], [`HubErrorKind::Tls`].
    pub fn new(options: HubOptions) -> Result<Self, HubError> {
        let client = if options.offline { None } else { Some(Client::new(&options)?) };
        Ok(Self { options, client })
    }

    /// Finds out what is to be pulled, into `out` or into the cache alone.
    ///
    /// # Errors
    /// A repository or revision that is not there or not open to this user, a listing that cannot be believed, a selection
    /// that fits nothing.
    pub fn plan(
        &self,
        pinned: &Pinned,
        selection: &Selection,
        out: Option<&Path>,
        progress: &dyn Progress,
    ) -> Result<Plan, HubError> {
        let cache = RepoCache::new(&self.options.cache, &pinned.repo);
        let listing = match &self.client {
            None => cache.listing(pinned)?,
            Some(client) => self.list(client, pinned, progress)?,
        };
        let files = selection.choose(&pinned.to_string(), listing.files).map_err(|error| match &self.client {
            Some(_) => error,
            None => HubError::new(Kind::Offline, pinned.to_string()).because(error),
        })?;
        Ok(Plan { pinned: pinned.clone(), commit: listing.commit, files, cache, out: out.map(Path::to_owned) })
    }

    fn list(&self, client: &Client, pinned: &Pinned, progress: &dyn Progress) -> Result<Listing, HubError> {
        let revision = utf8_percent_encode(pinned.revision.as_str(), NON_ALPHANUMERIC);
        let address = client.address(&format!("api/models/{}/revision/{revision}?blobs=true", pinned.repo));
        let place = pinned.to_string();
        let source = self.source(client, pinned.repo.as_str(), "", progress, &|| false);
        let json = patiently(&source, &place, || client.read(&address, &place).map_err(|failure| (failure, 0)))?;
        Listing::parse(&json, pinned)
    }

    fn source<'a>(
        &self,
        client: &'a Client,
        repo: &'a str,
        commit: &'a str,
        progress: &'a dyn Progress,
        stopped: &'a (dyn Fn() -> bool + Sync),
    ) -> Source<'a> {
        Source { client, repo, commit, patience: self.options.patience, progress, stopped }
    }

    /// Holds what all of `plans` still need against the free space of the file systems they go to.
    ///
    /// # Errors
    /// [`HubErrorKind::Disk`] with both numbers.
    pub fn check_room(&self, plans: &[&Plan]) -> Result<(), HubError> {
        let mut room = Room::default();
        for plan in plans {
            let together = match &plan.out {
                Some(out) => room::are_together(&self.options.cache, out).map_err(|e| HubError::io(out, e))?,
                None => true,
            };
            for file in &plan.files {
                if !plan.cache.has_length(file) {
                    let there = std::fs::metadata(plan.cache.incomplete(&file.digest)).map_or(0, |part| part.len());
                    room.add(&self.options.cache, file.bytes.saturating_sub(there))?;
                }
                if let Some(out) = plan.out.as_ref().filter(|_| !together || file.bytes < LINKED_BYTES) {
                    room.add(out, file.bytes)?;
                }
            }
        }
        room.check()
    }

    /// Carries a plan out: several files at once, each whole and checked before it takes its name. A file that is in the
    /// cache is hashed there and not fetched.
    ///
    /// # Errors
    /// The first failure; what has come until then stays in the cache, and the next pull goes on from there.
    pub fn carry_out(&self, plan: &Plan, progress: &dyn Progress) -> Result<Pulled, HubError> {
        let queue = Mutex::new(plan.files.iter().enumerate());
        let done = Mutex::new(Vec::new());
        let failed: Mutex<Option<HubError>> = Mutex::new(None);
        let stop = AtomicBool::new(false);
        let stopped = || stop.load(Ordering::Relaxed);
        let work = || {
            while let Some((i, file)) = locked(&queue).next() {
                match self.obtain(plan, file, progress, &stopped) {
                    Ok(file) => locked(&done).push((i, file)),
                    Err(error) => {
                        // First: who sees the stop fails too, of that alone.
                        locked(&failed).get_or_insert(error);
                        stop.store(true, Ordering::Relaxed);
                    }
                }
                if stopped() {
                    return;
                }
            }
        };
        thread::scope(|scope| (0..self.options.jobs.clamp(1, 16)).for_each(|_| drop(scope.spawn(work))));
        if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        plan.cache.remember(&plan.pinned, &plan.commit)?;
        let mut files = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        files.sort_by_key(|(i, _)| *i);
        let dir = plan.out.clone().unwrap_or_else(|| plan.cache.snapshot(&plan.commit));
        Ok(Pulled { commit: plan.commit.clone(), dir, files: files.into_iter().map(|(_, file)| file).collect() })
    }

    /// One file, into the cache and from there to where it is wanted.
    fn obtain(
        &self,
        plan: &Plan,
        file: &RemoteFile,
        progress: &dyn Progress,
        stopped: &(dyn Fn() -> bool + Sync),
    ) -> Result<PulledFile, HubError> {
        progress.begin(&file.name, file.bytes);
        let blob = plan.cache.blob(&file.digest);
        let fetched = !plan.cache.holds(file)? && self.fetch(plan, file, progress, stopped)?;
        plan.cache.link(&plan.commit, file)?;
        if let Some(out) = &plan.out {
            place::place(&blob, &out.join(&file.name))?;
        }
        progress.reach(&file.name, file.bytes);
        progress.end(&file.name);
        Ok(PulledFile { name: file.name.clone(), bytes: file.bytes, fetched })
    }

    /// Fetches a file that the cache does not hold; `false` where another pull did so meanwhile.
    fn fetch(
        &self,
        plan: &Plan,
        file: &RemoteFile,
        progress: &dyn Progress,
        stopped: &(dyn Fn() -> bool + Sync),
    ) -> Result<bool, HubError> {
        let Some(client) = &self.client else {
            let why = "the cache holds other bytes than its hash says; pull once with the hub at hand";
            return Err(HubError::new(Kind::Offline, &file.name).because(why));
        };
        let waits = || progress.wait(&file.name, "another pull is fetching it");
        let _lock = plan.cache.lock(&file.digest, waits, stopped)?;
        if plan.cache.holds(file)? {
            return Ok(false);
        }
        let source = self.source(client, plan.pinned.repo.as_str(), &plan.commit, progress, stopped);
        source.fetch(file, &plan.cache.incomplete(&file.digest), &plan.cache.blob(&file.digest))?;
        Ok(true)
    }
}

/// Reads a hub's answer about a repository: the commit, and the names of its files, all of them plain relative paths.
///
/// # Errors
/// [`HubErrorKind::Answer`], [`HubErrorKind::FileName`].
pub fn read_listing(json: &[u8], pinned: &Pinned) -> Result<(String, Vec<String>), HubError> {
    let listing = Listing::parse(json, pinned)?;
    Ok((listing.commit, listing.files.into_iter().map(|file| file.name).collect()))
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
