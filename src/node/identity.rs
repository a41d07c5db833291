//! Which of two instances are the same one: ids outlive new groundings, new commands, pauses and occlusions.
//!
//! Three things say so, each only where those before are silent. Masks that overlap are of one object. An object that
//! was out of sight and one that comes into it are the same where they look alike and the way between is one that can
//! be gone in the time. And where exactly one is meant, and one of each is left, it is that one, wherever it went.
//!
//! What is named while something that is known, or still in sight, is not, is *contested* until enough more looks have
//! named it than that: of two objects that look alike the language model may name one now and the other a second later. So is
//! what comes back small, until it is named again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::tracked::Tracked;
use crate::pipeline::Likeness;
use crate::prompt::CountHint;

/// Masks that overlap by this much are the same instance.
const SAME_IOU: f32 = 0.5;
/// Least similarity of colours between what went out of sight and what comes into it. Half hidden objects show half of
/// their colours.
const ALIKE: f32 = 0.6;
/// Area of what comes into sight over the largest that was seen: what is half hidden is smaller.
const AREA: std::ops::RangeInclusive<f32> = 0.02..=2.5;
/// What comes back smaller than this, over the largest area that was seen, may be something else that looks like it: it is
/// contested.
const LITTLE: f32 = 0.33;
/// How far away it may come into sight, in square roots of the largest area, and how much farther for each second.
const REACH: (f32, f32) = (1.5, 1.5);
/// Instances of a target that are remembered.
const MAX_LOST: usize = 16;
/// By how many looks what is contested has to be ahead. That doubles each time that a contest is decided, for who changes their
/// mind may do so again, up to the most that it takes.
const LEAD: u8 = 2;
const MOST_LEAD: u8 = 8;

/// How many looks have named an instance, less those that have named something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    looks: u8,
    /// The looks of what went by its id before.
    rival: u8,
    /// The frame of the last look that counts.
    seq: u64,
    /// By how many looks something has to be ahead to be believed in its place.
    lead: u8,
}

impl Standing {
    /// Of what the look at the frame `seq` names first.
    pub(super) fn new(seq: u64) -> Self {
        Self { looks: 1, rival: 0, seq, lead: LEAD }
    }

    /// Of what takes over the id of another, instead of which the look at the frame `seq` names it.
    fn instead_of(other: Self, seq: u64) -> Self {
        Self { rival: other.after(seq, false).looks, lead: other.lead, ..Self::new(seq) }
    }

    /// After the look at the frame `seq`; a look counts once. One more than `lead` count at most: what was named all the time is
    /// given up for what the last few looks say.
    pub(super) fn after(self, seq: u64, named: bool) -> Self {
        match named {
            _ if seq == self.seq => self,
            true => {
                Self { looks: (self.looks + 1).min(self.lead + 1), rival: self.rival.saturating_sub(1), seq, ..self }
            }
            false => Self { looks: self.looks.saturating_sub(1), seq, ..self },
        }
    }

    fn is_ahead_of(self, looks: u8) -> bool {
        self.looks >= looks + self.lead
    }
}

/// An instance that is out of sight, and may come back.
#[derive(Debug, Clone)]
pub(super) struct Lost {
    /// As it was seen last.
    pub tracked: Arc<Tracked>,
    /// Since when nobody has seen it.
    pub since: Instant,
    /// It answered to the command that the target has now.
    pub own: bool,
    /// The language model has looked since, and did not name it.
    pub missed: bool,
}

impl Lost {
    pub(super) fn new(tracked: Arc<Tracked>) -> Self {
        Self { since: tracked.mask_at, tracked, own: true, missed: false }
    }

    /// After a look at the frame `seq` that names something else; `None` for one that names nothing.
    fn passed_over(mut self, seq: Option<u64>) -> Self {
        if let Some(seq) = seq {
            let tracked = Arc::make_mut(&mut self.tracked);
            tracked.standing = tracked.standing.after(seq, false);
        }
        self
    }
}

/// Keeps the instances that went out of sight last; those of an earlier command have one chance to be named.
pub(super) fn remember(lost: &mut Vec<Lost>) {
    lost.retain(|l| l.own || !l.missed);
    lost.sort_by(|a, b| b.since.cmp(&a.since).then(a.tracked.id.cmp(&b.tracked.id)));
    lost.truncate(MAX_LOST);
}

/// Forgets what nobody has seen for `limit` before `at`.
pub(super) fn forget(lost: &mut Vec<Lost>, at: Instant, limit: Duration) {
    lost.retain(|l| at.saturating_duration_since(l.since) <= limit);
}

/// What is known of a target's instances before new ones are named.
pub(super) struct Known<'a> {
    /// In sight.
    pub followed: &'a [Arc<Tracked>],
    /// Out of sight.
    pub lost: &'a [Lost],
    /// How many are meant.
    pub hint: CountHint,
    /// When the frame with the new ones arrived.
    pub now: Instant,
}

impl Known<'_> {
    /// The `new` instances under their ids, and those that are known and none of them is.
    pub(super) fn rename(&self, mut new: Vec<Tracked>, next_id: &mut u64) -> (Vec<Arc<Tracked>>, Vec<Lost>) {
        let named = self.name(&mut new, next_id);
        let all = self.followed.iter().cloned().map(Lost::new).chain(self.lost.iter().cloned());
        let seq = new.first().map(|t| t.grounded_seq);
        let rest = all.zip(named).filter(|(_, named)| !named).map(|(lost, _)| lost.passed_over(seq)).collect();
        (new.into_iter().map(Arc::new).collect(), rest)
    }

    /// Gives `new` instances the ids of those they are, and says which of them are contested; the others get ids of
    /// their own, counted on from `next_id`. Says which were named again: the followed ones, then the lost ones.
    fn name(&self, new: &mut [Tracked], next_id: &mut u64) -> Vec<bool> {
        let mut named = vec![false; self.followed.len() + self.lost.len()];
        self.match_best(new, &mut named, |k, new| {
            let iou = new.track.mask().iou(self.get(k).track.mask()).filter(|iou| *iou >= SAME_IOU)?;
            // Something else may lie where it was.
            let alike = self.gone(k).is_none() || self.likeness(k, new).is_some_and(|l| l.colour >= ALIKE);
            alike.then_some(-iou)
        });
        self.match_best(new, &mut named, |k, new| {
            let gone = self.gone(k)?.as_secs_f32();
            let like = self.likeness(k, new).filter(|l| l.colour >= ALIKE)?;
            let size = self.get(k).largest;
            let near = like.distance <= (REACH.0 + REACH.1 * gone) * size.sqrt();
            (near && AREA.contains(&(new.track.area() / size))).then_some(like.distance)
        });
        let orphans: Vec<_> = (0..named.len()).filter(|k| !named[*k] && self.is_own(*k)).collect();
        new.iter_mut().for_each(|i| self.judge(i, &orphans));
        if let (CountHint::One, [only], [k]) = (self.hint, &mut *new, &*orphans)
            && only.id == 0
        {
            self.pass_on(*k, only);
            only.standing = Standing::instead_of(self.get(*k).standing, only.grounded_seq);
            named[*k] = true;
        }
        for instance in new.iter_mut().filter(|i| i.id == 0) {
            *next_id += 1;
            instance.id = *next_id;
        }
        named
    }

    /// Finds out whether `new` is contested, and how much the next contest takes: twice as much after one that was decided,
    /// less by one after each look of which nothing else is left that was named before.
    fn judge(&self, new: &mut Tracked, orphans: &[usize]) {
        let known = self.known(new.id).filter(|k| self.is_own(*k)).map(|k| self.get(k));
        new.standing.lead = orphans.iter().map(|k| self.get(*k).standing.lead).fold(new.standing.lead, u8::max);
        new.contested = self.is_contested(new, orphans);
        let lead = &mut new.standing.lead;
        if new.contested {
            return;
        }
        if known.is_some_and(|k| k.contested) {
            *lead = (*lead * 2).min(MOST_LEAD);
        } else if orphans.is_empty() && known.is_some_and(|k| k.grounded_seq != new.grounded_seq) {
            *lead = (*lead - 1).max(LEAD);
        }
    }

    /// Gives `new` what goes with the id of the known one.
    fn pass_on(&self, k: usize, new: &mut Tracked) {
        let known = self.get(k);
        (new.id, new.largest) = (known.id, new.largest.max(known.largest));
    }

    /// Makes `new` the known one, which was recognised by what is seen.
    fn recognise(&self, k: usize, new: &mut Tracked) {
        self.pass_on(k, new);
        let known = self.get(k);
        new.sure |= known.sure && new.holds && self.gone(k).is_none();
        // What another command named is no evidence for this one.
        if self.is_own(k) {
            new.standing = known.standing.after(new.grounded_seq, true);
        }
    }

    /// Whether `new` may have come instead of one of `orphans`, those that are known and not named.
    fn is_contested(&self, new: &Tracked, orphans: &[usize]) -> bool {
        let known = self.known(new.id);
        let (unproven, back) =
            known.map_or((true, false), |k| (self.get(k).contested && self.is_own(k), self.gone(k).is_some()));
        if back && known.is_some_and(|k| self.is_own(k) && new.track.area() < LITTLE * self.get(k).largest) {
            return true;
        }
        // What went out of sight unconfirmed, or what the same look says twice, is named but once.
        let once = |k| back || self.get(k).grounded_seq == new.grounded_seq;
        if unproven && known.is_some_and(|k| once(k) || !new.standing.is_ahead_of(new.standing.rival)) {
            return true;
        }
        // What is proven and comes back can only be taken for what is in sight.
        let mut rivals = orphans.iter().filter(|k| unproven || back && self.gone(**k).is_none());
        rivals.any(|k| !new.standing.is_ahead_of(self.get(*k).standing.after(new.grounded_seq, false).looks))
    }

    fn known(&self, id: u64) -> Option<usize> {
        (0..self.followed.len() + self.lost.len()).find(|k| self.get(*k).id == id)
    }

    fn get(&self, k: usize) -> &Tracked {
        self.followed.get(k).unwrap_or_else(|| &self.lost[k - self.followed.len()].tracked)
    }

    /// Whether it answers to the command that the target has now.
    fn is_own(&self, k: usize) -> bool {
        k.checked_sub(self.followed.len()).is_none_or(|k| self.lost[k].own)
    }

    /// How long it has been out of sight; `None` where it is in sight.
    fn gone(&self, k: usize) -> Option<Duration> {
        let lost = self.lost.get(k.checked_sub(self.followed.len())?)?;
        Some(self.now.saturating_duration_since(lost.since))
    }

    fn likeness(&self, k: usize, new: &Tracked) -> Option<Likeness> {
        self.get(k).track.likeness(&new.track)
    }

    /// Pairs those that have no partner yet, at the least cost first; `cost` is `None` for who cannot be a pair.
    fn match_best(&self, new: &mut [Tracked], named: &mut [bool], cost: impl Fn(usize, &Tracked) -> Option<f32>) {
        let mut pairs = Vec::new();
        for (n, new) in new.iter().enumerate().filter(|(_, new)| new.id == 0) {
            let known = (0..named.len()).filter(|k| !named[*k]);
            pairs.extend(known.filter_map(|k| Some((cost(k, new)?, n, k))));
        }
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        for (_, n, k) in pairs {
            if new[n].id == 0 && !named[k] {
                self.recognise(k, &mut new[n]);
                named[k] = true;
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::frame::Image;
    use crate::geometry::Size;
    use crate::mask::Mask;
    use crate::node::Origin;
    use crate::pipeline::{GroundedInstance, Track, TrackLimits};

    const GREY: [u8; 3] = [90, 90, 90];

    /// A box of 20 x 20 pixels from `left` on, on a frame of 200 x 40.
    pub fn tracked(id: u64, left: u32, colour: [u8; 3]) -> Tracked {
        let size = Size::new(200, 40);
        let mask = Mask::from_fn(size, |x, y| (left..left + 20).contains(&x) && (10..30).contains(&y));
        let image = Image::from_rgb(size, colour.repeat(200 * 40)).expect("sizes match");
        let bbox = mask.bbox().expect("not empty");
        let now = Instant::now();
        Tracked {
            id,
            track: Track::start(&image, mask, TrackLimits::default()).expect("not empty"),
            bbox,
            position: None,
            score: 0.9,
            largest: 400.0,
            origin: Origin::Tracked,
            doubtful: false,
            confidence: 0.9,
            sure: true,
            holds: true,
            contested: false,
            standing: Standing::new(1),
            p_found: 1.0,
            fill: 1.0,
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
        let mut new: Vec<_> = new.iter().map(|left| tracked(0, *left, GREY)).collect();
        let followed: Vec<_> = known.iter().map(|(id, left)| Arc::new(tracked(*id, *left, GREY))).collect();
        let known = Known { followed: &followed, lost: &[], hint, now: Instant::now() };
        known.name(&mut new, &mut 10);
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
            // In sight, and another one named elsewhere: only "exactly one" says that it is the same.
            (&[70], &[(3, 0)], NoneOrMore, &[11]),
            (&[70], &[(3, 0)], One, &[3]),
            (&[70], &[(3, 0), (4, 30)], One, &[11]),
            (&[0, 40], &[], NoneOrMore, &[11, 12]),
        ];
        for (new, known, hint, expected) in cases {
            assert_eq!(ids(new, known, hint), expected, "{new:?} {known:?} {hint:?}");
        }
    }

    #[test]
    fn what_was_out_of_sight_is_known_again_by_its_looks_and_its_way() {
        use CountHint::{NoneOrMore, One};
        let (red, blue) = ([200, 20, 20], [20, 40, 200]);
        // Seconds out of sight at 0; where and what comes into sight; of the present command; the hint; its id.
        let cases = [
            ("at its place", 2.0, 0, red, true, NoneOrMore, 3),
            ("near by", 0.1, 25, red, true, NoneOrMore, 3),
            ("too far for the time", 0.1, 80, red, true, NoneOrMore, 11),
            ("as far in two seconds", 2.0, 80, red, true, NoneOrMore, 3),
            ("too far even so", 2.0, 150, red, true, NoneOrMore, 11),
            ("something else at its place", 2.0, 0, blue, true, NoneOrMore, 11),
            ("something else near by", 2.0, 25, blue, true, NoneOrMore, 11),
            ("the only one meant", 2.0, 150, red, true, One, 3),
            ("the only one meant by another command", 2.0, 150, red, false, One, 11),
            ("the same one by another command", 0.5, 5, red, false, One, 3),
            ("another one by another command", 0.5, 5, blue, false, One, 11),
        ];
        for (what, gone, left, colour, own, hint, expected) in cases {
            let mut new = [tracked(0, left, colour)];
            let now = Instant::now() + Duration::from_secs(60);
            let lost =
                Lost { since: now - Duration::from_secs_f32(gone), own, ..Lost::new(Arc::new(tracked(3, 0, red))) };
            let named = Known { followed: &[], lost: &[lost], hint, now }.name(&mut new, &mut 10);
            assert_eq!((new[0].id, named[0]), (expected, expected == 3), "{what}");
        }
    }

    #[test]
    fn what_comes_instead_is_contested() {
        let followed: Vec<_> = [(1, 0), (2, 40)].map(|(id, left)| Arc::new(tracked(id, left, GREY))).into();
        let lost = |own| Lost { own, ..Lost::new(Arc::new(tracked(3, 0, GREY))) };
        let contested = |followed: &[Arc<Tracked>], lost: &[Lost], hint, lefts: &[u32]| {
            let mut new: Vec<_> = lefts.iter().map(|left| tracked(0, *left, GREY)).collect();
            Known { followed, lost, hint, now: Instant::now() }.name(&mut new, &mut 10);
            new.iter().map(|t| t.contested).collect::<Vec<_>>()
        };
        let any = CountHint::NoneOrMore;
        assert_eq!(contested(&[], &[], any, &[0]), [false], "the first there is");
        assert_eq!(contested(&followed, &[], any, &[1, 41]), [false, false], "where they are");
        assert_eq!(contested(&followed, &[], any, &[1, 41, 100]), [false; 3], "one more");
        assert_eq!(contested(&followed, &[], any, &[1, 100]), [false, true], "one elsewhere, one missing");
        assert_eq!(contested(&followed[..1], &[], CountHint::One, &[100]), [true], "the only one, elsewhere");
        assert_eq!(contested(&[], &[lost(true)], any, &[0]), [false], "back");
        let larger = |own, largest| Lost { own, ..Lost::new(Arc::new(Tracked { largest, ..tracked(3, 0, GREY) })) };
        // It has an area of 400.
        assert_eq!(contested(&[], &[larger(true, 1150.0)], any, &[0]), [false], "back, half hidden");
        assert_eq!(contested(&[], &[larger(true, 1300.0)], any, &[0]), [true], "back, and small for it");
        assert_eq!(contested(&[], &[larger(false, 1300.0)], any, &[0]), [false], "small for another command's");
        assert_eq!(contested(&[], &[lost(true)], any, &[150]), [true], "something else is back");
        assert_eq!(contested(&[], &[lost(true)], any, &[100, 150]), [true; 2], "either may have come instead");
        assert_eq!(contested(&[], &[lost(false)], any, &[0]), [false], "known by another command");
        assert_eq!(contested(&[], &[lost(false)], any, &[150]), [false], "nothing to do with another command's");
    }

    #[test]
    fn only_the_same_one_stays_as_sure_as_it_was() {
        let named = |left| {
            let known = [Arc::new(tracked(3, 0, GREY))];
            let mut new = [Tracked { sure: false, ..tracked(0, left, GREY) }];
            Known { followed: &known, lost: &[], hint: CountHint::One, now: Instant::now() }.name(&mut new, &mut 10);
            (new[0].id, new[0].sure)
        };
        assert_eq!((named(1), named(100)), ((3, true), (3, false)));
    }

    #[test]
    fn only_another_look_at_what_is_in_sight_confirms() {
        let named_again = |in_sight: bool, seq: u64| {
            let known = Arc::new(Tracked { contested: true, ..tracked(3, 0, GREY) });
            let lost = [Lost::new(known.clone())];
            let (followed, lost) = if in_sight { (&[known][..], &[][..]) } else { (&[][..], &lost[..]) };
            let mut new = [Tracked { grounded_seq: seq, ..tracked(0, 1, GREY) }];
            Known { followed, lost, hint: CountHint::NoneOrMore, now: Instant::now() }.name(&mut new, &mut 10);
            (new[0].id, new[0].contested)
        };
        assert_eq!(named_again(true, 2), (3, false));
        assert_eq!(named_again(true, 1), (3, true), "the boxes of a look, and then its whole answer");
        assert_eq!(named_again(false, 2), (3, true), "it went before it was confirmed");
        // A contest under another command is none under this one.
        let known = Arc::new(Tracked { contested: true, ..tracked(3, 0, GREY) });
        let lost = [Lost { own: false, ..Lost::new(known) }];
        let mut new = [Tracked { grounded_seq: 2, ..tracked(0, 1, GREY) }];
        Known { followed: &[], lost: &lost, hint: CountHint::One, now: Instant::now() }.name(&mut new, &mut 10);
        assert_eq!((new[0].id, new[0].contested, new[0].standing.lead), (3, false, LEAD));
    }

    /// Looks one after another that name what is at some place, each of a frame of its own, and whether that is contested.
    fn looked(hint: CountHint, lefts: &[u32]) -> Vec<bool> {
        let (mut followed, mut lost, mut next_id) = (Vec::new(), Vec::new(), 0);
        let mut look = |(seq, left): (u64, &u32)| {
            let new = Tracked { grounded_seq: seq, standing: Standing::new(seq), ..tracked(0, *left, GREY) };
            let known = Known { followed: &followed, lost: &lost, hint, now: Instant::now() };
            (followed, lost) = known.rename(vec![new], &mut next_id);
            followed[0].contested
        };
        (1..).zip(lefts).map(&mut look).collect()
    }

    #[test]
    fn what_was_named_often_is_given_up_for_what_is_named_often() {
        let any = CountHint::NoneOrMore;
        for hint in [any, CountHint::One] {
            assert_eq!(looked(hint, &[0, 100, 100]), [false, true, false], "a first answer");
            assert_eq!(looked(hint, &[0, 0, 0, 100, 100, 100]), [false, false, false, true, true, false]);
            assert_eq!(looked(hint, &[0; 9]), [false; 9]);
        }
        let now_and_then = [false, false, false, true, false, true, false];
        assert_eq!(looked(any, &[0, 0, 0, 100, 0, 100, 0]), now_and_then);
        let back = [0, 0, 0, 100, 100, 100, 0, 0, 0, 0, 0];
        assert_eq!(looked(any, &back)[5..], [false, true, true, true, false, false], "to come back takes more");
        for hint in [any, CountHint::One] {
            let said = looked(hint, &[0, 0, 0, 100, 100, 100].repeat(20));
            let decided: Vec<_> = (1..said.len()).filter(|i| said[i - 1] && !said[*i]).collect();
            assert!(decided.len() <= 3 && decided.iter().all(|i| *i < 30), "{hint:?}: {decided:?}");
        }
    }

    #[test]
    fn memory_ends_and_is_bounded() {
        let at = Instant::now() + Duration::from_secs(60);
        let lost = |seconds: u64, own, missed| Lost {
            since: at - Duration::from_secs(seconds),
            own,
            missed,
            ..Lost::new(Arc::new(tracked(seconds, 0, GREY)))
        };
        let mut all: Vec<_> = (0..40).rev().map(|s| lost(s, true, s % 2 == 0)).collect();
        all.extend([lost(0, false, true), lost(2, false, false)]);
        remember(&mut all);
        assert_eq!(all.len(), MAX_LOST);
        assert!(all.is_sorted_by_key(|l| std::cmp::Reverse(l.since)), "those that were seen last stay");
        assert_eq!(all.iter().filter(|l| !l.own).count(), 1, "what another command meant has had its chance");
        forget(&mut all, at, Duration::from_secs(3));
        assert_eq!(all.iter().map(|l| l.tracked.id).collect::<Vec<_>>(), [0, 1, 2, 2, 3]);
    }
}
