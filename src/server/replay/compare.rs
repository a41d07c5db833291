//! Replies against replies.

use std::collections::{BTreeMap, VecDeque};

use prost::Message;

use super::report::{Change, Report};
use crate::client;
use crate::mask::Mask;
use crate::server::record::RecordingError;
use crate::server::wire::{self, ErrorCode};
use wire::perceive_response::Response;

/// The longest text of a value in a [`Change`].
const SHOWN: usize = 60;

/// What a reply is about: replies about the same are held against each other, in their order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Frame(u64, u32),
    Question(String),
    Refused(Option<u64>, Option<String>),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Frame(seq, 0) => write!(f, "frame {seq}"),
            Self::Frame(seq, revision) => write!(f, "frame {seq}, revision {revision}"),
            Self::Question(id) => write!(f, "question {id:?}"),
            Self::Refused(Some(seq), _) => write!(f, "refusal of frame {seq}"),
            Self::Refused(None, Some(id)) => write!(f, "refusal about target {id:?}"),
            Self::Refused(None, None) => write!(f, "refusal"),
        }
    }
}

fn subject(response: &Response) -> Subject {
    match response {
        Response::Frame(frame) => Subject::Frame(frame.seq, frame.revision),
        Response::Answer(answer) => Subject::Question(answer.question_id.clone()),
        Response::Rejected(rejected) => Subject::Refused(rejected.seq, rejected.target_id.clone()),
    }
}

/// Holds recorded replies against replayed ones, whichever comes first.
pub(super) struct Compare {
    report: Report,
    /// Replies without a partner: recorded, replayed.
    waiting: BTreeMap<Subject, [VecDeque<Response>; 2]>,
    /// The last frame that has a recorded reply.
    last: Option<Subject>,
}

impl Compare {
    pub(super) fn new(recorded: wire::Provenance, replayed: wire::Provenance) -> Self {
        Self { report: Report::new(recorded, replayed), waiting: BTreeMap::new(), last: None }
    }

    pub(super) fn recorded(&mut self, reply: wire::PerceiveResponse) {
        let Some(response) = reply.response else { return };
        if hangs_on_time(&response) {
            return;
        }
        if matches!(response, Response::Frame(_)) {
            self.last = Some(subject(&response));
        }
        self.put(0, response);
    }

    pub(super) fn replayed(&mut self, reply: wire::PerceiveResponse) {
        if let Some(response) = reply.response {
            self.put(1, response);
        }
    }

    fn put(&mut self, side: usize, mut response: Response) {
        strip(&mut response);
        let subject = subject(&response);
        let queues = self.waiting.entry(subject.clone()).or_default();
        let Some(other) = queues[1 - side].pop_front() else { return queues[side].push_back(response) };
        if queues.iter().all(VecDeque::is_empty) {
            self.waiting.remove(&subject);
        }
        let (recorded, replayed) = if side == 0 { (response, other) } else { (other, response) };
        self.pair(&subject, &recorded, &replayed);
    }

    fn pair(&mut self, subject: &Subject, recorded: &Response, replayed: &Response) {
        self.report.replies += 1;
        let same = bytes(recorded) == bytes(replayed);
        self.report.identical += u64::from(same);
        let empty = Vec::new();
        let (before, after) = (targets(recorded).unwrap_or(&empty), targets(replayed).unwrap_or(&empty));
        let mut told = false;
        for (was, is) in before.iter().zip(after) {
            told |= self.target(subject, was, is);
        }
        if !same && !told {
            let what = difference(recorded, replayed);
            self.report.changes.push(Change { place: subject.to_string(), what, ..Change::default() });
        }
    }

    /// Notes one target on one frame; says whether it has changed.
    fn target(&mut self, subject: &Subject, was: &wire::TargetResult, is: &wire::TargetResult) -> bool {
        let totals = self.report.targets.entry(was.target_id.clone()).or_default();
        totals.replies += 1;
        let iou = overlap(was, is);
        let verdicts = (was.verdict() != is.verdict()).then(|| (word(was.verdict()), word(is.verdict())));
        totals.verdict_changes += u64::from(verdicts.is_some());
        totals.observe(iou);
        let changed = was != is;
        if changed {
            totals.changed += 1;
            self.report.changes.push(Change {
                place: subject.to_string(),
                target: was.target_id.clone(),
                verdicts,
                iou,
                what: difference(was, is),
            });
        }
        changed
    }

    /// What came of it all. The last replies may have been made and not been sent: nobody read them any more.
    pub(super) fn report(mut self, damage: Option<RecordingError>) -> Report {
        for (subject, [recorded, replayed]) in std::mem::take(&mut self.waiting) {
            let before_the_end = matches!(subject, Subject::Frame(..)) && Some(&subject) < self.last.as_ref();
            let what = match (recorded.is_empty(), replayed.is_empty()) {
                (false, _) if damage.is_none() => "there is no such reply any more",
                (_, false) if before_the_end => "there was no such reply",
                _ => continue,
            };
            self.report.changes.push(Change { place: subject.to_string(), what: what.to_owned(), ..Change::default() });
        }
        self.report.damage = damage;
        self.report
    }
}

/// A refusal for want of time or room, which says nothing of the next time.
fn hangs_on_time(response: &Response) -> bool {
    let error = match response {
        Response::Frame(_) => None,
        Response::Rejected(rejected) => rejected.error.as_ref(),
        Response::Answer(answer) => match &answer.outcome {
            Some(wire::answer::Outcome::Error(error)) => Some(error),
            _ => None,
        },
    };
    let Some(error) = error else { return false };
    matches!(
        error.code(),
        ErrorCode::Limit
            | ErrorCode::Busy
            | ErrorCode::Deadline
            | ErrorCode::Engine
            | ErrorCode::Stage
            | ErrorCode::Unavailable
    )
}

/// Takes away what the clock decides.
fn strip(response: &mut Response) {
    match response {
        Response::Frame(frame) => {
            (frame.received_ns, frame.sent_ns, frame.partial) = (0, 0, false);
            (frame.counters, frame.provenance) = (None, None);
            frame.timings.clear();
            frame.targets.iter_mut().for_each(strip_target);
        }
        Response::Answer(answer) => {
            let Some(wire::answer::Outcome::Response(response)) = &mut answer.outcome else { return };
            (response.received_ns, response.sent_ns, response.provenance) = (0, 0, None);
            response.timings.clear();
            response.result.iter_mut().for_each(strip_target);
        }
        Response::Rejected(_) => {}
    }
}

fn strip_target(target: &mut wire::TargetResult) {
    // A quota's.
    target.error.take_if(|error| error.code() == ErrorCode::Limit);
    if let Some(evidence) = &mut target.evidence {
        evidence.timings.clear();
        (evidence.passes, evidence.drafted_tokens, evidence.accepted_tokens, evidence.near_ties) = (0, 0, 0, 0);
    }
}

fn bytes(response: &Response) -> Vec<u8> {
    wire::PerceiveResponse { response: Some(response.clone()) }.encode_to_vec()
}

fn targets(response: &Response) -> Option<&Vec<wire::TargetResult>> {
    match response {
        Response::Frame(frame) => Some(&frame.targets),
        Response::Answer(_) | Response::Rejected(_) => None,
    }
}

/// IoU of everything that is masked; `None` where nothing is, on either side.
fn overlap(was: &wire::TargetResult, is: &wire::TargetResult) -> Option<f32> {
    match (union(was), union(is)) {
        (None, None) => None,
        (Some(a), Some(b)) => Some(a.iou(&b).unwrap_or(0.0)),
        _ => Some(0.0),
    }
}

fn union(target: &wire::TargetResult) -> Option<Mask> {
    let masks = client::masks(target).ok()?;
    let size = masks.first()?.size();
    masks.into_iter().filter(|mask| mask.size() == size).reduce(|mut all, mask| {
        all.union_with(&mask);
        all
    })
}

fn word(verdict: wire::Verdict) -> String {
    client::verdict_word(verdict).to_lowercase()
}

/// The first line in which two things differ when they are spelt out.
fn difference(was: &impl std::fmt::Debug, is: &impl std::fmt::Debug) -> String {
    let (was, is) = (format!("{was:#?}"), format!("{is:#?}"));
    let short = |line: Option<&str>| line.unwrap_or("nothing").trim().chars().take(SHOWN).collect::<String>();
    let (mut was, mut is) = (was.lines(), is.lines());
    loop {
        let (a, b) = (was.next(), is.next());
        if a != b || a.is_none() {
            return format!("{} -> {}", short(a), short(b));
        }
    }
}
