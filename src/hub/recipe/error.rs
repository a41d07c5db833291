//! What can be wrong with a recipe.

use std::error::Error;

/// Kinds of [`RecipeError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecipeErrorKind {
    /// No recipe has this name, and no file.
    Unknown,
    /// The file is not TOML, or has unknown or missing keys.
    Parse,
    /// A value is out of its range.
    Invalid,
    /// A licence has to be read and accepted first.
    Licence,
    /// The bundle cannot be written, or is not what a bundle must be.
    Bundle,
}

/// A recipe cannot be used; says which key of it, or which licence.
#[derive(Debug, thiserror::Error)]
#[error("{} `{place}`", match .kind {
    RecipeErrorKind::Unknown => "find recipe",
    RecipeErrorKind::Parse => "parse recipe",
    RecipeErrorKind::Invalid => "validate recipe, key",
    RecipeErrorKind::Licence => "use licence",
    RecipeErrorKind::Bundle => "make bundle",
})]
pub struct RecipeError {
    kind: RecipeErrorKind,
    place: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl RecipeError {
    /// An error of `kind` at `place`: a recipe, a key of one, a licence.
    pub(super) fn new(kind: RecipeErrorKind, place: impl Into<String>) -> Self {
        Self { kind, place: place.into(), source: None }
    }

    /// Adds the reason.
    pub(super) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> RecipeErrorKind {
        self.kind
    }

    /// The recipe, the key or the licence at fault.
    pub fn place(&self) -> &str {
        &self.place
    }
}
