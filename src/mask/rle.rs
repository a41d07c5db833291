//! COCO run-length encoding: column-major runs, the first of them off.
//!
//! Source: the COCO data format (`counts`, `size = [height, width]`), compressed as its mask API does:
//! differences from the run two before (from the third run on), five bits a character, offset 48.

use super::Mask;
use crate::geometry::{Size, SourcePx};

/// Why run-length data could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RleError {
    /// The runs do not add up to the number of pixels.
    #[error("sum run lengths: {sum} pixels, expected {expected}")]
    Length {
        /// Sum of all runs.
        sum: u64,
        /// `height * width`.
        expected: u64,
    },
    /// The compressed string holds a byte outside `48..=111`.
    #[error("decode run lengths: byte {byte} at {at} is not of the alphabet")]
    Alphabet {
        /// The byte.
        byte: u8,
        /// Its position.
        at: usize,
    },
    /// The compressed string ends inside a number.
    #[error("decode run lengths: truncated number")]
    Truncated,
    /// A run is negative or does not fit 32 bits.
    #[error("decode run lengths: run {at} is out of range")]
    Run {
        /// Index of the run.
        at: usize,
    },
}

/// A run-length encoded mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rle {
    /// Size in source pixels.
    pub size: Size<SourcePx>,
    /// Column-major run lengths, starting with the off pixels.
    pub counts: Vec<u32>,
}

impl Rle {
    /// Run lengths that cover an image of `size` exactly.
    ///
    /// # Errors
    /// [`RleError::Length`] where they do not.
    pub fn new(size: Size<SourcePx>, counts: Vec<u32>) -> Result<Self, RleError> {
        let (sum, expected) = (counts.iter().map(|&c| u64::from(c)).sum(), size.pixels() as u64);
        if sum != expected {
            return Err(RleError::Length { sum, expected });
        }
        Ok(Self { size, counts })
    }

    /// Encodes a mask.
    pub fn encode(mask: &Mask) -> Self {
        let (w, h) = (mask.size().width as usize, mask.size().height as usize);
        // Row by row, as the pixels lie in memory; down the columns, a large mask misses the cache with every pixel.
        let mut changes = Vec::new();
        // The pixel before the top of a column is the bottom of the one before.
        let mut above = vec![0; w];
        if let Some(bottom) = h.checked_sub(1).map(|y| mask.row(y as u32)).filter(|bottom| !bottom.is_empty()) {
            above[1..].copy_from_slice(&bottom[..w - 1]);
        }
        let mut above = &above[..];
        for y in 0..h {
            let row = mask.row(y as u32);
            differences(above, row, |x| changes.push(x * h + y));
            above = row;
        }
        changes.sort_unstable();
        let ends = changes.iter().copied().chain([w * h]);
        let starts = [0].into_iter().chain(changes.iter().copied());
        let counts = ends.zip(starts).map(|(end, start)| (end - start) as u32).collect();
        Self { size: mask.size(), counts }
    }

    /// Decodes to a mask.
    ///
    /// # Errors
    /// [`RleError::Length`] where the runs do not cover the image exactly.
    pub fn decode(&self) -> Result<Mask, RleError> {
        let expected = self.size.pixels() as u64;
        let sum: u64 = self.counts.iter().map(|&c| u64::from(c)).sum();
        if sum != expected {
            return Err(RleError::Length { sum, expected });
        }
        let (w, h) = (self.size.width as usize, self.size.height as usize);
        let mut bits = vec![0u8; w * h];
        let mut at = 0usize;
        for (i, &run) in self.counts.iter().enumerate() {
            let end = at + run as usize;
            if i % 2 == 1 {
                for p in at..end {
                    bits[(p % h) * w + p / h] = 1;
                }
            }
            at = end;
        }
        Ok(Mask { size: self.size, bits })
    }

    /// The compressed ASCII string of COCO's mask API.
    pub fn to_coco_string(&self) -> String {
        let mut out = String::with_capacity(self.counts.len() * 2);
        for (i, &c) in self.counts.iter().enumerate() {
            let mut x = i64::from(c);
            if i > 2 {
                x -= i64::from(self.counts[i - 2]);
            }
            loop {
                let mut chunk = (x & 0x1f) as u8;
                x >>= 5;
                let more = if chunk & 0x10 != 0 { x != -1 } else { x != 0 };
                if more {
                    chunk |= 0x20;
                }
                out.push(char::from(chunk + 48));
                if !more {
                    break;
                }
            }
        }
        out
    }

    /// Reads the compressed ASCII string of COCO's mask API.
    ///
    /// # Errors
    /// Every [`RleError`]; the runs are checked against `size`.
    pub fn from_coco_string(text: &str, size: Size<SourcePx>) -> Result<Self, RleError> {
        let mut counts: Vec<u32> = Vec::new();
        let (mut x, mut shift) = (0i64, 0u32);
        for (at, &byte) in text.as_bytes().iter().enumerate() {
            if !(48..112).contains(&byte) {
                return Err(RleError::Alphabet { byte, at });
            }
            let chunk = i64::from(byte - 48);
            if shift > 35 {
                return Err(RleError::Run { at: counts.len() });
            }
            x |= (chunk & 0x1f) << shift;
            shift += 5;
            if chunk & 0x20 != 0 {
                continue;
            }
            if chunk & 0x10 != 0 {
                x |= -1 << shift;
            }
            if counts.len() > 2 {
                x += i64::from(counts[counts.len() - 2]);
            }
            counts.push(u32::try_from(x).map_err(|_| RleError::Run { at: counts.len() })?);
            (x, shift) = (0, 0);
        }
        if shift != 0 {
            return Err(RleError::Truncated);
        }
        Self::new(size, counts)
    }
}

/// Tells where two rows of one length differ.
fn differences(a: &[u8], b: &[u8], mut at: impl FnMut(usize)) {
    const STEP: usize = 32;
    for (step, (a, b)) in a.chunks(STEP).zip(b.chunks(STEP)).enumerate() {
        // Nearly everywhere rows are as the one above.
        if a != b {
            a.iter().zip(b).enumerate().filter(|(_, (a, b))| a != b).for_each(|(i, _)| at(step * STEP + i));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arbitrary_mask() -> impl Strategy<Value = Mask> {
        (1u32..40, 1u32..40).prop_flat_map(|(w, h)| {
            prop::collection::vec(0u8..=1, (w * h) as usize).prop_map(move |bits| Mask { size: Size::new(w, h), bits })
        })
    }

    proptest! {
        #[test]
        fn encoding_round_trips(mask in arbitrary_mask()) {
            let rle = Rle::encode(&mask);
            prop_assert_eq!(&rle.decode().expect("own encoding decodes"), &mask);
            let text = rle.to_coco_string();
            prop_assert_eq!(Rle::from_coco_string(&text, mask.size()).expect("own string parses"), rle);
        }

        #[test]
        fn hostile_strings_never_panic(text in ".{0,40}", w in 1u32..50, h in 1u32..50) {
            let _ = Rle::from_coco_string(&text, Size::new(w, h));
        }
    }

    /// Reference strings: `pycocotools.mask.encode` 2.0.11 on the same masks.
    #[test]
    fn matches_cocos_mask_api() {
        let small = Mask { size: Size::new(3, 2), bits: vec![0, 1, 1, 0, 1, 0] };
        assert_eq!(Rle::encode(&small).counts, [2, 3, 1]);
        assert_eq!(Rle::encode(&small).to_coco_string(), "231");
        let ring = Mask::from_fn(Size::new(50, 60), |x, y| {
            (10..40).contains(&y) && (5..30).contains(&x) && !((20..25).contains(&y) && (10..15).contains(&x))
        });
        assert_eq!(
            Rle::encode(&ring).to_coco_string(),
            r"f9n0n000000000\OWO5i0KWO5i0KWO5i0KWO5i0KWO5i0?0000000000000000000000000000VU1"
        );
    }
}
