//! What stays where an engine computes: caches, and outputs that another engine takes.

use std::any::Any;
use std::fmt::Debug;

use super::{EngineError, Tensor, TensorInfo};

/// The keys and values of a conversation, in an engine's own memory: what a pass is given and what it gives. A copy
/// shares that memory as long as neither would change what the other can see.
pub trait Resident: Debug + Send + Sync {
    /// Length of the conversation in tokens.
    fn tokens(&self) -> usize;

    /// Forgets all but the first `tokens` tokens.
    fn truncate(&mut self, tokens: usize);

    /// Forgets all but the first `base` tokens and, of those behind them, the ones numbered `kept` in rising order.
    ///
    /// # Errors
    /// [`EngineErrorKind::Run`](super::EngineErrorKind::Run) where the backend fails.
    fn keep(&mut self, base: usize, kept: &[usize]) -> Result<(), EngineError>;

    /// The same conversation once more.
    fn share(&self) -> Box<dyn Resident>;

    /// For the engine that made it.
    fn as_any(&self) -> &dyn Any;
}

impl Clone for Box<dyn Resident> {
    fn clone(&self) -> Self {
        (**self).share()
    }
}

/// Outputs of one run in an engine's own memory, for an engine that computes there too.
pub trait Held: Debug + Send + Sync {
    /// Name, type and shape of each, in the order in which they were asked for; no dimension varies.
    fn infos(&self) -> &[TensorInfo];

    /// A copy on the host, in that order.
    ///
    /// # Errors
    /// [`EngineErrorKind::Run`](super::EngineErrorKind::Run) where the backend fails.
    fn fetch(&self) -> Result<Vec<Tensor<'static>>, EngineError>;

    /// For the engine that takes it.
    fn as_any(&self) -> &dyn Any;
}
