//! Every word that an expression can hold.

use std::collections::BTreeSet;

use super::super::colour::Colour;
use super::grammar::{self, Wording};
use super::lexicon::Lexicon;

const WORDINGS: [&Wording; 26] = [
    &grammar::BIGGEST,
    &grammar::BIGGER,
    &grammar::SMALLEST,
    &grammar::SMALLER,
    &grammar::CORNER,
    &grammar::LEFT_RIGHT,
    &grammar::TOP_BOTTOM,
    &grammar::MIDDLE,
    &grammar::LEFTMOST,
    &grammar::TOPMOST,
    &grammar::LOWEST,
    &grammar::RELATION,
    &grammar::LEFT_OF,
    &grammar::ABOVE,
    &grammar::BELOW,
    &grammar::NEXT_TO,
    &grammar::CLOSEST,
    &grammar::BETWEEN,
    &grammar::ORDINAL,
    &grammar::ALL,
    &grammar::BOTH,
    &grammar::COUNTED,
    &grammar::NOT,
    &grammar::ALL_BUT,
    &grammar::WRAPPERS,
    &grammar::STRANGERS,
];

/// Every word of the training and validation splits, sorted. The test split adds only [`held_out_nouns`].
pub fn vocabulary(lexicon: &Lexicon) -> BTreeSet<String> {
    let mut words = fillers(lexicon);
    for wording in WORDINGS {
        add_templates(wording.train, &mut words);
    }
    words
}

/// Nouns of absent objects that only the test split asks for; none of them is in the [`vocabulary`].
pub fn held_out_nouns() -> &'static [&'static str] {
    grammar::STRANGERS.test
}

/// Wordings of whole commands that only the test split uses, `{x}` for what is wanted and `{is}` for its verb: whoever
/// words commands anew to train on has to leave these out.
pub fn held_out_wordings() -> &'static [&'static str] {
    grammar::WRAPPERS.test
}

/// Words that fill the slots of templates.
fn fillers(lexicon: &Lexicon) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for noun in &lexicon.nouns {
        add(&noun.text, &mut words);
        noun.plural.iter().for_each(|p| add(p, &mut words));
    }
    for colour in Colour::ALL {
        colour.spellings().iter().for_each(|s| add(s, &mut words));
    }
    for (one, many) in grammar::ANY {
        add(one, &mut words);
        add(many, &mut words);
    }
    let fixed = ["the", "one", "ones", "is", "are", "leftmost", "rightmost"];
    let lists: [&[&str]; 6] = [
        &grammar::ORDINALS,
        &grammar::NUMBERS,
        &grammar::HORIZONTAL,
        &grammar::SIDES,
        &fixed,
        grammar::VERTICAL.as_flattened(),
    ];
    lists.iter().flat_map(|l| l.iter()).for_each(|w| add(w, &mut words));
    words
}

fn add_templates(templates: &[&str], words: &mut BTreeSet<String>) {
    templates.iter().flat_map(|t| t.split(' ')).filter(|w| !w.contains('{')).for_each(|w| add(w, words));
}

/// Adds the words of `text`, without commas.
fn add(text: &str, words: &mut BTreeSet<String>) {
    let parts = text.split(|c: char| !c.is_alphabetic() && c != '\'').filter(|w| !w.is_empty());
    words.extend(parts.map(str::to_owned));
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::assets;
    use super::*;

    #[test]
    fn the_test_split_adds_no_word_but_the_held_out_nouns() {
        let assets = assets();
        let trained = vocabulary(assets.lexicon());
        let mut tested = BTreeSet::new();
        for wording in WORDINGS.iter().take(WORDINGS.len() - 1) {
            add_templates(wording.test, &mut tested);
        }
        let missing: Vec<_> = tested.difference(&trained).collect();
        assert!(missing.is_empty(), "words of test templates that training lacks: {missing:?}");
        let known: Vec<_> = held_out_nouns().iter().filter(|n| trained.contains(**n)).collect();
        assert!(known.is_empty(), "held-out nouns that training has: {known:?}");
    }

    #[test]
    fn no_held_out_template_is_trained() {
        for wording in WORDINGS {
            let shared: Vec<_> = wording.test.iter().filter(|t| t.contains('{') && wording.train.contains(t)).collect();
            assert!(shared.is_empty(), "{shared:?}");
        }
    }
}
