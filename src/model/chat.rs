//! A checkpoint's own chat template around the dialect's queries.
//!
//! With `chat = true` a dialect's texts are what the user says and nothing else; the words of the conversation around
//! them come from the template, rendered with Jinja as `transformers` does, once, when the bundle is loaded.

use std::path::{Path, PathBuf};

use minijinja::value::Value as Jinja;
use minijinja::{Environment, Error, ErrorKind, context};
use serde_json::{Value, json};

use super::stages::LoadError;
use crate::engine::bundle;

/// Stand for texts that are put in later; no template has them.
const QUERY: &str = "\u{1}query\u{1}";
const ANSWER: &str = "\u{1}answer\u{1}";
const FURTHER: &str = "\u{1}further\u{1}";

/// Longest template that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Steps after which rendering gives up: a template comes from outside, and Jinja can loop.
const FUEL: u64 = 1_000_000;

/// A chat template with what it is rendered with.
pub(crate) struct Chat {
    file: PathBuf,
    template: String,
    special: Vec<(String, String)>,
}

impl Chat {
    /// Reads the template of the checkpoint in `dir`: `chat_template.jinja`, `chat_template.json`, or the key
    /// `chat_template` of `tokenizer_config.json`, in this order.
    ///
    /// # Errors
    /// [`LoadError::Config`] where there is none.
    pub(crate) fn open(dir: &Path) -> Result<Self, LoadError> {
        let settings = dir.join("tokenizer_config.json");
        let config = read(&settings).and_then(|text| json_of(&settings, &text)).unwrap_or(Value::Null);
        let special = ["bos_token", "eos_token", "pad_token", "unk_token"].into_iter().filter_map(|key| {
            // Older files keep a token with how it is matched.
            let token = config[key].as_str().or_else(|| config[key]["content"].as_str())?;
            Some((key.to_owned(), token.to_owned()))
        });
        let special = special.collect();
        let own = dir.join("chat_template.jinja");
        if own.exists() {
            return Ok(Self { template: read(&own)?, file: own, special });
        }
        let json = dir.join("chat_template.json");
        let (file, value) = if json.exists() {
            let text = read(&json)?;
            let value = json_of(&json, &text)?;
            (json, value)
        } else {
            (settings, config)
        };
        match &value["chat_template"] {
            Value::String(template) => Ok(Self { template: template.clone(), file, special }),
            _ => Err(LoadError::Config { path: file, what: "has no `chat_template`".into() }),
        }
    }

    /// The text of a conversation, with the opening of the next answer.
    ///
    /// # Errors
    /// [`LoadError::Config`] where the template is none or refuses the conversation.
    pub(crate) fn render(&self, messages: &Value) -> Result<String, LoadError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |what: String| -> Result<Jinja, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, what))
        });
        let special = Jinja::from_iter(self.special.iter().map(|(key, token)| (key.clone(), Jinja::from(token))));
        let values = context! { messages => Jinja::from_serialize(messages), add_generation_prompt => true, ..special };
        let rendered = environment.render_str(&self.template, values);
        rendered.map_err(|e| LoadError::Config { path: self.file.clone(), what: format!("render: {e:#}") })
    }

    /// The words of a dialect with those of the conversation around them; `image` is the text of the image's token.
    ///
    /// # Errors
    /// [`LoadError::Config`] where the template does not let what is said be told from what is around it.
    pub(crate) fn around(&self, words: &bundle::Dialect, image: &str) -> Result<bundle::Dialect, LoadError> {
        let wrong = |what: &str| LoadError::Config { path: self.file.clone(), what: what.into() };
        let user = |text: &str, image: bool| match image {
            true => json!({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}),
            false => json!({"role": "user", "content": [{"type": "text", "text": text}]}),
        };
        let assistant = json!({"role": "assistant", "content": [{"type": "text", "text": ANSWER}]});
        let whole = self.render(&json!([user(QUERY, true), assistant, user(FURTHER, false)]))?;
        let first = self.render(&json!([user(QUERY, true)]))?;
        if whole.contains(['{', '}']) || first.contains(['{', '}']) {
            return Err(wrong("writes braces, which the dialect's templates keep for their slots"));
        }
        let (before, opening) = first.split_once(QUERY).ok_or_else(|| wrong("does not say what the user says"))?;
        // Cut behind the image's token: special tokens are never joined with what stands beside them.
        let at = before.find(image).ok_or_else(|| wrong("does not place the image's token before the query"))?;
        let (prefix, rest) = before.split_at(at + image.len());
        let said = whole.strip_prefix(&format!("{prefix}{rest}{QUERY}{opening}{ANSWER}"));
        let said = said.ok_or_else(|| wrong("does not go on behind an answer as it began"))?;
        let (between, further) = said.split_once(FURTHER).ok_or_else(|| wrong("does not say a second query"))?;
        let between = between.strip_prefix(&words.end_of_answer);
        let between = between.ok_or_else(|| wrong("does not end an answer with the dialect's `end_of_answer`"))?;
        Ok(bundle::Dialect {
            prefix: prefix.to_owned(),
            proposal_query: format!("{rest}{}{opening}", words.proposal_query),
            points_query: format!("{between}{}{further}", words.points_query),
            ppg: words.ppg.clone().map(|ppg| bundle::Ppg { query: format!("{rest}{}{opening}", ppg.query), ..ppg }),
            ..words.clone()
        })
    }
}

fn read(path: &Path) -> Result<String, LoadError> {
    let error = |what: String| LoadError::Config { path: path.to_owned(), what };
    let bytes = std::fs::metadata(path).map_err(|e| error(e.to_string()))?.len();
    if bytes > MAX_BYTES {
        return Err(error(format!("{bytes} bytes, more than {MAX_BYTES}")));
    }
    std::fs::read_to_string(path).map_err(|e| error(e.to_string()))
}

fn json_of(path: &Path, text: &str) -> Result<Value, LoadError> {
    serde_json::from_str(text).map_err(|e| LoadError::Config { path: path.to_owned(), what: e.to_string() })
}
