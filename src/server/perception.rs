//! The service: requests in, node calls, replies out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::admission::Admission;
use super::auth::Client;
use super::wire::perceive_request::Request as Asked;
use super::wire::{self, perception_server};
use super::{convert, status};
use crate::frame::{DepthEncoding, Encoding};
use crate::node::{self, End, MAX_TARGET_ID_BYTES, Node, NodeError, NodeErrorKind, Readiness, Replies, SessionInput};

type Outgoing = mpsc::Sender<Result<wire::PerceiveResponse, Status>>;

/// Implements the service over a node.
pub(super) struct Perception {
    pub node: Arc<Node>,
    pub provenance: Arc<wire::Provenance>,
    pub max_message_bytes: usize,
    pub admission: Arc<Admission>,
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
        let admitted = self.admission.stream(&client(&request)?)?;
        let opened = self.node.open_for(admitted.allowance.clone()).await;
        let (input, replies) = opened.map_err(|error| status::status(&error))?;
        // One reply on its way besides what the node holds: a slow reader shall get new frames, not a backlog.
        let (out, stream) = mpsc::channel(1);
        let reader = Reader { input, node: self.node.clone(), provenance: self.provenance.clone(), out: out.clone() };
        tokio::spawn(reader.read(request.into_inner()));
        let writing = write(replies, self.provenance.clone(), out);
        // The stream has its place until its last reply.
        tokio::spawn(async move {
            writing.await;
            drop(admitted);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn describe(&self, _: Request<wire::DescribeRequest>) -> Result<Response<wire::DescribeResponse>, Status> {
        let (config, about) = (self.node.config(), &*self.provenance);
        let narrow = |v: usize| u32::try_from(v).unwrap_or(u32::MAX);
        Ok(Response::new(wire::DescribeResponse {
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
        }))
    }
}

/// Who calls, as the guard found out.
fn client<T>(request: &Request<T>) -> Result<Arc<str>, Status> {
    let client = request.extensions().get::<Client>().map(|client| client.0.clone());
    client.ok_or_else(|| Status::internal("identify client: the call came past the guard"))
}

fn encoding_failed() -> Status {
    Status::new(Code::Internal, "encode reply: it panicked")
}

/// The client's side of a stream.
struct Reader {
    input: SessionInput,
    node: Arc<Node>,
    provenance: Arc<wire::Provenance>,
    out: Outgoing,
}

impl Reader {
    /// Takes requests until the client closes its side or stops reading.
    async fn read(mut self, mut inbound: Streaming<wire::PerceiveRequest>) {
        loop {
            let message = tokio::select! {
                message = inbound.message() => message,
                () = self.out.closed() => return,
            };
            let request = match message {
                Ok(Some(request)) => request,
                Ok(None) => return,
                Err(status) => {
                    // A message that is too large or no protocol buffer: what follows it cannot be told apart.
                    tracing::debug!(%status, "stream broke");
                    let _ = self.out.send(Err(status)).await;
                    return;
                }
            };
            if let Err(refused) = self.take(request)
                && self.out.send(Ok(*refused)).await.is_err()
            {
                return;
            }
        }
    }

    /// Hands one request to the session; what is refused comes back as the reply that says so.
    fn take(&mut self, request: wire::PerceiveRequest) -> Result<(), Box<wire::PerceiveResponse>> {
        let empty = || NodeError::new(NodeErrorKind::Request, "read request: it is empty");
        let Some(asked) = request.request else { return Err(Box::new(convert::rejected(None, None, &empty()))) };
        let (seq, target_id) = subject(&asked);
        let outcome = match asked {
            Asked::Frame(frame) => match convert::frame(frame, request.options) {
                Ok(frame) => self.input.submit(frame),
                Err(error) => {
                    self.input.refuse_frame();
                    Err(error)
                }
            },
            Asked::SetTargets(set) => {
                let specs: Result<Vec<_>, _> =
                    set.targets.into_iter().map(|t| convert::target(t, &self.node)).collect();
                specs.and_then(|specs| self.input.set_targets(specs))
            }
            Asked::AddTarget(t) => convert::target(t, &self.node).and_then(|spec| self.input.add_target(spec)),
            Asked::RemoveTarget(t) => self.input.remove_target(&t.target_id),
            Asked::RenameTarget(t) => self.input.rename_target(&t.target_id, t.new_target_id),
            Asked::PauseTarget(t) => self.input.pause_target(&t.target_id, true),
            Asked::ResumeTarget(t) => self.input.pause_target(&t.target_id, false),
            Asked::RegroundTarget(t) => self.input.reground_target(&t.target_id),
            Asked::Question(question) => {
                if let Err((id, error)) = self.ask(question, request.options) {
                    return Err(Box::new(convert::answer(id, Err(error), &self.provenance)));
                }
                Ok(())
            }
        };
        // An id that is too long is not sent back.
        let target_id = target_id.filter(|id| id.len() <= MAX_TARGET_ID_BYTES);
        outcome.map_err(|error| Box::new(convert::rejected(seq, target_id, &error)))
    }

    /// Asks a question, whose answer is sent when it comes.
    fn ask(&self, question: wire::Question, options: Option<wire::Options>) -> Result<(), (String, NodeError)> {
        let received = Instant::now();
        let wire::Question { question_id, command, hint, strategy } = question;
        if question_id.len() > MAX_TARGET_ID_BYTES {
            let what = format!("ask: an id of {} bytes, expected at most {MAX_TARGET_ID_BYTES}", question_id.len());
            return Err((String::new(), NodeError::new(NodeErrorKind::Request, what)));
        }
        let asked = convert::manner(hint, strategy).and_then(|manner| {
            let options = convert::options(options.unwrap_or_default())?;
            let deadline = options.budget.and_then(|budget| received.checked_add(budget));
            self.input.ask(self.node.target(String::new(), &command, manner), options, deadline)
        });
        match asked {
            Ok(asked) => {
                tokio::spawn(answer(asked, question_id, self.provenance.clone(), self.out.clone()));
                Ok(())
            }
            Err(error) => Err((question_id, error)),
        }
    }
}

/// Sends the answer to a question; until it is sent the question counts as open.
async fn answer(mut asked: node::Asked, id: String, provenance: Arc<wire::Provenance>, out: Outgoing) {
    let outcome = tokio::select! {
        outcome = asked.answer() => outcome,
        () = out.closed() => return,
    };
    let message = tokio::task::spawn_blocking(move || convert::answer(id, outcome, &provenance)).await;
    let _ = out.send(message.map_err(|_| encoding_failed())).await;
}

/// The frame or the target that a request is about.
fn subject(asked: &Asked) -> (Option<u64>, Option<String>) {
    let target = |id: &String| (None, Some(id.clone()));
    match asked {
        Asked::Frame(frame) => (Some(frame.seq), None),
        Asked::SetTargets(_) | Asked::Question(_) => (None, None),
        Asked::AddTarget(t) => target(&t.target_id),
        Asked::RemoveTarget(t) => target(&t.target_id),
        Asked::RenameTarget(t) => target(&t.target_id),
        Asked::PauseTarget(t) => target(&t.target_id),
        Asked::ResumeTarget(t) => target(&t.target_id),
        Asked::RegroundTarget(t) => target(&t.target_id),
    }
}

/// The node's side of a stream, until the session is over or nobody reads.
async fn write(mut replies: Replies, provenance: Arc<wire::Provenance>, out: Outgoing) {
    loop {
        let reply = tokio::select! {
            reply = replies.recv() => reply,
            () = out.closed() => return,
        };
        let message = match reply {
            Ok(reply) => {
                let provenance = provenance.clone();
                let message = tokio::task::spawn_blocking(move || convert::reply(reply, &provenance)).await;
                message.map_err(|_| encoding_failed())
            }
            Err(End::Finished) => return,
            Err(End::Draining) => Err(Status::new(Code::Unavailable, "serve stream: the node is shutting down")),
        };
        let last = message.is_err();
        if out.send(message).await.is_err() || last {
            return;
        }
    }
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
