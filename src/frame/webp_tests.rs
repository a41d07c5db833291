//! WebP files that say one thing and are another.

use super::*;

/// A RIFF file of chunks.
fn riff(chunks: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let mut body = b"WEBP".to_vec();
    for (name, data) in chunks {
        body.extend_from_slice(*name);
        body.extend((data.len() as u32).to_le_bytes());
        body.extend(data);
        body.extend(vec![0; data.len() % 2]);
    }
    [b"RIFF", &(body.len() as u32).to_le_bytes()[..], &body].concat()
}

/// The header of an extended WebP file.
fn vp8x(flags: u8, width: u32, height: u32) -> Vec<u8> {
    [&[flags, 0, 0, 0], &(width - 1).to_le_bytes()[..3], &(height - 1).to_le_bytes()[..3]].concat()
}

/// The head of a lossy key frame.
fn vp8(width: u16, height: u16) -> Vec<u8> {
    [&[0x10, 0, 0, 0x9D, 0x01, 0x2A], &width.to_le_bytes()[..], &height.to_le_bytes()[..], &[0; 40]].concat()
}

/// The chunk that [`webp`] wrote.
fn vp8l() -> Vec<u8> {
    webp()[20..].to_vec()
}

#[test]
fn webp_files_are_what_both_their_headers_say() {
    let simple = riff(&[(b"VP8L", vp8l())]);
    assert_eq!(decoded(&file(Encoding::Webp, &simple)), picture().rgb());
    let extended = riff(&[(b"VP8X", vp8x(0, W, H)), (b"VP8L", vp8l())]);
    assert_eq!(decoded(&file(Encoding::Webp, &extended)), picture().rgb());
    let behind = [&extended[..], &riff(&[(b"VP8 ", vp8(16383, 16383))])[12..]].concat();
    assert_eq!(decoded(&file(Encoding::Webp, &behind)), picture().rgb(), "what follows the file does not count");
    use FrameErrorKind::{Data, Encoding as Named, TooLarge};
    let cases = [
        ("a small canvas, a large picture", riff(&[(b"VP8X", vp8x(0, 4, 4)), (b"VP8 ", vp8(16383, 16383))]), Data),
        ("a large canvas, a small picture", riff(&[(b"VP8X", vp8x(0, 16385, 4)), (b"VP8L", vp8l())]), Data),
        ("two pictures", riff(&[(b"VP8X", vp8x(0, W, H)), (b"VP8L", vp8l()), (b"VP8 ", vp8(9000, 9000))]), Data),
        ("no picture", riff(&[(b"VP8X", vp8x(0, W, H)), (b"EXIF", vec![1; 9])]), Data),
        ("a canvas of 2^48 pixels", riff(&[(b"VP8X", vp8x(0, 1 << 24, 1 << 24))]), TooLarge),
        ("a lossy bomb", riff(&[(b"VP8 ", vp8(16383, 16383))]), TooLarge),
        ("a lossless bomb", riff(&[(b"VP8L", vec![0x2F, 0xFF, 0xFF, 0xFF, 0x0F, 0, 0])]), TooLarge),
        ("an animation", riff(&[(b"VP8X", vp8x(2, W, H)), (b"ANIM", vec![0; 6])]), Named),
        ("an animation that denies it", riff(&[(b"VP8X", vp8x(0, W, H)), (b"ANMF", vp8l())]), Named),
        ("a picture longer than its file", [&b"RIFF"[..], &[simple[4] - 8], &simple[5..]].concat(), Data),
        ("no key frame", riff(&[(b"VP8 ", vec![1; 30])]), Data),
        ("nothing in it", riff(&[]), Data),
    ];
    for (name, data, expected) in cases {
        assert_eq!(kind(&file(Encoding::Webp, &data)), Some(expected), "{name}");
    }
}

#[test]
fn a_lossy_webp_with_alpha_is_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("engines/tabletop/sprites");
    let mut sprites: Vec<_> = std::fs::read_dir(folder).expect("is there").map(|e| e.expect("is one").path()).collect();
    sprites.retain(|path| path.extension().is_some_and(|e| e == "webp"));
    sprites.sort();
    for path in &sprites[..4] {
        let data = std::fs::read(path).expect("can be read");
        let frame = Encoded::sniffed(&data).expect("is a picture");
        assert_eq!(frame.encoding, Encoding::Webp);
        let truth = image::load_from_memory(&data).expect("decodes").into_rgb8().into_raw();
        assert_eq!(decoded(&frame), truth, "{}", path.display());
        assert_eq!(kind(&file(Encoding::Webp, &data[..data.len() - 2])), Some(FrameErrorKind::Data));
    }
}
