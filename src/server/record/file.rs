//! One recording on its way to the disk.

use std::collections::BTreeMap;
use std::io::{BufWriter, Seek, Write};
use std::time::SystemTime;

use mcap::records::{MessageHeader, Metadata};
use prost::Message;

use super::proto::{self, foxglove};
use super::{About, wire};
use crate::frame::Encoding;
use crate::server::convert::camera;
use wire::perceive_request::Request;

/// What the metadata record of every recording is called.
pub(super) const METADATA: &str = "sam4mllm.recording";
pub(super) const REQUESTS: &str = "/requests";
pub(super) const CAMERA: &str = "/camera";
pub(super) const SCHEDULE: &str = "/schedule";
pub(super) const REPLIES: &str = "/replies";

const RECORDING_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/recording.bin"));
const FOXGLOVE_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/foxglove.bin"));

/// A chunk is closed beyond that many bytes: what a crash may cost.
const CHUNK_BYTES: u64 = 1 << 20;

/// Where bytes go.
pub(super) trait Out: Write + Seek + Send {}
impl<T: Write + Seek + Send> Out for T {}

/// Something to be written.
pub(super) struct Item {
    /// When it came.
    pub at: SystemTime,
    /// What it counts in the queue.
    pub bytes: usize,
    pub said: Said,
}

pub(super) enum Said {
    /// Under its number.
    Request(u64, Box<wire::PerceiveRequest>),
    Step(proto::Step),
    Reply(Box<wire::PerceiveResponse>),
    /// There is no more.
    End,
}

/// Why writing ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error("the file has reached its limit of {0} bytes (record_max_mib)")]
    Limit(u64),
    #[error("open recording: {0}")]
    Open(#[from] std::io::Error),
    #[error("write recording: {}", cause(.0))]
    Mcap(#[from] mcap::McapError),
}

/// The system's own words where it was the system: the library's do not have them.
fn cause(error: &mcap::McapError) -> String {
    match error {
        mcap::McapError::Io(error) => error.to_string(),
        other => other.to_string(),
    }
}

/// An open recording.
pub(super) struct RecordFile {
    writer: mcap::Writer<BufWriter<Box<dyn Out>>>,
    requests: u16,
    camera: u16,
    schedule: u16,
    replies: u16,
    counts: [u32; 2],
    written: u64,
    max_bytes: u64,
}

impl RecordFile {
    /// Writes what the file begins with.
    pub(super) fn create(out: Box<dyn Out>, about: &About, max_bytes: u64) -> Result<Self, WriteError> {
        // Pictures are compressed already.
        let options = mcap::WriteOptions::new().compression(None).chunk_size(Some(CHUNK_BYTES));
        let options = options.library(concat!("sam4mllm ", env!("CARGO_PKG_VERSION")));
        let mut writer = options.create(BufWriter::new(out))?;
        let mut channel = |topic: &str, message: &str, descriptors: &[u8]| {
            let schema = writer.add_schema(message, "protobuf", descriptors)?;
            writer.add_channel(schema, topic, "protobuf", &BTreeMap::new())
        };
        let requests = channel(REQUESTS, "sam4mllm.v1.PerceiveRequest", wire::DESCRIPTORS)?;
        let camera = channel(CAMERA, "foxglove.CompressedImage", FOXGLOVE_DESCRIPTORS)?;
        let schedule = channel(SCHEDULE, "sam4mllm.recording.v1.Step", RECORDING_DESCRIPTORS)?;
        let replies = channel(REPLIES, "sam4mllm.v1.PerceiveResponse", wire::DESCRIPTORS)?;
        writer.write_metadata(&Metadata { name: METADATA.to_owned(), metadata: about.clone() })?;
        Ok(Self { writer, requests, camera, schedule, replies, counts: [0; 2], written: 0, max_bytes })
    }

    /// Writes one item; after an error the file takes no more.
    pub(super) fn write(&mut self, item: Item) -> Result<(), WriteError> {
        match item.said {
            Said::Request(number, request) => {
                let number = number as u32;
                let (request, picture) = split(*request, item.at);
                if let Some(picture) = picture {
                    self.message((self.camera, number), item.at, &picture)?;
                }
                self.message((self.requests, number), item.at, &request)
            }
            Said::Step(step) => {
                self.counts[0] = self.counts[0].wrapping_add(1);
                self.message((self.schedule, self.counts[0]), item.at, &step)
            }
            Said::Reply(reply) => {
                self.counts[1] = self.counts[1].wrapping_add(1);
                self.message((self.replies, self.counts[1]), item.at, &*reply)
            }
            Said::End => Ok(()),
        }
    }

    fn message(&mut self, place: (u16, u32), at: SystemTime, message: &impl Message) -> Result<(), WriteError> {
        let data = message.encode_to_vec();
        self.written += data.len() as u64;
        if self.written > self.max_bytes {
            return Err(WriteError::Limit(self.max_bytes));
        }
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let log_time = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let (channel_id, sequence) = place;
        let header = MessageHeader { channel_id, sequence, log_time, publish_time: log_time };
        Ok(self.writer.write_to_known_channel(&header, &data)?)
    }

    /// Writes the index and closes the file.
    pub(super) fn finish(mut self) -> Result<(), WriteError> {
        self.writer.finish()?;
        self.writer.into_inner().flush().map_err(mcap::McapError::from)?;
        Ok(())
    }
}

/// A picture is written once, where viewers find it: the request goes without.
fn split(
    mut request: wire::PerceiveRequest,
    at: SystemTime,
) -> (wire::PerceiveRequest, Option<foxglove::CompressedImage>) {
    let Some(Request::Frame(frame)) = &mut request.request else { return (request, None) };
    let format = match camera::encoding(&frame.encoding, frame.encoding_id) {
        Ok(encoding @ (Encoding::Jpeg | Encoding::Png | Encoding::Webp)) => encoding.name(),
        _ => return (request, None),
    };
    let picture = foxglove::CompressedImage {
        timestamp: Some(at.into()),
        data: std::mem::take(&mut frame.data),
        format: format.to_owned(),
        frame_id: frame.optical_frame.clone(),
    };
    (request, Some(picture))
}
