//! The service: requests in, node calls, replies out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::admission::Admission;
use super::auth::Client;
use super::intake::Intake;
use super::record::Recorder;
use super::stream::{Outgoing, Reader, Requests, encoding_failed, write};
use super::wire::{self, perception_server};
use super::{convert, status};
use crate::frame::{DepthEncoding, Encoding};
use crate::node::{Node, NodeError, NodeErrorKind, Readiness, Witness};

/// Implements the service over a node.
pub(super) struct Perception {
    pub node: Arc<Node>,
    pub provenance: Arc<wire::Provenance>,
    pub max_message_bytes: usize,
    pub admission: Arc<Admission>,
    pub recorder: Option<Arc<Recorder>>,
}

#[tonic::async_trait]
impl perception_server::Perception for Perception {
    async fn segment(&self, request: Request<wire::SegmentRequest>) -> Result<Response<wire::SegmentResponse>, Status> {
        let received = Instant::now();
        let timeout = timeout(&request);
        self.admission.call(&client(&request)?)?;
        let request = request.into_inner();
        let answer = async {
            let missing = || NodeError::new(NodeErrorKind::Request, "read request: it has no frame");
            let frame = convert::frame(request.frame.ok_or_else(missing)?, request.options)?;
            let manner = convert::manner(request.hint, request.strategy)?;
            let limit = timeout.into_iter().chain(frame.options.budget).min();
            let deadline = limit.and_then(|limit| received.checked_add(limit));
            self.node.segment(frame, &request.command, manner, deadline).await
        };
        let reply = answer.await.map_err(|error| status::status(&error))?;
        let provenance = self.provenance.clone();
        let response = tokio::task::spawn_blocking(move || convert::segment_response(&reply, &provenance)).await;
        response.map(Response::new).map_err(|_| encoding_failed())
    }

    type PerceiveStream = ReceiverStream<Result<wire::PerceiveResponse, Status>>;

    async fn perceive(
        &self,
        request: Request<Streaming<wire::PerceiveRequest>>,
    ) -> Result<Response<Self::PerceiveStream>, Status> {
        let client = client(&request)?;
        Ok(Response::new(ReceiverStream::new(self.open(&client, request.into_inner()).await?)))
    }

    async fn describe(&self, _: Request<wire::DescribeRequest>) -> Result<Response<wire::DescribeResponse>, Status> {
        Ok(Response::new(self.about()))
    }
}

impl Perception {
    /// Opens a stream of `client` and takes its requests; the replies, or why it ended.
    ///
    /// # Errors
    /// Where the client has too many, memory is short, or the node takes none.
    pub(super) async fn open(
        &self,
        client: &Arc<str>,
        requests: impl Requests,
    ) -> Result<mpsc::Receiver<Result<wire::PerceiveResponse, Status>>, Status> {
        let admitted = self.admission.stream(client)?;
        let record = self.recorder.as_ref().and_then(|recorder| recorder.stream());
        let witness = record.clone().map(|record| record as Arc<dyn Witness>);
        let opened = self.node.open_for(admitted.allowance.clone(), witness).await;
        let (input, replies) = opened.map_err(|error| status::status(&error))?;
        // One reply on its way besides what the node holds: a slow reader shall get new frames, not a backlog.
        let (client, outgoing) = mpsc::channel(1);
        let out = Outgoing { client, record };
        let intake = Intake { phrasing: self.node.phrasing(), provenance: self.provenance.clone() };
        tokio::spawn(Reader { input, intake, out: out.clone() }.read(requests));
        let writing = write(replies, self.provenance.clone(), out);
        // The stream has its place until its last reply.
        tokio::spawn(async move {
            writing.await;
            drop(admitted);
        });
        Ok(outgoing)
    }

    /// What serves here.
    pub(super) fn about(&self) -> wire::DescribeResponse {
        let (config, about) = (self.node.config(), &*self.provenance);
        let narrow = |v: usize| u32::try_from(v).unwrap_or(u32::MAX);
        wire::DescribeResponse {
            node_version: about.node_version.clone(),
            bundle_name: about.bundle_name.clone(),
            bundle_version: about.bundle_version.clone(),
            bundle_fingerprint: about.bundle_fingerprint.clone(),
            backend: about.engine.clone(),
            provenance: Some(about.clone()),
            limits: Some(wire::Limits {
                max_message_bytes: self.max_message_bytes as u64,
                max_frame_pixels: config.frame.max_pixels,
                max_frame_side: config.frame.max_side,
                max_command_bytes: narrow(config.max_command_bytes),
                max_targets: narrow(config.max_targets),
                max_sessions: narrow(config.max_sessions),
                max_calls: narrow(config.max_calls),
            }),
            encodings: Encoding::names().map(str::to_owned).collect(),
            depth_encodings: DepthEncoding::ALL.map(|e| e.name().to_owned()).to_vec(),
            strategies: self.node.strategies().all().map(|s| convert::strategy(s).into()).collect(),
            default_strategy: convert::strategy(self.node.strategies().usual()).into(),
            ready: *self.node.readiness().borrow() == Readiness::Ready,
        }
    }
}

/// Who calls, as the guard found out.
fn client<T>(request: &Request<T>) -> Result<Arc<str>, Status> {
    let client = request.extensions().get::<Client>().map(|client| client.0.clone());
    client.ok_or_else(|| Status::internal("identify client: the call came past the guard"))
}

/// The caller's time limit. Source: gRPC over HTTP/2, "Timeout".
fn timeout<T>(request: &Request<T>) -> Option<Duration> {
    let text = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read() {
        let cases = [
            ("5S", Some(Duration::from_secs(5))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("123456789S", None),
            ("S", None),
            ("", None),
            ("5x", None),
            ("-5S", None),
        ];
        for (text, expected) in cases {
            let mut request = Request::new(());
            request.metadata_mut().insert("grpc-timeout", text.parse().expect("ascii"));
            assert_eq!(timeout(&request), expected, "{text:?}");
        }
    }
}
