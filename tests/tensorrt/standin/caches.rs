//! Caches that are updated in place: given and taken as long as conversations are, and kept on the device.

use sam4mllm::engine::tensorrt::TensorRtEngine;
use sam4mllm::engine::{Engine, EngineError, EngineErrorKind as Kind, Resident, Tensor};

use crate::plans::{IN_PLACE, PAIR, cause, fail_at, load, try_load};

/// Embeddings `[1, tokens, 4]` of small whole numbers, those of one conversation from `first` on.
pub fn embeds(first: usize, tokens: usize) -> Tensor<'static> {
    let values: Vec<f32> = (first * 4..(first + tokens) * 4).map(|i| i as f32).collect();
    Tensor::f32(&[1, tokens, 4], values)
}

pub fn bias(new: usize, total: usize) -> Tensor<'static> {
    Tensor::f32(&[1, 1, new, total], vec![0.0; new * total])
}

/// What the stand-in writes for the tokens numbered `tokens`, into output `number`.
fn cache(tokens: &[usize], number: usize) -> Tensor<'static> {
    let value = |head: usize, token: usize, w: usize| (token * 4 + head * 2 + w + 1000 * number) as f32;
    let all = (0..2).flat_map(|head| tokens.iter().flat_map(move |token| [(head, *token, 0), (head, *token, 1)]));
    Tensor::f32(&[1, 2, tokens.len(), 2], all.map(|(head, token, w)| value(head, token, w)).collect::<Vec<_>>())
}

/// One pass with the cache of the host's.
fn pass(
    engine: &mut TensorRtEngine,
    (past, new): (usize, usize),
    caches: [Tensor<'_>; 2],
) -> Result<Vec<Tensor<'static>>, EngineError> {
    let [key, value] = caches;
    let inputs = vec![
        ("past_value.0", value),
        ("inputs_embeds", embeds(past, new)),
        ("attention_bias", bias(new, past + new)),
        ("past_key.0", key),
    ];
    engine.run(inputs, &["present_value.0", "logits", "present_key.0"])
}

fn none() -> [Tensor<'static>; 2] {
    [(); 2].map(|()| Tensor::f32(&[1, 2, 0, 2], vec![]))
}

/// From outside, such a plan is a decoder like any other.
pub fn a_cache_in_place_comes_and_goes_as_long_as_it_is() {
    let mut engine = load(IN_PLACE);
    let names: Vec<_> = engine.inputs().iter().map(|info| info.name.as_str()).collect();
    assert_eq!(names, ["inputs_embeds", "attention_bias", "past_key.0", "past_value.0"]);
    assert_eq!(engine.inputs()[2].shape, [Some(1), Some(2), None, Some(2)]);
    assert_eq!(engine.outputs()[0].shape, [Some(1), Some(2), None, Some(2)]);
    let (mut caches, mut tokens) = (none(), 0);
    for new in [3, 1, 1, 3] {
        let answers = pass(&mut engine, (tokens, new), caches).expect("runs");
        tokens += new;
        let all: Vec<_> = (0..tokens).collect();
        let [value, logits, key] = <[Tensor<'static>; 3]>::try_from(answers).expect("three");
        assert_eq!((&key, &value), (&cache(&all, 1), &cache(&all, 2)), "{tokens} tokens");
        assert_eq!(logits.shape(), [1, new, 4]);
        caches = [key, value];
    }
    let error = pass(&mut engine, (8, 1), caches).expect_err("there is no room");
    assert_eq!((error.kind(), error.tensor()), (Kind::Input, Some("attention_bias")));
    let said = format!("{:#}", anyhow::Error::from(error));
    assert!(said.contains("the 8 that the plan has room for"), "{said}");
    let uneven = [cache(&[0, 1], 1), cache(&[0], 2)];
    let error = pass(&mut engine, (2, 1), uneven).expect_err("one is shorter");
    assert!(format!("{:#}", anyhow::Error::from(error)).contains("not as long as the others"));
    // Nothing of the refusals is left.
    pass(&mut engine, (0, 2), none()).expect("runs");
}

/// One pass with a cache of the engine's: the logits, and the longer cache.
pub fn go_on(engine: &mut TensorRtEngine, held: &dyn Resident, first: usize, new: usize) -> Box<dyn Resident> {
    try_go_on(engine, held, first, new).expect("runs")
}

fn try_go_on(
    engine: &mut TensorRtEngine,
    held: &dyn Resident,
    first: usize,
    new: usize,
) -> Result<Box<dyn Resident>, EngineError> {
    let inputs = vec![("inputs_embeds", embeds(first, new)), ("attention_bias", bias(new, held.tokens() + new))];
    let (answers, grown) = engine.run_resident(inputs, held, &["logits"])?;
    assert_eq!(answers[0].shape(), [1, new, 4]);
    assert_eq!(grown.tokens(), held.tokens() + new);
    Ok(grown)
}

/// The device memory that a conversation of `tokens` holds, by way of what the driver says is free.
pub fn used() -> u64 {
    let (free, total) = sam4mllm::engine::tensorrt::Device::open().and_then(|gpu| gpu.memory()).expect("is told");
    total - free
}

/// A debug view that tests alone have: the cache is fed back through the host's way by a second engine of one plan.
pub fn tokens_of(engine: &mut TensorRtEngine, held: &dyn Resident) -> Vec<usize> {
    engine.fetch(held).expect("is fetched")[0].as_f32().expect("is of floats")[..held.tokens() * 2]
        .chunks(2)
        .map(|pair| (pair[0] as usize - 1000) / 4)
        .collect()
}

/// Conversations behind one prefix do not see each other, and share its memory where they can.
pub fn a_cache_stays_on_the_device() {
    let mut engine = load(IN_PLACE);
    let start = engine.empty_cache().expect("keeps caches");
    let prefix = go_on(&mut engine, &*start, 0, 3);
    let before = used();
    let first = go_on(&mut engine, &*prefix, 10, 2);
    assert_eq!(used(), before, "one memory is enough");
    assert_eq!(tokens_of(&mut engine, &*first), [0, 1, 2, 10, 11]);
    // While the first lives, the second takes another memory; both stay as they are.
    let second = go_on(&mut engine, &*prefix, 20, 1);
    assert!(used() > before);
    let third = go_on(&mut engine, &*second, 30, 2);
    assert_eq!(tokens_of(&mut engine, &*first), [0, 1, 2, 10, 11]);
    assert_eq!(tokens_of(&mut engine, &*second), [0, 1, 2, 20]);
    assert_eq!(tokens_of(&mut engine, &*third), [0, 1, 2, 20, 30, 31]);
    let taken = used();
    drop((first, second, third));
    // What was forgotten is used again.
    let mut last = go_on(&mut engine, &*prefix, 40, 4);
    assert_eq!(used(), taken);
    last.truncate(5);
    assert_eq!(tokens_of(&mut engine, &*last), [0, 1, 2, 40, 41]);
    let last = go_on(&mut engine, &*last, 50, 1);
    assert_eq!(tokens_of(&mut engine, &*last), [0, 1, 2, 40, 41, 50]);
    assert_eq!(tokens_of(&mut engine, &*prefix), [0, 1, 2]);
}

/// Of a tree of tokens, a branch is kept; copies that see the rest are not changed.
pub fn a_branch_of_a_cache_is_kept() {
    let mut engine = load(IN_PLACE);
    let start = engine.empty_cache().expect("keeps caches");
    let prefix = go_on(&mut engine, &*start, 0, 2);
    let mut tree = go_on(&mut engine, &*prefix, 10, 5);
    let copy = tree.clone();
    tree.keep(2, &[1, 2, 4]).expect("is kept");
    assert_eq!(tokens_of(&mut engine, &*tree), [0, 1, 11, 12, 14]);
    assert_eq!(tokens_of(&mut engine, &*copy), [0, 1, 10, 11, 12, 13, 14]);
    drop(copy);
    let mut tree = go_on(&mut engine, &*tree, 20, 2);
    tree.keep(2, &[0, 3]).expect("is kept, where it is");
    assert_eq!(tokens_of(&mut engine, &*tree), [0, 1, 11, 20]);
    assert_eq!(tree.keep(2, &[0, 9]).map_err(|e| e.kind()), Ok(()), "nothing is left to forget");
    let mut tree = go_on(&mut engine, &*tree, 30, 3);
    assert_eq!(tree.keep(2, &[0, 9]).expect_err("there is none").kind(), Kind::Input);
    fail_at("cuMemcpy2DAsync");
    let error = tree.keep(2, &[1]).expect_err("fails");
    assert!(cause(&error).to_string().contains("unspecified launch failure"), "{error}");
    fail_at("");
    tree.truncate(0);
    assert_eq!(tree.tokens(), 0);
    assert_eq!(tokens_of(&mut engine, &*prefix), [0, 1]);
}

/// Failures leave no conversation longer than it was; caches outlive their engine.
pub fn a_failure_leaves_caches_as_they_were() {
    let mut engine = load(IN_PLACE);
    engine.set_cuda_graphs(false);
    let start = engine.empty_cache().expect("keeps caches");
    let prefix = go_on(&mut engine, &*start, 0, 2);
    for call in ["setTensorAddress", "enqueueV3", "cuMemcpyDtoHAsync", "setInputShape", "inferShapes"] {
        fail_at(call);
        assert!(try_go_on(&mut engine, &*prefix, 10, 2).is_err(), "{call}");
        fail_at("");
        let next = go_on(&mut engine, &*prefix, 20, 1);
        assert_eq!(tokens_of(&mut engine, &*next), [0, 1, 20], "after {call}");
    }
    let next = go_on(&mut engine, &*prefix, 30, 1);
    for call in ["cuMemAlloc", "cuMemsetD8Async", "cuMemcpy2DAsync"] {
        fail_at(call);
        assert!(try_go_on(&mut engine, &*prefix, 40, 1).is_err(), "a copy needs {call}");
        fail_at("");
    }
    assert_eq!(tokens_of(&mut engine, &*next), [0, 1, 30]);
    fail_at("cuMemcpy2DAsync");
    assert!(pass(&mut engine, (1, 1), [cache(&[0], 1), cache(&[0], 2)]).is_err());
    fail_at("");
    let mut other = load(IN_PLACE);
    assert_eq!(try_go_on(&mut other, &*prefix, 10, 1).expect_err("is another engine's").kind(), Kind::Input);
    assert!(load(PAIR).empty_cache().is_none());
    let too_long = try_go_on(&mut engine, &*prefix, 10, 7).expect_err("there is no room");
    assert_eq!(too_long.tensor(), Some("attention_bias"));
    drop(engine);
    let mut next = next;
    next.truncate(1);
    drop((prefix, next));
}

/// Plans that are not as the graphs' contract has them are refused when they are loaded.
pub fn a_cache_of_another_kind_is_refused() {
    let broken = [
        (
            IN_PLACE
                .replace("input write_indices i64 1\n", "input other i64 1\n")
                .replace("embeds write_indices", "embeds other"),
            "write_indices",
        ),
        (IN_PLACE.replace("attention_bias", "bias"), "attention_bias"),
        (IN_PLACE.replace("f16 1 2 8 2", "f16 1 2 9 2"), "present_value.0"),
        (IN_PLACE.replace("f16 1 2 8 2", "f16 2 2 8 2"), "present_value.0"),
    ];
    for (plan, tensor) in broken {
        let error = try_load(&plan).map(drop).expect_err("is refused");
        assert_eq!((error.kind(), error.tensor()), (Kind::Load, Some(tensor)), "{error}");
    }
}
