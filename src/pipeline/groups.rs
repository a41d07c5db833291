//! Several prompts for one instance: SAM answers each, and its own favourite counts.

use super::{Embedding, GroundedInstance, PipelineError, Segment, Segmented};
use crate::prompt::{LabelledPoint, PointLabel, Prompt};

impl GroundedInstance {
    /// What SAM is given for this instance, at least one prompt: the box with the points whose label is sure, for each
    /// group of points.
    ///
    /// Source: arXiv 2409.10542, section 3 (one group is one prompt).
    pub fn prompts(&self) -> Vec<Prompt> {
        let told = |p: &LabelledPoint| match p.label {
            PointLabel::On => Some((p.point, true)),
            PointLabel::Off => Some((p.point, false)),
            PointLabel::Unsure => None,
        };
        let prompt = |points: &[LabelledPoint]| Prompt {
            bbox: Some(self.proposal),
            points: points.iter().filter_map(told).collect(),
        };
        match self.points_per_prompt {
            Some(count) if !self.points.is_empty() => self.points.chunks(count.get()).map(prompt).collect(),
            _ => vec![prompt(&self.points)],
        }
    }
}

/// One mask for each group of prompts, in order: of the masks of a group the one with SAM's highest predicted IoU, the
/// first of equals. All prompts of all groups go through the mask decoder as one batch.
///
/// # Errors
/// Engine failures; [`PipelineError::Output`] where a prompt got no mask, or a group has no prompts.
pub fn segment_groups(
    stage: &mut dyn Segment,
    embedding: &Embedding,
    groups: &[Vec<Prompt>],
) -> Result<Vec<Segmented>, PipelineError> {
    let prompts = groups.concat();
    let masks = stage.segment(embedding, &prompts)?;
    let error = |what: String| PipelineError::Output { engine: "segment", what };
    if masks.len() != prompts.len() {
        return Err(error(format!("{} masks for {} prompts", masks.len(), prompts.len())));
    }
    let mut masks = masks.into_iter();
    // NaN is below everything: what SAM has no opinion of is nobody's favourite.
    let above = |a: &Segmented, b: &Segmented| a.score > b.score || (b.score.is_nan() && !a.score.is_nan());
    let favourite = |group: &Vec<Prompt>| {
        let best = masks.by_ref().take(group.len()).reduce(|best, next| if above(&next, &best) { next } else { best });
        best.ok_or_else(|| error("a group without prompts".to_owned()))
    };
    groups.iter().map(favourite).collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::geometry::{BBox, Point, Size};
    use crate::mask::Mask;

    fn instance(points: usize, per_prompt: usize) -> GroundedInstance {
        let point = |i: usize| LabelledPoint {
            point: Point::new(i as f32, 0.0),
            p_yes: 1.0,
            label: [PointLabel::On, PointLabel::Off, PointLabel::Unsure][i % 3],
        };
        GroundedInstance {
            proposal: BBox::new(0.0, 0.0, 9.0, 9.0),
            points: (0..points).map(point).collect(),
            points_per_prompt: NonZeroUsize::new(per_prompt),
            confidence: 1.0,
        }
    }

    #[test]
    fn each_group_is_a_prompt_with_the_box() {
        let shape = |i: &GroundedInstance| {
            let prompts = i.prompts();
            assert!(prompts.iter().all(|p| p.bbox == Some(i.proposal)));
            prompts.iter().map(|p| p.points.iter().map(|(p, on)| (p.x as u32, *on)).collect()).collect::<Vec<Vec<_>>>()
        };
        assert_eq!(shape(&instance(6, 3)), [[(0, true), (1, false)], [(3, true), (4, false)]]);
        assert_eq!(shape(&instance(6, 0)), [[(0, true), (1, false), (3, true), (4, false)]]);
        assert_eq!(shape(&instance(0, 0)), [[]]);
        assert_eq!(shape(&instance(0, 3)), [[]]);
    }

    /// Scores each prompt with the x of its only point, and gives it a mask of as many pixels.
    struct Scores {
        missing: usize,
        batches: usize,
    }

    impl Segment for Scores {
        fn embed(&mut self, _: &crate::frame::Image) -> Result<Embedding, PipelineError> {
            Ok(Embedding { data: Box::new(()) })
        }

        fn segment(&mut self, _: &Embedding, prompts: &[Prompt]) -> Result<Vec<Segmented>, PipelineError> {
            self.batches += 1;
            let x = |p: &Prompt| p.points[0].0.x;
            let mask = |v: f32| Mask::from_fn(Size::new(100, 1), |column, _| (column as f32) < v);
            let masks = prompts.iter().map(|p| Segmented { mask: mask(x(p)), score: x(p) / 100.0 });
            Ok(masks.take(prompts.len() - self.missing).collect())
        }
    }

    fn best(groups: &[&[f32]], missing: usize) -> Result<Vec<u64>, PipelineError> {
        let prompt = |x: &f32| Prompt { bbox: None, points: vec![(Point::new(*x, 0.0), true)] };
        let groups: Vec<Vec<Prompt>> = groups.iter().map(|g| g.iter().map(prompt).collect()).collect();
        let mut stage = Scores { missing, batches: 0 };
        let masks = segment_groups(&mut stage, &Embedding { data: Box::new(()) }, &groups)?;
        assert_eq!(stage.batches, 1);
        Ok(masks.iter().map(|m| m.mask.area()).collect())
    }

    #[test]
    fn sam_s_favourite_of_each_group_counts() {
        assert_eq!(best(&[&[30.0, 90.0, 60.0], &[10.0], &[50.0, 20.0]], 0).expect("segments"), [90, 10, 50]);
        assert_eq!(best(&[&[f32::NAN, 20.0, f32::NAN]], 0).expect("segments"), [20]);
        assert!(best(&[], 0).expect("segments").is_empty());
    }

    #[test]
    fn missing_masks_and_empty_groups_are_errors() {
        for outcome in [best(&[&[30.0, 90.0], &[10.0]], 1), best(&[&[30.0], &[]], 0)] {
            assert!(matches!(outcome, Err(PipelineError::Output { engine: "segment", .. })));
        }
    }
}
