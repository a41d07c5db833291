//! Training data for the paper's method: conversations about pictures, in the chat formats of the usual trainers.
//!
//! ```text
//!  readers' records ─┐             ┌─ worker: Subject ─ teach ─▶ exchanges ─ pack ─▶ conversations ─┐
//!  tabletop scenes ──┴─▶ Plan ─────┤          (masks)   (SAM in the loop for PPG)                    ├─▶ Writer
//!                   by weight, seed└─ worker ...                                    in plan's order ─┘
//! ```
//!
//! A [`SourceSpec`] is loaded to a pool of pictures with what is said of them, less what leaks from a held-out split.
//! The [`Plan`](plan) draws from all pools by their weights. What is said of one picture becomes a conversation in the
//! bundle's [`Wording`]: its dialect, counted with its tokenizer. Every text in an answer is one that the node's own
//! parser reads. The same seed gives the same bytes, whatever the number of threads.
//!
//! A box answer, PQPP's questions and PPG's groups are those of `prompt` and `pipeline::best_groups`; here they are only
//! asked for, put in order and packed.
//!
//! Source: arXiv 2409.10542, sections 3 and 4.

mod error;
mod format;
mod make;
mod pack;
mod picture;
mod plan;
mod source;
mod spec;
mod subject;
mod tally;
mod teach;
mod template;
#[cfg(test)]
mod tests;
mod turn;
mod wording;
mod write;

pub use error::DialogueError;
pub use format::ChatFormat;
pub use source::{Excluded, Loading, Places, Source, load};
pub use spec::{Origin, SourceSpec};
pub use tally::{Reason, Tally};
pub use wording::{TokenizerSpec, Wording};
pub use write::{Material, Output, Written, write};

use crate::pipeline::GroupSearch;
use crate::prompt::Strategy;

/// What is written.
#[derive(Debug, Clone)]
pub struct DialogueOptions {
    /// Everything is drawn from it. Default: 0.
    pub seed: u64,
    /// Conversations; `None` to use every record once, and then end.
    pub count: Option<u64>,
    /// Most expressions in one conversation. Default: 5, the paper's. Range: 1..=64.
    pub pack: usize,
    /// Most tokens of a conversation, those of the picture among them. Default: 1536, the paper's.
    pub max_tokens: usize,
    /// What is taught; of several each expression gets one, drawn evenly. Default: PQPP.
    pub strategies: Vec<Strategy>,
    /// Most targets of one expression that PQPP asks about points of; more are drawn from. Default: 3.
    pub questions: usize,
    /// How PPG's groups are searched for; the seed in it is not used.
    pub search: GroupSearch,
    /// Worker threads; the bytes do not depend on it. Default: 1.
    pub threads: usize,
    /// Leave records out whose picture is missing or damaged, rather than stop. Default: stop.
    pub skip_damaged: bool,
}

impl Default for DialogueOptions {
    fn default() -> Self {
        Self {
            seed: 0,
            count: None,
            pack: 5,
            max_tokens: 1536,
            strategies: vec![Strategy::Pqpp],
            questions: 3,
            search: GroupSearch::default(),
            threads: 1,
            skip_damaged: false,
        }
    }
}

/// A question and its answer; the loss counts the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Exchange {
    /// What the user says, without the signs around it that a chat template adds.
    user: String,
    /// What the assistant says, without the token that ends it.
    assistant: String,
}
