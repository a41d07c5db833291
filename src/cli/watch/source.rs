//! Where `watch` has its frames from.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use tokio::sync::mpsc;

use crate::cli::picture::{camera_jpeg, there_and_back};
use crate::dataset::{Assets, Clip, ClipOptions, Split};

/// The largest picture that is taken from the standard input.
const MAX_PICTURE_BYTES: usize = 32 << 20;

/// The source; a rendered clip where nothing else is said.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Source")]
pub struct SourceArgs {
    /// Pictures: files or folders of JPEG, PNG or WebP, one after the other, over and over.
    #[arg(long, num_args = 1.., value_name = "PATH", conflicts_with = "mjpeg")]
    pictures: Vec<PathBuf>,
    /// JPEGs one behind the other on the standard input, as `ffmpeg -f mjpeg -` writes them.
    #[arg(long)]
    mjpeg: bool,
    /// The clip of rendered scenes that has this seed.
    #[arg(long, default_value_t = 1, conflicts_with_all = ["pictures", "mjpeg"])]
    clip: u64,
    /// Folder of the scenes' sprites and object table.
    #[arg(long, default_value = "engines/tabletop")]
    assets: PathBuf,
}

/// A picture as a file's bytes.
pub struct Picture {
    /// As the contract calls it.
    pub encoding: &'static str,
    pub data: Vec<u8>,
}

pub enum Source {
    Pictures { paths: Vec<PathBuf>, next: usize },
    Clip { clip: Box<Clip>, next: u64 },
    Stdin(mpsc::Receiver<anyhow::Result<Vec<u8>>>),
}

impl SourceArgs {
    pub fn takes_stdin(&self) -> bool {
        self.mjpeg
    }

    /// Looks for the pictures, or lays the clip out.
    pub fn open(&self) -> anyhow::Result<Source> {
        if self.mjpeg {
            let (pictures, source) = mpsc::channel(1);
            std::thread::spawn(move || split(std::io::stdin().lock(), &pictures));
            return Ok(Source::Stdin(source));
        }
        if !self.pictures.is_empty() {
            let paths = list(&self.pictures)?;
            return Ok(Source::Pictures { paths, next: 0 });
        }
        let assets = Assets::load(&self.assets).context("load the scenes' assets")?;
        let options = ClipOptions { seed: self.clip, frames: 60, size: (640, 480), split: Split::Val };
        Ok(Source::Clip { clip: Box::new(Clip::new(&assets, options)), next: 0 })
    }
}

/// Every picture of files and folders, in the order of their names.
fn list(given: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in given {
        if path.is_dir() {
            let entries = std::fs::read_dir(path).with_context(|| format!("read {}", path.display()))?;
            let entries = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
            let mut pictures: Vec<_> = entries.into_iter().filter(|path| encoding(path).is_some()).collect();
            pictures.sort();
            found.extend(pictures);
        } else if encoding(path).is_some() {
            found.push(path.clone());
        } else {
            bail!("{} is no folder, and neither JPEG, PNG nor WebP by its name", path.display());
        }
    }
    if found.is_empty() { bail!("there are no pictures there") } else { Ok(found) }
}

fn encoding(path: &Path) -> Option<&'static str> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "jpg" | "jpeg" => Some("jpeg"),
        "png" => Some("png"),
        "webp" => Some("webp"),
        _ => None,
    }
}

impl Source {
    /// The next picture; `None` where a stream has ended.
    pub async fn next(&mut self) -> anyhow::Result<Option<Picture>> {
        match self {
            Self::Pictures { paths, next } => {
                let path = &paths[*next % paths.len()];
                *next += 1;
                let data = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
                Ok(Some(Picture { encoding: encoding(path).unwrap_or("jpeg"), data }))
            }
            Self::Clip { clip, next } => {
                let scene = clip.frame(there_and_back(*next, clip.frames()));
                *next += 1;
                Ok(Some(Picture { encoding: "jpeg", data: camera_jpeg(&scene)? }))
            }
            Self::Stdin(pictures) => match pictures.recv().await {
                Some(data) => Ok(Some(Picture { encoding: "jpeg", data: data? })),
                None => Ok(None),
            },
        }
    }
}

/// Cuts JPEGs that lie one behind the other: each from its start marker to the end marker before the next start.
fn split(mut input: impl Read, pictures: &mpsc::Sender<anyhow::Result<Vec<u8>>>) {
    let (mut bytes, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
    let mut searched = 2;
    loop {
        // A picture within a picture (a preview in EXIF) is escaped by its segment's length, which is stepped over.
        while let Some(end) = end_of_picture(&bytes, &mut searched) {
            let rest = bytes.split_off(end);
            let picture = std::mem::replace(&mut bytes, rest);
            searched = 2;
            if pictures.blocking_send(Ok(picture)).is_err() {
                return;
            }
        }
        let outcome = match input.read(&mut chunk) {
            Ok(0) => return,
            Ok(read) => {
                bytes.extend_from_slice(&chunk[..read]);
                let start = bytes.len() < 2 || bytes.starts_with(&[0xff, 0xd8]);
                if start && bytes.len() <= MAX_PICTURE_BYTES {
                    continue;
                }
                Err(anyhow::anyhow!("the standard input is no row of JPEGs of at most 32 MiB"))
            }
            Err(error) => Err(error).context("read the standard input"),
        };
        let _ = pictures.blocking_send(outcome);
        return;
    }
}

/// Behind the end of the picture at the start of `bytes`; `None` where that is not there yet. `at` is where it goes on
/// looking: at a marker, or inside coded data.
fn end_of_picture(bytes: &[u8], at: &mut usize) -> Option<usize> {
    loop {
        let marker = bytes.get(*at..*at + 2)?;
        match marker {
            [0xff, 0xd9] => return Some(*at + 2),
            // Fill bytes, escaped data, restarts: no segment.
            [0xff, 0xff] => *at += 1,
            [0xff, 0x00 | 0x01 | 0xd0..=0xd8] => *at += 2,
            [0xff, _] => {
                let length = bytes.get(*at + 2..*at + 4)?;
                let next = *at + 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
                if next > bytes.len() {
                    return None;
                }
                *at = next;
            }
            _ => *at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_jpegs_is_cut_where_it_was_joined() {
        // A preview inside a segment has markers of its own.
        let preview = [&[0xff, 0xe1, 0x00, 0x06, 0xff, 0xd8, 0xff, 0xd9][..]].concat();
        let one = [&[0xff, 0xd8][..], &preview, &[0xff, 0xda, 0x00, 0x03, 7, 1, 0xff, 0x00, 2, 0xff, 0xd9]].concat();
        let two = [&[0xff, 0xd8][..], &[0xff, 0xda, 0x00, 0x02, 9, 0xff, 0xd3, 9, 0xff, 0xd9]].concat();
        let (pictures, mut cut) = mpsc::channel(8);
        split(&[one.clone(), two.clone(), one.clone(), vec![0xff, 0xd8, 0xff]].concat()[..], &pictures);
        drop(pictures);
        let mut found = Vec::new();
        while let Some(picture) = cut.blocking_recv() {
            found.push(picture.expect("is a picture"));
        }
        assert_eq!(found, [one.clone(), two, one]);
        let (pictures, mut cut) = mpsc::channel(8);
        split(&b"no pictures at all"[..], &pictures);
        assert!(cut.blocking_recv().expect("says so").is_err());
    }
}
