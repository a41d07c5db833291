//! The container files in `launch/` against what their build reads.

use std::fs;
use std::path::{Component, Path, PathBuf};

use regex::Regex;

const FILES: [&str; 2] = ["launch/container/Containerfile", "launch/container/jetpack.Containerfile"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// `path` without its `..`, from the repository's root on.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.strip_prefix(root()).expect("in the repository").components() {
        match part {
            Component::ParentDir => assert!(plain.pop(), "{path:?} is outside of the repository"),
            part => plain.push(part),
        }
    }
    plain
}

/// What the build stage of a container file copies out of the repository.
fn copied(file: &str) -> Vec<PathBuf> {
    let text = fs::read_to_string(root().join(file)).expect("a container file");
    let stage = text
        .split("\nFROM ")
        .find(|stage| stage.lines().next().is_some_and(|l| l.ends_with(" AS build")))
        .expect("builds");
    let lines = stage.lines().filter_map(|l| l.strip_prefix("COPY "));
    lines.flat_map(|l| l.split_whitespace().rev().skip(1).map(PathBuf::from).collect::<Vec<_>>()).collect()
}

#[test]
fn a_container_build_finds_all_that_the_source_takes_in() {
    let taken = Regex::new(r#"include_(?:str|bytes)!\(\s*"([^"]+)"\s*\)"#).expect("a pattern");
    let mut read = vec![PathBuf::from("Cargo.toml"), PathBuf::from("Cargo.lock"), PathBuf::from("src/main.rs")];
    for file in glob::glob(concat!(env!("CARGO_MANIFEST_DIR"), "/src/**/*.rs")).expect("a pattern") {
        let file = file.expect("can be read");
        let text = fs::read_to_string(&file).expect("a source file");
        read.extend(taken.captures_iter(&text).map(|c| plain(&file.parent().expect("in a folder").join(&c[1]))));
    }
    assert!(read.iter().any(|path| path.starts_with("engines")), "recipes are taken in: {read:?}");
    for file in FILES {
        let copied = copied(file);
        let missing: Vec<_> = read.iter().filter(|path| !copied.iter().any(|c| path.starts_with(c))).collect();
        assert!(missing.is_empty(), "{file} does not copy {missing:?}");
    }
}
