//! From a recipe and its two checkpoints to a sealed bundle.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::super::Pulled;
use super::Recipe;
use super::error::{RecipeError, RecipeErrorKind as Kind};
use crate::engine::bundle::{self, AdapterMode, Dialect, MANIFEST, Manifest, Sealed, seal};
use crate::import::end_token;

impl Recipe {
    /// The manifest of the bundle of these commits: language model, segmenter. `end` is the token with which the language
    /// model ends what it says, if it says so. The files are not listed yet.
    pub(super) fn manifest(&self, commits: [&str; 2], end: Option<String>) -> Manifest {
        let [mllm, sam] = commits;
        let sources = format!("{} at {mllm}, {} at {sam}", self.mllm.repo, self.sam.repo);
        let licences = self.licences().map(|(_, licence)| licence.name.as_str());
        Manifest {
            format: 1,
            name: self.name.clone(),
            version: format!("{}-{}", short(mllm), short(sam)),
            licence: if licences[0] == licences[1] { licences[0].to_owned() } else { licences.join(" AND ") },
            description: format!("{}: {sources}", self.description.trim()),
            mllm: bundle::Mllm {
                directory: "mllm".to_owned(),
                class: self.mllm.class.clone(),
                max_answer_tokens: self.mllm.max_answer_tokens,
                adapter: None,
                adapter_mode: AdapterMode::default(),
                image: None,
            },
            sam: bundle::Sam {
                directory: "sam".to_owned(),
                class: self.sam.class.clone(),
                image: self.sam.image.clone(),
                zoom: None,
            },
            dialect: Dialect { strategy: self.strategy, ..self.dialect.table(end) },
            files: BTreeMap::new(),
            selftest: None,
            eval: toml::Table::new(),
        }
    }
}

/// Writes the manifest of a recipe's bundle into `dir`, whose `mllm` and `sam` hold what was pulled, and seals it.
///
/// # Errors
/// [`Kind::Bundle`].
pub fn write_bundle(recipe: &Recipe, pulled: [&Pulled; 2], dir: &Path) -> Result<Sealed, RecipeError> {
    let wrong = || RecipeError::new(Kind::Bundle, dir.display().to_string());
    let end = end_token(&dir.join("mllm"));
    let manifest = recipe.manifest(pulled.map(|pulled| pulled.commit.as_str()), end);
    let text = toml::to_string(&manifest).map_err(|e| wrong().because(e))?;
    fs::write(dir.join(MANIFEST), text).map_err(|e| wrong().because(e))?;
    seal(dir).map_err(|e| wrong().because(e))
}

/// The first digits of a commit, as people write it.
fn short(commit: &str) -> &str {
    commit.get(..8).unwrap_or(commit)
}
