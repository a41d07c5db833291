//! What a query says, and the signs around it that say who speaks: a chat format holds the former only.

use super::DialogueError;
use crate::prompt::{CountHint, Dialect};

/// Where a query's words stand in its template's text.
const SLOT: &str = "{content}";
/// A command that no template and no control token holds.
const PROBE: &str = "\u{1}\u{2}\u{1}";

/// What stands before and after the user's words in every query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TurnFrame {
    pub before: String,
    pub after: String,
}

impl TurnFrame {
    /// The frame that `given` says, as in `USER: {content} ASSISTANT:`; else what the control tokens around the command
    /// tell, white space beside them included.
    ///
    /// # Errors
    /// [`DialogueError::Wording`] where a query has none, or not the one that the others have.
    pub(super) fn of(dialect: &Dialect, given: Option<&str>, control: &[String]) -> Result<Self, DialogueError> {
        let frame = match given {
            Some(text) => Self::parse(text)?,
            None => Self::guess(&dialect.proposal_query(CountHint::One, PROBE), control)?,
        };
        let mut queries: Vec<String> = [CountHint::One, CountHint::OneOrMore, CountHint::NoneOrMore]
            .into_iter()
            .flat_map(|hint| [Some(dialect.proposal_query(hint, PROBE)), dialect.ppg().map(|p| p.query(hint, PROBE))])
            .flatten()
            .collect();
        queries.push(dialect.points_query(PROBE, PROBE));
        match queries.iter().find(|query| frame.content(query).is_none()) {
            None => Ok(frame),
            Some(query) => Err(wording(format!(
                "the query `{}` does not begin with `{}` and end with `{}` as the others do",
                query.replace(PROBE, "..."),
                frame.before,
                frame.after
            ))),
        }
    }

    fn parse(text: &str) -> Result<Self, DialogueError> {
        match text.split_once(SLOT) {
            Some((before, after)) if !after.contains(SLOT) => {
                Ok(Self { before: before.to_owned(), after: after.to_owned() })
            }
            _ => Err(wording(format!("`{text}` does not hold `{SLOT}` once"))),
        }
    }

    fn guess(query: &str, control: &[String]) -> Result<Self, DialogueError> {
        let at = query.find(PROBE).unwrap_or_default();
        let (head, tail) = query.split_at(at);
        let start = control.iter().filter_map(|t| head.rfind(t.as_str()).map(|i| i + t.len())).max();
        let end = control.iter().filter_map(|t| tail.find(t.as_str())).min();
        let (Some(start), Some(end)) = (start, end) else {
            let query = query.replace(PROBE, "{command}");
            return Err(wording(format!(
                "no control tokens stand around the command in `{query}`: say where the user's words are, as in \
                 `USER: {SLOT} ASSISTANT:`"
            )));
        };
        let (start, end) = (start + blank(&head[start..]), at + end);
        let words = query[start..end].trim_end();
        Ok(Self { before: query[..start].to_owned(), after: query[start + words.len()..].to_owned() })
    }

    /// The user's words in `query`; `None` where it has another frame.
    pub(super) fn content<'a>(&self, query: &'a str) -> Option<&'a str> {
        query.strip_prefix(self.before.as_str())?.strip_suffix(self.after.as_str())
    }
}

/// Bytes of white space that a text begins with.
fn blank(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

pub(super) fn wording(what: impl Into<String>) -> DialogueError {
    DialogueError::Wording(what.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::dialect::tests::words;

    fn tokens(list: &[&str]) -> Vec<String> {
        list.iter().map(|t| (*t).to_owned()).collect()
    }

    #[test]
    fn control_tokens_tell_what_the_user_says() {
        let frame =
            TurnFrame::of(&words(|_| ()), None, &tokens(&["<user>", "<assistant>", "<s>"])).expect("has a frame");
        assert_eq!((frame.before.as_str(), frame.after.as_str()), ("<user> ", " <assistant>"));
        let (start, end) = ("<|start_header_id|>", "<|end_header_id|>");
        let llama = words(|w| {
            let turn = |s: &str| format!("{start}user{end}\n\n{s}<|eot_id|>{start}assistant{end}\n\n");
            w.proposal_query = turn("Find {hint}: {command}");
            w.points_query = turn("On {box}? {points}");
        });
        let frame = TurnFrame::of(&llama, None, &tokens(&[start, end, "<|eot_id|>"])).expect("has a frame");
        assert_eq!(frame.before, format!("{start}user{end}\n\n"));
        assert_eq!(frame.after, format!("<|eot_id|>{start}assistant{end}\n\n"));
        assert_eq!(frame.content(&llama.proposal_query(CountHint::One, "it")), Some("Find exactly one: it"));
    }

    #[test]
    fn without_them_it_has_to_be_said() {
        let vicuna = words(|w| {
            w.proposal_query = "USER: find {hint}: {command} ASSISTANT:".into();
            w.points_query = "USER: on {box}? {points} ASSISTANT:".into();
        });
        let none = tokens(&["<s>"]);
        assert!(TurnFrame::of(&vicuna, None, &none).is_err());
        assert!(TurnFrame::of(&vicuna, Some("USER: ASSISTANT:"), &none).is_err());
        assert!(TurnFrame::of(&vicuna, Some("Human: {content} ASSISTANT:"), &none).is_err());
        let frame = TurnFrame::of(&vicuna, Some("USER: {content} ASSISTANT:"), &none).expect("is given");
        assert_eq!(frame.content("USER: find it ASSISTANT:"), Some("find it"));
    }
}
