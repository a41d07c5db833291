//! What a language model is taught to answer with PPG: of many random groups of points those that SAM makes most of.
//!
//! Source: arXiv 2409.10542, section 3 (training targets of PPG).

use super::{Embedding, PipelineError, Segment};
use crate::mask::Mask;
use crate::prompt::{EncodeError, GridPrompt, MaskPoints, Ppg};

/// Groups that are tried for a mask. Source: the paper's K.
pub const TRIED_GROUPS: usize = 64;

/// How groups are searched for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupSearch {
    /// Groups that are tried. Default: [`TRIED_GROUPS`].
    pub tried: usize,
    /// IoU with the truth below which a group is not taught, `0.0..=1.0`. Default: 0.5.
    pub min_iou: f32,
    /// The same groups are tried from the same seed. Default: 0.
    pub seed: u64,
}

impl Default for GroupSearch {
    fn default() -> Self {
        Self { tried: TRIED_GROUPS, min_iou: 0.5, seed: 0 }
    }
}

/// A mask has no groups worth teaching.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupSearchError {
    /// The mask cannot be said.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// SAM failed.
    #[error(transparent)]
    Segment(#[from] PipelineError),
    /// Fewer groups than PPG has reach the least IoU.
    #[error("find {wanted} groups: only {found} reach the least IoU")]
    Poor {
        /// Groups that PPG has.
        wanted: usize,
        /// Groups that reach it.
        found: usize,
    },
}

/// `mask` as PPG is taught to say it: its box, and of many random groups those whose mask by SAM has the highest IoU with
/// it, best first. `embedding` is that of the mask's frame.
///
/// # Errors
/// Every [`GroupSearchError`]; a mask without an answer is left out of training.
pub fn best_groups(
    stage: &mut dyn Segment,
    embedding: &Embedding,
    mask: &Mask,
    ppg: Ppg<'_>,
    search: GroupSearch,
) -> Result<GridPrompt, GroupSearchError> {
    let scale = ppg.dialect().scale();
    let points = MaskPoints::of(mask, scale)?;
    let all = GridPrompt { bbox: points.bbox(), groups: points.groups(ppg, search.tried, search.seed)? };
    let answers = match all.groups.is_empty() {
        true => Vec::new(),
        false => stage.segment(embedding, &all.prompts(scale, mask.size()))?,
    };
    let iou = |answer: &super::Segmented| answer.mask.iou(mask).unwrap_or(0.0);
    let mut found: Vec<_> = answers.iter().map(iou).zip(all.groups).filter(|(iou, _)| *iou >= search.min_iou).collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    if found.len() < ppg.groups() {
        return Err(GroupSearchError::Poor { wanted: ppg.groups(), found: found.len() });
    }
    let groups = found.into_iter().take(ppg.groups()).map(|(_, group)| group).collect();
    Ok(GridPrompt { bbox: all.bbox, groups })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Size;
    use crate::pipeline::Segmented;
    use crate::prompt::ppg::tests::dialect;
    use crate::prompt::{EncodeErrorKind, Prompt};

    const WIDTH: u32 = 300;

    /// Segments everything left of the first point.
    struct LeftOf;

    impl Segment for LeftOf {
        fn embed(&mut self, _: &crate::frame::Image) -> Result<Embedding, PipelineError> {
            Ok(Embedding { data: Box::new(()) })
        }

        fn segment(&mut self, _: &Embedding, prompts: &[Prompt]) -> Result<Vec<Segmented>, PipelineError> {
            let mask = |p: &Prompt| left_of(p.points[0].0.x);
            Ok(prompts.iter().map(|p| Segmented { mask: mask(p), score: 0.5 }).collect())
        }
    }

    fn left_of(x: f32) -> Mask {
        Mask::from_fn(Size::new(WIDTH, 20), |column, _| (column as f32) < x)
    }

    fn search(mask: &Mask, groups: usize, search: GroupSearch) -> Result<GridPrompt, GroupSearchError> {
        let dialect = dialect(1, 0, groups);
        let ppg = dialect.ppg().expect("has PPG");
        best_groups(&mut LeftOf, &Embedding { data: Box::new(()) }, mask, ppg, search)
    }

    #[test]
    fn the_groups_that_sam_makes_most_of_are_kept() {
        let found = search(&left_of(200.0), 3, GroupSearch::default()).expect("has groups");
        let xs: Vec<f32> = found.groups.iter().map(|g| g[0].0.x / 999.0 * WIDTH as f32).collect();
        // Of 64 draws over 200 columns the three that lie most to the right.
        assert!(xs.len() == 3 && xs[0] >= xs[1] && xs[1] >= xs[2] && xs[2] > 170.0, "{xs:?}");
        assert_eq!(found, search(&left_of(200.0), 3, GroupSearch::default()).expect("has groups"));
        let once = GroupSearch { tried: 1, min_iou: 0.0, ..GroupSearch::default() };
        assert_ne!(search(&left_of(200.0), 1, once).expect("has groups").groups, found.groups[..1]);
    }

    #[test]
    fn masks_without_good_groups_are_left_out() {
        let strict = GroupSearch { min_iou: 0.999, tried: 8, ..GroupSearch::default() };
        let poor = search(&left_of(200.0), 5, strict).expect_err("hardly any draw is that good");
        assert!(matches!(poor, GroupSearchError::Poor { wanted: 5, found: 0..=4 }), "{poor}");
        let none = GroupSearch { tried: 0, ..GroupSearch::default() };
        assert!(matches!(search(&left_of(200.0), 1, none), Err(GroupSearchError::Poor { wanted: 1, found: 0 })));
        let empty = search(&left_of(0.0), 1, GroupSearch::default()).expect_err("empty");
        assert!(matches!(empty, GroupSearchError::Encode(e) if e.kind() == EncodeErrorKind::Empty));
    }
}
