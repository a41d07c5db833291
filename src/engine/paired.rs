//! Two engines side by side: every call goes to both, and their answers are held against each other.
//!
//! Whoever calls gets the reference's answers, so that what follows is the same however far the other is off.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{Data, Engine, EngineError, Tensor, TensorInfo};
use crate::chain::Chain;

/// What is known of one output after all calls.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Parity {
    /// The engine.
    pub engine: String,
    /// The output.
    pub tensor: String,
    /// How often it was asked for.
    pub calls: u32,
    /// The largest root mean square of the difference of one call, as a share of the reference's; infinite where an
    /// element is not finite in one of the two alone. Range: 0 and up.
    pub difference: f32,
    /// The first time that it was missing or of another shape or type: what the engine said.
    pub fault: Option<String>,
}

/// How long the calls of one engine took.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Times {
    /// The engine.
    pub engine: String,
    /// Of the reference, in milliseconds, in the order of the calls.
    pub reference_ms: Vec<f64>,
    /// Of the tested one.
    pub tested_ms: Vec<f64>,
}

/// What all pairs of a program note; clones are one.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<(Vec<Parity>, Vec<Times>)>>);

impl Notes {
    /// One entry an output, in the order in which they were first asked for.
    pub fn parities(&self) -> Vec<Parity> {
        self.lock().0.clone()
    }

    /// One entry an engine, in the order of their first calls.
    pub fn times(&self) -> Vec<Times> {
        self.lock().1.clone()
    }

    /// Holds `found` against `expected`, as an output of `engine`.
    pub fn hold(&self, engine: &str, tensor: &str, expected: &Tensor<'_>, found: &Tensor<'_>) {
        self.compare(engine, tensor, difference(expected, found));
    }

    /// Notes that output `tensor` of `engine` could not be held against anything, and why; `*` stands for all of its.
    pub fn fault(&self, engine: &str, tensor: &str, why: String) {
        self.compare(engine, tensor, Err(why));
    }

    fn lock(&self) -> MutexGuard<'_, (Vec<Parity>, Vec<Times>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compare(&self, engine: &str, tensor: &str, outcome: Result<f32, String>) {
        let mut notes = self.lock();
        let known = notes.0.iter().position(|note| note.engine == engine && note.tensor == tensor);
        let index = known.unwrap_or_else(|| {
            let (engine, tensor) = (engine.to_owned(), tensor.to_owned());
            notes.0.push(Parity { engine, tensor, calls: 0, difference: 0.0, fault: None });
            notes.0.len() - 1
        });
        let note = &mut notes.0[index];
        note.calls += 1;
        match outcome {
            // `max` would pass over NaN.
            Ok(difference) if difference > note.difference || difference.is_nan() => note.difference = difference,
            Ok(_) => {}
            Err(fault) => note.fault = note.fault.take().or(Some(fault)),
        }
    }

    fn took(&self, engine: &str, reference_ms: f64, tested_ms: f64) {
        let mut notes = self.lock();
        let known = notes.1.iter().position(|times| times.engine == engine);
        let index = known.unwrap_or_else(|| {
            notes.1.push(Times { engine: engine.to_owned(), ..Times::default() });
            notes.1.len() - 1
        });
        notes.1[index].reference_ms.push(reference_ms);
        notes.1[index].tested_ms.push(tested_ms);
    }
}

/// An engine that is two.
pub struct Paired {
    reference: Box<dyn Engine>,
    tested: Box<dyn Engine>,
    notes: Notes,
}

impl Paired {
    /// `reference`, with `tested` held against it; what is found goes to `notes`.
    pub fn new(reference: Box<dyn Engine>, tested: Box<dyn Engine>, notes: Notes) -> Self {
        Self { reference, tested, notes }
    }
}

impl Engine for Paired {
    fn name(&self) -> &str {
        self.reference.name()
    }

    fn inputs(&self) -> &[TensorInfo] {
        self.reference.inputs()
    }

    fn outputs(&self) -> &[TensorInfo] {
        self.reference.outputs()
    }

    fn run(&mut self, inputs: Vec<(&str, Tensor<'_>)>, outputs: &[&str]) -> Result<Vec<Tensor<'static>>, EngineError> {
        let views = inputs.iter().map(|(name, tensor)| (*name, tensor.view())).collect();
        let ms = |since: Instant| since.elapsed().as_secs_f64() * 1e3;
        let start = Instant::now();
        let expected = self.reference.run(views, outputs)?;
        let reference_ms = ms(start);
        let start = Instant::now();
        let found = self.tested.run(inputs, outputs);
        let engine = self.reference.name();
        match &found {
            Ok(found) => {
                self.notes.took(engine, reference_ms, ms(start));
                for ((name, expected), found) in outputs.iter().zip(&expected).zip(found) {
                    self.notes.compare(engine, name, difference(expected, found));
                }
            }
            Err(error) => {
                let fault = || Err(Chain(error).to_string());
                outputs.iter().for_each(|name| self.notes.compare(engine, name, fault()));
            }
        }
        Ok(expected)
    }
}

/// The root mean square of the difference, as a share of that of `expected`; of zeros alone, as it is.
fn difference(expected: &Tensor<'_>, found: &Tensor<'_>) -> Result<f32, String> {
    if expected.shape() != found.shape() {
        return Err(format!("has shape {:?}, must be {:?}", found.shape(), expected.shape()));
    }
    match (expected.data(), found.data()) {
        (Data::F32(expected), Data::F32(found)) => Ok(share(expected.iter().copied().zip(found.iter().copied()))),
        (Data::I32(expected), Data::I32(found)) => {
            let pairs = expected.iter().zip(found.iter());
            Ok(share(pairs.map(|(expected, found)| (*expected as f32, *found as f32))))
        }
        (Data::U8(expected), Data::U8(found)) => {
            let pairs = expected.iter().zip(found.iter());
            Ok(share(pairs.map(|(expected, found)| (f32::from(*expected), f32::from(*found)))))
        }
        _ => Err(format!("is {:?}, must be {:?}", found.data_type(), expected.data_type())),
    }
}

fn share(pairs: impl Iterator<Item = (f32, f32)>) -> f32 {
    let (mut off, mut square, mut count) = (0f64, 0f64, 0f64);
    for (expected, found) in pairs {
        // The same infinity on both sides is no difference; a bias of minus infinity may come back as it went in.
        if expected.to_bits() == found.to_bits() {
            square += if expected.is_finite() { f64::from(expected).powi(2) } else { 0.0 };
        } else if expected.is_finite() && found.is_finite() {
            square += f64::from(expected).powi(2);
            off += (f64::from(expected) - f64::from(found)).powi(2);
        } else {
            return f32::INFINITY;
        }
        count += 1.0;
    }
    match (off, square) {
        (0.0, _) => 0.0,
        (off, 0.0) => (off / count).sqrt() as f32,
        (off, square) => (off / square).sqrt() as f32,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::engine::EngineErrorKind;
    use crate::engine::fake::FakeEngine;

    /// An engine whose output `y` is its input, changed by `change`.
    fn engine(change: impl Fn(f32) -> f32 + Send + 'static) -> Box<dyn Engine> {
        Box::new(FakeEngine::new("fake", move |inputs, _| {
            let values = inputs[0].1.as_f32().unwrap().iter().map(|v| change(*v)).collect::<Vec<_>>();
            Ok(vec![Tensor::f32(inputs[0].1.shape(), values)])
        }))
    }

    fn compare(tested: Box<dyn Engine>) -> Parity {
        let notes = Notes::default();
        let mut paired = Paired::new(engine(|v| v), tested, notes.clone());
        for values in [vec![3.0, -4.0], vec![1.0, 0.0]] {
            let x = Tensor::f32(&[2], values.clone());
            assert_eq!(paired.run(vec![("x", x)], &["y"]).unwrap(), [Tensor::f32(&[2], values)], "the reference's");
        }
        let [parity] = &notes.parities()[..] else { panic!("one output") };
        assert_eq!((parity.engine.as_str(), parity.tensor.as_str(), parity.calls), ("fake", "y", 2));
        parity.clone()
    }

    #[test]
    fn the_largest_difference_of_all_calls_is_kept() {
        assert_eq!(compare(engine(|v| v)).difference, 0.0);
        // 1 % of every element, whatever their size.
        assert!((compare(engine(|v| v * 1.01)).difference - 0.01).abs() < 1e-5);
        // 0.5 beside a root mean square of 3.5 in the first call and of 0.7 in the second.
        assert!((compare(engine(|v| v + 0.5)).difference - 0.5 * 2f32.sqrt()).abs() < 1e-5);
        assert_eq!(compare(engine(|v| if v == 3.0 { f32::NAN } else { v })).difference, f32::INFINITY);
    }

    #[test]
    fn faults_are_kept_with_their_causes() {
        let failing = FakeEngine::new("fake", |_, _| Err(EngineError::new(EngineErrorKind::Run, "fake", "no memory")));
        let parity = compare(Box::new(failing));
        assert_eq!(parity.fault.as_deref(), Some("run engine `fake`: no memory"));
        let other = FakeEngine::new("fake", |_, _| Ok(vec![Tensor::f32(&[1], vec![0.0])]));
        assert_eq!(compare(Box::new(other)).fault.as_deref(), Some("has shape [1], must be [2]"));
    }

    #[test]
    fn calls_are_timed_where_both_answer() {
        let notes = Notes::default();
        let mut paired = Paired::new(engine(|v| v), engine(|v| v), notes.clone());
        paired.run(vec![("x", Tensor::f32(&[1], vec![1.0]))], &["y"]).unwrap();
        let [times] = &notes.times()[..] else { panic!("one engine") };
        assert_eq!((times.reference_ms.len(), times.tested_ms.len()), (1, 1));
    }
}
