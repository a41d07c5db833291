//! What was written and what was not, by source.

use std::collections::BTreeMap;

use serde::Serialize;

/// Why something said of a picture is not taught.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// A held-out split has its picture.
    Leak,
    /// Its picture is missing, damaged or of another size.
    Damaged,
    /// It holds a control token of the tokenizer, or a trainer's placeholder.
    ControlToken,
    /// It holds a word that the tokenizer does not know.
    UnknownWord,
    /// It is too long to be a command, or holds characters that no command may.
    Text,
    /// A target's mask is empty.
    EmptyMask,
    /// A target is so small that its box has no area on the grid.
    TooSmall,
    /// More targets than an answer may hold.
    TooManyTargets,
    /// A target has fewer points on or off it than PPG says.
    FewPoints,
    /// SAM makes too little of every group of points.
    PoorGroups,
    /// It alone is longer than a conversation may be.
    TooLong,
}

impl Reason {
    /// The words for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Leak => "leaks",
            Self::Damaged => "picture damaged",
            Self::ControlToken => "control token",
            Self::UnknownWord => "unknown word",
            Self::Text => "no command",
            Self::EmptyMask => "empty mask",
            Self::TooSmall => "too small",
            Self::TooManyTargets => "too many targets",
            Self::FewPoints => "few points",
            Self::PoorGroups => "poor groups",
            Self::TooLong => "too long",
        }
    }
}

/// Counts of one source; expressions and conversations of others are both "said".
///
/// Always `expressions + conversations = taught + Σ dropped`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Tally {
    /// Conversations that were written.
    pub dialogues: u64,
    /// Expressions that were drawn.
    pub expressions: u64,
    /// Conversations without masks that were drawn.
    pub conversations: u64,
    /// Of both, what was written.
    pub taught: u64,
    /// Of both, what was not, by reason.
    pub dropped: BTreeMap<Reason, u64>,
    /// Records and annotations that were damaged, and so never drawn.
    pub damaged: u64,
    /// Answers that name boxes.
    pub found: u64,
    /// Answers that there is no such object.
    pub absent: u64,
    /// Points answered with yes.
    pub yes: u64,
    /// Points answered with no.
    pub no: u64,
    /// Tokens that the loss counts.
    pub trained_tokens: u64,
    /// Tokens of each conversation, in the order in which they were written.
    #[serde(skip)]
    pub tokens: Vec<u32>,
}

impl Tally {
    /// Counts `n` expressions, or conversations without masks.
    pub(super) fn read(&mut self, n: u64, expressions: bool) {
        if expressions {
            self.expressions += n;
        } else {
            self.conversations += n;
        }
    }

    /// Counts `n` things said that are not taught.
    pub(super) fn drop_many(&mut self, reason: Reason, n: u64) {
        if n > 0 {
            *self.dropped.entry(reason).or_default() += n;
        }
    }

    /// Adds what another counted.
    pub fn add(&mut self, other: &Self) {
        let Self { dialogues, expressions, conversations, taught, dropped, damaged, .. } = other;
        self.dialogues += dialogues;
        self.expressions += expressions;
        self.conversations += conversations;
        self.taught += taught;
        self.damaged += damaged;
        dropped.iter().for_each(|(reason, n)| self.drop_many(*reason, *n));
        self.found += other.found;
        self.absent += other.absent;
        self.yes += other.yes;
        self.no += other.no;
        self.trained_tokens += other.trained_tokens;
        self.tokens.extend(&other.tokens);
    }

    /// Median, 95th percentile and maximum of the conversations' tokens; `None` without any.
    pub fn token_quantiles(&self) -> Option<[u32; 3]> {
        let mut sorted = self.tokens.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        let at = |percent: usize| sorted[(last * percent).div_ceil(100)];
        Some([at(50), at(95), at(100)])
    }
}
