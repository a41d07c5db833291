//! A node from a Rust program: frames and commands in, masks out. Knows no more than the wire contract.
//!
//! ```no_run
//! # async fn example(jpeg: Vec<u8>) -> Result<(), sam4mllm::client::ClientError> {
//! use sam4mllm::client::{Client, Reply, file_frame, masks};
//!
//! let mut client = Client::connect("http://127.0.0.1:50051").await?;
//! let mut stream = client.stream().await?;
//! stream.add("mug", "the mug left of the kettle").await?;
//! stream.frame(file_frame("jpeg", jpeg)).await?;
//! if let Some(Reply::Frame(frame)) = stream.reply().await? {
//!     for target in &frame.targets {
//!         println!("{} {:?} {} masks", target.target_id, target.verdict(), masks(target)?.len());
//!     }
//! }
//! # Ok(()) }
//! ```

mod access;
mod stream;

use std::time::{Duration, Instant};

use bytes::Bytes;
use tonic::codegen::InterceptedService;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

pub use access::Access;
pub use stream::{Receiver, Reply, Sender, Stream};

use crate::geometry::Size;
use crate::mask::{Mask, Rle, RleError};
use crate::server::wire;
use crate::server::wire::perception_client::PerceptionClient;

/// How often a node that is not ready yet is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// A call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There is no node at the address, or the address is none.
    #[error("connect to node")]
    Connect(#[from] tonic::transport::Error),
    /// Roots for the node's certificate, or one's own certificate or key, cannot be used.
    #[error("use certificate `{path}`")]
    Certificate {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The node refused the call or ended it.
    #[error("{}: {}", .0.code(), .0.message())]
    Status(#[from] Status),
    /// The node did not become ready.
    #[error("wait for node: not ready within {0:?}")]
    NotReady(Duration),
    /// The stream has ended: its reader knows why.
    #[error("send request: the stream has ended")]
    Ended,
    /// The token holds characters that no header may.
    #[error("use token: it is not plain ASCII")]
    Token,
    /// A mask is not what the contract says.
    #[error("read mask")]
    Mask(#[from] RleError),
    /// A mask came in a format that was not asked for.
    #[error("read mask: it has no run lengths")]
    MaskFormat,
}

/// Adds the bearer token to every call.
#[derive(Debug, Clone, Default)]
struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// A connection to a node; clones share it.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    perception: PerceptionClient<InterceptedService<Channel, Bearer>>,
}

impl Client {
    /// Connects to a node that takes plain text, such as `http://127.0.0.1:50051`.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub async fn connect(address: impl Into<String>) -> Result<Self, ClientError> {
        Ok(Self::over(Endpoint::from_shared(address.into())?.connect().await?))
    }

    /// A client over a channel that was made elsewhere: with TLS, over a Unix socket, to several nodes.
    pub fn over(channel: Channel) -> Self {
        Self::with(channel, Bearer::default())
    }

    /// The same with a bearer token in every call.
    ///
    /// # Errors
    /// [`ClientError::Token`].
    pub fn with_token(self, token: &str) -> Result<Self, ClientError> {
        let mut value: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| ClientError::Token)?;
        value.set_sensitive(true);
        Ok(Self::with(self.channel, Bearer(Some(value))))
    }

    fn with(channel: Channel, bearer: Bearer) -> Self {
        // A node's own limits are what counts; masks and evidence of many targets may take more than the usual 4 MiB.
        let perception = PerceptionClient::with_interceptor(channel.clone(), bearer)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        Self { channel, perception }
    }

    /// Waits until the node says that it serves.
    ///
    /// # Errors
    /// [`ClientError::NotReady`] after `within`; [`ClientError::Status`] where it does not answer.
    pub async fn ready(&self, within: Duration) -> Result<(), ClientError> {
        let mut health = HealthClient::new(self.channel.clone());
        let start = Instant::now();
        loop {
            let request = HealthCheckRequest { service: String::new() };
            if health.check(request).await?.into_inner().status() == ServingStatus::Serving {
                return Ok(());
            }
            if start.elapsed() > within {
                return Err(ClientError::NotReady(within));
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// What serves there: bundle, backend, limits, encodings.
    ///
    /// # Errors
    /// [`ClientError::Status`].
    pub async fn describe(&mut self) -> Result<wire::DescribeResponse, ClientError> {
        Ok(self.perception.describe(wire::DescribeRequest {}).await?.into_inner())
    }

    /// One image, one command, one answer.
    ///
    /// # Errors
    /// [`ClientError::Status`]; "no such object" is an answer.
    pub async fn segment(&mut self, request: wire::SegmentRequest) -> Result<wire::SegmentResponse, ClientError> {
        Ok(self.perception.segment(request).await?.into_inner())
    }

    /// A live camera.
    ///
    /// # Errors
    /// [`ClientError::Status`].
    pub async fn stream(&mut self) -> Result<Stream, ClientError> {
        Stream::open(&mut self.perception).await
    }
}

/// The frame of a file: `jpeg`, `png` or `webp`.
pub fn file_frame(encoding: &str, data: impl Into<Bytes>) -> wire::Frame {
    wire::Frame { encoding: encoding.into(), data: data.into(), ..wire::Frame::default() }
}

/// A frame of raw pixels, as `sensor_msgs/Image` has them: `height` rows of `step` bytes.
pub fn raw_frame(encoding: &str, width: u32, height: u32, step: u32, data: impl Into<Bytes>) -> wire::Frame {
    wire::Frame { encoding: encoding.into(), width, height, step, data: data.into(), ..wire::Frame::default() }
}

/// A verdict's word, as the contract has it: `FOUND`.
pub fn verdict_word(verdict: wire::Verdict) -> &'static str {
    verdict.as_str_name().trim_start_matches("VERDICT_")
}

/// An origin's word, as the contract has it: `TRACKED`.
pub fn origin_word(origin: wire::Origin) -> &'static str {
    origin.as_str_name().trim_start_matches("ORIGIN_")
}

/// The word for why a frame was dropped, as the contract has it: `SUPERSEDED`.
pub fn drop_word(reason: wire::DropReason) -> &'static str {
    reason.as_str_name().trim_start_matches("DROP_REASON_")
}

/// An instance's mask, in pixels of the frame as it was sent.
///
/// # Errors
/// [`ClientError::Mask`], [`ClientError::MaskFormat`].
pub fn mask(instance: &wire::Instance) -> Result<Mask, ClientError> {
    let mask = instance.mask.as_ref().ok_or(ClientError::MaskFormat)?;
    let Some(wire::mask::Data::CocoRle(text)) = &mask.data else { return Err(ClientError::MaskFormat) };
    Ok(Rle::from_coco_string(text, Size::new(mask.width, mask.height))?.decode()?)
}

/// The masks of a target's instances, in their order.
///
/// # Errors
/// Those of [`mask`].
pub fn masks(target: &wire::TargetResult) -> Result<Vec<Mask>, ClientError> {
    target.instances.iter().map(mask).collect()
}
