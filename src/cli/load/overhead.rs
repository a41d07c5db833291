//! What the node adds to its engines' time.
//!
//! Measured twice, one frame at a time, with engines that are no models. *At the socket*: from when the last piece of the
//! request was handed to the node's socket until the first byte of the reply came out of it, by a relay outside of the
//! node; so with reading the rest of the request, putting it together, all queues and the encoding of the reply. *By its
//! own stamps*: from `received_ns` to `sent_ns`, which begin when the request has been read. Both less what the stages
//! `embed` and `segment` took, which is the engines' time together with judging masks. No frame waits for another one's
//! engines, so nothing else is taken off: threads that wait for a processor, decoding, every copy and the reply's run
//! lengths all count. Processor time and page faults are the whole process's for a frame, engines and all, and hardly
//! depend on what else the machine does.
//!
//! Over the loopback a raw frame is handed on faster than it can be read where cores are few, so that much of it waits in
//! the socket when its last piece comes; so raw frames are measured at the speed of a robot's network too.
//!
//! Client and relay run on the same machine, and where it has two cores they are in the node's way: the client's next
//! message is not begun before the reply has come, but the relay and the client's own receiver run meanwhile.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Serialize;

use super::footage::{Footage, Sent};
use super::http2::Relay;
use super::process::{Node, NodeArgs, Usage};
use super::report::Quantiles;
use crate::client::{Client, Reply, Stream};
use crate::server::settings::BackendName;
use crate::server::wire::{Target, Verdict};

/// Frames before the first one that counts.
const WARM_UP: u32 = 20;
const SIZE: (u32, u32) = (1920, 1080);
/// How frames are sent, targets, and the link's speed.
type Kind = (Sent, u32, Option<u32>);
/// A camera's link, in megabits a second.
const LINK: Option<u32> = Some(1000);
const KINDS: [Kind; 6] = [
    (Sent::Rgb8, 0, None),
    (Sent::Rgb8, 1, None),
    (Sent::Rgb8, 0, LINK),
    (Sent::Rgb8, 1, LINK),
    (Sent::Jpeg, 0, None),
    (Sent::Jpeg, 1, None),
];

/// One kind of frame.
#[derive(Debug, Serialize)]
pub struct Overhead {
    /// "this", or the other program.
    pub program: String,
    pub size: (u32, u32),
    pub sent: Sent,
    pub targets: u32,
    /// The speed at which frames came in, in megabits a second; `None` for as fast as this machine hands them on.
    pub link_mbit: Option<u32>,
    pub frames: u32,
    /// At the socket, in milliseconds.
    pub socket_ms: Quantiles,
    /// By the node's own stamps, in milliseconds.
    pub stamps_ms: Quantiles,
    /// Of that, decoding the picture: p50 in milliseconds.
    pub decode_ms: f64,
    /// And encoding the masks.
    pub encode_ms: f64,
    /// The engines, p50 in milliseconds; taken off.
    pub engine_ms: f64,
    /// Processor time of the node for a frame, in milliseconds.
    pub processor_ms: Option<f64>,
    /// Pages that the system had to map in for a frame.
    pub page_faults: Option<f64>,
}

/// Frames of each kind, in turns between this program and `other`.
pub async fn measure(threads: Option<usize>, other: Option<&Path>, frames: u32) -> anyhow::Result<Vec<Overhead>> {
    let mut overheads = Vec::new();
    for kind @ (sent, ..) in KINDS {
        let footage = Footage::new(BackendName::Fake, Path::new(""), SIZE, sent)?;
        let args = NodeArgs { backend: BackendName::Fake, bundle: "engines/tabletop".into(), threads };
        let mut subjects = vec![Subject::open("this", Node::start(&args, None).await?, &footage, kind).await?];
        if let Some(other) = other {
            let node = Node::start(&args, Some(other)).await?;
            subjects.push(Subject::open(&other.display().to_string(), node, &footage, kind).await?);
        }
        for number in 0..WARM_UP + frames {
            // In turns, so that whatever else the machine does hits all alike.
            for subject in &mut subjects {
                subject.exchange(&footage, number >= WARM_UP).await?;
            }
        }
        overheads.extend(subjects.into_iter().map(|s| s.finish(kind)));
    }
    Ok(overheads)
}

/// A node behind a relay, and what was measured of it.
struct Subject {
    name: String,
    node: Node,
    relay: Relay,
    stream: Stream,
    shown: u64,
    used: Usage,
    socket: Vec<Duration>,
    stamps: Vec<Duration>,
    parts: [Vec<Duration>; 3],
}

impl Subject {
    async fn open(name: &str, node: Node, footage: &Footage, (_, targets, link): Kind) -> anyhow::Result<Self> {
        let bytes_per_s = link.map(|mbit| f64::from(mbit) * 1e6 / 8.0);
        let relay = Relay::start(node.address(), bytes_per_s).context("start the relay")?;
        let stream = Client::connect(format!("http://{}", relay.address())).await?.stream().await?;
        let commands = footage.commands.iter().take(targets as usize);
        let target = |c: &String| Target { target_id: c.clone(), command: c.clone(), ..Target::default() };
        stream.set(commands.map(target).collect()).await?;
        let parts = <[Vec<Duration>; 3]>::default();
        let (socket, stamps) = (Vec::new(), Vec::new());
        Ok(Self { name: name.to_owned(), node, relay, stream, shown: 0, used: Usage::default(), socket, stamps, parts })
    }

    async fn exchange(&mut self, footage: &Footage, counts: bool) -> anyhow::Result<()> {
        let frame = footage.frame(self.shown);
        self.shown += 1;
        let before = self.node.usage();
        self.relay.take();
        self.stream.frame(frame).await?;
        let reply = match self.stream.reply().await?.context("the node ended the stream")? {
            Reply::Frame(frame) => frame,
            other => bail!("expected the answer to a frame, got {other:?}"),
        };
        let stamps = self.relay.take();
        let after = self.node.usage();
        if !counts {
            return Ok(());
        }
        ensure!(reply.targets.iter().all(|t| t.verdict() == Verdict::Found), "the frame's target was not found");
        let took = |names: &[&str]| {
            let ms = reply.timings.iter().filter(|t| names.contains(&t.stage.as_str())).map(|t| f64::from(t.ms));
            Duration::from_secs_f64(ms.sum::<f64>().max(0.0) * 1e-3)
        };
        let engine = took(&["embed", "segment"]);
        let whole = stamps.request.zip(stamps.reply).map(|(request, reply)| reply.saturating_duration_since(request));
        self.socket.push(whole.context("the relay saw no reply")?.saturating_sub(engine));
        let inside = u64::try_from(reply.sent_ns - reply.received_ns).context("a reply left before its frame came")?;
        self.stamps.push(Duration::from_nanos(inside).saturating_sub(engine));
        for (part, time) in self.parts.iter_mut().zip([took(&["decode"]), took(&["encode"]), engine]) {
            part.push(time);
        }
        if let Some((after, before)) = after.zip(before) {
            self.used.processor += after.processor - before.processor;
            self.used.page_faults += after.page_faults - before.page_faults;
        }
        Ok(())
    }

    fn finish(self, (sent, targets, link_mbit): Kind) -> Overhead {
        let frames = self.socket.len() as u32;
        let [decode_ms, encode_ms, engine_ms] = self.parts.map(|part| Quantiles::of(part).p50);
        let used = self.node.usage().map(|_| self.used);
        let per_frame = |sum: f64| sum / f64::from(frames.max(1));
        Overhead {
            program: self.name,
            size: SIZE,
            sent,
            targets,
            link_mbit,
            frames,
            socket_ms: Quantiles::of(self.socket),
            stamps_ms: Quantiles::of(self.stamps),
            decode_ms,
            encode_ms,
            engine_ms,
            processor_ms: used.map(|used| per_frame(used.processor.as_secs_f64() * 1e3)),
            page_faults: used.map(|used| per_frame(used.page_faults as f64)),
        }
    }
}
