//! How good the answers are: the field's metrics, what a confidence is worth, and where thresholds should lie, on
//! rendered scenes and on the field's data sets.
//!
//! ```text
//!  Source ──picture, expressions, truth──▶ Evaluator ──Record──▶ Journal (a line each) ──▶ Report ──▶ JSON, HTML
//!                                             ▲ variants                    │
//!                                             └ the same weights            └──▶ fit: calibration for the bundle
//! ```
//!
//! Everything that is reported comes from the records, and a record holds no time: two runs give the same bytes, and so
//! does one that was cut off and went on.
//!
//! Source of the metrics: gRefCOCO (gIoU, cIoU, N-acc, T-acc) and RefCOCO (P@X), as listed in arXiv 2409.10542,
//! section 4. A sample without a target scores 1 where nothing is predicted and 0 otherwise.

pub mod fit;
mod gallery;
pub mod html;
mod journal;
mod metrics;
mod record;
mod reliability;
mod report;
mod runner;
pub mod source;
pub mod sweep;
pub mod tracking;
mod variant;

pub use gallery::{Exhibit, exhibits};
pub use journal::{Header, Journal, JournalError, JournalErrorKind};
pub use metrics::{Metrics, RIGHT_IOU, Score};
pub use record::{Answer, Instance, Record, TargetFacts, Verdict};
pub use reliability::{Bin, Outcome as Judged, Reliability, auroc};
pub use report::{BundleInfo, Calibrations, IOU_BINS, Report, Row, Signal, VariantReport};
pub use runner::{Answered, Evaluator, Place, Shown};
pub use source::{Collected, Picture, Sample, Source, SourceError, Tabletop, TabletopOptions};
pub use variant::Variant;

use crate::pipeline::PipelineError;

/// An evaluation could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A stage failed.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// A picture cannot be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The records cannot be kept.
    #[error(transparent)]
    Journal(#[from] JournalError),
}
