//! The node: sessions, their newest frames and targets, and the two stages that work for all of them.
//!
//! ```text
//! session ──newest frame──▶ slot ─┐              ┌──▶ segment thread (decode, embed, follow) ──▶ reply
//! session ──targets───────▶ slot ─┴─ scheduler ──┤
//! call ──────────────────────────────────────────┴──▶ ground thread (language model) ──▶ next frame
//! ```
//!
//! One OS thread owns the grounder, one owns the segmenter, one schedules; the async side only fills slots and reads
//! replies. Stages pull: a frame leaves its slot when the segmenter is free, so it is the newest there is and nothing
//! queues. Grounding starts as soon as the frame's pixels are there, beside the segmenter, and its answer is carried
//! to the newest frame when it comes. Both stages go round the sessions in turn. The grounder may ask the segmenter for
//! masks to guess answers from; it waits for them a short while, and nobody waits for it.
//!
//! What may happen to a target, and what it is then, is one table (`state`); which instance is which, one set of rules
//! (`identity`).
//!
//! Not chosen: a queue per session (old masks of old frames, and memory), a worker pool per engine (an engine already
//! uses all cores), and async stages (a model pass blocks for hundreds of milliseconds).

mod allowance;
mod config;
mod draft;
mod error;
mod frame;
mod identity;
mod masks;
mod position;
mod replay;
mod reply;
mod schedule;
mod scheduler;
mod session;
mod slot;
mod stage;
mod state;
mod stats;
mod target;
mod tracked;
mod trial;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, oneshot, watch};

pub use allowance::{Allowance, Quota};
pub use config::{ConfigError, NodeConfig};
pub use error::{NodeError, NodeErrorKind};
pub use frame::{FrameIn, FrameOptions, Meta};
pub use position::Position;
pub use replay::Replay;
pub use reply::{FrameReply, InstanceReply, Origin, Reply, TargetReply, Verdict};
pub use schedule::{Masks, Step, Witness};
pub use session::{Asked, End, Replies, SessionInput};
pub use slot::{Counters, DropReason};
pub use stage::Factory;
pub use state::{Look, Phase};
pub use stats::{BUCKETS_S, GroundingEnd, Histogram, Stats};
pub use target::Why;
pub use trial::Trial;

use crate::engine::bundle::{Calibration, StreamThresholds};
use crate::pipeline::{Ground, Segment, Strategies, Strategy};
use crate::prompt::CountHint;
use frame::Arrived;
use scheduler::{Call, Event, Scheduler};

/// An error from a stage's factory.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The most bytes of a target's id.
pub const MAX_TARGET_ID_BYTES: usize = 128;
/// Questions that a session may have open.
pub const MAX_QUESTIONS: usize = 4;
/// Replies that may wait for a slow reader before its frames have to wait.
const REPLY_BUFFER: usize = 4;
/// How often the scheduler looks whether a stage hangs.
const TICK: Duration = Duration::from_secs(1);
/// Events that may wait for the scheduler.
const EVENT_BUFFER: usize = 256;

/// The two stages, as factories: each is built on the thread that will own it.
pub struct Stages {
    /// The language model's side.
    pub ground: Factory<dyn Ground>,
    /// SAM's side.
    pub segment: Factory<dyn Segment>,
    /// The strategies that `ground` knows, and the one for targets that ask for none; those of its dialect.
    pub strategies: Strategies,
    /// SAM's predicted IoU below which a grounded mask makes the verdict unsure, `0.0..=1.0`; the model's to say.
    pub min_mask_score: f32,
    /// What "found" takes in a stream besides; the model's to say.
    pub stream: StreamThresholds,
    /// How a mask's score and the language model's confidence become one; the model's to say.
    pub calibration: Calibration,
}

/// One of the two stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StageName {
    /// The language model's side.
    Ground,
    /// SAM's side.
    Segment,
}

impl StageName {
    /// As threads, logs and messages call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ground => "ground",
            Self::Segment => "segment",
        }
    }
}

/// Whether the node can work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// A stage is being built.
    Starting,
    /// Both stages are there.
    Ready,
    /// A stage is not there and will not come back; says which and why.
    Down(String),
    /// The node is shutting down.
    Draining,
}

/// What to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetSpec {
    /// Chosen by the client.
    pub id: String,
    /// The command, or why it cannot be asked.
    pub command: Result<String, NodeError>,
    /// How many instances it may have.
    pub hint: CountHint,
    /// How it is looked for.
    pub strategy: Strategy,
    /// It is grounded again when its last grounding is this old; `None` for the node's usual time.
    pub reground_after: Option<Duration>,
}

impl TargetSpec {
    /// Whether the language model would be asked the same.
    fn asks_the_same(&self, other: &Self) -> bool {
        (&self.command, self.hint, self.strategy) == (&other.command, other.hint, other.strategy)
    }
}

/// How a command is to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Manner {
    /// How many instances it may have.
    pub hint: CountHint,
    /// The strategy; `None` for the node's usual one.
    pub strategy: Option<Strategy>,
}

/// How commands become targets.
#[derive(Debug, Clone, Copy)]
pub struct Phrasing {
    max_command_bytes: usize,
    strategies: Strategies,
}

impl Phrasing {
    /// As a node has it with these settings and strategies.
    pub fn new(config: &NodeConfig, strategies: Strategies) -> Self {
        Self { max_command_bytes: config.max_command_bytes, strategies }
    }

    /// A target; a command that cannot be asked, or not in this manner, becomes an error of this target alone.
    pub fn target(&self, id: String, command: &str, manner: Manner) -> TargetSpec {
        let Manner { hint, strategy } = manner;
        let command = check_command(command, self.max_command_bytes);
        let (command, strategy) = match self.strategies.choose(strategy) {
            Ok(strategy) => (command, strategy),
            Err(error) => (command.and(Err(error.into())), error.strategy()),
        };
        TargetSpec { id, command, hint, strategy, reground_after: None }
    }
}

fn check_command(text: &str, max_bytes: usize) -> Result<String, NodeError> {
    let refuse = |what: String| Err(NodeError::new(NodeErrorKind::Command, format!("check command: {what}")));
    if text.len() > max_bytes {
        return refuse(format!("it has {} bytes, more than {max_bytes}", text.len()));
    }
    match text.trim() {
        "" => refuse("it is empty".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// A running node. Dropping it drains it without waiting.
pub struct Node {
    config: Arc<NodeConfig>,
    events: mpsc::Sender<Event>,
    strategies: Strategies,
    readiness: watch::Receiver<Readiness>,
    stopped: watch::Receiver<bool>,
    sessions: Arc<Semaphore>,
    calls: Arc<Semaphore>,
    stats: Arc<Stats>,
}

impl Node {
    /// Starts the threads; the stages are built there, see [`Node::readiness`].
    ///
    /// # Errors
    /// Where the operating system gives no thread.
    pub fn start(config: NodeConfig, stages: Stages) -> std::io::Result<Self> {
        let config = Arc::new(config);
        let (events, inbox) = mpsc::channel(EVENT_BUFFER);
        let (readiness_out, readiness) = watch::channel(Readiness::Starting);
        let (stopped_out, stopped) = watch::channel(false);
        let strategies = stages.strategies;
        let stats = Arc::new(Stats::default());
        let told = (readiness_out, stats.clone());
        let scheduler = Scheduler::spawn_stages(config.clone(), stages, &events, told)?;
        std::thread::Builder::new().name("schedule".to_owned()).spawn(move || {
            scheduler.run(inbox);
            stopped_out.send_replace(true);
        })?;
        // Nothing else would wake a scheduler whose stages hang. Ends with the scheduler's inbox.
        let (ticks, every) = (events.clone(), TICK.min(config.stage_hang));
        std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
            while !ticks.is_closed() {
                std::thread::sleep(every);
                let _ = ticks.try_send(Event::Wake);
            }
        })?;
        let sessions = Arc::new(Semaphore::new(config.max_sessions));
        let calls = Arc::new(Semaphore::new(config.max_calls));
        Ok(Self { config, events, strategies, readiness, stopped, sessions, calls, stats })
    }

    /// The settings.
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// What it has done so far.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Sessions and unary calls that are open now.
    pub fn open_now(&self) -> (usize, usize) {
        let taken = |max: usize, places: &Semaphore| max.saturating_sub(places.available_permits());
        (taken(self.config.max_sessions, &self.sessions), taken(self.config.max_calls, &self.calls))
    }

    /// The strategies that targets may ask for.
    pub fn strategies(&self) -> Strategies {
        self.strategies
    }

    /// How commands become targets here.
    pub fn phrasing(&self) -> Phrasing {
        Phrasing::new(&self.config, self.strategies)
    }

    /// Whether the node can work, as it changes.
    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.clone()
    }

    /// Opens a session.
    ///
    /// # Errors
    /// [`NodeErrorKind::Limit`] where there are too many, [`NodeErrorKind::Unavailable`] before the node is ready and
    /// while it drains, [`NodeErrorKind::Stage`] where a stage is down.
    pub async fn open(&self) -> Result<(SessionInput, Replies), NodeError> {
        self.open_for(Arc::default(), None).await
    }

    /// Opens a session of a client that may not have more than its allowance, under the eyes of `witness`.
    ///
    /// # Errors
    /// As [`Node::open`].
    pub async fn open_for(
        &self,
        allowance: Arc<Allowance>,
        witness: Option<Arc<dyn Witness>>,
    ) -> Result<(SessionInput, Replies), NodeError> {
        self.check_ready()?;
        let permit = self.sessions.clone().try_acquire_owned().map_err(|_| {
            let what = format!("open session: there are {} already", self.config.max_sessions);
            NodeError::new(NodeErrorKind::Limit, what)
        })?;
        let semaphores = (permit, self.calls.clone());
        let (config, for_) = (self.config.clone(), (allowance, witness));
        let (session, input, replies) = session::new(config, self.events.clone(), semaphores, for_, self.stats.clone());
        self.events.send(Event::Open(Box::new(session))).await.map_err(|_| session::gone())?;
        Ok((input, replies))
    }

    /// Answers one command on one frame; waits for both stages. Dropping the future gives the call up.
    ///
    /// # Errors
    /// Everything that [`Node::open`] says, a bad frame or command, [`NodeErrorKind::Strategy`],
    /// [`NodeErrorKind::Busy`], [`NodeErrorKind::Deadline`], and failures of a stage.
    pub async fn segment(
        &self,
        frame: FrameIn,
        command: &str,
        manner: Manner,
        deadline: Option<Instant>,
    ) -> Result<FrameReply, NodeError> {
        self.check_ready()?;
        let spec = self.phrasing().target(String::new(), command, manner);
        if let Err(error) = &spec.command {
            return Err(error.clone());
        }
        let permit = self.calls.clone().try_acquire_owned().map_err(|_| {
            let what = format!("accept call: {} are in work or waiting", self.config.max_calls);
            NodeError::new(NodeErrorKind::Busy, what)
        })?;
        let (limits, arrived) = (self.config.frame, Arrived::now(frame));
        let decoded = tokio::task::spawn_blocking(move || {
            let start = Instant::now();
            arrived.decode(limits).map(|frame| (Arc::new(frame), start.elapsed()))
        });
        let crashed = |_| NodeError::new(NodeErrorKind::FrameData, "decode frame: the decoder gave up");
        let (frame, took) = decoded.await.map_err(crashed)??;
        let (answer, outcome) = oneshot::channel();
        let call = Call::new(frame, spec, deadline, answer, permit).with_timing("decode", took);
        self.events.send(Event::Call(Box::new(call))).await.map_err(|_| session::gone())?;
        outcome.await.map_err(|_| session::gone())?
    }

    /// Stops taking frames and calls, and finishes what is in work; replies of sessions end.
    pub async fn drain(&self) {
        let _ = self.events.send(Event::Drain).await;
    }

    /// Waits until everything that was in work when the node was drained is done.
    pub async fn stopped(&self) {
        let _ = self.stopped.clone().wait_for(|stopped| *stopped).await;
    }

    fn check_ready(&self) -> Result<(), NodeError> {
        match &*self.readiness.borrow() {
            Readiness::Ready => Ok(()),
            Readiness::Starting => {
                Err(NodeError::new(NodeErrorKind::Unavailable, "reach the stages: the node is starting"))
            }
            Readiness::Draining => Err(session::gone()),
            Readiness::Down(why) => Err(NodeError::new(NodeErrorKind::Stage, format!("reach the stages: {why}"))),
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.events.try_send(Event::Drain);
    }
}
