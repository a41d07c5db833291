//! Expressions that say what is not meant: "the mug, not the red one".

use super::super::rng::SceneRng;
use super::build::{Builder, TRIES};
use super::grammar::Number;
use super::lexicon::Level;
use super::query::{Answer, Modifier, Phrase, Query, Region, Side};
use super::{Expression, ExpressionType};

/// A count for which "all the mugs" is said without a number.
const UNCOUNTED: usize = usize::MAX;

/// More objects than this are not listed by excluding others.
const MOST: usize = 4;

impl Builder<'_> {
    /// One expression, or `None` where the scene offers none.
    pub fn exclusion(&self, rng: &mut SceneRng) -> Option<Expression> {
        if self.world.facts.is_empty() {
            return None;
        }
        (0..TRIES).find_map(|_| {
            let base = self.excluded_from(rng);
            let Answer::Targets(all) = self.world.resolve(&plain(base)) else { return None };
            let except = self.excluded(&base, &all, rng)?;
            let Answer::Targets(out) = self.world.resolve(&except) else { return None };
            if !out.iter().all(|o| all.contains(o)) || (out.len() > 1 && !self.countable(&except.phrase)) {
                return None;
            }
            let targets: Vec<usize> = all.iter().copied().filter(|o| !out.contains(o)).collect();
            // Whoever excludes everything is rare, and mistaken.
            if targets.is_empty() && (except.modifier != Modifier::Plain || !rng.chance(0.06)) {
                return None;
            }
            if targets.len() > MOST {
                return None;
            }
            let number = if targets.len() <= 1 { Number::One } else { Number::All(UNCOUNTED) };
            if number != Number::One && !self.countable(&base) {
                return None;
            }
            let text = self.grammar.exclusion(&base, number, &except, out.len() > 1, rng)?;
            let near_miss = targets.is_empty();
            let kind = if near_miss { ExpressionType::None } else { ExpressionType::Exclusion };
            Some(Expression { kind, text, targets, near_miss })
        })
    }

    /// What a part is excluded from.
    fn excluded_from(&self, rng: &mut SceneRng) -> Phrase {
        let target = rng.below(self.world.facts.len());
        match rng.weighted(&[0.45, 0.3, 0.25]) {
            0 => self.group(target, rng),
            1 => self.noun_of(target, Level::Kind, rng).map_or(Phrase::ANY, Phrase::noun),
            _ => self.named(target, rng),
        }
    }

    /// A query for some of the objects `all` that `base` applies to: by colour, by name, or by rank, place or relation.
    fn excluded(&self, base: &Phrase, all: &[usize], rng: &mut SceneRng) -> Option<Query> {
        let other = *rng.pick(all);
        match rng.weighted(&[0.4, 0.25, 0.35]) {
            0 => {
                let fits = base.colour.is_none() && base.noun.is_none_or(|n| self.takes_colour(n));
                fits.then(|| plain(Phrase { noun: base.noun, colour: Some(self.colour_of(other)) }))
            }
            1 => {
                let phrase = self.named(other, rng);
                (phrase.noun != base.noun).then(|| plain(phrase))
            }
            _ if all.len() < 2 => None,
            _ => {
                let modifier = match rng.weighted(&[0.25, 0.3, 0.25, 0.2]) {
                    0 => Modifier::Size(rng.chance(0.5)),
                    1 => Modifier::Extreme(*rng.pick(&Side::ALL)),
                    2 => Modifier::Region(*rng.pick(&Region::ALL)),
                    _ => self.random_relation(rng)?,
                };
                let query = Query { phrase: *base, modifier };
                matches!(self.world.resolve(&query), Answer::Targets(t) if t.len() == 1).then_some(query)
            }
        }
    }
}

fn plain(phrase: Phrase) -> Query {
    Query { phrase, modifier: Modifier::Plain }
}
