//! COCO's `instances.json`: pictures, categories and annotations with boxes and masks.
//!
//! The file is parsed once, as a stream, and only what is referred to is kept. Masks stay polygons and run lengths;
//! they are checked here and rasterised when asked for.
//!
//! Source: the COCO data format, <https://cocodataset.org/#format-data>.

mod parse;
mod segmentation;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use self::parse::{RawAnnotation, RawImage};
use super::damage::Damage;
use super::error::{ReadError, ReadErrorKind};
use super::image::accept;
use super::json;
use super::record::Target;
use crate::geometry::{BBox, Size, SourcePx};

/// The ids that records refer to.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub images: HashSet<u64>,
    pub annotations: HashSet<u64>,
}

/// What a file says of the wanted ids.
#[derive(Debug)]
pub(super) struct Instances {
    pub images: HashMap<u64, Picture>,
    pub annotations: HashMap<u64, Annotation>,
}

/// A picture of the file.
#[derive(Debug)]
pub(super) struct Picture {
    pub file_name: String,
    pub size: Size<SourcePx>,
}

/// An annotation of the file.
#[derive(Debug)]
pub(super) struct Annotation {
    pub image: u64,
    pub target: Arc<Target>,
}

impl Instances {
    /// Reads what is wanted of the file at `path`.
    ///
    /// # Errors
    /// Every kind but those of pickles and pictures, naming the image or annotation.
    pub(super) fn read(path: &Path, wanted: &Wanted, damage: &mut Damage<'_>) -> Result<Self, ReadError> {
        let raw = json::stream(path, parse::File { wanted })?;
        let mut images = HashMap::with_capacity(raw.images.len());
        for RawImage { id, file_name, width, height } in raw.images {
            let name = format!("image {id}");
            let size = accept(width, height);
            let size = size.map_err(|e| ReadError::new(ReadErrorKind::Size, path).of(name.as_str()).because(e));
            let Some(size) = damage.pass(size)? else { continue };
            if images.insert(id, Picture { file_name, size }).is_some() {
                damage.pass::<()>(Err(ReadError::new(ReadErrorKind::Duplicate, path).of(name)))?;
            }
        }
        let names: HashMap<u64, Arc<str>> = raw.categories.into_iter().map(|c| (c.id, c.name.into())).collect();
        let mut annotations = HashMap::with_capacity(raw.annotations.len());
        for annotation in raw.annotations {
            let (id, image) = (annotation.id, annotation.image_id);
            let name = format!("annotation {id}");
            let target = target(path, annotation, &images, &names).map_err(|e| e.of(name.as_str()));
            let Some(target) = damage.pass(target)? else { continue };
            if annotations.insert(id, Annotation { image, target: Arc::new(target) }).is_some() {
                damage.pass::<()>(Err(ReadError::new(ReadErrorKind::Duplicate, path).of(name)))?;
            }
        }
        Ok(Self { images, annotations })
    }
}

fn target(
    path: &Path,
    raw: RawAnnotation,
    images: &HashMap<u64, Picture>,
    categories: &HashMap<u64, Arc<str>>,
) -> Result<Target, ReadError> {
    let unknown = |what: String| ReadError::new(ReadErrorKind::Unknown, path).because(what);
    let image = raw.image_id;
    let size = images.get(&image).ok_or_else(|| unknown(format!("no record and image {image} agree on it")))?.size;
    // A file without any categories says nothing about them; one with some says all.
    let category = match raw.category_id {
        Some(id) if !categories.is_empty() => {
            Some(Arc::clone(categories.get(&id).ok_or_else(|| unknown(format!("there is no category {id}")))?))
        }
        _ => None,
    };
    let bbox = raw.bbox.map(|b| bbox(path, b, size)).transpose()?;
    let region = segmentation::region(path, raw.segmentation, size)?;
    Ok(Target { annotation: Some(raw.id), category, bbox, region })
}

/// COCO's `[x, y, width, height]`, clipped to the picture.
fn bbox(path: &Path, [x, y, w, h]: [f64; 4], size: Size<SourcePx>) -> Result<BBox<SourcePx>, ReadError> {
    if !(w >= 0.0 && h >= 0.0) {
        let reason = format!("box sides {w} x {h}: negative");
        return Err(ReadError::new(ReadErrorKind::Value, path).because(reason));
    }
    Ok(BBox::new(x as f32, y as f32, (x + w) as f32, (y + h) as f32).clipped(size))
}
