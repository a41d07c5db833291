//! The dialect of a recipe.

use serde::Deserialize;

use super::error::{RecipeError, RecipeErrorKind as Kind};
use crate::engine::bundle::Dialect;

/// How the language model of a recipe is asked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "`paper`, `qwen_json`, or a whole [dialect] as in a bundle.toml")]
pub enum Speech {
    /// A dialect by its name.
    Named(DialectName),
    /// A dialect as a bundle's manifest writes it.
    Written(Box<Dialect>),
}

/// Names of dialects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DialectName {
    /// The paper's: boxes and points in 0..=999 of each axis. For checkpoints that were taught it.
    Paper,
    /// Qwen2.5-VL's own grounding: JSON, in pixels.
    QwenJson,
}

impl DialectName {
    /// As recipes call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Paper => "paper",
            Self::QwenJson => "qwen_json",
        }
    }
}

impl Speech {
    /// What lists call it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Named(name) => name.word(),
            Self::Written(_) => "written out",
        }
    }

    /// The table for a bundle's manifest.
    ///
    /// # Errors
    /// [`Kind::Dialect`] of a name that no table is known for.
    pub(super) fn table(&self) -> Result<Dialect, RecipeError> {
        match self {
            Self::Written(dialect) => Ok(Dialect::clone(dialect)),
            Self::Named(name) => Err(RecipeError::new(Kind::Dialect, name.word())
                .because("this build has no table for it; copy the recipe and write its [dialect] out")),
        }
    }
}
