//! Nouns: which words name which objects, how they are pluralised, and where people would disagree.

use std::collections::HashMap;

use super::super::assets::ObjectClass;

/// A set of rows of `objects.csv`.
pub(crate) type ClassSet = u128;

/// How general a noun is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// A name or synonym of one object, such as `spanner`.
    Name,
    /// A word for a few objects, such as `book`.
    Group,
    /// A kind of the table, such as `fruit`.
    Kind,
}

/// One noun.
#[derive(Debug, Clone)]
pub struct Noun {
    /// Singular, lower case.
    pub text: String,
    /// Plural, where one is in use and says something else than the singular.
    pub plural: Option<String>,
    /// How general it is.
    pub level: Level,
    /// Objects that it names.
    pub(crate) yes: ClassSet,
    /// Objects that some people would also call so: with one of these in sight the noun is not used.
    pub(crate) maybe: ClassSet,
}

/// All nouns of the table, by index.
#[derive(Debug)]
pub struct Lexicon {
    pub(crate) nouns: Vec<Noun>,
    /// Nouns of level name per class.
    pub(crate) names: Vec<Vec<usize>>,
    pub(crate) classes: Vec<ObjectClass>,
}

/// Words for a few objects that are no row of the table: (singular, plural, names).
const GROUPS: &[(&str, &str, &[&str])] = &[
    ("book", "books", &["red book", "green book", "blue book", "orange book"]),
    ("ball", "balls", &["soccer ball", "basketball"]),
    ("mug", "mugs", &["beer mug"]),
    ("bottle", "bottles", &["baby bottle", "lotion bottle"]),
    ("glass", "glasses", &["wine glass", "glass of milk"]),
    ("bag", "bags", &["backpack", "handbag"]),
    ("instrument", "instruments", &["drum", "trumpet"]),
];

/// Ways to say a kind of the table: (kind, singular, plural).
const KINDS: &[(&str, &str, &str)] = &[
    ("fruit", "fruit", "fruits"),
    ("fruit", "piece of fruit", "pieces of fruit"),
    ("vegetable", "vegetable", "vegetables"),
    ("food", "food item", "food items"),
    ("food", "snack", "snacks"),
    ("drink", "drink", "drinks"),
    ("drink", "beverage", "beverages"),
    ("kitchen", "kitchen item", "kitchen items"),
    ("kitchen", "kitchen thing", "kitchen things"),
    ("tool", "tool", "tools"),
    ("office", "office item", "office items"),
    ("office", "office thing", "office things"),
    ("electronics", "electronic device", "electronic devices"),
    ("electronics", "gadget", "gadgets"),
    ("clothing", "piece of clothing", "pieces of clothing"),
    ("clothing", "clothing item", "clothing items"),
    ("home", "household item", "household items"),
    ("home", "household thing", "household things"),
    ("toy", "toy", "toys"),
];

/// Objects that a noun does not name in the table but that some would call so: (noun or kind, names).
const DOUBTFUL: &[(&str, &[&str])] = &[
    ("book", &["notebook"]),
    ("ball", &["yarn"]),
    ("mug", &["coffee cup"]),
    ("cup", &["beer mug"]),
    ("cup of coffee", &["beer mug"]),
    ("glass", &["beer mug", "hourglass"]),
    ("bag", &["briefcase"]),
    ("handbag", &["briefcase"]),
    ("briefcase", &["handbag"]),
    ("bottle", &["glass of milk"]),
    ("hat", &["cap"]),
    ("cap", &["top hat"]),
    ("clock", &["watch", "stopwatch", "hourglass"]),
    ("watch", &["stopwatch"]),
    ("stopwatch", &["watch", "alarm clock"]),
    ("glasses", &["sunglasses"]),
    ("eyeglasses", &["sunglasses"]),
    ("spoon", &["bowl"]),
    ("milk", &["baby bottle"]),
    ("torch", &["candle"]),
    ("bread", &["croissant"]),
    ("loaf", &["croissant"]),
    ("thread", &["yarn"]),
    ("yarn", &["thread"]),
    ("package", &["gift"]),
    ("parcel", &["gift"]),
    ("cardboard box", &["gift", "juice box"]),
    ("carton", &["package"]),
    ("lotion", &["soap"]),
    ("tin can", &["bucket"]),
    ("light bulb", &["flashlight"]),
    ("instrument", &[]),
    // Kinds.
    ("fruit", &["tomato"]),
    ("vegetable", &["avocado", "coconut"]),
    ("food", &[]),
    ("drink", &["can"]),
    ("kitchen", &["can", "honey pot", "sponge", "soap", "broom", "bucket", "scissors", "toilet paper"]),
    ("tool", &["knife", "scissors", "ruler", "magnifying glass", "flashlight", "sponge", "thread"]),
    ("office", &["computer mouse", "keyboard", "floppy disk", "phone", "light bulb", "battery", "plug"]),
    ("electronics", &["watch", "alarm clock", "stopwatch", "light bulb"]),
    ("clothing", &["watch"]),
    ("home", &["plunger", "broom", "bucket", "scissors"]),
    ("toy", &["balloon", "yarn"]),
];

/// Kinds whose objects some would also count among another kind: (kind, other kinds).
const DOUBTFUL_KINDS: &[(&str, &[&str])] = &[
    ("food", &["fruit", "vegetable", "drink"]),
    ("kitchen", &["drink"]),
    ("home", &["kitchen", "electronics", "toy", "office", "clothing"]),
];

/// Names that are plural already, or that nobody counts.
const NO_PLURAL: &[&str] = &[
    "cherries",
    "cherry",
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
    "broccoli",
    "corn",
    "maize",
    "garlic",
    "bread",
    "cheese",
    "chocolate",
    "beer",
    "milk",
    "salt",
    "soap",
    "lotion",
    "toilet paper",
    "yarn",
    "thread",
    "die",
    "dice",
    "nut and bolt",
    "kiwi fruit",
];

impl Lexicon {
    pub(crate) fn new(classes: &[ObjectClass]) -> Self {
        let by_name: HashMap<&str, usize> = classes.iter().enumerate().map(|(i, c)| (c.name.as_str(), i)).collect();
        let set = |names: &[&str]| names.iter().filter_map(|n| by_name.get(n)).fold(0, |s: ClassSet, &c| s | 1 << c);
        let mut lexicon = Self { nouns: Vec::new(), names: vec![Vec::new(); classes.len()], classes: classes.to_vec() };
        for (index, class) in classes.iter().enumerate() {
            for name in std::iter::once(&class.name).chain(&class.synonyms) {
                let text = spoken(name);
                let noun =
                    lexicon.add(Noun { plural: plural(&text), text, level: Level::Name, yes: 1 << index, maybe: 0 });
                lexicon.names[index].push(noun);
            }
        }
        for &(text, plural, members) in GROUPS {
            let (text, plural) = (text.to_owned(), Some(plural.to_owned()));
            lexicon.add(Noun { text, plural, level: Level::Group, yes: set(members), maybe: 0 });
        }
        for &(kind, text, plural) in KINDS {
            let of = |kind: &str| {
                let members = classes.iter().enumerate().filter(|(_, c)| c.kind == kind);
                members.fold(0, |s: ClassSet, (i, _)| s | 1 << i)
            };
            let mut maybe: ClassSet = DOUBTFUL.iter().filter(|d| d.0 == kind).fold(0, |s, d| s | set(d.1));
            for others in DOUBTFUL_KINDS.iter().filter(|d| d.0 == kind) {
                maybe |= others.1.iter().fold(0, |s, k| s | of(k));
            }
            let (text, plural) = (text.to_owned(), Some(plural.to_owned()));
            lexicon.add(Noun { text, plural, level: Level::Kind, yes: of(kind), maybe });
        }
        for noun in lexicon.nouns.iter_mut().filter(|n| n.level != Level::Kind) {
            noun.maybe |= DOUBTFUL.iter().filter(|d| d.0 == noun.text).fold(0, |s, d| s | set(d.1));
        }
        for noun in &mut lexicon.nouns {
            noun.maybe &= !noun.yes;
        }
        // A glass is no pair of glasses, but their plurals are one word.
        for noun in lexicon.nouns.iter_mut().filter(|n| n.text == "glass") {
            noun.plural = None;
        }
        lexicon
    }

    /// Adds a noun; one that is there already names the new objects too.
    fn add(&mut self, noun: Noun) -> usize {
        if let Some(at) = self.nouns.iter().position(|n| n.text == noun.text) {
            self.nouns[at].yes |= noun.yes;
            return at;
        }
        self.nouns.push(noun);
        self.nouns.len() - 1
    }

    /// Nouns of `level` that name `class`.
    pub(crate) fn naming(&self, class: usize, level: Level) -> impl Iterator<Item = usize> + '_ {
        self.nouns.iter().enumerate().filter(move |(_, n)| n.level == level && n.yes >> class & 1 == 1).map(|(i, _)| i)
    }
}

/// How a name of the table is written in an expression: letters and spaces only.
pub(crate) fn spoken(name: &str) -> String {
    name.to_lowercase().replace('-', "")
}

/// The plural of a noun; `None` where it has none.
fn plural(noun: &str) -> Option<String> {
    if NO_PLURAL.contains(&noun) {
        return None;
    }
    if let Some((head, rest)) = noun.split_once(" of ") {
        return plural(head).map(|head| format!("{head} of {rest}"));
    }
    let (before, word) = noun.rsplit_once(' ').map_or(("", noun), |(b, w)| (b, w));
    let word = match word {
        "knife" => "knives".to_owned(),
        "loaf" => "loaves".to_owned(),
        "mouse" => "mice".to_owned(),
        "potato" | "tomato" => format!("{word}es"),
        w if w.ends_with("ch") || w.ends_with("sh") || w.ends_with('s') || w.ends_with('x') => format!("{w}es"),
        w if w.ends_with('y') && !w.ends_with("ey") && !w.ends_with("oy") => format!("{}ies", &w[..w.len() - 1]),
        w => format!("{w}s"),
    };
    Some(if before.is_empty() { word } else { format!("{before} {word}") })
}
