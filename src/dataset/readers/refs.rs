//! Referring expressions by annotation id, joined with COCO's instances.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::coco::{Instances, Wanted};
use super::damage::Damage;
use super::error::{ReadError, ReadErrorKind};
use super::image::{ImageId, ImageRef, below};
use super::record::{Content, Files, Record, Referring, Source, SourceExpression, SourceSplit, Target};

/// One entry of a file of expressions.
#[derive(Debug)]
pub(super) struct Ref {
    pub id: u64,
    pub image: u64,
    /// None, one or many.
    pub annotations: Vec<u64>,
    pub split: SourceSplit,
    /// At least one.
    pub expressions: Vec<SourceExpression>,
}

impl Ref {
    pub(super) fn name(id: u64) -> String {
        format!("ref {id}")
    }
}

/// Finds the pictures and targets of every ref.
///
/// # Errors
/// Those of the instances; [`ReadErrorKind::Unknown`] and [`ReadErrorKind::Duplicate`] naming the ref.
pub(super) fn join(
    source: Source,
    files: &Files,
    mut refs: Vec<Ref>,
    damage: &mut Damage<'_>,
) -> Result<Vec<Record>, ReadError> {
    let folder = files.records.parent().unwrap_or(Path::new(""));
    let instances_path = files.instances.clone().unwrap_or_else(|| folder.join("instances.json"));
    let images = files.images.clone().unwrap_or_else(|| folder.to_owned());
    let mut ids = HashSet::new();
    let twice: Vec<u64> = refs.iter().map(|r| r.id).filter(|id| !ids.insert(*id)).collect();
    for id in twice {
        damage.pass::<()>(Err(ReadError::new(ReadErrorKind::Duplicate, &files.records).of(Ref::name(id))))?;
    }
    // Of those that share an id the first is kept: `ids` holds each id once.
    refs.retain(|r| ids.remove(&r.id));
    let wanted = Wanted {
        images: refs.iter().map(|r| r.image).collect(),
        annotations: refs.iter().flat_map(|r| r.annotations.iter().copied()).collect(),
    };
    let join = Join { instances: &Instances::read(&instances_path, &wanted, damage)?, instances_path, images, source };
    let mut records = Vec::with_capacity(refs.len());
    for reference in refs {
        records.extend(damage.pass(join.record(&files.records, reference))?);
    }
    Ok(records)
}

struct Join<'a> {
    source: Source,
    instances: &'a Instances,
    instances_path: PathBuf,
    images: PathBuf,
}

impl Join<'_> {
    fn record(&self, file: &Path, reference: Ref) -> Result<Record, ReadError> {
        let Ref { id, image, annotations, split, expressions } = reference;
        let name = Ref::name(id);
        let picture = self.instances.images.get(&image).ok_or_else(|| {
            let reason = format!("image {image} is not in {}", self.instances_path.display());
            ReadError::new(ReadErrorKind::Unknown, file).of(name.as_str()).because(reason)
        })?;
        let path = below(&self.images, &picture.file_name).ok_or_else(|| {
            let error = ReadError::new(ReadErrorKind::Path, &self.instances_path).of(format!("image {image}"));
            error.because(picture.file_name.clone())
        })?;
        let targets = annotations.iter().map(|a| self.target(*a, image)).collect::<Result<_, _>>();
        let targets = targets.map_err(|e| ReadError::new(ReadErrorKind::Unknown, file).of(name.as_str()).because(e))?;
        let image = ImageRef { id: ImageId::Coco(image), path, size: Some(picture.size) };
        let content = Content::Referring(Referring { expressions, targets, ignored: None });
        Ok(Record { source: self.source, name, split, image, content })
    }

    fn target(&self, id: u64, image: u64) -> Result<Arc<Target>, String> {
        let file = self.instances_path.display();
        match self.instances.annotations.get(&id) {
            None => Err(format!("annotation {id} is not in {file}")),
            Some(found) if found.image != image => {
                Err(format!("annotation {id} is of image {} in {file}, expected {image}", found.image))
            }
            Some(found) => Ok(Arc::clone(&found.target)),
        }
    }
}
