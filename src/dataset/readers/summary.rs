//! What is in a data set.

use std::collections::HashSet;

use super::record::{Content, Record};

/// Counts over records; nothing is rasterised for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct SourceSummary {
    /// Different pictures.
    pub images: usize,
    /// Records.
    pub records: usize,
    /// Expressions.
    pub expressions: usize,
    /// Targets, each time an expression refers to one.
    pub targets: usize,
    /// Expressions without a target.
    pub no_target: usize,
    /// Turns of conversations.
    pub turns: usize,
}

impl SourceSummary {
    /// Counts `records`.
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        let (mut summary, mut images) = (Self::default(), HashSet::new());
        for record in records {
            summary.records += 1;
            images.insert(&record.image.id);
            match &record.content {
                Content::Dialogue(turns) => summary.turns += turns.len(),
                Content::Referring(referring) => {
                    let expressions = referring.expressions.len();
                    summary.expressions += expressions;
                    summary.targets += expressions * referring.targets.len();
                    summary.no_target += if referring.targets.is_empty() { expressions } else { 0 };
                }
            }
        }
        summary.images = images.len();
        summary
    }
}
