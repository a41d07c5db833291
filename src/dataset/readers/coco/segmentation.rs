//! COCO's `segmentation`: a list of polygons, one run-length encoded mask, or a list of those.

use std::path::Path;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::super::error::{ReadError, ReadErrorKind};
use super::super::image::{accept, size_error};
use super::super::region::{Region, Shape};
use crate::geometry::{Size, SourcePx};
use crate::mask::{Polygon, Rle, RleError};

/// As the file has it; a single run-length mask is a list of one.
#[derive(Debug)]
pub(super) struct Segmentation(Vec<Part>);

#[derive(Debug)]
enum Part {
    Polygon(Vec<f64>),
    Runs(RawRle),
}

/// `size` is `[height, width]`.
#[derive(Debug, Deserialize)]
struct RawRle {
    size: [u64; 2],
    counts: Counts,
}

#[derive(Debug)]
enum Counts {
    /// A compressed string.
    Text(String),
    Numbers(Vec<u32>),
}

/// Checks a segmentation of a picture of `size`.
pub(super) fn region(path: &Path, raw: Option<Segmentation>, size: Size<SourcePx>) -> Result<Region, ReadError> {
    let value = |reason: &'static str| ReadError::new(ReadErrorKind::Value, path).because(reason);
    let parts = raw.map(|s| s.0).unwrap_or_default();
    if parts.is_empty() {
        return Err(value("there is no segmentation"));
    }
    let (mut polygons, mut runs) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            Part::Polygon(corners) => polygons
                .push(Polygon::new(&corners).map_err(|e| ReadError::new(ReadErrorKind::Polygon, path).because(e))?),
            Part::Runs(rle) => runs.push(run_lengths(path, rle, size)?),
        }
    }
    match (polygons.is_empty(), runs.is_empty()) {
        (false, true) => Ok(Region::new(size, Shape::Polygons(polygons))),
        (true, _) => Ok(Region::new(size, Shape::Runs(runs))),
        (false, false) => Err(value("polygons and run lengths in one segmentation")),
    }
}

fn run_lengths(path: &Path, raw: RawRle, size: Size<SourcePx>) -> Result<Rle, ReadError> {
    let [height, width] = raw.size;
    let own = accept(width, height).map_err(|e| ReadError::new(ReadErrorKind::Size, path).because(e))?;
    if own != size {
        return Err(size_error(path, own, size));
    }
    let rle: Result<Rle, RleError> = match raw.counts {
        Counts::Text(text) => Rle::from_coco_string(&text, size),
        Counts::Numbers(counts) => Rle::new(size, counts),
    };
    rle.map_err(|e| ReadError::new(ReadErrorKind::RunLengths, path).because(e))
}

impl<'de> Deserialize<'de> for Segmentation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Segmentation;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of polygons or run lengths")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, parts: A) -> Result<Segmentation, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(parts)).map(Segmentation)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Segmentation, A::Error> {
                let rle = RawRle::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Segmentation(vec![Part::Runs(rle)]))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Part;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a polygon or run lengths")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, corners: A) -> Result<Part, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(corners)).map(Part::Polygon)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Part, A::Error> {
                RawRle::deserialize(MapAccessDeserializer::new(map)).map(Part::Runs)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Counts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Counts;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a compressed string or a list of run lengths")
            }

            fn visit_str<E>(self, text: &str) -> Result<Counts, E> {
                Ok(Counts::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, counts: A) -> Result<Counts, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(counts)).map(Counts::Numbers)
            }
        }
        deserializer.deserialize_any(Either)
    }
}
