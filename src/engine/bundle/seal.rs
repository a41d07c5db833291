//! Sealing: writes the `[files]` table of a manifest anew and leaves every other byte of it as it was.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::manifest::{FileEntry, Manifest};
use super::{Bundle, BundleError, BundleErrorKind, MANIFEST, Verify, files, read_manifest};

/// What [`seal`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Files that the manifest now lists.
    pub files: usize,
    /// Their length together, in bytes.
    pub bytes: u64,
    /// The bundle's new fingerprint.
    pub fingerprint: String,
}

/// Recomputes size and SHA-256 of every file of the bundle in `dir` and writes them into its `bundle.toml`.
///
/// Listed are all files of the two model directories and the adapter's, and files elsewhere that were listed before and still exist.
///
/// # Errors
/// A manifest that is invalid apart from its `[files]`, and files that cannot be read or written.
pub fn seal(dir: impl AsRef<Path>) -> Result<Sealed, BundleError> {
    let dir = dir.as_ref();
    let text = read_manifest(dir)?;
    let manifest = Manifest::parse(&text)?;
    let entries = collect(dir, &manifest)?;
    let sealed = replace_files(&text, &entries);
    let expected = Manifest { files: entries, ..manifest };
    if Manifest::parse(&sealed)? != expected {
        return Err(BundleError::new(BundleErrorKind::Parse, MANIFEST)
            .because("its [files] table is not written in a way that can be replaced; remove it first"));
    }
    write_atomically(dir, &sealed)?;
    let bundle = Bundle::open(dir, Verify::Sizes)?;
    Ok(Sealed {
        files: expected.files.len(),
        bytes: expected.files.values().map(|entry| entry.bytes).sum(),
        fingerprint: bundle.fingerprint,
    })
}

fn collect(dir: &Path, manifest: &Manifest) -> Result<BTreeMap<String, FileEntry>, BundleError> {
    let mut paths = files::model_files(dir, manifest)?;
    paths.extend(manifest.files.keys().filter(|path| dir.join(path).is_file()).cloned());
    let hashes = files::hash_all(dir, &paths.iter().collect::<Vec<_>>());
    let mut entries = BTreeMap::new();
    for (path, sha256) in paths.into_iter().zip(hashes) {
        let io = |e| BundleError::new(BundleErrorKind::Io, path.clone()).because(e);
        let bytes = fs::metadata(dir.join(&path)).map_err(io)?.len();
        entries.insert(path, FileEntry { bytes, sha256: sha256? });
    }
    Ok(entries)
}

/// The manifest's text with another `[files]` table, where the old one stood or at the end.
fn replace_files(text: &str, entries: &BTreeMap<String, FileEntry>) -> String {
    let mut table = String::from("[files]\n");
    for (path, entry) in entries {
        let key = toml::Value::from(path.as_str());
        let _ = writeln!(table, "{key} = {{ bytes = {}, sha256 = \"{}\" }}", entry.bytes, entry.sha256);
    }
    replace_table(text, "[files]", &table)
}

/// `text` with `table`, which begins with `header`, where the table of that header stood; without one, above `[files]`,
/// which is long, or at the end.
pub(super) fn replace_table(text: &str, header: &str, table: &str) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let find = |header: &str| lines.iter().position(|line| is_header(line, header));
    let Some(start) = find(header) else {
        let gap = if text.is_empty() || text.ends_with('\n') { "\n" } else { "\n\n" };
        return match find("[files]") {
            Some(at) => format!("{}{table}\n{}", lines[..at].concat(), lines[at..].concat()),
            None => format!("{text}{gap}{table}"),
        };
    };
    let next = lines[start + 1..].iter().position(|line| line.starts_with('[')).map(|i| start + 1 + i);
    // Comments and blank lines above the next header belong to that header.
    let end = next.map_or(lines.len(), |mut end| {
        while end > start + 1 && matches!(lines[end - 1].trim_start().chars().next(), None | Some('#')) {
            end -= 1;
        }
        end
    });
    let (before, after) = (lines[..start].concat(), lines[end..].concat());
    let header_comment = lines[start].split_once(']').map_or("", |(_, rest)| rest.trim_end());
    let table = table.replacen(header, &format!("{header}{header_comment}"), 1);
    format!("{before}{table}{after}")
}

fn is_header(line: &str, header: &str) -> bool {
    let head = line.split('#').next().unwrap_or("");
    head.trim_end() == header
}

/// Writes beside the manifest, then renames: a reader sees the old manifest or the new one, never half of one.
pub(super) fn write_atomically(dir: &Path, text: &str) -> Result<(), BundleError> {
    let io = |e| BundleError::new(BundleErrorKind::Io, MANIFEST).because(e);
    let part = dir.join(format!(".{MANIFEST}.{}", std::process::id()));
    fs::write(&part, text).map_err(io)?;
    fs::rename(&part, dir.join(MANIFEST)).map_err(io)
}
