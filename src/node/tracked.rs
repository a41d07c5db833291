//! One instance as the node follows it, and which of two instances are the same one.

use std::sync::Arc;
use std::time::Instant;

use super::Origin;
use super::frame::{Kept, Meta};
use super::masks::Settings;
use super::position::Position;
use crate::geometry::{BBox, SourcePx};
use crate::pipeline::{GroundedInstance, LostReason, Segmented, Track};
use crate::prompt::CountHint;

/// Masks that overlap by this much are the same instance.
const SAME_IOU: f32 = 0.5;

/// An instance with its mask on one frame.
#[derive(Debug, Clone)]
pub(super) struct Tracked {
    /// Unique in its session; 0 until it has one.
    pub id: u64,
    pub track: Track,
    pub bbox: BBox<SourcePx>,
    /// Of the mask, on its own frame.
    pub position: Option<Position>,
    pub score: f32,
    pub origin: Origin,
    /// SAM does not believe in the mask: it is shown, and not followed.
    pub doubtful: bool,
    pub mask_seq: u64,
    pub mask_at: Instant,
    pub grounded: Arc<GroundedInstance>,
    pub grounded_seq: u64,
    pub grounded_at: Instant,
}

impl Tracked {
    /// From what SAM made of a grounded instance on its own frame; `None` for an empty mask.
    pub(super) fn ground(
        frame: &Kept,
        mut grounded: Arc<GroundedInstance>,
        answer: Segmented,
        settings: Settings,
    ) -> Option<Self> {
        let (bbox, score) = (answer.mask.bbox()?, answer.score);
        // Now that there is a mask, it has a say in how sure one can be of the instance.
        let confidence = settings.calibration.with_mask(grounded.confidence, score);
        Arc::make_mut(&mut grounded).confidence = confidence;
        // NaN is doubtful.
        let doubtful = !matches!(score.partial_cmp(&settings.min_mask_score), Some(o) if o.is_ge());
        let Meta { seq, arrived, .. } = frame.meta;
        Some(Self {
            id: 0,
            track: Track::start(&frame.image, answer.mask, settings.track)?,
            bbox,
            position: None,
            score,
            origin: Origin::Grounded,
            doubtful,
            mask_seq: seq,
            mask_at: arrived,
            grounded,
            grounded_seq: seq,
            grounded_at: arrived,
        })
    }

    /// The same instance on the next frame.
    ///
    /// # Errors
    /// Why SAM's answer is not believed.
    pub(super) fn follow(&self, frame: &Kept, answer: &Segmented) -> Result<Self, LostReason> {
        let mut next = self.clone();
        next.track.update(&frame.image, answer)?;
        next.bbox = answer.mask.bbox().ok_or(LostReason::Empty)?;
        // The next frame's depth says.
        next.position = None;
        (next.score, next.origin) = (answer.score, Origin::Tracked);
        (next.mask_seq, next.mask_at) = (frame.meta.seq, frame.meta.arrived);
        Ok(next)
    }
}

/// Gives `new` instances the ids of those they are: by overlap, the largest first; then, where exactly one is meant
/// and one of each is left, that one, wherever it went. The others get ids of their own, counted on from `next_id`.
pub(super) fn inherit_ids(new: &mut [Tracked], known: &[Arc<Tracked>], hint: CountHint, next_id: &mut u64) {
    let mut pairs = Vec::new();
    for (n, new) in new.iter().enumerate() {
        for (k, known) in known.iter().enumerate() {
            let iou = new.track.mask().iou(known.track.mask()).unwrap_or(0.0);
            if iou >= SAME_IOU {
                pairs.push((iou, n, k));
            }
        }
    }
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let mut taken = vec![false; known.len()];
    for (_, n, k) in pairs {
        if new[n].id == 0 && !taken[k] {
            new[n].id = known[k].id;
            taken[k] = true;
        }
    }
    let mut orphans = taken.iter().enumerate().filter(|(_, t)| !**t).map(|(k, _)| known[k].id);
    if let (CountHint::One, [only], Some(id), None) = (hint, &mut *new, orphans.next(), orphans.next())
        && only.id == 0
    {
        only.id = id;
    }
    for instance in new.iter_mut().filter(|i| i.id == 0) {
        *next_id += 1;
        instance.id = *next_id;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Image;
    use crate::geometry::Size;
    use crate::mask::Mask;
    use crate::pipeline::TrackLimits;

    fn tracked(id: u64, left: u32) -> Tracked {
        let size = Size::new(100, 40);
        let mask = Mask::from_fn(size, |x, y| (left..left + 20).contains(&x) && (10..30).contains(&y));
        let image = Image::from_rgb(size, vec![90; 100 * 40 * 3]).expect("sizes match");
        let bbox = mask.bbox().expect("not empty");
        let now = Instant::now();
        Tracked {
            id,
            track: Track::start(&image, mask, TrackLimits::default()).expect("not empty"),
            bbox,
            position: None,
            score: 0.9,
            origin: Origin::Tracked,
            doubtful: false,
            mask_seq: 1,
            mask_at: now,
            grounded: Arc::new(GroundedInstance {
                proposal: bbox,
                points: Vec::new(),
                points_per_prompt: None,
                confidence: 0.9,
            }),
            grounded_seq: 1,
            grounded_at: now,
        }
    }

    fn ids(new: &[u32], known: &[(u64, u32)], hint: CountHint) -> Vec<u64> {
        let mut new: Vec<_> = new.iter().map(|left| tracked(0, *left)).collect();
        let known: Vec<_> = known.iter().map(|(id, left)| Arc::new(tracked(*id, *left))).collect();
        let mut next_id = 10;
        inherit_ids(&mut new, &known, hint, &mut next_id);
        new.iter().map(|t| t.id).collect()
    }

    #[test]
    fn ids_go_where_the_masks_are() {
        use CountHint::{NoneOrMore, One};
        /// Where the new ones are; the known ones and where they are; the hint; ids of the new ones.
        type Case<'a> = (&'a [u32], &'a [(u64, u32)], CountHint, &'a [u64]);
        let cases: [Case<'_>; 6] = [
            (&[0, 40], &[(1, 42), (2, 1)], NoneOrMore, &[2, 1]),
            // Two claim the same one: the closer gets it.
            (&[4, 1], &[(7, 0)], NoneOrMore, &[11, 7]),
            // Gone and come back elsewhere: only "exactly one" says that it is the same.
            (&[70], &[(3, 0)], NoneOrMore, &[11]),
            (&[70], &[(3, 0)], One, &[3]),
            (&[70], &[(3, 0), (4, 30)], One, &[11]),
            (&[0, 40], &[], NoneOrMore, &[11, 12]),
        ];
        for (new, known, hint, expected) in cases {
            assert_eq!(ids(new, known, hint), expected, "{new:?} {known:?} {hint:?}");
        }
    }
}
