//! The dialect of a recipe.

use serde::Deserialize;

use crate::engine::bundle::{Dialect, DialectName};

/// How the language model of a recipe is asked.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "`paper`, `qwen_json`, `qwen3_json`, or a whole [dialect] as in a bundle.toml")]
pub enum Speech {
    /// A dialect by its name.
    Named(DialectName),
    /// A dialect as a bundle's manifest writes it.
    Written(Box<Dialect>),
}

impl Speech {
    /// What lists call it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Named(name) => name.word(),
            Self::Written(_) => "written out",
        }
    }

    /// The table for a bundle's manifest. Where it has a name, `end` is the token with which the checkpoint ends what it
    /// says, if it says so.
    pub(super) fn table(&self, end: Option<String>) -> Dialect {
        match self {
            Self::Written(dialect) => Dialect::clone(dialect),
            Self::Named(name) => name.words_until(end),
        }
    }
}
