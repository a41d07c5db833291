//! Language models from directory to answers against `transformers`: the checkpoints under `mllms` and their goldens,
//! made by `make_mllm_goldens.py`. Everything goes through a bundle as a node loads it, from the raw picture on.
//!
//! Every comparison prints max |a - b| / max |b| and must be at most 1e-3.

// A test fails by panicking, and these print what they measured.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod recorded;

use std::fs;
use std::path::Path;

use recorded::{Goldens, near, reference};
use sam4mllm::engine::bundle::{Bundle, Verify, seal};
use sam4mllm::geometry::{BBox, Grid, Point};
use sam4mllm::model::Timings;
use sam4mllm::model::mllm::{Decoding, Mllm, Question, argmax};
use sam4mllm::model::stages::{LoadOptions, SelfTest, load_mllm};
use sam4mllm::prompt::{CountHint, Progress, parse_answer, progress};
use tempfile::TempDir;

/// The goldens of a checkpoint.
fn goldens_of(name: &'static str) -> Goldens {
    Goldens::read_from(name, &format!("mllm-{name}"))
}

impl Goldens {
    fn tokens(&self, key: &str) -> Vec<u32> {
        self.integers(key).1.into_iter().map(|token| token as u32).collect()
    }

    /// Compares with the golden tensor `key`.
    fn near(&self, key: &str, found: &[f32]) {
        near(&format!("{} {key}", self.name), found, &self.floats(key).1);
    }
}

/// A bundle of the checkpoint `name` beside the small SAM, in the dialect that its tokenizer takes.
fn bundle(name: &str) -> TempDir {
    bundle_with(name, |manifest| manifest)
}

/// The same with another manifest.
fn bundle_with(name: &str, change: impl Fn(String) -> String) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (part, from) in [("mllm", format!("mllms/{name}")), ("sam", "checkpoints/sam".to_owned())] {
        fs::create_dir(dir.path().join(part)).unwrap();
        for entry in fs::read_dir(reference(&from)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, dir.path().join(part).join(path.file_name().unwrap())).unwrap();
        }
    }
    let manifest = fs::read_to_string(reference("mllms/bundle.toml")).unwrap();
    let class = fs::read_to_string(dir.path().join("mllm/config.json")).unwrap();
    let class: serde_json::Value = serde_json::from_str(&class).unwrap();
    let (prefix, end) = match name.starts_with("qwen") {
        true => ("<|vision_start|><|image_pad|><|vision_end|>", "<|im_end|>"),
        false => ("<s><image>", "</s>"),
    };
    let manifest = manifest
        .replace("$CLASS", class["architectures"][0].as_str().unwrap())
        .replace("$PREFIX", prefix)
        .replace("$END", end);
    fs::write(dir.path().join("bundle.toml"), change(manifest)).unwrap();
    seal(dir.path()).unwrap();
    dir
}

fn load(dir: &Path, cache: &Path) -> Mllm {
    let bundle = Bundle::open(dir, Verify::Hashes).unwrap();
    let options = LoadOptions { cache_dir: Some(cache.to_owned()), self_test: SelfTest::Run, ..LoadOptions::default() };
    load_mllm(&bundle, &options).unwrap().0
}

/// Both pictures of a family: the prompt's logits, and the tokens that are said with theirs.
fn check(name: &'static str) {
    let (goldens, dir, cache) = (goldens_of(name), bundle(name), TempDir::new().unwrap());
    let mut mllm = load(dir.path(), cache.path());
    for i in [0, 1] {
        let prefix = mllm.prefix(&goldens.picture(&format!("{i}.image")), None, &mut Timings::default()).unwrap();
        let query = goldens.tokens(&format!("{i}.query"));
        let logits = mllm.read(&prefix, &query).unwrap();
        goldens.near(&format!("{i}.logits"), &logits.concat());

        let greedy = goldens.tokens(&format!("{i}.greedy"));
        let decoding =
            Decoding { first: &mut |p| argmax(p), draft: &|_| Vec::new(), constrained: false, observe: &mut |_, _| () };
        let said = mllm.generate(&prefix, &query, decoding, None).unwrap();
        assert_eq!(said.tokens, greedy, "{name}: greedy answer about picture {i}");
        // One pass over what was said: the cache and the positions behind an image are those of single steps.
        let whole = [&query[..], &greedy].concat();
        let logits = mllm.read(&prefix, &whole).unwrap();
        goldens.near(&format!("{i}.greedy_logits"), &logits[query.len() - 1..whole.len() - 1].concat());

        // Drafts, right or wrong, change nothing but the number of passes.
        mllm.take_passes();
        let draft = |answer: &[u32]| match answer.len() {
            0..9 => greedy[answer.len()..9].to_vec(),
            n => vec![greedy[n % greedy.len()], 0, 1],
        };
        let decoding =
            Decoding { first: &mut |p| argmax(p), draft: &draft, constrained: false, observe: &mut |_, _| () };
        assert_eq!(mllm.generate(&prefix, &query, decoding, None).unwrap().tokens, greedy);
        assert!(mllm.take_passes() < 24);
        branches_are_as_alone(&mut mllm, &prefix);
        constrained_answers_can_be_read(&mut mllm, &prefix);
    }
}

/// Questions side by side in one pass are answered as each is alone.
fn branches_are_as_alone(mllm: &mut Mllm, prefix: &sam4mllm::model::KvCache) {
    let question = |text: &str| Question { tokens: text.bytes().map(u32::from).collect(), answers: 1, draft: vec![] };
    let both = [question("is it on?"), question("is it red?")];
    let together = mllm.ask(prefix, &[], &both, None).unwrap();
    for (question, answers) in both.iter().zip(&together) {
        let alone = mllm.ask(prefix, &[], std::slice::from_ref(question), None).unwrap().remove(0);
        let [found, wanted] = [answers, &alone].map(|a| [a[0].0, a[0].1]);
        assert!(found.iter().zip(&wanted).all(|(a, b)| (a - b).abs() <= 1e-5 * b.max(1e-3)), "{found:?} {wanted:?}");
    }
}

/// A model that was taught nothing says boxes all the same where it is held to them.
fn constrained_answers_can_be_read(mllm: &mut Mllm, prefix: &sam4mllm::model::KvCache) {
    for query in ["find it:", "find the cup:", "where?"] {
        let query: Vec<u32> = query.bytes().map(u32::from).collect();
        let decoding =
            Decoding { first: &mut |p| argmax(p), draft: &|_| Vec::new(), constrained: true, observe: &mut |_, _| () };
        let said = mllm.generate(prefix, &query, decoding, None).unwrap();
        let text = mllm.speech().text(&said.tokens).unwrap();
        let dialect = mllm.speech().dialect();
        println!("constrained: {text}");
        assert!(parse_answer(&text, dialect).is_ok() || !said.stopped, "{text}");
        assert_ne!(progress(&text, dialect), Progress::Dead, "{text}");
    }
}

#[test]
fn llava_with_clip_behind_a_centre_crop_and_mistral_in_half_precision() {
    check("llava-mistral");
}

#[test]
fn llava_with_siglip_and_qwen2_with_yarn_in_shards_of_bfloat16() {
    check("llava-qwen2");
}

#[test]
fn llava_next_with_tiles_of_several_shapes_and_llama_3() {
    check("llava-next");
}

#[test]
fn qwen2_5_vl_with_windows_at_the_edge() {
    check("qwen2-5-vl");
}

#[test]
fn qwen3_vl_with_deepstack() {
    check("qwen3-vl");
}

/// Queries in the words of a checkpoint's own chat template, token for token as `apply_chat_template` has them.
fn check_chat(name: &'static str) {
    let (goldens, cache) = (goldens_of(name), TempDir::new().unwrap());
    let dir = bundle_with(name, |manifest| {
        let kept = manifest.lines().filter(|line| !line.starts_with("prefix ")).collect::<Vec<_>>().join("\n");
        kept.replace("[dialect]", "[dialect]\nchat = true")
            .replace("find {hint}: {command}:", "Find {hint}: {command}.")
            .replace("on {box}? {points}:", "On {box}? {points}")
    });
    let mllm = load(dir.path(), cache.path());
    let speech = mllm.speech();
    let (before, after) = speech.prefix();
    let query = speech.proposal_query(CountHint::One, "the red cup").unwrap();
    let first = [before, &[speech.image_token()], after, &query].concat();
    assert_eq!(first, goldens.tokens("chat.first"), "{name}");

    let bbox = BBox::<Grid>::new(1.0, 2.0, 3.0, 4.0);
    let answer: Vec<u32> = {
        let text = goldens.tokens("chat.second")[first.len()..].to_vec();
        text.into_iter().take_while(|token| *token != speech.end()).collect()
    };
    assert_eq!(speech.text(&answer).unwrap(), "[001,002,003,004]", "{name}");
    let further = speech.points_query(bbox, &[Point::new(5.0, 6.0)]).unwrap();
    let second = [&first[..], &answer, &[speech.end()], &further].concat();
    assert_eq!(second, goldens.tokens("chat.second"), "{name}");
}

#[test]
fn queries_in_the_checkpoints_own_chat_template() {
    for name in ["llava-mistral", "llava-next", "qwen2-5-vl", "qwen3-vl"] {
        check_chat(name);
    }
}
