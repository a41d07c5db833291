//! Recordings as they are read again. What is in them is outside input like any other.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use mcap::McapError;
use mcap::records::{Record, op};
use mcap::sans_io::linear_reader::{LinearReadEvent, LinearReader, LinearReaderOptions};
use prost::Message;

use super::file::{CAMERA, METADATA, REPLIES, REQUESTS, SCHEDULE};
use super::guard::{Walk, strings_fit};
use super::proto::{self, foxglove};
use super::{About, wire};
use wire::perceive_request::Request;

/// The longest record: a message of the largest size that a node takes, with its chunk.
const MAX_RECORD_BYTES: usize = 1 << 31;
/// How much is read at a time, whatever the file says of its own lengths.
const READ_BYTES: usize = 1 << 20;

/// Kinds of [`RecordingError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordingErrorKind {
    /// The file cannot be read.
    Io,
    /// It ends before its end, as after a crash or on a full disk.
    Truncated,
    /// It is not what was written.
    Damaged,
    /// It is no recording of a stream.
    Foreign,
}

/// A recording cannot be read; says why, and how many bytes had been read by then.
#[derive(Debug, thiserror::Error)]
#[error("read recording, near byte {at}: {what}")]
pub struct RecordingError {
    kind: RecordingErrorKind,
    at: u64,
    what: String,
}

impl RecordingError {
    /// What kind of failure this is.
    pub fn kind(&self) -> RecordingErrorKind {
        self.kind
    }

    /// Bytes of the file that had been read.
    pub fn at(&self) -> u64 {
        self.at
    }
}

/// One thing in a recording.
#[derive(Debug)]
pub enum Entry {
    /// A request under its number in the stream, from 1 on.
    Request(u64, Box<wire::PerceiveRequest>),
    /// What the scheduler did.
    Step(proto::Step),
    /// A reply.
    Reply(Box<wire::PerceiveResponse>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Topic {
    Requests,
    Camera,
    Schedule,
    Replies,
}

/// A recording, read from its beginning to its end.
pub struct Recording {
    input: Box<dyn Read + Send>,
    /// Of the input, in bytes; `u64::MAX` where that is not known.
    length: u64,
    reader: LinearReader,
    walk: Walk,
    read: u64,
    contents: Contents,
}

/// What is known of the file so far.
#[derive(Default)]
struct Contents {
    topics: HashMap<u16, Topic>,
    about: Option<About>,
    /// The last picture, for the request of the same number.
    picture: Option<(u32, Bytes)>,
}

impl Recording {
    /// Opens a file and reads what it says of itself.
    ///
    /// # Errors
    /// Where it cannot be read, or is no recording.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let bad = |error: std::io::Error| RecordingError {
            kind: RecordingErrorKind::Io,
            at: 0,
            what: format!("{}: {error}", path.display()),
        };
        let file = std::fs::File::open(path).map_err(bad)?;
        let about = file.metadata().map_err(bad)?;
        // A pipe does not say how long it is.
        Self::new(Box::new(file), if about.is_file() { about.len() } else { u64::MAX })
    }

    /// As [`Recording::open`], from anything that has the bytes, which are `length` at most: no memory is taken for
    /// records that claim to be longer.
    ///
    /// # Errors
    /// Likewise.
    pub fn new(input: Box<dyn Read + Send>, length: u64) -> Result<Self, RecordingError> {
        let limit = usize::try_from(length).map_or(MAX_RECORD_BYTES, |length| length.min(MAX_RECORD_BYTES));
        let options = LinearReaderOptions::default()
            .with_prevalidate_chunk_crcs(true)
            .with_validate_data_section_crc(true)
            .with_validate_summary_section_crc(true)
            .with_record_length_limit(limit);
        let reader = LinearReader::new_with_options(options);
        let mut recording = Self { input, length, reader, walk: Walk::new(), read: 0, contents: Contents::default() };
        while recording.contents.about.is_none() {
            if !matches!(recording.advance()?, Some(None)) {
                let what = format!(
                    "there is no metadata {METADATA} before the first message: was it written by serve --record?"
                );
                return Err(recording.error(RecordingErrorKind::Foreign, what));
            }
        }
        Ok(recording)
    }

    /// What it says of the node that wrote it.
    pub(in super::super) fn about(&self) -> &About {
        self.contents.about.as_ref().expect("is read when it is opened")
    }

    /// What it says under `key`; empty where it does not.
    pub fn says(&self, key: &str) -> &str {
        self.about().get(key).map_or("", String::as_str)
    }

    /// What made its answers.
    pub fn provenance(&self) -> wire::Provenance {
        let said = |key: &str| self.says(key).to_owned();
        wire::Provenance {
            bundle_name: said("bundle_name"),
            bundle_version: said("bundle_version"),
            bundle_fingerprint: said("bundle_fingerprint"),
            engine: said("engine"),
            engine_version: said("engine_version"),
            node_version: said("node_version"),
        }
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// Where it is damaged or truncated; then nothing follows.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, RecordingError> {
        loop {
            match self.advance()? {
                None => return Ok(None),
                Some(Some(entry)) => return Ok(Some(entry)),
                Some(None) => {}
            }
        }
    }

    /// An error where the reading is now.
    pub(in super::super) fn error(&self, kind: RecordingErrorKind, what: impl Into<String>) -> RecordingError {
        RecordingError { kind, at: self.read, what: what.into() }
    }

    /// One record on: `None` at the end, `Some(None)` where it was no entry.
    fn advance(&mut self) -> Result<Option<Option<Entry>>, RecordingError> {
        let (kind, what) = match self.reader.next_event() {
            None => return Ok(None),
            Some(Ok(LinearReadEvent::ReadRequest(want))) => {
                let space = self.reader.insert(want.min(READ_BYTES));
                let got = loop {
                    match self.input.read(space) {
                        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                        got => break got,
                    }
                };
                match got {
                    Ok(got) if !self.walk.feed(&space[..got]) => {
                        (RecordingErrorKind::Damaged, "a chunk is shorter than it says".into())
                    }
                    Ok(got) => {
                        self.read += got as u64;
                        self.reader.notify_read(got);
                        return Ok(Some(None));
                    }
                    Err(error) => (RecordingErrorKind::Io, error.to_string()),
                }
            }
            Some(Ok(LinearReadEvent::Record { data, opcode })) => match self.contents.take(opcode, data) {
                Ok(entry) => return Ok(Some(entry)),
                Err(fault) => fault,
            },
            // Nothing is compressed, so what is longer than the file goes beyond its end.
            Some(Err(McapError::RecordTooLarge { .. } | McapError::ChunkTooLarge(_))) if self.length != u64::MAX => {
                self.read = self.length;
                (RecordingErrorKind::Truncated, "a record goes beyond the end of the file".into())
            }
            Some(Err(error)) => (kind(&error), error.to_string()),
        };
        Err(self.error(kind, what))
    }
}

fn kind(error: &McapError) -> RecordingErrorKind {
    match error {
        McapError::UnexpectedEof => RecordingErrorKind::Truncated,
        McapError::BadMagic => RecordingErrorKind::Foreign,
        McapError::Io(_) => RecordingErrorKind::Io,
        _ => RecordingErrorKind::Damaged,
    }
}

type Fault = (RecordingErrorKind, String);

fn message<M: Message + Default>(topic: &str, data: &[u8]) -> Result<M, Fault> {
    M::decode(data).map_err(|error| (RecordingErrorKind::Damaged, format!("decode a message on {topic}: {error}")))
}

impl Contents {
    fn take(&mut self, opcode: u8, data: &[u8]) -> Result<Option<Entry>, Fault> {
        // Of the others nothing is needed; checksums guard them as well.
        if !matches!(opcode, op::HEADER | op::CHANNEL | op::METADATA | op::MESSAGE) {
            return Ok(None);
        }
        if !strings_fit(opcode, data) {
            return Err((RecordingErrorKind::Damaged, "a string goes beyond the end of its record".into()));
        }
        let record = mcap::parse_record(opcode, data).map_err(|error| (kind(&error), error.to_string()))?;
        match record {
            Record::Channel(channel) => {
                let topic = match channel.topic.as_str() {
                    REQUESTS => Topic::Requests,
                    CAMERA => Topic::Camera,
                    SCHEDULE => Topic::Schedule,
                    REPLIES => Topic::Replies,
                    // Somebody may have added something.
                    _ => return Ok(None),
                };
                self.topics.insert(channel.id, topic);
                Ok(None)
            }
            Record::Metadata(metadata) if metadata.name == METADATA => {
                self.about = Some(metadata.metadata);
                Ok(None)
            }
            Record::Message { header, data } => match self.topics.get(&header.channel_id) {
                Some(Topic::Requests) => self.request(header.sequence, &data).map(Some),
                Some(Topic::Camera) => {
                    let picture: foxglove::CompressedImage = message(CAMERA, &data)?;
                    self.picture = Some((header.sequence, picture.data));
                    Ok(None)
                }
                Some(Topic::Schedule) => Ok(Some(Entry::Step(message(SCHEDULE, &data)?))),
                Some(Topic::Replies) => Ok(Some(Entry::Reply(Box::new(message(REPLIES, &data)?)))),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// A request with its picture back in its place.
    fn request(&mut self, number: u32, data: &[u8]) -> Result<Entry, Fault> {
        let mut request: wire::PerceiveRequest = message(REQUESTS, data)?;
        if let Some(Request::Frame(frame)) = &mut request.request
            && let Some((_, picture)) = self.picture.take_if(|(of, _)| *of == number)
        {
            frame.data = picture;
        }
        Ok(Entry::Request(number.into(), Box::new(request)))
    }
}
