//! Tokens at which a checkpoint's own authors stop it, beside the dialect's end of an answer.

use std::path::Path;

use serde_json::Value;

use super::stages::{LoadError, read_json};

/// Most tokens that are believed.
const MAX_STOPS: usize = 64;

/// The `eos_token_id` of the checkpoint in `dir`, one or a list: what `generation_config.json` says, and where that is not
/// there or silent, `config.json` or its text model.
///
/// Source: `transformers`, `GenerationConfig.from_model_config`.
///
/// # Errors
/// [`LoadError::Config`] for a file that is no JSON, and for an `eos_token_id` that is no token or list of tokens.
pub(super) fn stop_tokens(dir: &Path) -> Result<Vec<u32>, LoadError> {
    const KEY: &str = "eos_token_id";
    for (file, parts) in [("generation_config.json", &[""][..]), ("config.json", &["text_config", ""])] {
        let path = dir.join(file);
        if !path.exists() {
            continue;
        }
        let error = |what: String| LoadError::Config { path: path.clone(), what };
        let config = read_json(&path)?;
        for part in parts {
            let found = if part.is_empty() { &config[KEY] } else { &config[part][KEY] };
            if !found.is_null() {
                return tokens(found)
                    .ok_or_else(|| error(format!("`{KEY}` is no token or list of tokens: {found:.80}")));
            }
        }
    }
    Ok(Vec::new())
}

fn tokens(value: &Value) -> Option<Vec<u32>> {
    let token = |value: &Value| u32::try_from(value.as_u64()?).ok();
    match value {
        Value::Array(list) if list.len() <= MAX_STOPS => list.iter().map(token).collect(),
        one => Some(vec![token(one)?]),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Result<Vec<u32>, String> {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(dir.path().join(name), text).unwrap());
        stop_tokens(dir.path()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_generation_configuration_comes_first() {
        let config = ("config.json", r#"{"eos_token_id": 1, "text_config": {"eos_token_id": 2}}"#);
        let list = ("generation_config.json", r#"{"eos_token_id": [128001, 128009]}"#);
        assert_eq!(found(&[config, list]), Ok(vec![128_001, 128_009]));
        assert_eq!(found(&[config, ("generation_config.json", r#"{"eos_token_id": 7}"#)]), Ok(vec![7]));
        assert_eq!(found(&[config, ("generation_config.json", r#"{"eos_token_id": null}"#)]), Ok(vec![2]));
        assert_eq!(found(&[config]), Ok(vec![2]));
        assert_eq!(found(&[("config.json", r#"{"eos_token_id": 1}"#)]), Ok(vec![1]));
        assert_eq!(found(&[("config.json", "{}")]), Ok(vec![]));
    }

    #[test]
    fn what_is_no_token_is_refused_with_its_file() {
        let many = format!(r#"{{"eos_token_id": {:?}}}"#, vec![1; 65]);
        for text in
            [r#"{"eos_token_id": "</s>"}"#, r#"{"eos_token_id": [2, -1]}"#, r#"{"eos_token_id": 1e30}"#, "{", &many]
        {
            let error = found(&[("generation_config.json", text)]).unwrap_err();
            assert!(error.contains("generation_config.json"), "{error}");
        }
    }
}
