//! From a recipe to a bundle that answers, with the small checkpoints in the place of published ones.

use std::fs;
use std::path::Path;

use sam4mllm::engine::bundle::{Bundle, Verify};
use tempfile::TempDir;

use super::command::{program, run};
use super::serve;
use super::server::{Server, Shelf};
use super::usual;
use crate::reference;

/// A hub with the small LLaVA-NeXT and the small SAM.
fn shelf() -> (Shelf, [String; 2]) {
    let mut shelf = Shelf::default();
    let mllm = shelf.add_dir("tests/mllm", &reference("mllms/llava-next"));
    let sam = shelf.add_dir("tests/sam", &reference("checkpoints/sam"));
    (shelf, [mllm, sam])
}

/// Their recipe: a licence that has to be accepted, and the dialect and image of the bundles of `mllms.rs`.
fn recipe(commits: &[String; 2], home: &Path) -> String {
    let manifest = fs::read_to_string(reference("mllms/bundle.toml")).unwrap();
    let manifest = manifest.replace("$PREFIX", "<s><image>").replace("$END", "</s>");
    let image = &manifest[manifest.find("[sam.image]").unwrap()..manifest.find("[dialect]").unwrap()];
    let dialect = &manifest[manifest.find("[dialect]").unwrap()..];
    let text = format!(
        r#"
format = 1
name = "tiny"
description = "small random ones"
strategy = "box"
[mllm]
repo = "tests/mllm"
revision = "{}"
class = "LlavaNextForConditionalGeneration"
max_answer_tokens = 32
licence = {{ name = "tiny-research", url = "https://localhost/licence", accept = true, note = "for tests only" }}
[sam]
repo = "tests/sam"
revision = "main"
class = "SamModel"
licence = {{ name = "MIT", url = "https://localhost/mit", accept = false }}
{image}
{dialect}"#,
        commits[0]
    );
    let path = home.join("tiny.toml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn pull(home: &Path, server: &Server, recipe: &str, more: &[&str]) -> (bool, String, String) {
    let out = home.join("bundle");
    let args = ["engine", "pull", "--recipe", recipe, "-o", out.to_str().unwrap(), "--endpoint", &server.url()]
        .map(str::to_owned);
    let args: Vec<&str> = args.iter().map(String::as_str).chain(more.iter().copied()).collect();
    run(&mut program(home, &args))
}

#[test]
fn a_recipe_becomes_a_bundle_that_answers() {
    let (shelf, commits) = shelf();
    let server = serve(shelf, usual);
    let home = TempDir::new().unwrap();
    let recipe = recipe(&commits, home.path());
    let bundle = home.path().join("bundle");

    let (ok, _, stderr) = pull(home.path(), &server, &recipe, &[]);
    for says in [
        "`tiny-research`",
        "tests/mllm",
        "for tests only",
        "https://localhost/licence",
        "--accept-licence tiny-research",
    ] {
        assert!(!ok && stderr.contains(says), "{stderr}");
    }
    let (ok, _, stderr) = pull(home.path(), &server, &recipe, &["--accept-licence", "MIT"]);
    assert!(!ok && stderr.contains("`tiny-research`"), "{stderr}");
    assert!(server.seen("").is_empty() && !bundle.exists());

    let accept = ["--accept-licence", "tiny-research"];
    let (ok, stdout, stderr) = pull(home.path(), &server, &recipe, &accept);
    assert!(ok, "{stderr}");
    assert_eq!(stdout, format!("sam4mllm serve --bundle {}\n", bundle.display()));
    let opened = Bundle::open(&bundle, Verify::Hashes).unwrap();
    let manifest = opened.manifest();
    assert_eq!((manifest.name.as_str(), manifest.licence.as_str()), ("tiny", "tiny-research AND MIT"));
    assert!(commits.iter().all(|commit| manifest.description.contains(commit)), "{}", manifest.description);
    assert!(
        manifest.files.contains_key("mllm/model.safetensors") && manifest.files.contains_key("sam/model.safetensors")
    );
    // The graphs are where a node looks for them.
    assert!(home.path().join(".cache/sam4mllm").read_dir().unwrap().next().is_some());

    let picture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures/answer.png");
    let args = [
        "segment",
        picture.to_str().unwrap(),
        "the cup",
        "--bundle",
        bundle.to_str().unwrap(),
        "--strategy",
        "box",
        "--format",
        "json",
    ];
    let (ok, stdout, stderr) = run(&mut program(home.path(), &args));
    assert!(ok, "{stderr}");
    let answer: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert!(answer["verdict"].is_string(), "{stdout}");

    // What is there is not written over, and nothing unfinished lies beside it.
    let (ok, _, stderr) = pull(home.path(), &server, &recipe, &accept);
    assert!(!ok && stderr.contains("is there already"), "{stderr}");
    let beside: Vec<_> = home.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(beside.iter().all(|name| !name.to_string_lossy().starts_with(".bundle")), "{beside:?}");
}

#[test]
fn half_a_bundle_is_none() {
    let (_, commits) = shelf();
    let mut half = Shelf::default();
    assert_eq!(half.add_dir("tests/mllm", &reference("mllms/llava-next")), commits[0]);
    let server = serve(half, usual);
    let home = TempDir::new().unwrap();
    let (ok, _, stderr) =
        pull(home.path(), &server, &recipe(&commits, home.path()), &["--accept-licence", "tiny-research"]);
    assert!(!ok && stderr.contains("find repository `tests/sam@main`"), "{stderr}");
    let left: Vec<_> = home.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "tiny.toml" || name == ".cache"), "{left:?}");
}

#[test]
fn recipes_are_listed_and_can_be_copied() {
    let home = TempDir::new().unwrap();
    let (ok, stdout, stderr) = run(&mut program(home.path(), &["engine", "recipe"]));
    assert!(ok, "{stderr}");
    for says in
        ["paper", "Qwen/Qwen2.5-VL-3B-Instruct@main", "qwen-research (non-commercial), to be accepted", "fp16 15.9"]
    {
        assert!(stdout.contains(says), "{stdout}");
    }
    let (ok, stdout, _) = run(&mut program(home.path(), &["engine", "recipe", "--format", "json"]));
    let listed: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert!(ok && listed[1]["mllm"]["licence"]["accept"] == true, "{stdout}");
    let (ok, stdout, _) = run(&mut program(home.path(), &["engine", "recipe", "small"]));
    assert!(ok && stdout == include_str!("../../../engines/recipes/small.toml"));
    let (ok, _, stderr) = run(&mut program(home.path(), &["engine", "pull", "--recipe", "small", "-o", "x"]));
    assert!(!ok && stderr.contains("--accept-licence qwen-research"), "{stderr}");
}
