//! Streams written down, each to an MCAP file of its own: requests, replies, and the schedule between them.
//!
//! A stream never waits for its recording. What is to be written goes through a bounded queue to a thread that does
//! nothing else; where the queue is full, the disk is, or the file has reached its limit, that recording stops for good
//! (half a schedule would repeat nothing), an error is logged and counted, and the stream goes on.
//!
//! `proto/sam4mllm/recording/v1/recording.proto` says what is in a file.

mod file;
mod guard;
mod read;
mod schedule;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use prost::Message as _;

pub(super) use schedule::from_wire as step;

pub use read::{Entry, Recording, RecordingError, RecordingErrorKind};

use super::wire;
use crate::node::{Step, Witness};
use crate::pipeline::Drafting;
use file::{Item, RecordFile, Said};

/// Messages as generated from `proto/sam4mllm/recording/v1/recording.proto`.
#[allow(missing_docs, clippy::all)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/recording/sam4mllm.recording.v1.rs"));

    /// Messages that Foxglove's viewers know.
    pub mod foxglove {
        include!(concat!(env!("OUT_DIR"), "/recording/foxglove.rs"));
    }
}

/// Bytes that may wait to be written, of one stream; a single message may have more.
const QUEUE_BYTES: usize = 64 << 20;
/// Messages that may wait to be written, of one stream.
const QUEUE_ITEMS: usize = 4096;
/// What a message takes besides its frame.
const ITEM_BYTES: usize = 512;

/// Where recordings go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordConfig {
    /// The folder; made where it is not there.
    pub folder: PathBuf,
    /// The largest file, in bytes; a recording that reaches it stops.
    pub max_bytes: u64,
    /// How answers are guessed; kept for the replay, for words that are checked together and one by one may differ in
    /// the last bit of a probability.
    pub draft: Drafting,
}

/// What every file says of the node: names with values.
pub(super) type About = std::collections::BTreeMap<String, String>;

/// Records streams.
pub(super) struct Recorder {
    config: RecordConfig,
    about: Arc<About>,
    /// Files so far.
    files: AtomicU64,
    failed: Arc<AtomicU64>,
    live: Mutex<Vec<(Weak<StreamRecord>, Arc<AtomicBool>)>>,
}

impl Recorder {
    /// Makes the folder.
    ///
    /// # Errors
    /// Where that fails.
    pub(super) fn new(config: RecordConfig, mut about: About) -> std::io::Result<Self> {
        std::fs::create_dir_all(&config.folder)?;
        about.insert("draft".to_owned(), config.draft.word().to_owned());
        let (files, failed) = (AtomicU64::new(0), Arc::default());
        Ok(Self { config, about: Arc::new(about), files, failed, live: Mutex::default() })
    }

    /// Recordings that could not be begun, or had to stop.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Begins the recording of a stream, whose file is made when there is something to write: a stream that is refused
    /// leaves none. `None` where there is no thread for it, which is logged and counted.
    pub(super) fn stream(&self) -> Option<Arc<StreamRecord>> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let number = self.files.fetch_add(1, Ordering::Relaxed) + 1;
        let path = self.config.folder.join(format!("{}-{number}.mcap", since.as_millis()));
        let file = path.clone();
        let open = move || std::fs::File::create_new(file).map(|file| Box::new(file) as Box<dyn file::Out>);
        match StreamRecord::begin(&path, open, self) {
            Ok(record) => {
                let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
                live.retain(|(_, done)| !done.load(Ordering::Acquire));
                live.push((Arc::downgrade(&record), record.done.clone()));
                Some(record)
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                tracing::error!(path = %path.display(), %error, "begin recording failed, the stream is not recorded");
                None
            }
        }
    }

    /// Ends all recordings and waits for their files, but no longer than `patience`.
    pub(super) async fn finish(&self, patience: Duration) {
        let live = std::mem::take(&mut *self.live.lock().unwrap_or_else(PoisonError::into_inner));
        live.iter().filter_map(|(record, _)| record.upgrade()).for_each(|record| record.end());
        let until = Instant::now() + patience;
        while live.iter().any(|(_, done)| !done.load(Ordering::Acquire)) {
            if Instant::now() > until {
                return tracing::warn!("grace is over, leaving recordings unfinished");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The recording of one stream.
pub(super) struct StreamRecord {
    queue: SyncSender<Item>,
    shared: Arc<Shared>,
    /// When it began; times of steps count from here.
    start: Instant,
    done: Arc<AtomicBool>,
}

/// What a recording and its thread know of each other.
struct Shared {
    path: PathBuf,
    /// Bytes in the queue.
    queued: AtomicUsize,
    alive: AtomicBool,
    failed: Arc<AtomicU64>,
}

impl Shared {
    /// Stops the recording; the first call says why.
    fn stop(&self, why: &str) {
        if self.alive.swap(false, Ordering::AcqRel) {
            self.failed.fetch_add(1, Ordering::Relaxed);
            tracing::error!(path = %self.path.display(), why, "recording stopped, the stream goes on without");
        }
    }
}

impl StreamRecord {
    fn begin(
        path: &Path,
        open: impl FnOnce() -> std::io::Result<Box<dyn file::Out>> + Send + 'static,
        recorder: &Recorder,
    ) -> std::io::Result<Arc<Self>> {
        let (queue, inbox) = sync_channel(QUEUE_ITEMS);
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            queued: AtomicUsize::new(0),
            alive: AtomicBool::new(true),
            failed: recorder.failed.clone(),
        });
        let (theirs, about, max_bytes) = (shared.clone(), recorder.about.clone(), recorder.config.max_bytes);
        let done = Arc::new(AtomicBool::new(false));
        let over = done.clone();
        std::thread::Builder::new().name("record".to_owned()).spawn(move || {
            write(open, &inbox, (&about, max_bytes), &theirs);
            over.store(true, Ordering::Release);
        })?;
        Ok(Arc::new(Self { queue, shared, start: Instant::now(), done }))
    }

    /// The request number `number` of the stream, as it came.
    pub(super) fn request(&self, number: u64, request: &wire::PerceiveRequest) {
        self.put(request.encoded_len(), || Said::Request(number, Box::new(request.clone())));
    }

    /// A reply, as it was made.
    pub(super) fn reply(&self, reply: &wire::PerceiveResponse) {
        self.put(reply.encoded_len(), || Said::Reply(Box::new(reply.clone())));
    }

    /// Ends it before the stream does.
    fn end(&self) {
        self.put(0, || Said::End);
    }

    fn put(&self, bytes: usize, said: impl FnOnce() -> Said) {
        if !self.shared.alive.load(Ordering::Acquire) {
            return;
        }
        let bytes = bytes + ITEM_BYTES;
        let waiting = self.shared.queued.fetch_add(bytes, Ordering::AcqRel);
        let full = waiting > 0 && waiting + bytes > QUEUE_BYTES;
        let item = || Item { at: SystemTime::now(), bytes, said: said() };
        if full || matches!(self.queue.try_send(item()), Err(TrySendError::Full(_))) {
            self.shared.stop("the disk is too slow for the stream");
        }
    }
}

impl Witness for StreamRecord {
    fn saw(&self, step: Step) {
        self.put(0, || Said::Step(schedule::to_wire(&step, self.start)));
    }
}

/// Writes what comes until nothing can follow.
fn write(
    open: impl FnOnce() -> std::io::Result<Box<dyn file::Out>>,
    inbox: &Receiver<Item>,
    (about, max_bytes): (&About, u64),
    shared: &Shared,
) {
    let Ok(first) = inbox.recv() else { return };
    let mut file =
        match open().map_err(file::WriteError::from).and_then(|out| RecordFile::create(out, about, max_bytes)) {
            Ok(file) => file,
            Err(error) => return shared.stop(&error.to_string()),
        };
    tracing::info!(path = %shared.path.display(), "recording");
    for item in std::iter::once(first).chain(inbox) {
        shared.queued.fetch_sub(item.bytes, Ordering::AcqRel);
        if !shared.alive.load(Ordering::Acquire) || matches!(item.said, Said::End) {
            break;
        }
        if let Err(error) = file.write(item) {
            shared.stop(&error.to_string());
            break;
        }
    }
    // What there is stays readable where the disk takes its end.
    if let Err(error) = file.finish() {
        shared.stop(&error.to_string());
    }
    shared.alive.store(false, Ordering::Release);
}

#[cfg(test)]
mod tests;
