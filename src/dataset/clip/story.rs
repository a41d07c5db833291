//! Clips in which something happens to one object: what a tracker has to live through.

use super::{Clip, ClipOptions, LAYOUTS, Mover, TARGET_VISIBLE};
use crate::dataset::assets::Assets;
use crate::dataset::compose::Tint;
use crate::dataset::expression::{Answer, Builder, Draft, Expression, ExpressionType, World};
use crate::dataset::layout::Item;
use crate::dataset::pose::Pose;
use crate::dataset::rng::{SceneRng, sin_cos_turns};
use crate::dataset::scene::Object;

/// Every how manieth frame is looked at before any is rendered.
const SCOUT_STEP: usize = 3;
/// The longest that an object is hidden, and the shortest, as parts of a clip of 10 s.
const HIDDEN: std::ops::RangeInclusive<f32> = 0.04..=0.2;
/// Less than this share of its silhouette is hidden.
const SLIVER: f32 = 0.02;

/// What happens to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Story {
    /// The camera drifts, and it or something else moves.
    Motion,
    /// Another object of the same class comes close.
    LookAlike,
    /// Something passes before it and hides it for up to 2 s of 10.
    Occlusion,
    /// It leaves the picture, and in half of the clips comes back.
    Exit,
}

impl Story {
    /// Every story.
    pub const ALL: [Self; 4] = [Self::Motion, Self::LookAlike, Self::Occlusion, Self::Exit];

    /// As in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Motion => "motion",
            Self::LookAlike => "look-alike",
            Self::Occlusion => "occlusion",
            Self::Exit => "exit",
        }
    }

    fn kinds(self) -> &'static [ExpressionType] {
        use ExpressionType as T;
        match self {
            // Of two alike only the place tells which is meant.
            Self::LookAlike => &[T::Position, T::Relation, T::Size],
            Self::Motion => &[T::Name, T::Colour, T::Relation, T::Position],
            Self::Occlusion | Self::Exit => &[T::Name, T::Colour],
        }
    }
}

/// A clip that tells a story.
#[derive(Debug, Clone)]
pub struct StoryClip {
    /// The pictures.
    pub clip: Clip,
    /// What happens.
    pub story: Story,
    /// Means one object wherever that is seen well, and nothing where it is not seen at all.
    pub command: Expression,
    /// Means nothing in any frame.
    pub absent: Expression,
}

impl StoryClip {
    /// The clip of `options` that tells `story`; `None` where no layout that was tried can.
    pub fn new(assets: &Assets, options: &ClipOptions, story: Story) -> Option<Self> {
        (0..4 * LAYOUTS).find_map(|attempt| {
            let mut rng = SceneRng::new(&[0x7374_6f72, options.split.salt(), options.seed, attempt]);
            let mut clip = Clip::draw(assets, options.clone(), attempt);
            let object = clip.stage(story, &mut rng)?;
            clip.tell(story, object, &mut rng)
        })
    }

    /// The object that the command means.
    pub fn target(&self) -> usize {
        self.command.targets[0]
    }
}

impl Clip {
    /// Has the story happen to an object, which is returned; `None` where the layout has none for it.
    fn stage(&mut self, story: Story, rng: &mut SceneRng) -> Option<usize> {
        let object = rng.below(self.layout.items.len());
        let extent = self.extent();
        match story {
            Story::Motion => {}
            Story::LookAlike => {
                let class = self.layout.items[object].class;
                let twin =
                    (0..self.layout.items.len()).find(|i| *i != object && self.layout.items[*i].class == class)?;
                self.movers.retain(|m| m.item != object && m.item != twin);
                let (from, to) = (self.centre(twin), self.centre(object));
                let way = [to[0] - from[0], to[1] - from[1]];
                let length = way[0].hypot(way[1]);
                // Until the two nearly touch.
                let gap = 0.55 * (self.side(twin) + self.side(object)) * rng.range(1.0, 1.25);
                let share = (1.0 - gap / length.max(1e-3)).max(0.0);
                let start = rng.range(0.15, 0.35);
                let by = way.map(|w| w * share);
                self.movers.push(Mover { item: twin, by, turns: rng.spread(0.05), during: (start, start + 0.35) });
            }
            Story::Occlusion => {
                self.movers.retain(|m| m.item != object);
                self.pass_before(object, rng);
            }
            Story::Exit => {
                self.movers.retain(|m| m.item != object);
                let from = self.centre(object);
                let (left, far) = (from[0] < extent[0] / 2.0, self.side(object) + 0.12);
                let by = [if left { -from[0] - far } else { extent[0] - from[0] + far }, rng.spread(0.1)];
                let start = rng.range(0.2, 0.35);
                self.movers.push(Mover { item: object, by, turns: 0.0, during: (start, start + 0.2) });
                if rng.chance(0.5) {
                    let start = start + rng.range(0.35, 0.45);
                    let by = by.map(|b| -0.9 * b);
                    self.movers.push(Mover { item: object, by, turns: 0.0, during: (start, (start + 0.2).min(1.0)) });
                }
            }
        }
        Some(object)
    }

    /// Another, larger object comes from outside, stays before `object` for a moment and goes on.
    fn pass_before(&mut self, object: usize, rng: &mut SceneRng) {
        let class = rng.below(self.assets.classes().len());
        let mut pose = Pose::random(self.assets.sprite(class), self.side(object) * rng.range(1.4, 1.8), rng);
        let over = self.centre(object);
        let (s, c) = sin_cos_turns(rng.unit());
        let away = [1.3 * c, 1.3 * s];
        pose.centre = [over[0] - away[0], over[1] - away[1]];
        self.layout.items.push(Item { class, pose });
        self.tints.push(Tint::random(rng));
        let item = self.layout.items.len() - 1;
        let arrives = rng.range(0.35, 0.5);
        let leaves = arrives + rng.range(0.0, 0.12);
        self.movers.push(Mover { item, by: away, turns: 0.0, during: (arrives - 0.3, arrives) });
        self.movers.push(Mover { item, by: away, turns: 0.0, during: (leaves, leaves + 0.3) });
    }

    /// Width and height in units of the longer.
    fn extent(&self) -> [f32; 2] {
        let longest = self.options.size.0.max(self.options.size.1) as f32;
        [self.options.size.0 as f32 / longest, self.options.size.1 as f32 / longest]
    }

    fn centre(&self, item: usize) -> [f32; 2] {
        self.layout.items[item].pose.centre
    }

    /// The longer side of an object.
    fn side(&self, item: usize) -> f32 {
        let Item { class, pose } = &self.layout.items[item];
        let [x1, y1, x2, y2] = pose.bounds(self.assets.sprite(*class));
        (x2 - x1).max(y2 - y1)
    }

    /// Finds the commands; `None` where there are none that hold, or the story does not come about.
    fn tell(self, story: Story, object: usize, rng: &mut SceneRng) -> Option<StoryClip> {
        let (size, frames) = self.scout((0..self.options.frames).step_by(SCOUT_STEP));
        if !comes_about(story, &frames, object) {
            return None;
        }
        let lexicon = self.assets.lexicon();
        // What is not in the picture is nobody's business.
        let seen = |f: &[Object]| f.iter().filter(|o| o.area > 0).cloned().collect::<Vec<_>>();
        let worlds: Vec<World<'_>> = frames.iter().map(|f| World::new(&seen(f), size, lexicon)).collect();
        let most = frames.iter().map(|f| f[object].area).max()? as f32;
        let holds = |draft: &Draft| {
            frames.iter().zip(&worlds).all(|(f, world)| {
                let Object { visible, area, .. } = f[object];
                let well = visible >= TARGET_VISIBLE && area as f32 >= TARGET_VISIBLE * most;
                let here = f[..object].iter().filter(|o| o.area > 0).count();
                (!well || world.resolve(&draft.query) == Answer::Targets(vec![here]))
                    && (area > 0 || world.resolve(&draft.query) == Answer::Nothing)
            })
        };
        let builder = Builder::new(&seen(frames.first()?), size, lexicon, self.options.split);
        let mut find = |kinds: &[ExpressionType], fits: &dyn Fn(&Draft) -> bool| {
            (0..120).find_map(|_| {
                let kind = *rng.pick(kinds);
                let draft = builder.draft(kind, rng).filter(fits)?;
                builder.word(&draft, rng)
            })
        };
        let command = find(story.kinds(), &|d| d.targets == [object] && holds(d))?;
        let nothing = |d: &Draft| worlds.iter().all(|w| w.resolve(&d.query) == Answer::Nothing);
        let absent = find(&[ExpressionType::None], &|d| !d.near_miss && nothing(d))?;
        Some(StoryClip { clip: self, story, command, absent })
    }
}

/// Whether what the scouted frames show is the story.
fn comes_about(story: Story, frames: &[Vec<Object>], object: usize) -> bool {
    let count = |holds: &dyn Fn(&Object) -> bool| frames.iter().filter(|f| holds(&f[object])).count();
    let share = |n: usize| n as f32 / frames.len() as f32;
    let well = share(count(&|o| o.visible >= TARGET_VISIBLE));
    let starts =
        frames.first().is_some_and(|f| f[object].visible > 0.8 && f.iter().take(object + 1).all(|o| o.area > 0));
    starts
        && match story {
            Story::Motion | Story::LookAlike => well >= 0.99,
            Story::Occlusion => HIDDEN.contains(&share(count(&|o| o.visible < SLIVER))) && well >= 0.6,
            Story::Exit => share(count(&|o| o.area == 0)) >= 0.1 && well >= 0.25,
        }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::assets;
    use super::*;
    use crate::dataset::Split;

    #[test]
    fn every_story_comes_about() {
        for story in Story::ALL {
            for seed in 1..=2 {
                let options = ClipOptions { seed, frames: 60, size: (320, 240), split: Split::Val };
                let told = StoryClip::new(assets(), &options, story).expect("some layout can");
                let object = told.target();
                assert!(told.absent.targets.is_empty() && told.command.targets.len() == 1);
                let frames: Vec<_> = (0..told.clip.frames()).map(|i| told.clip.frame(i)).collect();
                let unseen = frames.iter().filter(|f| f.objects[object].area == 0).count();
                let hidden = frames.iter().filter(|f| f.objects[object].visible < 0.1).count();
                match story {
                    Story::Motion | Story::LookAlike => assert_eq!(hidden, 0, "{story:?} {seed}"),
                    // At most 2 s of 10, and what a sliver is of.
                    Story::Occlusion => assert!((1..=18).contains(&hidden), "{story:?} {seed}: {hidden}"),
                    Story::Exit => assert!(unseen >= 5, "{story:?} {seed}: {unseen}"),
                }
                if story == Story::LookAlike {
                    let class = frames[0].objects[object].class;
                    assert!(frames[0].objects.iter().filter(|o| o.class == class).count() >= 2);
                }
                let again = StoryClip::new(assets(), &options, story).expect("some layout can");
                assert_eq!((again.command.text, again.clip.frame(7).rgb), (told.command.text, frames[7].rgb.clone()));
            }
        }
    }
}
