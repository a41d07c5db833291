//! The common record: a picture, and what is said of it.

use std::sync::Arc;

use super::super::Split;
use super::super::readers::{Content, Record, Speaker, Target, Turn};
use super::plan::Job;
use super::source::{Pictured, Pool, Source};
use super::{DialogueError, Exchange, picture, picture::Picture};
use crate::frame::Image;
use crate::mask::Mask;

/// A picture with what is said of it.
#[derive(Debug)]
pub(super) struct Subject {
    pub picture: Picture,
    /// Of which record, as errors name it.
    pub record: String,
    /// Every mask once, though several expressions mean it.
    pub masks: Vec<Mask>,
    pub said: Vec<Said>,
}

/// One thing said of a picture.
#[derive(Debug)]
pub(super) enum Said {
    /// An expression with its targets: indices of masks.
    Expression {
        text: String,
        targets: Vec<usize>,
        /// Pixels that are neither on nor off the targets.
        ignored: Option<usize>,
    },
    /// A conversation without masks.
    Turns(Vec<Exchange>),
}

impl Said {
    pub(super) fn is_expression(&self) -> bool {
        matches!(self, Self::Expression { .. })
    }
}

/// What `job` is about; a scene has up to `expressions` of them.
///
/// # Errors
/// [`DialogueError::Picture`].
pub(super) fn subject(source: &Source, job: &Job, expressions: usize) -> Result<Subject, DialogueError> {
    match &source.pool {
        Pool::Scenes { .. } => Ok(scene(source, job.picture, expressions)),
        Pool::Pictures(pictures) => pictured(&pictures[job.picture as usize], &job.said),
    }
}

/// How often each thing said would be drawn by `job`: expressions, and conversations.
pub(super) fn counts(source: &Source, job: &Job) -> (u64, u64) {
    let Pool::Pictures(pictures) = &source.pool else { return (0, 0) };
    let records = &pictures[job.picture as usize].records;
    let expressions = job.said.iter().filter(|(r, _)| records[*r].referring().is_some()).count();
    (expressions as u64, (job.said.len() - expressions) as u64)
}

fn scene(source: &Source, index: u64, expressions: usize) -> Subject {
    let Pool::Scenes { generator, options } = &source.pool else { unreachable!("the caller looked") };
    let scene = generator.scene(index, options);
    let split = scene.split;
    let (mut objects, mut said) = (Vec::new(), Vec::new());
    for expression in scene.expressions(expressions) {
        let targets = expression.targets.iter().map(|o| place(&mut objects, *o, usize::eq)).collect();
        said.push(Said::Expression { text: expression.text, targets, ignored: None });
    }
    let masks = objects.into_iter().map(|o| scene.mask(o)).collect();
    let name = scene_name(split, generator.seed(), options.longest_side, index);
    let image = Image::from_rgb(scene.size, scene.rgb).expect("a scene fills its size");
    Subject { picture: Picture::Scene { name, image }, record: format!("scene {index}"), masks, said }
}

/// Everything a scene's picture depends on but the number of its objects.
fn scene_name(split: Split, seed: u64, side: u32, index: u64) -> String {
    format!("{split}-{seed}-{side}-{index:06}.jpg")
}

fn pictured(pictured: &Pictured, picks: &[(usize, usize)]) -> Result<Subject, DialogueError> {
    let first = picks.first().map_or(0, |(r, _)| *r);
    let record = pictured.records[first].name.clone();
    picture::check(&pictured.image, &record)?;
    let (mut targets, mut masks, mut said) = (Vec::<Arc<Target>>::new(), Vec::new(), Vec::new());
    let mut ignored = Vec::new();
    for (r, e) in picks {
        said.push(match &pictured.records[*r].content {
            Content::Dialogue(turns) => Said::Turns(exchanges(turns)),
            Content::Referring(referring) => Said::Expression {
                text: referring.expressions[*e].text.clone(),
                targets: referring.targets.iter().map(|t| place(&mut targets, Arc::clone(t), Arc::ptr_eq)).collect(),
                ignored: referring.ignored.as_ref().map(|_| place(&mut ignored, *r, usize::eq)),
            },
        });
    }
    masks.extend(targets.iter().map(|t| t.mask()));
    for said in &mut said {
        if let Said::Expression { ignored: Some(index), .. } = said {
            *index += targets.len();
        }
    }
    masks.extend(ignored.iter().filter_map(|r| ignored_mask(&pictured.records[*r])));
    Ok(Subject { picture: Picture::File(pictured.image.path.clone()), record, masks, said })
}

fn ignored_mask(record: &Record) -> Option<Mask> {
    record.referring()?.ignored.as_ref().map(super::super::readers::Region::mask)
}

/// The index of `item` in `list`, to which it is added where it is new.
fn place<T>(list: &mut Vec<T>, item: T, same: impl Fn(&T, &T) -> bool) -> usize {
    list.iter().position(|known| same(known, &item)).unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    })
}

/// Questions with their answers; the reader has seen to it that turns alternate.
fn exchanges(turns: &[Turn]) -> Vec<Exchange> {
    let pair = |pair: &[Turn]| match pair {
        [user, assistant] if user.speaker == Speaker::Human => {
            Some(Exchange { user: user.text.clone(), assistant: assistant.text.clone() })
        }
        _ => None,
    };
    turns.chunks(2).filter_map(pair).collect()
}
