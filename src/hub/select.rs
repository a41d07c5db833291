//! Which files of a repository are wanted.

use glob::{MatchOptions, Pattern};

use super::error::{HubError, HubErrorKind as Kind};
use super::listing::RemoteFile;

/// What an import and its licence need beside the weights; only at the top of the repository, where it looks.
const BESIDE_WEIGHTS: [&str; 14] = [
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "preprocessor_config.json",
    "processor_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "adapter_config.json",
    "LICENSE*",
    "NOTICE*",
];

/// Weights as an import reads them: the first of these that is there.
const WEIGHTS: [&[&str]; 2] = [&["model*.safetensors", "adapter_model.safetensors"], &["*.pt", "*.pth"]];

/// `*` stays within one part of a path, `**/` does not.
const OPTIONS: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: false };

/// Patterns of file names, such as `*.safetensors` or `text/**/*.json`; none at all means what an import needs.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    include: Vec<Pattern>,
}

impl Selection {
    /// What an import needs: settings, tokenizer, chat template, licence, and the weights: safetensors where there are
    /// any, else the one `.pt` or `.pth` file.
    pub fn for_import() -> Self {
        Self::default()
    }

    /// Files that one of `patterns` matches; without any, as [`Selection::for_import`].
    ///
    /// # Errors
    /// [`HubErrorKind::Name`](Kind::Name) of a pattern that is none.
    pub fn matching(patterns: &[String]) -> Result<Self, HubError> {
        let include = patterns
            .iter()
            .map(|pattern| Pattern::new(pattern).map_err(|e| HubError::new(Kind::Name, pattern.as_str()).because(e)));
        Ok(Self { include: include.collect::<Result<_, _>>()? })
    }

    /// The files of `repository` that are wanted, in their order there.
    ///
    /// # Errors
    /// [`Kind::Selection`] where there is none, or it is not clear which of several weights is meant.
    pub(super) fn choose(&self, repository: &str, files: Vec<RemoteFile>) -> Result<Vec<RemoteFile>, HubError> {
        let wrong = |why: String| HubError::new(Kind::Selection, repository).because(why);
        if !self.include.is_empty() {
            let chosen: Vec<_> = files.into_iter().filter(|file| any(&self.include, &file.name)).collect();
            let texts = || self.include.iter().map(Pattern::as_str).collect::<Vec<_>>().join(", ");
            return if chosen.is_empty() { Err(wrong(format!("no file matches {}", texts()))) } else { Ok(chosen) };
        }
        let weights = WEIGHTS.map(compile);
        let weights = weights.iter().find(|patterns| files.iter().any(|file| any(patterns, &file.name)));
        let weights = weights.ok_or_else(|| {
            wrong("it has neither safetensors nor .pt or .pth files; --include names others".to_owned())
        })?;
        let pickled: Vec<_> = files.iter().filter(|file| any(&compile(WEIGHTS[1]), &file.name)).collect();
        if pickled.len() > 1 && pickled.iter().all(|file| any(weights, &file.name)) {
            let names: Vec<_> = pickled.iter().take(20).map(|file| file.name.as_str()).collect();
            return Err(wrong(format!("which of {} is meant? name it with --include", names.join(", "))));
        }
        let beside = compile(&BESIDE_WEIGHTS);
        Ok(files.into_iter().filter(|file| any(weights, &file.name) || any(&beside, &file.name)).collect())
    }
}

fn compile(patterns: &[&str]) -> Vec<Pattern> {
    patterns.iter().map(|pattern| Pattern::new(pattern).expect("a pattern of this file is one")).collect()
}

fn any(patterns: &[Pattern], name: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches_with(name, OPTIONS))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::digest::Digest;
    use super::*;

    fn choose(patterns: &[&str], names: &[&str]) -> Result<Vec<String>, HubError> {
        let digest = Digest::parse(&"0".repeat(40)).unwrap();
        let files = names.iter().map(|name| RemoteFile { name: (*name).into(), bytes: 1, digest: digest.clone() });
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let chosen = Selection::matching(&patterns)?.choose("a/b", files.collect())?;
        Ok(chosen.into_iter().map(|file| file.name).collect())
    }

    #[test]
    fn only_what_an_import_needs_is_chosen() {
        let names = [
            ".gitattributes",
            "LICENSE",
            "README.md",
            "config.json",
            "consolidated.safetensors",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "model.safetensors.index.json",
            "original/model.safetensors",
            "pytorch_model.bin",
            "tf_model.h5",
            "tokenizer.json",
        ];
        let wanted = [names[1], names[3], names[5], names[6], names[7], names[11]];
        assert_eq!(choose(&[], &names).unwrap(), wanted);
        assert_eq!(choose(&["original/*", "*.md"], &names).unwrap(), ["README.md", "original/model.safetensors"]);
        assert_eq!(choose(&["*.bin"], &names).unwrap(), ["pytorch_model.bin"]);
        assert_eq!(choose(&["**/model.safetensors"], &names).unwrap(), ["original/model.safetensors"]);
    }

    #[test]
    fn one_file_of_torch_is_taken_and_several_are_asked_about() {
        assert_eq!(choose(&[], &["sam.pth", "README.md"]).unwrap(), ["sam.pth"]);
        assert_eq!(choose(&[], &["model.safetensors", "a.pt", "b.pt"]).unwrap(), ["model.safetensors"]);
        let error = choose(&[], &["xl0.pt", "xl1.pt", "config.json"]).unwrap_err();
        assert_eq!(error.kind(), Kind::Selection);
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert!(why.contains("xl0.pt, xl1.pt") && why.contains("--include"), "{why}");
        assert_eq!(choose(&["xl1.pt"], &["xl0.pt", "xl1.pt"]).unwrap(), ["xl1.pt"]);
        for (patterns, names) in [(&[][..], &["README.md"][..]), (&["*.onnx"], &["model.safetensors"])] {
            assert_eq!(choose(patterns, names).unwrap_err().kind(), Kind::Selection);
        }
        assert_eq!(choose(&["a**b"], &["a"]).unwrap_err().kind(), Kind::Name);
    }
}
