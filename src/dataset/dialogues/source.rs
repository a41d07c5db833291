//! Sources, loaded: pictures with what is said of them, less what leaks.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use super::super::readers::{self, Content, Files, HeldOut, ImageRef, ReadError, Record, SourceSplit};
use super::super::{SceneGenerator, SceneOptions};
use super::spec::{self, Origin, SourceSpec};
use super::tally::{Reason, Tally};
use super::{DialogueError, plan};

/// A source that dialogues can be drawn from.
#[derive(Debug)]
pub struct Source {
    pub(super) label: String,
    pub(super) weight: f64,
    pub(super) pool: Pool,
    /// What was counted while it was loaded.
    pub(super) loaded: Tally,
}

/// What there is to draw.
#[derive(Debug)]
pub(super) enum Pool {
    /// Pictures with their records, in the order in which the data set names them first.
    Pictures(Vec<Pictured>),
    /// Scene after scene, without end.
    Scenes { generator: SceneGenerator, options: SceneOptions },
}

/// All records of one picture.
#[derive(Debug)]
pub(super) struct Pictured {
    pub(super) image: ImageRef,
    pub(super) records: Vec<Record>,
}

/// A data set whose held-out pictures may not be trained on: `FORMAT:PATH[@SPLIT]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excluded {
    format: readers::Source,
    path: PathBuf,
    /// Of a data set whose records do not say it. Default: [`SourceSplit::Val`], for it is given to be held out.
    split: SourceSplit,
}

impl std::str::FromStr for Excluded {
    type Err = String;

    /// # Errors
    /// What was expected, in words.
    fn from_str(text: &str) -> Result<Self, String> {
        let (format, rest) = text.split_once(':').ok_or("FORMAT:PATH is expected, as in `refcoco:refs(unc).p`")?;
        let format = <readers::Source as clap::ValueEnum>::from_str(format, false)
            .map_err(|_| format!("there is no format `{format}`; `dataset inspect --help` lists them"))?;
        let (path, split) = spec::split(rest);
        Ok(Self { format, path: path.into(), split: split.unwrap_or(SourceSplit::Val) })
    }
}

/// Where the files of a format lie that are not beside its records: COCO's instances, and the folder of pictures.
pub type Places = BTreeMap<String, PathBuf>;

/// How sources are loaded.
pub struct Loading<'a> {
    /// COCO's annotations by format. Default: `instances.json` beside the records.
    pub instances: &'a Places,
    /// Folder of the pictures by format. Default: that of the records.
    pub images: &'a Places,
    /// Data sets whose held-out pictures may not be trained on, beside those of the sources themselves.
    pub excluded: &'a [Excluded],
    /// Leave damaged records out, rather than stop.
    pub skip_damaged: bool,
    /// Size and content of the scenes.
    pub scenes: &'a SceneOptions,
}

/// Loads `specs`; `scenes` makes the generator of a split. What was left out as damaged comes with it.
///
/// # Errors
/// Those of reading; [`DialogueError::Empty`].
pub fn load(
    specs: &[SourceSpec],
    loading: &Loading<'_>,
    mut scenes: impl FnMut(super::super::Split) -> Result<SceneGenerator, DialogueError>,
) -> Result<(Vec<Source>, Vec<ReadError>), DialogueError> {
    let (mut held_out, mut damaged) = (HeldOut::default(), Vec::new());
    for Excluded { format, path, split } in loading.excluded {
        let files = loading.files(*format, path.clone(), *split);
        held_out.add(&loading.read(*format, &files, &mut Vec::new())?.records);
    }
    let mut collections = Vec::with_capacity(specs.len());
    for spec in specs {
        collections.push(match &spec.origin {
            Origin::Scenes(_) => None,
            Origin::Records { format, path, split } => {
                let before = damaged.len();
                let files = loading.files(*format, path.clone(), *split);
                let collection = loading.read(*format, &files, &mut damaged)?;
                held_out.add(&collection.records);
                Some((collection, damaged.len() - before))
            }
        });
    }
    let mut sources: Vec<Source> = Vec::with_capacity(specs.len());
    for (spec, collection) in specs.iter().zip(collections) {
        let mut loaded = Tally::default();
        let pool = match (&spec.origin, collection) {
            (Origin::Records { split, .. }, Some((collection, damages))) => {
                loaded.damaged = damages as u64;
                Pool::Pictures(pictures(collection.records, *split, &held_out, &mut loaded))
            }
            (Origin::Scenes(split), _) => Pool::Scenes { generator: scenes(*split)?, options: loading.scenes.clone() },
            (Origin::Records { .. }, None) => unreachable!("every data set was read above"),
        };
        let label = plan::label(&spec.origin.format(), sources.iter().map(|s| s.label.as_str()));
        if matches!(&pool, Pool::Pictures(pictures) if pictures.is_empty()) {
            return Err(DialogueError::Empty(label));
        }
        sources.push(Source { label, weight: spec.weight, pool, loaded });
    }
    Ok((sources, damaged))
}

impl Loading<'_> {
    fn files(&self, format: readers::Source, records: PathBuf, split: SourceSplit) -> Files {
        let place = |places: &Places| places.get(&format.to_string()).cloned();
        Files { records, instances: place(self.instances), images: place(self.images), split: Some(split) }
    }

    fn read(
        &self,
        format: readers::Source,
        files: &Files,
        damaged: &mut Vec<ReadError>,
    ) -> Result<readers::Collection, ReadError> {
        if !self.skip_damaged {
            return readers::read(format, files);
        }
        let (collection, found) = readers::read_sound(format, files)?;
        damaged.extend(found);
        Ok(collection)
    }
}

/// The records of `split` by their picture; what leaks is counted and left out.
fn pictures(mut records: Vec<Record>, split: SourceSplit, held_out: &HeldOut, tally: &mut Tally) -> Vec<Pictured> {
    records.retain(|r| r.split == split);
    let all = said(&records);
    held_out.drop_from(&mut records);
    let left = said(&records);
    tally.read(all[0] - left[0], true);
    tally.read(all[1] - left[1], false);
    tally.drop_many(Reason::Leak, all[0] + all[1] - left[0] - left[1]);
    let (mut places, mut pictures) = (HashMap::new(), Vec::<Pictured>::new());
    for record in records {
        let at = *places.entry(record.image.path.clone()).or_insert(pictures.len());
        match pictures.get_mut(at) {
            Some(pictured) => pictured.records.push(record),
            None => pictures.push(Pictured { image: record.image.clone(), records: vec![record] }),
        }
    }
    pictures
}

/// Expressions, and conversations without masks.
fn said(records: &[Record]) -> [u64; 2] {
    records.iter().fold([0, 0], |[expressions, conversations], record| match &record.content {
        Content::Referring(referring) => [expressions + referring.expressions.len() as u64, conversations],
        Content::Dialogue(_) => [expressions, conversations + 1],
    })
}
