//! Where the entries of a zip lie whose entries are stored as they are: no compression, no encryption.
//!
//! Source: PKWARE's APPNOTE 6.3, sections 4.3 to 4.5. What two readers could understand in two ways is refused: entries
//! that overlap, two of one name, local headers that contradict the directory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::import::error::{ImportError, ImportErrorKind as Kind};

const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
const DIRECTORY: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;
/// Bytes of the fixed parts.
const END_BYTES: u64 = 22;
const LOCATOR_64_BYTES: u64 = 20;
const DIRECTORY_BYTES: usize = 46;
const LOCAL_BYTES: u64 = 30;
/// Longest comment that the end may have.
const MAX_COMMENT: u64 = 1 << 16;
/// Longest directory that is read, in bytes; a hundred thousand entries.
const MAX_DIRECTORY: u64 = 16 << 20;

/// An opened zip.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    entries: HashMap<String, Entry>,
}

/// Where an entry's bytes are in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// A line of the directory.
struct Line {
    name: String,
    bytes: u64,
    header: u64,
}

impl Archive {
    /// Reads the directory and every entry's local header.
    pub(super) fn open(path: &Path) -> Result<Self, ImportError> {
        let open = |e| ImportError::new(Kind::Open, path).because(e);
        let mut source = Source { path, file: File::open(path).map_err(open)?, bytes: 0 };
        source.bytes = source.file.metadata().map_err(open)?.len();
        if source.at::<2>(0)? == [0x80, 0x02] {
            return Err(source.corrupt("is of the format that torch wrote before 1.6: save it again with a newer one"));
        }
        let (start, bytes) = source.directory()?;
        let lines = lines(&source, &source.read(start, bytes)?)?;
        let mut entries = HashMap::with_capacity(lines.len());
        let mut taken = Vec::with_capacity(lines.len());
        for line in lines {
            let offset = source.data_of(&line)?;
            let end = offset.checked_add(line.bytes).filter(|end| *end <= start);
            let end = end.ok_or_else(|| source.corrupt("reaches into the directory").at(line.name.as_str()))?;
            taken.push((line.header, end, line.name.clone()));
            if entries.insert(line.name.clone(), Entry { offset, bytes: line.bytes }).is_some() {
                return Err(source.corrupt("is there twice").at(line.name));
            }
        }
        taken.sort();
        if let Some(pair) = taken.windows(2).find(|pair| pair[0].1 > pair[1].0) {
            return Err(source.corrupt(format!("overlaps `{}`", pair[0].2)).at(pair[1].2.as_str()));
        }
        Ok(Self { path: path.to_owned(), entries })
    }

    /// The entry of that name.
    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// The entry of that name in the one folder that everything is in, or in none.
    pub(super) fn find(&self, name: &str) -> Option<(&str, &Entry)> {
        let is_it = |full: &str| full == name || full.split_once('/').is_some_and(|(_, rest)| rest == name);
        let mut found = self.entries.iter().filter(|(full, _)| is_it(full));
        match (found.next(), found.next()) {
            (Some((full, entry)), None) => Some((full, entry)),
            _ => None,
        }
    }

    /// All bytes of an entry.
    pub(super) fn read(&self, entry: &Entry) -> Result<Vec<u8>, ImportError> {
        let open = |e| ImportError::new(Kind::Open, &self.path).because(e);
        let file = File::open(&self.path).map_err(open)?;
        let bytes = file.metadata().map_err(open)?.len();
        Source { path: &self.path, file, bytes }.read(entry.offset, entry.bytes)
    }
}

/// The file, read at places.
struct Source<'a> {
    path: &'a Path,
    file: File,
    bytes: u64,
}

impl Source<'_> {
    fn corrupt(&self, why: impl Into<String>) -> ImportError {
        ImportError::new(Kind::Corrupt, self.path).because(why.into())
    }

    fn read(&self, offset: u64, bytes: u64) -> Result<Vec<u8>, ImportError> {
        let end = offset.checked_add(bytes).filter(|end| *end <= self.bytes);
        let end = end.ok_or_else(|| self.corrupt(format!("ends early: {} bytes", self.bytes)))?;
        let mut data = vec![0; (end - offset) as usize];
        let mut file = &self.file;
        let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut data));
        read.map_err(|e| ImportError::new(Kind::Open, self.path).because(e))?;
        Ok(data)
    }

    fn at<const N: usize>(&self, offset: u64) -> Result<[u8; N], ImportError> {
        let data = self.read(offset, N as u64)?;
        Ok(*data.first_chunk().expect("that many bytes were read"))
    }

    /// Start and length of the directory.
    fn directory(&self) -> Result<(u64, u64), ImportError> {
        let tail_bytes = self.bytes.min(END_BYTES + MAX_COMMENT);
        let tail = self.read(self.bytes - tail_bytes, tail_bytes)?;
        let last = tail.len().checked_sub(END_BYTES as usize);
        let ends_here = |&at: &usize| {
            u32_at(&tail, at) == END && at + END_BYTES as usize + u16_at(&tail, at + 20) as usize == tail.len()
        };
        let at = last.and_then(|last| (0..=last).rev().find(ends_here));
        let at = at.ok_or_else(|| self.corrupt("is no zip, or is cut off"))?;
        let end = self.bytes - tail_bytes + at as u64;
        let (bytes, start) = (u64::from(u32_at(&tail, at + 12)), u64::from(u32_at(&tail, at + 16)));
        let (start, bytes) = match end.checked_sub(LOCATOR_64_BYTES) {
            Some(locator) if u32_at(&self.at::<4>(locator)?, 0) == LOCATOR_64 => {
                let record = self.at::<56>(u64_at(&self.at::<20>(locator)?, 8))?;
                if u32_at(&record, 0) != END_64 {
                    return Err(self.corrupt("its 64-bit end is not where it should be"));
                }
                (u64_at(&record, 48), u64_at(&record, 40))
            }
            _ => (start, bytes),
        };
        if bytes > MAX_DIRECTORY || start.checked_add(bytes).is_none_or(|e| e > end) {
            return Err(self.corrupt(format!("its directory of {bytes} bytes does not fit")));
        }
        Ok((start, bytes))
    }

    /// Where the data of an entry starts, behind its local header.
    fn data_of(&self, line: &Line) -> Result<u64, ImportError> {
        let header = self.at::<{ LOCAL_BYTES as usize }>(line.header).map_err(|e| e.at(line.name.as_str()))?;
        let (name, extra) = (u64::from(u16_at(&header, 26)), u64::from(u16_at(&header, 28)));
        let same = u32_at(&header, 0) == LOCAL && u16_at(&header, 8) == 0;
        if !same || self.read(line.header + LOCAL_BYTES, name)? != line.name.as_bytes() {
            return Err(self.corrupt("its local header contradicts the directory").at(line.name.as_str()));
        }
        Ok(line.header + LOCAL_BYTES + name + extra)
    }
}

/// The directory's lines.
fn lines(source: &Source<'_>, mut directory: &[u8]) -> Result<Vec<Line>, ImportError> {
    let mut lines = Vec::new();
    while !directory.is_empty() {
        let early = || source.corrupt("its directory ends early");
        let fixed = directory.get(..DIRECTORY_BYTES).ok_or_else(early)?;
        if u32_at(fixed, 0) != DIRECTORY {
            return Err(source.corrupt("its directory is damaged"));
        }
        let [name, extra, comment] = [28, 30, 32].map(|at| usize::from(u16_at(fixed, at)));
        let rest = &directory[DIRECTORY_BYTES..];
        let name_bytes = rest.get(..name).ok_or_else(early)?;
        let extra_bytes = rest.get(name..name + extra).ok_or_else(early)?;
        directory = rest.get(name + extra + comment..).ok_or_else(early)?;
        let name = String::from_utf8(name_bytes.to_vec()).map_err(|_| source.corrupt("a name is not UTF-8"))?;
        let refuse = |why: &str| Err(source.corrupt(why).at(name.as_str()));
        if u16_at(fixed, 8) & 1 != 0 {
            return refuse("is encrypted");
        }
        if u16_at(fixed, 10) != 0 {
            return refuse("is compressed; torch stores entries as they are");
        }
        let (packed, bytes, header) = wide_sizes(fixed, extra_bytes);
        if packed != bytes {
            return refuse("is stored with another length than its own");
        }
        lines.push(Line { name, bytes, header });
    }
    Ok(lines)
}

/// Stored length, length and place of the local header; those that do not fit 32 bits are in the extra field 1.
fn wide_sizes(fixed: &[u8], mut extra: &[u8]) -> (u64, u64, u64) {
    let mut wide: &[u8] = &[];
    while extra.len() >= 4 {
        let (id, length) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let Some(body) = extra.get(4..4 + length) else { break };
        if id == 1 {
            wide = body;
        }
        extra = &extra[4 + length..];
    }
    // In this order, each only where the narrow one is all ones.
    let mut take = |narrow: u32| match wide.split_first_chunk::<8>() {
        Some((value, rest)) if narrow == u32::MAX => {
            wide = rest;
            u64::from_le_bytes(*value)
        }
        _ => u64::from(narrow),
    };
    let bytes = take(u32_at(fixed, 24));
    let packed = take(u32_at(fixed, 20));
    (packed, bytes, take(u32_at(fixed, 42)))
}

fn u16_at(data: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([data[at], data[at + 1]])
}

fn u32_at(data: &[u8], at: usize) -> u32 {
    u32::from(u16_at(data, at)) | u32::from(u16_at(data, at + 2)) << 16
}

fn u64_at(data: &[u8], at: usize) -> u64 {
    u64::from(u32_at(data, at)) | u64::from(u32_at(data, at + 4)) << 32
}
