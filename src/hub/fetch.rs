//! One file from the hub into the cache: resumed where it was cut off, checked before it takes its name.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ureq::http::header::{CONTENT_RANGE, ETAG};
use ureq::http::{HeaderMap, StatusCode};

use super::client::{Answer, Client, Failure, Start, broken};
use super::digest::{Digest, Hasher};
use super::error::{HubError, HubErrorKind as Kind};
use super::listing::RemoteFile;
use super::options::Patience;
use super::progress::Progress;

/// What stands for itself in a path of an address.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// Bytes after which a connection counts as one that works, so that tries are counted anew.
const GOOD_BYTES: u64 = 1 << 20;

/// How often a pause looks whether the pull has been stopped.
const POLL: Duration = Duration::from_millis(50);

/// What all files of a pull have in common.
pub(super) struct Source<'a> {
    pub client: &'a Client,
    /// `organisation/name`.
    pub repo: &'a str,
    pub commit: &'a str,
    pub patience: Patience,
    pub progress: &'a dyn Progress,
    /// Whether another file's failure ended the pull.
    pub stopped: &'a (dyn Fn() -> bool + Sync),
}

/// Repeats `attempt` while it fails in passing, patiently; `attempt` gives its failure with the bytes it got before.
pub(super) fn patiently<T>(
    source: &Source<'_>,
    name: &str,
    mut attempt: impl FnMut() -> Result<T, (Failure, u64)>,
) -> Result<T, HubError> {
    let mut failures = 0;
    loop {
        let (error, after) = match attempt() {
            Ok(value) => return Ok(value),
            Err((Failure::Lasting(error), _)) => return Err(error),
            Err((Failure::Passing(error, after), bytes)) => {
                failures = if bytes >= GOOD_BYTES { 1 } else { failures + 1 };
                (error, after.map(Duration::from_secs))
            }
        };
        let pause = after.unwrap_or_else(|| source.patience.pause(failures));
        if failures >= source.patience.tries || pause > source.patience.longest {
            return Err(error);
        }
        source.progress.wait(name, &format!("{}; again in {:.0} s", error.told(), pause.as_secs_f64()));
        source.sleep(pause)?;
    }
}

impl Source<'_> {
    fn sleep(&self, pause: Duration) -> Result<(), HubError> {
        let start = Instant::now();
        while start.elapsed() < pause {
            self.check_stopped()?;
            thread::sleep(POLL.min(pause.saturating_sub(start.elapsed())));
        }
        Ok(())
    }

    fn check_stopped(&self) -> Result<(), HubError> {
        if (self.stopped)() { Err(HubError::new(Kind::Stopped, self.repo)) } else { Ok(()) }
    }

    /// Fetches `file` to `part`, going on where that ends, then gives it the name `blob`. Nothing takes that name whose
    /// bytes are not those of its hash.
    pub(super) fn fetch(&self, file: &RemoteFile, part: &Path, blob: &Path) -> Result<(), HubError> {
        let mut download = Download { source: self, file, part, tag: None, resumed: false, furthest: 0, kept: None };
        patiently(self, &file.name, || {
            let mut got = 0;
            download.attempt(&mut got).map_err(|failure| (failure, got))
        })?;
        fs::rename(part, blob).map_err(|e| HubError::io(blob, e))
    }
}

/// A file on its way.
struct Download<'a> {
    source: &'a Source<'a>,
    file: &'a RemoteFile,
    part: &'a Path,
    /// Which edition the bytes in `part` are of, where the storage says so.
    tag: Option<String>,
    /// Whether `part` holds bytes that this process has not seen come.
    resumed: bool,
    /// The most bytes that were ever there; only those beyond are progress.
    furthest: u64,
    /// The hash of so many bytes of `part`, from the connection before.
    kept: Option<(Hasher, u64)>,
}

impl Download<'_> {
    /// One connection; `got` becomes the bytes that came over it beyond all that came before.
    fn attempt(&mut self, got: &mut u64) -> Result<(), Failure> {
        let (mut hasher, mut have) = self.look()?;
        if have < self.file.bytes || self.file.bytes == 0 && !self.part.exists() {
            let address = self.address();
            let from = Start { byte: have, tag: self.tag.clone() };
            let answer = self.source.client.get(&address, &from, &self.file.name)?;
            self.check_head(&answer.first)?;
            if !self.continues(&answer, have)? {
                (hasher, have) = (self.file.digest.hasher(self.file.bytes), 0);
                self.resumed = false;
            }
            self.tag = strong_tag(answer.last.headers());
            if let Err(failure) = self.copy(answer, &mut hasher, &mut have, got) {
                self.kept = Some((hasher, have));
                return Err(failure);
            }
        }
        self.check_hash(hasher)
    }

    /// What is there already: its hash so far and its length.
    fn look(&mut self) -> Result<(Hasher, u64), HubError> {
        let is_there = |length: u64| fs::metadata(self.part).is_ok_and(|found| found.len() == length);
        let (hasher, have) = match self.kept.take().filter(|(_, length)| is_there(*length)) {
            Some(kept) => kept,
            None => self.read()?,
        };
        self.resumed |= have > 0 && self.tag.is_none();
        self.furthest = self.furthest.max(have);
        self.source.progress.reach(&self.file.name, have);
        Ok((hasher, have))
    }

    /// The hash of the part, and its length. What cannot be a beginning of the file is thrown away.
    fn read(&self) -> Result<(Hasher, u64), HubError> {
        let io = |e| HubError::io(self.part, e);
        let mut hasher = self.file.digest.hasher(self.file.bytes);
        let have = match fs::metadata(self.part) {
            Ok(found) if found.len() <= self.file.bytes => hasher.read(self.part).map_err(io)?,
            Ok(_) => {
                fs::remove_file(self.part).map_err(io)?;
                0
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
            Err(e) => return Err(io(e)),
        };
        Ok((hasher, have))
    }

    fn address(&self) -> String {
        let Source { client, repo, commit, .. } = self.source;
        client.address(&format!("{repo}/resolve/{commit}/{}", utf8_percent_encode(&self.file.name, PLAIN)))
    }

    /// The hub's own answer names the commit and the hash: another one is refused before its bytes come.
    fn check_head(&self, headers: &HeaderMap) -> Result<(), HubError> {
        let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(commit) = value("x-repo-commit").filter(|commit| *commit != self.source.commit) {
            let why = format!("the hub sends it of commit {commit}, not {}", self.source.commit);
            return Err(HubError::new(Kind::Answer, &self.file.name).because(why));
        }
        let tag = value("x-linked-etag").and_then(|tag| Digest::parse(tag.trim_start_matches("W/").trim_matches('"')));
        match tag.filter(|tag| *tag != self.file.digest) {
            None => Ok(()),
            Some(tag) => Err(self.wrong_hash(tag.as_str())),
        }
    }

    /// Whether the answer goes on at `have` rather than beginning the file anew.
    fn continues(&self, answer: &Answer, have: u64) -> Result<bool, Failure> {
        let status = answer.last.status();
        if status == StatusCode::RANGE_NOT_SATISFIABLE {
            self.discard()?;
            return Err(Failure::Passing(HubError::new(Kind::Status, &self.file.name).because("status 416"), None));
        }
        if status != StatusCode::PARTIAL_CONTENT {
            return Ok(false);
        }
        let range = answer.last.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let last = self.file.bytes.saturating_sub(1);
        let expected = format!("bytes {have}-{last}/{}", self.file.bytes);
        // Some storages leave out the total.
        let without_total = format!("bytes {have}-{last}/*");
        if range == Some(&*expected) || range == Some(&*without_total) {
            return Ok(have > 0);
        }
        let why = format!("it sends the range `{}`, not `{expected}`", range.unwrap_or_default());
        Err(HubError::new(Kind::Answer, &self.file.name).because(why).into())
    }

    /// Writes the bytes that come behind the `have` that are there, and counts them; `hasher` takes in as many.
    fn copy(&mut self, answer: Answer, hasher: &mut Hasher, have: &mut u64, got: &mut u64) -> Result<(), Failure> {
        let io = |e| HubError::io(self.part, e);
        let mut file = File::options().create(true).truncate(false).write(true).open(self.part).map_err(io)?;
        file.set_len(*have).map_err(io)?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(*have)).map_err(io)?;
        let mut body = answer.last.into_body().into_with_config().limit(u64::MAX).reader();
        let mut piece = vec![0; 256 << 10];
        let mut total = *have;
        self.source.progress.reach(&self.file.name, total);
        loop {
            self.source.check_stopped()?;
            let n = body.read(&mut piece).map_err(|e| broken(ureq::Error::from(e), &self.file.name))?;
            if n == 0 {
                break;
            }
            total += n as u64;
            *got += total.saturating_sub(self.furthest);
            self.furthest = self.furthest.max(total);
            if total > self.file.bytes {
                self.discard()?;
                return Err(self.wrong_size("more than").into());
            }
            file.write_all(&piece[..n]).map_err(io)?;
            hasher.update(&piece[..n]);
            *have = total;
            self.source.progress.reach(&self.file.name, total);
        }
        file.sync_data().map_err(io)?;
        if total < self.file.bytes {
            return Err(Failure::Passing(self.wrong_size(&format!("{total} bytes came of")), None));
        }
        Ok(())
    }

    /// Holds the hash of the whole against the hub's. After a resumption the beginning may be what is wrong, and the file
    /// is fetched anew.
    fn check_hash(&mut self, hasher: Hasher) -> Result<(), Failure> {
        let hash = hasher.finish();
        if hash == self.file.digest.as_str() {
            return Ok(());
        }
        self.discard()?;
        let error = self.wrong_hash(&hash);
        if std::mem::take(&mut self.resumed) { Err(Failure::Passing(error, Some(0))) } else { Err(error.into()) }
    }

    fn discard(&self) -> Result<(), HubError> {
        match fs::remove_file(self.part) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(HubError::io(self.part, e)),
            _ => Ok(()),
        }
    }

    fn wrong_size(&self, what: &str) -> HubError {
        HubError::new(Kind::Size, &self.file.name).because(format!("{what} the {} that the hub lists", self.file.bytes))
    }

    fn wrong_hash(&self, hash: &str) -> HubError {
        HubError::new(Kind::Hash, &self.file.name)
            .because(format!("{hash}, the hub lists {}", self.file.digest.as_str()))
    }
}

/// The tag of an edition, where it stands for its very bytes.
fn strong_tag(headers: &HeaderMap) -> Option<String> {
    let tag = headers.get(ETAG).and_then(|tag| tag.to_str().ok())?;
    (tag.starts_with('"') && tag.len() <= 256).then(|| tag.to_owned())
}
