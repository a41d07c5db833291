//! Resizing against Pillow: `resize.py` made the pictures under `resize/`, Pillow 13.0. To its own bytes, and to those of
//! torchvision, which are within a level or two of them.

use sam4mllm::engine::bundle::{Filter, Fit, ImageSpec, Resampler};
use sam4mllm::engine::{Data, Tensor};
use sam4mllm::frame::Image;
use sam4mllm::geometry::Size;
use sam4mllm::model::preprocess::Preprocessor;

const WIDTH: u32 = 97;
const HEIGHT: u32 = 61;

/// The pattern of `resize.py`.
fn pattern() -> Image {
    let mut rgb = Vec::new();
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            let edge = if (x / 7 + y / 5) % 2 == 1 { 200 } else { 20 };
            let noise = (x * 7919 + y * 104_729 + x * y * 31) % 251;
            rgb.extend([edge, (x * 255 / (WIDTH - 1)) as u8, noise as u8]);
        }
    }
    Image::from_rgb(Size::new(WIDTH, HEIGHT), rgb).unwrap()
}

fn spec(fit: Fit, side: u32, filter: Filter) -> ImageSpec {
    sized(fit, [side, side], filter)
}

fn sized(fit: Fit, [width, height]: [u32; 2], filter: Filter) -> ImageSpec {
    let (mean, std) = ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]);
    ImageSpec { fit, width, height, filter, resampler: Resampler::Torchvision, mean, std }
}

#[test]
fn resizes_as_pillow_does() {
    // A level that the first pass rounds otherwise can grow to two where the second overshoots: bicubic, enlarging.
    let cases = [
        ("bilinear_down", spec(Fit::Squash, 32, Filter::Bilinear), 1),
        ("bilinear_letterbox", spec(Fit::Letterbox, 48, Filter::Bilinear), 1),
        ("bilinear_up", spec(Fit::Squash, 128, Filter::Bilinear), 1),
        ("bicubic_down", spec(Fit::Squash, 32, Filter::Bicubic), 1),
        ("bicubic_up", spec(Fit::Squash, 128, Filter::Bicubic), 2),
        // The other order of the two passes shows.
        ("bilinear_rows_first", sized(Fit::Squash, [90, 40], Filter::Bilinear), 2),
        ("bicubic_rows_first", sized(Fit::Squash, [120, 30], Filter::Bicubic), 20),
        ("bicubic_columns_first", sized(Fit::Squash, [90, 47], Filter::Bicubic), 2),
    ];
    let mut failures = Vec::new();
    let pillows = cases.clone().map(|(name, spec, _)| (name, ImageSpec { resampler: Resampler::Pillow, ..spec }, 0));
    for (name, spec, allowed) in cases.into_iter().chain(pillows) {
        let path = format!("{}/tests/model/resize/{name}.png", env!("CARGO_MANIFEST_DIR"));
        let want = image::open(&path).unwrap().into_rgb8();
        let (inputs, placement) = Preprocessor::new(&spec).run(&pattern()).unwrap();
        assert_eq!((placement.resized.width, placement.resized.height), want.dimensions(), "{name}");
        let (w, h) = (spec.width as usize, spec.height as usize);
        assert_eq!(inputs[0].1.shape(), [1, h, w, 3], "{name}");
        let extent = Tensor::i32(&[2], vec![want.height() as i32, want.width() as i32]);
        let told = (spec.fit == Fit::Letterbox).then_some(extent);
        assert_eq!(inputs.get(1).map(|(_, extent)| extent), told.as_ref(), "{name}");
        let Data::U8(bytes) = inputs[0].1.data() else { panic!("{name}: pixels are bytes") };
        let (mut worst, mut padding_is_zero) = (0u8, true);
        for (i, level) in bytes.iter().enumerate() {
            let (c, x, y) = (i % 3, i / 3 % w, i / 3 / w);
            if x < want.width() as usize && y < want.height() as usize {
                worst = worst.max(level.abs_diff(want.get_pixel(x as u32, y as u32)[c]));
            } else {
                padding_is_zero &= *level == 0;
            }
        }
        println!("{name}, {:?}: at most {worst} levels of 255 from Pillow", spec.resampler);
        if worst > allowed || !padding_is_zero {
            failures.push(format!("{name}: {worst} levels, padding zero: {padding_is_zero}"));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn coordinates_map_there_and_back() {
    for (fit, side) in [(Fit::Squash, 64), (Fit::Letterbox, 64)] {
        let placement = Preprocessor::new(&spec(fit, side, Filter::Bilinear)).placement(Size::new(640, 480));
        let scale = placement.scale();
        let corner = scale.point(sam4mllm::geometry::Point::new(640.0, 480.0));
        assert_eq!((corner.x, corner.y), (64.0, if fit == Fit::Squash { 64.0 } else { 48.0 }));
        let back = scale.inverse().point(corner);
        assert!((back.x - 640.0).abs() < 1e-3 && (back.y - 480.0).abs() < 1e-3);
    }
}

#[test]
fn a_sliver_keeps_one_pixel() {
    let placement = Preprocessor::new(&spec(Fit::Letterbox, 64, Filter::Bilinear)).placement(Size::new(4000, 3));
    assert_eq!((placement.resized.width, placement.resized.height), (64, 1));
}
