//! What every data set is read into.

use std::path::PathBuf;
use std::sync::Arc;

use super::image::ImageRef;
use super::region::Region;
use crate::geometry::{BBox, SourcePx};
use crate::mask::Mask;

/// A data set of the field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
#[non_exhaustive]
pub enum Source {
    /// RefCOCO: `refs(unc).p` or `refs(google).p`, and `instances.json`.
    #[value(name = "refcoco")]
    RefCoco,
    /// RefCOCO+: expressions without words of place.
    #[value(name = "refcoco+")]
    RefCocoPlus,
    /// RefCOCOg: longer expressions, `refs(umd).p` or `refs(google).p`.
    #[value(name = "refcocog")]
    RefCocoG,
    /// gRefCOCO: no target or several, `grefs(unc).json` and `instances.json`.
    #[value(name = "grefcoco")]
    GRefCoco,
    /// ReasonSeg: a folder of pictures, each with a labelme file beside it.
    #[value(name = "reasonseg")]
    ReasonSeg,
    /// Questions and answers about pictures, without masks, in LLaVA's format.
    #[value(name = "llava")]
    Llava,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::RefCoco => "refcoco",
            Self::RefCocoPlus => "refcoco+",
            Self::RefCocoG => "refcocog",
            Self::GRefCoco => "grefcoco",
            Self::ReasonSeg => "reasonseg",
            Self::Llava => "llava",
        })
    }
}

/// A split as its data set names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum SourceSplit {
    /// To learn from.
    Train,
    /// To choose by.
    Val,
    /// To report on.
    Test,
    /// RefCOCO's test pictures of several people.
    #[value(name = "testA")]
    TestA,
    /// RefCOCO's test pictures of several other things.
    #[value(name = "testB")]
    TestB,
}

impl SourceSplit {
    /// Every split.
    pub const ALL: [Self; 5] = [Self::Train, Self::Val, Self::Test, Self::TestA, Self::TestB];

    /// The data sets' own word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
            Self::TestA => "testA",
            Self::TestB => "testB",
        }
    }

    /// The split of that name.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|split| split.word() == word)
    }

    /// Whether pictures of this split may not be trained on.
    pub fn held_out(self) -> bool {
        self != Self::Train
    }
}

/// One record: a picture, and what is said of it.
#[derive(Debug, Clone)]
pub struct Record {
    /// Where it comes from.
    pub source: Source,
    /// Its place there, as errors name it: `ref 12`, `entry 7`, `file.json`.
    pub name: String,
    /// Its split there.
    pub split: SourceSplit,
    /// Its picture.
    pub image: ImageRef,
    /// What is said.
    pub content: Content,
}

/// What a record says of its picture.
#[derive(Debug, Clone)]
pub enum Content {
    /// Expressions for targets, with masks.
    Referring(Referring),
    /// A conversation, without masks.
    Dialogue(Vec<Turn>),
}

impl Record {
    /// Its expressions and targets; `None` for a conversation.
    pub fn referring(&self) -> Option<&Referring> {
        match &self.content {
            Content::Referring(referring) => Some(referring),
            Content::Dialogue(_) => None,
        }
    }
}

/// Expressions that all refer to the same targets.
#[derive(Debug, Clone)]
pub struct Referring {
    /// At least one.
    pub expressions: Vec<SourceExpression>,
    /// None, one or many. Records of one data set share them.
    pub targets: Vec<Arc<Target>>,
    /// Pixels that count neither for nor against an answer (ReasonSeg).
    pub ignored: Option<Region>,
}

impl Referring {
    /// The pixels of all targets, rasterised now; `None` where there is no target.
    pub fn mask(&self) -> Option<Mask> {
        let mut masks = self.targets.iter().map(|target| target.mask());
        let mut all = masks.next()?;
        masks.for_each(|mask| all.union_with(&mask));
        Some(all)
    }
}

/// What somebody said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceExpression {
    /// The words, cleaned as the data set does.
    pub text: String,
    /// Whether it is a whole sentence to reason about rather than a phrase (ReasonSeg).
    pub sentence: bool,
}

/// Something that is referred to. Its mask is kept as its data set gives it and rasterised when asked for.
#[derive(Debug, Clone)]
pub struct Target {
    /// Annotation id, where the data set has one.
    pub annotation: Option<u64>,
    /// Name of its category, where the data set has one.
    pub category: Option<Arc<str>>,
    pub(super) bbox: Option<BBox<SourcePx>>,
    /// Where it is.
    pub region: Region,
}

impl Target {
    /// Its pixels, rasterised now.
    pub fn mask(&self) -> Mask {
        self.region.mask()
    }

    /// The box that the data set gives, clipped to the picture, else the tight box of the mask, which is rasterised for
    /// it; `None` where the mask is empty.
    pub fn bbox(&self) -> Option<BBox<SourcePx>> {
        self.bbox.or_else(|| self.mask().bbox())
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Who speaks.
    pub speaker: Speaker,
    /// What is said, without the placeholder of the picture.
    pub text: String,
}

/// Who speaks in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// Asks.
    Human,
    /// Answers; the loss counts these turns only.
    Assistant,
}

/// Where a data set lies.
#[derive(Debug, Clone)]
pub struct Files {
    /// The file of records: `refs(unc).p`, `grefs(unc).json`, LLaVA's list; for ReasonSeg the folder of one split.
    pub records: PathBuf,
    /// COCO's annotations. Default: `instances.json` beside the records.
    pub instances: Option<PathBuf>,
    /// The folder of pictures. Default: the folder of the records.
    pub images: Option<PathBuf>,
    /// The split of a data set whose records do not say it. Default: ReasonSeg's folder name; training for LLaVA.
    pub split: Option<SourceSplit>,
}
