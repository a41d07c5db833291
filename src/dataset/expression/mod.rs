//! Referring expressions with their targets.
//!
//! A [`query`](query::Query) is proposed for a randomly chosen target, judged against the whole scene, and only then
//! put into words: the words never decide what is right.

mod build;
mod exclusion;
mod grammar;
mod lexicon;
mod query;
mod vocabulary;

pub use lexicon::{Level, Lexicon, Noun};
pub use vocabulary::{held_out_nouns, held_out_wordings, vocabulary};

use std::collections::HashSet;
use std::fmt;

use super::rng::SceneRng;
use super::scene::Scene;

pub(crate) use build::{Builder, Draft};
pub(crate) use query::{Answer, World};

/// How an expression refers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ExpressionType {
    /// By name or synonym: "the spanner".
    Name,
    /// By colour: "the red fruit".
    Colour,
    /// By kind: "the fruit".
    Kind,
    /// By size: "the biggest apple".
    Size,
    /// By place in the image: "the cup at the bottom".
    Position,
    /// By relation to another object: "the apple left of the teapot".
    Relation,
    /// By counting: "the second book from the left".
    Ordinal,
    /// Several objects: "all the tools".
    Several,
    /// Nothing in the scene.
    None,
    /// With what is not meant: "the mug, not the red one". Only [`Scene::exclusions`] makes these.
    Exclusion,
}

impl ExpressionType {
    /// The types of [`Scene::expressions`].
    pub const ALL: [Self; 9] = [
        Self::Name,
        Self::Colour,
        Self::Kind,
        Self::Size,
        Self::Position,
        Self::Relation,
        Self::Ordinal,
        Self::Several,
        Self::None,
    ];

    /// The word for it in files and reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Colour => "colour",
            Self::Kind => "kind",
            Self::Size => "size",
            Self::Position => "position",
            Self::Relation => "relation",
            Self::Ordinal => "ordinal",
            Self::Several => "several",
            Self::None => "none",
            Self::Exclusion => "exclusion",
        }
    }
}

impl fmt::Display for ExpressionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A command about a scene and what it refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    /// How it refers.
    pub kind: ExpressionType,
    /// Lower-case English; letters, spaces and commas.
    pub text: String,
    /// Indices into [`Scene::objects`]: one; at least two for `several`; at least one for `exclusion`; none for `none`.
    pub targets: Vec<usize>,
    /// Of type none, and wrong only in its colour, place or relation.
    pub near_miss: bool,
}

/// Shares that are aimed at, in the order of [`ExpressionType::ALL`].
const SHARES: [f32; 9] = [0.16, 0.10, 0.06, 0.10, 0.12, 0.14, 0.08, 0.08, 0.20];
/// How strongly a type that fails more often is drawn more often, so that the shares come out as above.
const BOOST: [f32; 9] = [1.04, 1.06, 1.8, 1.5, 1.25, 1.65, 1.75, 0.88, 0.93];

/// Draws up to `count` different expressions.
pub(crate) fn generate(scene: &Scene, count: usize, rng: &mut SceneRng) -> Vec<Expression> {
    let weights: Vec<f32> = SHARES.iter().zip(BOOST).map(|(s, b)| s * b).collect();
    distinct(scene, count, |builder| builder.expression(ExpressionType::ALL[rng.weighted(&weights)], rng))
}

/// Draws up to `count` different expressions that say what is not meant.
pub(crate) fn generate_exclusions(scene: &Scene, count: usize, rng: &mut SceneRng) -> Vec<Expression> {
    distinct(scene, count, |builder| builder.exclusion(rng))
}

fn distinct(scene: &Scene, count: usize, mut draw: impl FnMut(&Builder<'_>) -> Option<Expression>) -> Vec<Expression> {
    let builder = Builder::new(&scene.objects, scene.size, &scene.lexicon, scene.split);
    let mut seen = HashSet::new();
    let mut out = Vec::with_capacity(count);
    let mut failures = 0;
    while out.len() < count && failures < 6 * count + 20 {
        match draw(&builder) {
            Some(expression) if seen.insert(expression.text.clone()) => out.push(expression),
            _ => failures += 1,
        }
    }
    out
}
