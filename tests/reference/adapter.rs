//! LoRA adapters: what an import does with them, and a typed error for each way in which one does not fit.
#![allow(clippy::unwrap_used)]

mod stored;

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::Dtype;
use sam4mllm::engine::bundle::{Bundle, BundleErrorKind, Verify, seal};
use sam4mllm::import::{
    Adapter, AdapterMode, ImportError, ImportErrorKind as Kind, ImportReport, Level, import, import_adapted,
    import_bundle,
};
use stored::Stored;
use tempfile::TempDir;

const MODES: [AdapterMode; 2] = [AdapterMode::Merge, AdapterMode::Keep];

fn reference(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(path)
}

fn copy_to(from: &str, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(reference(from)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// A copy of a reference adapter that a test may damage.
fn copy(name: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    copy_to(&format!("adapters/{name}"), dir.path());
    dir
}

fn adapted(checkpoint: &str, adapter: &Path, mode: AdapterMode) -> Result<(ImportReport, TempDir), ImportError> {
    let out = TempDir::new().unwrap();
    let checkpoint = reference("checkpoints").join(checkpoint);
    let report = import_adapted(checkpoint, Some(Adapter { dir: adapter, mode }), out.path(), Level::Portable)?;
    Ok((report, out))
}

/// Rewrites the adapter's weights; `edit` gets each tensor and may drop or rename it.
fn rewrite(dir: &Path, edit: impl Fn(&str, Stored) -> Option<(String, Stored)>) {
    stored::rewrite(&dir.join("adapter_model.safetensors"), edit);
}

fn drop_one(dir: &Path, dropped: &str) {
    rewrite(dir, |name, stored| (name != dropped).then(|| (name.to_owned(), stored)));
}

fn rename(dir: &Path, from: &str, to: &str) {
    rewrite(dir, |name, stored| Some((name.replace(from, to), stored)));
}

fn edit(dir: &Path, from: &str, to: &str) {
    let path = dir.join("adapter_config.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "the settings hold no {from}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

#[test]
fn only_what_is_merged_is_written() {
    let out = TempDir::new().unwrap();
    let plain = import(reference("checkpoints/llava-siglip"), out.path(), Level::Portable).unwrap();
    let [merged, kept] = MODES.map(|mode| adapted("llava-siglip", &reference("adapters/plain"), mode).unwrap().0);
    for report in [&merged, &kept] {
        let adapter = report.adapter.as_ref().unwrap();
        assert_eq!((adapter.low_rank, adapter.rank, adapter.replaced), (14, 4, 4));
        assert_eq!(
            report.weights.parameters - plain.weights.parameters,
            match adapter.mode {
                AdapterMode::Merge => 0,
                // 2 layers: q, o 48×48, k, v 48×24, gate, up, down 48×80, rank 4.
                _ => 2 * 4 * (2 * 96 + 2 * 72 + 3 * 128),
            }
        );
        assert_eq!(report.weights.unused, plain.weights.unused, "{:?}", adapter.mode);
    }
    let changed = 4 * 2 * (2 * 48 * 48 + 2 * 48 * 24 + 3 * 48 * 80);
    assert_eq!(merged.weights.written_bytes - plain.weights.written_bytes, changed);
    assert_eq!(plain.weights.in_place_bytes - merged.weights.in_place_bytes, changed);
    assert_eq!(kept.weights.written_bytes, plain.weights.written_bytes);
}

/// A way to damage an adapter, and the error it must give: kind, end of the file's name, item.
struct Case {
    adapter: &'static str,
    checkpoint: &'static str,
    damage: fn(&Path),
    wanted: (Kind, &'static str, &'static str),
}

const Q: &str = "base_model.model.model.language_model.layers.1.self_attn.q_proj";
const Q_A: &str = "base_model.model.model.language_model.layers.1.self_attn.q_proj.lora_A.weight";
const Q_B: &str = "base_model.model.model.language_model.layers.1.self_attn.q_proj.lora_B.weight";
const BIAS: &str = "base_model.model.model.multi_modal_projector.linear_1.bias";

const fn plain(damage: fn(&Path), wanted: (Kind, &'static str, &'static str)) -> Case {
    Case { adapter: "plain", checkpoint: "llava-siglip", damage, wanted }
}

const CASES: &[Case] = &[
    plain(|dir| fs::remove_file(dir.join("adapter_config.json")).unwrap(), (Kind::Open, "adapter_config.json", "")),
    plain(
        |dir| fs::remove_file(dir.join("adapter_model.safetensors")).unwrap(),
        (Kind::Open, "adapter_model.safetensors", ""),
    ),
    plain(
        |dir| {
            let path = dir.join("adapter_model.safetensors");
            let bytes = fs::read(&path).unwrap();
            fs::write(path, &bytes[..bytes.len() - 4]).unwrap();
        },
        (Kind::Corrupt, "adapter_model.safetensors", ""),
    ),
    plain(|dir| rewrite(dir, |_, _| None), (Kind::MissingTensor, "adapter_model.safetensors", "")),
    plain(|dir| edit(dir, "\"r\": 4", "\"r\": 0"), (Kind::Config, "adapter_config.json", "r")),
    plain(|dir| edit(dir, "\"lora_alpha\": 6", "\"lora_alpha\": NaN"), (Kind::Config, "adapter_config.json", "")),
    plain(
        |dir| edit(dir, "\"lora_alpha\": 6", "\"lora_alpha\": \"nan\""),
        (Kind::Config, "adapter_config.json", "lora_alpha"),
    ),
    plain(
        |dir| edit(dir, "\"use_dora\": false", "\"use_dora\": true"),
        (Kind::Unsupported, "adapter_config.json", "use_dora"),
    ),
    plain(
        |dir| edit(dir, "\"LlavaForConditionalGeneration\"", "\"LlamaForCausalLM\""),
        (Kind::AdapterBase, "adapter_config.json", "auto_mapping.base_model_class"),
    ),
    plain(|dir| drop_one(dir, Q_A), (Kind::MissingTensor, "adapter_model.safetensors", Q_A)),
    plain(|dir| drop_one(dir, Q_B), (Kind::MissingTensor, "adapter_model.safetensors", Q_B)),
    plain(
        |dir| drop_one(dir, BIAS),
        (Kind::MissingTensor, "adapter_model.safetensors", "multi_modal_projector.linear_1.bias"),
    ),
    plain(
        |dir| edit(dir, "\"r\": 4", "\"r\": 8"),
        (Kind::Shape, "adapter_model.safetensors", "base_model.model.model.lang"),
    ),
    plain(
        |dir| {
            rewrite(dir, |name, (dtype, mut shape, bytes)| {
                if name == Q_B {
                    shape.reverse();
                }
                Some((name.to_owned(), (dtype, shape, bytes)))
            });
        },
        (Kind::Shape, "adapter_model.safetensors", Q_B),
    ),
    plain(
        |dir| {
            rewrite(dir, |name, (dtype, mut shape, bytes)| {
                if name == BIAS {
                    shape.insert(0, 1);
                }
                Some((name.to_owned(), (dtype, shape, bytes)))
            });
        },
        (Kind::Shape, "adapter_model.safetensors", BIAS),
    ),
    plain(
        |dir| {
            rewrite(dir, |name, (dtype, shape, bytes)| {
                let dtype = if name == Q_A { Dtype::I32 } else { dtype };
                Some((name.to_owned(), (dtype, shape, bytes)))
            });
        },
        (Kind::Dtype, "adapter_model.safetensors", "language_model.model.layers.1.self_attn.q_proj.lora_A.weight"),
    ),
    plain(
        |dir| rename(dir, Q, "base_model.model.model.language_model.layers.7.self_attn.q_proj"),
        (Kind::AdapterTarget, "adapter_model.safetensors", "base_model.model.model.language_model.layers.7"),
    ),
    plain(
        |dir| rename(dir, "base_model.model.model.language_model.", "base_model.model.transformer."),
        (Kind::AdapterTarget, "adapter_model.safetensors", "base_model.model.transformer.layers.0"),
    ),
    plain(|dir| rename(dir, "base_model.model.", ""), (Kind::AdapterTarget, "adapter_model.safetensors", "model.")),
    plain(
        |dir| rename(dir, Q_A, "base_model.model.model.language_model.embed_tokens.lora_embedding_A"),
        (Kind::Unsupported, "adapter_model.safetensors", "base_model.model.model.language_model.embed_tokens"),
    ),
    plain(
        |dir| rename(dir, "layers.1.self_attn.q_proj", "layers.1.input_layernorm"),
        (Kind::Shape, "adapter_model.safetensors", "base_model.model.model.language_model.layers.1.input_layernorm"),
    ),
    plain(
        |dir| rename(dir, Q, "base_model.model.model.vision_tower.embeddings.patch_embedding"),
        (Kind::Unsupported, "adapter_model.safetensors", "base_model.model.model.vision_tower.embeddings"),
    ),
    plain(
        // The same matrix under an older name beside the newer one.
        |dir| {
            rename(
                dir,
                "model.language_model.layers.0.self_attn.q_proj",
                "language_model.model.layers.1.self_attn.q_proj",
            );
        },
        (Kind::Corrupt, "adapter_model.safetensors", "base_model.model."),
    ),
    // The feature layers end before the tower's last one: a change there would be lost.
    Case {
        adapter: "patterns",
        checkpoint: "llava-clip",
        damage: |dir| {
            rewrite(dir, |name, (dtype, shape, mut bytes)| {
                if name.ends_with("encoder.layers.2.mlp.fc1.lora_B.weight") {
                    bytes[1] = 0x3f;
                }
                Some((name.to_owned(), (dtype, shape, bytes)))
            });
        },
        wanted: (
            Kind::AdapterTarget,
            "adapter_model.safetensors",
            "base_model.model.vision_tower.vision_model.encoder.layers.2.mlp.fc1.lora_B.weight",
        ),
    },
    // An adapter for the other checkpoint of the same class.
    Case {
        adapter: "patterns",
        checkpoint: "llava-siglip",
        damage: |_| {},
        wanted: (Kind::AdapterTarget, "adapter_model.safetensors", "base_model.model.language_model.lm_head"),
    },
    Case {
        adapter: "plain",
        checkpoint: "sam",
        damage: |_| {},
        wanted: (Kind::AdapterBase, "adapter_config.json", "auto_mapping.base_model_class"),
    },
];

#[test]
fn what_does_not_fit_is_refused_by_name_in_both_modes() {
    for (index, case) in CASES.iter().enumerate() {
        let dir = copy(case.adapter);
        (case.damage)(dir.path());
        let (kind, file, item) = case.wanted;
        for mode in MODES {
            let error = adapted(case.checkpoint, dir.path(), mode).expect_err(&format!("{index}: {kind:?} {item}"));
            let chain = format!("{index}: {error} ({error:?})");
            assert_eq!(error.kind(), kind, "{chain}");
            assert!(error.file().ends_with(file), "{chain}");
            assert!(error.item().unwrap_or("").starts_with(item), "{item}: {chain}");
        }
    }
}

/// A sealed bundle of two reference checkpoints, with an adapter in it.
fn bundle() -> TempDir {
    let dir = TempDir::new().unwrap();
    copy_to("checkpoints/llava-siglip", &dir.path().join("mllm"));
    copy_to("checkpoints/sam", &dir.path().join("sam"));
    copy_to("adapters/plain", &dir.path().join("adapters/warehouse"));
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine/bundle/testdata/bundle.toml");
    let text = fs::read_to_string(manifest).unwrap();
    let named =
        text.replacen("[mllm.image]", "adapter = \"adapters/warehouse\"\nadapter_mode = \"keep\"\n[mllm.image]", 1);
    fs::write(dir.path().join("bundle.toml"), named).unwrap();
    seal(dir.path()).unwrap();
    dir
}

#[test]
fn a_bundles_adapter_is_hashed_and_imported() {
    let dir = bundle();
    let opened = Bundle::open(dir.path(), Verify::Hashes).unwrap();
    assert!(opened.manifest().files.contains_key("adapters/warehouse/adapter_model.safetensors"));
    let out = TempDir::new().unwrap();
    let [mllm, sam] = import_bundle(&opened, out.path(), Level::Portable).unwrap();
    let adapter = mllm.adapter.unwrap();
    assert_eq!((adapter.mode, adapter.low_rank, sam.adapter), (AdapterMode::Keep, 14, None));

    fs::write(dir.path().join("adapters/warehouse/notes.txt"), "x").unwrap();
    let error = Bundle::open(dir.path(), Verify::Hashes).unwrap_err();
    assert_eq!((error.kind(), error.place()), (BundleErrorKind::Unlisted, "adapters/warehouse/notes.txt"));
    fs::remove_file(dir.path().join("adapters/warehouse/notes.txt")).unwrap();
    let file = dir.path().join("adapters/warehouse/adapter_model.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    assert_eq!(Bundle::open(dir.path(), Verify::Hashes).unwrap_err().kind(), BundleErrorKind::Hash);
}

#[test]
fn a_bundles_adapter_is_a_directory_of_its_own() {
    let dir = bundle();
    let path = dir.path().join("bundle.toml");
    let text = fs::read_to_string(&path).unwrap();
    for (place, kind, at) in
        [("../warehouse", BundleErrorKind::Path, "../warehouse"), ("sam", BundleErrorKind::Invalid, "mllm.adapter")]
    {
        fs::write(&path, text.replace("\"adapters/warehouse\"", &format!("{place:?}"))).unwrap();
        let error = Bundle::open(dir.path(), Verify::Hashes).unwrap_err();
        assert_eq!((error.kind(), error.place()), (kind, at));
    }
}
