//! What is drawn, and in which order: by the sources' weights and the seed alone.

use std::collections::VecDeque;

use super::super::readers::Content;
use super::source::{Pictured, Pool, Source};
use super::{DialogueError, DialogueOptions};
use crate::rng::SceneRng;

/// What one conversation is to be made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    /// Index of the source.
    pub source: usize,
    /// The picture's index in its pool, or the scene's.
    pub picture: u64,
    /// Record and expression of each thing said; a conversation's expression is 0. Empty for a scene: all of it.
    pub said: Vec<(usize, usize)>,
    /// Everything random in it comes from here.
    pub seed: u64,
}

/// Jobs, one after the other: sources take turns in proportion to their weights, exactly so at every moment.
///
/// A source of pictures is passed through in random order. Where a number of conversations is wanted it begins anew, in
/// another order, when it is spent; else it ends, and all ends with the last of them.
pub(super) struct Plan<'a> {
    sources: &'a [Source],
    lanes: Vec<Lane>,
    seed: u64,
    pack: usize,
    again: bool,
}

struct Lane {
    credit: f64,
    epoch: u64,
    drawn: u64,
    queue: VecDeque<Job>,
}

impl<'a> Plan<'a> {
    /// # Errors
    /// [`DialogueError::Endless`].
    pub(super) fn new(sources: &'a [Source], options: &DialogueOptions) -> Result<Self, DialogueError> {
        let ends = sources.iter().any(|s| matches!(s.pool, Pool::Pictures(_)));
        if options.count.is_none() && !ends {
            return Err(DialogueError::Endless);
        }
        let lane = |_: &Source| Lane { credit: 0.0, epoch: 0, drawn: 0, queue: VecDeque::new() };
        let mut plan = Self {
            sources,
            lanes: sources.iter().map(lane).collect(),
            seed: options.seed,
            pack: options.pack,
            again: options.count.is_some(),
        };
        (0..sources.len()).for_each(|s| plan.fill(s));
        Ok(plan)
    }

    /// Jobs of one pass through all pictures; scenes, which have no end, are not among them.
    pub(super) fn finite(&self) -> u64 {
        self.lanes.iter().zip(self.sources).filter(|(_, s)| !s.is_endless()).map(|(l, _)| l.queue.len() as u64).sum()
    }

    /// Queues the next pass of a source of pictures.
    fn fill(&mut self, source: usize) {
        let lane = &mut self.lanes[source];
        let Pool::Pictures(pictures) = &self.sources[source].pool else { return };
        let mut rng = SceneRng::new(&[self.seed, source as u64, lane.epoch]);
        let mut jobs: Vec<Job> = Vec::new();
        for (i, pictured) in pictures.iter().enumerate() {
            let packs = packs(pictured, self.pack, &mut rng).into_iter();
            jobs.extend(packs.map(|said| Job { source, picture: i as u64, said, seed: 0 }));
        }
        rng.shuffle(&mut jobs);
        jobs.iter_mut().for_each(|job| job.seed = rng.bits());
        lane.queue = jobs.into();
        lane.epoch += 1;
    }

    fn take(&mut self, source: usize) -> Option<Job> {
        let scenes = self.sources[source].is_endless();
        if !scenes && self.lanes[source].queue.is_empty() && self.again {
            self.fill(source);
        }
        let lane = &mut self.lanes[source];
        lane.drawn += 1;
        match scenes {
            false => lane.queue.pop_front(),
            true => {
                let picture = lane.drawn - 1;
                let seed = SceneRng::new(&[self.seed, source as u64, u64::MAX, picture]).bits();
                Some(Job { source, picture, said: Vec::new(), seed })
            }
        }
    }
}

impl Iterator for Plan<'_> {
    type Item = Job;

    fn next(&mut self) -> Option<Job> {
        let live =
            |plan: &Self, s: usize| plan.again || plan.sources[s].is_endless() || !plan.lanes[s].queue.is_empty();
        if !self.again && (0..self.lanes.len()).all(|s| self.sources[s].is_endless() || !live(self, s)) {
            return None;
        }
        // Each live source earns its weight; the richest is drawn and pays for all.
        let live: Vec<usize> = (0..self.lanes.len()).filter(|s| live(self, *s)).collect();
        let total: f64 = live.iter().map(|s| self.sources[*s].weight).sum();
        live.iter().for_each(|s| self.lanes[*s].credit += self.sources[*s].weight);
        let richest = live.into_iter().rev().max_by(|a, b| self.lanes[*a].credit.total_cmp(&self.lanes[*b].credit))?;
        self.lanes[richest].credit -= total;
        self.take(richest)
    }
}

impl Source {
    fn is_endless(&self) -> bool {
        matches!(self.pool, Pool::Scenes { .. })
    }
}

/// The expressions of a picture in random order, `most` at a time; each conversation by itself.
fn packs(pictured: &Pictured, most: usize, rng: &mut SceneRng) -> Vec<Vec<(usize, usize)>> {
    let (mut expressions, mut packs) = (Vec::new(), Vec::new());
    for (r, record) in pictured.records.iter().enumerate() {
        match &record.content {
            Content::Referring(referring) => expressions.extend((0..referring.expressions.len()).map(|e| (r, e))),
            Content::Dialogue(_) => packs.push(vec![(r, 0)]),
        }
    }
    rng.shuffle(&mut expressions);
    packs.extend(expressions.chunks(most).map(<[_]>::to_vec));
    packs
}

/// A name for a source of `format` that none of `taken` has.
pub(super) fn label<'a>(format: &str, taken: impl Iterator<Item = &'a str>) -> String {
    let alike = taken.filter(|t| t.split('#').next() == Some(format)).count();
    if alike == 0 { format.to_owned() } else { format!("{format}#{}", alike + 1) }
}
