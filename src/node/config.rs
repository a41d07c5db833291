//! What the node may be told.

use std::time::Duration;

use crate::frame::FrameLimits;
use crate::pipeline::TrackLimits;

/// Settings of a node. Checked by [`NodeConfig::validate`], then never changed.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeConfig {
    /// The largest frames.
    pub frame: FrameLimits,
    /// When a tracked instance counts as lost.
    pub track: TrackLimits,
    /// A target is grounded again when its last grounding is this old and the grounder is idle. Default: 2 s.
    pub reground_after: Duration,
    /// A target that is lost, has drifted, is contested or unsure is grounded again so long after its last grounding, not at
    /// once: about nearly the same pixels the same mistake would be made again. Default: 250 ms.
    pub reground_lost_after: Duration,
    /// An instance that went out of sight keeps its id if it comes back within this, and is looked for meanwhile as often
    /// as if it was lost; so long a target is looked at as often that is unsure. Default: 3 s, for occlusions of 2 s.
    pub remember_lost: Duration,
    /// The longest one grounding may take. Default: 30 s. More than 0.
    pub ground_timeout: Duration,
    /// How long a grounding waits for masks to guess answers from, where it can use some; 0 for not at all. Only how fast
    /// it is depends on them. Default: 100 ms.
    pub draft_wait: Duration,
    /// How long a mask may be repeated while segmentation fails. Default: 1 s.
    pub stale_limit: Duration,
    /// Sessions at a time. Default: 64. Range: 1..=4096.
    pub max_sessions: usize,
    /// Targets of a session. Default: 16. Range: 1..=256.
    pub max_targets: usize,
    /// Unary calls in work or waiting. Default: 8. Range: 1..=1024.
    pub max_calls: usize,
    /// Bytes of a command. Default: 1024. At least 1.
    pub max_command_bytes: usize,
    /// How often in a row a stage that panics is built anew; after that it stays down. Default: 8.
    pub stage_restarts: u32,
    /// A stage that is at one job for longer than this hangs: the node is not ready until it is back. Default: 60 s.
    /// More than 0.
    pub stage_hang: Duration,
    /// How long the second restart in a row waits; each further one twice as long, up to 30 s; the first does not
    /// wait. Default: 1 s.
    pub restart_backoff: Duration,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            frame: FrameLimits::default(),
            track: TrackLimits::default(),
            reground_after: Duration::from_secs(2),
            reground_lost_after: Duration::from_millis(250),
            remember_lost: Duration::from_secs(3),
            ground_timeout: Duration::from_secs(30),
            draft_wait: Duration::from_millis(100),
            stale_limit: Duration::from_secs(1),
            max_sessions: 64,
            max_targets: 16,
            max_calls: 8,
            max_command_bytes: 1024,
            stage_restarts: 8,
            stage_hang: Duration::from_secs(60),
            restart_backoff: Duration::from_secs(1),
        }
    }
}

/// A setting is out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("check setting `{setting}`: {what}")]
pub struct ConfigError {
    setting: &'static str,
    what: &'static str,
}

impl ConfigError {
    pub(crate) fn new(setting: &'static str, what: &'static str) -> Self {
        Self { setting, what }
    }

    /// The setting at fault.
    pub fn setting(&self) -> &'static str {
        self.setting
    }
}

impl NodeConfig {
    /// Refuses what is out of range.
    ///
    /// # Errors
    /// The first setting at fault.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let checks = [
            ("max_sessions", (1..=4096).contains(&self.max_sessions), "must be in 1..=4096"),
            ("max_targets", (1..=256).contains(&self.max_targets), "must be in 1..=256"),
            ("max_calls", (1..=1024).contains(&self.max_calls), "must be in 1..=1024"),
            ("max_command_bytes", self.max_command_bytes > 0, "must not be 0"),
            ("max_frame_pixels", self.frame.max_pixels > 0, "must not be 0"),
            ("max_frame_side", self.frame.max_side > 0, "must not be 0"),
            ("ground_timeout", !self.ground_timeout.is_zero(), "must not be 0"),
            ("stage_hang", !self.stage_hang.is_zero(), "must not be 0"),
            ("drift_score_share", (0.0..=1.0).contains(&self.track.drift.score_share), "must be in 0.0..=1.0"),
            // As an f32 may also be infinite or no number.
            ("drift_area_ratio", (1.0..=1e6).contains(&self.track.drift.area_ratio), "must be in 1.0..=1000000.0"),
            ("drift_colour", (0.0..=1.0).contains(&self.track.drift.colour), "must be in 0.0..=1.0"),
            ("drift_shape", (0.0..=1.0).contains(&self.track.drift.shape), "must be in 0.0..=1.0"),
        ];
        match checks.into_iter().find(|(_, ok, _)| !ok) {
            Some((setting, _, what)) => Err(ConfigError::new(setting, what)),
            None => Ok(()),
        }
    }
}
