//! The multimodal language model: image prefix, greedy answers, and many questions in one pass.
//!
//! What is likely to be said can be drafted: one pass checks a whole draft, keeps what the model would have said itself
//! and puts its own token where the draft is wrong. Answers are the same with any draft and without; only the passes
//! are fewer. Source: Leviathan et al., arXiv 2211.17192, for greedy decoding.

mod ask;
mod decoded;

use std::sync::Arc;
use std::time::Instant;

pub(crate) use ask::MAX_TREE_TOKENS;
pub use ask::{Question, YesNo};
pub use decoded::{Decoded, NEAR_TIE};

use super::branch::causal_bias;
use super::front::on_bytes;
use super::kv::{KvCache, KvLayout};
use super::sight::{self, Position, Seen, Sight};
use super::speech::Speech;
use super::{ModelError, Timings, check_deadline, exactly, take_f32};
use crate::engine::{Engine, Tensor};
use crate::frame::Image;

const EMBED: &str = "embed";
const DECODER: &str = "decoder";

/// The engines of a language model.
pub struct MllmEngines {
    /// Pixels to `image_embeds`.
    pub vision: Box<dyn Engine>,
    /// `input_ids` to `inputs_embeds`.
    pub embed: Box<dyn Engine>,
    /// Embeddings and cache to logits and cache.
    pub decoder: Box<dyn Engine>,
}

/// Limits of a language model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MllmLimits {
    /// Longest answer in tokens, at least 1.
    pub max_answer_tokens: usize,
    /// Longest conversation in tokens, image included.
    pub max_positions: usize,
}

/// How an answer is decoded.
pub struct Decoding<'a> {
    /// Chooses the first token from the probabilities of all; later ones are greedy.
    pub first: &'a mut dyn FnMut(&[f32]) -> u32,
    /// What is likely to follow the answer so far: those tokens are checked in the pass that feeds the last one. The
    /// answer is the same with and without.
    pub draft: &'a dyn Fn(&[u32]) -> Vec<u32>,
    /// Whether only boxes or the absent answer may be said: of each step, the likeliest token with which the answer can
    /// still be read.
    pub constrained: bool,
    /// Sees the probabilities of every step and the token that was chosen, the ending one included.
    pub observe: &'a mut dyn FnMut(&[f32], u32),
}

/// A decoded answer.
#[derive(Debug, Clone)]
pub struct Generated {
    /// Its tokens, without the one that ended it.
    pub tokens: Vec<u32>,
    /// Whether it ended by itself rather than at the limit.
    pub stopped: bool,
    /// The conversation up to here but for `pending`.
    pub cache: KvCache,
    /// The last token, where it is not in the cache yet.
    pub pending: Vec<u32>,
}

/// The language model; owns its engines and the cache of the current frame.
pub struct Mllm {
    engines: MllmEngines,
    sight: Box<dyn Sight>,
    layout: KvLayout,
    /// Whether positions have three axes.
    axes: bool,
    /// The decoder's inputs that add image features to its layers.
    deepstack: Vec<String>,
    /// Size of a token's embedding.
    width: usize,
    limits: MllmLimits,
    speech: Speech,
    /// The frame that was asked about last, with the conversation up to its image.
    frame: Option<(Image, Arc<KvCache>)>,
    reuse_prefix: bool,
    passes: u32,
    decoded: Decoded,
}

impl Mllm {
    /// A model that sees by `sight` and speaks `speech`.
    ///
    /// # Errors
    /// [`ModelError::Output`] where the decoder's inputs are not those of a decoder with a cache.
    pub fn new(
        mut engines: MllmEngines,
        sight: Box<dyn Sight>,
        speech: Speech,
        limits: MllmLimits,
    ) -> Result<Self, ModelError> {
        engines.vision = on_bytes(engines.vision, &sight.front());
        let layout = KvLayout::of(&*engines.decoder)?;
        let embeds = engines.decoder.inputs().iter().find(|i| i.name == "inputs_embeds");
        let Some(width) = embeds.and_then(|i| i.shape.last().copied().flatten()).filter(|w| *w > 0) else {
            let what = "is missing or has no fixed width".to_owned();
            return Err(ModelError::Output { engine: DECODER, tensor: "inputs_embeds", what });
        };
        let (axes, deepstack) = (sight::has_axes(&*engines.decoder), sight::deepstack(engines.decoder.inputs()));
        Ok(Self {
            engines,
            sight,
            layout,
            axes,
            deepstack,
            width,
            limits,
            speech,
            frame: None,
            reuse_prefix: true,
            passes: 0,
            decoded: Decoded::default(),
        })
    }

    /// Whether the prefix of a frame is kept for the next command on it; it is by default.
    pub fn set_prefix_reuse(&mut self, on: bool) {
        self.reuse_prefix = on;
        self.frame = None;
    }

    /// What it speaks.
    pub fn speech(&self) -> &Speech {
        &self.speech
    }

    /// Decoder passes since the last call.
    pub fn take_passes(&mut self) -> u32 {
        std::mem::take(&mut self.passes)
    }

    /// Passes since they were taken last.
    pub fn passes(&self) -> u32 {
        self.passes
    }

    /// What was decoded since that was taken last.
    pub fn decoded(&self) -> Decoded {
        self.decoded
    }

    /// What was decoded since the last call.
    pub fn take_decoded(&mut self) -> Decoded {
        std::mem::take(&mut self.decoded)
    }

    /// The conversation up to and including the prefix of `image`; free where the last frame had the same pixels.
    ///
    /// # Errors
    /// Engine failures, misshapen outputs, a missed deadline.
    pub fn prefix(
        &mut self,
        image: &Image,
        deadline: Option<Instant>,
        timings: &mut Timings,
    ) -> Result<Arc<KvCache>, ModelError> {
        self.speech.look_at(self.sight.input(image.size())?)?;
        if let Some((_, cache)) = self.frame.as_ref().filter(|(frame, _)| self.reuse_prefix && frame == image) {
            return Ok(cache.clone());
        }
        self.frame = None;
        check_deadline(deadline)?;
        let seen = timings.time("vision", || self.sight.see(&mut *self.engines.vision, self.width, image))?;
        check_deadline(deadline)?;
        let cache = timings.time("prefix", || self.prefill_prefix(&seen))?;
        let cache = Arc::new(cache);
        self.frame = Some((image.clone(), cache.clone()));
        Ok(cache)
    }

    fn prefill_prefix(&mut self, seen: &Seen) -> Result<KvCache, ModelError> {
        let (before, after) = self.speech.prefix();
        let (count, ids) = (before.len(), [before, after].concat());
        let text = if ids.is_empty() { Vec::new() } else { self.embed(&ids)? };
        let (head, tail) = text.split_at(count * self.width);
        let embeds = [head, &seen.embeds, tail].concat();
        let tokens = embeds.len() / self.width;
        self.check_length(tokens)?;
        self.decoded.one_by_one += 1;
        let image = seen.embeds.len() / self.width;
        let mut positions = line(0, tokens);
        let mut shift = 0;
        if !seen.positions.is_empty() {
            if seen.positions.len() != image {
                let what = format!("has {image} tokens for {} places", seen.positions.len());
                return Err(ModelError::Output { engine: "vision", tensor: "image_embeds", what });
            }
            shift = seen.span - image as i32;
            let begin = count as i32;
            for (to, at) in positions[count..].iter_mut().zip(&seen.positions) {
                *to = at.map(|axis| begin + axis);
            }
            positions[count + image..].iter_mut().for_each(|at| *at = at.map(|axis| axis + shift));
        }
        let around = |features: &Vec<f32>| {
            let (head, tail) = (vec![0.0; count * self.width], vec![0.0; (tokens - count - image) * self.width]);
            [&head[..], features, &tail].concat()
        };
        let pass = Pass {
            cache: &KvCache::begin(&self.layout, &mut *self.engines.decoder),
            embeds: Tensor::f32(&[1, tokens, self.width], embeds),
            deepstack: seen.deepstack.iter().map(around).collect(),
            positions,
            bias: causal_bias(tokens, 0),
            logits_at: Vec::new(),
        };
        Ok(self.pass(pass)?.1.shifted(shift))
    }

    /// The answer to `query` behind `cache`.
    ///
    /// # Errors
    /// Engine failures, misshapen outputs, a conversation that is too long, a missed deadline.
    pub fn generate(
        &mut self,
        cache: &KvCache,
        query: &[u32],
        decoding: Decoding<'_>,
        deadline: Option<Instant>,
    ) -> Result<Generated, ModelError> {
        let Decoding { first, draft, constrained, observe } = decoding;
        let (mut tokens, mut cache) = (Vec::new(), std::borrow::Cow::Borrowed(cache));
        let mut feed = query.to_vec();
        loop {
            let certain = cache.tokens() + feed.len();
            let mut guess = draft(&tokens);
            guess.truncate(self.room(certain).min(self.limits.max_answer_tokens - tokens.len() - 1));
            feed.extend(&guess);
            self.decoded.drafted += guess.len() as u32;
            check_deadline(deadline)?;
            let (rows, mut grown) = self.append(&cache, &feed, guess.len() + 1)?;
            let (mut next, mut accepted) = (0, 0);
            for (i, row) in rows.into_iter().enumerate() {
                accepted = i;
                let p = softmax(row)?;
                next = if tokens.is_empty() { first(&p) } else { argmax(&p) };
                if constrained {
                    next = self.readable(&p, next, &mut tokens)?;
                }
                self.decoded.token(decoded::is_near_tie(&p));
                observe(&p, next);
                let stopped = self.speech.ends(next);
                if stopped {
                    // However it ended: what follows is taught behind the dialect's end.
                    next = self.speech.end();
                } else {
                    tokens.push(next);
                }
                if stopped || tokens.len() == self.limits.max_answer_tokens {
                    grown.truncate(&self.layout, certain + i);
                    return Ok(Generated { tokens, stopped, cache: grown, pending: vec![next] });
                }
                // The pass went on with a guess; its further rows hold only if the guess was right.
                if guess.get(i) != Some(&next) {
                    break;
                }
                self.decoded.accepted += 1;
            }
            grown.truncate(&self.layout, certain + accepted);
            cache = std::borrow::Cow::Owned(grown);
            feed = vec![next];
        }
    }

    /// `likely`, if the answer `tokens` can be read when it goes on with that; else the likeliest token that it can.
    fn readable(&self, p: &[f32], likely: u32, tokens: &mut Vec<u32>) -> Result<u32, ModelError> {
        // Of what may still be said, one token is this and the last one ends the answer.
        let room = self.limits.max_answer_tokens.saturating_sub(tokens.len() + 2);
        let mut may_say = |token: u32| {
            tokens.push(token);
            let may = self.speech.may_say(tokens, room);
            tokens.pop();
            may
        };
        if may_say(likely) {
            return Ok(likely);
        }
        let mut all: Vec<u32> = (0..p.len() as u32).collect();
        all.sort_by(|a, b| p[*b as usize].total_cmp(&p[*a as usize]));
        let stuck = || ModelError::Tokenize("no token goes on with an answer that can be read".into());
        all.into_iter().find(|token| may_say(*token)).ok_or_else(stuck)
    }

    /// The logits behind each of `tokens`, of which there is at least one, where they continue the conversation.
    ///
    /// # Errors
    /// Engine failures, misshapen outputs, a conversation that is too long.
    pub fn read(&mut self, cache: &KvCache, tokens: &[u32]) -> Result<Vec<Vec<f32>>, ModelError> {
        if tokens.is_empty() {
            return Err(ModelError::Tokenize("there are no tokens to read".into()));
        }
        Ok(self.append(cache, tokens, tokens.len())?.0)
    }

    /// Appends `tokens` to the conversation; the logits of the last `count` of them and the longer cache.
    fn append(
        &mut self,
        cache: &KvCache,
        tokens: &[u32],
        count: usize,
    ) -> Result<(Vec<Vec<f32>>, KvCache), ModelError> {
        let (past, new) = (cache.tokens(), tokens.len());
        self.check_length(past + new)?;
        let pass = Pass {
            cache,
            embeds: Tensor::f32(&[1, new, self.width], self.embed(tokens)?),
            deepstack: Vec::new(),
            positions: line(past as i32 + cache.shift(), new),
            bias: causal_bias(new, past),
            logits_at: (new - count..new).map(|i| i as i32).collect(),
        };
        self.pass(pass)
    }
}

/// One run of the decoder.
struct Pass<'a> {
    cache: &'a KvCache,
    /// `f32[1, S, D]`.
    embeds: Tensor<'static>,
    /// What is added to the outputs of the first layers, `f32[S, D]` each; empty: nothing.
    deepstack: Vec<Vec<f32>>,
    /// `[S]`.
    positions: Vec<Position>,
    /// `[S, P + S]`.
    bias: Vec<f32>,
    /// Which of the S places need logits.
    logits_at: Vec<i32>,
}

impl Mllm {
    /// Runs the decoder: the logits of `logits_at` and the longer cache.
    fn pass(&mut self, pass: Pass<'_>) -> Result<(Vec<Vec<f32>>, KvCache), ModelError> {
        self.passes += 1;
        let (new, past, rows) = (pass.positions.len(), pass.cache.tokens(), pass.logits_at.len());
        // The graph wants at least one place, even where nobody looks at its logits.
        let indices = if rows == 0 { vec![new as i32 - 1] } else { pass.logits_at };
        let positions = match self.axes {
            true => Tensor::i32(&[1, new, 3], pass.positions.concat()),
            false => Tensor::i32(&[1, new], pass.positions.iter().map(|at| at[0]).collect::<Vec<_>>()),
        };
        let mut inputs = vec![
            ("inputs_embeds", pass.embeds),
            ("position_ids", positions),
            ("attention_bias", Tensor::f32(&[1, 1, new, past + new], pass.bias)),
            ("logit_indices", Tensor::i32(&[indices.len()], indices)),
        ];
        let mut features = pass.deepstack.into_iter();
        for name in &self.deepstack {
            let added = features.next().unwrap_or_else(|| vec![0.0; new * self.width]);
            inputs.push((name, Tensor::f32(&[1, new, self.width], added)));
        }
        let (mut wanted, shift) = (if rows > 0 { vec!["logits"] } else { Vec::new() }, pass.cache.shift());
        if let Some(cache) = pass.cache.resident() {
            let (outputs, grown) = self.engines.decoder.run_resident(inputs, cache, &wanted)?;
            let logits = outputs.into_iter().next().map_or_else(|| Ok(Vec::new()), |all| split_logits(all, rows))?;
            return Ok((logits, KvCache::of_engine(grown).shifted(shift)));
        }
        let names = self.layout.past().iter().map(String::as_str);
        inputs.extend(names.zip(pass.cache.tensors(&self.layout)));
        wanted.extend(self.layout.present().iter().map(String::as_str));
        let mut outputs = self.engines.decoder.run(inputs, &wanted)?;
        if outputs.len() != wanted.len() {
            let what = format!("gave {} outputs, expected {}", outputs.len(), wanted.len());
            return Err(ModelError::Output { engine: DECODER, tensor: "*", what });
        }
        let kept = outputs.split_off(usize::from(rows > 0));
        let logits = outputs.pop().map_or_else(|| Ok(Vec::new()), |logits| split_logits(logits, rows))?;
        Ok((logits, KvCache::from_outputs(&self.layout, kept.into_iter(), past + new)?.shifted(shift)))
    }

    /// The embeddings of `ids`, `[ids.len(), width]`.
    fn embed(&mut self, ids: &[u32]) -> Result<Vec<f32>, ModelError> {
        let input: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let inputs = vec![("input_ids", Tensor::i32(&[1, ids.len()], input))];
        let [embeds] = exactly(self.engines.embed.run(inputs, &["inputs_embeds"])?, EMBED)?;
        take_f32(embeds, &[1, ids.len(), self.width], EMBED, "inputs_embeds")
    }

    /// How many tokens may be drafted behind a conversation of `tokens`: a guess must not make it too long.
    fn room(&self, tokens: usize) -> usize {
        self.limits.max_positions.saturating_sub(tokens)
    }

    fn check_length(&self, tokens: usize) -> Result<(), ModelError> {
        let limit = self.limits.max_positions;
        if tokens > limit { Err(ModelError::TooLong { tokens, limit }) } else { Ok(()) }
    }
}

/// The positions of `count` tokens one behind the other.
fn line(from: i32, count: usize) -> Vec<Position> {
    (from..from + count as i32).map(|at| [at; 3]).collect()
}

/// The rows of `logits: f32[1, rows, V]`.
fn split_logits(logits: Tensor<'static>, rows: usize) -> Result<Vec<Vec<f32>>, ModelError> {
    let vocabulary = match *logits.shape() {
        [1, _, vocabulary] if vocabulary > 0 => vocabulary,
        ref shape => {
            let what = format!("has shape {shape:?}");
            return Err(ModelError::Output { engine: DECODER, tensor: "logits", what });
        }
    };
    let values = take_f32(logits, &[1, rows, vocabulary], DECODER, "logits")?;
    Ok(values.chunks_exact(vocabulary).map(<[f32]>::to_vec).collect())
}

/// Probabilities from logits.
fn softmax(mut row: Vec<f32>) -> Result<Vec<f32>, ModelError> {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if !max.is_finite() {
        let what = format!("has {max} as its largest element");
        return Err(ModelError::Output { engine: DECODER, tensor: "logits", what });
    }
    let mut sum = 0f32;
    for v in &mut row {
        *v = (*v - max).exp();
        sum += *v;
    }
    row.iter_mut().for_each(|v| *v /= sum);
    Ok(row)
}

/// The token of the largest probability, the first of equals.
pub fn argmax(p: &[f32]) -> u32 {
    let best =
        p.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (i, v)| if *v > best.1 { (i, *v) } else { best });
    best.0 as u32
}

#[cfg(test)]
mod resident_tests;
#[cfg(test)]
mod tests;
