//! The file's three lists, filtered while they are parsed.

use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Wanted;
use super::segmentation::Segmentation;

#[derive(Debug, Deserialize)]
pub(super) struct RawImage {
    pub id: u64,
    pub file_name: String,
    pub width: u64,
    pub height: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct RawAnnotation {
    pub id: u64,
    pub image_id: u64,
    pub category_id: Option<u64>,
    pub bbox: Option<[f64; 4]>,
    pub segmentation: Option<Segmentation>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RawCategory {
    pub id: u64,
    pub name: String,
}

#[derive(Debug, Default)]
pub(super) struct RawFile {
    pub images: Vec<RawImage>,
    pub annotations: Vec<RawAnnotation>,
    pub categories: Vec<RawCategory>,
}

/// Parses a whole file.
pub(super) struct File<'a> {
    pub wanted: &'a Wanted,
}

impl<'de> DeserializeSeed<'de> for File<'_> {
    type Value = RawFile;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawFile, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for File<'_> {
    type Value = RawFile;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("COCO's instances")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawFile, A::Error> {
        let (mut images, mut annotations, mut categories) = (None, None, Vec::new());
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "images" => {
                    let kept = Kept::new(|i: &RawImage| self.wanted.images.contains(&i.id));
                    images = Some(map.next_value_seed(kept)?);
                }
                "annotations" => {
                    let kept = Kept::new(|a: &RawAnnotation| self.wanted.annotations.contains(&a.id));
                    annotations = Some(map.next_value_seed(kept)?);
                }
                "categories" => categories = map.next_value()?,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let missing = serde::de::Error::missing_field;
        let (images, annotations) =
            (images.ok_or_else(|| missing("images"))?, annotations.ok_or_else(|| missing("annotations"))?);
        Ok(RawFile { images, annotations, categories })
    }
}

/// A list of which only what the predicate names is kept.
struct Kept<T, F> {
    keep: F,
    item: PhantomData<T>,
}

impl<T, F: Fn(&T) -> bool> Kept<T, F> {
    fn new(keep: F) -> Self {
        Self { keep, item: PhantomData }
    }
}

impl<'de, T: Deserialize<'de>, F: Fn(&T) -> bool> DeserializeSeed<'de> for Kept<T, F> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Deserialize<'de>, F: Fn(&T) -> bool> Visitor<'de> for Kept<T, F> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut kept = Vec::new();
        while let Some(item) = items.next_element()? {
            if (self.keep)(&item) {
                kept.push(item);
            }
        }
        Ok(kept)
    }
}
