//! gRPC: the only place that knows tonic and prost.
//!
//! `Server::build(config, sockets, backend).await?.run(shutdown).await`: the sockets listen from the start, so that
//! whoever starts the node can already ask it; health says `SERVING` when both stages are there.

mod admission;
mod auth;
mod convert;
mod intake;
mod metrics;
mod perception;
mod record;
mod replay;
pub mod settings;
mod socket;
mod status;
mod stream;
mod tls;
mod web;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tonic::service::interceptor::InterceptedService;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

pub use admission::Limits;
pub use auth::{Tokens, TokensError};
pub use record::{RecordConfig, Recording, RecordingError, RecordingErrorKind};
pub use replay::{Change, ReplayError, Report, TargetReport, replay};
pub use socket::{Sockets, UnixSocket};
pub use status::kind;
pub use tls::{Tls, TlsError, TlsFiles};

use crate::node::{ConfigError, Node, NodeConfig, Readiness, Stages};
use admission::Admission;
use auth::Guard;
use perception::Perception;
use record::Recorder;
use wire::perception_server::PerceptionServer;

/// The wire contract's messages, client and server, as compiled from `proto/sam4mllm/v1/perception.proto`.
#[allow(missing_docs, clippy::all)]
pub mod wire {
    tonic::include_proto!("sam4mllm.v1");

    /// The contract itself, encoded as a `FileDescriptorSet`.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/perception.bin"));
}

/// The service's full name; health is reported under it.
pub const SERVICE: &str = "sam4mllm.v1.Perception";
/// How long replies on their way have after the node has nothing left to do.
const FLUSH: Duration = Duration::from_millis(500);
/// A peer that does not answer a ping of this interval within it is gone, and its session with it.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Source: RFC 9113, section 6.9.1.
const HTTP2_MAX_WINDOW: u32 = (1 << 31) - 1;

/// Settings of a server.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// The node's.
    pub node: NodeConfig,
    /// What clients may open.
    pub limits: Limits,
    /// The largest message, in and out. Default: 32 MiB, room for raw rgb8 of 3840 x 2160. Range: 1 KiB..=1 GiB.
    pub max_message_bytes: usize,
    /// What a client may send ahead of the node's reading on one stream, and twice that on one connection: HTTP/2's
    /// flow-control windows. Below a frame's size the client waits for the node at least once a frame; above it memory
    /// is given to whoever connects. Default: 8 MiB, room for raw rgb8 of 1920 x 1080. Range: 64 KiB..=1 GiB.
    pub window_bytes: u32,
    /// The largest HTTP/2 frame that a client may send: the fewer a camera frame is cut into, the cheaper it is to
    /// receive. Default: 1 MiB. Range: 16 KiB..16 MiB.
    pub http2_frame_bytes: u32,
    /// How long the shutdown may take. Default: 10 s.
    pub grace: Duration,
    /// Where every stream is recorded. Default: nowhere.
    pub record: Option<RecordConfig>,
    /// An origin under which the page may be opened besides the node's own. Default: none.
    pub web_origin: Option<String>,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            node: NodeConfig::default(),
            limits: Limits::default(),
            max_message_bytes: 32 << 20,
            window_bytes: 8 << 20,
            http2_frame_bytes: 1 << 20,
            grace: Duration::from_secs(10),
            record: None,
            web_origin: None,
        }
    }
}

impl ServerConfig {
    /// Refuses what is out of range.
    ///
    /// # Errors
    /// The first setting at fault.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !(1 << 10..=1 << 30).contains(&self.max_message_bytes) {
            return Err(ConfigError::new("max_message_bytes", "must be in 1 KiB..=1 GiB"));
        }
        if !(1 << 16..=1 << 30).contains(&self.window_bytes) {
            return Err(ConfigError::new("window_bytes", "must be in 64 KiB..=1 GiB"));
        }
        if !(1 << 14..1 << 24).contains(&self.http2_frame_bytes) {
            return Err(ConfigError::new("http2_frame_bytes", "must be in 16 KiB..16 MiB"));
        }
        if self.web_origin.as_deref().is_some_and(|origin| !web::is_origin(origin)) {
            let what = "must be a scheme with a host and, if it is not the usual one, a port: https://robot.example";
            return Err(ConfigError::new("web_origin", what));
        }
        self.limits.validate()?;
        self.node.validate()
    }
}

/// What `Describe` says of the stages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// The bundle's name.
    pub name: String,
    /// The bundle's version.
    pub version: String,
    /// A hash over every file of the bundle; empty where there is none.
    pub fingerprint: String,
    /// What runs it.
    pub backend: String,
    /// The version of that.
    pub backend_version: String,
}

/// The stages and what they are.
pub struct Backend {
    /// What they are.
    pub identity: Identity,
    /// How they are built.
    pub stages: Stages,
}

/// The server could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// A setting is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The socket or a thread failed.
    #[error("start server")]
    Io(#[from] std::io::Error),
    /// There is no folder for recordings.
    #[error("make folder `{folder}` for recordings")]
    Record {
        /// The folder.
        folder: String,
        /// Why.
        source: std::io::Error,
    },
    /// A stage could not be built.
    #[error("start the stages: {0}")]
    Stages(String),
    /// The transport failed.
    #[error("serve")]
    Transport(#[from] tonic::transport::Error),
    /// The contract's descriptors do not satisfy reflection.
    #[error("set up reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A server on bound sockets.
pub struct Server {
    config: ServerConfig,
    sockets: Sockets,
    identity: Identity,
    node: Arc<Node>,
    recorder: Option<Arc<Recorder>>,
}

impl Server {
    /// Checks the settings and starts building the stages; does not wait for them.
    ///
    /// # Errors
    /// [`ServerError::Config`]; [`ServerError::Io`] where there are no threads; [`ServerError::Record`].
    pub async fn build(
        config: ServerConfig,
        sockets: impl Into<Sockets>,
        backend: Backend,
    ) -> Result<Self, ServerError> {
        let sockets = sockets.into();
        config.validate()?;
        let provenance = convert::provenance(&backend.identity);
        let record = config.record.clone().map(|record| {
            let folder = record.folder.display().to_string();
            let recorder = Recorder::new(record, replay::about(&provenance, &config.node, &backend));
            recorder.map(Arc::new).map_err(|source| ServerError::Record { folder, source })
        });
        let recorder = record.transpose()?;
        let node = Arc::new(Node::start(config.node.clone(), backend.stages)?);
        Ok(Self { config, sockets, identity: backend.identity, node, recorder })
    }

    /// Where it listens for TCP.
    ///
    /// # Errors
    /// Where it does not, or the socket does not know.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        let none = || std::io::Error::new(std::io::ErrorKind::AddrNotAvailable, "the node does not listen for TCP");
        self.sockets.tcp.as_ref().ok_or_else(none)?.local_addr()
    }

    /// Serves until `shutdown`, then finishes what is in work, ends the streams and returns.
    ///
    /// # Errors
    /// [`ServerError::Stages`] where a stage cannot be built; failures of the transport.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), ServerError> {
        let Self { config, sockets, identity, node, recorder } = self;
        let Sockets { tcp, tls, unix, tokens, metrics, web } = sockets;
        let admission = Admission::new(config.limits);
        let told = metrics::Told {
            node: node.clone(),
            admission: admission.clone(),
            identity: identity.clone(),
            recorder: recorder.clone(),
        };
        let _metrics = tell(metrics, told);
        let (reporter, health) = tonic_health::server::health_reporter();
        report(&reporter, ServingStatus::NotServing).await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()?;
        let provenance = Arc::new(convert::provenance(&identity));
        let guard = Guard { tokens, admission: admission.clone() };
        let max_message_bytes = config.max_message_bytes;
        let kept = recorder.clone();
        let perception = Perception { node: node.clone(), provenance, max_message_bytes, admission, recorder };
        let perception = Arc::new(perception);
        let page = web::Web::new(perception.clone(), guard.clone(), config.web_origin.clone());
        let page = web.map(|listener| page.serve(listener, tls.as_ref().map(Tls::over_http1)));
        let perception = PerceptionServer::from_arc(perception)
            .max_decoding_message_size(config.max_message_bytes)
            .max_encoding_message_size(config.max_message_bytes);
        let (stop, stopping) = oneshot::channel::<()>();
        let serving = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .initial_stream_window_size(config.window_bytes)
            .initial_connection_window_size(config.window_bytes.saturating_mul(2).min(HTTP2_MAX_WINDOW))
            .max_frame_size(config.http2_frame_bytes)
            .add_service(health)
            .add_service(InterceptedService::new(reflection, guard.clone()))
            .add_service(InterceptedService::new(perception, guard))
            .serve_with_incoming_shutdown(socket::incoming(tcp, tls, unix), async {
                let _ = stopping.await;
            });
        tokio::pin!(serving);
        tokio::select! {
            ended = &mut serving => return ended.map_err(ServerError::from),
            why = follow(&node, &reporter) => return Err(ServerError::Stages(why)),
            () = shutdown => {}
        }
        tracing::info!(grace = ?config.grace, "shutting down");
        report(&reporter, ServingStatus::NotServing).await;
        node.drain().await;
        let _ = stop.send(());
        let quiet = async {
            node.stopped().await;
            tokio::time::sleep(FLUSH).await;
        };
        // Open connections alone (a health watch, an idle client) do not hold the node up.
        let finished = async {
            let both = async {
                let ended = (&mut serving).await;
                if let Some(page) = page {
                    page.end().await;
                }
                ended.map_err(ServerError::from)
            };
            tokio::select! {
                ended = both => ended,
                () = quiet => Ok(()),
            }
        };
        let until = tokio::time::Instant::now() + config.grace;
        let ended = tokio::time::timeout_at(until, finished).await.unwrap_or_else(|_| {
            tracing::warn!("grace is over, leaving work unfinished");
            Ok(())
        });
        if let Some(recorder) = kept {
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            recorder.finish(left.max(FLUSH)).await;
        }
        ended
    }
}

/// Tells metrics for as long as the returned task is kept.
fn tell(listener: Option<TcpListener>, told: metrics::Told) -> Option<AbortOnDrop> {
    listener.map(|listener| AbortOnDrop(tokio::spawn(metrics::serve(listener, told))))
}

/// A task that ends with whoever holds it.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for service in ["", SERVICE] {
        reporter.set_service_status(service, status).await;
    }
}

/// Keeps health up to date; returns where the stages cannot even be started.
async fn follow(node: &Node, reporter: &HealthReporter) -> String {
    let mut readiness = node.readiness();
    let mut was_ready = false;
    loop {
        let now = readiness.borrow_and_update().clone();
        match now {
            Readiness::Ready => {
                was_ready = true;
                report(reporter, ServingStatus::Serving).await;
                tracing::info!("ready");
            }
            Readiness::Down(why) if !was_ready => return why,
            // The process goes on: what does not need that stage is still answered, and errors say why.
            Readiness::Down(_) | Readiness::Starting | Readiness::Draining => {
                report(reporter, ServingStatus::NotServing).await;
            }
        }
        if readiness.changed().await.is_err() {
            // The scheduler has ended; whoever drained it decides what is next.
            std::future::pending::<()>().await;
        }
    }
}
