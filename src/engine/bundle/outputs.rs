//! What a bundle's engines say to a fixed input, in a few numbers a tensor, as the manifest stores it: `[selftest]` is
//! written anew and every other byte of the manifest stays as it was.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::manifest::Manifest;
use super::seal::{replace_table, write_atomically};
use super::validate::require;
use super::{Bundle, BundleError, BundleErrorKind, MANIFEST, Verify, read_manifest};

/// Its header in the manifest.
const HEADER: &str = "[selftest]";

/// A tensor in a few numbers: enough to tell by how much another one of its shape differs.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TensorPrint {
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Root of the mean square of the elements. Finite, at least 0.
    pub rms: f32,
    /// Sums of the elements with fixed random signs, each divided by the root of their number: of the order of `rms`.
    /// Finite.
    pub projections: Vec<f32>,
}

/// Prints by `engine.tensor`.
pub type StoredOutputs = BTreeMap<String, TensorPrint>;

/// Checks a manifest's prints.
pub(super) fn validate(outputs: &StoredOutputs) -> Result<(), BundleError> {
    outputs.iter().try_for_each(|(name, print)| {
        let key = |field: &str| format!("selftest.\"{name}\".{field}");
        require(name.contains('.'), &key("name"), "an engine and its tensor, with a dot between")?;
        require(print.rms.is_finite() && print.rms >= 0.0, &key("rms"), "0.0 or above, and finite")?;
        let projections = &print.projections;
        let ok = !projections.is_empty() && projections.iter().all(|p| p.is_finite());
        require(ok, &key("projections"), "finite numbers, one at least")
    })
}

/// Writes `outputs` into the manifest of the bundle in `dir`, or takes them out, and returns the bundle's new
/// fingerprint. Its weights and the hashes of its files stay as they are.
///
/// # Errors
/// A bundle that cannot be opened or written, and numbers that are not finite.
pub fn store_outputs(dir: impl AsRef<Path>, outputs: Option<&StoredOutputs>) -> Result<String, BundleError> {
    let dir = dir.as_ref();
    outputs.map_or(Ok(()), validate)?;
    let text = read_manifest(dir)?;
    let mut expected = Manifest::parse(&text)?;
    let written = match (outputs, &expected.selftest) {
        (Some(outputs), _) => replace_table(&text, HEADER, &table(outputs)),
        (None, Some(_)) => replace_table(&text, HEADER, ""),
        (None, None) => text,
    };
    expected.selftest = outputs.cloned();
    if Manifest::parse(&written)? != expected {
        return Err(BundleError::new(BundleErrorKind::Parse, MANIFEST)
            .because("its [selftest] is not written in a way that can be replaced; remove it first"));
    }
    write_atomically(dir, &written)?;
    Ok(Bundle::open(dir, Verify::Sizes)?.fingerprint().to_owned())
}

fn table(outputs: &StoredOutputs) -> String {
    let mut text = format!("{HEADER}\n");
    for (name, print) in outputs {
        let TensorPrint { shape, rms, projections } = print;
        let key = toml::Value::from(name.as_str());
        let _ = writeln!(text, "{key} = {{ shape = {shape:?}, rms = {rms:?}, projections = {projections:?} }}");
    }
    text
}
