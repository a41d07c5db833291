//! Answers as stock grounding models write them: a list of objects in JSON, each a box, perhaps with points and a label.
//!
//! ```text
//! [{"bbox_2d": [12, 40, 310, 222], "label": "the mug"}]
//! ```
//!
//! One reader serves both sides. Reading an answer, it is strict: only the keys of the dialect, each at most once, whole
//! numbers without sign or leading zero, bounds on everything that could grow. Holding a decoder to what can be read, it
//! walks on behind the end of the text and counts what is missing at the least; there, a target begins with its box, and
//! nothing but a label follows. That is why no JSON library reads here: it could not say how a text may go on.

mod reader;

use super::codec::{Answer, GridPrompt};
use super::cursor::{AnswerError, AnswerErrorKind as Kind};
use super::dialect::Dialect;
use super::grammar::Progress;
use crate::engine::bundle;
use reader::{Member, Reader};

/// What encloses code in Markdown, and what it says of its language.
const FENCE: &str = "```";
const LANGUAGE: &str = "json";

/// The manifest's `[dialect.json]`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct JsonWords(bundle::Json);

impl JsonWords {
    pub(super) fn new(words: bundle::Json) -> Self {
        Self(words)
    }

    fn key(&self, member: Member) -> &str {
        match member {
            Member::Box => &self.0.bbox,
            Member::Point => &self.0.point,
            Member::Label => &self.0.label,
        }
    }

    /// The answer for "there is no such object".
    pub(super) fn absent(&self) -> String {
        self.fenced("[]")
    }

    fn fenced(&self, list: &str) -> String {
        if self.0.fence { format!("{FENCE}{LANGUAGE}\n{list}\n{FENCE}") } else { list.to_owned() }
    }

    /// An answer as Qwen writes it.
    pub(super) fn write(&self, targets: &[GridPrompt], label: &str, dialect: &Dialect) -> String {
        if targets.is_empty() {
            return self.absent();
        }
        let label = serde_json::Value::from(label);
        let object = |target: &GridPrompt| {
            let corners = dialect.write_corners(target.bbox).join(", ");
            let on = target.groups.iter().flatten().filter(|(_, on)| *on);
            let points: Vec<String> = on
                .map(|(p, _)| format!("[{}, {}]", dialect.write_number(0, p.x), dialect.write_number(1, p.y)))
                .collect();
            let points = match points.is_empty() {
                true => String::new(),
                false => format!("\"{}\": [{}], ", self.0.point, points.join(", ")),
            };
            format!("\t{{\"{}\": [{corners}], {points}\"{}\": {label}}}", self.0.bbox, self.0.label)
        };
        self.fenced(&format!("[\n{}\n]", targets.iter().map(object).collect::<Vec<_>>().join(",\n")))
    }
}

/// Reads an answer; see [`super::parse_answer`].
pub(super) fn parse(text: &str, dialect: &Dialect) -> Result<Answer, AnswerError> {
    let mut reader = Reader::new(text, dialect, false)?;
    let answer = reader.answer();
    match (reader.missing(), answer) {
        (0, Ok(targets)) if targets.is_empty() => Ok(Answer::Absent),
        (0, Ok(targets)) => Ok(Answer::Targets(targets)),
        (0, Err(error)) => Err(error),
        _ if text.trim().is_empty() => Err(AnswerError::new(Kind::Empty, text.len())),
        _ => Err(AnswerError::new(Kind::Truncated, text.len())),
    }
}

/// How far `text` is an answer that needs no more than `room` bytes further; see [`super::progress_within`].
pub(super) fn progress(text: &str, room: usize, dialect: &Dialect) -> Progress {
    let mut reader = match Reader::new(text, dialect, true) {
        Ok(reader) => reader,
        Err(_) => return Progress::Dead,
    };
    match (reader.answer(), reader.missing()) {
        (Ok(_), 0) => Progress::Whole,
        (Ok(_), missing) if missing <= room => Progress::Open,
        _ => Progress::Dead,
    }
}

/// Whether `text`, which may be unfinished, names a target (`true`) or says that there is none; `None` where it does not
/// say yet, or is no answer.
pub(crate) fn names_target(text: &str, dialect: &Dialect) -> Option<bool> {
    let mut reader = Reader::new(text, dialect, true).ok()?;
    reader.answer().ok()?;
    reader.names_target()
}

#[cfg(test)]
mod tests;
