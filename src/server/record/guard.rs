//! What a file says of its own lengths, looked at before `mcap` takes memory for it.
//!
//! `mcap` bounds records by a limit, but reserves a string's memory before it looks whether the string is there: up to
//! 4 GiB for four bytes that are damaged.

use mcap::records::op;

/// Opcode and length of a record.
const HEAD: usize = 9;
/// Of a chunk besides: times, size, checksum, and the length of the name of its compression.
const CHUNK: usize = 32;

/// Follows the records of a file as its bytes come.
pub(super) struct Walk {
    /// The beginning of a record, as far as it has come.
    head: Vec<u8>,
    /// Bytes to the next record.
    skip: u64,
}

impl Walk {
    /// From a file's first byte.
    pub fn new() -> Self {
        Self { head: Vec::with_capacity(HEAD + CHUNK), skip: mcap::MAGIC.len() as u64 }
    }

    /// Whether the next bytes may be read: no chunk among them names a compression that is longer than itself.
    pub fn feed(&mut self, mut bytes: &[u8]) -> bool {
        loop {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            bytes = &bytes[skipped..];
            self.skip -= skipped as u64;
            if bytes.is_empty() {
                return true;
            }
            let chunk = self.head.first().unwrap_or(&bytes[0]) == &op::CHUNK;
            let wanted = if chunk { HEAD + CHUNK } else { HEAD };
            let taken = (wanted - self.head.len()).min(bytes.len());
            self.head.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if self.head.len() < wanted {
                return true;
            }
            let Some(length) = number::<8>(&self.head[1..]).map(u64::from_le_bytes) else { return false };
            self.skip = length;
            if chunk {
                let Some(name) = number::<4>(&self.head[wanted - 4..]).map(u32::from_le_bytes) else { return false };
                let Some(rest) = length.checked_sub(CHUNK as u64) else { return false };
                if u64::from(name) > rest {
                    return false;
                }
                self.skip = rest;
            }
            self.head.clear();
        }
    }
}

fn number<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.first_chunk().copied()
}

/// Whether the strings of a record are in it, for the kinds of records that are looked into.
pub(super) fn strings_fit(opcode: u8, data: &[u8]) -> bool {
    let mut rest = data;
    let fit = match opcode {
        op::HEADER => string(&mut rest).and_then(|()| string(&mut rest)),
        // Ids come first.
        op::CHANNEL => skip(&mut rest, 4)
            .and_then(|()| string(&mut rest))
            .and_then(|()| string(&mut rest))
            .and_then(|()| map(&mut rest)),
        op::METADATA => string(&mut rest).and_then(|()| map(&mut rest)),
        _ => Some(()),
    };
    fit.is_some()
}

fn skip(rest: &mut &[u8], bytes: usize) -> Option<()> {
    *rest = rest.get(bytes..)?;
    Some(())
}

fn string(rest: &mut &[u8]) -> Option<()> {
    let length = u32::from_le_bytes(number(rest)?);
    skip(rest, usize::try_from(length).ok()?.checked_add(4)?)
}

/// Pairs of strings, as many as begin within its length.
fn map(rest: &mut &[u8]) -> Option<()> {
    let length = usize::try_from(u32::from_le_bytes(number(rest)?)).ok()?;
    skip(rest, 4)?;
    let before = rest.len();
    while before - rest.len() < length {
        string(rest)?;
        string(rest)?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(name: u32, length: u64) -> Vec<u8> {
        let head = [&[op::CHUNK][..], &length.to_le_bytes(), &[0; 28], &name.to_le_bytes()].concat();
        [mcap::MAGIC, &head, &vec![0; usize::try_from(length).expect("is small").saturating_sub(32)]].concat()
    }

    /// Whether all of it may be read, in pieces of `size`.
    fn passes(bytes: &[u8], size: usize) -> bool {
        let mut walk = Walk::new();
        bytes.chunks(size).all(|piece| walk.feed(piece))
    }

    #[test]
    fn a_chunk_s_compression_is_in_the_chunk() {
        let other = [&[op::MESSAGE][..], &5u64.to_le_bytes(), &[op::CHUNK; 5]].concat();
        for size in [1, 7, 41, 1000] {
            assert!(passes(&[chunk(3, 60), other.clone(), chunk(0, 40)[8..].to_vec()].concat(), size), "{size}");
            assert!(!passes(&chunk(29, 60), size), "{size}");
            assert!(
                !passes(&[chunk(28, 60), other.clone(), chunk(u32::MAX, 60)[8..].to_vec()].concat(), size),
                "{size}"
            );
            assert!(!passes(&chunk(0, 31), size), "shorter than its own head, {size}");
        }
    }

    #[test]
    fn strings_are_in_their_records() {
        let string = |text: &str| [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
        let pair = [string("engine"), string("fake")].concat();
        let map = [&(pair.len() as u32).to_le_bytes()[..], &pair].concat();
        let metadata = [string("sam4mllm.recording"), map.clone()].concat();
        let channel = [vec![1, 0, 1, 0], string("/requests"), string("protobuf"), map].concat();
        for (opcode, whole) in [(op::METADATA, metadata), (op::CHANNEL, channel)] {
            assert!(strings_fit(opcode, &whole));
            (0..whole.len()).for_each(|keep| assert!(!strings_fit(opcode, &whole[..keep]), "{opcode}, {keep}"));
        }
    }
}
