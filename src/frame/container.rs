//! The little that has to be known of JPEG, PNG and WebP files before a decoder may see them: what they are, how large
//! they will be, and whether they are all there.
//!
//! Sizes are read here rather than by a decoder so that a decompression bomb costs nothing. The end is looked for
//! because decoders fill in what a truncated JPEG lacks, and a mask on invented pixels looks right.

use super::Encoding;

/// A file's kind, by its first bytes.
pub(super) fn sniff(data: &[u8]) -> Option<Encoding> {
    if data.starts_with(&[0xFF, 0xD8, 0xFF]) {
        Some(Encoding::Jpeg)
    } else if data.starts_with(PNG_SIGNATURE) {
        Some(Encoding::Png)
    } else if data.starts_with(b"RIFF") && data.get(8..12) == Some(b"WEBP") {
        Some(Encoding::Webp)
    } else {
        None
    }
}

/// What a file's headers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Header {
    /// Width and height, once they were seen.
    pub size: Option<(u32, u32)>,
    /// Whether the file's end was.
    pub complete: bool,
}

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Walks a PNG's chunks. Source: W3C, PNG, section 11.
pub(super) fn walk_png(data: &[u8]) -> Header {
    Header { size: png_size(data), complete: png_complete(data) }
}

/// Width and height from a PNG's header chunk.
fn png_size(data: &[u8]) -> Option<(u32, u32)> {
    let header = data.strip_prefix(PNG_SIGNATURE)?;
    let be = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
    (header.get(4..8)? == b"IHDR").then(|| Some((be(8)?, be(12)?))).flatten()
}

/// Whether a PNG has its end chunk.
fn png_complete(data: &[u8]) -> bool {
    let mut rest = data.strip_prefix(PNG_SIGNATURE).unwrap_or_default();
    while let Some((head, after)) = rest.split_at_checked(8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        // Every chunk ends in a checksum of four bytes.
        let Some(next) = length.checked_add(4).and_then(|n| after.get(n..)) else { return false };
        if &head[4..] == b"IEND" {
            return true;
        }
        rest = next;
    }
    false
}

/// Walks a JPEG's segments. Source: ITU-T T.81, annex B.
pub(super) fn walk_jpeg(data: &[u8]) -> Header {
    let mut found = Header::default();
    let mut at = 2;
    while let Some(marker) = next_marker(data, &mut at) {
        match marker {
            0xD9 => {
                found.complete = true;
                return found;
            }
            // Markers without a segment: restarts, TEM, a second start of image.
            0x01 | 0xD0..=0xD8 => continue,
            _ => {}
        }
        let Some(length) = be16(data, at).filter(|l| *l >= 2) else { return found };
        // Frame headers; 0xC4, 0xC8 and 0xCC are tables and an extension.
        if matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC) && found.size.is_none() {
            found.size = be16(data, at + 5).zip(be16(data, at + 3));
        }
        at += length as usize;
    }
    found
}

fn be16(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(*data.get(at)?) << 8 | u32::from(*data.get(at + 1)?))
}

/// The next marker from `at` on, past entropy-coded data and fill bytes; `at` is left behind it.
fn next_marker(data: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        *at += data.get(*at..)?.iter().position(|b| *b == 0xFF)?;
        while *data.get(*at)? == 0xFF {
            *at += 1;
        }
        let marker = data[*at];
        *at += 1;
        // 0xFF00 is a data byte.
        if marker != 0 {
            return Some(marker);
        }
    }
}
