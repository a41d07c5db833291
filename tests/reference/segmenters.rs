//! Segmenters of every family, from raw pictures to mask logits, against `make_sam_goldens.py`; and damaged ones.

use std::fs;
use std::path::Path;

use sam4mllm::engine::bundle::{Filter, Fit, ImageSpec};
use sam4mllm::import::{ImportErrorKind as Kind, Level, import};
use sam4mllm::model::sam::SamEncoder;
use tempfile::TempDir;

use super::recorded::{Goldens, reference};
use super::{Sam, check_masks, corners, floats, given, load};

/// A wide and a tall picture, each with boxes, points and both.
fn check(name: &'static str, side: u32) {
    let goldens = Goldens::open(name);
    let dir = TempDir::new().unwrap();
    let report = import(reference("checkpoints").join(name), dir.path(), Level::Portable).unwrap();
    println!("{report:?}");
    let spec = ImageSpec {
        fit: Fit::Letterbox,
        width: side,
        height: side,
        filter: Filter::Bilinear,
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
    };
    let mut encoder = SamEncoder::new(Box::new(load(dir.path(), "image_encoder")), &spec);
    let mut sam = Sam {
        encoder: load(dir.path(), "image_encoder"),
        decoder: load(dir.path(), "mask_decoder"),
        _dir: TempDir::new().unwrap(),
    };
    for picture in 0..2 {
        let key = |what: &str| format!("{picture}.{what}");
        let exact = sam.encode(goldens.f32(&key("pixel_values")));
        goldens.check(&key("image_embedding"), &exact, "from the reference's pixels");
        let embedding = encoder.embed(&goldens.picture(&key("image"))).unwrap();
        let embedding = embedding.tensor();
        raw(&key("image_embedding"), floats(embedding), floats(&goldens.f32(&key("image_embedding"))));
        let (boxes, points) = (goldens.f32(&key("boxes")), goldens.f32(&key("points")));
        let (_, labels) = goldens.integers(&key("labels"));
        let corners = |b: usize| corners(floats(&boxes), b);
        let given = |b: usize| given((floats(&points), &labels), b);
        let none = vec![(0.0, 0.0, -1)];
        let both = [0, 1].map(|b| [given(b), corners(b)].concat());
        let alone = [0, 1].map(|b| [given(b), none.clone()].concat());
        check_masks(&goldens, &key("box"), &sam.decode(&exact, &[corners(0), corners(1)], None));
        check_masks(&goldens, &key("points"), &sam.decode(&exact, &alone, None));
        check_masks(&goldens, &key("box_points"), &sam.decode(&exact, &both, None));
        let seen = sam.decode(embedding, &both, None);
        for (kind, (seen, exact)) in ["masks", "scores"].iter().zip(seen.iter().zip(sam.decode(&exact, &both, None))) {
            raw(&key(kind), floats(seen), floats(&exact));
        }
    }
}

/// Compares what was made of the raw picture: a pixel in a few hundred is one of 255 levels off Pillow's.
fn raw(what: &str, found: &[f32], wanted: &[f32]) {
    const TOLERANCE: f32 = 5e-3;
    let largest = wanted.iter().fold(0f32, |max, x| max.max(x.abs()));
    let off = found.iter().zip(wanted).fold(0f32, |max, (a, b)| max.max((a - b).abs())) / largest;
    println!("{what} from the raw picture max |a - b| / max |b| = {off:.2e}");
    assert!(off <= TOLERANCE, "{what}: off by {off} from the raw picture");
}

#[test]
fn sam_with_windows_and_relative_positions() {
    check("sam-windows", 64);
}

#[test]
fn sam_as_its_authors_save_it_without_a_config() {
    check("sam-authors", 48);
}

#[test]
fn efficient_vit_sam_of_four_stages() {
    check("sam-efficient-l", 64);
}

#[test]
fn efficient_vit_sam_of_five_stages() {
    check("sam-efficient-xl", 128);
}

#[test]
fn mobile_sam() {
    check("sam-mobile", 128);
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
    for (name, file) in [("sam-authors", "sam.pth"), ("sam-windows", "model.safetensors")] {
        for keep in [0, 1, 30, 100] {
            let (kind, at, _) = refused(name, |dir| cut(&dir.join(file), |bytes| bytes * keep / 101));
            assert_eq!((kind, at.as_str()), (Kind::Corrupt, file), "{keep}");
        }
    }
}
