//! JSON files, read as a stream: what is not kept is never held.

use std::fs::File;
use std::io::{BufReader, Read};
use std::marker::PhantomData;
use std::path::Path;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};

use super::damage::Damage;
use super::error::{ReadError, ReadErrorKind};

/// Bytes read from a file at once.
const BUFFER_BYTES: usize = 1 << 20;

/// Reads the bytes of a file that has at most `limit`.
pub(super) fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let io = |e| ReadError::new(ReadErrorKind::Io, path).because(e);
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limit {
        return Err(ReadError::new(ReadErrorKind::TooLarge, path).because(format!("more than {limit} bytes")));
    }
    Ok(bytes)
}

/// Runs `seed` over a file, which must hold nothing after it.
pub(super) fn stream<S: for<'de> DeserializeSeed<'de, Value = T>, T>(path: &Path, seed: S) -> Result<T, ReadError> {
    let file = File::open(path).map_err(|e| ReadError::new(ReadErrorKind::Io, path).because(e))?;
    let mut deserializer = serde_json::Deserializer::from_reader(BufReader::with_capacity(BUFFER_BYTES, file));
    let value = seed.deserialize(&mut deserializer).map_err(|e| json_error(path, e))?;
    deserializer.end().map_err(|e| json_error(path, e))?;
    Ok(value)
}

/// Hands each entry of a list to `take`, in order, with its index.
///
/// # Errors
/// Those of `take`, and [`ReadErrorKind::Json`] naming the entry; where damage is skipped only those of the list itself.
pub(super) fn each<T: DeserializeOwned>(
    path: &Path,
    damage: &mut Damage<'_>,
    mut take: impl FnMut(usize, T) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    if !damage.skips() {
        return each_strictly(path, take);
    }
    // An entry that is read as any value first does not end the list where it is not what it should be.
    each_strictly(path, |index, value: serde_json::Value| {
        let entry = serde_json::from_value(value).map_err(|e| json_error(path, e).of(format!("entry {index}")));
        damage.pass(entry.and_then(|entry| take(index, entry))).map(drop)
    })
}

fn each_strictly<T: DeserializeOwned>(
    path: &Path,
    mut take: impl FnMut(usize, T) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let (mut index, mut failed) = (0, None);
    let each = Each { take: &mut take, index: &mut index, failed: &mut failed, entry: PhantomData::<T> };
    let outcome = stream(path, each);
    match failed {
        Some(error) => Err(error),
        None => outcome.map_err(|e| e.of(format!("entry {index}"))),
    }
}

pub(super) fn json_error(path: &Path, error: serde_json::Error) -> ReadError {
    let kind = if error.is_io() { ReadErrorKind::Io } else { ReadErrorKind::Json };
    ReadError::new(kind, path).because(error)
}

struct Each<'a, T, F> {
    take: &'a mut F,
    index: &'a mut usize,
    /// Why `take` stopped: serde's own error cannot carry it.
    failed: &'a mut Option<ReadError>,
    entry: PhantomData<T>,
}

impl<'de, T: DeserializeOwned, F: FnMut(usize, T) -> Result<(), ReadError>> DeserializeSeed<'de> for Each<'_, T, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: DeserializeOwned, F: FnMut(usize, T) -> Result<(), ReadError>> Visitor<'de> for Each<'_, T, F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(entry) = entries.next_element()? {
            if let Err(error) = (self.take)(*self.index, entry) {
                *self.failed = Some(error);
                return Err(A::Error::custom("stopped"));
            }
            *self.index += 1;
        }
        Ok(())
    }
}
