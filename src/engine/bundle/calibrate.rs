//! What a confidence is worth, as a manifest says it, and storing it: `[dialect.calibration]` is written anew and every
//! other byte of the manifest stays as it was.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use super::seal::{replace_table, write_atomically};
use super::validate::require;
use super::{Bundle, BundleError, BundleErrorKind, MANIFEST, Verify, read_manifest};

/// Its header in the manifest.
const HEADER: &str = "[dialect.calibration]";

/// From the language model's confidence in an instance to the probability that its mask has an IoU of at least 0.5:
/// `sigmoid(logit(confidence) / temperature + bias)`.
///
/// Platt's scaling of the logit, fitted on a split that is neither trained nor reported on; a higher confidence stays
/// the higher one. Sources: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; Platt, "Probabilistic
/// Outputs for Support Vector Machines", 1999.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Range: 0.01..=100.
    pub temperature: f32,
    /// Default: 0. Range: -20..=20.
    #[serde(default)]
    pub bias: f32,
    /// What the mask adds once SAM has drawn it. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<MaskCalibration>,
}

/// With a mask: `sigmoid(language * logit(calibrated confidence) + score * logit(predicted IoU) + fill * f + bias)`, `f`
/// the mask's area over that of the language model's box, at most 1.5.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MaskCalibration {
    /// Range: 0..=100.
    pub language: f32,
    /// Range: 0..=100; not 0 together with `language`.
    pub score: f32,
    /// Default: 0. Range: -100..=100.
    #[serde(default)]
    pub fill: f32,
    /// Range: -20..=20.
    pub bias: f32,
}

impl Calibration {
    /// Checks that every number is in its range.
    ///
    /// # Errors
    /// The first that is not.
    pub fn validate(&self) -> Result<(), BundleError> {
        let key = |name: &str| format!("dialect.calibration.{name}");
        require((0.01..=100.0).contains(&self.temperature), &key("temperature"), "0.01..=100")?;
        require((-20.0..=20.0).contains(&self.bias), &key("bias"), "-20..=20")?;
        let Some(mask) = &self.mask else { return Ok(()) };
        require((0.0..=100.0).contains(&mask.language), &key("mask.language"), "0..=100")?;
        require((0.0..=100.0).contains(&mask.score), &key("mask.score"), "0..=100")?;
        require(mask.language + mask.score > 0.0, &key("mask"), "a weight above 0 for one side at least")?;
        require((-100.0..=100.0).contains(&mask.fill), &key("mask.fill"), "-100..=100")?;
        require((-20.0..=20.0).contains(&mask.bias), &key("mask.bias"), "-20..=20")
    }
}

/// Writes `calibration` into the manifest of the bundle in `dir`, and returns the bundle's new fingerprint. Its weights
/// and the hashes of its files stay as they are.
///
/// # Errors
/// A bundle that cannot be opened or written, and a calibration out of its range.
pub fn calibrate(dir: impl AsRef<Path>, calibration: &Calibration) -> Result<String, BundleError> {
    calibration.validate()?;
    let dir = dir.as_ref();
    let text = read_manifest(dir)?;
    let mut expected = Manifest::parse(&text)?;
    expected.dialect.calibration = Some(*calibration);
    let written = replace_table(&text, HEADER, &table(calibration));
    if Manifest::parse(&written)? != expected {
        return Err(BundleError::new(BundleErrorKind::Parse, MANIFEST)
            .because("its [dialect.calibration] is not written in a way that can be replaced; remove it first"));
    }
    write_atomically(dir, &written)?;
    Ok(Bundle::open(dir, Verify::Sizes)?.fingerprint().to_owned())
}

fn table(c: &Calibration) -> String {
    let mut text = format!("{HEADER}\ntemperature = {:?}\nbias = {:?}\n", c.temperature, c.bias);
    if let Some(m) = &c.mask {
        let MaskCalibration { language, score, fill, bias } = m;
        text += &format!("mask = {{ language = {language:?}, score = {score:?}, fill = {fill:?}, bias = {bias:?} }}\n");
    }
    text
}
