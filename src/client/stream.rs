//! One live camera: a half that sends and a half that receives.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::codegen::InterceptedService;
use tonic::transport::Channel;

use super::{Bearer, ClientError};
use crate::server::wire;
use crate::server::wire::perceive_request::Request;
use crate::server::wire::perceive_response::Response;
use crate::server::wire::perception_client::PerceptionClient;

/// Requests that may wait for the connection: a camera that is faster than it is held up rather than buffered.
const WAITING: usize = 2;

/// The half that sends.
#[derive(Debug)]
pub struct Sender {
    requests: mpsc::Sender<wire::PerceiveRequest>,
    /// How frames are to be answered from here on.
    pub options: wire::Options,
    last_seq: u64,
}

/// The half that receives.
#[derive(Debug)]
pub struct Receiver {
    replies: Streaming<wire::PerceiveResponse>,
}

/// What the node says on a stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// The answer to a frame.
    Frame(Box<wire::FrameResult>),
    /// A request that was refused; the stream goes on.
    Rejected(wire::Rejected),
    /// The answer to a question.
    Answer(Box<wire::Answer>),
}

/// Both halves. The newest frame wins: count on answers by their `seq`.
#[derive(Debug)]
pub struct Stream {
    sender: Sender,
    receiver: Receiver,
}

impl Sender {
    /// Replaces all targets.
    ///
    /// # Errors
    /// [`ClientError::Ended`].
    pub async fn set(&self, targets: Vec<wire::Target>) -> Result<(), ClientError> {
        self.request(Request::SetTargets(wire::SetTargets { targets })).await
    }

    /// Adds a target, or gives one that is there another command.
    ///
    /// # Errors
    /// [`ClientError::Ended`].
    pub async fn add(&self, target_id: &str, command: &str) -> Result<(), ClientError> {
        let target = wire::Target { target_id: target_id.into(), command: command.into(), ..wire::Target::default() };
        self.request(Request::AddTarget(target)).await
    }

    /// Removes a target.
    ///
    /// # Errors
    /// [`ClientError::Ended`].
    pub async fn remove(&self, target_id: &str) -> Result<(), ClientError> {
        self.request(Request::RemoveTarget(wire::RemoveTarget { target_id: target_id.into() })).await
    }

    /// Sends any other request: a target renamed, paused, resumed, looked at again; a question.
    ///
    /// # Errors
    /// [`ClientError::Ended`].
    pub async fn request(&self, request: Request) -> Result<(), ClientError> {
        let request = wire::PerceiveRequest { request: Some(request), options: Some(self.options) };
        self.requests.send(request).await.map_err(|_| ClientError::Ended)
    }

    /// Sends a frame and returns its `seq`, which is the frame's own, or the next one where that is 0.
    ///
    /// # Errors
    /// [`ClientError::Ended`].
    pub async fn frame(&mut self, mut frame: wire::Frame) -> Result<u64, ClientError> {
        if frame.seq == 0 {
            frame.seq = self.last_seq + 1;
        }
        self.last_seq = frame.seq;
        self.request(Request::Frame(frame)).await?;
        Ok(self.last_seq)
    }
}

impl Receiver {
    /// The next reply; `None` once the stream has ended well.
    ///
    /// # Errors
    /// [`ClientError::Status`] where it ended otherwise.
    pub async fn reply(&mut self) -> Result<Option<Reply>, ClientError> {
        loop {
            let Some(message) = self.replies.message().await? else { return Ok(None) };
            match message.response {
                Some(Response::Frame(frame)) => return Ok(Some(Reply::Frame(Box::new(frame)))),
                Some(Response::Rejected(rejected)) => return Ok(Some(Reply::Rejected(rejected))),
                Some(Response::Answer(answer)) => return Ok(Some(Reply::Answer(Box::new(answer)))),
                // Something that this client has not heard of.
                None => {}
            }
        }
    }
}

impl Stream {
    pub(super) async fn open(
        client: &mut PerceptionClient<InterceptedService<Channel, Bearer>>,
    ) -> Result<Self, ClientError> {
        let (requests, outgoing) = mpsc::channel(WAITING);
        let replies = client.perceive(ReceiverStream::new(outgoing)).await?.into_inner();
        let sender = Sender { requests, options: wire::Options::default(), last_seq: 0 };
        Ok(Self { sender, receiver: Receiver { replies } })
    }

    /// The halves, for tasks of their own. Dropping the sender ends the stream: what was received is still answered.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }

    /// How frames are to be answered from here on.
    pub fn options(&mut self) -> &mut wire::Options {
        &mut self.sender.options
    }

    /// [`Sender::set`].
    ///
    /// # Errors
    /// [`ClientError::Ended`].
    pub async fn set(&self, targets: Vec<wire::Target>) -> Result<(), ClientError> {
        self.sender.set(targets).await
    }

    /// [`Sender::add`].
    ///
    /// # Errors
    /// [`ClientError::Ended`].
    pub async fn add(&self, target_id: &str, command: &str) -> Result<(), ClientError> {
        self.sender.add(target_id, command).await
    }

    /// [`Sender::remove`].
    ///
    /// # Errors
    /// [`ClientError::Ended`].
    pub async fn remove(&self, target_id: &str) -> Result<(), ClientError> {
        self.sender.remove(target_id).await
    }

    /// [`Sender::request`].
    ///
    /// # Errors
    /// [`ClientError::Ended`].
    pub async fn request(&self, request: Request) -> Result<(), ClientError> {
        self.sender.request(request).await
    }

    /// [`Sender::frame`].
    ///
    /// # Errors
    /// [`ClientError::Ended`].
    pub async fn frame(&mut self, frame: wire::Frame) -> Result<u64, ClientError> {
        self.sender.frame(frame).await
    }

    /// [`Receiver::reply`].
    ///
    /// # Errors
    /// [`ClientError::Status`] where the stream ended otherwise than well.
    pub async fn reply(&mut self) -> Result<Option<Reply>, ClientError> {
        self.receiver.reply().await
    }
}
