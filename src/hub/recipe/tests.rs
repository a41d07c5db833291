use super::*;
use crate::engine::bundle::{Dialect, DialectName};

/// A matrix of a decoder's layers: its sides, and whether it has a bias.
type Matrix = (u64, u64, bool);

/// A decoder: width, layers, width of keys, width inside, words, whether words and head are one, bias of the projections.
struct Decoder {
    width: u64,
    layers: u64,
    keys: u64,
    inner: u64,
    words: u64,
    tied: bool,
    bias: bool,
}

impl Decoder {
    fn matrices(&self) -> [Matrix; 7] {
        let Self { width, keys, inner, bias, .. } = *self;
        [
            (width, width, bias),
            (width, keys, bias),
            (width, keys, bias),
            (width, width, false),
            (width, inner, false),
            (width, inner, false),
            (inner, width, false),
        ]
    }

    /// Parameters in the matrices of the layers.
    fn quantised(&self) -> u64 {
        self.layers * self.matrices().iter().map(|(input, output, _)| input * output).sum::<u64>()
    }

    fn parameters(&self) -> u64 {
        let biases: u64 = self.matrices().iter().filter(|(.., bias)| *bias).map(|(_, output, _)| output).sum();
        let words = self.words * self.width * if self.tied { 1 } else { 2 };
        self.quantised() + self.layers * (biases + 2 * self.width) + self.width + words
    }
}

const LLAMA_3_8B: Decoder =
    Decoder { width: 4096, layers: 32, keys: 1024, inner: 14336, words: 128_320, tied: false, bias: false };
const QWEN_3B: Decoder =
    Decoder { width: 2048, layers: 36, keys: 256, inner: 11008, words: 151_936, tied: true, bias: true };
const QWEN_7B: Decoder =
    Decoder { width: 3584, layers: 28, keys: 512, inner: 18944, words: 152_064, tied: false, bias: true };

/// CLIP ViT-L/14 at 336 pixels, the projector between it and a decoder of that width, and the token of a row's end.
fn clip_and_projector(width: u64) -> u64 {
    let layer = 4 * (1024 * 1024 + 1024) + 2 * 1024 * 4096 + 4096 + 1024 + 4 * 1024;
    let embeddings = 1024 * 3 * 14 * 14 + 1024 + (24 * 24 + 1) * 1024;
    embeddings + 24 * layer + 4 * 1024 + 1024 * width + width + width * width + width + width
}

/// The tower of Qwen2.5-VL, with its merger into a decoder of that width.
fn qwen_tower(width: u64) -> u64 {
    let mlp = 3 * 1280 * 3420 + 2 * 3420 + 1280;
    let layer = 3 * 1280 * 1280 + 3 * 1280 + 1280 * 1280 + 1280 + mlp + 2 * 1280;
    3 * 2 * 14 * 14 * 1280 + 32 * layer + 1280 + 5120 * 5120 + 5120 + 5120 * width + width
}

fn built_in(name: &str) -> Recipe {
    Recipe::built_in().find(|recipe| recipe.name == name).unwrap()
}

#[test]
fn parameters_are_those_of_the_architectures() {
    for (name, decoder, tower) in [
        ("paper", &LLAMA_3_8B, clip_and_projector(4096)),
        ("small", &QWEN_3B, qwen_tower(2048)),
        ("training-free", &QWEN_7B, qwen_tower(3584)),
    ] {
        let recipe = built_in(name);
        assert_eq!(recipe.mllm.parameters, Some(decoder.parameters() + tower), "{name}");
    }
}

#[test]
fn expected_memory_is_what_the_parameters_take() {
    for (name, decoder) in [("paper", &LLAMA_3_8B), ("small", &QWEN_3B), ("training-free", &QWEN_7B)] {
        let recipe = built_in(name);
        let all = (recipe.mllm.parameters.unwrap() + recipe.sam.parameters.unwrap()) as f64;
        let few = decoder.quantised() as f64;
        let memory = recipe.memory_gib.unwrap();
        for (precision, stated, bytes) in [
            ("fp32", memory.fp32, 4.0 * all),
            ("fp16", memory.fp16, 2.0 * all),
            ("int8", memory.int8, 2.0 * (all - few) + few),
            ("int4", memory.int4, 2.0 * (all - few) + few * (0.5 + 2.0 / 128.0)),
        ] {
            let gib = bytes / f64::from(1 << 30);
            assert!((stated - gib).abs() <= 0.051, "{name} in {precision}: {stated} is stated, {gib} follows");
        }
    }
}

#[test]
fn the_names_of_files_and_recipes_agree_and_every_restriction_is_asked_about() {
    let names: Vec<String> = Recipe::built_in().map(|recipe| recipe.name).collect();
    assert_eq!(names, BUILT_IN.map(|(name, _)| name));
    for recipe in Recipe::built_in() {
        let classes: Vec<&str> = crate::import::families::classes().collect();
        assert!(classes.contains(&recipe.mllm.class.as_str()) && classes.contains(&recipe.sam.class.as_str()));
        for (_, licence) in recipe.licences() {
            assert_eq!(licence.accept, licence.name != "Apache-2.0", "{}", recipe.name);
        }
    }
    let accepted = |name: &str| built_in("small").check_licences(&[name.to_owned()]);
    let error = accepted("Apache-2.0").unwrap_err();
    assert_eq!((error.kind(), error.place()), (Kind::Licence, "qwen-research"));
    let why = std::error::Error::source(&error).unwrap().to_string();
    for part in ["Qwen/Qwen2.5-VL-3B-Instruct", "non-commercial", "/LICENSE", "--accept-licence qwen-research"] {
        assert!(why.contains(part), "{why}");
    }
    accepted("qwen-research").unwrap();
    built_in("training-free").check_licences(&[]).unwrap();
}

#[test]
fn what_is_no_recipe_is_refused_with_its_key() {
    let text = Recipe::text("small").unwrap();
    let parse = |from: &str, to: &str| {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let error = Recipe::parse(&changed, "mine").unwrap_err();
        (error.kind(), error.place().to_owned())
    };
    for (from, to) in [
        ("name = \"small\"", ""),
        ("strategy = \"box\"", "strategy = \"guess\""),
        ("dialect = \"qwen_json\"", "dialect = \"klingon\""),
        ("repo = \"Qwen/", "repo = \"../"),
        ("revision = \"main\"", "revision = \"../main\""),
        ("accept = true", "acept = true"),
        ("width = 1024", "width = -1"),
    ] {
        assert_eq!(parse(from, to), (Kind::Parse, "mine".to_owned()), "{from}");
    }
    for (from, to, key) in [
        ("format = 1", "format = 2", "format"),
        ("name = \"small\"", "name = \" \"", "name"),
        ("url = \"https:", "url = \"http:", "mllm.licence.url"),
        ("fp32 = ", "fp32 = -", "memory_gib"),
        ("class = \"SamModel\"", "class = \"SamModel\"\ninclude = [\"a**b\"]", "sam.include"),
    ] {
        assert_eq!(parse(from, to), (Kind::Invalid, key.to_owned()), "{from}");
    }
    let error = Recipe::find("no-such").unwrap_err();
    assert_eq!((error.kind(), error.place()), (Kind::Unknown, "no-such"));
}

#[test]
fn a_dialect_that_is_written_out_is_checked_and_becomes_the_bundles() {
    let manifest = include_str!("../../engine/bundle/testdata/bundle.toml");
    let start = manifest.find("[dialect]").unwrap();
    let dialect = &manifest[start..manifest.find("[files]").unwrap()];
    let text = Recipe::text("small").unwrap().replace("dialect = \"qwen_json\"\n", "") + dialect;
    let recipe = Recipe::parse(&text, "mine").unwrap();
    let commits = ["a".repeat(40), "b".repeat(40)];
    let made = recipe.manifest([&commits[0], &commits[1]], None);
    // The recipe says the strategy, whatever dialect it takes.
    let written = Manifest::parse(manifest).unwrap().dialect;
    assert_eq!(made.dialect, Dialect { strategy: recipe.strategy, ..written });
    assert_eq!((made.version.as_str(), made.licence.as_str()), ("aaaaaaaa-bbbbbbbb", "qwen-research AND Apache-2.0"));
    assert!(made.description.contains(&commits[0]) && made.description.contains("facebook/sam-vit-base"));
    let error = Recipe::parse(&text.replace("yes = \"yes\"", "yes = \"\""), "mine").unwrap_err();
    assert_eq!((error.kind(), error.place()), (Kind::Invalid, "dialect.yes"));
    // One with a name is that dialect, but for the checkpoint's own end of an answer and the recipe's strategy.
    let made = |name| built_in(name).manifest([&commits[0], &commits[1]], Some("<|eot_id|>".to_owned())).dialect;
    let end_of_answer = || "<|eot_id|>".to_owned();
    let paper = Dialect { end_of_answer: end_of_answer(), ..DialectName::Paper.words() };
    assert_eq!((made("paper"), paper.strategy), (paper, Strategy::Pqpp));
    assert_eq!(made("small"), Dialect { end_of_answer: end_of_answer(), ..DialectName::QwenJson.words() });
}
