//! Puts queries into words. Every construction has templates for training and others that only the test split uses;
//! a test holds that the latter need no word that training does not have.

use super::super::colour::Colour;
use super::super::rng::SceneRng;
use super::lexicon::Lexicon;
use super::query::{Modifier, Phrase, Query, Region, Relation, Side};

/// How many objects the words speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Number {
    /// "the red mug".
    One,
    /// "all the red mugs"; the number of objects, 0 where there are none.
    All(usize),
}

/// Alternatives for one meaning: those of training and those held out for the test split.
pub(crate) struct Wording {
    pub train: &'static [&'static str],
    pub test: &'static [&'static str],
}

/// `{n}` is a singular noun phrase without article, `{p}` a plural one.
pub(crate) const BIGGEST: Wording = Wording {
    train: &["biggest {n}", "largest {n}", "{n} that is the biggest", "biggest one of the {p}"],
    test: &["{n} that is the largest", "largest of the {p}"],
};
pub(crate) const BIGGER: Wording = Wording {
    train: &["bigger {n}", "larger {n}", "{n} that is bigger"],
    test: &["{n} that is larger", "bigger one of the {p}"],
};
pub(crate) const SMALLEST: Wording = Wording {
    train: &["smallest {n}", "tiniest {n}", "{n} that is the smallest", "smallest one of the {p}"],
    test: &["{n} that is the tiniest", "smallest of the {p}"],
};
pub(crate) const SMALLER: Wording = Wording {
    train: &["smaller {n}", "{n} that is smaller"],
    test: &["smaller one of the {p}", "{n} which is smaller"],
};
/// `{v}` is top or bottom, `{h}` left or right.
pub(crate) const CORNER: Wording = Wording {
    train: &["{n} in the {v} {h} corner", "{n} at the {v} {h}", "{v} {h} {n}", "{n} in the corner at the {v} {h}"],
    test: &["{n} that is in the {v} {h} corner", "{n} in the {v} {h}"],
};
pub(crate) const LEFT_RIGHT: Wording = Wording {
    train: &["{n} on the {h}", "{n} on the {h} side", "{n} at the {h}", "{n} which is on the {h}"],
    test: &["{n} that is on the {h}", "{n} at the {h} side"],
};
pub(crate) const TOP_BOTTOM: Wording = Wording {
    train: &["{n} at the {v}", "{n} at the {v} of the image", "{n} which is at the {v}"],
    test: &["{n} that is at the {v}", "{n} at the {v} of the picture"],
};
pub(crate) const MIDDLE: Wording = Wording {
    train: &[
        "{n} in the middle",
        "{n} in the centre",
        "{n} in the center",
        "{n} in the middle of the picture",
        "{n} in the middle of the table",
    ],
    test: &["{n} that is in the middle", "{n} at the centre", "{n} in the centre of the image"],
};
pub(crate) const LEFTMOST: Wording = Wording {
    train: &["{h}most {n}", "{n} furthest to the {h}", "{n} farthest to the {h}", "{h}most one of the {p}"],
    test: &["{n} that is furthest to the {h}", "{n} which is farthest to the {h}"],
};
pub(crate) const TOPMOST: Wording = Wording {
    train: &["topmost {n}", "highest {n}", "{n} closest to the top"],
    test: &["{n} nearest to the top", "{n} that is highest"],
};
pub(crate) const LOWEST: Wording = Wording {
    train: &["lowest {n}", "bottommost {n}", "{n} closest to the bottom"],
    test: &["{n} nearest to the bottom", "{n} that is lowest"],
};
/// `{b}` is the anchor with its article; `{r}` the words of the relation.
pub(crate) const RELATION: Wording = Wording {
    train: &["{n} {r} {b}", "{n} {r} {b}", "{n} which is {r} {b}"],
    test: &["{n} that is {r} {b}", "{n}, the one {r} {b}"],
};
pub(crate) const LEFT_OF: Wording = Wording {
    train: &["{h} of", "to the {h} of", "on the {h} side of"],
    test: &["on the {h} of", "to the {h} side of"],
};
pub(crate) const ABOVE: Wording = Wording { train: &["above", "over", "higher than"], test: &["above", "over"] };
pub(crate) const BELOW: Wording =
    Wording { train: &["below", "under", "beneath", "lower than"], test: &["below", "under", "beneath"] };
pub(crate) const NEXT_TO: Wording =
    Wording { train: &["next to", "beside", "near", "by"], test: &["next to", "beside", "near"] };
pub(crate) const CLOSEST: Wording = Wording {
    train: &["{n} closest to {b}", "{n} nearest to {b}", "{n} nearest {b}", "closest {n} to {b}"],
    test: &["{n} that is closest to {b}", "nearest {n} to {b}"],
};
/// `{c}` is the second anchor.
pub(crate) const BETWEEN: Wording = Wording {
    train: &["{n} between {b} and {c}", "{n} in between {b} and {c}", "{n} which is between {b} and {c}"],
    test: &["{n} that is between {b} and {c}", "{n} in the middle between {b} and {c}"],
};
/// `{o}` is an ordinal, `{s}` a side.
pub(crate) const ORDINAL: Wording = Wording {
    train: &["{o} {n} from the {s}", "{n} that is {o} from the {s}", "{o} {n} counting from the {s}"],
    test: &["{n} which is {o} from the {s}", "{o} of the {p} from the {s}"],
};
/// `{p}` with whatever narrows it down; these bring their own determiner.
pub(crate) const ALL: Wording = Wording {
    train: &["all the {p}", "all {p}", "the {p}", "every {n}", "each {n}", "all of the {p}"],
    test: &["each of the {p}", "every one of the {p}", "each one of the {p}"],
};
pub(crate) const BOTH: Wording =
    Wording { train: &["both {p}", "both the {p}", "the two {p}"], test: &["both of the {p}", "each of the two {p}"] };
pub(crate) const COUNTED: Wording =
    Wording { train: &["the {m} {p}", "all {m} {p}"], test: &["all of the {m} {p}", "all the {m} {p}"] };
/// `{x}` names one object, `{y}` what it is not.
pub(crate) const NOT: Wording =
    Wording { train: &["{x}, not {y}", "{x} but not {y}"], test: &["{x}, but not {y}", "{x}, and not {y}"] };
/// `{x}` names several objects, `{y}` those of them that are not meant.
pub(crate) const ALL_BUT: Wording = Wording {
    train: &["{x} except {y}", "{x}, not {y}", "{x} but not {y}"],
    test: &["{x}, except {y}", "{x}, but not {y}"],
};

/// `{x}` is the whole noun phrase, `{bare}` the same without a leading article, `{is}` its verb.
pub(crate) const WRAPPERS: Wording = Wording {
    train: &[
        "{x}",
        "{x}",
        "{x}",
        "{bare}",
        "find {x}",
        "find {x} please",
        "please find {x}",
        "find me {x}",
        "pick up {x}",
        "pick up {x} please",
        "please pick up {x}",
        "where {is} {x}",
        "where {is} {x} please",
        "i need {x}",
        "i want {x}",
        "i would like {x}",
        "segment {x}",
        "segment {x}, please",
        "show me {x}",
        "show {x}",
        "can you see {x}",
        "do you see {x}",
        "give me {x}",
        "please give me {x}",
        "grab {x}",
        "get {x}",
        "get me {x}",
        "get {x} for me",
        "point to {x}",
        "point at {x}",
        "look for {x}",
        "look at {x}",
        "bring me {x}",
        "please bring {x}",
        "hand me {x}",
        "hand {x} to me",
        "could you pass me {x}",
        "pass {x}",
        "can you find {x}",
        "locate {x}",
        "highlight {x}",
        "mark {x}",
        "select {x}",
        "choose {x}",
        "detect {x}",
        "i am looking for {x}",
        "take {x}",
        "hey robot, find {x}",
        "robot, grab {x}",
        "now pick {x}",
        "now, {x}",
        "could you show me where {x} {is}",
        "go and get {x}",
        "put your hand on {x}",
        "touch {x}",
        "move {x}",
        "tell me where {x} {is}",
        "what about {x}",
        "outline {x}",
    ],
    test: &[
        "please show me {x}",
        "could you find {x} for me",
        "can you grab {x} please",
        "robot, where {is} {x}",
        "i need you to point at {x}",
        "now look for {x}, please",
        "hey, bring me {x}",
        "please mark {x} for me",
        "can you hand me {x}",
        "i want you to find {x}",
        "robot, please select {x}",
        "show me where {x} {is}",
        "could you point to {x}, please",
        "hey robot, take {x}",
        "can you tell me where {x} {is}",
        "go and find {x}",
        "please locate {x}",
        "i would like you to touch {x}",
    ],
};

/// Words for an object of no particular noun.
pub(crate) const ANY: [(&str, &str); 3] = [("object", "objects"), ("thing", "things"), ("item", "items")];
/// Ordinals from the first on.
pub(crate) const ORDINALS: [&str; 4] = ["first", "second", "third", "fourth"];
/// Number words from two on.
pub(crate) const NUMBERS: [&str; 5] = ["two", "three", "four", "five", "six"];
/// Everyday nouns that no row of the table matches.
pub(crate) const STRANGERS: Wording = Wording {
    train: &[
        "bicycle",
        "car",
        "chair",
        "cat",
        "dog",
        "bird",
        "flower",
        "window",
        "door",
        "shirt",
        "coin",
        "wallet",
        "fork",
        "plate",
        "frying pan",
        "towel",
        "pillow",
        "blanket",
        "comb",
        "mirror",
        "razor",
        "rope",
        "ladder",
        "drill",
        "axe",
        "shovel",
        "nail",
        "sandwich",
        "pizza",
        "hamburger",
        "guitar",
        "violin",
        "kite",
        "doll",
        "laptop",
        "printer",
        "tent",
        "anchor",
        "feather",
        "crown",
        "necklace",
        "whistle",
        "dustpan",
        "funnel",
        "calendar",
        "globe",
    ],
    test: &[
        "toaster",
        "kettle",
        "vase",
        "helmet",
        "telescope",
        "typewriter",
        "pliers",
        "tweezers",
        "calculator",
        "envelope",
        "banjo",
        "celery",
        "stapler",
        "tripod",
        "pretzel",
        "lettuce",
        "dumbbell",
        "scarf",
        "mango",
        "hairdryer",
    ],
};

/// Those of [`STRANGERS`] that take a plural verb.
const PLURAL_STRANGERS: [&str; 2] = ["pliers", "tweezers"];

/// What stands where a template has `{n}` or `{p}`.
enum Head<'a> {
    Phrase(&'a Phrase),
    /// "one", for what was named before.
    One,
}

/// Chooses words.
pub(crate) struct Grammar<'a> {
    held_out: bool,
    lexicon: &'a Lexicon,
}

/// Words for the top (false) and the bottom (true) of the image.
pub(crate) const VERTICAL: [[&str; 2]; 2] = [["top", "upper"], ["bottom", "lower"]];
pub(crate) const HORIZONTAL: [&str; 2] = ["left", "right"];
pub(crate) const SIDES: [&str; 4] = ["left", "right", "top", "bottom"];

impl<'a> Grammar<'a> {
    pub fn new(held_out: bool, lexicon: &'a Lexicon) -> Self {
        Self { held_out, lexicon }
    }

    fn pick(&self, wording: &Wording, rng: &mut SceneRng) -> &'static str {
        let wordings: &[&'static str] = if self.held_out { wording.test } else { wording.train };
        wordings[rng.below(wordings.len())]
    }

    /// A whole command for a query; `candidates` is the number of objects that its bare phrase applies to.
    /// `None` where the words would be clumsy.
    pub fn command(&self, query: &Query, number: Number, candidates: usize, rng: &mut SceneRng) -> Option<String> {
        let (phrase, plural) = match number {
            Number::One => {
                let plural = self.is_plural(&query.phrase);
                (
                    agree(
                        &format!(
                            "the {}",
                            self.singular(&Head::Phrase(&query.phrase), &query.modifier, candidates, rng)?
                        ),
                        plural,
                    ),
                    plural,
                )
            }
            Number::All(count) => self.all(query, count, rng)?,
        };
        Some(self.wrap(&phrase, plural, rng))
    }

    /// A command for `number` objects that `base` applies to, without those that `except` applies to, one or `several`.
    /// `None` where the words would be clumsy.
    pub fn exclusion(
        &self,
        base: &Phrase,
        number: Number,
        except: &Query,
        several: bool,
        rng: &mut SceneRng,
    ) -> Option<String> {
        if self.is_plural(base) || self.is_plural(&except.phrase) {
            return None;
        }
        let x = match number {
            Number::One => format!("the {}", self.phrase(base, rng).0),
            Number::All(count) => self.all(&Query { phrase: *base, modifier: Modifier::Plain }, count, rng)?.0,
        };
        let y = match (&except.modifier, except.phrase.colour) {
            (Modifier::Plain, Some(colour)) if except.phrase.noun == base.noun => {
                format!("{} {}", self.colour(colour, rng), if several { "ones" } else { "one" })
            }
            (Modifier::Plain, _) if several => self.phrase(&except.phrase, rng).1?,
            (Modifier::Plain, _) => self.phrase(&except.phrase, rng).0,
            (modifier, _) => self.singular(&Head::One, modifier, usize::MAX, rng)?,
        };
        let wording = if matches!(number, Number::One) { &NOT } else { &ALL_BUT };
        let phrase = self.pick(wording, rng).replace("{x}", &x).replace("{y}", &format!("the {y}"));
        // What follows the phrase would seem to belong to what is excluded.
        let wrapper = (0..12).map(|_| self.pick(&WRAPPERS, rng)).find(|w| w.ends_with("{x}") && !w.contains("{is}"));
        Some(wrapper.unwrap_or("{x}").replace("{x}", &phrase))
    }

    /// A command for an object outside the table.
    pub fn stranger(&self, rng: &mut SceneRng) -> String {
        let noun = self.pick(&STRANGERS, rng);
        let colour =
            if rng.chance(0.15) { format!("{} ", self.colour(*rng.pick(&Colour::ALL), rng)) } else { String::new() };
        self.wrap(&format!("the {colour}{noun}"), PLURAL_STRANGERS.contains(&noun), rng)
    }

    fn wrap(&self, phrase: &str, plural: bool, rng: &mut SceneRng) -> String {
        let verb = if plural { "are" } else { "is" };
        let bare = phrase.strip_prefix("the ").unwrap_or(phrase);
        self.pick(&WRAPPERS, rng).replace("{is}", verb).replace("{x}", phrase).replace("{bare}", bare)
    }

    /// Whether the noun takes a plural verb although it is one thing, as scissors do.
    fn is_plural(&self, phrase: &Phrase) -> bool {
        const PLURALS: [&str; 11] = [
            "cherries",
            "grapes",
            "scissors",
            "glasses",
            "eyeglasses",
            "sunglasses",
            "jeans",
            "trousers",
            "gloves",
            "socks",
            "headphones",
        ];
        phrase.noun.is_some_and(|n| PLURALS.contains(&self.lexicon.nouns[n].text.as_str()))
    }

    fn colour(&self, colour: Colour, rng: &mut SceneRng) -> &'static str {
        let spellings = colour.spellings();
        if rng.chance(0.8) { spellings[0] } else { spellings[rng.below(spellings.len())] }
    }

    /// A phrase without article as (singular, plural); the plural is `None` where the noun has none.
    fn phrase(&self, phrase: &Phrase, rng: &mut SceneRng) -> (String, Option<String>) {
        let (one, many) = match (phrase.noun, phrase.colour) {
            (Some(n), _) => (self.lexicon.nouns[n].text.clone(), self.lexicon.nouns[n].plural.clone()),
            (None, Some(_)) if rng.chance(0.4) => ("one".to_owned(), Some("ones".to_owned())),
            (None, _) => {
                let &(one, many) = rng.pick(&ANY);
                (one.to_owned(), Some(many.to_owned()))
            }
        };
        let Some(colour) = phrase.colour.map(|c| self.colour(c, rng)) else { return (one, many) };
        (format!("{colour} {one}"), many.map(|m| format!("{colour} {m}")))
    }

    fn words(&self, head: &Head<'_>, rng: &mut SceneRng) -> (String, Option<String>) {
        match head {
            Head::Phrase(phrase) => self.phrase(phrase, rng),
            Head::One => ("one".to_owned(), None),
        }
    }

    /// A phrase with its article, naming one object.
    fn anchor(&self, phrase: &Phrase, rng: &mut SceneRng) -> String {
        format!("the {}", self.phrase(phrase, rng).0)
    }

    /// A template with its noun filled in; another one where the noun has no plural that this one needs.
    fn fill(&self, wording: &Wording, head: &Head<'_>, rng: &mut SceneRng) -> Option<String> {
        let (one, many) = self.words(head, rng);
        for _ in 0..12 {
            let template = self.pick(wording, rng);
            match &many {
                // "the smallest of the red ones" is fine, "one of the ones" is not.
                Some(many) if !(many.ends_with(" ones") && template.contains("one")) => {
                    return Some(template.replace("{n}", &one).replace("{p}", many));
                }
                _ if !template.contains("{p}") => return Some(template.replace("{n}", &one)),
                _ => {}
            }
        }
        None
    }

    fn singular(&self, head: &Head<'_>, modifier: &Modifier, candidates: usize, rng: &mut SceneRng) -> Option<String> {
        Some(match modifier {
            Modifier::Plain => self.words(head, rng).0,
            Modifier::Size(biggest) => {
                let wording = match (biggest, candidates == 2 && rng.chance(0.7)) {
                    (true, false) => &BIGGEST,
                    (true, true) => &BIGGER,
                    (false, false) => &SMALLEST,
                    (false, true) => &SMALLER,
                };
                self.fill(wording, head, rng)?
            }
            Modifier::Region(region) => {
                let one = self.words(head, rng).0;
                self.region(*region, rng).replace("{n}", &one)
            }
            Modifier::Extreme(side) => {
                let wording = match side {
                    Side::Left | Side::Right => &LEFTMOST,
                    Side::Top => &TOPMOST,
                    Side::Bottom => &LOWEST,
                };
                self.fill(wording, head, rng)?.replace("{h}", SIDES[*side as usize])
            }
            Modifier::Relation(relation, anchor) => {
                let relation = self.relation(*relation, rng);
                let anchor = self.anchor(anchor, rng);
                self.fill(&RELATION, head, rng)?.replace("{r}", &relation).replace("{b}", &anchor)
            }
            Modifier::Closest(anchor) => {
                let anchor = self.anchor(anchor, rng);
                self.fill(&CLOSEST, head, rng)?.replace("{b}", &anchor)
            }
            Modifier::Between(a, b) => {
                let (a, b) = (self.anchor(a, rng), self.anchor(b, rng));
                self.fill(&BETWEEN, head, rng)?.replace("{b}", &a).replace("{c}", &b)
            }
            Modifier::Ordinal(n, side) => {
                self.fill(&ORDINAL, head, rng)?.replace("{o}", ORDINALS[n - 1]).replace("{s}", SIDES[*side as usize])
            }
        })
    }

    /// Words for a region around `{n}`.
    fn region(&self, region: Region, rng: &mut SceneRng) -> String {
        let v = |bottom: bool| VERTICAL[usize::from(bottom)];
        match region {
            Region::Corner(right, bottom) => self
                .pick(&CORNER, rng)
                .replace("{v}", v(bottom)[rng.below(2)])
                .replace("{h}", HORIZONTAL[usize::from(right)]),
            Region::Left => self.pick(&LEFT_RIGHT, rng).replace("{h}", "left"),
            Region::Right => self.pick(&LEFT_RIGHT, rng).replace("{h}", "right"),
            Region::Top => self.pick(&TOP_BOTTOM, rng).replace("{v}", "top"),
            Region::Bottom => self.pick(&TOP_BOTTOM, rng).replace("{v}", "bottom"),
            Region::Middle => self.pick(&MIDDLE, rng).to_owned(),
        }
    }

    fn relation(&self, relation: Relation, rng: &mut SceneRng) -> String {
        match relation {
            Relation::LeftOf => self.pick(&LEFT_OF, rng).replace("{h}", "left"),
            Relation::RightOf => self.pick(&LEFT_OF, rng).replace("{h}", "right"),
            Relation::Above => self.pick(&ABOVE, rng).to_owned(),
            Relation::Below => self.pick(&BELOW, rng).to_owned(),
            Relation::NextTo => self.pick(&NEXT_TO, rng).to_owned(),
        }
    }

    /// Words for all objects of a query, and whether their verb is plural.
    fn all(&self, query: &Query, count: usize, rng: &mut SceneRng) -> Option<(String, bool)> {
        let place = match &query.modifier {
            Modifier::Region(region) => self.region(*region, rng),
            Modifier::Plain => "{n}".to_owned(),
            _ => return None,
        };
        let wording = match count {
            2 if rng.chance(0.45) => &BOTH,
            3..=6 if rng.chance(0.25) => &COUNTED,
            0 if rng.chance(0.15) => &BOTH,
            _ => &ALL,
        };
        let (one, many) = self.phrase(&query.phrase, rng);
        let many = many?;
        let mut template = self.pick(wording, rng);
        while many.ends_with(" ones") && template.contains("one ") {
            template = self.pick(wording, rng);
        }
        let words = template
            .replace("{n}", &place.replace("{n}", &one))
            .replace("{p}", &agree(&place, true).replace("{n}", &many))
            .replace("{m}", NUMBERS[count.clamp(2, 6) - 2]);
        let singular = template.contains("{n}") || template.starts_with("each") || template.starts_with("every");
        Some((words, !singular))
    }
}

/// Puts the first relative clause into the plural.
fn agree(text: &str, plural: bool) -> String {
    if !plural {
        return text.to_owned();
    }
    text.replacen("which is", "which are", 1).replacen("that is", "that are", 1)
}
