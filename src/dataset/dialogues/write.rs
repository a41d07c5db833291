//! Jobs to workers, conversations to a file: in the plan's order, and under the file's name only once all are there.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::format::Conversation;
use super::make::{Made, MadePicture, make};
use super::pack::Pack;
use super::plan::{Job, Plan};
use super::source::Source;
use super::tally::Tally;
use super::template::chat_template;
use super::{ChatFormat, DialogueError, DialogueOptions, Wording};
use crate::pipeline::Segment;
use crate::prompt::{Strategies, Strategy};

/// Jobs that each worker may be ahead of the writer.
const AHEAD: usize = 4;
/// Packs in a row that may give nothing before that is an error.
const FRUITLESS: u64 = 1_000;
/// Folder of the scenes' pictures.
const IMAGES: &str = "images";
/// The dialect as a chat template.
const TEMPLATE: &str = "chat_template.jinja";

/// Where dialogues are written, and how.
#[derive(Debug, Clone)]
pub struct Output {
    /// The folder; made where it is not there.
    pub folder: PathBuf,
    /// The trainer's format.
    pub format: ChatFormat,
    /// Pictures below it are named relative to it, others by their whole path. Default: the folder.
    pub image_root: Option<PathBuf>,
}

/// What was written.
#[derive(Debug)]
pub struct Written {
    /// The file of conversations.
    pub file: PathBuf,
    /// Each source's name and counts, in the order in which they were given.
    pub sources: Vec<(String, Tally)>,
    /// Pictures that were left out, at most [`Written::MAX_DAMAGED`] of them; the tallies count all.
    pub damaged: Vec<DialogueError>,
}

impl Written {
    /// Most damaged pictures that are kept for a report.
    pub const MAX_DAMAGED: usize = 20;
}

/// What dialogues are made of.
#[derive(Clone, Copy)]
pub struct Material<'a> {
    /// Where they come from.
    pub sources: &'a [Source],
    /// In which words.
    pub wording: &'a Wording,
    /// Which, and how many.
    pub options: &'a DialogueOptions,
}

/// Writes dialogues to `output`, with a worker a thread; with PPG each has its own of `segmenters`. `progress` is told
/// the conversations written, the jobs done, and how many jobs there are where that is known.
///
/// A run that fails leaves the file of an earlier one as it was.
///
/// # Errors
/// Every [`DialogueError`] but those of reading.
pub fn write(
    material: Material<'_>,
    segmenters: Vec<Box<dyn Segment>>,
    output: &Output,
    progress: impl FnMut(u64, u64, Option<u64>),
) -> Result<Written, DialogueError> {
    let Material { sources, wording, options } = material;
    for strategy in &options.strategies {
        Strategies::of(wording.dialect(), *strategy)?;
    }
    if options.strategies.contains(&Strategy::Ppg) && segmenters.len() < options.threads {
        return Err(DialogueError::Segmenters { found: segmenters.len(), threads: options.threads });
    }
    let empty = wording.count(&[])?;
    if empty >= options.max_tokens {
        let what = format!("prefix and picture take {empty} tokens of {}: nothing else fits", options.max_tokens);
        return Err(DialogueError::Wording(what));
    }
    let plan = Plan::new(sources, options)?;
    let mut writer = Writer::open(sources, output)?;
    in_order(plan, material, segmenters, &mut writer, progress)?;
    writer.close(wording)
}

/// Hands jobs to the workers in turn, and takes what came of them in the same turn.
fn in_order(
    mut plan: Plan<'_>,
    material: Material<'_>,
    segmenters: Vec<Box<dyn Segment>>,
    writer: &mut Writer<'_>,
    mut progress: impl FnMut(u64, u64, Option<u64>),
) -> Result<(), DialogueError> {
    let options = material.options;
    let jobs = match options.count {
        Some(_) => None,
        None => Some(plan.finite()),
    };
    let threads = options.threads.max(1);
    let mut segmenters: Vec<_> = segmenters.into_iter().map(Some).collect();
    segmenters.resize_with(threads, || None);
    std::thread::scope(|scope| {
        let workers: Vec<(SyncSender<Job>, Receiver<_>)> = segmenters
            .into_iter()
            .map(|mut stage| {
                let (jobs, todo) = sync_channel::<Job>(AHEAD);
                let (done, made) = sync_channel(AHEAD);
                scope.spawn(move || {
                    for job in todo {
                        // A closed channel means that the writer has enough, or has failed.
                        if done.send(make(&job, material, stage.as_deref_mut())).is_err() {
                            return;
                        }
                    }
                });
                (jobs, made)
            })
            .collect();
        let (mut sent, mut taken) = (0, 0);
        loop {
            while sent - taken < threads * AHEAD {
                let Some(job) = plan.next() else { break };
                workers[sent % threads].0.send(job).expect("a worker takes jobs as long as it is listened to");
                sent += 1;
            }
            if sent == taken {
                return Ok(());
            }
            let made = workers[taken % threads].1.recv().expect("a worker answers every job");
            taken += 1;
            let enough = writer.take(made?, options.count)?;
            progress(writer.written, taken as u64, jobs);
            if enough {
                return Ok(());
            }
        }
    })
}

struct Writer<'a> {
    output: &'a Output,
    /// Written first, renamed last.
    partial: PathBuf,
    lines: BufWriter<File>,
    root: PathBuf,
    sources: Vec<(String, Tally)>,
    damaged: Vec<DialogueError>,
    written: u64,
    fruitless: u64,
}

impl<'a> Writer<'a> {
    fn open(sources: &[Source], output: &'a Output) -> Result<Self, DialogueError> {
        let folder = &output.folder;
        let images = folder.join(IMAGES);
        fs::create_dir_all(&images).map_err(|e| DialogueError::io(&images, e))?;
        let root = output.image_root.as_ref().unwrap_or(folder);
        let root = std::path::absolute(root).map_err(|e| DialogueError::io(root, e))?;
        let partial = folder.join(format!(".{}.partial", output.format.file_name()));
        let lines = File::create(&partial).map_err(|e| DialogueError::io(&partial, e))?;
        let sources = sources.iter().map(|s| (s.label.clone(), s.loaded.clone())).collect();
        let lines = BufWriter::new(lines);
        Ok(Self { output, partial, lines, root, sources, damaged: Vec::new(), written: 0, fruitless: 0 })
    }

    /// Writes what came of one job; whether `count` is reached. A job's last conversations may be more than are wanted,
    /// and are written nevertheless: nothing said is lost uncounted.
    fn take(&mut self, made: Made, count: Option<u64>) -> Result<bool, DialogueError> {
        let Made { source, picture, packs, tally, damaged } = made;
        if self.damaged.len() < Written::MAX_DAMAGED {
            self.damaged.extend(damaged);
        }
        self.fruitless = if packs.is_empty() { self.fruitless + 1 } else { 0 };
        self.sources[source].1.add(&tally);
        if self.fruitless == FRUITLESS && count.is_some() {
            let example = self.example(source);
            return Err(DialogueError::Fruitless { tried: FRUITLESS, example });
        }
        let image = match picture {
            MadePicture::None => return Ok(false),
            MadePicture::File(path) => self.name(&path)?,
            MadePicture::New { name, bytes } => {
                let path = self.output.folder.join(IMAGES).join(name);
                fs::write(&path, bytes).map_err(|e| DialogueError::io(&path, e))?;
                self.name(&path)?
            }
        };
        packs.iter().try_for_each(|pack| self.line(source, &image, pack))?;
        Ok(count.is_some_and(|count| self.written >= count))
    }

    fn example(&self, source: usize) -> String {
        let (label, tally) = &self.sources[source];
        let most = tally.dropped.iter().max_by_key(|(_, n)| **n);
        match most {
            Some((reason, n)) => format!("{n} of `{label}` were left out for `{}`", reason.word()),
            None => format!("the last was of `{label}`"),
        }
    }

    /// A picture as the file names it.
    fn name(&self, path: &Path) -> Result<String, DialogueError> {
        let whole = std::path::absolute(path).map_err(|e| DialogueError::io(path, e))?;
        let name = whole.strip_prefix(&self.root).unwrap_or(&whole);
        name.to_str().map(str::to_owned).ok_or_else(|| {
            DialogueError::io(path, std::io::Error::new(std::io::ErrorKind::InvalidInput, "its name is not UTF-8"))
        })
    }

    fn line(&mut self, source: usize, image: &str, pack: &Pack) -> Result<(), DialogueError> {
        let exchanges = pack.exchanges();
        let (label, tally) = &mut self.sources[source];
        let conversation = Conversation { id: format!("{label}-{}", self.written), image, exchanges: &exchanges };
        let format = self.output.format;
        let before = format.around()[usize::from(self.written > 0)];
        let line = format.line(&conversation);
        write!(self.lines, "{before}{line}").map_err(|e| DialogueError::io(&self.partial, e))?;
        tally.dialogues += 1;
        tally.tokens.push(u32::try_from(pack.tokens).unwrap_or(u32::MAX));
        tally.trained_tokens += pack.trained as u64;
        self.written += 1;
        Ok(())
    }

    /// Ends the file, puts what else a trainer needs beside it, and gives it its name.
    fn close(mut self, wording: &Wording) -> Result<Written, DialogueError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |e| DialogueError::io(&path, e)
        };
        let [before, _, after] = self.output.format.around();
        let end = if self.written == 0 { format!("{before}{}", after.trim_start()) } else { after.to_owned() };
        self.lines.write_all(end.as_bytes()).map_err(io(&self.partial))?;
        let file = self.lines.into_inner().map_err(|e| DialogueError::io(&self.partial, e.into_error()))?;
        file.sync_all().map_err(io(&self.partial))?;
        let folder = &self.output.folder;
        let beside = [Some((TEMPLATE, chat_template(wording)))].into_iter().flatten();
        let register = self.output.format.register().map(|(name, text)| (name, text.to_owned()));
        for (name, text) in beside.chain(register) {
            let path = folder.join(name);
            fs::write(&path, text).map_err(io(&path))?;
        }
        let target = folder.join(self.output.format.file_name());
        fs::rename(&self.partial, &target).map_err(io(&target))?;
        Ok(Written { file: target, sources: self.sources, damaged: self.damaged })
    }
}
