//! An engine that answers from a script: for tests of the rooms above, and for a node without models.

use std::sync::{Arc, Mutex, PoisonError};

use super::{Engine, EngineError, Tensor, TensorInfo};

/// Computes a fake engine's outputs from its inputs; it gets the names of the outputs that are wanted.
pub type Script = dyn FnMut(&[(String, Tensor<'static>)], &[&str]) -> Result<Vec<Tensor<'static>>, EngineError> + Send;

/// One call of [`Engine::run`].
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The inputs, in the order in which they were given.
    pub inputs: Vec<(String, Tensor<'static>)>,
    /// Names of the outputs that were wanted.
    pub outputs: Vec<String>,
}

impl Call {
    /// The input `name`, where it was given.
    pub fn input(&self, name: &str) -> Option<&Tensor<'static>> {
        self.inputs.iter().find(|(key, _)| key == name).map(|(_, tensor)| tensor)
    }
}

/// What an engine was asked; a handle that stays when the engine has moved into the code under test.
#[derive(Debug, Clone, Default)]
pub struct Calls(Arc<Mutex<Vec<Call>>>);

impl Calls {
    /// All calls so far, oldest first.
    pub fn all(&self) -> Vec<Call> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Number of calls so far.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn push(&self, call: Call) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }
}

/// An engine that answers from a script and remembers what it was asked.
pub struct FakeEngine {
    name: String,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    script: Box<Script>,
    calls: Calls,
}

impl FakeEngine {
    /// An engine called `name` whose outputs are those that `script` returns.
    pub fn new(
        name: impl Into<String>,
        script: impl FnMut(&[(String, Tensor<'static>)], &[&str]) -> Result<Vec<Tensor<'static>>, EngineError>
        + Send
        + 'static,
    ) -> Self {
        let (inputs, outputs) = (Vec::new(), Vec::new());
        Self { name: name.into(), inputs, outputs, script: Box::new(script), calls: Calls::default() }
    }

    /// Sets what [`Engine::inputs`] and [`Engine::outputs`] say.
    #[must_use]
    pub fn with_signature(mut self, inputs: Vec<TensorInfo>, outputs: Vec<TensorInfo>) -> Self {
        self.inputs = inputs;
        self.outputs = outputs;
        self
    }

    /// A handle to what the engine was asked.
    pub fn calls(&self) -> Calls {
        self.calls.clone()
    }
}

impl Engine for FakeEngine {
    fn name(&self) -> &str {
        &self.name
    }

    fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    fn run(&mut self, inputs: Vec<(&str, Tensor<'_>)>, outputs: &[&str]) -> Result<Vec<Tensor<'static>>, EngineError> {
        let inputs: Vec<_> = inputs.into_iter().map(|(name, t)| (name.to_owned(), t.into_owned())).collect();
        let answer = (self.script)(&inputs, outputs);
        self.calls.push(Call { inputs, outputs: outputs.iter().map(|&name| name.to_owned()).collect() });
        answer
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::engine::EngineErrorKind;

    #[test]
    fn answers_from_its_script_and_remembers() {
        let mut engine = FakeEngine::new("fake", |inputs, outputs| {
            let [(_, tensor)] = inputs else {
                return Err(EngineError::new(EngineErrorKind::Input, "fake", "takes one input"));
            };
            let sum: i32 = match tensor.data() {
                crate::engine::Data::I32(v) => v.iter().sum(),
                crate::engine::Data::F32(_) | crate::engine::Data::U8(_) => {
                    return Err(EngineError::new(EngineErrorKind::Input, "fake", "is of no integers"));
                }
            };
            Ok(outputs.iter().map(|_| Tensor::i32(&[1], vec![sum])).collect())
        });
        let calls = engine.calls();
        let values = [2, 3];
        let answer = engine.run(vec![("x", Tensor::i32(&[2], &values[..]))], &["sum", "again"]).unwrap();
        assert_eq!(answer, [Tensor::i32(&[1], vec![5]), Tensor::i32(&[1], vec![5])]);
        assert_eq!(engine.run(vec![], &["sum"]).unwrap_err().kind(), EngineErrorKind::Input);
        assert_eq!(calls.count(), 2);
        assert_eq!(calls.all()[0].input("x"), Some(&Tensor::i32(&[2], vec![2, 3])));
        assert_eq!(calls.all()[0].outputs, ["sum", "again"]);
    }
}
