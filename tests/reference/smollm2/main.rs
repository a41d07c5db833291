//! A language model that was trained, SmolLM2-135M-Instruct, against `transformers`: the same 64 greedy tokens behind each
//! of five prompts.
//!
//! `setup.sh` fetches it; without it these tests say that they were skipped. `tokens.json` is `generate.py`'s. With
//! SMOLLM2_PYTHON, a Python that has torch and transformers, PyTorch's speed is measured in turns with ours: one thread
//! each, by the time of the process, so that others on the machine hardly count.

// A test fails by panicking, and these print what they measured.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use sam4mllm::engine::rten::{RtenEngine, RtenOptions};
use sam4mllm::engine::{Engine, Tensor};
use sam4mllm::import::{ComposeError, Composition, Level, compose, import};
use serde::Deserialize;
use tokenizers::Tokenizer;

const TURNS: usize = 3;

#[derive(Deserialize)]
struct Expected {
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    text: String,
    tokens: Vec<u32>,
    greedy: Vec<u32>,
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The checkpoint, if it is there.
fn checkpoint() -> Option<PathBuf> {
    let dir = here("target/smollm2/checkpoint");
    if dir.join("model.safetensors").exists() {
        return Some(dir);
    }
    let _ = writeln!(std::io::stderr(), "skipped: 1 test, no SmolLM2 (run tests/reference/smollm2/setup.sh)");
    None
}

/// Seconds that the cores have spent on this process; 0 where the system does not tell.
fn core_seconds() -> f64 {
    // Field 14 and 15, counted behind the name, which may hold anything; in hundredths of a second on Linux.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// A text model as its graphs have it, with nothing in between.
struct Text {
    embed: RtenEngine,
    decoder: RtenEngine,
    past: Vec<String>,
    present: Vec<String>,
}

impl Text {
    fn load(dir: &Path, graphs: &Path) -> Self {
        let report = import(dir, graphs, Level::Portable).unwrap();
        let names: Vec<&str> = report.graphs.iter().map(|graph| graph.name.as_str()).collect();
        assert_eq!((report.class.as_str(), names), ("LlamaForCausalLM", vec!["embed", "decoder"]));
        println!("imported in {:.2} s, {} parameters", report.elapsed.as_secs_f64(), report.weights.parameters);
        let options = RtenOptions::default().threads(1);
        let load = |name: &str| RtenEngine::load(graphs.join(format!("{name}.onnx")), &options).unwrap();
        let [embed, decoder] = ["embed", "decoder"].map(load);
        let past: Vec<String> =
            decoder.inputs().iter().map(|i| i.name.clone()).filter(|name| name.starts_with("past_")).collect();
        let present = past.iter().map(|name| name.replacen("past_", "present_", 1)).collect();
        Self { embed, decoder, past, present }
    }

    /// An empty cache.
    fn empty(&self) -> Vec<Tensor<'static>> {
        let shape = |name: &String| {
            let info = self.decoder.inputs().iter().find(|input| input.name == *name).unwrap();
            info.shape.iter().map(|side| side.unwrap_or(0)).collect::<Vec<_>>()
        };
        self.past.iter().map(|name| Tensor::f32(&shape(name), Vec::new())).collect()
    }

    /// The likeliest token behind `ids`, which continue what is in `cache`.
    fn next(&mut self, ids: &[u32], cache: &mut Vec<Tensor<'static>>) -> u32 {
        let (new, past) = (ids.len(), cache[0].shape()[2]);
        let input = Tensor::i32(&[1, new], ids.iter().map(|id| *id as i32).collect::<Vec<_>>());
        let embeds = self.embed.run(vec![("input_ids", input)], &["inputs_embeds"]).unwrap().remove(0);
        let mut bias = vec![0f32; new * (past + new)];
        for (row, values) in bias.chunks_exact_mut(past + new).enumerate() {
            values[past + row + 1..].fill(-1e30);
        }
        let positions: Vec<i32> = (past as i32..(past + new) as i32).collect();
        let mut inputs = vec![
            ("inputs_embeds", embeds),
            ("position_ids", Tensor::i32(&[1, new], positions)),
            ("attention_bias", Tensor::f32(&[1, 1, new, past + new], bias)),
            ("logit_indices", Tensor::i32(&[1], vec![new as i32 - 1])),
        ];
        inputs.extend(self.past.iter().map(String::as_str).zip(std::mem::take(cache)));
        let wanted: Vec<&str> = std::iter::once("logits").chain(self.present.iter().map(String::as_str)).collect();
        let mut outputs = self.decoder.run(inputs, &wanted).unwrap().into_iter();
        let logits = outputs.next().unwrap();
        *cache = outputs.collect();
        sam4mllm::model::mllm::argmax(logits.as_f32().unwrap())
    }

    /// As many greedy tokens as the prompt's answer has, and how many seconds of a core all but the first took.
    fn generate(&mut self, prompt: &Prompt) -> (Vec<u32>, f64) {
        let mut cache = self.empty();
        let mut said = vec![self.next(&prompt.tokens, &mut cache)];
        let start = core_seconds();
        while said.len() < prompt.greedy.len() {
            let last = said[said.len() - 1];
            said.push(self.next(&[last], &mut cache));
        }
        (said, core_seconds() - start)
    }
}

#[test]
fn a_trained_model_says_what_transformers_says() {
    let Some(dir) = checkpoint() else { return };
    let expected = fs::read_to_string(here("tests/reference/smollm2/tokens.json")).unwrap();
    let Expected { prompts } = serde_json::from_str(&expected).unwrap();
    assert!(prompts.len() == 5 && prompts.iter().all(|prompt| prompt.greedy.len() == 64));
    let tokenizer = Tokenizer::from_file(dir.join("tokenizer.json")).unwrap();
    for prompt in &prompts {
        assert_eq!(tokenizer.encode(prompt.text.as_str(), false).unwrap().get_ids(), prompt.tokens, "{}", prompt.text);
    }
    let graphs = tempfile::tempdir().unwrap();
    let mut model = Text::load(&dir, graphs.path());
    model.generate(&prompts[0]);
    let python = std::env::var_os("SMOLLM2_PYTHON");
    for turn in 0..if python.is_some() { TURNS } else { 1 } {
        let (mut tokens, mut took) = (0, 0.0);
        for prompt in &prompts {
            let (said, time) = model.generate(prompt);
            assert_eq!(said, prompt.greedy, "{}", prompt.text);
            (tokens, took) = (tokens + said.len() - 1, took + time);
        }
        println!("turn {turn}: {:.1} tokens/s of a core", tokens as f64 / took);
        let Some(python) = &python else { continue };
        let script = here("tests/reference/smollm2/generate.py");
        let output = Command::new(python).arg(script).arg(&dir).arg("--speed").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        println!("turn {turn}: PyTorch {} tokens/s of a core", String::from_utf8_lossy(&output.stdout).trim());
    }
}

#[test]
fn a_model_without_eyes_makes_no_bundle() {
    let Some(mllm) = checkpoint() else { return };
    let (sam, out) = (here("engines/tabletop/sam"), tempfile::tempdir().unwrap());
    let parts = Composition { mllm: &mllm, sam: &sam, dialect: None, name: "blind", licence: "Apache-2.0" };
    let error = compose(&parts, out.path()).expect_err("it sees nothing");
    assert!(matches!(&error, ComposeError::Kind { class, .. } if class == "LlamaForCausalLM"), "{error}");
}
