//! The self-test: a bundle passes on its own stored outputs, and no weight of it can be wrong unseen.

use std::path::Path;
use std::process::Command;

use sam4mllm::engine::bundle::{Bundle, StoredOutputs, TensorPrint, Verify, seal, store_outputs};
use sam4mllm::model::selftest::{SelfTestError, TOLERANCE, compare};
use sam4mllm::model::stages::{LoadError, LoadOptions, SelfTest, run_self_test};
use sam4mllm::pipeline::{Stages, Strategy};
use tempfile::TempDir;

use crate::pipeline::{MANIFEST, bundle_dir};
use crate::stored;

fn options(dir: &Path) -> LoadOptions {
    LoadOptions { cache_dir: Some(dir.join("cache")), self_test: SelfTest::Run, ..LoadOptions::default() }
}

fn outputs(dir: &Path) -> StoredOutputs {
    let bundle = Bundle::open(dir, Verify::Hashes).unwrap();
    let tested = run_self_test(&bundle, &options(dir)).unwrap();
    tested.into_iter().map(|t| (format!("{}.{}", t.engine, t.tensor), t.print)).collect()
}

/// A bundle of the reference models, sealed with its outputs.
fn sealed() -> TempDir {
    let dir = bundle_dir(MANIFEST);
    seal(dir.path()).unwrap();
    store_outputs(dir.path(), Some(&outputs(dir.path()))).unwrap();
    dir
}

fn load(dir: &Path) -> Result<Stages, LoadError> {
    Stages::load(&Bundle::open(dir, Verify::Hashes).unwrap(), Strategy::Pqpp, &options(dir))
}

#[test]
fn a_bundle_passes_its_own_test_and_one_without_stored_outputs_too() {
    let dir = sealed();
    let manifest = std::fs::read_to_string(dir.path().join("bundle.toml")).unwrap();
    for name in ["vision.image_embeds", "embed.inputs_embeds", "decoder.logits", "decoder.cache"] {
        assert!(manifest.contains(&format!("\"{name}\" = ")), "no {name} in {manifest}");
    }
    for name in ["image_encoder.image_embedding", "mask_decoder.low_res_masks", "mask_decoder.iou_scores"] {
        assert!(manifest.contains(&format!("\"{name}\" = ")), "no {name} in {manifest}");
    }
    load(dir.path()).unwrap();
    // It is the same on any number of threads.
    let one = LoadOptions {
        mllm: sam4mllm::engine::rten::RtenOptions::default().threads(1),
        sam: sam4mllm::engine::rten::RtenOptions::default().threads(1),
        ..options(dir.path())
    };
    let bundle = Bundle::open(dir.path(), Verify::Hashes).unwrap();
    let mut tested = run_self_test(&bundle, &one).unwrap();
    compare(&mut tested, bundle.manifest().selftest.as_ref(), TOLERANCE).unwrap();
    let most = tested.iter().filter_map(|t| t.difference).fold(0.0, f32::max);
    println!("largest difference with one thread: {most:.1e}");
    assert_eq!(store_outputs(dir.path(), None).unwrap().len(), 16);
    load(dir.path()).unwrap();
}

#[test]
fn stored_outputs_of_other_weights_are_refused_by_name() {
    let dir = sealed();
    let path = dir.path().join("bundle.toml");
    let mut stored = Bundle::open(dir.path(), Verify::Hashes).unwrap().manifest().selftest.clone().unwrap();
    let print: &mut TensorPrint = stored.get_mut("mask_decoder.iou_scores").unwrap();
    let rms = print.rms;
    print.projections.iter_mut().for_each(|p| *p += 0.02 * rms);
    store_outputs(dir.path(), Some(&stored)).unwrap();
    let error = load(dir.path()).err().unwrap();
    assert!(
        matches!(
            error,
            LoadError::SelfTest(SelfTestError::Differs { engine: "mask_decoder", tensor: "iou_scores", .. })
        ),
        "{error}"
    );
    assert!(error.to_string().contains("differs by 2.000 %, more than 0.1 %"), "{error}");
    // What is no number of a tensor is no manifest.
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("rms = ", "rms = -")).unwrap();
    assert!(Bundle::open(dir.path(), Verify::Hashes).is_err());
}

/// Every element of a tensor a tenth larger or smaller, as may be, and by `least` besides: a normalisation takes back what
/// is done to all alike.
fn changed(bytes: &[u8], least: f32) -> Vec<u8> {
    let other = |(i, b): (usize, &[u8; 4])| {
        let (value, up) = (f32::from_le_bytes(*b), (i.wrapping_mul(0x9e37_79b9) >> 16) & 1 == 1);
        let by = value.abs() / 10.0 + least;
        (if up { value + by } else { value - by }).to_le_bytes()
    };
    bytes.as_chunks::<4>().0.iter().enumerate().flat_map(other).collect()
}

/// Changes one tensor of a checkpoint after the other, and counts those that the test does not see.
#[test]
fn no_matrix_can_be_wrong_unseen() {
    let dir = sealed();
    let known = Bundle::open(dir.path(), Verify::Hashes).unwrap().manifest().selftest.clone().unwrap();
    let (mut seen, mut unseen, mut least) = (0, Vec::new(), f32::INFINITY);
    for model in ["mllm", "sam"] {
        let path = dir.path().join(model).join("model.safetensors");
        let original = std::fs::read(&path).unwrap();
        let names: Vec<String> = {
            let file = safetensors::SafeTensors::deserialize(&original).unwrap();
            file.names().into_iter().map(str::to_owned).collect()
        };
        for name in names {
            std::fs::write(&path, &original).unwrap();
            stored::rewrite(&path, |tensor, (dtype, shape, bytes)| {
                assert_eq!(dtype, safetensors::Dtype::F32);
                let data =
                    if tensor == name { changed(&bytes, if shape.len() > 1 { 0.01 } else { 0.1 }) } else { bytes };
                Some((tensor.to_owned(), (dtype, shape, data)))
            });
            let most = difference(dir.path(), &known);
            if most > TOLERANCE {
                seen += 1;
                least = least.min(most);
            } else {
                unseen.push(name);
            }
        }
        std::fs::write(&path, &original).unwrap();
    }
    println!("{seen} tensors seen, the least by {least:.1e}; not seen: {unseen:?}");
    // What no answer depends on: attention is the same whatever is added to all keys alike, and some tensors are not used.
    let harmless = |name: &String| name.ends_with("k_proj.bias") || UNUSED.iter().any(|unused| name.contains(unused));
    let missed: Vec<_> = unseen.iter().filter(|name| !harmless(name)).collect();
    assert!(missed.is_empty(), "{missed:?}");
    assert!(seen > 100, "{seen}");
}

/// Parts of names of tensors that the graphs leave out.
const UNUSED: [&str; 1] = ["vision_tower.post_layernorm"];

/// The largest difference of any output from `known`, as the test sees it.
fn difference(dir: &Path, known: &StoredOutputs) -> f32 {
    seal(dir).unwrap();
    let bundle = Bundle::open(dir, Verify::Sizes).unwrap();
    let cache = tempfile::tempdir().unwrap();
    let mut tested = run_self_test(&bundle, &options(cache.path())).unwrap();
    let each = tested.iter_mut().map(|t| {
        // The first beyond the tolerance would end it for all.
        let _ = compare(std::slice::from_mut(t), Some(known), TOLERANCE);
        t.difference.unwrap()
    });
    each.fold(0.0, f32::max)
}

#[test]
fn seal_stores_outputs_and_a_check_holds_them_against_the_engines() {
    let dir = bundle_dir(MANIFEST);
    let bundle = dir.path().to_str().unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sam4mllm"));
        command.args(args).env("SAM4MLLM_CACHE", dir.path().join("cache")).env_remove("RUST_LOG").output().unwrap()
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let output = run(&["engine", "seal", bundle]);
    assert!(text(&output.stdout).contains("7 outputs for the self-test"), "{output:?}");
    let check = || run(&["serve", "--check", "--listen", "127.0.0.1:0", "--bundle", bundle]);
    let good = check();
    assert_eq!(good.status.code(), Some(0), "{}{}", text(&good.stdout), text(&good.stderr));
    assert!(text(&good.stdout).contains("from what is stored"), "{}", text(&good.stdout));
    // Weights that were changed and sealed, and the outputs of the old ones.
    let path = dir.path().join("sam/model.safetensors");
    stored::rewrite(&path, |name, (dtype, shape, mut bytes)| {
        if name == "vision_encoder.patch_embed.projection.weight" {
            bytes[3] ^= 0x80;
        }
        Some((name.to_owned(), (dtype, shape, bytes)))
    });
    let hashed = check();
    assert_eq!(hashed.status.code(), Some(1));
    assert!(text(&hashed.stdout).contains("of bundle file `sam/model.safetensors`"), "{}", text(&hashed.stdout));
    seal(dir.path()).unwrap();
    let bad = check();
    assert_eq!(bad.status.code(), Some(1), "{}", text(&bad.stdout));
    assert!(text(&bad.stdout).contains("FAULT"), "{}", text(&bad.stdout));
    // As `--no-self-test` says, nothing is held against anything.
    assert!(run(&["engine", "seal", bundle, "--no-self-test"]).status.success());
    let bare = check();
    assert_eq!(bare.status.code(), Some(0));
    assert!(text(&bare.stdout).contains("nothing is stored to hold it against"), "{}", text(&bare.stdout));
}
