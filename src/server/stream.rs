//! One stream, whatever it comes over: requests into the session, replies out of it.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use super::convert;
use super::intake::{Intake, Taken};
use super::record::StreamRecord;
use super::wire;
use crate::node::{self, End, NodeError, Replies, Reply, SessionInput};

/// What a client says next.
pub(super) enum Heard {
    /// A request.
    Request(Box<wire::PerceiveRequest>),
    /// Something that is none; the next message may be one.
    Garbled(NodeError),
    /// It has closed its side.
    End,
}

/// Where the requests of a stream come from.
pub(super) trait Requests: Send + 'static {
    /// The next one.
    ///
    /// # Errors
    /// Where nothing can follow; the stream ends with it.
    fn next(&mut self) -> impl Future<Output = Result<Heard, Status>> + Send;
}

impl Requests for Streaming<wire::PerceiveRequest> {
    async fn next(&mut self) -> Result<Heard, Status> {
        // A message that is too large or no protocol buffer is an error: what follows it cannot be told apart.
        Ok(self.message().await?.map_or(Heard::End, |request| Heard::Request(Box::new(request))))
    }
}

/// Where the replies of a stream go.
#[derive(Clone)]
pub(super) struct Outgoing {
    pub client: mpsc::Sender<Result<wire::PerceiveResponse, Status>>,
    pub record: Option<Arc<StreamRecord>>,
}

impl Outgoing {
    /// Fails where nobody reads any more.
    async fn send(&self, reply: Result<wire::PerceiveResponse, Status>) -> Result<(), ()> {
        if let (Some(record), Ok(reply)) = (&self.record, &reply) {
            record.reply(reply);
        }
        self.client.send(reply).await.map_err(drop)
    }

    async fn closed(&self) {
        self.client.closed().await;
    }
}

pub(super) fn encoding_failed() -> Status {
    Status::new(Code::Internal, "encode reply: it panicked")
}

/// The client's side of a stream.
pub(super) struct Reader {
    pub input: SessionInput,
    pub intake: Intake,
    pub out: Outgoing,
}

impl Reader {
    /// Takes requests until the client closes its side or stops reading.
    pub(super) async fn read(mut self, mut inbound: impl Requests) {
        let mut requests = 0;
        loop {
            let heard = tokio::select! {
                heard = inbound.next() => heard,
                () = self.out.closed() => return,
            };
            let request = match heard {
                Ok(Heard::Request(request)) => *request,
                Ok(Heard::Garbled(error)) => {
                    // Past the recording, which has requests alone: a replay would miss what this answers.
                    let refused = convert::rejected(None, None, &error);
                    if self.out.client.send(Ok(refused)).await.is_err() {
                        return;
                    }
                    continue;
                }
                Ok(Heard::End) => return,
                Err(status) => {
                    tracing::debug!(%status, "stream broke");
                    let _ = self.out.send(Err(status)).await;
                    return;
                }
            };
            requests += 1;
            if let Some(record) = &self.out.record {
                record.request(requests, &request);
            }
            match self.intake.take(&mut self.input, requests, request) {
                Taken::Done => {}
                Taken::Refused(refused) => {
                    if self.out.send(Ok(*refused)).await.is_err() {
                        return;
                    }
                }
                Taken::Asked(asked, id) => {
                    tokio::spawn(answer(asked, id, self.intake.provenance.clone(), self.out.clone()));
                }
            }
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

/// A reply as a message. On this very thread where that is quicker than to wake another one.
async fn encode(reply: Reply, provenance: &Arc<wire::Provenance>) -> Result<wire::PerceiveResponse, Status> {
    let provenance = provenance.clone();
    let quick = convert::is_quick(&reply);
    let work = move || convert::reply(reply, &provenance);
    if quick {
        return catch_unwind(AssertUnwindSafe(work)).map_err(|_| encoding_failed());
    }
    tokio::task::spawn_blocking(work).await.map_err(|_| encoding_failed())
}

/// The node's side of a stream, until the session is over or nobody reads.
pub(super) async fn write(mut replies: Replies, provenance: Arc<wire::Provenance>, out: Outgoing) {
    loop {
        let reply = tokio::select! {
            reply = replies.recv() => reply,
            () = out.closed() => return,
        };
        let message = match reply {
            Ok(reply) => encode(reply, &provenance).await,
            Err(End::Finished) => return,
            Err(End::Draining) => Err(Status::new(Code::Unavailable, "serve stream: the node is shutting down")),
        };
        let last = message.is_err();
        if out.send(message).await.is_err() || last {
            return;
        }
    }
}
