//! Dialects that have a name: whole `[dialect]` tables, written out into the manifest of a bundle that is made with one.

use serde::{Deserialize, Serialize};

use super::manifest::Dialect;

/// A dialect that comes with this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum DialectName {
    /// The paper's: three digits, 0..=999 of each axis. For checkpoints that were taught it.
    ///
    /// Source: arXiv 2409.10542, section 3.2.
    Paper,
    /// Qwen2.5-VL's own grounding: JSON, in pixels of the resized frame.
    ///
    /// Source: arXiv 2502.13923, section 2.2.
    QwenJson,
    /// Qwen3-VL's own grounding: the same JSON, 0..=1000 of each axis.
    ///
    /// Source: arXiv 2511.21631.
    #[value(name = "qwen3_json")]
    #[serde(rename = "qwen3_json")]
    Qwen3Json,
}

impl DialectName {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Paper, Self::QwenJson, Self::Qwen3Json];

    /// As flags and files call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::QwenJson => "qwen_json",
            Self::Qwen3Json => "qwen3_json",
        }
    }

    /// The dialect that checkpoints of a `transformers` class speak unless they were taught another one.
    pub fn of_class(class: &str) -> Self {
        match class {
            "Qwen2_5_VLForConditionalGeneration" => Self::QwenJson,
            "Qwen3VLForConditionalGeneration" => Self::Qwen3Json,
            _ => Self::Paper,
        }
    }

    /// Its words. `end_of_answer` is that of the family; a checkpoint's own goes before it.
    pub fn words(self) -> Dialect {
        let text = match self {
            Self::Paper => include_str!("dialects/paper.toml"),
            Self::QwenJson => include_str!("dialects/qwen_json.toml"),
            Self::Qwen3Json => include_str!("dialects/qwen3_json.toml"),
        };
        toml::from_str(text).expect("dialects of this crate are read in its tests")
    }

    /// Its words for a checkpoint that ends what it says with the token `end`, where that is known.
    pub(crate) fn words_until(self, end: Option<String>) -> Dialect {
        let words = self.words();
        Dialect { end_of_answer: end.unwrap_or(words.end_of_answer), ..words }
    }
}

/// What a dialect's coordinates count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Coordinates {
    /// Steps of each axis, from edge to edge.
    #[default]
    Relative,
    /// Pixels of the frame as it is resized for the model. For models that see a frame at about its own size.
    Pixels,
}

/// Answers in JSON: a list of objects, empty where there is no such object, in a fence of Markdown or without.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Json {
    /// The key of a target's box, `[x1, y1, x2, y2]`.
    #[serde(rename = "box")]
    pub bbox: String,
    /// The key of a point on it, `[x, y]`, or a list of such.
    pub point: String,
    /// The key of its label.
    pub label: String,
    /// Whether the model is held to a fence, as Qwen was taught; answers are read with and without.
    pub fence: bool,
}

/// How SAM's prompt is got from the language model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, clap::ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// One question, for boxes: SAM gets the box.
    Box,
    /// One question, for boxes and points: each group of points is a prompt with the box, and the best mask counts.
    ///
    /// Source: arXiv 2409.10542, section 3 (PPG).
    Ppg,
    /// Two questions, for boxes, then about points: SAM gets the box and the points that the model is sure of.
    ///
    /// Source: arXiv 2409.10542, section 3.3.
    #[default]
    Pqpp,
}

impl Strategy {
    /// Every strategy.
    pub const ALL: [Self; 3] = [Self::Box, Self::Ppg, Self::Pqpp];

    /// As flags, reports and messages call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Box => "box",
            Self::Ppg => "ppg",
            Self::Pqpp => "pqpp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_that_comes_along_is_valid_and_compiles() {
        for name in DialectName::ALL {
            let words = name.words();
            words.validate().unwrap_or_else(|error| panic!("{}: {error:#}", name.word()));
            crate::prompt::Dialect::compile(&words).unwrap_or_else(|error| panic!("{}: {error}", name.word()));
            let again: Dialect = toml::from_str(&toml::to_string(&words).expect("is written")).expect("is read");
            assert_eq!(again, words, "{}", name.word());
            assert_eq!(toml::Value::try_from(name).expect("is a word").as_str(), Some(name.word()));
        }
    }

    #[test]
    fn json_goes_with_itself_alone() {
        type Change = fn(&mut Dialect);
        let cases: [(Change, &str); 6] = [
            (|w| w.json.as_mut().expect("is there").point = "bbox_2d".into(), "dialect.json.point"),
            (|w| w.json.as_mut().expect("is there").label = "a label".into(), "dialect.json.label"),
            (|w| w.json.as_mut().expect("is there").bbox = String::new(), "dialect.json.box"),
            (|w| w.absent_answer = "none".into(), "dialect.absent_answer"),
            (|w| w.json = None, "dialect.absent_answer"),
            (|w| (w.json, w.absent_answer) = (None, "none".into()), "dialect.coordinates"),
        ];
        for (change, place) in cases {
            let mut words = DialectName::QwenJson.words();
            change(&mut words);
            assert_eq!(words.validate().expect_err(place).place(), place);
        }
    }

    #[test]
    fn stock_models_ask_for_boxes_alone_and_in_pixels_where_they_count_those() {
        let [paper, qwen, qwen3] = DialectName::ALL.map(DialectName::words);
        assert_eq!([paper.strategy, qwen.strategy, qwen3.strategy], [Strategy::Pqpp, Strategy::Box, Strategy::Box]);
        assert_eq!((qwen.coordinates, qwen3.coordinates), (Coordinates::Pixels, Coordinates::Relative));
        assert_eq!(qwen3.coordinate_scale, 1000);
        assert_eq!(DialectName::of_class("Qwen2_5_VLForConditionalGeneration"), DialectName::QwenJson);
        assert_eq!(DialectName::of_class("LlavaForConditionalGeneration"), DialectName::Paper);
    }
}
