//! Several expressions of one picture in one conversation: as many as fit, none of them cut.
//!
//! Source: arXiv 2409.10542, section 4 (up to 5 expressions in at most 1,536 tokens).

use super::tally::Reason;
use super::teach::Lesson;
use super::{DialogueError, Exchange, Wording};

/// Lessons in one conversation.
#[derive(Debug, Default)]
pub(super) struct Pack {
    pub lessons: Vec<Lesson>,
    /// Tokens of the conversation, those of the picture among them.
    pub tokens: usize,
    /// Tokens that the loss counts.
    pub trained: usize,
}

impl Pack {
    pub(super) fn exchanges(&self) -> Vec<Exchange> {
        self.lessons.iter().flat_map(|l| l.exchanges.iter().cloned()).collect()
    }
}

/// Packs lessons in their order, at most `most` together and none in more than `limit` tokens; what is too long alone is
/// dropped, and counted in `drop`.
///
/// # Errors
/// [`DialogueError::Wording`].
pub(super) fn pack(
    lessons: Vec<Lesson>,
    wording: &Wording,
    [most, limit]: [usize; 2],
    mut drop: impl FnMut(Reason),
) -> Result<Vec<Pack>, DialogueError> {
    let empty = wording.count(&[])?;
    let (mut packs, mut open) = (Vec::new(), Pack { tokens: empty, ..Pack::default() });
    for lesson in lessons {
        let (mut tokens, mut trained) = (0, 0);
        for exchange in &lesson.exchanges {
            let (all, counted) = wording.cost(exchange)?;
            (tokens, trained) = (tokens + all, trained + counted);
        }
        if empty + tokens > limit {
            drop(Reason::TooLong);
            continue;
        }
        if open.lessons.len() == most || open.tokens + tokens > limit {
            packs.push(std::mem::replace(&mut open, Pack { tokens: empty, ..Pack::default() }));
        }
        open.tokens += tokens;
        open.trained += trained;
        open.lessons.push(lesson);
    }
    packs.push(open);
    let mut checked = Vec::with_capacity(packs.len());
    for pack in packs.into_iter().filter(|p| !p.lessons.is_empty()) {
        check(pack, wording, limit, &mut drop, &mut checked)?;
    }
    Ok(checked)
}

/// Counts the whole text of a pack. Where its parts have no control tokens between them, the tokenizer may cut the whole
/// otherwise than the parts; a pack that is then too long is halved.
fn check(
    mut pack: Pack,
    wording: &Wording,
    limit: usize,
    drop: &mut impl FnMut(Reason),
    checked: &mut Vec<Pack>,
) -> Result<(), DialogueError> {
    pack.tokens = wording.count(pack.lessons.iter().flat_map(|l| &l.exchanges))?;
    if pack.tokens <= limit {
        checked.push(pack);
        return Ok(());
    }
    if pack.lessons.len() == 1 {
        drop(Reason::TooLong);
        return Ok(());
    }
    let second = pack.lessons.split_off(pack.lessons.len() / 2);
    for lessons in [pack.lessons, second] {
        let mut trained = 0;
        for exchange in lessons.iter().flat_map(|l| &l.exchanges) {
            trained += wording.cost(exchange)?.1;
        }
        check(Pack { lessons, tokens: 0, trained }, wording, limit, drop, checked)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use proptest::prelude::*;

    use super::*;
    use crate::dataset::dialogues::tests::wording;

    fn the_wording() -> &'static Wording {
        static WORDING: OnceLock<Wording> = OnceLock::new();
        WORDING.get_or_init(wording)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn nothing_is_cut_lost_or_too_long(
            texts in prop::collection::vec(prop::collection::vec("[a-zé yesno\n]{1,60}", 1..6), 0..14),
            most in 1usize..7, limit in 110usize..600,
        ) {
            let lesson = |turns: &Vec<String>| Lesson {
                exchanges: turns.iter().map(|t| Exchange { user: t.clone(), assistant: t.clone() }).collect(),
                expression: true,
                found: false,
                points: [0; 2],
            };
            let lessons: Vec<Lesson> = texts.iter().map(lesson).collect();
            let wording = the_wording();
            let mut dropped = 0;
            let packs = pack(lessons.clone(), wording, [most, limit], |_| dropped += 1).expect("tokenizes");
            for pack in &packs {
                let (exchanges, n) = (pack.exchanges(), pack.lessons.len());
                prop_assert!((1..=most).contains(&n) && pack.tokens <= limit);
                prop_assert_eq!(pack.tokens, wording.count(&exchanges).expect("tokenizes"));
                let answers: usize = exchanges.iter().map(|e| wording.cost(e).expect("tokenizes").1).sum();
                prop_assert_eq!(pack.trained, answers);
            }
            let fits = |l: &&Lesson| wording.count(&l.exchanges).expect("tokenizes") <= limit;
            let kept: Vec<&Lesson> = packs.iter().flat_map(|p| &p.lessons).collect();
            prop_assert_eq!(kept.clone(), lessons.iter().filter(fits).collect::<Vec<_>>());
            prop_assert_eq!(kept.len() + dropped, lessons.len());
        }
    }
}
