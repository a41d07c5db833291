//! Recipes: which two checkpoints make a bundle, under which licences, and how the language model is asked.

mod bundle;
mod dialect;
mod error;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use bundle::write_bundle;
pub use dialect::Speech;
pub use error::{RecipeError, RecipeErrorKind};

use super::repo::{Pinned, Repo, Revision};
use super::select::Selection;
use crate::engine::bundle::{ImageSpec, Manifest};
use crate::prompt::Strategy;
use error::RecipeErrorKind as Kind;

/// The recipes that come with the program, by name.
const BUILT_IN: [(&str, &str); 3] = [
    ("paper", include_str!("../../../engines/recipes/paper.toml")),
    ("small", include_str!("../../../engines/recipes/small.toml")),
    ("training-free", include_str!("../../../engines/recipes/training-free.toml")),
];

/// Longest file of a recipe that is read, in bytes.
const MAX_BYTES: u64 = 1 << 18;

/// The only format of recipes there is.
const FORMAT: u32 = 1;

/// A recipe of a bundle.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Version of this file format: 1.
    pub format: u32,
    /// The recipe's name, and the bundle's: not empty.
    pub name: String,
    /// What it is, for people.
    pub description: String,
    /// How the language model is asked: the name of a dialect, or a whole table as in a `bundle.toml`.
    pub dialect: Speech,
    /// What of the method the checkpoint is good for.
    pub strategy: Strategy,
    /// What the weights of both models take. Default: not said.
    pub memory_gib: Option<Memory>,
    /// The multimodal language model.
    pub mllm: Mllm,
    /// The segmenter.
    pub sam: Sam,
}

/// What weights take by precision, in GiB; activations and the cache of a conversation come on top.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// 4 bytes a parameter.
    pub fp32: f64,
    /// 2 bytes a parameter.
    pub fp16: f64,
    /// 1 byte for a parameter in the matrices of the language model's layers, 2 for any other.
    pub int8: f64,
    /// 4 bits, and a scale of 16 bits for each 128, in those matrices; 2 bytes for any other parameter.
    pub int4: f64,
}

/// A language model of a recipe.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mllm {
    /// Where it is.
    pub repo: Repo,
    /// A commit where it is known, else a branch, which may become another commit.
    pub revision: Revision,
    /// Its `transformers` class.
    pub class: String,
    /// Patterns of the files that are pulled. Default: what an import needs.
    #[serde(default)]
    pub include: Vec<String>,
    /// Number of parameters. Default: not said.
    pub parameters: Option<u64>,
    /// Longest answer that is decoded, in tokens. Range: 1..=4096.
    pub max_answer_tokens: usize,
    /// Under which conditions.
    pub licence: Licence,
}

/// A segmenter of a recipe.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sam {
    /// Where it is.
    pub repo: Repo,
    /// A commit where it is known, else a branch, which may become another commit.
    pub revision: Revision,
    /// Its class, as `engine import` calls it.
    pub class: String,
    /// Patterns of the files that are pulled. Default: what an import needs.
    #[serde(default)]
    pub include: Vec<String>,
    /// Number of parameters. Default: not said.
    pub parameters: Option<u64>,
    /// Under which conditions.
    pub licence: Licence,
    /// What its image encoder is fed.
    pub image: ImageSpec,
}

/// Conditions of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Licence {
    /// What the hub calls it.
    pub name: String,
    /// Where it can be read.
    pub url: String,
    /// Whether it has to be accepted before anything is pulled: it restricts who may use the checkpoint, or for what.
    pub accept: bool,
    /// What it restricts, in a few words.
    #[serde(default)]
    pub note: String,
}

impl Recipe {
    /// The recipes that come with the program.
    pub fn built_in() -> impl Iterator<Item = Self> {
        BUILT_IN
            .iter()
            .map(|(name, text)| Self::parse(text, name).expect("recipes of this crate are read in its tests"))
    }

    /// The recipe of that name, or in the file of that name.
    ///
    /// # Errors
    /// [`RecipeErrorKind::Unknown`], [`RecipeErrorKind::Parse`], [`RecipeErrorKind::Invalid`] with the key.
    pub fn find(name_or_file: &str) -> Result<Self, RecipeError> {
        Self::parse(&Self::text(name_or_file)?, name_or_file)
    }

    /// The text of the recipe of that name, or in the file of that name.
    ///
    /// # Errors
    /// [`RecipeErrorKind::Unknown`].
    pub fn text(name_or_file: &str) -> Result<String, RecipeError> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_file) {
            return Ok((*text).to_owned());
        }
        let unknown = RecipeError::new(Kind::Unknown, name_or_file);
        if !Path::new(name_or_file).is_file() {
            let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
            return Err(unknown.because(format!("it is no file and none of {}", names.join(", "))));
        }
        let mut text = String::new();
        let read = File::open(name_or_file).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
        read.map_err(|e| unknown.because(e)).map(|_| text)
    }

    /// Parses and checks a recipe; `place` is what errors call it.
    ///
    /// # Errors
    /// [`RecipeErrorKind::Parse`], [`RecipeErrorKind::Invalid`] with the key.
    pub fn parse(text: &str, place: &str) -> Result<Self, RecipeError> {
        let recipe: Self = toml::from_str(text).map_err(|e| RecipeError::new(Kind::Parse, place).because(e))?;
        recipe.validate()?;
        Ok(recipe)
    }

    fn validate(&self) -> Result<(), RecipeError> {
        let require = |ok: bool, key: &str, what: &str| {
            if ok { Ok(()) } else { Err(RecipeError::new(Kind::Invalid, key).because(format!("must be {what}"))) }
        };
        require(self.format == FORMAT, "format", "1")?;
        require(!self.name.trim().is_empty(), "name", "a text that is not empty")?;
        for (part, licence) in self.licences() {
            require(!licence.name.trim().is_empty(), &format!("{part}.licence.name"), "a text that is not empty")?;
            require(licence.url.starts_with("https://"), &format!("{part}.licence.url"), "an https address")?;
        }
        for (part, include) in [("mllm", &self.mllm.include), ("sam", &self.sam.include)] {
            let key = || format!("{part}.include");
            Selection::matching(include).map_err(|e| RecipeError::new(Kind::Invalid, key()).because(e))?;
        }
        let numbers = self.memory_gib.iter().flat_map(|m| [m.fp32, m.fp16, m.int8, m.int4]);
        require(numbers.into_iter().all(|gib| gib > 0.0 && gib < 1e6), "memory_gib", "above 0, below 1000000")?;
        // Everything that becomes part of the manifest is held against its ranges before anything is pulled.
        let none = "0".repeat(40);
        let manifest = self.manifest([&none, &none], None);
        let text = toml::to_string(&manifest).map_err(|e| RecipeError::new(Kind::Invalid, "dialect").because(e))?;
        Manifest::parse(&text).map_err(|e| RecipeError::new(Kind::Invalid, e.place().to_owned()).because(e))?;
        Ok(())
    }

    /// The licences of both models, by part.
    pub fn licences(&self) -> [(&'static str, &Licence); 2] {
        [("mllm", &self.mllm.licence), ("sam", &self.sam.licence)]
    }

    /// What is pulled: language model, segmenter.
    pub fn parts(&self) -> [Pinned; 2] {
        let pinned = |repo: &Repo, revision: &Revision| Pinned { repo: repo.clone(), revision: revision.clone() };
        [pinned(&self.mllm.repo, &self.mllm.revision), pinned(&self.sam.repo, &self.sam.revision)]
    }

    /// Which of their files.
    pub fn selections(&self) -> [Selection; 2] {
        let selection = |include| Selection::matching(include).expect("patterns were checked with the recipe");
        [selection(&self.mllm.include), selection(&self.sam.include)]
    }

    /// Checks that every licence which asks for it is among `accepted`.
    ///
    /// # Errors
    /// [`RecipeErrorKind::Licence`]: which one, of what, where to read it and how to accept it.
    pub fn check_licences(&self, accepted: &[String]) -> Result<(), RecipeError> {
        let parts = self.parts();
        for ((_, licence), pinned) in self.licences().into_iter().zip(&parts) {
            if licence.accept && !accepted.contains(&licence.name) {
                let note = if licence.note.is_empty() { String::new() } else { format!(" ({})", licence.note) };
                let why = format!(
                    "{} is under it{note}: read it at {}, then accept it with --accept-licence {}",
                    pinned.repo, licence.url, licence.name
                );
                return Err(RecipeError::new(Kind::Licence, &licence.name).because(why));
            }
        }
        Ok(())
    }
}
