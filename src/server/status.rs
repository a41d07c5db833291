//! The one table from the node's errors to the wire: a code for an item, a gRPC status for a call.

use tonic::{Code, Status};

use super::wire::{self, ErrorCode};
use crate::node::{NodeError, NodeErrorKind};

/// What an error is called inside a reply, and as a status where it ends a call.
pub(super) fn codes(kind: NodeErrorKind) -> (ErrorCode, Code) {
    match kind {
        NodeErrorKind::Request => (ErrorCode::Request, Code::InvalidArgument),
        NodeErrorKind::FrameEncoding => (ErrorCode::FrameEncoding, Code::InvalidArgument),
        NodeErrorKind::FrameTooLarge => (ErrorCode::FrameTooLarge, Code::InvalidArgument),
        NodeErrorKind::FrameLayout => (ErrorCode::FrameLayout, Code::InvalidArgument),
        NodeErrorKind::FrameData => (ErrorCode::FrameData, Code::InvalidArgument),
        NodeErrorKind::FrameDepth => (ErrorCode::FrameDepth, Code::InvalidArgument),
        NodeErrorKind::FrameOrder => (ErrorCode::FrameOrder, Code::InvalidArgument),
        NodeErrorKind::Command => (ErrorCode::Command, Code::InvalidArgument),
        NodeErrorKind::Strategy => (ErrorCode::Strategy, Code::FailedPrecondition),
        NodeErrorKind::Target => (ErrorCode::Target, Code::InvalidArgument),
        NodeErrorKind::Limit => (ErrorCode::Limit, Code::ResourceExhausted),
        NodeErrorKind::Busy => (ErrorCode::Busy, Code::ResourceExhausted),
        NodeErrorKind::Deadline => (ErrorCode::Deadline, Code::DeadlineExceeded),
        NodeErrorKind::Engine => (ErrorCode::Engine, Code::Internal),
        NodeErrorKind::Stage => (ErrorCode::Stage, Code::Internal),
        NodeErrorKind::Unavailable => (ErrorCode::Unavailable, Code::Unavailable),
    }
}

/// The kind that a code stands for; `None` for the unspecified one.
pub fn kind(code: ErrorCode) -> Option<NodeErrorKind> {
    Some(match code {
        ErrorCode::Unspecified => return None,
        ErrorCode::Request => NodeErrorKind::Request,
        ErrorCode::FrameEncoding => NodeErrorKind::FrameEncoding,
        ErrorCode::FrameTooLarge => NodeErrorKind::FrameTooLarge,
        ErrorCode::FrameLayout => NodeErrorKind::FrameLayout,
        ErrorCode::FrameData => NodeErrorKind::FrameData,
        ErrorCode::FrameDepth => NodeErrorKind::FrameDepth,
        ErrorCode::FrameOrder => NodeErrorKind::FrameOrder,
        ErrorCode::Command => NodeErrorKind::Command,
        ErrorCode::Strategy => NodeErrorKind::Strategy,
        ErrorCode::Target => NodeErrorKind::Target,
        ErrorCode::Limit => NodeErrorKind::Limit,
        ErrorCode::Busy => NodeErrorKind::Busy,
        ErrorCode::Deadline => NodeErrorKind::Deadline,
        ErrorCode::Engine => NodeErrorKind::Engine,
        ErrorCode::Stage => NodeErrorKind::Stage,
        ErrorCode::Unavailable => NodeErrorKind::Unavailable,
    })
}

/// An error inside a reply.
pub(super) fn item(error: &NodeError) -> wire::Error {
    wire::Error { code: codes(error.kind()).0.into(), message: error.to_string() }
}

/// An error that ends a call.
pub(super) fn status(error: &NodeError) -> Status {
    Status::new(codes(error.kind()).1, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_survives_the_wire() {
        let mut seen = HashSet::new();
        for k in NodeErrorKind::ALL {
            let (code, grpc) = codes(k);
            assert_eq!(kind(code), Some(k));
            assert!(seen.insert(code), "{code:?} stands for two kinds");
            assert_ne!(grpc, Code::Ok);
        }
        // ... and the wire has no code that nothing produces.
        let on_the_wire = (0..100).filter(|i| ErrorCode::try_from(*i).is_ok_and(|c| kind(c).is_some())).count();
        assert_eq!(on_the_wire, NodeErrorKind::ALL.len());
    }
}
