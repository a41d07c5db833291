//! What `sam4mllm eval` answers: rendered scenes, or a data set of the field.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::dataset::readers::{self, Files, SourceSplit};
use crate::dataset::{Assets, Split};
use crate::eval::{Collected, Source, Tabletop, TabletopOptions};

/// Which samples.
#[derive(Debug, clap::Args)]
pub(super) struct DataArgs {
    /// `tabletop`, or a format and the file of records, as in refcoco:refs(unc).p; formats are those of `dataset inspect`.
    #[arg(long, value_name = "FORMAT[:RECORDS]", default_value = "tabletop", value_parser = parse_data)]
    data: Data,
    /// COCO's annotations. Default: instances.json beside the records.
    #[arg(long)]
    instances: Option<PathBuf>,
    /// Folder of the pictures. Default: that of the records.
    #[arg(long)]
    images: Option<PathBuf>,
    /// Split to answer; `test` of the scenes is held out and fixed. Default: test of the scenes, val of a data set; with
    /// --fit and --sweep val.
    #[arg(long, value_enum)]
    split: Option<SourceSplit>,
    /// Scenes or pictures of the split.
    #[arg(long, alias = "pictures", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    scenes: u64,
    /// First scene or picture.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..1 << 40))]
    first: u64,
    /// Expressions a scene.
    #[arg(long, default_value_t = 4)]
    expressions: usize,
    /// Expressions a scene that say what is not meant ("the mug, not the red one"), besides.
    #[arg(long, default_value_t = 0)]
    exclusions: usize,
    /// Longest side of a scene in pixels.
    #[arg(long, default_value_t = 320, value_parser = clap::value_parser!(u32).range(16..=2048))]
    side: u32,
    /// Folder of the scenes' sprites and object table.
    #[arg(long, default_value = "engines/tabletop")]
    assets: PathBuf,
}

#[derive(Debug, Clone, PartialEq)]
enum Data {
    Tabletop,
    Set(readers::Source, PathBuf),
}

fn parse_data(text: &str) -> Result<Data, String> {
    if text == "tabletop" {
        return Ok(Data::Tabletop);
    }
    let expected = "tabletop, or a format and a path are expected, as in refcoco:refs(unc).p";
    let (format, path) = text.split_once(':').ok_or(expected)?;
    let format = <readers::Source as clap::ValueEnum>::from_str(format, false)
        .map_err(|_| format!("`{format}` is no format that `dataset inspect` knows"))?;
    match format {
        readers::Source::Llava => Err("llava has no masks to compare with".to_owned()),
        _ if path.is_empty() => Err(expected.to_owned()),
        format => Ok(Data::Set(format, path.into())),
    }
}

impl DataArgs {
    /// The split of clips, the first of them, and the folder of what they are drawn from.
    pub fn clips(&self) -> anyhow::Result<(Split, u64, &Path)> {
        Ok((super::clips::split(self.split)?, self.first, &self.assets))
    }

    /// Opens the source. Where something is `tuned` on it, it may only be a val split: a figure on what one has tuned on
    /// says nothing.
    pub(super) fn open(&self, tuned: bool) -> anyhow::Result<Box<dyn Source>> {
        let usual = if tuned || self.data != Data::Tabletop { SourceSplit::Val } else { SourceSplit::Test };
        let split = self.split.unwrap_or(usual);
        if tuned && split != SourceSplit::Val {
            bail!("fit or sweep on split `{}`: only val is for tuning, test is for reporting", split.word());
        }
        match &self.data {
            Data::Tabletop => {
                let split = match split {
                    SourceSplit::Train => Split::Train,
                    SourceSplit::Val => Split::Val,
                    SourceSplit::Test => Split::Test,
                    SourceSplit::TestA | SourceSplit::TestB => {
                        bail!("open split `{}`: the scenes have none", split.word())
                    }
                };
                let assets = Assets::load(&self.assets).context("load the scenes' assets")?;
                let Self { first, scenes, expressions, exclusions, side, .. } = *self;
                Ok(Box::new(Tabletop::new(
                    &assets,
                    split,
                    TabletopOptions { first, scenes, expressions, exclusions, side },
                )))
            }
            Data::Set(format, records) => {
                let files = Files {
                    records: records.clone(),
                    instances: self.instances.clone(),
                    images: self.images.clone(),
                    split: self.split,
                };
                let range = (usize::try_from(self.first)?, usize::try_from(self.scenes)?);
                Ok(Box::new(Collected::read(*format, &files, split, range).context("read the data set")?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_those_of_inspect() {
        let set = |format, path: &str| Ok(Data::Set(format, path.into()));
        assert_eq!(parse_data("tabletop"), Ok(Data::Tabletop));
        assert_eq!(parse_data("refcoco+:a/refs(unc).p"), set(readers::Source::RefCocoPlus, "a/refs(unc).p"));
        assert_eq!(parse_data("reasonseg:C:/val"), set(readers::Source::ReasonSeg, "C:/val"));
        for text in ["", "refcoco", "coco:x", "refcoco:", "llava:x.json"] {
            assert!(parse_data(text).is_err(), "{text}");
        }
    }
}
