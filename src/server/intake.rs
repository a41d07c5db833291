//! Requests of a stream into its session: the same for a live stream and for one that is replayed.

use std::sync::Arc;
use std::time::Instant;

use super::convert;
use super::wire;
use super::wire::perceive_request::Request as Asked;
use crate::node::{self, MAX_TARGET_ID_BYTES, NodeError, NodeErrorKind, Phrasing, SessionInput};

/// Takes the requests of one stream.
pub(super) struct Intake {
    pub phrasing: Phrasing,
    pub provenance: Arc<wire::Provenance>,
}

/// What came of a request.
pub(super) enum Taken {
    /// The session has it.
    Done,
    /// It was refused; the reply says so.
    Refused(Box<wire::PerceiveResponse>),
    /// It is a question of that id, which will be answered.
    Asked(node::Asked, String),
}

impl Intake {
    /// Hands the request number `number` to the session.
    pub(super) fn take(&self, input: &mut SessionInput, number: u64, request: wire::PerceiveRequest) -> Taken {
        let empty = || NodeError::new(NodeErrorKind::Request, "read request: it is empty");
        let Some(asked) = request.request else {
            return Taken::Refused(Box::new(convert::rejected(None, None, &empty())));
        };
        let (seq, target_id) = subject(&asked);
        let outcome = match asked {
            Asked::Frame(frame) => match convert::frame(frame, request.options) {
                Ok(frame) => input.submit(frame),
                Err(error) => {
                    input.refuse_frame();
                    Err(error)
                }
            },
            Asked::SetTargets(set) => {
                let specs: Result<Vec<_>, _> =
                    set.targets.into_iter().map(|t| convert::target(t, self.phrasing)).collect();
                specs.and_then(|specs| input.set_targets(specs))
            }
            Asked::AddTarget(t) => convert::target(t, self.phrasing).and_then(|spec| input.add_target(spec)),
            Asked::RemoveTarget(t) => input.remove_target(&t.target_id),
            Asked::RenameTarget(t) => input.rename_target(&t.target_id, t.new_target_id),
            Asked::PauseTarget(t) => input.pause_target(&t.target_id, true),
            Asked::ResumeTarget(t) => input.pause_target(&t.target_id, false),
            Asked::RegroundTarget(t) => input.reground_target(&t.target_id),
            Asked::Question(question) => {
                return match self.ask(input, number, question, request.options) {
                    Ok((asked, id)) => Taken::Asked(asked, id),
                    Err((id, error)) => Taken::Refused(Box::new(convert::answer(id, Err(error), &self.provenance))),
                };
            }
        };
        // An id that is too long is not sent back.
        let target_id = target_id.filter(|id| id.len() <= MAX_TARGET_ID_BYTES);
        match outcome {
            Ok(()) => Taken::Done,
            Err(error) => Taken::Refused(Box::new(convert::rejected(seq, target_id, &error))),
        }
    }

    /// Asks a question, whose answer is sent when it comes.
    fn ask(
        &self,
        input: &SessionInput,
        number: u64,
        question: wire::Question,
        options: Option<wire::Options>,
    ) -> Result<(node::Asked, String), (String, NodeError)> {
        let received = Instant::now();
        let wire::Question { question_id, command, hint, strategy } = question;
        if question_id.len() > MAX_TARGET_ID_BYTES {
            let what = format!("ask: an id of {} bytes, expected at most {MAX_TARGET_ID_BYTES}", question_id.len());
            return Err((String::new(), NodeError::new(NodeErrorKind::Request, what)));
        }
        let asked = convert::manner(hint, strategy).and_then(|manner| {
            let options = convert::options(options.unwrap_or_default())?;
            let deadline = options.budget.and_then(|budget| received.checked_add(budget));
            input.ask(number, self.phrasing.target(String::new(), &command, manner), options, deadline)
        });
        match asked {
            Ok(asked) => Ok((asked, question_id)),
            Err(error) => Err((question_id, error)),
        }
    }
}

/// The frame or the target that a request is about.
fn subject(asked: &Asked) -> (Option<u64>, Option<String>) {
    let target = |id: &String| (None, Some(id.clone()));
    match asked {
        Asked::Frame(frame) => (Some(frame.seq), None),
        Asked::SetTargets(_) | Asked::Question(_) => (None, None),
        Asked::AddTarget(t) => target(&t.target_id),
        Asked::RemoveTarget(t) => target(&t.target_id),
        Asked::RenameTarget(t) => target(&t.target_id),
        Asked::PauseTarget(t) => target(&t.target_id),
        Asked::ResumeTarget(t) => target(&t.target_id),
        Asked::RegroundTarget(t) => target(&t.target_id),
    }
}
