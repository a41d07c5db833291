//! Graphs that take bytes against the same ones without a front, fed with what the host makes of those bytes: every family,
//! in `rten`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use sam4mllm::engine::rten::{RtenEngine, RtenOptions};
use sam4mllm::engine::{DataType, Engine, Tensor, TensorInfo};
use sam4mllm::import::{
    Front, ImportErrorKind as Kind, Level, PIXEL_BYTES, PIXEL_EXTENT, PIXEL_VALUES, import, outline, take_bytes,
};
use tempfile::TempDir;

use super::floats;
use super::recorded::reference;

/// Of ImageNet, and of frames that may fill a part of the picture.
const FRONT: Front = Front { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], padded: true };
/// The same of frames that fill it.
const WHOLE: Front = Front { padded: false, ..FRONT };

/// Most of max |a - b| / max |b|. Pixels differ in their last bit where a division becomes a product with the inverse.
const MOST: f32 = 1e-5;

/// Sizes of dimensions that vary: windows are first, patches elsewhere.
fn shape(info: &TensorInfo) -> Vec<usize> {
    let size = |(axis, size): (usize, &Option<usize>)| size.unwrap_or(if axis == 0 { 2 } else { 64 });
    info.shape.iter().enumerate().map(size).collect()
}

/// A picture or patches in bytes, with its extent where it is `padded`, and what the host makes of them.
fn pixels(values: &TensorInfo, padded: bool) -> (Vec<(&'static str, Tensor<'static>)>, Tensor<'static>) {
    let shape = shape(values);
    let noise = |i: usize| (i * 7919 + i / 13 * 104_729) as u8;
    let count = shape.iter().product();
    let [_, _, height, width] = shape[..] else {
        let (bytes, depth) = ((0..count).map(noise).collect::<Vec<_>>(), shape[2]);
        let values = bytes.iter().enumerate().map(|(i, byte)| FRONT.value(i % depth / (depth / 3), *byte));
        let values = Tensor::f32(&shape, values.collect::<Vec<_>>());
        return (vec![(PIXEL_BYTES, Tensor::u8(&shape, bytes))], values);
    };
    let (rows, columns) = if padded { (height - height / 3, width - 1) } else { (height, width) };
    let bytes: Vec<_> = (0..count).map(noise).collect();
    let mut values = vec![0.0; count];
    for (i, byte) in bytes.iter().enumerate() {
        let (channel, x, y) = (i % 3, i / 3 % width, i / 3 / width);
        if y < rows && x < columns {
            values[(channel * height + y) * width + x] = FRONT.value(channel, *byte);
        }
    }
    let mut inputs = vec![(PIXEL_BYTES, Tensor::u8(&[1, height, width, 3], bytes))];
    if padded {
        inputs.push((PIXEL_EXTENT, Tensor::i32(&[2], vec![rows as i32, columns as i32])));
    }
    (inputs, Tensor::f32(&shape, values))
}

/// All else that the graph takes: zeros, which are first rows and biases that hide nothing.
fn others(engine: &RtenEngine) -> Vec<(String, Tensor<'static>)> {
    let others = engine.inputs().iter().filter(|info| info.name != PIXEL_VALUES);
    let zeros = |info: &TensorInfo| {
        let (shape, count) = (shape(info), shape(info).iter().product());
        match info.data_type {
            DataType::F32 => Tensor::f32(&shape, vec![0.0; count]),
            _ => Tensor::i32(&shape, vec![0; count]),
        }
    };
    others.map(|info| (info.name.clone(), zeros(info))).collect()
}

fn load(path: &Path) -> RtenEngine {
    RtenEngine::load(path, &RtenOptions::default()).unwrap()
}

/// The outputs, and the best time of three runs in milliseconds.
fn run(engine: &mut RtenEngine, inputs: &[(&str, Tensor<'_>)]) -> (Vec<Tensor<'static>>, f64) {
    let names: Vec<_> = engine.outputs().iter().map(|info| info.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (mut best, mut outputs) = (f64::INFINITY, Vec::new());
    for _ in 0..3 {
        let inputs = inputs.iter().map(|(name, tensor)| (*name, tensor.view())).collect();
        let start = Instant::now();
        outputs = engine.run(inputs, &names).unwrap();
        best = best.min(start.elapsed().as_secs_f64() * 1e3);
    }
    (outputs, best)
}

/// `max |a - b| / max |b|` of all outputs of the graph at `path`, without a front and with `front`.
fn difference(checkpoint: &str, path: &Path, front: &Front) -> f32 {
    let graph = path.file_stem().unwrap().to_string_lossy();
    let bytes_path = path.with_file_name(format!("{graph}-bytes.onnx"));
    fs::write(&bytes_path, take_bytes(&fs::read(path).unwrap(), front).unwrap()).unwrap();
    let (mut plain, mut fronted) = (load(path), load(&bytes_path));
    let info = plain.inputs().iter().find(|info| info.name == PIXEL_VALUES).unwrap();
    let (bytes, values) = pixels(info, front.padded);
    let names = |name: &str| fronted.inputs().iter().filter(|info| info.name == name).count();
    assert_eq!([PIXEL_BYTES, PIXEL_EXTENT].map(names).iter().sum::<usize>(), bytes.len(), "{checkpoint} {graph}");
    let others = others(&plain);
    let others = || others.iter().map(|(name, tensor)| (name.as_str(), tensor.view()));
    let (expected, plain_ms) =
        run(&mut plain, &std::iter::once((PIXEL_VALUES, values)).chain(others()).collect::<Vec<_>>());
    let (found, bytes_ms) = run(&mut fronted, &bytes.into_iter().chain(others()).collect::<Vec<_>>());
    let mut worst = 0f32;
    for (expected, found) in expected.iter().zip(&found) {
        assert_eq!(expected.shape(), found.shape());
        let largest = floats(expected).iter().fold(0f32, |most, v| most.max(v.abs()));
        let off = floats(expected).iter().zip(floats(found)).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(largest > 0.0 && off.is_finite(), "{checkpoint} {graph}");
        worst = worst.max(off / largest);
    }
    let fills = if front.padded { "padded" } else { "whole" };
    println!(
        "{checkpoint} {graph}, {fills}: {worst:.1e}, {plain_ms:.2} ms without and {bytes_ms:.2} ms with the front in rten"
    );
    worst
}

fn checkpoint_dir(name: &str) -> std::path::PathBuf {
    match name.strip_prefix("tabletop/") {
        Some(part) => Path::new(env!("CARGO_MANIFEST_DIR")).join("engines/tabletop").join(part),
        None => reference(name),
    }
}

#[test]
fn every_family_takes_bytes_as_it_takes_floats() {
    let segmenters = [
        "sam",
        "sam-windows",
        "sam-authors",
        "sam-efficient-l",
        "sam-efficient-xl",
        "sam-mobile",
        "sam2",
        "sam2-video",
    ];
    let mllms = ["llava-mistral", "llava-qwen2", "llava-next", "qwen2-5-vl", "qwen3-vl"];
    let segmenters = segmenters.iter().map(|name| (format!("checkpoints/{name}"), "image_encoder"));
    let mllms = mllms.iter().map(|name| (format!("mllms/{name}"), "vision"));
    let own = [("tabletop/sam".to_owned(), "image_encoder"), ("tabletop/mllm".to_owned(), "vision")];
    for (checkpoint, graph) in own.into_iter().chain(segmenters).chain(mllms) {
        let dir = TempDir::new().unwrap();
        import(checkpoint_dir(&checkpoint), dir.path(), Level::Portable).unwrap();
        // SAM's frames are padded, a language model's may be.
        let fronts = if graph == "vision" { &[FRONT, WHOLE][..] } else { &[FRONT] };
        for front in fronts {
            // The same operations in the same order; a division may become a product with the inverse.
            let off = difference(&checkpoint, &dir.path().join(format!("{graph}.onnx")), front);
            assert!(off <= MOST, "{checkpoint} {graph}, {front:?}: {off:.1e}");
        }
    }
}

#[test]
fn a_quarter_of_the_bytes_goes_up() {
    let outline = outline(reference("checkpoints/sam"), None, Level::Portable).unwrap();
    let encoder = outline.graphs.into_iter().find(|graph| graph.name() == "image_encoder").unwrap();
    let floats = encoder.bytes(&BTreeMap::new()).unwrap().inputs;
    let bytes = encoder.with_front(&FRONT).bytes(&BTreeMap::new()).unwrap().inputs;
    // And two integers of 32 bits.
    assert_eq!(bytes, floats / 4 + 8);
}

#[test]
fn a_graph_without_pixels_gets_no_front() {
    let dir = TempDir::new().unwrap();
    import(reference("checkpoints/sam"), dir.path(), Level::Portable).unwrap();
    let decoder = fs::read(dir.path().join("mask_decoder.onnx")).unwrap();
    let error = take_bytes(&decoder, &FRONT).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.to_string().contains("mask_decoder.onnx"), "{error}");
    assert_eq!(take_bytes(b"\xff\xff", &FRONT).unwrap_err().kind(), Kind::Corrupt);
}
