//! A recording once more, without sockets: its requests go through the same conversion into the same session, and its
//! schedule decides the order, so that nothing depends on how fast the machine is.
//!
//! On the same build and bundle the replies are the same, byte for byte, but for what the clock decides: stamps,
//! timings, counters, quotas, whether more is to come, and how many passes the language model's answer took. On others
//! the report says what has changed.

mod compare;
mod report;

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub use report::{Change, Report, TargetReport};

use super::convert;
use super::intake::{Intake, Taken};
use super::record::{self, Entry, Recording, RecordingError, RecordingErrorKind};
use super::{Backend, wire};
use crate::frame::FrameLimits;
use crate::node::{Asked, NodeConfig, NodeError, Phrasing, Replay};
use crate::pipeline::{DriftLimits, TrackLimits};
use compare::Compare;
use wire::perceive_response::Response;

/// A recording cannot be replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// It does not say what has to be known beforehand.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// The stages cannot be built, or a stage is gone.
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// What of a node's settings its answers depend on; written into every recording.
pub(super) fn about(provenance: &wire::Provenance, config: &NodeConfig, backend: &Backend) -> record::About {
    let strategy = backend.stages.strategies.usual().word();
    let numbers = [
        ("max_frame_pixels", config.frame.max_pixels),
        ("max_frame_side", config.frame.max_side.into()),
        ("max_command_bytes", config.max_command_bytes as u64),
        ("max_targets", config.max_targets as u64),
        ("stale_limit_ms", ms(config.stale_limit)),
        ("remember_lost_ms", ms(config.remember_lost)),
    ];
    let texts = [
        ("bundle_name", &*provenance.bundle_name),
        ("bundle_version", &provenance.bundle_version),
        ("bundle_fingerprint", &provenance.bundle_fingerprint),
        ("engine", &provenance.engine),
        ("engine_version", &provenance.engine_version),
        ("node_version", &provenance.node_version),
        ("strategy", strategy),
    ];
    let numbers = numbers.map(|(key, value)| (key.to_owned(), value.to_string()));
    let drift = drift(&config.track.drift).map(|(key, value)| (key.to_owned(), value.to_string()));
    texts.map(|(key, text)| (key.to_owned(), text.to_owned())).into_iter().chain(numbers).chain(drift).collect()
}

fn drift(limits: &DriftLimits) -> [(&'static str, f32); 4] {
    let DriftLimits { score_share, area_ratio, colour, shape } = *limits;
    [
        ("drift_score_share", score_share),
        ("drift_area_ratio", area_ratio),
        ("drift_colour", colour),
        ("drift_shape", shape),
    ]
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A number of a recording's metadata.
fn parse<T: FromStr>(recording: &Recording, key: &str) -> Result<T, RecordingError> {
    let what = || format!("its metadata has no number under {key:?}");
    recording.says(key).parse().map_err(|_| recording.error(RecordingErrorKind::Foreign, what()))
}

/// The settings that a recording was made under.
fn config(recording: &Recording) -> Result<NodeConfig, RecordingError> {
    let number = |key: &str| parse::<u64>(recording, key);
    let small = |key: &str| Ok(usize::try_from(number(key)?).unwrap_or(usize::MAX));
    let max_side = u32::try_from(number("max_frame_side")?).unwrap_or(u32::MAX);
    // Recordings of earlier nodes do not say; what is usual is taken.
    let mut limits = [0.0; 4];
    for (limit, (key, usual)) in limits.iter_mut().zip(drift(&DriftLimits::default())) {
        *limit = if recording.says(key).is_empty() { usual } else { parse(recording, key)? };
    }
    let [score_share, area_ratio, colour, shape] = limits;
    let drift = DriftLimits { score_share, area_ratio, colour, shape };
    let config = NodeConfig {
        track: TrackLimits { drift, ..TrackLimits::default() },
        frame: FrameLimits { max_pixels: number("max_frame_pixels")?, max_side },
        max_command_bytes: small("max_command_bytes")?,
        max_targets: small("max_targets")?,
        stale_limit: Duration::from_millis(number("stale_limit_ms")?),
        remember_lost: Duration::from_millis(number("remember_lost_ms")?),
        ..NodeConfig::default()
    };
    config.validate().map_err(|error| recording.error(RecordingErrorKind::Foreign, error.to_string()))?;
    Ok(config)
}

/// Replays a recording on the stages of `backend`, and holds the replies against the recorded ones. Not to be called
/// where async code runs. What is damaged ends the replay, and is in the report.
///
/// # Errors
/// [`ReplayError`].
pub fn replay(mut recording: Recording, backend: Backend) -> Result<Report, ReplayError> {
    let config = config(&recording)?;
    let provenance = Arc::new(convert::provenance(&backend.identity));
    let phrasing = Phrasing::new(&config, backend.stages.strategies);
    let mut player = Player {
        node: Replay::new(config, backend.stages)?,
        intake: Intake { phrasing, provenance: provenance.clone() },
        open: Vec::new(),
        numbers: HashMap::new(),
        compare: Compare::new(recording.provenance(), (*provenance).clone()),
    };
    let damage = loop {
        match recording.next_entry() {
            Ok(Some(entry)) => {
                if let Err(fault) = player.take(entry) {
                    break Some(recording.error(RecordingErrorKind::Damaged, fault));
                }
            }
            Ok(None) => break None,
            Err(damage) => break Some(damage),
        }
    };
    player.finish()?;
    Ok(player.compare.report(damage))
}

struct Player {
    node: Replay,
    intake: Intake,
    /// Questions that are asked and not answered yet.
    open: Vec<(Asked, String)>,
    /// The requests that questions came in, by their ids.
    numbers: HashMap<String, u64>,
    compare: Compare,
}

impl Player {
    /// Takes what comes next, or says what is wrong with it.
    fn take(&mut self, entry: Entry) -> Result<(), String> {
        match entry {
            Entry::Request(number, request) => {
                let intake = &self.intake;
                match self.node.take(|input| intake.take(input, number, *request)) {
                    Taken::Done => {}
                    Taken::Refused(refused) => self.compare.replayed(*refused),
                    Taken::Asked(asked, id) => {
                        self.numbers.insert(id.clone(), number);
                        self.open.push((asked, id));
                    }
                }
            }
            Entry::Reply(reply) => {
                if let Some(Response::Answer(answer)) = &reply.response {
                    self.forget_refused(answer);
                }
                self.compare.recorded(*reply);
            }
            Entry::Step(step) => {
                let step = record::step(step, |offset| self.node.at(offset)).ok_or("a step of the schedule is none")?;
                let replies = self.node.step(step).map_err(|error| error.to_string())?;
                let provenance = &self.intake.provenance;
                let replies = replies.into_iter().map(|reply| convert::reply(reply, provenance));
                replies.for_each(|reply| self.compare.replayed(reply));
                self.hear_answers();
            }
        }
        Ok(())
    }

    /// A question that was refused for want of time or room then is not asked again.
    fn forget_refused(&mut self, answer: &wire::Answer) {
        if let Some(wire::answer::Outcome::Error(_)) = &answer.outcome
            && let Some(number) = self.numbers.remove(&answer.question_id)
            && self.open.iter().any(|(_, id)| *id == answer.question_id)
        {
            self.node.forget_question(number);
            self.open.retain(|(_, id)| *id != answer.question_id);
        }
    }

    fn hear_answers(&mut self) {
        let provenance = &self.intake.provenance;
        let mut answers = Vec::new();
        self.open.retain_mut(|(asked, id)| match asked.answer_now() {
            None => true,
            Some(outcome) => {
                answers.push(convert::answer(id.clone(), outcome, provenance));
                false
            }
        });
        answers.into_iter().for_each(|answer| self.compare.replayed(answer));
    }

    fn finish(&mut self) -> Result<(), NodeError> {
        self.node.finish()?;
        self.hear_answers();
        Ok(())
    }
}
