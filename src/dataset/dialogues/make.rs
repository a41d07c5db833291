//! One job to conversations, in a worker: nothing here depends on other jobs.

use super::pack::{Pack, pack};
use super::picture::Picture;
use super::plan::Job;
use super::subject::{Subject, counts, subject};
use super::tally::{Reason, Tally};
use super::teach::{Failed, Sam, Teacher};
use super::{DialogueError, Material};
use crate::dataset::degrade::encode_jpeg;
use crate::pipeline::Segment;
use crate::rng::SceneRng;

/// Quality of the scenes' JPEG files; lower ones are part of the scenes themselves.
const QUALITY: u8 = 92;

/// What came of a job.
pub(super) struct Made {
    pub source: usize,
    pub picture: MadePicture,
    pub packs: Vec<Pack>,
    /// All but dialogues and tokens, which the writer counts.
    pub tally: Tally,
    /// A picture that was left out.
    pub damaged: Option<DialogueError>,
}

/// The picture of what was made.
pub(super) enum MadePicture {
    /// A file that is referred to.
    File(std::path::PathBuf),
    /// A JPEG file that has to be written.
    New { name: String, bytes: Vec<u8> },
    /// There is none, nor a conversation.
    None,
}

impl Subject {
    /// Its picture cannot be used.
    pub(super) fn damaged(&self, what: String) -> DialogueError {
        let path = match &self.picture {
            Picture::File(path) => path.clone(),
            Picture::Scene { name, .. } => name.into(),
        };
        DialogueError::Picture { record: self.record.clone(), path, what }
    }
}

/// Makes the conversations of `job`.
///
/// # Errors
/// Damaged pictures unless they are skipped; SAM's failures.
pub(super) fn make(
    job: &Job,
    material: Material<'_>,
    stage: Option<&mut (dyn Segment + 'static)>,
) -> Result<Made, DialogueError> {
    let (source, options) = (&material.sources[job.source], material.options);
    let skipped = |error: DialogueError| match error {
        DialogueError::Picture { .. } if options.skip_damaged => {
            let (expressions, conversations) = counts(source, job);
            let mut tally = Tally::default();
            tally.read(expressions, true);
            tally.read(conversations, false);
            tally.drop_many(Reason::Damaged, expressions + conversations);
            let picture = MadePicture::None;
            Ok(Made { source: job.source, picture, packs: Vec::new(), tally, damaged: Some(error) })
        }
        error => Err(error),
    };
    match subject(source, job, options.pack).and_then(|s| taught(job, s, material, stage)) {
        Ok(made) => Ok(made),
        Err(error) => skipped(error),
    }
}

fn taught(
    job: &Job,
    subject: Subject,
    material: Material<'_>,
    stage: Option<&mut (dyn Segment + 'static)>,
) -> Result<Made, DialogueError> {
    let Material { wording, options, .. } = material;
    let (mut tally, mut lessons) = (Tally::default(), Vec::with_capacity(subject.said.len()));
    let mut teacher = Teacher { wording, options, subject: &subject, seed: job.seed, sam: Sam::new(stage) };
    for (i, said) in subject.said.iter().enumerate() {
        tally.read(1, said.is_expression());
        match teacher.lesson(said, SceneRng::new(&[job.seed, i as u64]).bits()) {
            Ok(lesson) => lessons.push(lesson),
            Err(Failed::Left(reason)) => tally.drop_many(reason, 1),
            Err(Failed::Stopped(error)) => return Err(error),
        }
    }
    let limits = [options.pack, options.max_tokens];
    let packs = pack(lessons, wording, limits, |reason| tally.drop_many(reason, 1))?;
    for lesson in packs.iter().flat_map(|p| &p.lessons) {
        tally.taught += 1;
        tally.found += u64::from(lesson.expression && lesson.found);
        tally.absent += u64::from(lesson.expression && !lesson.found);
        tally.yes += lesson.points[0];
        tally.no += lesson.points[1];
    }
    let picture = match (subject.picture, packs.is_empty()) {
        (_, true) => MadePicture::None,
        (Picture::File(path), _) => MadePicture::File(path),
        (Picture::Scene { name, image }, _) => {
            let (width, height) = (image.size().width as usize, image.size().height as usize);
            let bytes = encode_jpeg(image.rgb(), width, height, QUALITY).expect("sides are limited to 16 bits");
            MadePicture::New { name, bytes }
        }
    };
    Ok(Made { source: job.source, picture, packs, tally, damaged: None })
}
