//! Proposes queries: for a type and a target, or for nothing at all.

use super::super::colour::Colour;
use super::super::rng::SceneRng;
use super::super::scene::Object;
use super::super::split::Split;
use super::grammar::{Grammar, Number};
use super::lexicon::{Level, Lexicon};
use super::query::{Answer, Modifier, Phrase, Query, Region, Relation, Side, Truth, World};
use super::{Expression, ExpressionType};
use crate::geometry::{Size, SourcePx};

/// Proposals per expression before its type is given up.
pub(super) const TRIES: usize = 14;

/// A query that was judged, before it is put into words.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Draft {
    pub kind: ExpressionType,
    pub query: Query,
    pub number: Number,
    pub targets: Vec<usize>,
    pub near_miss: bool,
    /// Objects that the bare phrase applies to.
    candidates: usize,
}

impl Draft {
    /// Whether it is one object by noun and colour alone.
    pub fn is_plain(&self) -> bool {
        self.query.modifier == Modifier::Plain && self.number == Number::One && self.query.phrase.noun.is_some()
    }

    /// What the query was found to apply to.
    pub fn answer(&self) -> Answer {
        if self.targets.is_empty() { Answer::Nothing } else { Answer::Targets(self.targets.clone()) }
    }
}

/// Makes expressions about one scene.
pub(crate) struct Builder<'a> {
    pub(super) world: World<'a>,
    pub(super) grammar: Grammar<'a>,
}

impl<'a> Builder<'a> {
    pub fn new(objects: &[Object], size: Size<SourcePx>, lexicon: &'a Lexicon, split: Split) -> Self {
        Self { world: World::new(objects, size, lexicon), grammar: Grammar::new(split.held_out(), lexicon) }
    }

    /// One expression of the given type, or `None` where the scene offers none.
    pub fn expression(&self, kind: ExpressionType, rng: &mut SceneRng) -> Option<Expression> {
        // Some of the absent things are not in the table at all: there is nothing to judge.
        if kind == ExpressionType::None && rng.chance(0.11) {
            let text = self.grammar.stranger(rng);
            return Some(Expression { kind, text, targets: Vec::new(), near_miss: false });
        }
        let draft = self.draft(kind, rng)?;
        self.word(&draft, rng)
    }

    /// One judged query of the given type.
    pub fn draft(&self, kind: ExpressionType, rng: &mut SceneRng) -> Option<Draft> {
        match kind {
            _ if self.world.facts.is_empty() => None,
            // Half of what matches nothing is a near miss, the share of strangers taken into account.
            ExpressionType::None if rng.chance(0.5 / 0.89) => self.near_miss(rng),
            ExpressionType::None => self.absent(rng),
            ExpressionType::Several => self.several(rng),
            _ => self.single(kind, rng),
        }
    }

    /// Puts a draft into words.
    pub fn word(&self, draft: &Draft, rng: &mut SceneRng) -> Option<Expression> {
        let text = self.grammar.command(&draft.query, draft.number, draft.candidates, rng)?;
        Some(Expression { kind: draft.kind, text, targets: draft.targets.clone(), near_miss: draft.near_miss })
    }

    fn single(&self, kind: ExpressionType, rng: &mut SceneRng) -> Option<Draft> {
        // One target, tried hard, then others: targets stay close to uniform.
        let mut target = rng.below(self.world.facts.len());
        for attempt in 0..TRIES {
            if attempt % 5 == 4 {
                target = rng.below(self.world.facts.len());
            }
            let Some(query) = self.propose(kind, target, rng) else { continue };
            if self.world.resolve(&query).is_exactly(target) {
                let candidates = self.candidates(&query);
                let targets = vec![target];
                return Some(Draft { kind, query, number: Number::One, targets, near_miss: false, candidates });
            }
        }
        None
    }

    fn propose(&self, kind: ExpressionType, target: usize, rng: &mut SceneRng) -> Option<Query> {
        let plain = |phrase| Query { phrase, modifier: Modifier::Plain };
        Some(match kind {
            ExpressionType::Name => plain(self.named(target, rng)),
            ExpressionType::Colour => plain(self.coloured(target, rng)?),
            ExpressionType::Kind => plain(Phrase::noun(self.noun_of(target, Level::Kind, rng)?)),
            ExpressionType::Size => {
                Query { phrase: self.group(target, rng), modifier: Modifier::Size(rng.chance(0.5)) }
            }
            ExpressionType::Position => {
                let modifier = if rng.chance(0.55) {
                    Modifier::Region(*rng.pick(&Region::ALL))
                } else {
                    Modifier::Extreme(*rng.pick(&Side::ALL))
                };
                let phrase = if matches!(modifier, Modifier::Region(_)) && rng.chance(0.35) {
                    self.named(target, rng)
                } else {
                    self.group(target, rng)
                };
                Query { phrase, modifier }
            }
            ExpressionType::Relation => self.related(target, rng)?,
            ExpressionType::Ordinal => {
                let n = 1 + rng.weighted(&[0.2, 0.42, 0.28, 0.1]);
                let phrase = self.group(target, rng);
                if !self.countable(&phrase) || self.candidates(&Query { phrase, modifier: Modifier::Plain }) < 3.max(n)
                {
                    return None;
                }
                Query { phrase, modifier: Modifier::Ordinal(n, *rng.pick(&Side::ALL)) }
            }
            ExpressionType::Several | ExpressionType::None | ExpressionType::Exclusion => return None,
        })
    }

    /// Objects that the phrase of a query clearly applies to.
    fn candidates(&self, query: &Query) -> usize {
        match self.world.resolve(&Query { modifier: Modifier::Plain, ..*query }) {
            Answer::Targets(t) => t.len(),
            _ => 0,
        }
    }

    pub(super) fn countable(&self, phrase: &Phrase) -> bool {
        phrase.noun.is_none_or(|n| self.world.lexicon.nouns[n].plural.is_some())
    }

    fn class(&self, object: usize) -> usize {
        self.world.facts[object].class
    }

    pub(super) fn noun_of(&self, object: usize, level: Level, rng: &mut SceneRng) -> Option<usize> {
        let nouns: Vec<usize> = self.world.lexicon.naming(self.class(object), level).collect();
        (!nouns.is_empty()).then(|| *rng.pick(&nouns))
    }

    /// A name, a synonym or a group word of the object.
    pub(super) fn named(&self, object: usize, rng: &mut SceneRng) -> Phrase {
        let names = &self.world.lexicon.names[self.class(object)];
        let noun = match rng.unit() {
            u if u < 0.12 => self.noun_of(object, Level::Group, rng).unwrap_or(names[0]),
            u if u < 0.55 => names[0],
            _ => *rng.pick(names),
        };
        Phrase::noun(noun)
    }

    pub(super) fn colour_of(&self, object: usize) -> Colour {
        self.world.lexicon.classes[self.class(object)].colour
    }

    /// Whether "COLOUR NOUN" is natural: the noun does not name a colour itself.
    pub(super) fn takes_colour(&self, noun: usize) -> bool {
        let text = &self.world.lexicon.nouns[noun].text;
        !text.split(' ').any(|w| Colour::parse(w).is_some())
    }

    fn coloured(&self, object: usize, rng: &mut SceneRng) -> Option<Phrase> {
        let noun = match rng.weighted(&[0.4, 0.3, 0.2, 0.1]) {
            0 => None,
            1 => Some(self.noun_of(object, Level::Kind, rng)?),
            2 => Some(self.noun_of(object, Level::Name, rng)?),
            _ => Some(self.noun_of(object, Level::Group, rng)?),
        };
        let fits = noun.is_none_or(|n| self.takes_colour(n));
        fits.then(|| Phrase { noun, colour: Some(self.colour_of(object)) })
    }

    /// A phrase that often applies to several objects, this one among them.
    pub(super) fn group(&self, object: usize, rng: &mut SceneRng) -> Phrase {
        let same = self.world.facts.iter().filter(|f| f.class == self.class(object)).count();
        let weights = if same > 1 { [0.55, 0.15, 0.15, 0.1, 0.05] } else { [0.0, 0.36, 0.36, 0.2, 0.08] };
        let noun = |level, rng: &mut SceneRng| self.noun_of(object, level, rng).map(Phrase::noun);
        match rng.weighted(&weights) {
            0 => Some(self.named(object, rng)),
            1 => noun(Level::Kind, rng),
            2 => None,
            3 => Some(Phrase { noun: None, colour: Some(self.colour_of(object)) }),
            _ => noun(Level::Group, rng),
        }
        .unwrap_or(Phrase::ANY)
    }

    /// A phrase that applies to `object` alone, to name it in a relation.
    pub(super) fn anchor(&self, object: usize, rng: &mut SceneRng) -> Option<Phrase> {
        for _ in 0..3 {
            let phrase = match rng.weighted(&[0.72, 0.12, 0.16]) {
                0 => Some(self.named(object, rng)),
                1 => self.noun_of(object, Level::Kind, rng).map(Phrase::noun),
                _ => self.coloured(object, rng),
            };
            let unique =
                |p: &Phrase| self.world.resolve(&Query { phrase: *p, modifier: Modifier::Plain }).is_exactly(object);
            if let Some(p) = phrase.filter(unique) {
                return Some(p);
            }
        }
        None
    }

    pub(super) fn other(&self, object: usize, rng: &mut SceneRng) -> Option<usize> {
        let n = self.world.facts.len();
        (n > 1).then(|| (object + 1 + rng.below(n - 1)) % n)
    }

    fn related(&self, target: usize, rng: &mut SceneRng) -> Option<Query> {
        let phrase = if rng.chance(0.45) { self.named(target, rng) } else { self.group(target, rng) };
        let first = self.other(target, rng)?;
        let anchor = self.anchor(first, rng)?;
        let modifier = match rng.weighted(&[0.72, 0.18, 0.1]) {
            0 => Modifier::Relation(*rng.pick(&Relation::ALL), anchor),
            1 => Modifier::Closest(anchor),
            _ => {
                let second = self.other(target, rng).filter(|&o| o != first)?;
                Modifier::Between(anchor, self.anchor(second, rng)?)
            }
        };
        Some(Query { phrase, modifier })
    }

    fn several(&self, rng: &mut SceneRng) -> Option<Draft> {
        for _ in 0..TRIES {
            let target = rng.below(self.world.facts.len());
            let phrase = match rng.weighted(&[0.35, 0.3, 0.25, 0.1]) {
                0 => self.group(target, rng),
                1 => self.noun_of(target, Level::Kind, rng).map_or(Phrase::ANY, Phrase::noun),
                2 => Phrase { noun: None, colour: Some(self.colour_of(target)) },
                _ => self.coloured(target, rng).unwrap_or(Phrase::ANY),
            };
            let region = phrase == Phrase::ANY || rng.chance(0.2);
            let sides = [Region::Left, Region::Right, Region::Top, Region::Bottom];
            let modifier = if region { Modifier::Region(*rng.pick(&sides)) } else { Modifier::Plain };
            let query = Query { phrase, modifier };
            let Answer::Targets(targets) = self.world.resolve(&query) else { continue };
            if targets.len() < 2 || !self.countable(&phrase) {
                continue;
            }
            let (kind, number) = (ExpressionType::Several, Number::All(targets.len()));
            let candidates = self.candidates(&query);
            return Some(Draft { kind, query, number, targets, near_miss: false, candidates });
        }
        None
    }

    fn absent(&self, rng: &mut SceneRng) -> Option<Draft> {
        (0..3 * TRIES).find_map(|_| {
            let (query, number) = self.propose_absent(rng);
            self.negative(&query, number).filter(|draft| !draft.near_miss)
        })
    }

    /// A draft of a query that applies to nothing.
    fn negative(&self, query: &Query, number: Number) -> Option<Draft> {
        if self.world.resolve(query) != Answer::Nothing || (number != Number::One && !self.countable(&query.phrase)) {
            return None;
        }
        let near_miss = self.is_near_miss(query);
        let targets = Vec::new();
        Some(Draft { kind: ExpressionType::None, query: *query, number, targets, near_miss, candidates: 0 })
    }

    /// Whether something in the scene matches but for its colour, place or relation.
    fn is_near_miss(&self, query: &Query) -> bool {
        let right = |noun: usize| self.world.facts.iter().any(|f| self.world.noun(f.class, noun) == Truth::Yes);
        match query.phrase.noun {
            Some(noun) if right(noun) => true,
            // "the blue book" where there is a red one.
            Some(noun) => self.world.lexicon.nouns[noun].text.rsplit_once(' ').is_some_and(|(first, head)| {
                Colour::parse(first).is_some()
                    && self.world.lexicon.nouns.iter().position(|n| n.text == head).is_some_and(right)
            }),
            None => query.modifier != Modifier::Plain,
        }
    }

    /// A query about something that is not there: mostly a plain name, sometimes with more said about it.
    fn propose_absent(&self, rng: &mut SceneRng) -> (Query, Number) {
        let lexicon = self.world.lexicon;
        let class = rng.below(lexicon.classes.len());
        let mut phrase = Phrase::noun(*rng.pick(&lexicon.names[class]));
        let mut number = Number::One;
        match rng.weighted(&[0.62, 0.1, 0.14, 0.14]) {
            0 => {}
            1 => phrase.colour = phrase.noun.filter(|&n| self.takes_colour(n)).map(|_| lexicon.classes[class].colour),
            2 => {
                let kinds: Vec<usize> = lexicon.naming(class, Level::Kind).collect();
                phrase = Phrase::noun(*rng.pick(&kinds));
            }
            _ => phrase = Phrase { noun: None, colour: Some(*rng.pick(&Colour::ALL)) },
        }
        let modifier = match rng.weighted(&[0.62, 0.08, 0.08, 0.08, 0.14]) {
            0 => Modifier::Plain,
            1 => Modifier::Size(rng.chance(0.5)),
            2 => Modifier::Region(*rng.pick(&Region::ALL)),
            3 => Modifier::Extreme(*rng.pick(&Side::ALL)),
            _ => self.random_relation(rng).unwrap_or(Modifier::Plain),
        };
        if modifier == Modifier::Plain && rng.chance(0.22) {
            number = Number::All(0);
        }
        (Query { phrase, modifier }, number)
    }

    pub(super) fn random_relation(&self, rng: &mut SceneRng) -> Option<Modifier> {
        let n = self.world.facts.len();
        let anchor = self.anchor((n > 0).then(|| rng.below(n))?, rng)?;
        Some(Modifier::Relation(*rng.pick(&Relation::ALL), anchor))
    }

    fn near_miss(&self, rng: &mut SceneRng) -> Option<Draft> {
        for _ in 0..3 * TRIES {
            let target = rng.below(self.world.facts.len());
            let (query, number) = match rng.weighted(&[0.45, 0.33, 0.22]) {
                0 => self.wrong_colour(target, rng),
                1 => match self.wrong_relation(target, rng) {
                    Some(query) => (query, Number::One),
                    None => continue,
                },
                _ => {
                    let phrase = if rng.chance(0.7) { self.named(target, rng) } else { self.group(target, rng) };
                    (Query { phrase, modifier: Modifier::Region(*rng.pick(&Region::ALL)) }, Number::One)
                }
            };
            if let Some(draft) = self.negative(&query, number).filter(|draft| draft.near_miss) {
                return Some(draft);
            }
        }
        None
    }

    /// Something that is there, in a colour that it clearly has not.
    fn wrong_colour(&self, target: usize, rng: &mut SceneRng) -> (Query, Number) {
        let noun = match rng.weighted(&[0.5, 0.35, 0.15]) {
            0 => self.noun_of(target, Level::Name, rng),
            1 => self.noun_of(target, Level::Kind, rng),
            _ => self.noun_of(target, Level::Group, rng),
        };
        let noun = noun.filter(|&n| self.takes_colour(n));
        let colour = noun.map(|_| *rng.pick(&Colour::ALL));
        let number = if rng.chance(0.12) { Number::All(0) } else { Number::One };
        // Without a noun the phrase applies to everything and is turned down.
        (Query { phrase: Phrase { noun, colour }, modifier: Modifier::Plain }, number)
    }

    fn wrong_relation(&self, target: usize, rng: &mut SceneRng) -> Option<Query> {
        let phrase = if rng.chance(0.75) { self.named(target, rng) } else { self.group(target, rng) };
        let first = self.other(target, rng)?;
        let anchor = self.anchor(first, rng)?;
        let modifier = if rng.chance(0.9) {
            Modifier::Relation(*rng.pick(&Relation::ALL), anchor)
        } else {
            let second = self.other(target, rng).filter(|&o| o != first)?;
            Modifier::Between(anchor, self.anchor(second, rng)?)
        };
        Some(Query { phrase, modifier })
    }
}
