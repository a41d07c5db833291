//! A data set of the field, as its reader gives it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Picture, Sample, Source, SourceError};
use crate::dataset::readers::{self, Files, Record, Referring, SourceSplit};
use crate::frame::Image;
use crate::geometry::{Size, SourcePx};
use crate::prompt::CountHint;

/// The records of one split, by picture.
pub struct Collected {
    format: readers::Source,
    split: SourceSplit,
    records: Vec<Record>,
    /// Records of each picture, in the order in which pictures occur.
    by_picture: Vec<Vec<usize>>,
    first: usize,
    file: PathBuf,
}

impl Collected {
    /// Reads the data set, and keeps of `split` at most `pictures` pictures, the first of them picture `first`.
    ///
    /// # Errors
    /// A damaged data set, and one that has no expressions in that split.
    pub fn read(
        format: readers::Source,
        files: &Files,
        split: SourceSplit,
        (first, pictures): (usize, usize),
    ) -> Result<Self, SourceError> {
        let mut records = readers::read(format, files)?.records;
        let there: std::collections::BTreeSet<&str> = records.iter().map(|r| r.split.word()).collect();
        let there = there.into_iter().collect::<Vec<_>>().join(", ");
        records.retain(|r| r.split == split && r.referring().is_some());
        let (mut by_picture, mut places): (Vec<Vec<usize>>, HashMap<&Path, usize>) = (Vec::new(), HashMap::new());
        for (i, record) in records.iter().enumerate() {
            let place = *places.entry(&record.image.path).or_insert(by_picture.len());
            if place == by_picture.len() {
                by_picture.push(Vec::new());
            }
            by_picture[place].push(i);
        }
        let all = by_picture.len();
        let by_picture: Vec<_> = by_picture.into_iter().skip(first).take(pictures).collect();
        if by_picture.is_empty() {
            let why = match all {
                0 => format!("no record of it has masks, the file has: {there}"),
                n => format!("it has {n} pictures, and picture {first} was to be the first"),
            };
            return Err(SourceError::Empty { split: split.word(), why });
        }
        Ok(Self { format, split, records, by_picture, first, file: files.records.clone() })
    }

    /// How many targets a command may have, as its asker knows: those of RefCOCO and its kin exactly one, of ReasonSeg
    /// at least one, of gRefCOCO any number. Source: arXiv 2409.10542, section 3.4.
    fn hint(&self) -> CountHint {
        match self.format {
            readers::Source::GRefCoco => CountHint::NoneOrMore,
            readers::Source::ReasonSeg => CountHint::OneOrMore,
            _ => CountHint::One,
        }
    }
}

impl Source for Collected {
    fn pictures(&self) -> u64 {
        self.by_picture.len() as u64
    }

    fn describe(&self) -> Value {
        json!({ "data": self.format.to_string(), "split": self.split.word(), "first": self.first,
            "pictures": self.by_picture.len(), "records": self.file.display().to_string() })
    }

    fn picture(&self, index: u64) -> Result<Picture, SourceError> {
        let records: Vec<&Record> = self.by_picture[index as usize].iter().map(|&i| &self.records[i]).collect();
        let image = open(records[0])?;
        let mut samples = Vec::new();
        for record in records {
            let referring = record.referring().expect("only such records are kept");
            samples.extend(self.samples(record, referring, image.size())?);
        }
        Ok(Picture { image, samples })
    }
}

impl Collected {
    fn samples(&self, record: &Record, of: &Referring, size: Size<SourcePx>) -> Result<Vec<Sample>, SourceError> {
        let targets: Vec<_> = of.targets.iter().map(|t| t.mask()).collect();
        let ignored = of.ignored.as_ref().map(|region| region.mask());
        if targets.iter().chain(&ignored).any(|mask| mask.size() != size) {
            return Err(SourceError::Size { path: record.image.path.clone(), record: record.name.clone() });
        }
        let count = match targets.len() {
            0 => "none",
            1 => "one",
            _ => "several",
        };
        let sample = |(i, e): (usize, &readers::SourceExpression)| Sample {
            id: format!("{}, {i}", record.name),
            expression: e.text.clone(),
            kind: if e.sentence { "sentence" } else { count }.to_owned(),
            near_miss: false,
            hint: self.hint(),
            targets: targets.clone(),
            hidden: None,
            ignored: ignored.clone(),
        };
        Ok(of.expressions.iter().enumerate().map(sample).collect())
    }
}

/// Decodes a record's picture; its header is checked first, so that its size is within the limits.
fn open(record: &Record) -> Result<Image, SourceError> {
    let path = &record.image.path;
    record.image.check()?;
    let error = |source| SourceError::Decode { path: path.clone(), record: record.name.clone(), source };
    let reader = image::ImageReader::open(path).and_then(|r| r.with_guessed_format()).map_err(|e| error(e.into()))?;
    let picture = reader.decode().map_err(error)?.into_rgb8();
    let size = Size::new(picture.width(), picture.height());
    Ok(Image::from_rgb(size, picture.into_raw()).expect("a decoded picture fills its size"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn fixture(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dataset").join(path)
    }

    fn files(records: PathBuf, images: Option<&Path>) -> Files {
        Files { records, instances: None, images: images.map(Path::to_owned), split: None }
    }

    /// The pictures that the small data sets name, in grey.
    fn pictures(names: &[(&str, u32, u32)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, width, height) in names {
            image::RgbImage::from_pixel(*width, *height, image::Rgb([90; 3]))
                .save(folder.path().join(name))
                .expect("saves");
        }
        folder
    }

    #[test]
    fn refcoco_and_grefcoco_give_pictures_with_masks() {
        let records = readers::read(readers::Source::GRefCoco, &files(fixture("grefcoco/grefs(unc).json"), None));
        let records = records.expect("reads").records;
        let named: Vec<_> = records
            .iter()
            .map(|r| (r.image.path.file_name().expect("a name").to_str().expect("UTF-8"), r.image.size.expect("known")))
            .map(|(name, size)| (name, size.width, size.height))
            .collect();
        let folder = pictures(&named);
        let files = files(fixture("grefcoco/grefs(unc).json"), Some(folder.path()));
        let mut seen = Vec::new();
        for split in SourceSplit::ALL {
            let Ok(source) = Collected::read(readers::Source::GRefCoco, &files, split, (0, 100)) else { continue };
            for index in 0..source.pictures() {
                let picture = source.picture(index).expect("opens");
                for s in picture.samples {
                    assert_eq!(s.hint, CountHint::NoneOrMore);
                    assert!(s.targets.iter().all(|m| m.size() == picture.image.size()));
                    seen.push((s.kind.clone(), s.targets.len()));
                }
            }
        }
        assert!(
            seen.iter().any(|(k, n)| k == "several" && *n == 2) && seen.iter().any(|(k, n)| k == "none" && *n == 0)
        );
    }

    #[test]
    fn reason_seg_knows_sentences_and_what_to_ignore() {
        let files = files(fixture("reasonseg/train"), None);
        let source = Collected::read(readers::Source::ReasonSeg, &files, SourceSplit::Train, (0, 9)).expect("reads");
        let picture = source.picture(0).expect("opens");
        assert_eq!(picture.samples.len(), 2);
        let s = &picture.samples[0];
        assert_eq!((s.kind.as_str(), s.hint, s.targets.len()), ("sentence", CountHint::OneOrMore, 2));
        assert_eq!(s.ignored.as_ref().map(|m| m.area()), Some(16));
        assert_eq!(source.describe()["data"], "reasonseg");
    }

    #[test]
    fn missing_and_wrong_pictures_and_empty_splits_are_errors_with_a_place() {
        let empty = tempfile::tempdir().expect("a folder");
        let files = files(fixture("refcoco/refs(unc).p"), Some(empty.path()));
        let read = |split| Collected::read(readers::Source::RefCoco, &files, split, (0, 10));
        let source = read(SourceSplit::Val).expect("reads");
        assert!(source.picture(0).expect_err("is missing").to_string().contains("look into picture"));
        let path = &source.records[0].image.path;
        fs::write(path, b"no picture").expect("writes");
        assert!(source.picture(0).is_err());
        image::RgbImage::new(3, 3).save_with_format(path, image::ImageFormat::Png).expect("saves");
        assert!(source.picture(0).expect_err("another size").to_string().contains("check size"));
        let error = read(SourceSplit::TestB).err().expect("has none").to_string();
        assert!(error.contains("`testB`") && error.contains("testA, train, val"), "{error}");
        let beyond = Collected::read(readers::Source::RefCoco, &files, SourceSplit::Val, (5, 1));
        assert!(beyond.err().expect("has one").to_string().contains("it has 1 pictures"));
        let llava = Files { records: fixture("llava/llava_instruct.json"), images: None, ..files.clone() };
        let error =
            Collected::read(readers::Source::Llava, &llava, SourceSplit::Train, (0, 1)).err().expect("no masks");
        assert!(error.to_string().contains("no record of it has masks"), "{error}");
    }
}
