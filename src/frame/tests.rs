use image::ImageEncoder;
use proptest::prelude::*;

use super::*;

const W: u32 = 37;
const H: u32 = 21;

/// Smooth, so that JPEG keeps it nearly as it is.
fn picture() -> Image {
    let rgb = (0..H).flat_map(|y| (0..W).flat_map(move |x| [(x * 6) as u8, (y * 11) as u8, 90])).collect();
    Image::from_rgb(Size::new(W, H), rgb).expect("sizes match")
}

fn jpeg() -> Vec<u8> {
    let mut out = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut out, 95);
    encoder.encode(picture().rgb(), W as u16, H as u16, jpeg_encoder::ColorType::Rgb).expect("encodes");
    out
}

fn png() -> Vec<u8> {
    let mut out = Vec::new();
    let encoder = codecs::png::PngEncoder::new(&mut out);
    encoder.write_image(picture().rgb(), W, H, image::ExtendedColorType::Rgb8).expect("encodes");
    out
}

fn file(encoding: Encoding, data: &[u8]) -> Encoded<'_> {
    Encoded { encoding, width: 0, height: 0, step: 0, data }
}

fn kind(frame: &Encoded<'_>) -> Option<FrameErrorKind> {
    decode(frame, FrameLimits::default()).err().map(|e| e.kind())
}

/// The header of a PNG of `width` x `height`, with its end and nothing between.
fn hollow_png(width: u32, height: u32) -> Vec<u8> {
    let mut out = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    out.extend(width.to_be_bytes());
    out.extend(height.to_be_bytes());
    out.extend([8, 2, 0, 0, 0, 0, 0, 0, 0]);
    out.extend(b"\0\0\0\0IEND\xae\x42\x60\x82");
    out
}

#[test]
fn every_encoding_gives_the_same_picture() {
    let truth = picture();
    assert_eq!(decode(&file(Encoding::Png, &png()), FrameLimits::default()).as_ref(), Ok(&truth));
    let lossy = decode(&file(Encoding::Jpeg, &jpeg()), FrameLimits::default()).expect("decodes");
    let worst = lossy.rgb().iter().zip(truth.rgb()).map(|(a, b)| a.abs_diff(*b)).max().expect("not empty");
    assert!(worst <= 12, "{worst}");
    let bgr: Vec<u8> = truth.rgb().chunks(3).flat_map(|p| [p[2], p[1], p[0]]).collect();
    for (encoding, data) in [(Encoding::Rgb8, truth.rgb().to_vec()), (Encoding::Bgr8, bgr)] {
        for pad in [0usize, 5] {
            let rows: Vec<u8> = data.chunks(3 * W as usize).flat_map(|r| [r, &vec![0xEE; pad][..]].concat()).collect();
            let step = 3 * W + pad as u32;
            let mut frame = Encoded { encoding, width: W, height: H, step, data: &rows };
            assert_eq!(decode(&frame, FrameLimits::default()).as_ref(), Ok(&truth), "{encoding:?} {pad}");
            frame.data = &rows[..rows.len() - pad];
            assert_eq!(decode(&frame, FrameLimits::default()).as_ref(), Ok(&truth), "{encoding:?} without padding");
        }
    }
    let grey = decode(
        &Encoded { encoding: Encoding::Mono8, width: 2, height: 1, step: 0, data: &[7, 9] },
        FrameLimits::default(),
    );
    assert_eq!(grey.expect("decodes").rgb(), [7, 7, 7, 9, 9, 9]);
}

#[test]
fn what_contradicts_itself_is_refused() {
    let (jpeg, png) = (jpeg(), png());
    let raw = vec![0u8; 30];
    let rgb = |width, height, step| Encoded { encoding: Encoding::Rgb8, width, height, step, data: &raw };
    let gigantic = hollow_png(30_000, 30_000);
    let long = hollow_png(16_385, 1);
    let (empty, hollow) = (hollow_png(0, 5), hollow_png(4, 4));
    use FrameErrorKind::{Data, Encoding as Named, Layout, TooLarge};
    let cases = [
        ("30000x30000 header", file(Encoding::Png, &gigantic), TooLarge),
        ("16385 columns", file(Encoding::Png, &long), TooLarge),
        ("no columns", file(Encoding::Png, &empty), Layout),
        ("a header and no pixels", file(Encoding::Png, &hollow), Data),
        ("PNG called JPEG", file(Encoding::Jpeg, &png), Named),
        ("JPEG called PNG", file(Encoding::Png, &jpeg), Named),
        ("nothing", file(Encoding::Jpeg, &[]), Named),
        ("half a JPEG", file(Encoding::Jpeg, &jpeg[..jpeg.len() / 2]), Data),
        ("a JPEG without its end", file(Encoding::Jpeg, &jpeg[..jpeg.len() - 2]), Data),
        ("half a PNG", file(Encoding::Png, &png[..png.len() / 2]), Data),
        ("another size", Encoded { width: W + 1, ..file(Encoding::Jpeg, &jpeg) }, Layout),
        ("step below a row", rgb(5, 2, 14), Layout),
        ("data too short", rgb(5, 3, 15), Layout),
        ("data too long", rgb(5, 1, 15), Layout),
        ("huge raw", rgb(u32::MAX, u32::MAX, u32::MAX), TooLarge),
        ("no rows", rgb(5, 0, 15), Layout),
    ];
    for (name, frame, expected) in cases {
        assert_eq!(kind(&frame), Some(expected), "{name}");
    }
    assert_eq!(Encoding::from_name("yuv422").map_err(|e| e.kind()), Err(Named));
    assert_eq!(kind(&rgb(5, 2, 15)), None);
}

#[test]
fn every_truncation_of_a_file_is_an_error() {
    for (encoding, data) in [(Encoding::Jpeg, jpeg()), (Encoding::Png, png())] {
        for length in 0..data.len() {
            assert!(kind(&file(encoding, &data[..length])).is_some(), "{encoding:?} cut to {length} bytes");
        }
    }
}

#[test]
fn bytes_after_the_end_are_no_harm() {
    let mut padded = jpeg();
    padded.extend([0; 64]);
    assert_eq!(kind(&file(Encoding::Jpeg, &padded)), None);
}

proptest! {
    #[test]
    fn arbitrary_frames_never_panic(
        which in 0usize..5, width in 0u32..20, height in 0u32..20, step in 0u32..70,
        head in 0usize..3, data in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let head: &[u8] = [&[][..], &[0xFF, 0xD8, 0xFF], b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x05\0\0\0\x05"][head];
        let data = [head, &data].concat();
        let _ = decode(&Encoded { encoding: Encoding::ALL[which], width, height, step, data: &data }, FrameLimits::default());
    }

    #[test]
    fn damaged_files_never_panic(png_file: bool, at in 0usize..4000, value: u8, cut in 0usize..4000) {
        let (encoding, mut data) = if png_file { (Encoding::Png, png()) } else { (Encoding::Jpeg, jpeg()) };
        let n = data.len();
        data[at % n] = value;
        data.truncate(n - cut % n.min(64));
        let limits = FrameLimits { max_pixels: 1 << 16, max_side: 1 << 12 };
        let _ = decode(&file(encoding, &data), limits);
    }
}
