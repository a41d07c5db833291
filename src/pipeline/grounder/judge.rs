//! What an answer and the probabilities of its tokens decide.

use super::super::Outcome;
use super::super::evidence::Evidence;
use crate::prompt::{Answer, AnswerError, CountHint, GridPrompt, Thresholds};

/// Boxes of one answer that overlap more than this are the same target said twice.
const SAME_TARGET_IOU: f32 = 0.7;

/// One target that the answer names.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Proposal {
    pub target: GridPrompt,
    /// That it starts, and its box, `0.0..=1.0`.
    pub confidence: f32,
}

/// The first answer, judged.
pub(super) struct Proposals {
    pub outcome: Outcome,
    pub confidence: f32,
    pub found: Vec<Proposal>,
    /// p(found) and p(absent), as the first token has them.
    pub first: [f32; 2],
    /// Why the answer could not be read.
    pub malformed: Option<AnswerError>,
}

/// What the first token of the answer decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Found,
    Absent,
}

/// The probabilities of the answer's first token.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct First {
    p_found: f32,
    p_absent: f32,
    pub verdict: Option<Verdict>,
}

impl First {
    /// `p_found` and `p_absent` are of all tokens; or, where nothing else may be said, of those two, which `only` says.
    pub(super) fn read([p_found, p_absent]: [f32; 2], only: bool, thresholds: Thresholds) -> Self {
        let all = p_found + p_absent;
        let [p_found, p_absent] = [p_found, p_absent].map(|p| if only && all > 0.0 { p / all } else { p });
        // With low thresholds both may be reached; then the more likely one holds.
        let verdict = match (p_found >= thresholds.found, p_absent >= thresholds.absent) {
            (true, true) if p_found < p_absent => Some(Verdict::Absent),
            (true, _) => Some(Verdict::Found),
            (false, true) => Some(Verdict::Absent),
            (false, false) => None,
        };
        Self { p_found, p_absent, verdict }
    }
}

/// The outcome of an answer whose targets have `coordinates` numbers each.
pub(super) fn judge(
    answer: Result<Answer, AnswerError>,
    first: First,
    hint: CountHint,
    evidence: &Evidence<'_>,
    coordinates: usize,
) -> Proposals {
    let first_token = [first.p_found, first.p_absent];
    let nothing =
        |outcome, confidence| Proposals { outcome, confidence, found: Vec::new(), first: first_token, malformed: None };
    match (answer, first.verdict) {
        (Err(error), _) => Proposals { malformed: Some(error), ..nothing(Outcome::Unsure, 0.0) },
        (Ok(Answer::Absent), Some(Verdict::Absent)) => nothing(Outcome::Absent, first.p_absent),
        (Ok(Answer::Targets(targets)), Some(Verdict::Found)) => {
            let confidences = evidence.boxes(targets.len(), coordinates, first.p_found);
            let proposal = |(target, confidence)| Proposal { target, confidence };
            let found = merge(targets.into_iter().zip(confidences).map(proposal));
            let several = found.len() > 1 && hint == CountHint::One;
            let outcome = if several { Outcome::Ambiguous } else { Outcome::Found };
            Proposals { found, ..nothing(outcome, first.p_found) }
        }
        (Ok(_), _) => nothing(Outcome::Unsure, first.p_found.max(first.p_absent)),
    }
}

/// Boxes that are the same target said twice become the more certain one of them.
fn merge(proposals: impl Iterator<Item = Proposal>) -> Vec<Proposal> {
    let mut kept: Vec<Proposal> = Vec::new();
    for proposal in proposals {
        match kept.iter_mut().find(|k| k.target.bbox.iou(&proposal.target.bbox) > SAME_TARGET_IOU) {
            Some(same) if same.confidence < proposal.confidence => *same = proposal,
            Some(_) => {}
            None => kept.push(proposal),
        }
    }
    kept
}
