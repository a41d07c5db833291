//! What stays on the GPU against what passes the host: a conversation whose cache its decoder keeps, and SAM's embedding
//! on its way from one engine to the next. Both ways are the same engine's, so nothing but the way differs.

use super::kv::{KvCache, KvLayout};
use super::sam::Features;
use super::selftest::inputs::{pass, pattern, pixels, prompts};
use super::{ModelError, exactly};
use crate::engine::paired::Notes;
use crate::engine::tensorrt::TensorRtEngine;
use crate::engine::{Engine, Resident, Tensor};

/// What [`check_conversation`] holds against each other, where engines' names are.
pub const CONVERSATION: &str = "decoder/resident";
/// The same of [`check_embedding`].
pub const EMBEDDING: &str = "mask_decoder/held";

/// Tokens that two conversations begin with.
const PREFIX: usize = 6;

/// A conversation twice.
struct Conversation {
    host: KvCache,
    resident: Box<dyn Resident>,
}

/// Has conversations with `decoder` both ways: with several tokens and one by one, with branches behind a common prefix,
/// with tokens that are forgotten. Logits and caches go to `notes`; nothing where it keeps no caches.
///
/// # Errors
/// An engine that fails, and outputs that are misshapen or not finite.
pub fn check_conversation(decoder: &mut TensorRtEngine, notes: &Notes) -> Result<(), ModelError> {
    let layout = KvLayout::of(decoder)?;
    let Some(resident) = decoder.empty_cache() else { return Ok(()) };
    let start = Conversation { host: KvCache::empty(&layout), resident };
    let mut check = Check { decoder, layout, notes };
    let prefix = check.go_on(&start, PREFIX, 1)?;
    // Of three tokens behind it two are kept, as of a draft that is taken in part.
    let mut first = check.go_on(&prefix, 3, 2)?;
    first.host.keep(&check.layout, PREFIX, &[0, 2])?;
    first.resident.keep(PREFIX, &[0, 2])?;
    for token in 0..4 {
        // By a graph from the third on, where there are graphs.
        first = check.go_on(&first, 1, 10 + token)?;
    }
    let second = check.go_on(&prefix, 2, 20)?;
    [prefix, first, second].iter().try_for_each(|conversation| check.caches(conversation))
}

struct Check<'c> {
    decoder: &'c mut TensorRtEngine,
    layout: KvLayout,
    notes: &'c Notes,
}

impl Check<'_> {
    /// `conversation` with `new` tokens more, whose embeddings `seed` decides.
    fn go_on(&mut self, conversation: &Conversation, new: usize, seed: u64) -> Result<Conversation, ModelError> {
        let past = conversation.host.tokens();
        let given = pass(self.decoder, self.embeds(new, seed)?, past);
        let views = || given.iter().map(|(name, tensor)| (name.as_str(), tensor.view()));
        let own = self.layout.past().iter().map(String::as_str).zip(conversation.host.tensors(&self.layout));
        let present = self.layout.present().iter().map(String::as_str);
        let wanted: Vec<_> = std::iter::once("logits").chain(present).collect();
        let mut outputs = self.decoder.run(views().chain(own).collect(), &wanted)?.into_iter();
        let by_host = outputs.next().ok_or_else(|| missing("logits"))?;
        let host = KvCache::from_outputs(&self.layout, outputs, past + new)?;
        let (found, resident) = self.decoder.run_resident(views().collect(), &*conversation.resident, &["logits"])?;
        let [found] = exactly(found, "decoder")?;
        self.notes.hold(CONVERSATION, "logits", &by_host, &found);
        Ok(Conversation { host, resident })
    }

    fn embeds(&self, new: usize, seed: u64) -> Result<Tensor<'static>, ModelError> {
        let info = self.decoder.inputs().iter().find(|info| info.name == "inputs_embeds");
        let width =
            info.and_then(|info| info.shape.last().copied().flatten()).ok_or_else(|| missing("inputs_embeds"))?;
        Ok(Tensor::f32(&[1, new, width], pattern(new * width, seed)))
    }

    /// Holds the caches themselves against each other.
    fn caches(&mut self, conversation: &Conversation) -> Result<(), ModelError> {
        let found = self.decoder.fetch(&*conversation.resident)?;
        let by_host = conversation.host.tensors(&self.layout);
        by_host.iter().zip(&found).for_each(|(by_host, found)| self.notes.hold(CONVERSATION, "cache", by_host, found));
        Ok(())
    }
}

/// Hands what `encoder` sees in a picture to `decoder` both ways. Levels and masks go to `notes`; nothing where the
/// encoder holds no outputs.
///
/// # Errors
/// As [`check_conversation`].
pub fn check_embedding(
    encoder: &mut TensorRtEngine,
    decoder: &mut TensorRtEngine,
    notes: &Notes,
) -> Result<(), ModelError> {
    if !encoder.can_hold() {
        return Ok(());
    }
    let (picture, names) = (pixels(encoder, "image_encoder")?, Features::names(encoder));
    let side = picture[0].1.shape()[2] as f32;
    let wanted = ["low_res_masks", "iou_scores"];
    for _ in 0..3 {
        // The third time by graphs, where there are graphs.
        let seen = encoder.run(picture.clone(), &names)?;
        let held = encoder.run_held(picture.clone(), &names)?;
        for (name, (by_host, found)) in names.iter().zip(seen.iter().zip(held.fetch()?)) {
            notes.hold(EMBEDDING, name, by_host, &found);
        }
        let (by_host, held) = (Features::new(seen)?, Features::held(held)?);
        let inputs = prompts(side, by_host.grid());
        let views = || inputs.iter().map(|(name, tensor)| (*name, tensor.view())).collect();
        let expected = by_host.decode(decoder, views(), &wanted)?;
        let found = held.decode(decoder, views(), &wanted)?;
        for (name, (expected, found)) in wanted.iter().zip(expected.iter().zip(&found)) {
            notes.hold(EMBEDDING, name, expected, found);
        }
    }
    Ok(())
}

fn missing(tensor: &'static str) -> ModelError {
    ModelError::Output { engine: "decoder", tensor, what: "is missing or has no fixed width".to_owned() }
}
