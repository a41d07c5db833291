//! Where a target is in its life, on the wire.

use super::wire;
use crate::node::{Look, Phase, Why};

pub(super) fn phase(phase: Phase) -> wire::Phase {
    match phase {
        Phase::Pending => wire::Phase::Pending,
        Phase::Grounded => wire::Phase::Grounded,
        Phase::Tracked => wire::Phase::Tracked,
        Phase::Stale => wire::Phase::Stale,
        Phase::Lost => wire::Phase::Lost,
        Phase::Vacant => wire::Phase::Vacant,
        Phase::Failed => wire::Phase::Failed,
        Phase::Paused => wire::Phase::Paused,
    }
}

pub(super) fn look(look: Look) -> wire::Look {
    match look {
        Look::Idle => wire::Look::Idle,
        Look::Asked => wire::Look::Asked,
        Look::Proposed => wire::Look::Proposed,
        Look::Answered => wire::Look::Answered,
    }
}

pub(in super::super) fn why(why: Why) -> wire::Why {
    match why {
        Why::New => wire::Why::New,
        Why::Request => wire::Why::Request,
        Why::Lost => wire::Why::Lost,
        Why::Drift => wire::Why::Drift,
        Why::Missing => wire::Why::Missing,
        Why::Unsure => wire::Why::Unsure,
        Why::Confirm => wire::Why::Confirm,
        Why::Budget => wire::Why::Budget,
    }
}

/// The other way round; `None` for the unspecified one.
pub(in super::super) fn why_of(why: wire::Why) -> Option<Why> {
    Some(match why {
        wire::Why::Unspecified => return None,
        wire::Why::New => Why::New,
        wire::Why::Request => Why::Request,
        wire::Why::Lost => Why::Lost,
        wire::Why::Drift => Why::Drift,
        wire::Why::Missing => Why::Missing,
        wire::Why::Unsure => Why::Unsure,
        wire::Why::Confirm => Why::Confirm,
        wire::Why::Budget => Why::Budget,
    })
}
