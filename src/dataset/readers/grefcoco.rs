//! gRefCOCO: refs as JSON, with no target (`ann_id` is -1), one or several.
//!
//! Source: "GRES: Generalized Referring Expression Segmentation", arXiv 2306.00968.

use serde::Deserialize;

use super::damage::Damage;
use super::error::{ReadError, ReadErrorKind};
use super::json;
use super::record::{Files, SourceExpression, SourceSplit};
use super::refcoco::cleaned;
use super::refs::Ref;

/// How the file says that nothing is referred to.
const NO_TARGET: i64 = -1;

#[derive(Deserialize)]
struct RawRef {
    ref_id: u64,
    image_id: u64,
    ann_id: OneOrMany,
    #[serde(default)]
    no_target: Option<bool>,
    split: String,
    sentences: Vec<RawSentence>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(i64),
    Many(Vec<i64>),
}

#[derive(Deserialize)]
struct RawSentence {
    sent: String,
    raw: Option<String>,
}

/// Reads every ref.
///
/// # Errors
/// [`ReadErrorKind::Json`] and [`ReadErrorKind::Value`], naming the entry or ref.
pub(super) fn read(files: &Files, damage: &mut Damage<'_>) -> Result<Vec<Ref>, ReadError> {
    let path = &files.records;
    let mut refs = Vec::new();
    json::each(path, damage, |_, raw: RawRef| {
        let name = Ref::name(raw.ref_id);
        let reference = reference(raw);
        refs.push(reference.map_err(|reason| ReadError::new(ReadErrorKind::Value, path).of(name).because(reason))?);
        Ok(())
    })?;
    Ok(refs)
}

fn reference(raw: RawRef) -> Result<Ref, String> {
    let split = SourceSplit::from_word(&raw.split).ok_or_else(|| format!("there is no split `{}`", raw.split))?;
    let all = match raw.ann_id {
        OneOrMany::One(id) => vec![id],
        OneOrMany::Many(ids) => ids,
    };
    let annotations = all.into_iter().filter(|id| *id != NO_TARGET).map(u64::try_from);
    let annotations: Vec<u64> = annotations.collect::<Result<_, _>>().map_err(|_| "`ann_id` is negative")?;
    if raw.no_target.is_some_and(|none| none != annotations.is_empty()) {
        return Err("`no_target` and `ann_id` contradict each other".to_owned());
    }
    if raw.sentences.is_empty() {
        return Err("`sentences` is empty".to_owned());
    }
    let expression = |s: &RawSentence| {
        let text = cleaned(&s.sent, s.raw.as_deref()).ok_or("a sentence is empty")?.to_owned();
        Ok(SourceExpression { text, sentence: false })
    };
    let expressions = raw.sentences.iter().map(expression).collect::<Result<_, String>>()?;
    Ok(Ref { id: raw.ref_id, image: raw.image_id, annotations, split, expressions })
}
