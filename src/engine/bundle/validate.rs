//! What of a parsed `bundle.toml` is refused: out-of-range values are rejected, never clamped.

use std::path::{Component, Path};

use super::dialects::{Coordinates, Json};
use super::manifest::{Dialect, ImageSpec, Manifest, Ppg, Zoom};
use super::{BundleError, BundleErrorKind, Calibration, MANIFEST, outputs};

/// The only manifest format there is.
const FORMAT: u32 = 1;

impl Manifest {
    pub(super) fn validate(&self) -> Result<(), BundleError> {
        require(self.format == FORMAT, "format", "1")?;
        for (key, text) in [("name", &self.name), ("version", &self.version), ("licence", &self.licence)] {
            require(!text.trim().is_empty(), key, "a text that is not empty")?;
        }
        for directory in [&self.mllm.directory, &self.sam.directory].into_iter().chain(&self.mllm.adapter) {
            check_path(directory)?;
        }
        require(self.mllm.directory != self.sam.directory, "sam.directory", "another directory than mllm.directory")?;
        let adapter = self.mllm.adapter.as_ref();
        let apart = adapter.is_none_or(|dir| *dir != self.mllm.directory && *dir != self.sam.directory);
        require(apart, "mllm.adapter", "another directory than those of the models")?;
        require(!self.mllm.class.is_empty(), "mllm.class", "a class name")?;
        require(!self.sam.class.is_empty(), "sam.class", "a class name")?;
        require((1..=4096).contains(&self.mllm.max_answer_tokens), "mllm.max_answer_tokens", "1..=4096")?;
        self.mllm.image.as_ref().map_or(Ok(()), |image| image.validate("mllm.image"))?;
        self.sam.image.validate("sam.image")?;
        self.sam.zoom.as_ref().map_or(Ok(()), Zoom::validate)?;
        self.dialect.validate()?;
        self.selftest.as_ref().map_or(Ok(()), outputs::validate)?;
        self.files.iter().try_for_each(|(path, entry)| {
            check_path(path)?;
            let hex = entry.sha256.len() == 64 && entry.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            require(hex, &format!("files.\"{path}\".sha256"), "64 lower-case hex digits")
        })
    }
}

impl ImageSpec {
    fn validate(&self, key: &str) -> Result<(), BundleError> {
        require((16..=4096).contains(&self.width), &format!("{key}.width"), "16..=4096")?;
        require((16..=4096).contains(&self.height), &format!("{key}.height"), "16..=4096")?;
        require(self.mean.iter().all(|m| (0.0..=1.0).contains(m)), &format!("{key}.mean"), "0.0..=1.0")?;
        require(self.std.iter().all(|&s| s > 0.0 && s <= 10.0), &format!("{key}.std"), "above 0.0, up to 10.0")
    }
}

impl Zoom {
    pub(super) fn validate(&self) -> Result<(), BundleError> {
        require((1.0..=16.0).contains(&self.factor), "sam.zoom.factor", "1.0..=16.0")?;
        require((1..=4096).contains(&self.least_side), "sam.zoom.least_side", "1..=4096")
    }
}

impl Dialect {
    pub(super) fn validate(&self) -> Result<(), BundleError> {
        require((1..=5).contains(&self.coordinate_digits), "dialect.coordinate_digits", "1..=5")?;
        let scale = 1..10u32.pow(self.coordinate_digits);
        require(scale.contains(&self.coordinate_scale), "dialect.coordinate_scale", "1..10^coordinate_digits")?;
        require((1..=64).contains(&self.points_per_question), "dialect.points_per_question", "1..=64")?;
        require(self.grid.iter().all(|n| (1..=32).contains(n)), "dialect.grid", "1..=32 for each axis")?;
        require(!self.chat || self.prefix.is_empty(), "dialect.prefix", "left out with dialect.chat")?;
        self.validate_texts()?;
        self.validate_templates()?;
        for (key, value) in self.thresholds.by_key() {
            require((0.0..=1.0).contains(&value), &format!("dialect.thresholds.{key}"), "0.0..=1.0")?;
        }
        self.ppg.as_ref().map_or(Ok(()), Ppg::validate)?;
        self.json.as_ref().map_or(Ok(()), Json::validate)?;
        require(self.json.is_none() || self.ppg.is_none(), "dialect.ppg", "left out with dialect.json")?;
        let relative = self.coordinates == Coordinates::Relative;
        require(relative || self.json.is_some(), "dialect.coordinates", "relative without dialect.json")?;
        self.calibration.as_ref().map_or(Ok(()), Calibration::validate)
    }

    fn validate_texts(&self) -> Result<(), BundleError> {
        let absent = self.absent_answer.trim();
        require(self.json.is_none() || absent.is_empty(), "dialect.absent_answer", "left out with dialect.json")?;
        require(self.json.is_some() || !absent.is_empty(), "dialect.absent_answer", "a text that is not empty")?;
        for (key, text) in [("end_of_answer", &self.end_of_answer), ("yes", &self.yes), ("no", &self.no)] {
            require(!text.trim().is_empty(), &format!("dialect.{key}"), "a text that is not empty")?;
        }
        require(self.yes != self.no, "dialect.no", "another text than dialect.yes")?;
        let Some(count_on) = &self.count_on else { return Ok(()) };
        require(self.json.is_none(), "dialect.count_on", "left out with dialect.json")?;
        require(!count_on.trim().is_empty(), "dialect.count_on", "a text that is not empty")
    }

    fn validate_templates(&self) -> Result<(), BundleError> {
        template("dialect.prefix", &self.prefix, &[], &[])?;
        template("dialect.proposal_query", &self.proposal_query, &["command"], &["hint"])?;
        template("dialect.box", &self.bbox, &["x1", "y1", "x2", "y2"], &[])?;
        template("dialect.points_query", &self.points_query, &["points"], &["box"])?;
        template("dialect.point", &self.point, &["x", "y"], &[])
    }
}

impl Json {
    pub(super) fn validate(&self) -> Result<(), BundleError> {
        let keys = [("box", &self.bbox), ("point", &self.point), ("label", &self.label)];
        for (i, (key, text)) in keys.into_iter().enumerate() {
            let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            require(
                (1..=32).contains(&text.len()) && plain,
                &format!("dialect.json.{key}"),
                "1..=32 of a-z, 0-9 and _",
            )?;
            let apart = keys[..i].iter().all(|(_, other)| *other != text);
            require(apart, &format!("dialect.json.{key}"), "another key than the others")?;
        }
        Ok(())
    }
}

impl Ppg {
    pub(super) fn validate(&self) -> Result<(), BundleError> {
        template("dialect.ppg.query", &self.query, &["command"], &["hint"])?;
        template("dialect.ppg.point", &self.point, &["x", "y", "label"], &[])?;
        require(!self.on.trim().is_empty(), "dialect.ppg.on", "a text that is not empty")?;
        require(!self.off.trim().is_empty(), "dialect.ppg.off", "a text that is not empty")?;
        require(self.on != self.off, "dialect.ppg.off", "another text than dialect.ppg.on")?;
        require((1..=16).contains(&self.positives), "dialect.ppg.positives", "1..=16")?;
        require((0..=16).contains(&self.negatives), "dialect.ppg.negatives", "0..=16")?;
        require((1..=16).contains(&self.groups), "dialect.ppg.groups", "1..=16")
    }
}

/// Rejects a value with the range it must lie in.
pub(super) fn require(ok: bool, key: &str, range: &str) -> Result<(), BundleError> {
    if ok { Ok(()) } else { Err(BundleError::new(BundleErrorKind::Invalid, key).because(format!("must be {range}"))) }
}

/// Checks that `text` holds each of `required` once, each of `optional` at most once, and no other `{word}`.
fn template(key: &str, text: &str, required: &[&str], optional: &[&str]) -> Result<(), BundleError> {
    let mut rest = text;
    let mut seen: Vec<&str> = Vec::new();
    while let Some(open) = rest.find('{') {
        let after = &rest[open + 1..];
        let close = after.find('}').unwrap_or(after.len());
        let word = &after[..close];
        let known = required.contains(&word) || optional.contains(&word);
        require(known, key, &format!("a template without `{{{word}}}`"))?;
        require(!seen.contains(&word), key, &format!("a template with `{{{word}}}` once"))?;
        seen.push(word);
        rest = after.get(close + 1..).unwrap_or("");
    }
    required.iter().try_for_each(|word| require(seen.contains(word), key, &format!("a template with `{{{word}}}`")))
}

/// Refuses a path that is no plain relative one, or names the manifest.
fn check_path(path: &str) -> Result<(), BundleError> {
    let fault = if path == MANIFEST { Some("names no file of the bundle") } else { path_fault(path) };
    fault.map_or(Ok(()), |why| Err(BundleError::new(BundleErrorKind::Path, path).because(why)))
}

/// What is wrong with a path that ought to be a plain relative one: empty, absolute, climbing, or of another meaning on
/// another system.
pub(crate) fn path_fault(path: &str) -> Option<&'static str> {
    if path.is_empty() {
        return Some("names no file");
    }
    if path.contains(['\\', ':', '\0']) {
        return Some("holds a character that is not portable");
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Some("is not a plain relative path");
    }
    let plain = Path::new(path).components().all(|c| matches!(c, Component::Normal(_)));
    (!plain).then_some("leaves its directory")
}
