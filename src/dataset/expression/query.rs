//! What an expression means, and to which objects of a scene it applies: the one judge of right and wrong.
//!
//! Every predicate answers with a [`Truth`] of four steps, so that a margin lies between yes and no. An expression is
//! used only where no object falls into that margin: "left of" is never a matter of taste.

use super::super::colour::Colour;
use super::super::scene::Object;
use super::lexicon::Lexicon;
use crate::geometry::{Size, SourcePx};

/// How well a predicate applies to an object, from not at all to clearly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Truth {
    No,
    /// No, but not wrong enough to say that nothing matches (a red lid on a green box).
    Trace,
    /// People would disagree.
    Maybe,
    Yes,
}

fn between_bounds(value: f32, no: f32, yes: f32) -> Truth {
    let (value, no, yes) = if no < yes { (value, no, yes) } else { (-value, -no, -yes) };
    if value >= yes {
        Truth::Yes
    } else if value <= no {
        Truth::No
    } else {
        Truth::Maybe
    }
}

/// A noun phrase without place or rank: an optional colour and an optional noun (else "object").
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Phrase {
    pub noun: Option<usize>,
    pub colour: Option<Colour>,
}

impl Phrase {
    pub const ANY: Self = Self { noun: None, colour: None };

    pub fn noun(noun: usize) -> Self {
        Self { noun: Some(noun), colour: None }
    }
}

/// A part of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Region {
    /// `(right, bottom)`.
    Corner(bool, bool),
    Left,
    Right,
    Top,
    Bottom,
    Middle,
}

impl Region {
    pub const ALL: [Self; 9] = [
        Self::Corner(false, false),
        Self::Corner(true, false),
        Self::Corner(false, true),
        Self::Corner(true, true),
        Self::Left,
        Self::Right,
        Self::Top,
        Self::Bottom,
        Self::Middle,
    ];
}

/// A side of the image, from which objects are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Left,
    Right,
    Top,
    Bottom,
}

impl Side {
    pub const ALL: [Self; 4] = [Self::Left, Self::Right, Self::Top, Self::Bottom];
}

/// How an object lies to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relation {
    LeftOf,
    RightOf,
    Above,
    Below,
    NextTo,
}

impl Relation {
    pub const ALL: [Self; 5] = [Self::LeftOf, Self::RightOf, Self::Above, Self::Below, Self::NextTo];
}

/// What narrows a phrase down.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Modifier {
    Plain,
    /// Biggest (true) or smallest.
    Size(bool),
    Region(Region),
    /// The outermost one.
    Extreme(Side),
    Relation(Relation, Phrase),
    Closest(Phrase),
    Between(Phrase, Phrase),
    /// Counted from 1.
    Ordinal(usize, Side),
}

/// The meaning of an expression.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Query {
    pub phrase: Phrase,
    pub modifier: Modifier,
}

/// To what a query applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Clearly to these objects, and clearly to no other.
    Targets(Vec<usize>),
    /// Clearly to none.
    Nothing,
    /// People would disagree, or the phrase makes no sense here.
    Unclear,
}

impl Answer {
    pub fn is_exactly(&self, target: usize) -> bool {
        matches!(self, Self::Targets(t) if t.as_slice() == [target])
    }
}

/// What the predicates look at; lengths in units of the longest image side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fact {
    pub class: usize,
    /// Box of the visible part.
    pub b: [f32; 4],
    pub centre: [f32; 2],
    /// Centre per axis in `0.0..=1.0` of the image's own width and height.
    pub place: [f32; 2],
    pub area: f32,
    pub full_area: f32,
}

impl Fact {
    pub fn side(&self) -> f32 {
        self.width().max(self.height())
    }

    fn width(&self) -> f32 {
        self.b[2] - self.b[0]
    }

    fn height(&self) -> f32 {
        self.b[3] - self.b[1]
    }

    fn distance(&self, other: &Self) -> f32 {
        let (dx, dy) = (self.centre[0] - other.centre[0], self.centre[1] - other.centre[1]);
        (dx * dx + dy * dy).sqrt()
    }

    /// Distance between the boxes, 0 where they touch.
    fn gap(&self, other: &Self) -> f32 {
        let dx = (self.b[0] - other.b[2]).max(other.b[0] - self.b[2]).max(0.0);
        let dy = (self.b[1] - other.b[3]).max(other.b[1] - self.b[3]).max(0.0);
        (dx * dx + dy * dy).sqrt()
    }
}

/// The objects of a scene as the predicates see them.
pub(crate) struct World<'a> {
    pub facts: Vec<Fact>,
    pub lexicon: &'a Lexicon,
}

impl<'a> World<'a> {
    pub fn new(objects: &[Object], size: Size<SourcePx>, lexicon: &'a Lexicon) -> Self {
        let longest = size.width.max(size.height) as f32;
        let facts = objects.iter().map(|o| {
            let c = o.bbox.centre();
            Fact {
                class: o.class,
                b: [o.bbox.x1, o.bbox.y1, o.bbox.x2, o.bbox.y2].map(|v| v / longest),
                centre: [c.x / longest, c.y / longest],
                place: [c.x / size.width as f32, c.y / size.height as f32],
                area: o.area as f32 / (longest * longest),
                full_area: o.full_area() / (longest * longest),
            }
        });
        Self { facts: facts.collect(), lexicon }
    }

    /// Whether the colour word applies to objects of `class`.
    pub fn colour(&self, class: usize, colour: Colour) -> Truth {
        let class = &self.lexicon.classes[class];
        let share = class.colour_shares[colour as usize];
        if class.colour == colour {
            Truth::Yes
        } else if share >= 0.45 {
            Truth::Maybe
        } else if share >= 0.10 || class.colour.is_near(colour) {
            Truth::Trace
        } else {
            Truth::No
        }
    }

    /// Whether the noun applies to objects of `class`.
    pub fn noun(&self, class: usize, noun: usize) -> Truth {
        let noun = &self.lexicon.nouns[noun];
        if noun.yes >> class & 1 == 1 {
            Truth::Yes
        } else if noun.maybe >> class & 1 == 1 {
            Truth::Maybe
        } else {
            Truth::No
        }
    }

    fn phrase(&self, phrase: &Phrase) -> Vec<Truth> {
        let one = |f: &Fact| {
            if f.area == 0.0 {
                return Truth::No;
            }
            let noun = phrase.noun.map_or(Truth::Yes, |n| self.noun(f.class, n));
            noun.min(phrase.colour.map_or(Truth::Yes, |c| self.colour(f.class, c)))
        };
        self.facts.iter().map(one).collect()
    }

    /// The only object that a phrase applies to.
    fn anchor(&self, phrase: &Phrase) -> Option<usize> {
        match conclude(&self.phrase(phrase)) {
            Answer::Targets(t) if t.len() == 1 => Some(t[0]),
            _ => None,
        }
    }

    /// To what the query applies.
    pub fn resolve(&self, query: &Query) -> Answer {
        let truths = self.phrase(&query.phrase);
        match &query.modifier {
            Modifier::Plain => conclude(&truths),
            Modifier::Region(region) => self.filter(&truths, |i| region_truth(&self.facts[i], *region)),
            Modifier::Relation(relation, phrase) => {
                let Some(anchor) = self.anchor(phrase) else { return Answer::Unclear };
                self.beside(&truths, &[anchor], |i| relation_truth(&self.facts[i], &self.facts[anchor], *relation))
            }
            Modifier::Between(a, b) => {
                let (Some(a), Some(b)) = (self.anchor(a), self.anchor(b)) else { return Answer::Unclear };
                if a == b {
                    return Answer::Unclear;
                }
                self.beside(&truths, &[a, b], |i| between_truth(&self.facts[i], &self.facts[a], &self.facts[b]))
            }
            Modifier::Closest(phrase) => {
                let Some(anchor) = self.anchor(phrase) else { return Answer::Unclear };
                self.ranked(&truths, Some(anchor), |c| self.closest(c, anchor))
            }
            Modifier::Size(biggest) => self.ranked(&truths, None, |c| self.by_size(c, *biggest)),
            Modifier::Extreme(side) => self.ranked(&truths, None, |c| self.outermost(c, *side)),
            Modifier::Ordinal(n, side) => self.ranked(&truths, None, |c| self.counted(c, *n, *side, 0.045)),
        }
    }

    fn filter(&self, truths: &[Truth], also: impl Fn(usize) -> Truth) -> Answer {
        let both: Vec<Truth> =
            truths.iter().enumerate().map(|(i, &t)| if t == Truth::No { t } else { t.min(also(i)) }).collect();
        conclude(&both)
    }

    /// As [`World::filter`]; the anchors themselves never match.
    fn beside(&self, truths: &[Truth], anchors: &[usize], also: impl Fn(usize) -> Truth) -> Answer {
        self.filter(truths, |i| if anchors.contains(&i) { Truth::No } else { also(i) })
    }

    /// Candidates of a ranking: at least two clear ones and no doubtful one.
    fn ranked(&self, truths: &[Truth], except: Option<usize>, pick: impl Fn(&[usize]) -> Option<usize>) -> Answer {
        let mut candidates: Vec<usize> = Vec::new();
        for (i, &t) in truths.iter().enumerate().filter(|&(i, _)| Some(i) != except) {
            match t {
                Truth::Yes => candidates.push(i),
                Truth::Maybe => return Answer::Unclear,
                Truth::Trace | Truth::No => {}
            }
        }
        if candidates.is_empty() && truths.iter().all(|&t| t == Truth::No) {
            return Answer::Nothing;
        }
        if candidates.len() < 2 {
            return Answer::Unclear;
        }
        pick(&candidates).map_or(Answer::Unclear, |i| Answer::Targets(vec![i]))
    }

    /// The one that is clearly the biggest (smallest) by visible area, by whole area and by side.
    fn by_size(&self, candidates: &[usize], biggest: bool) -> Option<usize> {
        let sign = if biggest { 1.0 } else { -1.0 };
        let key = |i: usize| sign * self.facts[i].area;
        let best = *candidates.iter().max_by(|&&a, &&b| key(a).total_cmp(&key(b)))?;
        let ratio = |a: f32, b: f32| if biggest { a / b } else { b / a };
        let f = &self.facts[best];
        let clear = candidates.iter().filter(|&&i| i != best).all(|&i| {
            let o = &self.facts[i];
            ratio(f.area, o.area) >= 1.3 && ratio(f.full_area, o.full_area) >= 1.2 && ratio(f.side(), o.side()) >= 1.1
        });
        clear.then_some(best)
    }

    /// The `n`-th from a side, where the gaps (of centres) to its neighbours are at least `gap`.
    fn counted(&self, candidates: &[usize], n: usize, side: Side, gap: f32) -> Option<usize> {
        let (axis, sign) = match side {
            Side::Left => (0, 1.0),
            Side::Right => (0, -1.0),
            Side::Top => (1, 1.0),
            Side::Bottom => (1, -1.0),
        };
        let mut order: Vec<(f32, usize)> = candidates.iter().map(|&i| (sign * self.facts[i].centre[axis], i)).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        let at = n - 1;
        let this = order.get(at)?;
        let before = at == 0 || this.0 - order[at - 1].0 >= gap;
        let after = order.get(at + 1).is_none_or(|next| next.0 - this.0 >= gap);
        (before && after).then_some(this.1)
    }

    /// The first from a side, where its edge is the outermost too.
    fn outermost(&self, candidates: &[usize], side: Side) -> Option<usize> {
        let edge = |i: usize| {
            let b = self.facts[i].b;
            match side {
                Side::Left => b[0],
                Side::Right => -b[2],
                Side::Top => b[1],
                Side::Bottom => -b[3],
            }
        };
        let first = self.counted(candidates, 1, side, 0.05)?;
        candidates.iter().all(|&i| edge(i) >= edge(first)).then_some(first)
    }

    fn closest(&self, candidates: &[usize], anchor: usize) -> Option<usize> {
        let a = &self.facts[anchor];
        let mut order: Vec<(f32, usize)> = candidates.iter().map(|&i| (self.facts[i].distance(a), i)).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (first, second) = (order[0], order[1]);
        let by_edge = |i: usize| self.facts[i].gap(a);
        let clear = second.0 >= first.0 * 1.35
            && second.0 - first.0 >= 0.05
            && candidates.iter().all(|&i| i == first.1 || by_edge(i) >= by_edge(first.1));
        clear.then_some(first.1)
    }
}

/// Targets where some object clearly matches and none is doubtful; nothing where all are clearly wrong.
fn conclude(truths: &[Truth]) -> Answer {
    if truths.contains(&Truth::Maybe) {
        return Answer::Unclear;
    }
    let targets: Vec<usize> = (0..truths.len()).filter(|&i| truths[i] == Truth::Yes).collect();
    if !targets.is_empty() {
        Answer::Targets(targets)
    } else if truths.iter().all(|&t| t == Truth::No) {
        Answer::Nothing
    } else {
        Answer::Unclear
    }
}

fn region_truth(f: &Fact, region: Region) -> Truth {
    let [x, y] = f.place;
    let low = |v: f32| between_bounds(v, 0.46, 0.36);
    let high = |v: f32| between_bounds(v, 0.54, 0.64);
    let middle = |v: f32| between_bounds((v - 0.5).abs(), 0.24, 0.13);
    let corner = |v: f32, far: bool| if far { high(v) } else { low(v) };
    match region {
        Region::Corner(right, bottom) => {
            let outer = |v: f32, far: bool| between_bounds(if far { 1.0 - v } else { v }, 0.42, 0.32);
            corner(x, right).min(corner(y, bottom)).min(outer(x, right)).min(outer(y, bottom))
        }
        Region::Left => low(x),
        Region::Right => high(x),
        Region::Top => low(y),
        Region::Bottom => high(y),
        Region::Middle => middle(x).min(middle(y)),
    }
}

fn relation_truth(f: &Fact, anchor: &Fact, relation: Relation) -> Truth {
    let (axis, sign) = match relation {
        Relation::LeftOf => (0, 1.0),
        Relation::RightOf => (0, -1.0),
        Relation::Above => (1, 1.0),
        Relation::Below => (1, -1.0),
        Relation::NextTo => return between_bounds(f.gap(anchor), 0.2, 0.05),
    };
    let along = sign * (anchor.centre[axis] - f.centre[axis]);
    let across = (anchor.centre[1 - axis] - f.centre[1 - axis]).abs();
    let gap = if sign > 0.0 { anchor.b[axis] - f.b[axis + 2] } else { f.b[axis] - anchor.b[axis + 2] };
    let thin = (f.b[axis + 2] - f.b[axis]).min(anchor.b[axis + 2] - anchor.b[axis]);
    if along <= -0.03 {
        Truth::No
    } else if along >= 0.08 && across <= 0.7 * along && gap >= -0.3 * thin {
        Truth::Yes
    } else {
        Truth::Maybe
    }
}

fn between_truth(f: &Fact, a: &Fact, b: &Fact) -> Truth {
    let line = [b.centre[0] - a.centre[0], b.centre[1] - a.centre[1]];
    let length = (line[0] * line[0] + line[1] * line[1]).sqrt();
    if length < 0.25 {
        return Truth::Maybe;
    }
    let to = [f.centre[0] - a.centre[0], f.centre[1] - a.centre[1]];
    let along = (to[0] * line[0] + to[1] * line[1]) / (length * length);
    let off = (to[0] * line[1] - to[1] * line[0]).abs() / (length * length);
    if (0.25..=0.75).contains(&along) && off <= 0.22 {
        Truth::Yes
    } else if !(-0.02..=1.02).contains(&along) || off >= 0.5 {
        Truth::No
    } else {
        Truth::Maybe
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::assets;
    use super::*;
    use crate::geometry::BBox;

    /// A world of squares on a 100 × 100 image: (name, centre x, centre y, side).
    fn objects(squares: &[(&str, f32, f32, f32)]) -> Vec<Object> {
        let class = |name: &str| assets().classes().iter().position(|c| c.name == name).expect("a row of the table");
        let object = |&(name, x, y, side): &(&str, f32, f32, f32)| {
            let h = side / 2.0;
            Object {
                class: class(name),
                bbox: BBox::new(x - h, y - h, x + h, y + h),
                area: (side * side) as u32,
                visible: 1.0,
            }
        };
        squares.iter().map(object).collect()
    }

    fn noun(text: &str) -> Phrase {
        let nouns = &assets().lexicon().nouns;
        Phrase::noun(nouns.iter().position(|n| n.text == text).expect("a noun"))
    }

    fn ask(squares: &[(&str, f32, f32, f32)], phrase: Phrase, modifier: Modifier) -> Answer {
        let objects = objects(squares);
        World::new(&objects, Size::new(100, 100), assets().lexicon()).resolve(&Query { phrase, modifier })
    }

    #[test]
    fn relations_keep_a_margin() {
        let of = Modifier::Relation(Relation::LeftOf, noun("teapot"));
        let beside = |x, y| ask(&[("teapot", 60.0, 50.0, 20.0), ("apple", x, y, 10.0)], noun("apple"), of);
        assert_eq!(beside(30.0, 50.0), Answer::Targets(vec![1]));
        assert_eq!(beside(90.0, 50.0), Answer::Nothing);
        assert_eq!(beside(58.0, 20.0), Answer::Unclear, "above rather than left");
        assert_eq!(beside(40.0, 20.0), Answer::Unclear, "diagonal");
    }

    #[test]
    fn an_ambiguous_anchor_makes_a_relation_unclear() {
        let of = Modifier::Relation(Relation::LeftOf, noun("teapot"));
        let squares = [("teapot", 60.0, 50.0, 20.0), ("teapot", 90.0, 50.0, 20.0), ("apple", 20.0, 50.0, 10.0)];
        assert_eq!(ask(&squares, noun("apple"), of), Answer::Unclear);
    }

    #[test]
    fn sizes_need_a_ratio() {
        let biggest = |side| {
            ask(&[("apple", 20.0, 50.0, 20.0), ("apple", 70.0, 50.0, side)], noun("apple"), Modifier::Size(true))
        };
        assert_eq!(biggest(30.0), Answer::Targets(vec![1]));
        assert_eq!(biggest(21.0), Answer::Unclear);
        let one = ask(&[("apple", 20.0, 50.0, 20.0)], noun("apple"), Modifier::Size(true));
        assert_eq!(one, Answer::Unclear, "one apple is not the biggest of anything");
    }

    #[test]
    fn counting_needs_gaps() {
        let second = Modifier::Ordinal(2, Side::Right);
        let count = |x| {
            let squares = [("key", 20.0, 50.0, 10.0), ("key", x, 20.0, 10.0), ("key", 80.0, 70.0, 10.0)];
            ask(&squares, noun("key"), second)
        };
        assert_eq!(count(50.0), Answer::Targets(vec![1]));
        assert_eq!(count(78.0), Answer::Unclear);
    }

    #[test]
    fn doubtful_words_are_not_used() {
        let scene = [("notebook", 20.0, 50.0, 20.0), ("red book", 70.0, 50.0, 20.0)];
        assert_eq!(ask(&scene, noun("book"), Modifier::Plain), Answer::Unclear);
        assert_eq!(ask(&scene, noun("red book"), Modifier::Plain), Answer::Targets(vec![1]));
        let only = [("cap", 20.0, 50.0, 20.0)];
        assert_eq!(ask(&only, noun("hat"), Modifier::Plain), Answer::Unclear, "a cap is some kind of hat");
        assert_eq!(ask(&only, noun("teapot"), Modifier::Plain), Answer::Nothing);
    }

    #[test]
    fn a_wrong_colour_is_clearly_wrong() {
        let coloured = |c| Phrase { noun: noun("apple").noun, colour: Some(c) };
        let apple = [("apple", 20.0, 50.0, 20.0)];
        assert_eq!(ask(&apple, coloured(Colour::Blue), Modifier::Plain), Answer::Nothing);
        assert_eq!(ask(&apple, coloured(Colour::Red), Modifier::Plain), Answer::Targets(vec![0]));
        assert_eq!(ask(&apple, coloured(Colour::Pink), Modifier::Plain), Answer::Unclear);
    }
}
