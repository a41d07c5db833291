//! Steps of the schedule on their way into a recording, and back.

use std::time::{Duration, Instant};

use super::proto;
use super::proto::segmented::Outcome;
use super::proto::step::Step as Kind;
use crate::node::{Masks, NodeError, NodeErrorKind, Step};
use crate::server::convert::states;
use crate::server::{status, wire};

/// `start` is when the recording began.
pub(super) fn to_wire(step: &Step, start: Instant) -> proto::Step {
    let ns = |at: &Instant| u64::try_from(at.saturating_duration_since(start).as_nanos()).unwrap_or(u64::MAX);
    let kind = match step {
        Step::Follow { version, at } => Kind::Follow(proto::Follow { version: *version, at_ns: ns(at) }),
        Step::Begin { seq, revision, arrived } => {
            Kind::Begin(proto::Begin { seq: *seq, revision: *revision, arrived_ns: ns(arrived) })
        }
        Step::Decoded => Kind::Decoded(proto::Decoded {}),
        Step::Segmented(masks) => {
            let (outcome, error) = match masks {
                Masks::Made => (Outcome::Made, None),
                Masks::Unreadable => (Outcome::Unreadable, None),
                Masks::Late => (Outcome::Late, None),
                Masks::Failed(error) => (Outcome::Failed, Some(status::item(error))),
            };
            Kind::Segmented(proto::Segmented { outcome: outcome.into(), error })
        }
        Step::Ask { serial, why } => Kind::Ask(proto::Ask { serial: *serial, why: states::why(*why).into() }),
        Step::Guessed(answered) => Kind::Guessed(proto::Guessed { answered: *answered }),
        Step::Proposed { answered } => Kind::Proposed(proto::Proposed { answered: *answered }),
        Step::Grounded(outcome) => Kind::Grounded(proto::Grounded { error: outcome.as_ref().err().map(status::item) }),
        Step::Unsegmented { seq, arrived, error } => {
            let error = Some(status::item(error));
            Kind::Unsegmented(proto::Unsegmented { seq: *seq, arrived_ns: ns(arrived), error })
        }
        Step::GroundDown(error) => Kind::GroundDown(proto::GroundDown { error: Some(status::item(error)) }),
        Step::Question { request } => Kind::Question(proto::Question { request: *request }),
    };
    proto::Step { step: Some(kind) }
}

/// The step again; `at` gives the moment of an offset. `None` for what is no step.
pub(in super::super) fn from_wire(step: proto::Step, at: impl Fn(Duration) -> Instant) -> Option<Step> {
    let at = |ns: u64| at(Duration::from_nanos(ns));
    Some(match step.step? {
        Kind::Follow(f) => Step::Follow { version: f.version, at: at(f.at_ns) },
        Kind::Begin(b) => Step::Begin { seq: b.seq, revision: b.revision, arrived: at(b.arrived_ns) },
        Kind::Decoded(_) => Step::Decoded,
        Kind::Segmented(s) => Step::Segmented(match s.outcome() {
            Outcome::Unspecified => return None,
            Outcome::Made => Masks::Made,
            Outcome::Unreadable => Masks::Unreadable,
            Outcome::Late => Masks::Late,
            Outcome::Failed => Masks::Failed(error(s.error)?),
        }),
        Kind::Ask(a) => Step::Ask { serial: a.serial, why: states::why_of(a.why())? },
        Kind::Guessed(g) => Step::Guessed(g.answered),
        Kind::Proposed(p) => Step::Proposed { answered: p.answered },
        Kind::Grounded(proto::Grounded { error: None }) => Step::Grounded(Ok(())),
        Kind::Grounded(g) => Step::Grounded(Err(error(g.error)?)),
        Kind::Unsegmented(u) => Step::Unsegmented { seq: u.seq, arrived: at(u.arrived_ns), error: error(u.error)? },
        Kind::GroundDown(g) => Step::GroundDown(error(g.error)?),
        Kind::Question(q) => Step::Question { request: q.request },
    })
}

fn error(error: Option<wire::Error>) -> Option<NodeError> {
    let error = error?;
    let kind: NodeErrorKind = status::kind(error.code())?;
    Some(NodeError::new(kind, error.message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Why;

    #[test]
    fn every_step_comes_back_as_it_went() {
        let start = Instant::now();
        let arrived = start + Duration::from_nanos(1_234_567_891);
        let error = NodeError::new(NodeErrorKind::Engine, "run engine: no");
        let mut steps = vec![
            Step::Follow { version: 3, at: arrived },
            Step::Begin { seq: 9, revision: 2, arrived },
            Step::Decoded,
            Step::Guessed(true),
            Step::Guessed(false),
            Step::Proposed { answered: true },
            Step::Grounded(Ok(())),
            Step::Grounded(Err(error.clone())),
            Step::Unsegmented { seq: 4, arrived, error: error.clone() },
            Step::GroundDown(error.clone()),
            Step::Question { request: 17 },
        ];
        let masks = [Masks::Made, Masks::Unreadable, Masks::Late, Masks::Failed(error)];
        steps.extend(masks.map(Step::Segmented));
        let whys =
            [Why::New, Why::Request, Why::Lost, Why::Drift, Why::Missing, Why::Unsure, Why::Confirm, Why::Budget];
        steps.extend(whys.map(|why| Step::Ask { serial: 5, why }));
        for step in steps {
            let there = to_wire(&step, start);
            assert_eq!(from_wire(there, |offset| start + offset), Some(step));
        }
        assert_eq!(from_wire(proto::Step::default(), |offset| start + offset), None);
    }
}
