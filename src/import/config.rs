//! `config.json`, read key by key with the defaults of `transformers`, every value within its range.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::{ImportError, ImportErrorKind as Kind};

/// Largest width, count or size that is believed; far above any model, far below overflow.
const MAX_DIM: u64 = 1 << 20;

/// Longest `config.json` that is read, in bytes; a real one has a few kilobytes.
const MAX_BYTES: u64 = 4 << 20;

/// The text of a file of at most `limit` bytes.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String, ImportError> {
    let open = |e| ImportError::new(Kind::Open, path).because(e);
    let mut text = String::new();
    let read = File::open(path).map_err(open)?.take(limit + 1).read_to_string(&mut text).map_err(open)?;
    if read as u64 > limit {
        return Err(ImportError::new(Kind::Config, path).because(format!("is longer than {limit} bytes")));
    }
    Ok(text)
}

/// A `config.json` or a part of it.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    file: PathBuf,
    /// Dotted path of this part, empty for the whole.
    path: String,
    value: Value,
}

impl Config {
    /// Reads a file.
    pub(crate) fn read(file: &Path) -> Result<Self, ImportError> {
        let text = read_text(file, MAX_BYTES)?;
        let value: Value = serde_json::from_str(&text).map_err(|e| ImportError::new(Kind::Config, file).because(e))?;
        if !value.is_object() {
            return Err(ImportError::new(Kind::Config, file).because("is not an object"));
        }
        Ok(Self { file: file.to_owned(), path: String::new(), value })
    }

    /// Stands for a `config.json` that is not there.
    pub(crate) fn absent(dir: &Path) -> Self {
        Self { file: dir.join("config.json"), path: String::new(), value: Value::Null }
    }

    /// Whether there was no file.
    pub(crate) fn is_absent(&self) -> bool {
        self.value.is_null()
    }

    /// Values that were found out otherwise; errors name `file`.
    pub(crate) fn of(file: &Path, value: Value) -> Self {
        Self { file: file.to_owned(), path: String::new(), value }
    }

    /// The file this came from.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The value of `key`; `None` where it is absent or null.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    /// The part under `key`; an absent part is empty, so that every key of it takes its default.
    pub(crate) fn part(&self, key: &str) -> Result<Self, ImportError> {
        let value = self.get(key).cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        if !value.is_object() {
            return Err(self.wrong(key, "is not an object"));
        }
        Ok(Self { file: self.file.clone(), path: self.dotted(key), value })
    }

    /// The class name: the one entry of `architectures`.
    pub(crate) fn class(&self) -> Result<String, ImportError> {
        match self.get("architectures").and_then(Value::as_array).map(Vec::as_slice) {
            Some([Value::String(class)]) => Ok(class.clone()),
            _ => Err(self.wrong("architectures", "does not name one class")),
        }
    }

    /// A width, count or size: `1..=2^20`.
    pub(crate) fn dim(&self, key: &str, default: usize) -> Result<usize, ImportError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        match value.as_u64() {
            Some(n) if (1..=MAX_DIM).contains(&n) => Ok(n as usize),
            _ => Err(self.wrong(key, format!("is {value}, not in 1..={MAX_DIM}"))),
        }
    }

    /// A width, count or size that has no default.
    pub(crate) fn required_dim(&self, key: &str) -> Result<usize, ImportError> {
        if self.get(key).is_none() {
            return Err(self.wrong(key, "is missing"));
        }
        self.dim(key, 0)
    }

    /// A square size: one number, or the same number twice.
    pub(crate) fn square(&self, key: &str, default: usize) -> Result<usize, ImportError> {
        match self.get(key).and_then(Value::as_array).map(Vec::as_slice) {
            Some([h, w]) if h == w => match h.as_u64() {
                Some(n) if (1..=MAX_DIM).contains(&n) => Ok(n as usize),
                _ => Err(self.wrong(key, format!("is {h}, not in 1..={MAX_DIM}"))),
            },
            Some(_) => Err(self.unsupported(key, "is not square")),
            None => self.dim(key, default),
        }
    }

    /// A finite number.
    pub(crate) fn number(&self, key: &str, default: f64) -> Result<f64, ImportError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_f64().filter(|x| x.is_finite()).ok_or_else(|| self.wrong(key, "is not a number"))
    }

    /// A small positive number such as a normalisation's epsilon.
    pub(crate) fn epsilon(&self, key: &str, default: f64) -> Result<f32, ImportError> {
        let value = self.number(key, default)?;
        if value > 0.0 && value < 1.0 { Ok(value as f32) } else { Err(self.wrong(key, "is not in 0.0..1.0")) }
    }

    /// A flag.
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, ImportError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(key, "is not true or false"))
    }

    /// A text.
    pub(crate) fn text<'a>(&'a self, key: &str, default: &'a str) -> Result<&'a str, ImportError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_str().ok_or_else(|| self.wrong(key, "is not a text"))
    }

    /// One integer or a list of them.
    pub(crate) fn integers(&self, key: &str, default: &[i64]) -> Result<Vec<i64>, ImportError> {
        let Some(value) = self.get(key) else { return Ok(default.to_vec()) };
        let list = match value {
            Value::Array(list) => list.iter().map(Value::as_i64).collect(),
            one => one.as_i64().map(|n| vec![n]),
        };
        list.ok_or_else(|| self.wrong(key, "is not an integer or a list of integers"))
    }

    /// Refuses a value that `transformers` takes and the importer does not.
    pub(crate) fn unsupported(&self, key: &str, why: impl Into<String>) -> ImportError {
        ImportError::new(Kind::Unsupported, &self.file).at(self.dotted(key)).because(why.into())
    }

    /// Checks that one width is a multiple of a count, and gives the quotient.
    pub(crate) fn divide(&self, key: &str, width: usize, count: usize) -> Result<usize, ImportError> {
        if count > 0 && width > 0 && width.is_multiple_of(count) {
            Ok(width / count)
        } else {
            Err(self.wrong(key, format!("{count} does not divide {width}")))
        }
    }

    /// The keys of this part, sorted.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.value.as_object().into_iter().flat_map(|object| object.keys().map(String::as_str))
    }

    /// Refuses a value that is out of its range or of another type.
    pub(crate) fn wrong(&self, key: &str, why: impl Into<String>) -> ImportError {
        ImportError::new(Kind::Config, &self.file).at(self.dotted(key)).because(why.into())
    }

    fn dotted(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}
