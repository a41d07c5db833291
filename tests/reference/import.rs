//! Importing and loading: every layout and dtype that is taken, and a typed error for everything that is not.

// A test fails by panicking, and these print what they measured.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod hub;
mod stored;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;

use safetensors::tensor::Dtype;
use sam4mllm::engine::bundle::{Bundle, Verify, seal};
use sam4mllm::engine::rten::{RtenEngine, RtenOptions};
use sam4mllm::engine::{Engine, EngineErrorKind, Tensor};
use sam4mllm::import::{Form, ImportError, ImportErrorKind as Kind, Level, Precision, import, import_cached};
use stored::Stored;
use tempfile::TempDir;

fn reference(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference").join(path)
}

/// A copy of a reference checkpoint that a test may damage.
fn copy(name: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    copy_to(name, dir.path());
    dir
}

fn copy_to(name: &str, to: &Path) {
    for entry in fs::read_dir(reference("checkpoints").join(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn try_import(dir: &Path) -> Result<TempDir, ImportError> {
    let out = TempDir::new().unwrap();
    import(dir, out.path(), Level::Portable).map(|_| out)
}

/// Rewrites `model.safetensors` in `dir`; `edit` gets each tensor and may drop it.
fn rewrite(dir: &Path, edit: impl Fn(&str, Stored) -> Option<(String, Stored)>) {
    stored::rewrite(&dir.join("model.safetensors"), edit);
}

/// The same tensor in another float type.
fn convert(to: Dtype) -> impl Fn(&str, Stored) -> Option<(String, Stored)> {
    move |name, (_, shape, bytes)| {
        let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
        let data = match to {
            Dtype::F16 => values.flat_map(|v| half::f16::from_f32(v).to_le_bytes()).collect(),
            Dtype::BF16 => values.flat_map(|v| half::bf16::from_f32(v).to_le_bytes()).collect(),
            Dtype::F64 => values.flat_map(|v| f64::from(v).to_le_bytes()).collect(),
            _ => bytes,
        };
        Some((name.to_owned(), (to, shape, data)))
    }
}

fn load(out: &Path, graph: &str) -> RtenEngine {
    RtenEngine::load(out.join(format!("{graph}.onnx")), &RtenOptions::default()).unwrap()
}

/// What the imported vision and decoder graphs of a LLaVA checkpoint say to one fixed input.
fn answers(out: &Path) -> Vec<f32> {
    let wave = |n: usize| (0..n).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<_>>();
    let mut vision = load(out, "vision");
    let shape: Vec<usize> = vision.inputs()[0].shape.iter().map(|d| d.unwrap()).collect();
    let pixels = Tensor::f32(&shape, wave(shape.iter().product()));
    let image = vision.run(vec![("pixel_values", pixels)], &["image_embeds"]).unwrap().remove(0);
    let (count, width) = (image.shape()[1], image.shape()[2]);
    let mut answers = image.into_f32().unwrap();
    let mut decoder = load(out, "decoder");
    let caches: Vec<(String, Vec<usize>)> = decoder
        .inputs()
        .iter()
        .filter(|info| info.name.starts_with("past_"))
        .map(|info| (info.name.clone(), info.shape.iter().map(|d| d.unwrap_or(0)).collect()))
        .collect();
    let mut inputs = vec![
        ("inputs_embeds", Tensor::f32(&[1, count, width], answers.clone())),
        ("position_ids", Tensor::i32(&[1, count], (0..count as i32).collect::<Vec<_>>())),
        ("attention_bias", Tensor::f32(&[1, 1, count, count], vec![0.0; count * count])),
        ("logit_indices", Tensor::i32(&[2], vec![0, count as i32 - 1])),
    ];
    inputs.extend(caches.iter().map(|(name, shape)| (name.as_str(), Tensor::f32(shape, vec![]))));
    answers.extend(decoder.run(inputs, &["logits"]).unwrap().remove(0).into_f32().unwrap());
    answers
}

fn deviation(found: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(found.len(), wanted.len());
    let largest = wanted.iter().fold(0f32, |max, x| max.max(x.abs()));
    found.iter().zip(wanted).fold(0f32, |max, (a, b)| max.max((a - b).abs())) / largest
}

#[test]
fn names_of_every_version_of_transformers() {
    let wanted = answers(try_import(&reference("checkpoints/llava-clip")).unwrap().path());
    let layouts: [&[(&str, &str)]; 3] = [
        // Up to 4.51, and written by save_pretrained of later ones.
        &[("vision_tower.", "vision_tower.vision_model.")],
        // The module tree of 4.52 and later.
        &[
            ("vision_tower.", "model.vision_tower.vision_model."),
            ("multi_modal_projector.", "model.multi_modal_projector."),
            ("language_model.model.", "model.language_model."),
            ("language_model.lm_head.", "lm_head."),
        ],
        // The module tree of 5.x.
        &[
            ("vision_tower.", "model.vision_tower."),
            ("multi_modal_projector.", "model.multi_modal_projector."),
            ("language_model.model.", "model.language_model."),
            ("language_model.lm_head.", "lm_head."),
        ],
    ];
    for renamings in layouts {
        let dir = copy("llava-clip");
        rewrite(dir.path(), |name, stored| {
            let renamed =
                renamings.iter().find_map(|(from, to)| name.strip_prefix(from).map(|rest| format!("{to}{rest}")));
            Some((renamed.unwrap_or_else(|| name.to_owned()), stored))
        });
        assert_eq!(answers(try_import(dir.path()).unwrap().path()), wanted, "{renamings:?}");
    }
}

#[test]
fn half_precision_is_read_in_place() {
    let wanted = answers(try_import(&reference("checkpoints/llava-clip")).unwrap().path());
    for (dtype, tolerance) in [(Dtype::F16, 5e-3), (Dtype::BF16, 4e-2)] {
        let dir = copy("llava-clip");
        rewrite(dir.path(), convert(dtype));
        let out = TempDir::new().unwrap();
        let report = import(dir.path(), out.path(), Level::Portable).unwrap();
        let off = deviation(&answers(out.path()), &wanted);
        println!("{dtype:?}: max |a - b| / max |b| = {off:.2e}, {:?}", report.weights.data_types);
        assert!(off > 0.0 && off <= tolerance, "{dtype:?}: {off}");
        // Not counted: a position embedding that is computed with.
        let in_place = report.weights.in_place_bytes;
        assert!(in_place > 0 && in_place <= 2 * report.weights.parameters, "{dtype:?}: {in_place} bytes");
        assert!(report.weights.written_bytes < report.weights.parameters, "{dtype:?}: {:?}", report.weights);
    }
}

#[test]
fn weights_at_odd_offsets_are_copied() {
    let dir = copy("llava-clip");
    let path = dir.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(*bytes.first_chunk().unwrap());
    // One more blank behind the header moves all data by one byte.
    let (header, data) = bytes[8..].split_at(length as usize);
    fs::write(&path, [&(length + 1).to_le_bytes(), header, b" ", data].concat()).unwrap();
    let out = TempDir::new().unwrap();
    let report = import(dir.path(), out.path(), Level::Portable).unwrap();
    assert_eq!(report.weights.in_place_bytes, 0);
    assert_eq!(answers(out.path()), answers(try_import(&reference("checkpoints/llava-clip")).unwrap().path()));
}

#[test]
fn importing_twice_into_one_directory_leaves_the_checkpoint_alone() {
    let (dir, out) = (copy("sam"), TempDir::new().unwrap());
    let before = fs::read(dir.path().join("model.safetensors")).unwrap();
    for _ in 0..2 {
        let report = import(dir.path(), out.path(), Level::Portable).unwrap();
        assert_eq!(report.weights.unused, [] as [&str; 0]);
        load(out.path(), "mask_decoder");
    }
    assert!(fs::read(dir.path().join("model.safetensors")).unwrap() == before);
}

/// Every form that graphs are written in has its own operators; weights in few bits are written once, and no more.
#[test]
fn each_form_has_its_own_operators() {
    let dir = reference("checkpoints/llava-siglip");
    let import = |level, precision| {
        let out = TempDir::new().unwrap();
        let report = import(&dir, out.path(), Form { level, precision }).unwrap();
        let operators = report.graphs.iter().find(|graph| graph.name == "decoder").unwrap().operators.clone();
        println!("{level:?} {precision:?}: {} bytes written, {operators:?}", report.weights.written_bytes);
        (report, operators)
    };
    let (plain, operators) = import(Level::Portable, Precision::Fp32);
    assert!(operators.contains_key("Softmax") && !operators.contains_key("Attention"));
    assert_eq!((plain.weights.quantised, plain.weights.in_place_bytes), (0, 4 * plain.weights.parameters));
    let layers = operators["Softmax"];
    let (fused, operators) = import(Level::Fused, Precision::Fp32);
    let count = |name: &str| operators.get(name).copied().unwrap_or(0);
    let found = ["Attention", "RotaryEmbedding", "TensorScatter", "RMSNormalization", "Softmax", "Concat"].map(count);
    assert_eq!(found, [layers, 2 * layers, 2 * layers, 2 * layers + 1, 0, 0]);
    let decoder = fused.graphs.iter().find(|graph| graph.name == "decoder").unwrap();
    let cache = decoder.inputs.iter().find(|port| port.name == "past_key.0").unwrap();
    assert_eq!((cache.data_type, cache.shape[2].as_str()), ("f32", "capacity"));
    let (half, _) = import(Level::Fused, Precision::Fp16);
    let decoder = half.graphs.iter().find(|graph| graph.name == "decoder").unwrap();
    let types = |name: &str| decoder.inputs.iter().find(|port| port.name == name).unwrap().data_type;
    assert_eq!((types("past_key.0"), types("inputs_embeds")), ("f16", "f32"));
    let (eight, operators) = import(Level::Portable, Precision::Int8);
    assert_eq!(operators["DequantizeLinear"], 7 * layers, "every linear layer of the text model");
    assert!(eight.weights.quantised > 0 && eight.weights.written_bytes >= eight.weights.quantised);
    assert_eq!(eight.weights.in_place_bytes, plain.weights.in_place_bytes - 4 * eight.weights.quantised);
    assert_eq!((&eight.weights.unused, eight.weights.parameters), (&plain.weights.unused, plain.weights.parameters));
}

/// Replaces text in a file.
fn edit(dir: &Path, file: &str, from: &str, to: &str) {
    let text = fs::read_to_string(dir.join(file)).unwrap();
    assert!(text.contains(from), "{file} holds no {from}");
    fs::write(dir.join(file), text.replacen(from, to, 1)).unwrap();
}

/// A way to damage a checkpoint, and the error it must give: kind, end of the file's name, start of the item.
struct Case {
    checkpoint: &'static str,
    damage: fn(&Path),
    wanted: (Kind, &'static str, &'static str),
}

fn write_header(dir: &Path, length: u64, header: &[u8]) {
    fs::write(dir.join("model.safetensors"), [&length.to_le_bytes(), header].concat()).unwrap();
}

const DAMAGED_FILES: &[Case] = &[
    Case {
        checkpoint: "sam",
        damage: |dir| fs::remove_file(dir.join("config.json")).unwrap(),
        wanted: (Kind::Open, "config.json", ""),
    },
    Case {
        checkpoint: "sam",
        damage: |dir| fs::remove_file(dir.join("model.safetensors")).unwrap(),
        wanted: (Kind::Open, "model.safetensors", ""),
    },
    Case {
        checkpoint: "sam",
        damage: |dir| {
            let bytes = fs::read(dir.join("model.safetensors")).unwrap();
            fs::write(dir.join("model.safetensors"), &bytes[..bytes.len() - 1]).unwrap();
        },
        wanted: (Kind::Corrupt, "model.safetensors", ""),
    },
    Case {
        checkpoint: "sam",
        damage: |dir| fs::write(dir.join("model.safetensors"), [1, 2, 3]).unwrap(),
        wanted: (Kind::Corrupt, "model.safetensors", ""),
    },
    Case {
        checkpoint: "sam",
        damage: |dir| write_header(dir, 1 << 63, b"{}"),
        wanted: (Kind::Corrupt, "model.safetensors", ""),
    },
    Case {
        checkpoint: "sam",
        damage: |dir| write_header(dir, u64::MAX, b"{}"),
        wanted: (Kind::Corrupt, "model.safetensors", ""),
    },
    Case {
        checkpoint: "sam",
        damage: |dir| write_header(dir, 4, b"{\"x\""),
        wanted: (Kind::Corrupt, "model.safetensors", ""),
    },
    Case {
        checkpoint: "sam",
        damage: |dir| {
            let header = br#"{"x":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}    "#;
            write_header(dir, header.len() as u64 - 4, header);
        },
        wanted: (Kind::Corrupt, "model.safetensors", ""),
    },
    Case {
        checkpoint: "sam",
        damage: |dir| {
            let header = br#"{"x":{"dtype":"F32","shape":[1],"data_offsets":[18446744073709551612,0]}}    "#;
            write_header(dir, header.len() as u64 - 4, header);
        },
        wanted: (Kind::Corrupt, "model.safetensors", ""),
    },
    Case {
        checkpoint: "llava-siglip",
        damage: |dir| fs::remove_file(dir.join("model-00002-of-00004.safetensors")).unwrap(),
        wanted: (Kind::Open, "model-00002-of-00004.safetensors", ""),
    },
    Case {
        checkpoint: "llava-siglip",
        damage: |dir| edit(dir, "model.safetensors.index.json", "model-00001-of-00004", "../model-00001-of-00004"),
        wanted: (Kind::Corrupt, "model.safetensors.index.json", "../model"),
    },
    Case {
        checkpoint: "llava-siglip",
        damage: |dir| edit(dir, "model.safetensors.index.json", "model-00001-of-00004", "model-00002-of-00004"),
        wanted: (Kind::MissingTensor, "model-00002-of-00004.safetensors", ""),
    },
    Case {
        checkpoint: "llava-siglip",
        damage: |dir| fs::File::create(dir.join("model.safetensors.index.json")).unwrap().set_len(1 << 40).unwrap(),
        wanted: (Kind::Config, "model.safetensors.index.json", ""),
    },
    Case {
        checkpoint: "sam",
        damage: |dir| fs::File::create(dir.join("config.json")).unwrap().set_len(1 << 40).unwrap(),
        wanted: (Kind::Config, "config.json", ""),
    },
    Case {
        checkpoint: "llava-siglip",
        damage: |dir| {
            let shard = fs::OpenOptions::new().write(true).open(dir.join("model-00003-of-00004.safetensors")).unwrap();
            shard.set_len(shard.metadata().unwrap().len() - 2).unwrap();
        },
        wanted: (Kind::Corrupt, "model-00003-of-00004.safetensors", ""),
    },
    Case {
        checkpoint: "llava-siglip",
        damage: |dir| fs::write(dir.join("model.safetensors.index.json"), "{").unwrap(),
        wanted: (Kind::Config, "model.safetensors.index.json", ""),
    },
];

const WRONG_TENSORS: &[Case] = &[
    Case {
        checkpoint: "sam",
        damage: |dir| rewrite(dir, |name, s| (name != "mask_decoder.iou_token.weight").then(|| (name.into(), s))),
        wanted: (Kind::MissingTensor, "", "mask_decoder.iou_token.weight"),
    },
    Case {
        checkpoint: "sam",
        damage: |dir| {
            rewrite(dir, |name, (dtype, mut shape, bytes)| {
                if name == "mask_decoder.mask_tokens.weight" {
                    shape.reverse();
                }
                Some((name.into(), (dtype, shape, bytes)))
            });
        },
        wanted: (Kind::Shape, "model.safetensors", "mask_decoder.mask_tokens.weight"),
    },
    Case {
        checkpoint: "sam",
        damage: |dir| rewrite(dir, convert(Dtype::F64)),
        wanted: (Kind::Dtype, "model.safetensors", "vision_encoder"),
    },
    Case {
        checkpoint: "llava-clip",
        damage: |dir| rewrite(dir, |name, s| Some((format!("x.{name}"), s))),
        wanted: (Kind::MissingTensor, "", "embeddings.patch_embedding.weight"),
    },
    Case {
        checkpoint: "sam",
        damage: |dir| edit(dir, "config.json", "\"mlp_dim\": 64", "\"mlp_dim\": 65"),
        wanted: (Kind::Shape, "model.safetensors", ""),
    },
];

const UNKNOWN_CONFIGURATIONS: &[Case] = &[
    Case {
        checkpoint: "sam",
        damage: |dir| edit(dir, "config.json", "\"SamModel\"", "\"Sam3Model\""),
        wanted: (Kind::UnknownClass, "config.json", "Sam3Model"),
    },
    Case {
        checkpoint: "sam",
        damage: |dir| edit(dir, "config.json", "\"SamModel\"", ""),
        wanted: (Kind::Config, "config.json", "architectures"),
    },
    Case {
        checkpoint: "sam",
        damage: |dir| edit(dir, "config.json", "\"use_rel_pos\": false", "\"use_rel_pos\": true"),
        wanted: (Kind::MissingTensor, "model.safetensors", "vision_encoder.layers.0.attn.rel_pos_h"),
    },
    Case {
        checkpoint: "sam",
        damage: |dir| edit(dir, "config.json", "\"hidden_act\": \"relu\"", "\"hidden_act\": \"mish\""),
        wanted: (Kind::Unsupported, "config.json", "mask_decoder_config.hidden_act"),
    },
    Case {
        checkpoint: "sam",
        damage: |dir| edit(dir, "config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1e9"),
        wanted: (Kind::Config, "config.json", "mask_decoder_config.num_hidden_layers"),
    },
    Case {
        checkpoint: "sam",
        damage: |dir| edit(dir, "config.json", "{", "{\"quantization_config\": {},"),
        wanted: (Kind::Unsupported, "config.json", "quantization_config"),
    },
    Case {
        checkpoint: "sam",
        damage: |dir| fs::write(dir.join("adapter_config.json"), "{}").unwrap(),
        wanted: (Kind::Unsupported, "adapter_config.json", ""),
    },
    Case {
        checkpoint: "llava-clip",
        damage: |dir| edit(dir, "config.json", "\"rope_type\": \"llama3\"", "\"rope_type\": \"dynamic\""),
        wanted: (Kind::Unsupported, "config.json", "text_config.rope_parameters.rope_type"),
    },
    Case {
        checkpoint: "llava-clip",
        damage: |dir| edit(dir, "config.json", "\"llama\"", "\"gemma2\""),
        wanted: (Kind::Unsupported, "config.json", "text_config.model_type"),
    },
    Case {
        checkpoint: "llava-clip",
        damage: |dir| edit(dir, "config.json", "\"clip_vision_model\"", "\"pixtral\""),
        wanted: (Kind::Unsupported, "config.json", "vision_config.model_type"),
    },
    Case {
        checkpoint: "llava-clip",
        damage: |dir| edit(dir, "config.json", "-3", "-9"),
        wanted: (Kind::Unsupported, "config.json", "vision_feature_layer"),
    },
    Case {
        checkpoint: "llava-clip",
        damage: |dir| edit(dir, "config.json", "\"num_key_value_heads\": 4", "\"num_key_value_heads\": 3"),
        wanted: (Kind::Config, "config.json", "text_config.num_key_value_heads"),
    },
    Case {
        checkpoint: "llava-clip",
        damage: |dir| edit(dir, "config.json", "\"hidden_size\": 40", "\"hidden_size\": -40"),
        wanted: (Kind::Config, "config.json", "text_config.hidden_size"),
    },
    Case {
        checkpoint: "../mllms/qwen3-vl",
        damage: |dir| edit(dir, "config.json", "\"num_position_embeddings\": 36", "\"num_position_embeddings\": 35"),
        wanted: (Kind::Unsupported, "config.json", "vision_config.num_position_embeddings"),
    },
    Case {
        checkpoint: "../mllms/qwen3-vl",
        damage: |dir| edit(dir, "config.json", "\"out_hidden_size\": 32", "\"out_hidden_size\": 64"),
        wanted: (Kind::Unsupported, "config.json", "vision_config.out_hidden_size"),
    },
    Case {
        checkpoint: "../mllms/qwen2-5-vl",
        damage: |dir| edit(dir, "config.json", "\"window_size\": 16", "\"window_size\": 7"),
        wanted: (Kind::Unsupported, "config.json", "vision_config.window_size"),
    },
    Case {
        checkpoint: "../mllms/qwen2-5-vl",
        damage: |dir| edit(dir, "config.json", "\"depth\": 3", "\"depth\": 1"),
        wanted: (Kind::Unsupported, "config.json", "vision_config.depth"),
    },
    Case {
        checkpoint: "../mllms/qwen2-5-vl",
        damage: |dir| edit(dir, "config.json", "\"Qwen2_5_VLFor", "\"Qwen2VLFor"),
        wanted: (Kind::UnknownClass, "config.json", "Qwen2VLForConditionalGeneration"),
    },
    Case {
        checkpoint: "../mllms/llava-next",
        damage: |dir| rewrite(dir, |name, s| (!name.ends_with("image_newline")).then(|| (name.into(), s))),
        wanted: (Kind::MissingTensor, "", "image_newline"),
    },
    Case {
        checkpoint: "../mllms/llava-qwen2",
        damage: |dir| edit(dir, "config.json", "\"factor\": 4.0", "\"factor\": 0.0"),
        wanted: (Kind::Unsupported, "config.json", "text_config.rope_parameters.factor"),
    },
];

#[test]
fn what_cannot_be_imported_is_refused_by_name() {
    for case in [DAMAGED_FILES, WRONG_TENSORS, UNKNOWN_CONFIGURATIONS].into_iter().flatten() {
        let dir = copy(case.checkpoint);
        (case.damage)(dir.path());
        let (kind, file, item) = case.wanted;
        let error = try_import(dir.path()).expect_err(&format!("{kind:?} {file} {item}"));
        assert_eq!(error.kind(), kind, "{error} ({error:?})");
        assert!(error.file().ends_with(file), "{file}: {error}");
        assert!(error.item().unwrap_or("").starts_with(item), "{item}: {error}");
    }
}

#[test]
fn an_unknown_class_is_told_which_are_known() {
    let dir = copy("sam");
    edit(dir.path(), "config.json", "\"SamModel\"", "\"Sam3Model\"");
    let error = try_import(dir.path()).unwrap_err();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("SamModel") && why.contains("LlavaForConditionalGeneration"), "{why}");
}

/// A sealed bundle of two reference checkpoints.
fn bundle() -> TempDir {
    let dir = TempDir::new().unwrap();
    for (part, name) in [("mllm", "llava-siglip"), ("sam", "sam")] {
        fs::create_dir(dir.path().join(part)).unwrap();
        copy_to(name, &dir.path().join(part));
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine/bundle/testdata/bundle.toml");
    fs::copy(manifest, dir.path().join("bundle.toml")).unwrap();
    seal(dir.path()).unwrap();
    dir
}

#[test]
fn the_cache_is_filled_once_and_survives_races() {
    let (dir, cache) = (bundle(), TempDir::new().unwrap());
    let bundle = Bundle::open(dir.path(), Verify::Hashes).unwrap();
    let start = Barrier::new(4);
    let imported: Vec<_> = thread::scope(|scope| {
        let one = || {
            start.wait();
            import_cached(&bundle, cache.path(), Level::Portable).unwrap()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(imported.iter().all(|one| one.mllm_dir() == imported[0].mllm_dir()));
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1, "nothing but the entry stays");
    load(&imported[0].mllm_dir(), "decoder");
    RtenEngine::load(imported[0].sam_graph("mask_decoder"), &RtenOptions::default()).unwrap();
    assert!(!import_cached(&bundle, cache.path(), Level::Portable).unwrap().is_fresh());
}

#[test]
fn a_damaged_cache_entry_is_made_anew() {
    let (dir, cache) = (bundle(), TempDir::new().unwrap());
    let bundle = Bundle::open(dir.path(), Verify::Hashes).unwrap();
    let first = import_cached(&bundle, cache.path(), Level::Portable).unwrap();
    assert!(first.is_fresh());
    for damage in ["decoder.onnx", "model-00001.onnx_data"] {
        fs::remove_file(first.mllm_dir().join(damage)).unwrap();
        let again = import_cached(&bundle, cache.path(), Level::Portable).unwrap();
        assert!(again.is_fresh(), "{damage}");
        load(&again.mllm_dir(), "decoder");
    }
    let graph = first.sam_graph("mask_decoder");
    let mut bytes = fs::read(&graph).unwrap();
    bytes[999] ^= 1;
    fs::write(&graph, bytes).unwrap();
    assert!(import_cached(&bundle, cache.path(), Level::Portable).unwrap().is_fresh());
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1);
}

#[test]
fn a_bundle_of_another_class_than_its_manifest_says_is_refused() {
    let (dir, cache) = (bundle(), TempDir::new().unwrap());
    edit(dir.path(), "bundle.toml", "class = \"SamModel\"", "class = \"Sam3Model\"");
    let bundle = Bundle::open(dir.path(), Verify::Hashes).unwrap();
    let error = import_cached(&bundle, cache.path(), Level::Portable).unwrap_err();
    assert_eq!((error.kind(), error.item()), (Kind::Unsupported, Some("SamModel")));
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0, "no half entry stays");
}

#[test]
fn inputs_are_checked_before_a_run() {
    let out = try_import(&reference("checkpoints/sam")).unwrap();
    let mut engine = load(out.path(), "mask_decoder");
    let good = || {
        vec![
            ("image_embedding", Tensor::f32(&[1, 32, 4, 4], vec![0.1; 512])),
            ("point_coords", Tensor::f32(&[2, 1, 2], vec![3.0; 4])),
            ("point_labels", Tensor::i32(&[2, 1], vec![1; 2])),
            ("mask_input", Tensor::f32(&[2, 1, 16, 16], vec![0.0; 512])),
            ("has_mask_input", Tensor::f32(&[2, 1, 1, 1], vec![0.0; 2])),
        ]
    };
    assert!(engine.run(good(), &["iou_scores"]).is_ok());
    type Damage = fn(&mut Vec<(&str, Tensor<'_>)>);
    let cases: [(Damage, &str); 7] = [
        (|inputs| drop(inputs.remove(1)), "point_coords"),
        (|inputs| inputs[2].0 = "labels", "labels"),
        (|inputs| inputs[2].1 = Tensor::f32(&[2, 1], vec![1.0; 2]), "point_labels"),
        (|inputs| inputs[2].1 = Tensor::i32(&[2, 2], vec![1; 4]), "point_labels"),
        (|inputs| inputs[0].1 = Tensor::f32(&[1, 32, 4, 5], vec![0.1; 640]), "image_embedding"),
        (|inputs| inputs[4].1 = Tensor::f32(&[2], vec![0.0; 2]), "has_mask_input"),
        (|inputs| inputs[3] = inputs[4].clone(), "has_mask_input"),
    ];
    for (damage, tensor) in cases {
        let mut inputs = good();
        damage(&mut inputs);
        let error = engine.run(inputs, &["iou_scores"]).unwrap_err();
        assert_eq!((error.kind(), error.tensor()), (EngineErrorKind::Input, Some(tensor)), "{error}");
    }
    let error = engine.run(good(), &["scores"]).unwrap_err();
    assert_eq!((error.kind(), error.tensor()), (EngineErrorKind::Input, Some("scores")));
    assert!(engine.run(good(), &["iou_scores"]).is_ok(), "a refused call leaves the engine as it was");
}

#[test]
fn what_only_the_graph_can_know_fails_as_a_run() {
    let out = try_import(&reference("checkpoints/llava-clip")).unwrap();
    let mut engine = load(out.path(), "embed");
    for id in [13, i32::MAX, i32::MIN] {
        let error = engine.run(vec![("input_ids", Tensor::i32(&[1, 1], vec![id]))], &["inputs_embeds"]).unwrap_err();
        assert_eq!(error.kind(), EngineErrorKind::Run, "{id}: {error}");
    }
    assert!(engine.run(vec![("input_ids", Tensor::i32(&[1, 1], vec![3]))], &["inputs_embeds"]).is_ok());
}

#[test]
fn files_that_are_no_models_are_not_loaded() {
    let out = try_import(&reference("checkpoints/sam")).unwrap();
    let load = |name: &str| RtenEngine::load(out.path().join(name), &RtenOptions::default()).err().map(|e| e.kind());
    assert_eq!(load("absent.onnx"), Some(EngineErrorKind::Open));
    let whole = fs::read(out.path().join("mask_decoder.onnx")).unwrap();
    for cut in (1..whole.len()).step_by(whole.len() / 64) {
        fs::write(out.path().join("cut.onnx"), &whole[..cut]).unwrap();
        assert_eq!(load("cut.onnx"), Some(EngineErrorKind::Load), "{cut} of {} bytes", whole.len());
    }
    fs::write(out.path().join("noise.onnx"), [0xff; 999]).unwrap();
    assert_eq!(load("noise.onnx"), Some(EngineErrorKind::Load));
    assert_eq!(load("mask_decoder.onnx"), None);
    let link = out.path().join("model-00001.onnx_data");
    let weights = fs::read(&link).unwrap();
    fs::remove_file(&link).unwrap();
    fs::write(&link, &weights[..weights.len() / 2]).unwrap();
    assert_eq!(load("mask_decoder.onnx"), Some(EngineErrorKind::Load));
}
