use image::ImageEncoder;
use proptest::prelude::*;

use super::super::Mosaic;
use super::super::layout::{Layout as Rows, row_bytes};
use super::*;

#[path = "webp_tests.rs"]
mod webp_files;

const W: u32 = 37;
const H: u32 = 21;

/// Smooth, so that JPEG keeps it nearly as it is.
fn picture() -> Image {
    let rgb: Vec<u8> = (0..H).flat_map(|y| (0..W).flat_map(move |x| [(x * 6) as u8, (y * 11) as u8, 90])).collect();
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

fn webp() -> Vec<u8> {
    let mut out = Vec::new();
    let encoder = codecs::webp::WebPEncoder::new_lossless(&mut out);
    encoder.write_image(picture().rgb(), W, H, image::ExtendedColorType::Rgb8).expect("encodes");
    out
}

fn files() -> [(Encoding, Vec<u8>); 3] {
    [(Encoding::Jpeg, jpeg()), (Encoding::Png, png()), (Encoding::Webp, webp())]
}

fn file(encoding: Encoding, data: &[u8]) -> Encoded<'_> {
    Encoded { encoding, layout: Layout::default(), data }
}

fn decoded(frame: &Encoded<'_>) -> Vec<u8> {
    decode(frame, FrameLimits::default()).unwrap_or_else(|e| panic!("{:?}: {e}", frame.encoding)).rgb().to_vec()
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
    for (encoding, data) in [(Encoding::Png, png()), (Encoding::Webp, webp())] {
        assert_eq!(decode(&file(encoding, &data), FrameLimits::default()).as_ref(), Ok(&truth));
    }
    let lossy = decode(&file(Encoding::Jpeg, &jpeg()), FrameLimits::default()).expect("decodes");
    let worst = lossy.rgb().iter().zip(truth.rgb()).map(|(a, b)| a.abs_diff(*b)).max().expect("not empty");
    assert!(worst <= 12, "{worst}");
    let bgr: Vec<u8> = truth.rgb().chunks(3).flat_map(|p| [p[2], p[1], p[0]]).collect();
    for (encoding, data) in [(Encoding::Rgb8, truth.rgb().to_vec()), (Encoding::Bgr8, bgr)] {
        for pad in [0usize, 5] {
            let rows: Vec<u8> = data.chunks(3 * W as usize).flat_map(|r| [r, &vec![0xEE; pad][..]].concat()).collect();
            let step = 3 * W + pad as u32;
            let layout = Layout { step, ..Layout::packed(W, H) };
            let mut frame = Encoded { encoding, layout, data: &rows };
            assert_eq!(decode(&frame, FrameLimits::default()).as_ref(), Ok(&truth), "{encoding:?} {pad}");
            let owned = decode_owned(encoding, &layout, rows.clone().into(), FrameLimits::default());
            assert_eq!(owned.as_ref(), Ok(&truth), "{encoding:?} {pad}, owned");
            frame.data = &rows[..rows.len() - pad];
            assert_eq!(decode(&frame, FrameLimits::default()).as_ref(), Ok(&truth), "{encoding:?} without padding");
        }
    }
}

/// A raw frame of 4 x 2 pixels in `encoding` by the definition of each, byte by byte, and what it is in RGB.
fn small(encoding: Encoding, big_endian: bool) -> (Vec<Vec<u8>>, Vec<u8>) {
    // Luma by pixel, and chroma by pair of columns; in 4:2:0 the second row shares that of the first.
    let (y, chroma) = ([40u8, 80, 120, 160, 200, 235, 16, 90], [[90u8, 240], [128, 60], [30, 140], [200, 128]]);
    let grey: Vec<u8> = y.iter().flat_map(|v| [*v; 3]).collect();
    let colours: Vec<[u8; 4]> = (0..8u8).map(|i| [i * 31, 255 - i * 17, i * i * 5, 77]).collect();
    let rgb: Vec<u8> = colours.iter().flat_map(|c| [c[0], c[1], c[2]]).collect();
    let pixels = |order: &[usize]| -> Vec<Vec<u8>> {
        colours.chunks(4).map(|row| row.iter().flat_map(|c| order.iter().map(|i| c[*i])).collect()).collect()
    };
    let yuv = |shared: bool| -> Vec<u8> {
        let pair = |i: usize| chroma[if shared { (i % 4) / 2 } else { i / 2 }];
        (0..8).flat_map(|i| bt601(y[i], pair(i))).collect()
    };
    let groups = |order: [usize; 4]| -> Vec<Vec<u8>> {
        let group = |i: usize| [y[2 * i], y[2 * i + 1], chroma[i][0], chroma[i][1]];
        let row = |r: usize| (2 * r..2 * r + 2).flat_map(|i| order.map(|o| group(i)[o])).collect();
        vec![row(0), row(1)]
    };
    let pairs = |swap: bool| -> Vec<u8> {
        chroma[..2].iter().flat_map(|[u, v]| if swap { [*v, *u] } else { [*u, *v] }).collect()
    };
    let luma = || y.chunks(4).map(<[u8]>::to_vec);
    match encoding {
        Encoding::Rgb8 => (pixels(&[0, 1, 2]), rgb),
        Encoding::Bgr8 => (pixels(&[2, 1, 0]), rgb),
        Encoding::Rgba8 => (pixels(&[0, 1, 2, 3]), rgb),
        Encoding::Bgra8 => (pixels(&[2, 1, 0, 3]), rgb),
        Encoding::Mono8 => (luma().collect(), grey),
        Encoding::Mono16 => {
            let sample = |v: u8| {
                let wide = u16::from(v) << 8 | 0xC3;
                if big_endian { wide.to_be_bytes() } else { wide.to_le_bytes() }
            };
            (y.chunks(4).map(|row| row.iter().flat_map(|v| sample(*v)).collect()).collect(), grey)
        }
        Encoding::Yuyv => (groups([0, 2, 1, 3]), yuv(false)),
        Encoding::Uyvy => (groups([2, 0, 3, 1]), yuv(false)),
        Encoding::Nv12 => (luma().chain([pairs(false)]).collect(), yuv(true)),
        Encoding::Nv21 => (luma().chain([pairs(true)]).collect(), yuv(true)),
        other => panic!("{other:?} is no raw encoding of this test"),
    }
}

/// The formula of `convert`, in doubles, limited range.
fn bt601(y: u8, [u, v]: [u8; 2]) -> [u8; 3] {
    let (y, u, v) = ((f64::from(y) - 16.0) / 219.0, (f64::from(u) - 128.0) / 224.0, (f64::from(v) - 128.0) / 224.0);
    let (r, b) = (y + 1.402 * v, y + 1.772 * u);
    [r, (y - 0.299 * r - 0.114 * b) / 0.587, b].map(|c| (255.0 * c).round().clamp(0.0, 255.0) as u8)
}

const SMALL: [Encoding; 10] = [
    Encoding::Rgb8,
    Encoding::Bgr8,
    Encoding::Rgba8,
    Encoding::Bgra8,
    Encoding::Mono8,
    Encoding::Mono16,
    Encoding::Yuyv,
    Encoding::Uyvy,
    Encoding::Nv12,
    Encoding::Nv21,
];

#[test]
fn every_raw_encoding_is_what_its_definition_says() {
    for encoding in SMALL {
        for (big_endian, pad) in [(false, 0), (true, 0), (false, 3), (true, 7)] {
            let (rows, rgb) = small(encoding, big_endian);
            let step = if pad == 0 { 0 } else { (rows[0].len() + pad) as u32 };
            let data: Vec<u8> = rows.iter().flat_map(|row| [&row[..], &vec![0xEE; pad][..]].concat()).collect();
            let layout = Layout { step, big_endian, ..Layout::packed(4, 2) };
            for data in [&data[..], &data[..data.len() - pad]] {
                assert_eq!(decoded(&Encoded { encoding, layout, data }), rgb, "{encoding:?} {big_endian} {pad}");
            }
        }
    }
}

#[test]
fn a_chroma_plane_may_lie_anywhere_behind_the_luma() {
    for encoding in [Encoding::Nv12, Encoding::Nv21] {
        let (rows, rgb) = small(encoding, false);
        // As a device has it: 16 lines of 16 bytes, chroma on lines of 24.
        let mut data = vec![0xEE; 16 * 16 + 24];
        [(0, 0), (1, 16), (2, 256)].iter().for_each(|(row, at)| data[*at..*at + 4].copy_from_slice(&rows[*row]));
        let layout = Layout { step: 16, chroma_offset: 256, chroma_step: 24, ..Layout::packed(4, 2) };
        for data in [&data[..], &data[..260]] {
            assert_eq!(decoded(&Encoded { encoding, layout, data }), rgb, "{encoding:?}");
        }
        let bad = [
            Layout { chroma_offset: 19, ..layout },
            Layout { chroma_offset: u32::MAX, ..layout },
            Layout { chroma_step: 3, ..layout },
            Layout { chroma_step: u32::MAX, ..Layout { height: 4, ..layout } },
            Layout { width: 3, ..layout },
            Layout { height: 1, ..layout },
        ];
        for layout in bad {
            assert_eq!(kind(&Encoded { encoding, layout, data: &data }), Some(FrameErrorKind::Layout), "{layout:?}");
        }
    }
}

#[test]
fn full_range_is_wider() {
    let layout = Layout { full_range: true, ..Layout::packed(2, 1) };
    let frame = Encoded { encoding: Encoding::Yuyv, layout, data: &[0, 128, 255, 128] };
    assert_eq!(decoded(&frame), [0, 0, 0, 255, 255, 255]);
    let limited = Encoded { layout: Layout::packed(2, 1), data: &[16, 128, 235, 128], ..frame };
    assert_eq!(decoded(&limited), [0, 0, 0, 255, 255, 255]);
}

#[test]
fn a_mosaic_of_one_colour_is_that_colour() {
    let (w, h) = (8usize, 6usize);
    let cases = [("rggb", Mosaic::Rggb), ("bggr", Mosaic::Bggr), ("gbrg", Mosaic::Gbrg), ("grbg", Mosaic::Grbg)];
    for (name, mosaic) in cases {
        let sample = |i: usize| match name.as_bytes()[(i / w % 2) * 2 + i % w % 2] {
            b'r' => 200,
            b'g' => 90,
            _ => 30,
        };
        let narrow: Vec<u8> = (0..w * h).map(sample).collect();
        let wide: Vec<u8> = narrow.iter().flat_map(|v| [*v, 0x55]).collect();
        let layout = Layout { big_endian: true, ..Layout::packed(w as u32, h as u32) };
        for (encoding, data) in [(Encoding::Bayer8(mosaic), narrow), (Encoding::Bayer16(mosaic), wide)] {
            let rgb = decoded(&Encoded { encoding, layout, data: &data });
            assert!(rgb.chunks(3).all(|p| p == [200, 90, 30]), "{encoding:?}");
        }
    }
}

#[test]
fn exif_does_not_turn_a_picture() {
    let plain = jpeg();
    // APP1 with one entry: orientation 6, "turn by 90 degrees".
    let mut exif = b"\xFF\xE1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0".to_vec();
    assert_eq!(exif.len(), 2 + 0x22);
    exif.extend_from_slice(&plain[2..]);
    let turned = [&plain[..2], &exif].concat();
    let reader = image::ImageReader::with_format(Cursor::new(&turned), image::ImageFormat::Jpeg);
    let orientation = reader.into_decoder().expect("is one").orientation().expect("is there");
    assert_eq!(orientation, image::metadata::Orientation::Rotate90, "the file does say so");
    assert_eq!(decoded(&file(Encoding::Jpeg, &turned)), decoded(&file(Encoding::Jpeg, &plain)));
}

#[test]
fn what_contradicts_itself_is_refused() {
    let (jpeg, png) = (jpeg(), png());
    let raw = vec![0u8; 30];
    let of = |encoding, width, height, step| Encoded {
        encoding,
        layout: Rows { step, ..Rows::packed(width, height) },
        data: &raw,
    };
    let rgb = |width, height, step| of(Encoding::Rgb8, width, height, step);
    let gigantic = hollow_png(30_000, 30_000);
    let long = hollow_png(16_385, 1);
    let (empty, hollow) = (hollow_png(0, 5), hollow_png(4, 4));
    let chroma = Rows { chroma_step: 15, ..Rows::packed(5, 2) };
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
        ("another size", Encoded { layout: Rows::packed(W + 1, 0), ..file(Encoding::Jpeg, &jpeg) }, Layout),
        ("an odd width", of(Encoding::Yuyv, 3, 5, 6), Layout),
        ("an odd width", of(Encoding::Uyvy, 5, 3, 0), Layout),
        ("an odd height", of(Encoding::Nv12, 4, 5, 0), Layout),
        ("a mosaic of one row", of(Encoding::Bayer8(Mosaic::Rggb), 30, 1, 0), Layout),
        ("half a sample", of(Encoding::Mono16, 5, 3, 9), Layout),
        ("a chroma plane of its own", Encoded { layout: chroma, ..rgb(5, 2, 15) }, Layout),
        ("steps beyond 2^64", of(Encoding::Nv12, 2, u32::MAX - 1, u32::MAX), TooLarge),
        ("step below a row", rgb(5, 2, 14), Layout),
        ("data too short", rgb(5, 3, 15), Layout),
        ("data too long", rgb(5, 1, 15), Layout),
        ("huge raw", rgb(u32::MAX, u32::MAX, u32::MAX), TooLarge),
        ("no rows", rgb(5, 0, 15), Layout),
    ];
    for (name, frame, expected) in cases {
        assert_eq!(kind(&frame), Some(expected), "{name}");
    }
    assert_eq!(kind(&rgb(5, 2, 15)), None);
}

#[test]
fn no_layout_overflows() {
    let limits = FrameLimits { max_pixels: u64::MAX, max_side: u32::MAX };
    for encoding in Encoding::ALL.into_iter().filter(|e| !e.is_file()) {
        let huge = [0, 1, 2, u32::MAX - 1, u32::MAX];
        for (width, height, step) in huge.iter().flat_map(|w| huge.iter().flat_map(move |h| huge.map(|s| (*w, *h, s))))
        {
            for chroma in [0, 1, u32::MAX] {
                let layout =
                    Layout { step, chroma_offset: chroma, chroma_step: chroma, ..Layout::packed(width, height) };
                let frame = Encoded { encoding, layout, data: &[7; 6] };
                let small = u64::from(width) * u64::from(height) <= 4;
                assert!(decode(&frame, limits).is_err() || small, "{encoding:?} {layout:?}");
            }
        }
    }
}

#[test]
fn every_truncation_of_a_file_is_an_error() {
    for (encoding, data) in files() {
        for length in 0..data.len() {
            assert!(kind(&file(encoding, &data[..length])).is_some(), "{encoding:?} cut to {length} bytes");
        }
    }
}

#[test]
fn bytes_after_the_end_are_no_harm() {
    for (encoding, mut data) in files() {
        data.extend([0; 64]);
        assert_eq!(kind(&file(encoding, &data)), None, "{encoding:?}");
    }
}

proptest! {
    #[test]
    fn arbitrary_frames_never_panic(
        which in 0..Encoding::ALL.len(), width in 0u32..20, height in 0u32..20, step in 0u32..70,
        chroma_offset in 0u32..500, chroma_step in 0u32..30, big_endian: bool,
        head in 0usize..4, data in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let heads: [&[u8]; 4] = [
            &[],
            &[0xFF, 0xD8, 0xFF],
            b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\0\x05\0\0\0\x05",
            b"RIFF\xF0\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0\x05\0\0\x05\0\0",
        ];
        let data = [heads[head], &data].concat();
        let layout = Layout { width, height, step, big_endian, chroma_offset, chroma_step, full_range: false };
        let _ = decode(&Encoded { encoding: Encoding::ALL[which], layout, data: &data }, FrameLimits::default());
    }

    /// What `probe` lets pass of a raw frame is decoded, and nothing but the pixels' own bytes counts.
    #[test]
    fn raw_frames_are_their_rows(
        which in 0usize..SMALL.len(), half_width in 1u32..50, half_height in 1u32..6, pad in 0u32..9, gap in 0u32..9,
        seed: u8, filler: u8, trim: bool,
    ) {
        let encoding = SMALL[which];
        let (width, height) = (2 * half_width, 2 * half_height);
        let planar = matches!(encoding, Encoding::Nv12 | Encoding::Nv21);
        let row = row_bytes(encoding, width.into()) as usize;
        let rows = height as usize + if planar { height as usize / 2 } else { 0 };
        let byte = |i: usize| (i as u8).wrapping_mul(37) ^ seed;
        let packed: Vec<u8> = (0..row * rows).map(byte).collect();
        let (step, gap) = (row + pad as usize, if planar { gap as usize } else { 0 });
        let mut padded = Vec::new();
        for (i, line) in packed.chunks(row).enumerate() {
            if i == height as usize { padded.extend(vec![filler; gap]); }
            padded.extend(line);
            padded.extend(vec![filler; pad as usize]);
        }
        if trim { padded.truncate(padded.len() - pad as usize); }
        let chroma_offset = if planar { (step * height as usize + gap) as u32 } else { 0 };
        let layout = Layout { step: step as u32, chroma_offset, ..Layout::packed(width, height) };
        let plain = decoded(&Encoded { encoding, layout: Layout::packed(width, height), data: &packed });
        prop_assert_eq!(plain, decoded(&Encoded { encoding, layout, data: &padded }));
        let longer = [&padded[..], &vec![0; pad as usize + 1]].concat();
        prop_assert_eq!(kind(&Encoded { encoding, layout, data: &longer }), Some(FrameErrorKind::Layout));
        let shorter = &padded[..padded.len() - pad as usize - 1];
        prop_assert_eq!(kind(&Encoded { encoding, layout, data: shorter }), Some(FrameErrorKind::Layout));
    }

    #[test]
    fn damaged_files_never_panic(which in 0usize..3, at in 0usize..4000, value: u8, cut in 0usize..4000) {
        let (encoding, mut data) = files()[which].clone();
        let n = data.len();
        data[at % n] = value;
        data.truncate(n - cut % n.min(64));
        let limits = FrameLimits { max_pixels: 1 << 16, max_side: 1 << 12 };
        let _ = decode(&file(encoding, &data), limits);
    }
}
