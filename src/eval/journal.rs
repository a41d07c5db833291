//! The record file: a header line, then one JSON line a sample, written as it is answered, so that a run can go on where
//! it was cut off.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::record::Record;
use super::runner::Place;

/// Version of the file's format.
const FORMAT: u32 = 2;
/// Longest line that is read, in bytes; a record has a few hundred.
const MAX_LINE: usize = 1 << 20;

/// What all records of a file have in common; a run goes on only where this is the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    format: u32,
    /// The bundle's fingerprint.
    bundle: String,
    /// What the variants are called, in order.
    variants: Vec<String>,
    /// What the source says of itself.
    source: Value,
}

impl Header {
    /// The header of a run.
    pub fn new(bundle: &str, variants: Vec<String>, source: Value) -> Self {
        Self { format: FORMAT, bundle: bundle.to_owned(), variants, source }
    }

    /// The first thing in which `self`, of a file, differs from `now`.
    fn difference(&self, now: &Self) -> Option<String> {
        let (was, is) = (serde_json::to_value(self).ok()?, serde_json::to_value(now).ok()?);
        let inner = |v: &Value, key: &str| v["source"].get(key).cloned().unwrap_or(Value::Null);
        for key in ["format", "bundle", "variants"] {
            if was[key] != is[key] {
                return Some(format!("its {key} is {}, now it is {}", was[key], is[key]));
            }
        }
        let keys = [&was, &is].into_iter().filter_map(|v| v["source"].as_object()).flat_map(|o| o.keys());
        let different = keys.into_iter().find(|key| inner(&was, key) != inner(&is, key));
        different.map(|key| format!("its {key} is {}, now it is {}", inner(&was, key), inner(&is, key)))
    }
}

/// Kinds of [`JournalError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JournalErrorKind {
    /// The file cannot be opened, read or written.
    Io,
    /// A line other than the last is no record, or the first is no header.
    Line,
    /// The file is of another bundle, of other variants or of other samples.
    Other,
}

/// A record file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{} `{}`{}", match .kind {
    JournalErrorKind::Io => "access records",
    JournalErrorKind::Line => "read records",
    JournalErrorKind::Other => "resume from records",
}, path.display(), detail.as_ref().map(|d| format!(": {d}")).unwrap_or_default())]
pub struct JournalError {
    kind: JournalErrorKind,
    path: PathBuf,
    detail: Option<String>,
    source: Option<io::Error>,
}

impl JournalError {
    /// What kind of failure this is.
    pub fn kind(&self) -> JournalErrorKind {
        self.kind
    }
}

/// A record file that is being written.
pub struct Journal {
    path: PathBuf,
    file: File,
    records: Vec<Record>,
}

impl Journal {
    /// An empty file for a new run; what was there is lost.
    ///
    /// # Errors
    /// [`JournalErrorKind::Io`].
    pub fn create(path: &Path, header: &Header) -> Result<Self, JournalError> {
        let file = File::create(path).map_err(|e| io_error(path, e))?;
        let mut journal = Self { path: path.to_owned(), file, records: Vec::new() };
        journal.write(header)?;
        Ok(journal)
    }

    /// The file of a run that was cut off, or an empty one where there is none. A last line that was cut is taken off.
    ///
    /// # Errors
    /// Every [`JournalErrorKind`].
    pub fn resume(path: &Path, header: &Header) -> Result<Self, JournalError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Self::create(path, header),
            Err(e) => return Err(io_error(path, e)),
        };
        let mut reader = BufReader::new(file);
        let Some(first) = whole_line(&mut reader, path)? else { return Self::create(path, header) };
        let was: Header = serde_json::from_str(&first).map_err(|e| line_error(path, 1, &e.to_string()))?;
        if let Some(difference) = was.difference(header) {
            let advice = "give the same options, or start anew without --resume";
            return Err(error(JournalErrorKind::Other, path, format!("{difference}; {advice}")));
        }
        let (mut records, mut kept) = (Vec::new(), first.len() as u64 + 1);
        while let Some(line) = whole_line(&mut reader, path)? {
            let record = parse(&line, header.variants.len(), records.last());
            records.push(record.map_err(|why| line_error(path, records.len() + 2, &why))?);
            kept += line.len() as u64 + 1;
        }
        let mut file = reader.into_inner();
        file.set_len(kept).and_then(|()| file.seek(SeekFrom::End(0))).map_err(|e| io_error(path, e))?;
        Ok(Self { path: path.to_owned(), file, records })
    }

    /// What was answered so far, in order.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The place behind the last record.
    pub fn next(&self) -> Place {
        self.records.last().map_or((0, 0), |r| (r.picture, r.sample + 1))
    }

    /// Appends a record; it is on its way to the disk when this returns.
    ///
    /// # Errors
    /// [`JournalErrorKind::Io`].
    pub fn push(&mut self, record: &Record) -> Result<(), JournalError> {
        let line = self.write(record)?;
        // What is reported is what was written, so that a resumed run reports the same to the last bit.
        let read = parse(&line, record.answers.len(), self.records.last());
        self.records.push(read.map_err(|why| line_error(&self.path, self.records.len() + 2, &why))?);
        Ok(())
    }

    /// One line in one write, so that a cut is a cut line and never a hole.
    fn write(&mut self, value: &impl Serialize) -> Result<String, JournalError> {
        let line = serde_json::to_string(value).map_err(|e| io_error(&self.path, e.into()))?;
        let written = self.file.write_all(format!("{line}\n").as_bytes()).and_then(|()| self.file.flush());
        written.map_err(|e| io_error(&self.path, e))?;
        Ok(line)
    }
}

/// A record that may follow `last`.
fn parse(line: &str, variants: usize, last: Option<&Record>) -> Result<Record, String> {
    let record: Record = serde_json::from_str(line).map_err(|e| e.to_string())?;
    if record.answers.len() != variants {
        return Err(format!("{} answers, expected {variants}", record.answers.len()));
    }
    match last {
        Some(last) if (record.picture, record.sample) <= (last.picture, last.sample) => {
            Err("is out of order".to_owned())
        }
        _ => Ok(record),
    }
}

/// The next line, without its end; `None` at the end of the file and for a line that was cut.
fn whole_line(reader: &mut impl BufRead, path: &Path) -> Result<Option<String>, JournalError> {
    let mut line = Vec::new();
    io::Read::take(&mut *reader, MAX_LINE as u64).read_until(b'\n', &mut line).map_err(|e| io_error(path, e))?;
    if line.pop() != Some(b'\n') {
        return match line.len() + 1 < MAX_LINE {
            true => Ok(None),
            false => Err(error(JournalErrorKind::Line, path, format!("a line is longer than {MAX_LINE} bytes"))),
        };
    }
    String::from_utf8(line).map(Some).map_err(|e| error(JournalErrorKind::Line, path, e.to_string()))
}

fn error(kind: JournalErrorKind, path: &Path, detail: String) -> JournalError {
    JournalError { kind, path: path.to_owned(), detail: Some(detail), source: None }
}

fn line_error(path: &Path, line: usize, why: &str) -> JournalError {
    error(JournalErrorKind::Line, path, format!("line {line}: {why}"))
}

fn io_error(path: &Path, source: io::Error) -> JournalError {
    JournalError { kind: JournalErrorKind::Io, path: path.to_owned(), detail: None, source: Some(source) }
}

#[cfg(test)]
pub(super) mod tests {
    use std::fs;

    use serde_json::json;
    use tempfile::TempDir;

    use super::super::metrics::Score;
    use super::super::record::{Answer, Instance, TargetFacts, Verdict};
    use super::*;

    /// A record with one answer, whose numbers need all their digits.
    pub(in super::super) fn record(picture: u64, sample: usize) -> Record {
        let seed = (picture * 7 + sample as u64) as f32;
        let confidence = (seed * 0.618_034).fract();
        let score = Score { intersection: picture, union: picture + 3, has_target: true, answered: true };
        let iou = score.iou();
        let instances =
            vec![Instance { language: confidence, score: confidence / 3.0, fill: confidence, confidence, iou }];
        Record {
            picture,
            sample,
            id: format!("scene {picture}, {sample}"),
            expression: "the \"mug\"\n<b>".to_owned(),
            kind: "name".to_owned(),
            near_miss: false,
            target: Some(TargetFacts { count: 1, area: 1.0 / 3.0, fill: 2.0 / 3.0, hidden: Some(confidence) }),
            answers: vec![Answer {
                verdict: Verdict::Found,
                confidence,
                malformed: None,
                passes: 7,
                one_by_one: 36,
                near_ties: 0,
                points: [3, 4],
                score,
                instances,
            }],
        }
    }

    fn header() -> Header {
        Header::new("0123", vec!["box".to_owned()], json!({ "data": "tabletop", "side": 320 }))
    }

    fn written(folder: &TempDir, count: u64) -> PathBuf {
        let path = folder.path().join("records.jsonl");
        let mut journal = Journal::create(&path, &header()).expect("creates");
        (0..count).for_each(|i| journal.push(&record(i / 2, i as usize % 2)).expect("writes"));
        path
    }

    fn refused(path: &Path, header: &Header) -> JournalError {
        Journal::resume(path, header).err().expect("is refused")
    }

    #[test]
    fn a_cut_run_goes_on_to_the_same_bytes() {
        let folder = TempDir::new().expect("a folder");
        let path = written(&folder, 5);
        let whole = fs::read(&path).expect("reads");
        let header_line = whole.iter().position(|b| *b == b'\n').expect("a line");
        for cut in [0, header_line / 2, header_line + 1, whole.len() / 2, whole.len() - 1, whole.len()] {
            fs::write(&path, &whole[..cut]).expect("writes");
            let mut journal = Journal::resume(&path, &header()).unwrap_or_else(|e| panic!("cut at {cut}: {e}"));
            let done = journal.records().len();
            assert_eq!(journal.next(), if done == 0 { (0, 0) } else { ((done as u64 - 1) / 2, (done - 1) % 2 + 1) });
            (done as u64..5).for_each(|i| journal.push(&record(i / 2, i as usize % 2)).expect("writes"));
            assert_eq!(fs::read(&path).expect("reads"), whole, "cut at {cut}");
            assert_eq!(Journal::resume(&path, &header()).expect("resumes").records(), journal.records());
        }
    }

    #[test]
    fn another_bundle_or_other_options_are_refused_with_the_difference() {
        let folder = TempDir::new().expect("a folder");
        let path = written(&folder, 2);
        let source = |side: u32| json!({ "data": "tabletop", "side": side });
        let cases = [
            (Header::new("4567", vec!["box".to_owned()], source(320)), "its bundle is \"0123\", now it is \"4567\""),
            (Header::new("0123", vec!["pqpp".to_owned()], source(320)), "its variants is [\"box\"]"),
            (Header::new("0123", vec!["box".to_owned()], source(640)), "its side is 320, now it is 640"),
            (
                Header::new("0123", vec!["box".to_owned()], json!({ "data": "tabletop" })),
                "its side is 320, now it is null",
            ),
        ];
        for (other, difference) in cases {
            let error = refused(&path, &other);
            assert_eq!(error.kind(), JournalErrorKind::Other);
            assert!(error.to_string().contains(difference), "{error}");
            assert!(error.to_string().contains("without --resume"), "{error}");
        }
    }

    #[test]
    fn damage_before_the_end_is_an_error_with_its_line() {
        let folder = TempDir::new().expect("a folder");
        let path = written(&folder, 3);
        let text = fs::read_to_string(&path).expect("reads");
        let lines: Vec<&str> = text.lines().collect();
        let cases = [
            ([lines[0], "{}", lines[2], ""].join("\n"), "line 2"),
            ([lines[0], lines[1], lines[1], ""].join("\n"), "line 3: is out of order"),
            (["{\"format\":1}", lines[1], ""].join("\n"), "line 1"),
        ];
        for (damaged, place) in cases {
            fs::write(&path, damaged).expect("writes");
            let error = refused(&path, &header());
            assert!(error.kind() == JournalErrorKind::Line && error.to_string().contains(place), "{error}");
        }
        fs::write(&path, vec![b'x'; MAX_LINE + 1]).expect("writes");
        assert_eq!(refused(&path, &header()).kind(), JournalErrorKind::Line);
        assert_eq!(refused(folder.path(), &header()).kind(), JournalErrorKind::Io);
    }

    #[test]
    fn without_a_file_resuming_is_starting() {
        let folder = TempDir::new().expect("a folder");
        let journal = Journal::resume(&folder.path().join("new.jsonl"), &header()).expect("creates");
        assert_eq!((journal.records().len(), journal.next()), (0, (0, 0)));
    }
}
