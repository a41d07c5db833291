//! How good the answers are: the metrics of the field on the tabletop splits.
//!
//! Source of the metrics: gRefCOCO (gIoU, cIoU, N-acc, T-acc) and RefCOCO (P@X), as listed in arXiv 2409.10542,
//! section 4. A sample without a target scores 1 where nothing is predicted and 0 otherwise.

mod metrics;
mod runner;

pub use metrics::{Metrics, Sample};
pub use runner::{Evaluation, Evaluator, Options, Report};
