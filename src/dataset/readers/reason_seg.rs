//! ReasonSeg: a folder of pictures, each with a labelme file of the same name beside it.
//!
//! `text` holds the queries, `is_sentence` says what they are, `shapes` are polygons labelled `target` or `ignore`.
//! Larger shapes are painted first and smaller ones over them, so that a hole is a smaller `ignore`; a shape labelled
//! `flag` is left over from annotation. Shapes of one `group_id` are one target, others are targets of their own.
//!
//! Masks follow COCO's rule here too; the set's own scripts draw polygons with their outline, at most about half a
//! pixel wider. Larger means the area that the corners enclose, without rasterising.
//!
//! Source: "LISA: Reasoning Segmentation via Large Language Model", arXiv 2308.00692.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::damage::Damage;
use super::error::{ReadError, ReadErrorKind};
use super::image::{ImageId, ImageRef, picture_size, size_error};
use super::json::{json_error, read_bounded};
use super::record::{Content, Files, Record, Referring, Source, SourceExpression, SourceSplit, Target};
use super::region::{Layer, Region, Shape};
use crate::geometry::{Size, SourcePx};
use crate::mask::Polygon;

/// Largest annotation file that is accepted; labelme may embed the picture itself.
const MAX_BYTES: u64 = 64 << 20;
/// Endings of pictures, in the order in which they are looked for.
const PICTURES: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

#[derive(Deserialize)]
struct RawFile {
    text: Vec<String>,
    #[serde(default)]
    is_sentence: bool,
    shapes: Vec<RawShape>,
    #[serde(rename = "imageWidth")]
    width: Option<u32>,
    #[serde(rename = "imageHeight")]
    height: Option<u32>,
}

#[derive(Deserialize)]
struct RawShape {
    label: String,
    points: Vec<[f64; 2]>,
    group_id: Option<i64>,
}

/// A shape that counts: of a target, or to be ignored.
struct Painted {
    target: Option<usize>,
    polygon: Polygon,
}

/// Reads every annotation file of one split's folder, by name.
///
/// # Errors
/// Every kind but those of pickles and instances, naming the file.
pub(super) fn read(files: &Files, damage: &mut Damage<'_>) -> Result<Vec<Record>, ReadError> {
    let folder = &files.records;
    let split = match files.split {
        Some(split) => split,
        None => folder_split(folder).ok_or_else(|| {
            let reason = "the folder is not named after a split, which must be given then";
            ReadError::new(ReadErrorKind::Value, folder).because(reason)
        })?,
    };
    let io = |e| ReadError::new(ReadErrorKind::Io, folder).because(e);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    let images = files.images.as_deref().unwrap_or(folder);
    let mut records = Vec::with_capacity(paths.len());
    for path in &paths {
        records.extend(damage.pass(record(path, images, split))?);
    }
    Ok(records)
}

fn folder_split(folder: &Path) -> Option<SourceSplit> {
    SourceSplit::from_word(folder.file_name()?.to_str()?)
}

fn record(path: &Path, images: &Path, split: SourceSplit) -> Result<Record, ReadError> {
    let bytes = read_bounded(path, MAX_BYTES)?;
    let raw: RawFile = serde_json::from_str(&decode(&bytes)).map_err(|e| json_error(path, e))?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let picture = picture(images, &stem).ok_or_else(|| {
        ReadError::new(ReadErrorKind::Picture, path).because(format!("no {stem}.jpg in {}", images.display()))
    })?;
    let size = picture_size(&picture)?;
    let stated = Size::new(raw.width.unwrap_or(size.width), raw.height.unwrap_or(size.height));
    if stated != size {
        return Err(size_error(path, stated, size));
    }
    let texts = raw.text.iter().map(|t| t.trim()).filter(|t| !t.is_empty());
    let expression = |t: &str| SourceExpression { text: t.to_owned(), sentence: raw.is_sentence };
    let expressions: Vec<_> = texts.map(expression).collect();
    if expressions.is_empty() {
        return Err(ReadError::new(ReadErrorKind::Value, path).because("`text` is empty"));
    }
    let (shapes, count) = shapes(path, &raw.shapes)?;
    let targets = (0..count).map(|t| Arc::new(target(&shapes, t, size))).collect();
    let referring = Referring { expressions, targets, ignored: ignored(&shapes, size) };
    let image = ImageRef { id: ImageId::of_path(&picture), path: picture, size: Some(size) };
    Ok(Record {
        source: Source::ReasonSeg,
        name: stem.into_owned(),
        split,
        image,
        content: Content::Referring(referring),
    })
}

/// The picture named `stem`; the name has dots at times, so that endings are appended rather than exchanged.
fn picture(images: &Path, stem: &str) -> Option<PathBuf> {
    PICTURES.iter().map(|ending| images.join(format!("{stem}.{ending}"))).find(|path| path.is_file())
}

/// The shapes that count, largest first, and how many targets they make.
fn shapes(path: &Path, raw: &[RawShape]) -> Result<(Vec<Painted>, usize), ReadError> {
    let (mut shapes, mut groups, mut targets) = (Vec::new(), Vec::new(), 0);
    for (index, shape) in raw.iter().enumerate() {
        let label = shape.label.to_ascii_lowercase();
        if label == "flag" {
            continue;
        }
        let polygon = Polygon::new(shape.points.as_flattened())
            .map_err(|e| ReadError::new(ReadErrorKind::Polygon, path).of(format!("shape {index}")).because(e))?;
        let known = groups.iter().find(|(group, _)| shape.group_id == Some(*group)).map(|(_, target)| *target);
        let target = match known {
            _ if label.contains("ignore") => None,
            Some(target) => Some(target),
            None => {
                groups.extend(shape.group_id.map(|group| (group, targets)));
                targets += 1;
                Some(targets - 1)
            }
        };
        shapes.push(Painted { target, polygon });
    }
    shapes.sort_by(|a, b| b.polygon.area().total_cmp(&a.polygon.area()));
    Ok((shapes, targets))
}

/// One target: its own shapes are on, what is ignored is off where it is painted over them.
fn target(shapes: &[Painted], index: usize, size: Size<SourcePx>) -> Target {
    let own = shapes.iter().filter(|s| s.target.is_none_or(|t| t == index));
    let layers = own.map(|s| Layer { on: s.target.is_some(), polygon: s.polygon.clone() }).collect();
    Target { annotation: None, category: None, bbox: None, region: Region::new(size, Shape::Layers(layers)) }
}

/// What is ignored, where no target is painted over it.
fn ignored(shapes: &[Painted], size: Size<SourcePx>) -> Option<Region> {
    shapes.iter().any(|s| s.target.is_none()).then(|| {
        let layers = shapes.iter().map(|s| Layer { on: s.target.is_none(), polygon: s.polygon.clone() }).collect();
        Region::new(size, Shape::Layers(layers))
    })
}

/// Text of a file: UTF-8 or, as a few of the set are, Windows-1252.
fn decode(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => bytes
            .iter()
            .map(|b| WINDOWS_1252.get(usize::from(b.wrapping_sub(0x80))).copied().unwrap_or(char::from(*b)))
            .collect(),
    }
}

/// Windows-1252 from 0x80 on, as far as it differs from Latin-1; what it leaves open stays Latin-1.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}', '‘', '’',
    '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];
