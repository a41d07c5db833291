//! A node on a free port, scenes with known truth, and a client that never waits without bound.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use sam4mllm::engine::bundle::{Calibration, StreamThresholds};
use sam4mllm::geometry::Size;
use sam4mllm::mask::{Mask, Rle};
use sam4mllm::node::Stages;
use sam4mllm::pipeline::Strategy;
use sam4mllm::pipeline::fake::{FakeGround, FakeSegment, Script};
use sam4mllm::server::wire::perceive_request::Request;
use sam4mllm::server::wire::perceive_response::Response;
use sam4mllm::server::wire::perception_client::PerceptionClient;
use sam4mllm::server::wire::{self, ErrorCode, Verdict};
use sam4mllm::server::{Backend, Identity, Server, ServerConfig, ServerError, Sockets};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

pub use crate::scene::{BLUE, GREEN, RED, Scene};

/// Nothing here takes a tenth of it on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// Waits until `holds`.
pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    soon(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// A running node.
pub struct Running {
    pub address: SocketAddr,
    pub script: Script,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<Result<(), ServerError>>>,
}

pub fn backend(script: &Script) -> Backend {
    let (ground, segment) = (script.ground.clone(), script.segment.clone());
    Backend {
        identity: Identity {
            name: "colours".into(),
            version: "1.2.3".into(),
            fingerprint: "f00".into(),
            backend: "fake".into(),
            backend_version: "4.5".into(),
        },
        stages: Stages {
            ground: Box::new(move || Ok(Box::new(FakeGround::new(ground.clone())))),
            segment: Box::new(move || Ok(Box::new(FakeSegment::new(segment.clone())))),
            strategies: FakeGround::strategies(Strategy::Pqpp).expect("is known"),
            min_mask_score: 0.4,
            stream: StreamThresholds::NONE,
            calibration: Calibration::IDENTITY,
        },
    }
}

impl Running {
    /// A node that is ready, with routine re-grounding out of the way.
    pub async fn start() -> Self {
        Self::start_with(|config| config.node.reground_after = Duration::from_secs(3600)).await
    }

    pub async fn start_with(adjust: impl FnOnce(&mut ServerConfig)) -> Self {
        let script = Script::default();
        let running = Self::launch(backend(&script), script, adjust).await;
        running.ready().await;
        running
    }

    /// A node that may not be ready yet.
    pub async fn launch(backend: Backend, script: Script, adjust: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::launch_on(Sockets::default(), backend, script, adjust).await
    }

    /// As [`Self::launch`], on a free port besides `sockets`.
    pub async fn launch_on(
        sockets: Sockets,
        backend: Backend,
        script: Script,
        adjust: impl FnOnce(&mut ServerConfig),
    ) -> Self {
        let mut config = ServerConfig::default();
        config.node.reground_lost_after = Duration::ZERO;
        adjust(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let sockets = Sockets { tcp: Some(listener), ..sockets };
        let server = Server::build(config, sockets, backend).await.expect("builds");
        let address = server.address().expect("is bound");
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self { address, script, stop: Some(stop), task: Some(task) }
    }

    pub async fn ready(&self) {
        let mut client = self.client().await;
        soon("readiness", async {
            while !client.describe(wire::DescribeRequest {}).await.expect("describes").into_inner().ready {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).expect("an address");
        // HTTP/2's own default, so that a reader that stops is felt by the node after some replies, not thousands.
        let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
        soon("a connection", endpoint.connect()).await.expect("connects")
    }

    pub async fn client(&self) -> PerceptionClient<Channel> {
        PerceptionClient::new(self.channel().await).max_decoding_message_size(64 << 20)
    }

    pub async fn stream(&self) -> Stream {
        Stream::open(self).await.expect("opens a stream")
    }

    /// Waits until a stream that is refused now is let in.
    pub async fn lets_in(&self) -> Stream {
        soon("a place for a stream", async {
            loop {
                if let Ok(stream) = Stream::open(self).await {
                    return stream;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
    }

    /// Asks for the shutdown without waiting for it.
    pub fn ask_to_stop(&mut self) {
        let _ = self.stop.take().expect("asked once").send(());
    }

    /// The end of `run`.
    pub async fn ended(&mut self) -> Result<(), ServerError> {
        let task = self.task.take().expect("waited for once");
        soon("the end of the server", task).await.expect("does not panic")
    }
}

pub fn decode_mask(mask: &wire::Mask) -> Mask {
    let size = Size::new(mask.width, mask.height);
    match mask.data.as_ref().expect("has data") {
        wire::mask::Data::CocoRle(text) => {
            Rle::from_coco_string(text, size).expect("a run-length string").decode().expect("covers the image")
        }
        wire::mask::Data::Png(png) => {
            let grey = image::load_from_memory(png).expect("a picture").into_luma8();
            assert_eq!((grey.width(), grey.height()), (size.width, size.height));
            assert!(grey.pixels().all(|p| [0, 255].contains(&p.0[0])));
            Mask::from_fn(size, |x, y| grey.get_pixel(x, y).0[0] == 255)
        }
    }
}

/// The mask's IoU with the truth.
pub fn iou(instance: &wire::Instance, truth: &Mask) -> f32 {
    decode_mask(instance.mask.as_ref().expect("has a mask")).iou(truth).expect("sizes match")
}

pub fn rle(instance: &wire::Instance) -> String {
    match instance.mask.as_ref().and_then(|m| m.data.as_ref()) {
        Some(wire::mask::Data::CocoRle(text)) => text.clone(),
        other => panic!("expected run lengths, got {other:?}"),
    }
}

pub fn target(id: &str, command: &str) -> wire::Target {
    hinted(id, command, wire::CountHint::Unspecified)
}

pub fn hinted(id: &str, command: &str, hint: wire::CountHint) -> wire::Target {
    wire::Target { target_id: id.into(), command: command.into(), hint: hint.into(), ..Default::default() }
}

/// The result of a target.
pub fn of<'a>(frame: &'a wire::FrameResult, id: &str) -> &'a wire::TargetResult {
    frame.targets.iter().find(|t| t.target_id == id).unwrap_or_else(|| panic!("no target {id} in {frame:?}"))
}

pub fn error_of(error: &Option<wire::Error>) -> Option<ErrorCode> {
    error.as_ref().map(|e| e.code())
}

pub fn dropped(frame: &wire::FrameResult) -> HashMap<wire::DropReason, u64> {
    frame.counters.as_ref().expect("has counters").dropped.iter().map(|d| (d.reason(), d.frames)).collect()
}

/// One stream, from the client's side. Checks what holds for every reply.
pub struct Stream {
    requests: Option<mpsc::Sender<wire::PerceiveRequest>>,
    replies: Streaming<wire::PerceiveResponse>,
    next_seq: u64,
    last: Option<(u64, u32)>,
    pub options: wire::Options,
}

impl Stream {
    pub async fn open(node: &Running) -> Result<Self, tonic::Status> {
        Self::open_by(node.client().await).await
    }

    /// Over a connection of one's own.
    pub async fn open_by(mut client: PerceptionClient<Channel>) -> Result<Self, tonic::Status> {
        let (requests, outgoing) = mpsc::channel(64);
        let replies = soon("a stream", client.perceive(ReceiverStream::new(outgoing))).await?.into_inner();
        let options = wire::Options::default();
        Ok(Self { requests: Some(requests), replies, next_seq: 1, last: None, options })
    }

    pub async fn send(&mut self, request: wire::PerceiveRequest) {
        let requests = self.requests.as_ref().expect("not closed");
        soon("room for a request", requests.send(request)).await.expect("the stream is open");
    }

    pub async fn ask(&mut self, request: Request) {
        self.send(wire::PerceiveRequest { request: Some(request), options: Some(self.options) }).await;
    }

    pub async fn set(&mut self, targets: impl Into<Vec<wire::Target>>) {
        self.ask(Request::SetTargets(wire::SetTargets { targets: targets.into() })).await;
    }

    pub async fn add(&mut self, target: wire::Target) {
        self.ask(Request::AddTarget(target)).await;
    }

    pub async fn rename(&mut self, id: &str, new_id: &str) {
        let (target_id, new_target_id) = (id.into(), new_id.into());
        self.ask(Request::RenameTarget(wire::RenameTarget { target_id, new_target_id })).await;
    }

    pub async fn pause(&mut self, id: &str) {
        self.ask(Request::PauseTarget(wire::PauseTarget { target_id: id.into() })).await;
    }

    pub async fn resume(&mut self, id: &str) {
        self.ask(Request::ResumeTarget(wire::ResumeTarget { target_id: id.into() })).await;
    }

    pub async fn reground(&mut self, id: &str) {
        self.ask(Request::RegroundTarget(wire::RegroundTarget { target_id: id.into() })).await;
    }

    pub async fn question(&mut self, question_id: &str, command: &str, hint: wire::CountHint) {
        let (question_id, command, hint) = (question_id.into(), command.into(), hint.into());
        self.ask(Request::Question(wire::Question { question_id, command, hint, strategy: 0 })).await;
    }

    pub async fn remove(&mut self, id: &str) {
        self.ask(Request::RemoveTarget(wire::RemoveTarget { target_id: id.into() })).await;
    }

    pub async fn frame(&mut self, frame: wire::Frame) {
        self.next_seq = self.next_seq.max(frame.seq + 1);
        self.ask(Request::Frame(frame)).await;
    }

    /// Sends the scene under the next number, which is returned.
    pub async fn show(&mut self, scene: &Scene) -> u64 {
        let seq = self.next_seq;
        self.frame(scene.frame(seq)).await;
        seq
    }

    /// The next message, whatever it is; `None` at the end.
    pub async fn message(&mut self) -> Result<Option<Response>, tonic::Status> {
        let message = soon("a reply", self.replies.message()).await?;
        Ok(message.map(|m| m.response.expect("a reply is never empty")))
    }

    /// The next reply to a frame.
    pub async fn next(&mut self) -> wire::FrameResult {
        match self.message().await.expect("the stream goes on").expect("the stream has not ended") {
            Response::Frame(frame) => {
                self.check(&frame);
                frame
            }
            other => panic!("expected a frame, got {other:?}"),
        }
    }

    /// The next answer to a question.
    pub async fn answer(&mut self) -> wire::Answer {
        match self.message().await.expect("the stream goes on").expect("the stream has not ended") {
            Response::Answer(answer) => answer,
            other => panic!("expected an answer, got {other:?}"),
        }
    }

    /// The next refusal.
    pub async fn refusal(&mut self) -> wire::Rejected {
        match self.message().await.expect("the stream goes on").expect("the stream has not ended") {
            Response::Rejected(rejected) => rejected,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    /// The next reply to a frame, if it comes within a millisecond.
    pub async fn ready(&mut self) -> Option<wire::FrameResult> {
        let message = tokio::time::timeout(Duration::from_millis(1), self.replies.message()).await.ok()?;
        match message.expect("the stream goes on").expect("the stream has not ended").response {
            Some(Response::Frame(frame)) => {
                self.check(&frame);
                Some(frame)
            }
            other => panic!("expected a frame, got {other:?}"),
        }
    }

    /// Sends the scene and waits for its reply.
    pub async fn exchange(&mut self, scene: &Scene) -> wire::FrameResult {
        let seq = self.show(scene).await;
        let frame = self.next().await;
        assert_eq!(frame.seq, seq);
        frame
    }

    /// Shows the scene until a reply `holds`.
    pub async fn until(&mut self, scene: &Scene, holds: impl Fn(&wire::FrameResult) -> bool) -> wire::FrameResult {
        soon("the wanted reply", async {
            loop {
                let frame = self.exchange(scene).await;
                if holds(&frame) {
                    return frame;
                }
            }
        })
        .await
    }

    /// Shows the scene until the target has the verdict.
    pub async fn until_verdict(&mut self, scene: &Scene, id: &str, verdict: Verdict) -> wire::FrameResult {
        self.until(scene, |frame| of(frame, id).verdict() == verdict).await
    }

    /// Returns once the node has read everything that was sent.
    pub async fn barrier(&mut self) {
        self.remove("no such target").await;
        assert_eq!(error_of(&self.refusal().await.error), Some(ErrorCode::Target));
    }

    /// Closes the client's side.
    pub fn close(&mut self) {
        self.requests = None;
    }

    fn check(&mut self, frame: &wire::FrameResult) {
        let place = (frame.seq, frame.revision);
        assert!(self.last.is_none_or(|last| place > last), "{place:?} after {:?}", self.last);
        self.last = Some(place);
        assert_eq!((frame.stamp_ns, frame.optical_frame.as_str()), (1_000_000 + frame.seq as i64, "camera_optical"));
        assert!(frame.received_ns > 0 && frame.sent_ns >= frame.received_ns);
        let counters = frame.counters.as_ref().expect("has counters");
        let drops: u64 = counters.dropped.iter().map(|d| d.frames).sum();
        assert_eq!(counters.received, counters.answered + counters.waiting + drops, "{counters:?}");
        for target in &frame.targets {
            let has_masks = !target.instances.is_empty();
            match target.verdict() {
                Verdict::Found | Verdict::Ambiguous => assert!(has_masks, "{target:?}"),
                Verdict::Unsure => {}
                Verdict::Absent | Verdict::Pending | Verdict::Lost | Verdict::Failed | Verdict::Paused => {
                    assert!(!has_masks, "{target:?}")
                }
                Verdict::Unspecified => panic!("{target:?}"),
            }
            assert!(target.verdict() != Verdict::Failed || target.error.is_some(), "{target:?}");
            assert_ne!((target.phase(), target.look()), (wire::Phase::Unspecified, wire::Look::Unspecified));
            assert_eq!(target.verdict() == Verdict::Paused, target.phase() == wire::Phase::Paused);
            for instance in &target.instances {
                let mask = decode_mask(instance.mask.as_ref().expect("has a mask"));
                let tight = mask.bbox().expect("a mask is never empty");
                let b = instance.r#box.as_ref().expect("has a box");
                assert_eq!([b.x1, b.y1, b.x2, b.y2], [tight.x1, tight.y1, tight.x2, tight.y2]);
                assert_ne!(instance.instance_id, 0);
                assert!(instance.grounded_seq <= instance.mask_seq && instance.mask_seq <= frame.seq);
            }
        }
    }
}
