//! Who comes and goes in a soak: cameras with targets that change, and planners that ask.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;

use super::super::footage::Footage;
use crate::client::{Client, ClientError, Receiver, Reply, Sender};
use crate::rng::SceneRng;
use crate::server::wire::perceive_request::Request;
use crate::server::wire::{self, FrameResult, Verdict};

/// How long a reply may take before it counts as missing.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of a camera's life.
const LIFE_S: (f32, f32) = (1.5, 12.0);
/// Different things that are wrong and kept for the report.
const KEPT: usize = 8;

/// What happened, counted by all.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Mutex<BTreeMap<&'static str, u64>>,
    wrong: Mutex<Vec<String>>,
    open: AtomicU64,
}

impl Tally {
    fn count(&self, what: &'static str, times: u64) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += times;
    }

    fn is_wrong(&self, what: String) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() < KEPT {
            wrong.push(what);
        }
    }

    /// How often everything happened.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the node said that it must not; a few of them.
    pub fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Streams that are open now.
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }
}

/// Where to, what of, and who counts.
type World = (Arc<str>, Arc<Footage>, Arc<Tally>);

/// How a camera leaves.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    /// It closes its side and reads to the end.
    Well,
    /// It is cut off.
    CutOff,
    /// It stops reading first, for a while.
    Deaf,
}

/// One camera after the other, until it is time.
pub async fn camera(
    (address, footage, tally): World,
    salt: (u64, u64),
    fps: u32,
    until: Instant,
) -> anyhow::Result<()> {
    let mut rng = SceneRng::new(&[0x736f_616b, salt.0, salt.1]);
    while Instant::now() < until {
        let left = until.saturating_duration_since(Instant::now());
        let life = Duration::from_secs_f32(rng.range(LIFE_S.0, LIFE_S.1)).min(left);
        let leaving = [Leaving::Well, Leaving::Well, Leaving::CutOff, Leaving::Deaf][rng.below(4)];
        let (sender, receiver) = Client::connect(&*address).await?.stream().await?.split();
        tally.count("streams opened", 1);
        tally.open.fetch_add(1, Ordering::Relaxed);
        let reading = tokio::spawn(read(receiver, tally.clone(), (leaving, life)));
        let sent = send(sender, &footage, &mut rng, (life, fps), &tally).await;
        let read = tokio::time::timeout(PATIENCE, reading).await.context("a stream did not end")?;
        tally.open.fetch_sub(1, Ordering::Relaxed);
        match leaving {
            Leaving::Well => {
                sent?;
                let last = read??.context("a stream ended without an answer")?;
                check_end(&last, &tally);
                tally.count("streams ended well", 1);
            }
            // Whoever leaves like that is owed nothing.
            Leaving::CutOff => tally.count("streams cut off", 1),
            Leaving::Deaf => tally.count("streams that stopped reading", 1),
        }
    }
    Ok(())
}

/// Sends frames and changes targets for its life.
async fn send(
    mut sender: Sender,
    footage: &Footage,
    rng: &mut SceneRng,
    (life, fps): (Duration, u32),
    tally: &Tally,
) -> Result<(), ClientError> {
    let (start, every) = (tokio::time::Instant::now(), Duration::from_secs(1) / fps);
    let mut names = vec!["t0".to_owned()];
    sender.add("t0", command(footage, rng)).await?;
    let mut frames = 0u32;
    while start.elapsed() < life {
        sender.frame(footage.frame(u64::from(frames))).await?;
        frames += 1;
        tally.count("frames sent", 1);
        if rng.chance(0.25) {
            change(&sender, footage, rng, (&mut names, frames), tally).await?;
        }
        tokio::time::sleep_until(start + every * frames).await;
    }
    Ok(())
}

fn command<'a>(footage: &'a Footage, rng: &mut SceneRng) -> &'a str {
    rng.pick::<String>(&footage.commands)
}

/// One change of the targets, or a question.
async fn change(
    sender: &Sender,
    footage: &Footage,
    rng: &mut SceneRng,
    (names, number): (&mut Vec<String>, u32),
    tally: &Tally,
) -> Result<(), ClientError> {
    let target_id = rng.pick(names).clone();
    let (what, request) = match rng.below(7) {
        0 if names.len() < 3 => {
            let name = format!("t{number}");
            names.push(name.clone());
            let target =
                wire::Target { target_id: name, command: command(footage, rng).to_owned(), ..wire::Target::default() };
            ("targets added", Request::AddTarget(target))
        }
        0 | 1 => {
            let command = command(footage, rng).to_owned();
            ("targets retargeted", Request::AddTarget(wire::Target { target_id, command, ..wire::Target::default() }))
        }
        2 => ("targets paused", Request::PauseTarget(wire::PauseTarget { target_id })),
        3 => ("targets resumed", Request::ResumeTarget(wire::ResumeTarget { target_id })),
        4 => ("looks asked for", Request::RegroundTarget(wire::RegroundTarget { target_id })),
        5 if names.len() > 1 => {
            names.retain(|name| *name != target_id);
            ("targets removed", Request::RemoveTarget(wire::RemoveTarget { target_id }))
        }
        _ => {
            let question = wire::Question { command: command(footage, rng).to_owned(), ..wire::Question::default() };
            ("questions asked", Request::Question(question))
        }
    };
    tally.count(what, 1);
    sender.request(request).await
}

/// Takes the replies; the last one that answers a frame.
async fn read(
    mut receiver: Receiver,
    tally: Arc<Tally>,
    (leaving, life): (Leaving, Duration),
) -> anyhow::Result<Option<FrameResult>> {
    let (start, mut last) = (Instant::now(), None::<FrameResult>);
    loop {
        match leaving {
            Leaving::Well => {}
            // The connection goes with the receiver.
            Leaving::CutOff if start.elapsed() > life.mul_f32(0.7) => return Ok(last),
            Leaving::Deaf if start.elapsed() > life.mul_f32(0.4) => {
                tokio::time::sleep(life.mul_f32(0.6)).await;
                return Ok(last);
            }
            Leaving::CutOff | Leaving::Deaf => {}
        }
        let reply = tokio::time::timeout(PATIENCE, receiver.reply()).await.context("a reply did not come")?;
        match reply? {
            Some(Reply::Frame(frame)) => {
                check_reply(&frame, last.as_ref(), &tally);
                last = Some(*frame);
            }
            Some(Reply::Answer(_)) => tally.count("questions answered", 1),
            Some(Reply::Rejected(rejected)) => {
                tally.is_wrong(format!("rejected: {}", rejected.error.unwrap_or_default().message));
            }
            None => return Ok(last),
        }
    }
}

/// What holds of every reply.
fn check_reply(frame: &FrameResult, last: Option<&FrameResult>, tally: &Tally) {
    tally.count("frames answered", 1);
    if last.is_some_and(|last| (frame.seq, frame.revision) <= (last.seq, last.revision)) {
        tally.is_wrong(format!("frame {} was answered out of order", frame.seq));
    }
    let counters = frame.counters.clone().unwrap_or_default();
    let dropped: u64 = counters.dropped.iter().map(|d| d.frames).sum();
    if counters.received != counters.answered + counters.waiting + dropped {
        tally.is_wrong(format!("counters that do not add up: {counters:?}"));
    }
    for target in &frame.targets {
        let masks = matches!(target.verdict(), Verdict::Found | Verdict::Ambiguous);
        if masks == target.instances.is_empty() && target.verdict() != Verdict::Unsure {
            tally.is_wrong(format!("{:?} with {} masks", target.verdict(), target.instances.len()));
        }
        tally.count(if masks { "targets with masks" } else { "targets without masks" }, 1);
    }
}

/// What holds at the end of a stream that ended well.
fn check_end(last: &FrameResult, tally: &Tally) {
    if last.counters.as_ref().is_none_or(|c| c.waiting > 0) {
        tally.is_wrong(format!("a stream ended with frame {} while another one waited", last.seq));
    }
}

/// Asks without a camera of its own: single pictures, and what the node is.
pub async fn planner((address, footage, tally): World, salt: (u64, u64), until: Instant) -> anyhow::Result<()> {
    let mut rng = SceneRng::new(&[0x706c_616e, salt.0, salt.1]);
    while Instant::now() < until {
        let mut client = Client::connect(&*address).await?;
        for _ in 0..rng.between(1, 5) {
            let (frame, command) = (footage.frame(rng.bits() % 1000), command(&footage, &mut rng).to_owned());
            let request = wire::SegmentRequest { frame: Some(frame), command, ..wire::SegmentRequest::default() };
            let answer = tokio::time::timeout(PATIENCE, client.segment(request)).await;
            match answer.context("a call was not answered")? {
                Ok(_) => tally.count("calls answered", 1),
                // The node is busy, and says so; that is what it promises.
                Err(ClientError::Status(status)) if status.code() == tonic::Code::ResourceExhausted => {
                    tally.count("calls refused as busy", 1);
                }
                Err(error) => tally.is_wrong(format!("a call failed: {error}")),
            }
            client.describe().await?;
            let pause = Duration::from_secs_f32(rng.range(0.1, 1.0));
            tokio::time::sleep(pause.min(until.saturating_duration_since(Instant::now()))).await;
        }
    }
    Ok(())
}
