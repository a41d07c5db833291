//! What a replay found.

use std::collections::BTreeMap;

use crate::server::record::RecordingError;
use crate::server::wire;

/// One reply, or one target in it, that is not as it was.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Change {
    /// The reply: "frame 12".
    pub place: String,
    /// The target; empty where it is the reply as a whole.
    pub target: String,
    /// The verdicts, where they differ: then, now.
    pub verdicts: Option<(String, String)>,
    /// IoU of all its masks then with all its masks now, `0.0..=1.0`; `None` where there were and are none.
    pub iou: Option<f32>,
    /// The first value that differs: then, now.
    pub what: String,
}

/// One target over all replies.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TargetReport {
    /// Replies that have it.
    pub replies: u64,
    /// Those of them that are not as they were.
    pub changed: u64,
    /// Those with another verdict.
    pub verdict_changes: u64,
    /// Replies with masks, then or now.
    pub masked: u64,
    /// Of those, the least IoU.
    pub min_iou: Option<f32>,
    sum_iou: f64,
}

impl TargetReport {
    pub(super) fn observe(&mut self, iou: Option<f32>) {
        let Some(iou) = iou else { return };
        self.masked += 1;
        self.sum_iou += f64::from(iou);
        self.min_iou = Some(self.min_iou.map_or(iou, |least| least.min(iou)));
    }

    /// Mean IoU over the replies with masks; `None` where there are none.
    pub fn mean_iou(&self) -> Option<f32> {
        (self.masked > 0).then(|| (self.sum_iou / self.masked as f64) as f32)
    }
}

/// What a replay found.
#[derive(Debug)]
pub struct Report {
    /// What made the recorded answers.
    pub recorded: wire::Provenance,
    /// What made the replayed ones.
    pub replayed: wire::Provenance,
    /// Replies that were held against each other.
    pub replies: u64,
    /// Those of them that are the same, byte for byte.
    pub identical: u64,
    /// What is not the same, in the order of the replies.
    pub changes: Vec<Change>,
    /// Totals by target.
    pub targets: BTreeMap<String, TargetReport>,
    /// Why the recording could not be read to its end.
    pub damage: Option<RecordingError>,
}

impl Report {
    pub(super) fn new(recorded: wire::Provenance, replayed: wire::Provenance) -> Self {
        let (changes, targets) = (Vec::new(), BTreeMap::new());
        Self { recorded, replayed, replies: 0, identical: 0, changes, targets, damage: None }
    }

    /// Whether the same build and bundle answered, so that every reply has to be the same.
    pub fn same_provenance(&self) -> bool {
        self.recorded == self.replayed
    }
}
