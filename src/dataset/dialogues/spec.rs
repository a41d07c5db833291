//! How a source is named on the command line: `FORMAT:PATH[@SPLIT][=WEIGHT]` or `tabletop:SPLIT[=WEIGHT]`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;

use super::super::Split;
use super::super::readers::{self, SourceSplit};

/// The format of rendered scenes.
const TABLETOP: &str = "tabletop";

/// Where dialogues come from, and how much of it is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceSpec {
    /// What it is.
    pub origin: Origin,
    /// Share of the packs, relative to the other sources' weights. Default: 1. Above 0.
    pub weight: f64,
}

/// What a source is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A data set on disk.
    Records {
        /// Which.
        format: readers::Source,
        /// Its file of records, or ReasonSeg's folder.
        path: PathBuf,
        /// The split that is used. Default: training.
        split: SourceSplit,
    },
    /// Rendered scenes, without end.
    Scenes(Split),
}

impl Origin {
    /// The name of the format, as a source begins with it.
    pub fn format(&self) -> String {
        match self {
            Self::Records { format, .. } => format.to_string(),
            Self::Scenes(_) => TABLETOP.to_owned(),
        }
    }
}

impl FromStr for SourceSpec {
    type Err = String;

    /// # Errors
    /// What was expected, in words.
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "FORMAT:PATH is expected, as in `refcoco:refs(unc).p@train=3` or `tabletop:train=2`";
        let (format, rest) = text.split_once(':').ok_or(expected)?;
        let (rest, weight) = weight(rest)?;
        if rest.is_empty() {
            return Err(expected.to_owned());
        }
        let origin = if format == TABLETOP {
            Origin::Scenes(Split::from_str(rest, false).map_err(|_| format!("there is no split `{rest}` of scenes"))?)
        } else {
            let format = readers::Source::from_str(format, false)
                .map_err(|_| format!("there is no format `{format}`; `dataset inspect --help` lists them"))?;
            let (path, split) = split(rest);
            Origin::Records { format, path: path.into(), split: split.unwrap_or(SourceSplit::Train) }
        };
        Ok(Self { origin, weight })
    }
}

/// What stands before the last `=`, and the weight after it; a path may hold one where no number follows.
fn weight(text: &str) -> Result<(&str, f64), String> {
    let Some((rest, number)) = text.rsplit_once('=') else { return Ok((text, 1.0)) };
    match number.parse::<f64>() {
        Ok(weight) if weight.is_finite() && weight > 0.0 && weight <= 1e6 => Ok((rest, weight)),
        Ok(weight) => Err(format!("a weight above 0, up to 1000000, is expected, not {weight}")),
        Err(_) => Ok((text, 1.0)),
    }
}

/// What stands before the last `@`, and the split after it; a path may hold one where no split follows.
pub(super) fn split(text: &str) -> (&str, Option<SourceSplit>) {
    match text.rsplit_once('@') {
        Some((path, word)) if SourceSplit::from_word(word).is_some() => (path, SourceSplit::from_word(word)),
        _ => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_paths_splits_and_weights_are_told_apart() {
        let records = |format, path: &str, split| Origin::Records { format, path: path.into(), split };
        let cases = [
            ("tabletop:train=2", Origin::Scenes(Split::Train), 2.0),
            ("tabletop:val", Origin::Scenes(Split::Val), 1.0),
            (
                "refcoco:d/refs(unc).p@testA=0.5",
                records(readers::Source::RefCoco, "d/refs(unc).p", SourceSplit::TestA),
                0.5,
            ),
            ("refcoco+:r.p", records(readers::Source::RefCocoPlus, "r.p", SourceSplit::Train), 1.0),
            ("llava:a=b@c.json", records(readers::Source::Llava, "a=b@c.json", SourceSplit::Train), 1.0),
            ("llava:C:/x@home=3", records(readers::Source::Llava, "C:/x@home", SourceSplit::Train), 3.0),
        ];
        for (text, origin, weight) in cases {
            assert_eq!(text.parse(), Ok(SourceSpec { origin, weight }), "{text}");
        }
        for text in
            ["refcoco", "coco:x", "tabletop:", "tabletop:dev", "llava:=2", "llava:x=0", "llava:x=-1", "llava:x=inf"]
        {
            assert!(text.parse::<SourceSpec>().is_err(), "{text}");
        }
    }
}
