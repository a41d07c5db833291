//! Colour and depth of one moment, which come as messages of their own and in any order.

use crate::server::wire;

/// Stamps that are no farther apart are of one moment: less than half the time between frames of a fast camera.
const TOGETHER_NS: u64 = 8_000_000;

/// The newest colour frame that waits for its depth, and the newest depth that waits for its colour frame.
///
/// A frame whose depth does not come is not lost: it goes without when the next one comes.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    colour: Option<wire::Frame>,
    depth: Option<(i64, wire::Depth)>,
}

impl Pairs {
    /// A colour frame has come; what may go now.
    pub fn colour(&mut self, frame: wire::Frame) -> Option<wire::Frame> {
        match self.depth.take_if(|(stamp_ns, _)| together(*stamp_ns, frame.stamp_ns)) {
            Some((_, depth)) => {
                self.colour = None;
                Some(with(frame, depth))
            }
            None => self.colour.replace(frame),
        }
    }

    /// Its depth, or another's, has come; what may go now.
    pub fn depth(&mut self, stamp_ns: i64, depth: wire::Depth) -> Option<wire::Frame> {
        match self.colour.take_if(|frame| together(stamp_ns, frame.stamp_ns)) {
            Some(frame) => Some(with(frame, depth)),
            None => {
                self.depth = Some((stamp_ns, depth));
                None
            }
        }
    }
}

fn together(a: i64, b: i64) -> bool {
    a.abs_diff(b) <= TOGETHER_NS
}

/// Depth is worth nothing without intrinsics, and the node refuses it.
fn with(frame: wire::Frame, depth: wire::Depth) -> wire::Frame {
    let depth = frame.intrinsics.is_some().then_some(depth);
    wire::Frame { depth, ..frame }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stamp_ns: i64) -> wire::Frame {
        wire::Frame { stamp_ns, intrinsics: Some(wire::Intrinsics::default()), ..Default::default() }
    }

    fn said(frame: Option<wire::Frame>) -> Option<(i64, bool)> {
        frame.map(|frame| (frame.stamp_ns, frame.depth.is_some()))
    }

    #[test]
    fn pairs_are_found_in_either_order() {
        let (mut pairs, depth) = (Pairs::default(), wire::Depth::default);
        assert_eq!(said(pairs.colour(frame(0))), None);
        assert_eq!(said(pairs.depth(1_000_000, depth())), Some((0, true)));
        assert_eq!(said(pairs.depth(33_000_000, depth())), None);
        assert_eq!(said(pairs.colour(frame(33_000_000))), Some((33_000_000, true)));
        // Its depth never comes.
        assert_eq!(said(pairs.colour(frame(66_000_000))), None);
        assert_eq!(said(pairs.colour(frame(99_000_000))), Some((66_000_000, false)));
        assert_eq!(said(pairs.depth(99_000_000, depth())), Some((99_000_000, true)));
        // Far apart, with a clock that jumps.
        assert_eq!(said(pairs.depth(i64::MIN, depth())), None);
        assert_eq!(said(pairs.colour(frame(i64::MAX))), None);
        assert_eq!(said(pairs.depth(i64::MAX, depth())), Some((i64::MAX, true)));
    }

    #[test]
    fn depth_without_intrinsics_is_left_out() {
        let mut pairs = Pairs::default();
        assert_eq!(said(pairs.depth(0, wire::Depth::default())), None);
        assert_eq!(said(pairs.colour(wire::Frame::default())), Some((0, false)));
    }
}
