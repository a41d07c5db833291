//! Segmenters of every family, from raw pictures to mask logits, against `make_sam_goldens.py`; and damaged ones.

use std::fs;
use std::path::Path;

use sam4mllm::engine::Tensor;
use sam4mllm::engine::bundle::{Filter, Fit, ImageSpec, Resampler};
use sam4mllm::geometry::{BBox, Point};
use sam4mllm::import::{ImportErrorKind as Kind, Level, import};
use sam4mllm::model::sam::{SamDecoder, SamEncoder};
use sam4mllm::prompt::Prompt;
use tempfile::TempDir;

use super::recorded::{Goldens, near, reference};
use super::{Sam, check_masks, corners, floats, given, load};

/// What a class's own processor does.
enum Processor {
    /// `SamImageProcessorPil`.
    Sam,
    /// `Sam2ImageProcessor`.
    Sam2,
}

/// A wide and a tall picture, each with boxes, points and both.
fn check(name: &'static str, side: u32, processor: Processor) {
    let goldens = Goldens::open(name);
    let dir = TempDir::new().unwrap();
    let report = import(reference("checkpoints").join(name), dir.path(), Level::Portable).unwrap();
    println!("{report:?}");
    let (fit, resampler, levels): (_, _, &[&str]) = match processor {
        Processor::Sam => (Fit::Letterbox, Resampler::Pillow, &[]),
        Processor::Sam2 => (Fit::Squash, Resampler::Torchvision, &["high_res_features_0", "high_res_features_1"]),
    };
    let spec = ImageSpec {
        fit,
        width: side,
        height: side,
        filter: Filter::Bilinear,
        resampler,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };
    let mut encoder = SamEncoder::new(Box::new(load(dir.path(), "image_encoder")), &spec);
    let mut sam = Sam {
        encoder: load(dir.path(), "image_encoder"),
        decoder: load(dir.path(), "mask_decoder"),
        _dir: TempDir::new().unwrap(),
    };
    let mut decoder = SamDecoder::new(Box::new(load(dir.path(), "mask_decoder")));
    for picture in 0..2 {
        let key = |what: &str| format!("{picture}.{what}");
        let names: Vec<_> = ["image_embedding"].iter().chain(levels).copied().collect();
        let exact = sam.encode_levels(goldens.f32(&key("pixel_values")), &names);
        for (name, level) in names.iter().zip(&exact) {
            goldens.check(&key(name), level, "from the reference's pixels");
        }
        let embedding = encoder.embed(&goldens.picture(&key("image"))).unwrap();
        let seen = embedding.tensors().unwrap();
        assert_eq!(seen.len(), names.len());
        for (name, level) in names.iter().zip(seen) {
            goldens.check(&key(name), level, "from the raw picture");
        }
        let (boxes, points) = (goldens.f32(&key("boxes")), goldens.f32(&key("points")));
        let (_, labels) = goldens.integers(&key("labels"));
        let none = vec![(0.0, 0.0, -1)];
        let given = |b: usize| given((floats(&points), &labels), b);
        // SAM 2 has a point that is none behind a box too.
        let behind = if levels.is_empty() { vec![] } else { none.clone() };
        let corners = |b: usize| [corners(floats(&boxes), b), behind.clone()].concat();
        let cases = [
            ("box", [0, 1].map(corners)),
            ("points", [0, 1].map(|b| [given(b), none.clone()].concat())),
            ("box_points", [0, 1].map(|b| [given(b), corners(b)].concat())),
        ];
        for (case, prompts) in &cases {
            let masks =
                sam.decode_levels(names.iter().copied().zip(exact.iter().map(Tensor::view)).collect(), prompts, None);
            check_masks(&goldens, &key(case), &masks);
            // The same in the picture's own pixels.
            let scale = embedding.placement().scale().inverse();
            let prompts: Vec<_> = prompts.iter().map(|prompt| in_source(prompt, |p| scale.point(p))).collect();
            let (_, drawn) = goldens.bytes(&key(&format!("{case}.drawn")));
            let masks = decoder.decode(&embedding, &prompts).unwrap();
            let found: Vec<u8> = masks.iter().flat_map(|mask| mask.mask.bits().to_vec()).collect();
            assert_eq!(found.len(), drawn.len());
            let other = found.iter().zip(&drawn).filter(|(a, b)| a != b).count();
            println!("{name} {} drawn: {other} of {} pixels differ", key(case), drawn.len());
            assert!(other * 2000 <= drawn.len(), "{name} {case}: {other} pixels");
        }
        let prompts = &cases[2].1;
        let [raw, exact] = [seen.iter().map(|t| t.view()).collect(), exact.iter().map(Tensor::view).collect()]
            .map(|levels: Vec<_>| sam.decode_levels(names.iter().copied().zip(levels).collect(), prompts, None));
        for (kind, (raw, exact)) in ["masks", "scores"].iter().zip(raw.iter().zip(&exact)) {
            near(&format!("{name} {} from the raw picture", key(kind)), floats(raw), floats(exact));
        }
    }
}

/// Points of a prompt, x, y and label, as a prompt on the picture.
fn in_source(
    points: &[(f32, f32, i32)],
    place: impl Fn(Point<sam4mllm::geometry::ModelPx>) -> Point<sam4mllm::geometry::SourcePx>,
) -> Prompt {
    let at = |wanted: i32| points.iter().find(|p| p.2 == wanted).map(|p| place(Point::new(p.0, p.1)));
    let own = points.iter().filter(|p| p.2 == 0 || p.2 == 1);
    Prompt {
        bbox: at(2).zip(at(3)).map(|(a, b)| BBox::new(a.x, a.y, b.x, b.y)),
        points: own.map(|p| (place(Point::new(p.0, p.1)), p.2 == 1)).collect(),
    }
}

#[test]
fn sam_with_windows_and_relative_positions() {
    check("sam-windows", 64, Processor::Sam);
}

#[test]
fn sam_as_its_authors_save_it_without_a_config() {
    check("sam-authors", 48, Processor::Sam);
}

#[test]
fn efficient_vit_sam_of_four_stages() {
    check("sam-efficient-l", 64, Processor::Sam);
}

#[test]
fn efficient_vit_sam_of_five_stages() {
    check("sam-efficient-xl", 128, Processor::Sam);
}

#[test]
fn mobile_sam() {
    check("sam-mobile", 128, Processor::Sam);
}

#[test]
fn sam_2_with_windows_that_do_not_divide_its_stages() {
    check("sam2", 96, Processor::Sam2);
}

#[test]
fn sam_2_inside_a_model_for_videos() {
    check("sam2-video", 64, Processor::Sam2);
}

/// A copy of a checkpoint after `damage`, and why it is refused: kind, file and tensor.
fn refused(name: &str, damage: impl Fn(&Path)) -> (Kind, String, Option<String>) {
    let (dir, out) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for entry in fs::read_dir(reference("checkpoints").join(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    damage(dir.path());
    let error = import(dir.path(), out.path(), Level::Portable).expect_err("damaged");
    println!("{error}");
    let file = Path::new(error.file()).file_name().unwrap().to_string_lossy().into_owned();
    (error.kind(), file, error.item().map(str::to_owned))
}

/// Replaces bytes of a file by as many others, everywhere.
fn replace(path: &Path, from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let mut bytes = fs::read(path).unwrap();
    let places: Vec<usize> =
        bytes.windows(from.len()).enumerate().filter(|(_, w)| *w == from.as_bytes()).map(|(i, _)| i).collect();
    assert!(!places.is_empty(), "{from}");
    for place in places {
        bytes[place..][..to.len()].copy_from_slice(to.as_bytes());
    }
    fs::write(path, bytes).unwrap();
}

fn cut(path: &Path, keep: impl Fn(u64) -> u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(keep(file.metadata().unwrap().len())).unwrap();
}

#[test]
fn damaged_segmenters_are_refused_with_file_and_tensor() {
    let found = |kind, file: &str, item: Option<&str>| (kind, file.to_owned(), item.map(str::to_owned));

    // A missing tensor, by the name that the file would have had for it; and so one that nobody knows.
    let qkv = "image_encoder.blocks.1.attn.qkv.weight";
    let rename = |dir: &Path| replace(&dir.join("sam.pth"), qkv, "image_encoder.blocks.1.attn.qkx.weight");
    assert_eq!(refused("sam-authors", rename), found(Kind::MissingTensor, "sam.pth", Some(qkv)));
    let bn = "image_encoder.layers.1.blocks.0.mlp.fc2.bias";
    let rename = |dir: &Path| replace(&dir.join("mobile_sam.pt"), bn, "image_encoder.layers.1.blocks.0.mlp.fc2.bios");
    assert_eq!(refused("sam-mobile", rename), found(Kind::MissingTensor, "mobile_sam.pt", Some(bn)));
    let conv = "image_encoder.neck.middle.op_list.0.main.point_conv.conv.weight";
    let rename = |dir: &Path| replace(&dir.join("model.safetensors"), conv, &conv.replace("weight", "weighd"));
    assert_eq!(refused("sam-efficient-xl", rename), found(Kind::MissingTensor, "model.safetensors", Some(conv)));

    // A tensor that belongs to nothing: a counter that is spare, under a name that is not.
    let (spare, odd) = ("norm.num_batches_tracked", "norm.num_batches_trackex");
    let rename = |dir: &Path| replace(&dir.join("sam-efficient-l.pt"), spare, odd);
    let (kind, file, item) = refused("sam-efficient-l", rename);
    assert_eq!((kind, file.as_str()), (Kind::UnknownTensor, "sam-efficient-l.pt"));
    assert!(item.unwrap().ends_with(odd));
    let rename = |dir: &Path| replace(&dir.join("mobile_sam.pt"), "image_encoder.head.bias", "image_encoder.heat.bias");
    let heat = Some("image_encoder.heat.bias");
    assert_eq!(refused("sam-mobile", rename), found(Kind::UnknownTensor, "mobile_sam.pt", heat));

    // A shape that the configuration contradicts.
    let narrow = |dir: &Path| replace(&dir.join("config.json"), "\"window_size\": 3", "\"window_size\": 5");
    let table = Some("vision_encoder.layers.0.attn.rel_pos_h");
    assert_eq!(refused("sam-windows", narrow), found(Kind::Shape, "model.safetensors", table));

    // Cut off.
    for (name, file) in
        [("sam-authors", "sam.pth"), ("sam-windows", "model.safetensors"), ("sam2", "model.safetensors")]
    {
        for keep in [0, 1, 30, 100] {
            let (kind, at, _) = refused(name, |dir| cut(&dir.join(file), |bytes| bytes * keep / 101));
            assert_eq!((kind, at.as_str()), (Kind::Corrupt, file), "{keep}");
        }
    }
}

#[test]
fn a_damaged_or_strange_sam_2_is_refused_with_tensor_or_key() {
    let found = |kind, file: &str, item: &str| (kind, file.to_owned(), Some(item.to_owned()));
    for name in ["sam2", "sam2-video"] {
        for tensor in [
            "vision_encoder.backbone.pos_embed_window",
            "vision_encoder.backbone.blocks.3.proj.weight",
            "vision_encoder.neck.convs.3.bias",
            "mask_decoder.conv_s1.weight",
            "mask_decoder.obj_score_token.weight",
            "mask_decoder.transformer.layers.1.self_attn.o_proj.weight",
            "no_memory_embedding",
        ] {
            let other = format!("{}~", &tensor[..tensor.len() - 1]);
            let rename =
                |dir: &Path| replace(&dir.join("model.safetensors"), &format!("\"{tensor}\""), &format!("\"{other}\""));
            assert_eq!(refused(name, rename), found(Kind::MissingTensor, "model.safetensors", tensor));
        }
        // Of no part: what is spare, under a name that is not.
        let (spare, odd) =
            ("mask_decoder.pred_obj_score_head.proj_in.bias", "mask_decoder.pred_obj_score_heat.proj_in.bias");
        let rename = |dir: &Path| replace(&dir.join("model.safetensors"), spare, odd);
        assert_eq!(refused(name, rename), found(Kind::UnknownTensor, "model.safetensors", odd));
    }
    for (from, to, kind, item) in [
        ("\"hidden_size\": 8,", "\"hidden_size\": 4,", Kind::Config, "vision_config.backbone_config.hidden_size"),
        (
            "\"num_channels\": 3",
            "\"num_channels\": 4",
            Kind::Shape,
            "vision_encoder.backbone.patch_embed.projection.weight",
        ),
        (
            "\"mlp_ratio\": 4.0",
            "\"mlp_ratio\": 3.0",
            Kind::Shape,
            "vision_encoder.backbone.blocks.0.mlp.proj_in.weight",
        ),
        ("\"mlp_ratio\": 4.0", "\"mlp_ratio\": 0.0", Kind::Config, "vision_config.backbone_config.mlp_ratio"),
        ("\"fpn_kernel_size\": 1", "\"fpn_kernel_size\": 3", Kind::Unsupported, "vision_config.fpn_kernel_size"),
        ("\"fpn_stride\": 1", "\"fpn_stride\": 2", Kind::Unsupported, "vision_config.fpn_stride"),
        ("\"fpn_padding\": 0", "\"fpn_padding\": 1", Kind::Unsupported, "vision_config.fpn_padding"),
        (
            "\"num_feature_levels\": 3",
            "\"num_feature_levels\": 4",
            Kind::Unsupported,
            "vision_config.num_feature_levels",
        ),
        (
            "\"num_query_pool_stages\": 3",
            "\"num_query_pool_stages\": 2",
            Kind::Unsupported,
            "vision_config.fpn_top_down_levels",
        ),
        (
            "\"sam2_hiera_det_model\"",
            "\"sam2_hiera_odd_model\"",
            Kind::Unsupported,
            "vision_config.backbone_config.model_type",
        ),
        ("\"sam2_vision_model\"", "\"sam2_visage_model\"", Kind::Unsupported, "vision_config.model_type"),
        ("\"fpn_hidden_size\": 32", "\"fpn_hidden_size\": 64", Kind::Unsupported, "prompt_encoder_config.hidden_size"),
        (
            "\"num_multimask_outputs\": 3",
            "\"num_multimask_outputs\": 4",
            Kind::Unsupported,
            "mask_decoder_config.num_multimask_outputs",
        ),
        ("\"image_size\": 96,", "\"image_size\": 97,", Kind::Unsupported, "prompt_encoder_config.image_size"),
        ("\"patch_size\": 16", "\"patch_size\": 17", Kind::Unsupported, "prompt_encoder_config.patch_size"),
    ] {
        let edit = |dir: &Path| replace(&dir.join("config.json"), from, to);
        let (found_kind, _, found_item) = refused("sam2", edit);
        assert_eq!((found_kind, found_item.as_deref()), (kind, Some(item)), "{to}");
    }
    // A list with a number too few, a layer that pools and sees everything, a stage that pools and is as wide as before.
    for (key, to, kind) in [
        ("window_size_per_stage", "[4, 8, 4]", Kind::Config),
        ("window_size_per_stage", "[5, 8, 4, 3]", Kind::Config),
        ("window_size_per_stage", "[4, 7, 4, 3]", Kind::Config),
        ("window_size_per_stage", "[4, 8, 512, 3]", Kind::Unsupported),
        ("embed_dim_per_stage", "[8, 16, 16, 32]", Kind::Unsupported),
        ("global_attention_blocks", "[1]", Kind::Unsupported),
        ("blocks_per_stage", "[1, 2, 2, 99999999]", Kind::Config),
        ("num_attention_heads_per_stage", "[1, 2, 5, 4]", Kind::Config),
        ("patch_stride", "[4, 2]", Kind::Unsupported),
    ] {
        let (found_kind, _, item) = refused("sam2", |dir| set(&dir.join("config.json"), key, to));
        let item = item.unwrap_or_default();
        assert!(
            found_kind == kind && (item.ends_with(key) || item.ends_with("query_stride")),
            "{key}: {found_kind:?} {item}"
        );
    }
}

/// Nothing in the weights bounds the image, and there are numbers for each of its cells.
#[test]
fn a_sam_2_of_an_image_beyond_measure_is_refused() {
    let (kind, _, item) = refused("sam2", |dir| {
        edit(&dir.join("config.json"), |config| {
            let side = 1 << 18;
            config["prompt_encoder_config"]["image_size"] = side.into();
            config["vision_config"]["backbone_config"]["image_size"] = side.into();
            let sizes = [4, 8, 16].map(|n| vec![side / n; 2]);
            config["vision_config"]["backbone_feature_sizes"] = sizes.to_vec().into();
        });
    });
    assert_eq!((kind, item.as_deref()), (Kind::Unsupported, Some("prompt_encoder_config.image_size")));
}

/// Sets a key of the backbone's configuration.
fn set(path: &Path, key: &str, to: &str) {
    edit(path, |config| {
        let backbone = &mut config["vision_config"]["backbone_config"];
        assert!(backbone.get(key).is_some(), "{key}");
        backbone[key] = serde_json::from_str(to).unwrap();
    });
}

fn edit(path: &Path, change: impl Fn(&mut serde_json::Value)) {
    let mut config = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    change(&mut config);
    fs::write(path, config.to_string()).unwrap();
}
