//! Scenes as a byte stream for a trainer.
//!
//! Per scene, all integers little endian: magic `S4DS`, u32 version (1), u32 length of the JSON, u32 width, u32 height;
//! the JSON ([`SceneTruth`]); RGB, u8 `[height, width, 3]`; instance map, u8 `[height, width]`
//! (0 background, i + 1 the visible part of object i).

use std::io::{self, Write};
use std::sync::mpsc::sync_channel;

use super::expression::Expression;
use super::scene::{Scene, SceneGenerator, SceneOptions};

/// First four bytes of every record.
pub const MAGIC: [u8; 4] = *b"S4DS";
/// Version of the record's layout.
pub const VERSION: u32 = 1;
/// Scenes that each worker may be ahead of the reader.
const AHEAD: usize = 4;

/// The JSON of a record.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SceneTruth {
    /// Index of the scene in its split.
    pub index: u64,
    /// Of a crop: the index of the object in the middle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub main: Option<usize>,
    /// Objects from back to front.
    pub objects: Vec<ObjectTruth>,
    /// Referring expressions.
    pub expressions: Vec<ExpressionTruth>,
}

/// One object of [`SceneTruth`].
#[derive(Debug, Clone, serde::Serialize)]
pub struct ObjectTruth {
    /// Row of `objects.csv`, from 0.
    pub class: usize,
    /// Its name.
    pub name: String,
    /// Its colour word.
    pub colour: &'static str,
    /// What it is one of.
    pub kind: String,
    /// Visible box `[x1, y1, x2, y2]` in pixels, right and bottom exclusive.
    #[serde(rename = "box")]
    pub bbox: [u32; 4],
    /// Visible pixels.
    pub area: u32,
    /// Visible share of the silhouette inside the frame.
    pub visible: f32,
}

/// One expression of [`SceneTruth`].
#[derive(Debug, Clone, serde::Serialize)]
pub struct ExpressionTruth {
    /// Type, as in [`super::ExpressionType::word`].
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The command.
    pub text: String,
    /// Indices of objects.
    pub targets: Vec<usize>,
    /// Whether an object matches but for one property.
    pub near_miss: bool,
}

impl From<Expression> for ExpressionTruth {
    fn from(e: Expression) -> Self {
        Self { kind: e.kind.word(), text: e.text, targets: e.targets, near_miss: e.near_miss }
    }
}

impl SceneTruth {
    /// What is known about `scene`, with up to `expressions` expressions and `exclusions` more that say what is not meant.
    pub fn new(index: u64, scene: &Scene, expressions: usize, exclusions: usize) -> Self {
        let objects = scene.objects.iter().map(|o| {
            let class = &scene.lexicon().classes[o.class];
            ObjectTruth {
                class: o.class,
                name: class.name.clone(),
                colour: class.colour.word(),
                kind: class.kind.clone(),
                bbox: [o.bbox.x1, o.bbox.y1, o.bbox.x2, o.bbox.y2].map(|v| v as u32),
                area: o.area,
                visible: (o.visible * 1e4).round() / 1e4,
            }
        });
        let said = scene.expressions(expressions).into_iter().chain(scene.exclusions(exclusions));
        let expressions = said.map(ExpressionTruth::from);
        Self { index, main: scene.main, objects: objects.collect(), expressions: expressions.collect() }
    }
}

/// Which scenes to stream.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// First scene.
    pub start: u64,
    /// Number of scenes; `None` for no end.
    pub count: Option<u64>,
    /// Expressions per scene.
    pub expressions: usize,
    /// Expressions per scene that say what is not meant; they come last.
    pub exclusions: usize,
    /// Worker threads. Range: 1..=256.
    pub threads: usize,
    /// Size and content of the scenes.
    pub scenes: SceneOptions,
}

/// Writes scenes to `out` in order of their index; the bytes do not depend on the number of threads.
///
/// # Errors
/// Those of `out`; a broken pipe is a normal end.
pub fn stream(generator: &SceneGenerator, options: &StreamOptions, out: &mut impl Write) -> io::Result<()> {
    let end = options.count.map_or(u64::MAX, |c| options.start.saturating_add(c));
    let result = if options.threads <= 1 {
        (options.start..end).try_for_each(|i| out.write_all(&record(generator, options, i)))
    } else {
        in_parallel(generator, options, end, out)
    };
    match result.and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn in_parallel(generator: &SceneGenerator, options: &StreamOptions, end: u64, out: &mut impl Write) -> io::Result<()> {
    let threads = options.threads as u64;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let (sender, receiver) = sync_channel(AHEAD);
                scope.spawn(move || {
                    let mine = (options.start + worker..end).step_by(options.threads);
                    // A closed channel means that the reader has gone.
                    mine.map(|i| record(generator, options, i)).all(|bytes| sender.send(bytes).is_ok())
                });
                receiver
            })
            .collect();
        for turn in 0..end - options.start {
            let receiver = &workers[(turn % threads) as usize];
            let bytes = receiver.recv().expect("a worker sends every scene of its share");
            out.write_all(&bytes)?;
        }
        Ok(())
    })
}

/// The bytes of one scene.
fn record(generator: &SceneGenerator, options: &StreamOptions, index: u64) -> Vec<u8> {
    let scene = generator.scene(index, &options.scenes);
    let json = serde_json::to_vec(&SceneTruth::new(index, &scene, options.expressions, options.exclusions))
        .expect("plain data serialises");
    let mut bytes = Vec::with_capacity(20 + json.len() + scene.rgb.len() + scene.instance_map.len());
    bytes.extend_from_slice(&MAGIC);
    for value in [VERSION, json.len() as u32, scene.size.width, scene.size.height] {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    bytes.extend_from_slice(&json);
    bytes.extend_from_slice(&scene.rgb);
    bytes.extend_from_slice(&scene.instance_map);
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::Split;
    use super::super::tests::assets;
    use super::*;

    fn bytes(threads: usize, start: u64, count: u64) -> Vec<u8> {
        let generator = SceneGenerator::new(assets(), Split::Train, 5);
        let scenes = SceneOptions { longest_side: 96, ..SceneOptions::default() };
        let options = StreamOptions { start, count: Some(count), expressions: 4, exclusions: 2, threads, scenes };
        let mut out = Vec::new();
        stream(&generator, &options, &mut out).expect("memory takes everything");
        out
    }

    #[test]
    fn threads_and_start_do_not_change_bytes() {
        let whole = bytes(1, 0, 11);
        assert_eq!(whole, bytes(3, 0, 11), "three threads");
        let tail = bytes(2, 7, 4);
        assert_eq!(&whole[whole.len() - tail.len()..], tail, "a later start");
    }

    #[test]
    fn a_record_is_laid_out_as_documented() {
        let record = bytes(1, 2, 1);
        let word = |i: usize| u32::from_le_bytes(record[4 * i..4 * i + 4].try_into().expect("four bytes")) as usize;
        assert_eq!(&record[..4], &MAGIC);
        let (json, pixels) = (word(2), word(3) * word(4));
        assert_eq!(word(1), VERSION as usize);
        assert_eq!(record.len(), 20 + json + 4 * pixels);
        let truth: serde_json::Value = serde_json::from_slice(&record[20..20 + json]).expect("JSON");
        let objects = truth["objects"].as_array().expect("a list").len();
        let map = &record[record.len() - pixels..];
        assert_eq!(usize::from(*map.iter().max().expect("pixels")), objects);
    }

    #[test]
    fn a_reader_that_leaves_is_no_error() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let generator = SceneGenerator::new(assets(), Split::Train, 0);
        let scenes = SceneOptions { longest_side: 64, ..SceneOptions::default() };
        for threads in [1, 2] {
            let options =
                StreamOptions { start: 0, count: None, expressions: 1, exclusions: 0, threads, scenes: scenes.clone() };
            stream(&generator, &options, &mut Gone).expect("a broken pipe is a normal end");
        }
    }
}
