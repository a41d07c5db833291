//! The key and value cache of a conversation.

use super::{ModelError, take_f32};
use crate::engine::{Engine, Resident, Tensor};

const DECODER: &str = "decoder";

/// Names and sizes of a decoder's cache, read from its inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KvLayout {
    /// Heads that have keys and values of their own, by layer.
    heads: usize,
    /// Size of a head.
    head_dim: usize,
    /// Input names, key and value of layer 0, of layer 1, ...
    past: Vec<String>,
    /// Output names in the same order.
    present: Vec<String>,
}

impl KvLayout {
    /// Reads the layout off the decoder's inputs `past_key.{i}` and `past_value.{i}`: `f32[1, heads, P, head_dim]`.
    ///
    /// # Errors
    /// [`ModelError::Output`] where a layer lacks one or sizes differ.
    pub(crate) fn of(engine: &dyn Engine) -> Result<Self, ModelError> {
        let shape_of = |name: &str| engine.inputs().iter().find(|i| i.name == name).map(|i| i.shape.as_slice());
        let error = |what: String| ModelError::Output { engine: DECODER, tensor: "past_key", what };
        let layers = (0..).take_while(|i| shape_of(&format!("past_key.{i}")).is_some()).count();
        let (mut past, mut present, mut sizes) = (Vec::new(), Vec::new(), None);
        for layer in 0..layers {
            for part in ["key", "value"] {
                let name = format!("past_{part}.{layer}");
                let Some(&[_, Some(heads), _, Some(head_dim)]) = shape_of(&name) else {
                    return Err(error(format!("`{name}` is missing or has no fixed heads")));
                };
                if *sizes.get_or_insert((heads, head_dim)) != (heads, head_dim) {
                    return Err(error(format!("`{name}` is {heads} x {head_dim}, unlike layer 0")));
                }
                past.push(name);
                present.push(format!("present_{part}.{layer}"));
            }
        }
        let (heads, head_dim) = sizes.ok_or_else(|| error("has no layers".into()))?;
        Ok(Self { heads, head_dim, past, present })
    }

    pub(crate) fn past(&self) -> &[String] {
        &self.past
    }

    pub(crate) fn present(&self) -> &[String] {
        &self.present
    }

    fn shape(&self, tokens: usize) -> [usize; 4] {
        [1, self.heads, tokens, self.head_dim]
    }
}

/// Keys and values of a conversation's tokens so far.
#[derive(Debug, Clone)]
pub struct KvCache {
    parts: Parts,
    /// Position of the next token less the number of tokens: an image may take fewer positions than tokens.
    shift: i32,
}

#[derive(Debug, Clone)]
enum Parts {
    /// `f32[1, heads, tokens, head_dim]` a layer and part, in this program's memory.
    Host { parts: Vec<Vec<f32>>, tokens: usize },
    /// In the engine's.
    Resident(Box<dyn Resident>),
}

impl KvCache {
    /// The cache of an empty conversation, in this program's memory.
    pub(crate) fn empty(layout: &KvLayout) -> Self {
        Self { parts: Parts::Host { parts: vec![Vec::new(); layout.past.len()], tokens: 0 }, shift: 0 }
    }

    /// The cache of an empty conversation with `decoder`, in its memory where it keeps one.
    pub(crate) fn begin(layout: &KvLayout, decoder: &mut dyn Engine) -> Self {
        decoder.empty_cache().map_or_else(|| Self::empty(layout), Self::of_engine)
    }

    /// A cache that an engine keeps.
    pub(crate) fn of_engine(cache: Box<dyn Resident>) -> Self {
        Self { parts: Parts::Resident(cache), shift: 0 }
    }

    /// A cache of `tokens` tokens from the decoder's `present_*` outputs.
    pub(crate) fn from_outputs(
        layout: &KvLayout,
        outputs: impl Iterator<Item = Tensor<'static>>,
        tokens: usize,
    ) -> Result<Self, ModelError> {
        let shape = layout.shape(tokens);
        let parts: Vec<_> = outputs.map(|t| take_f32(t, &shape, DECODER, "present")).collect::<Result<_, _>>()?;
        Ok(Self { parts: Parts::Host { parts, tokens }, shift: 0 })
    }

    /// The same conversation, whose next token is at its length plus `shift`.
    #[must_use]
    pub(crate) fn shifted(self, shift: i32) -> Self {
        Self { shift, ..self }
    }

    /// Position of the next token less the number of tokens.
    pub(crate) fn shift(&self) -> i32 {
        self.shift
    }

    /// Length of the conversation in tokens.
    pub fn tokens(&self) -> usize {
        match &self.parts {
            Parts::Host { tokens, .. } => *tokens,
            Parts::Resident(cache) => cache.tokens(),
        }
    }

    /// What the engine keeps, where it does.
    pub(crate) fn resident(&self) -> Option<&dyn Resident> {
        match &self.parts {
            Parts::Host { .. } => None,
            Parts::Resident(cache) => Some(&**cache),
        }
    }

    /// The tensors in the order of [`KvLayout::past`]; none of a cache that the engine keeps.
    pub(crate) fn tensors(&self, layout: &KvLayout) -> Vec<Tensor<'_>> {
        match &self.parts {
            Parts::Host { parts, tokens } => {
                let shape = layout.shape(*tokens);
                parts.iter().map(|part| Tensor::f32(&shape, part.as_slice())).collect()
            }
            Parts::Resident(_) => Vec::new(),
        }
    }

    /// Forgets all but the first `tokens` tokens.
    pub(crate) fn truncate(&mut self, layout: &KvLayout, tokens: usize) {
        match &mut self.parts {
            Parts::Host { parts, tokens: held } => {
                let tokens = tokens.min(*held);
                keep(layout, (parts, held), tokens, &[]);
            }
            Parts::Resident(cache) => cache.truncate(tokens),
        }
    }

    /// Forgets all but the first `base` tokens and, of those behind them, the ones numbered `kept` in rising order.
    ///
    /// # Errors
    /// Where the engine that keeps it fails.
    pub(crate) fn keep(&mut self, layout: &KvLayout, base: usize, kept: &[usize]) -> Result<(), ModelError> {
        match &mut self.parts {
            Parts::Host { parts, tokens } => keep(layout, (parts, tokens), base, kept),
            Parts::Resident(cache) => cache.keep(base, kept)?,
        }
        Ok(())
    }
}

fn keep(layout: &KvLayout, (parts, held): (&mut [Vec<f32>], &mut usize), base: usize, kept: &[usize]) {
    let tokens = base + kept.len();
    if tokens >= *held {
        return;
    }
    let size = layout.head_dim;
    for part in parts {
        for head in 0..layout.heads {
            let (from, to) = (head * *held, head * tokens);
            // Every token moves towards the front, so none is overwritten before it has moved.
            part.copy_within(from * size..(from + base) * size, to * size);
            for (i, token) in kept.iter().enumerate() {
                let from = from + base + token;
                part.copy_within(from * size..(from + 1) * size, (to + base + i) * size);
            }
        }
        part.truncate(layout.heads * tokens * size);
    }
    *held = tokens;
}

/// For tests: what an engine keeps is equal to nothing.
#[cfg(test)]
impl PartialEq for KvCache {
    fn eq(&self, other: &Self) -> bool {
        match (&self.parts, &other.parts) {
            (Parts::Host { parts, tokens }, Parts::Host { parts: others, tokens: count }) => {
                (parts, tokens) == (others, count)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(tokens: usize) -> (KvLayout, KvCache) {
        let layout = KvLayout {
            heads: 2,
            head_dim: 2,
            past: vec!["past_key.0".into(), "past_value.0".into()],
            present: vec!["present_key.0".into(), "present_value.0".into()],
        };
        let part: Vec<f32> = (0..4 * tokens).map(|v| v as f32).collect();
        (layout, KvCache { parts: Parts::Host { parts: vec![part.clone(), part], tokens }, shift: 0 })
    }

    fn values(layout: &KvLayout, cache: &KvCache) -> Vec<Vec<f32>> {
        cache.tensors(layout).into_iter().map(|t| t.into_f32().expect("is of floats")).collect()
    }

    #[test]
    fn truncating_keeps_the_first_tokens_of_every_head() {
        let (layout, mut cache) = cache(3);
        cache.truncate(&layout, 2);
        let kept = vec![0.0, 1.0, 2.0, 3.0, 6.0, 7.0, 8.0, 9.0];
        assert_eq!(values(&layout, &cache), [kept.clone(), kept.clone()]);
        assert_eq!(cache.tensors(&layout)[0].shape(), [1, 2, 2, 2]);
        cache.truncate(&layout, 7);
        assert_eq!((values(&layout, &cache), cache.tokens()), (vec![kept.clone(), kept], 2));
    }

    #[test]
    fn keeping_takes_single_tokens_of_every_head() {
        let (layout, mut cache) = cache(5);
        cache.keep(&layout, 1, &[1, 3]).expect("is in this program's memory");
        let kept = vec![0.0, 1.0, 4.0, 5.0, 8.0, 9.0, 10.0, 11.0, 14.0, 15.0, 18.0, 19.0];
        assert_eq!((values(&layout, &cache), cache.tokens()), (vec![kept.clone(), kept], 3));
    }
}
