//! Conversations about pictures without masks, in LLaVA's format: they keep general ability while referring is learned.
//!
//! A list of `{id, image, conversations: [{from: human | gpt, value}]}`; `<image>` in a human turn stands for the
//! picture. Entries without a picture, which some mixtures have, are counted and left out.
//!
//! Source: "Visual Instruction Tuning", arXiv 2304.08485.

use std::path::Path;

use serde::Deserialize;

use super::damage::Damage;
use super::error::{ReadError, ReadErrorKind};
use super::image::{ImageId, ImageRef, below};
use super::json;
use super::record::{Content, Files, Record, Source, SourceSplit, Speaker, Turn};

/// Where the picture goes.
const PLACEHOLDER: &str = "<image>";

#[derive(Deserialize)]
struct RawEntry {
    image: Option<String>,
    conversations: Vec<RawTurn>,
}

#[derive(Deserialize)]
struct RawTurn {
    from: RawSpeaker,
    value: String,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum RawSpeaker {
    Human,
    Gpt,
}

/// Reads every conversation; also how many entries have no picture.
///
/// # Errors
/// [`ReadErrorKind::Json`], [`ReadErrorKind::Path`] and [`ReadErrorKind::Value`], naming the entry.
pub(super) fn read(files: &Files, damage: &mut Damage<'_>) -> Result<(Vec<Record>, usize), ReadError> {
    let path = &files.records;
    let images = files.images.as_deref().unwrap_or(path.parent().unwrap_or(Path::new("")));
    let split = files.split.unwrap_or(SourceSplit::Train);
    let (mut records, mut without) = (Vec::new(), 0);
    json::each(path, damage, |index, raw: RawEntry| {
        let name = format!("entry {index}");
        let Some(image) = raw.image else {
            without += 1;
            return Ok(());
        };
        let failed = |kind, reason: String| ReadError::new(kind, path).of(name.as_str()).because(reason);
        let image = below(images, &image).ok_or_else(|| failed(ReadErrorKind::Path, image))?;
        let turns = turns(raw.conversations).map_err(|reason| failed(ReadErrorKind::Value, reason.to_owned()))?;
        let image = ImageRef { id: ImageId::of_path(&image), path: image, size: None };
        records.push(Record { source: Source::Llava, name, split, image, content: Content::Dialogue(turns) });
        Ok(())
    })?;
    Ok((records, without))
}

fn turns(raw: Vec<RawTurn>) -> Result<Vec<Turn>, &'static str> {
    if raw.is_empty() || !raw.len().is_multiple_of(2) {
        return Err("turns are not pairs of question and answer");
    }
    let (mut turns, mut placeholders) = (Vec::with_capacity(raw.len()), 0);
    for (index, turn) in raw.into_iter().enumerate() {
        let (speaker, text) = match (index % 2, turn.from) {
            (0, RawSpeaker::Human) => {
                placeholders += turn.value.matches(PLACEHOLDER).count();
                (Speaker::Human, turn.value.replace(PLACEHOLDER, "").trim().to_owned())
            }
            (1, RawSpeaker::Gpt) => (Speaker::Assistant, turn.value.trim().to_owned()),
            _ => return Err("turns do not alternate, human first"),
        };
        if text.is_empty() {
            return Err("a turn is empty");
        }
        turns.push(Turn { speaker, text });
    }
    match placeholders {
        1 => Ok(turns),
        _ => Err("exactly one `<image>` is expected in the human's turns"),
    }
}
