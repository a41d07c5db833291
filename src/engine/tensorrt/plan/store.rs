//! The plan cache: plans under the hash of their keys, each with a record beside it.
//!
//! A plan and its record appear by renaming, the record last; a record names the plan's hash, so the two belong
//! together or are not used. One builder at a time works on an entry: it holds a lock on a file beside it, which the
//! system releases with the process.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::super::backend::Device;
use super::super::error::{TensorRtError, TensorRtErrorKind as Kind};
use super::super::safe::Version;
use super::key::{PlanKey, hex};

/// Longest record that is read, in bytes; a real one has a few hundred.
const MAX_RECORD_BYTES: u64 = 1 << 16;

/// What is written beside a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRecord {
    /// What it depends on.
    pub key: PlanKey,
    /// Number of the network's layers, before fusion.
    pub layers: usize,
    /// How long parsing and building took, in seconds.
    pub seconds: f64,
    /// The plan's size.
    pub bytes: u64,
    /// The plan's SHA-256, in hex.
    pub sha256: String,
}

impl PlanRecord {
    /// The record of the plan at `path`, whatever it is for.
    ///
    /// # Errors
    /// [`Kind::Cache`] for a file that cannot be read, [`Kind::Plan`] for one that is no record.
    pub fn read(plan: &Path) -> Result<Self, TensorRtError> {
        let record = record_path(plan);
        let length = fs::metadata(&record).map_err(|e| TensorRtError::file(&record, e))?.len();
        if length > MAX_RECORD_BYTES {
            return Err(broken(plan, format!("its record has {length} bytes, more than {MAX_RECORD_BYTES}")));
        }
        let text = fs::read(&record).map_err(|e| TensorRtError::file(&record, e))?;
        serde_json::from_slice(&text).map_err(|e| broken(plan, format!("its record: {e}")))
    }
}

fn broken(plan: &Path, why: String) -> TensorRtError {
    TensorRtError::new(Kind::Plan, format!("plan `{}`", plan.display()), why)
}

/// A plan in the cache.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    path: PathBuf,
    record: PlanRecord,
}

impl Plan {
    /// The plan at `path`, if it is one for `key`. Its bytes are checked by [`read`](Self::read).
    ///
    /// # Errors
    /// [`Kind::Cache`] for files that cannot be read, [`Kind::Plan`] for a record that is not one or a plan of another
    /// size, [`Kind::Foreign`] for a plan of another key, with what differs.
    pub fn open(path: &Path, key: &PlanKey) -> Result<Self, TensorRtError> {
        let record = PlanRecord::read(path)?;
        if record.key != *key {
            let why = format!("it was built for something else: {}", key.differences(&record.key).join("; "));
            return Err(TensorRtError::new(Kind::Foreign, format!("plan `{}`", path.display()), why));
        }
        let bytes = fs::metadata(path).map_err(|e| TensorRtError::file(path, e))?.len();
        if bytes != record.bytes {
            return Err(broken(path, format!("it has {bytes} bytes, its record says {}", record.bytes)));
        }
        Ok(Self { path: path.to_owned(), record })
    }

    /// Whether it was built for TensorRT `version` and for `device`.
    ///
    /// # Errors
    /// [`Kind::Foreign`] with what it was built for.
    pub fn check_machine(&self, version: Version, device: &Device) -> Result<(), TensorRtError> {
        let (key, sm) = (&self.record.key, format!("sm{}", device.sm()));
        let here = [sm.clone(), format!("{sm} {}", device.name())].contains(&key.device);
        if here && key.tensorrt == version.to_string() {
            return Ok(());
        }
        let (built, found) =
            (format!("{} on {}", key.tensorrt, key.device), format!("{version} on {sm} {}", device.name()));
        let why = format!("it was built for {built}, and this machine has {found}");
        Err(TensorRtError::new(Kind::Foreign, format!("plan `{}`", self.path.display()), why))
    }

    /// Reads the plan whole.
    ///
    /// # Errors
    /// [`Kind::Cache`] for a file that cannot be read, [`Kind::Plan`] for one whose hash is not its record's.
    pub fn read(&self) -> Result<Vec<u8>, TensorRtError> {
        let bytes = fs::read(&self.path).map_err(|e| TensorRtError::file(&self.path, e))?;
        if hex(&Sha256::digest(&bytes)) == self.record.sha256 {
            return Ok(bytes);
        }
        let why = "its hash is not its record's; delete it and build it again";
        Err(TensorRtError::new(Kind::Plan, format!("plan `{}`", self.path.display()), why))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is written beside it.
    pub fn record(&self) -> &PlanRecord {
        &self.record
    }
}

/// The folder that plans are kept in.
#[derive(Debug, Clone)]
pub struct PlanStore {
    dir: PathBuf,
}

impl PlanStore {
    /// The cache in `dir`, which is made where it is missing.
    ///
    /// # Errors
    /// [`Kind::Cache`] where it cannot be made.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, TensorRtError> {
        let dir = dir.as_ref();
        fs::create_dir_all(dir).map_err(|e| TensorRtError::file(dir, e))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Where the plan of `key` is, or goes.
    pub fn path(&self, key: &PlanKey) -> PathBuf {
        self.dir.join(format!("{}-{}.plan", key.graph, key.digest()))
    }

    /// The plan of `key`, whole; `None` where there is none. One that is there and unfit is said in the log and
    /// counts as none, so that it is built again.
    pub fn find(&self, key: &PlanKey) -> Option<Plan> {
        let plan = self.look(key)?;
        plan.read().inspect_err(|error| tracing::warn!(%error, "plan is built again")).ok()?;
        Some(plan)
    }

    /// As [`find`](Self::find), but its bytes are not read: whoever reads them finds whether they are whole.
    pub fn look(&self, key: &PlanKey) -> Option<Plan> {
        let path = self.path(key);
        if !record_path(&path).exists() {
            return None;
        }
        Plan::open(&path, key).inspect_err(|error| tracing::warn!(%error, "plan is built again")).ok()
    }

    /// Waits until no other builder works on `key`, and keeps others out until the lock is dropped.
    ///
    /// # Errors
    /// [`Kind::Cache`] where the lock's file cannot be made or locked.
    pub(super) fn lock(&self, key: &PlanKey) -> Result<File, TensorRtError> {
        let path = self.path(key).with_extension("lock");
        let file = |e| TensorRtError::file(&path, e);
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(file)?;
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(fs::TryLockError::WouldBlock) => {
                tracing::info!(graph = key.graph, "waiting for another builder of this plan");
            }
            Err(fs::TryLockError::Error(e)) => return Err(file(e)),
        }
        lock.lock().map_err(file)?;
        Ok(lock)
    }

    /// Writes a plan and its record.
    ///
    /// # Errors
    /// [`Kind::Cache`] where they cannot be written.
    pub(super) fn put(&self, key: &PlanKey, plan: &[u8], layers: usize, seconds: f64) -> Result<Plan, TensorRtError> {
        let (path, sha256) = (self.path(key), hex(&Sha256::digest(plan)));
        let record = PlanRecord { key: key.clone(), layers, seconds, bytes: plan.len() as u64, sha256 };
        let text = serde_json::to_vec_pretty(&record).expect("a record is text and numbers");
        // An old record must not stand beside a new plan, however this ends.
        remove(&record_path(&path))?;
        write_whole(&path, plan)?;
        write_whole(&record_path(&path), &text)?;
        Ok(Plan { path, record })
    }

    /// The timings that builds for this device and TensorRT have collected; empty where there are none.
    pub(super) fn timings(&self, key: &PlanKey) -> Vec<u8> {
        fs::read(self.timings_path(key)).unwrap_or_default()
    }

    /// Keeps timings for the next build.
    ///
    /// # Errors
    /// [`Kind::Cache`] where they cannot be written.
    pub(super) fn put_timings(&self, key: &PlanKey, timings: &[u8]) -> Result<(), TensorRtError> {
        write_whole(&self.timings_path(key), timings)
    }

    fn timings_path(&self, key: &PlanKey) -> PathBuf {
        let digest = Sha256::digest(format!("{}\n{}", key.tensorrt, key.device));
        self.dir.join(format!("timings-{}.cache", hex(&digest[..8])))
    }
}

fn record_path(plan: &Path) -> PathBuf {
    plan.with_extension("json")
}

fn remove(path: &Path) -> Result<(), TensorRtError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(TensorRtError::file(path, e)),
        _ => Ok(()),
    }
}

/// Writes a file under another name and renames it, so that it is there whole or not at all, after a power cut too.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), TensorRtError> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let part = path.with_extension(format!("{}-{count}.part", std::process::id()));
    let write = || {
        let mut file = File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)
    };
    write().map_err(|e| {
        let _ = fs::remove_file(&part);
        TensorRtError::file(path, e)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key() -> PlanKey {
        let mut key = PlanKey::new("decoder", b"graph");
        key.tensorrt = "TensorRT for RTX 1.7.1".into();
        key.device = "sm86".into();
        key
    }

    #[test]
    fn a_plan_comes_back_under_its_key_only() {
        let dir = tempfile::tempdir().unwrap();
        let store = PlanStore::open(dir.path()).unwrap();
        assert_eq!(store.find(&key()), None);
        let plan = store.put(&key(), b"plan", 7, 0.5).unwrap();
        assert_eq!(store.find(&key()), Some(plan.clone()));
        assert_eq!(plan.read().unwrap(), b"plan");
        let other = PlanKey { device: "sm89".into(), ..key() };
        assert_eq!(store.find(&other), None);
    }

    #[test]
    fn a_plan_of_another_version_is_refused_with_both() {
        let dir = tempfile::tempdir().unwrap();
        let store = PlanStore::open(dir.path()).unwrap();
        let plan = store.put(&key(), b"plan", 7, 0.5).unwrap();
        let newer = PlanKey { tensorrt: "TensorRT for RTX 1.8.0".into(), ..key() };
        let error = Plan::open(plan.path(), &newer).unwrap_err();
        assert_eq!(error.kind(), Kind::Foreign);
        let text = error.to_string();
        assert!(text.contains("1.7.1") && text.contains("1.8.0") && !text.contains("device"), "{text}");
    }

    #[test]
    fn a_broken_plan_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let store = PlanStore::open(dir.path()).unwrap();
        let plan = store.put(&key(), b"plan", 7, 0.5).unwrap();
        for damage in [&b"plam"[..], b"pla", b""] {
            fs::write(plan.path(), damage).unwrap();
            assert_eq!(store.find(&key()), None, "{damage:?}");
        }
        let plan = store.put(&key(), b"plan", 7, 0.5).unwrap();
        for damage in [&b"{"[..], b"{}", &vec![b' '; MAX_RECORD_BYTES as usize + 1]] {
            fs::write(record_path(plan.path()), damage).unwrap();
            assert_eq!(store.find(&key()), None);
        }
        fs::remove_file(record_path(plan.path())).unwrap();
        assert_eq!(store.find(&key()), None);
    }

    #[test]
    fn a_second_builder_waits() {
        let dir = tempfile::tempdir().unwrap();
        let store = PlanStore::open(dir.path()).unwrap();
        let lock = store.lock(&key()).unwrap();
        let (other, (send, receive)) = (store.clone(), std::sync::mpsc::channel());
        let waiting = std::thread::spawn(move || {
            let lock = other.lock(&key()).unwrap();
            send.send(other.find(&key()).is_some()).unwrap();
            drop(lock);
        });
        store.put(&key(), b"plan", 7, 0.5).unwrap();
        assert!(receive.try_recv().is_err());
        drop(lock);
        assert!(receive.recv().unwrap(), "the second builder finds the first one's plan");
        waiting.join().unwrap();
    }
}
