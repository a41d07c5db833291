//! A decoder that keeps its caches itself answers as one that is given them.

use std::any::Any;

use super::*;
use crate::engine::{EngineError, Resident, TensorInfo};
use crate::model::toy::{Calls, frame, hashed, mllm, speech};

/// A decoder that keeps caches, with one in between that does not.
struct Keeping(Box<dyn Engine>);

/// What it keeps.
#[derive(Debug, Clone)]
struct Kept {
    cache: KvCache,
    layout: KvLayout,
}

impl Resident for Kept {
    fn tokens(&self) -> usize {
        self.cache.tokens()
    }
    fn truncate(&mut self, tokens: usize) {
        self.cache.truncate(&self.layout, tokens);
    }
    fn keep(&mut self, base: usize, kept: &[usize]) -> Result<(), EngineError> {
        self.cache.keep(&self.layout, base, kept).expect("is in this program's memory");
        Ok(())
    }
    fn share(&self) -> Box<dyn Resident> {
        Box::new(self.clone())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Engine for Keeping {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn inputs(&self) -> &[TensorInfo] {
        self.0.inputs()
    }
    fn outputs(&self) -> &[TensorInfo] {
        self.0.outputs()
    }
    fn run(&mut self, _: Vec<(&str, Tensor<'_>)>, _: &[&str]) -> Result<Vec<Tensor<'static>>, EngineError> {
        panic!("nobody hands a cache to a decoder that keeps it")
    }
    fn empty_cache(&mut self) -> Option<Box<dyn Resident>> {
        let layout = KvLayout::of(&*self.0).expect("is a decoder");
        Some(Box::new(Kept { cache: KvCache::empty(&layout), layout }))
    }
    fn run_resident(
        &mut self,
        inputs: Vec<(&str, Tensor<'_>)>,
        cache: &dyn Resident,
        outputs: &[&str],
    ) -> Result<(Vec<Tensor<'static>>, Box<dyn Resident>), EngineError> {
        let Kept { cache, layout } = cache.as_any().downcast_ref().expect("is this engine's");
        let new = inputs.iter().find(|(name, _)| *name == "position_ids").expect("is given").1.shape()[1];
        let held = layout.past().iter().map(String::as_str).zip(cache.tensors(layout));
        let inputs = inputs.iter().map(|(name, tensor)| (*name, tensor.view())).chain(held).collect();
        let wanted: Vec<&str> = outputs.iter().copied().chain(layout.present().iter().map(String::as_str)).collect();
        let mut given = self.0.run(inputs, &wanted)?;
        let present = given.split_off(outputs.len()).into_iter();
        let grown = KvCache::from_outputs(layout, present, cache.tokens() + new).expect("fits");
        Ok((given, Box::new(Kept { cache: grown, layout: layout.clone() })))
    }
}

fn model(keeping: bool, answers: usize) -> (Mllm, Calls) {
    let yes_or_no = |seen: &[u32]| {
        let mut row = hashed(seen);
        let last = row.len() - 1;
        row[last] += 12.0;
        row[last - 3] += 12.0;
        row
    };
    let (mut model, calls) = mllm(speech(|w| w.points_per_question = answers), Box::new(yes_or_no));
    if keeping {
        let (other, _) = mllm(speech(|_| ()), Box::new(hashed));
        let inner = std::mem::replace(&mut model.engines.decoder, other.engines.decoder);
        model.engines.decoder = Box::new(Keeping(inner));
    }
    (model, calls)
}

/// Everything that a conversation says: answers with right and wrong drafts, labels of many questions, and passes.
fn talk(model: &mut Mllm) -> (Vec<Vec<u32>>, Vec<Vec<YesNo>>, u32) {
    let (mut said, mut labels) = (Vec::new(), Vec::new());
    for red in [3, 4, 3] {
        let cache = model.prefix(&frame(red), None, &mut Timings::default()).expect("prefills");
        for query in [[10, 11, 12], [12, 13, 14]] {
            let draft = |answer: &[u32]| if answer.len() % 3 == 1 { vec![1_040, 1_037] } else { Vec::new() };
            let decoding =
                Decoding { first: &mut |p| argmax(p), draft: &draft, constrained: false, observe: &mut |_, _| () };
            let generated = model.generate(&cache, &query, decoding, None).expect("generates");
            said.push(generated.tokens.clone());
            let question = |i: u32| Question {
                tokens: vec![20 + i % 3, 30 + i],
                answers: 4,
                draft: vec![i.is_multiple_of(2); i as usize % 4],
            };
            let questions: Vec<_> = (0..6).map(question).collect();
            labels.extend(model.ask(&generated.cache, &generated.pending, &questions, None).expect("answers"));
            labels.extend(model.ask(&cache, &[], &questions[2..4], None).expect("answers"));
        }
    }
    (said, labels, model.take_passes())
}

#[test]
fn what_the_engine_keeps_changes_no_answer() {
    let ((mut given, _), (mut keeping, _)) = (model(false, 4), model(true, 4));
    let (wanted, found) = (talk(&mut given), talk(&mut keeping));
    assert!(wanted.1.iter().flatten().any(|answer| answer.0 > answer.1), "some are yes");
    assert_eq!(found, wanted);
    let cache = keeping.prefix(&frame(4), None, &mut Timings::default()).expect("prefills");
    assert!(cache.resident().is_some() && cache.tensors(&keeping.layout).is_empty());
}
