//! Which answers are worth a picture, and the picture of one.

use std::collections::HashMap;

use super::record::Record;
use super::runner::Shown;
use super::source::{Picture, Sample};
use crate::frame::Image;
use crate::overlay::{Banner, Item, Tone, draw};
use crate::pipeline::Outcome;

/// An answer that is to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exhibit {
    /// Index of the record.
    pub record: usize,
    /// Shown among the successes rather than the failures.
    pub success: bool,
}

/// Up to `count` successes and as many failures of variant `variant`, each spread over expression types.
///
/// Failures are wrong masks and masks of what is not there, the surest first: what is wrong and doubted does less harm.
/// Successes are the best of each type.
pub fn exhibits(records: &[Record], variant: usize, count: usize) -> Vec<Exhibit> {
    let iou = |r: &Record| r.answers[variant].score.iou();
    let sureness = |r: &Record| r.answers[variant].instances.iter().map(|i| i.confidence).fold(0.0, f32::max);
    let mut best: Vec<usize> = (0..records.len()).filter(|&i| iou(&records[i]) >= 0.75).collect();
    best.sort_by(|&a, &b| iou(&records[b]).total_cmp(&iou(&records[a])));
    let mut worst: Vec<usize> = (0..records.len()).filter(|&i| iou(&records[i]) < 0.5).collect();
    worst.sort_by(|&a, &b| sureness(&records[b]).total_cmp(&sureness(&records[a])));
    let pick = |order: Vec<usize>, success| {
        let chosen = by_turns(&order, |&i| &records[i].kind, count);
        chosen.into_iter().map(move |record| Exhibit { record, success })
    };
    pick(best, true).chain(pick(worst, false)).collect()
}

/// The first of each kind, then the second of each, up to `count`, the kinds in the order in which they first occur.
fn by_turns<'a>(order: &[usize], kind: impl Fn(&usize) -> &'a String, count: usize) -> Vec<usize> {
    let mut seen: HashMap<&String, usize> = HashMap::new();
    let mut turns: Vec<(usize, usize)> = Vec::with_capacity(order.len());
    for i in order {
        let turn = seen.entry(kind(i)).or_default();
        turns.push((*turn, *i));
        *turn += 1;
    }
    turns.sort_by_key(|(turn, _)| *turn);
    turns.into_iter().take(count).map(|(_, i)| i).collect()
}

/// The truth and the answer beside each other, each drawn over the picture.
pub(super) fn pictures(picture: &Picture, sample: &Sample, shown: &Shown) -> [Image; 2] {
    let colour = |i: usize| i;
    let truth = sample.targets.iter().enumerate().map(|(i, mask)| Item {
        mask: Some(mask),
        bbox: mask.bbox(),
        colour: colour(i),
        ..Item::default()
    });
    let pairs = shown.grounding.instances.iter().zip(&shown.masks).enumerate();
    let answer = pairs.map(|(i, (instance, m))| Item {
        mask: Some(&m.mask),
        bbox: Some(instance.proposal),
        points: &instance.points,
        label: format!("{:.2}", instance.confidence),
        colour: colour(i),
    });
    let truth: Vec<Item<'_>> = truth.collect();
    let answer: Vec<Item<'_>> = answer.collect();
    let (word, tone) = match shown.grounding.outcome {
        Outcome::Found => ("FOUND", Tone::Good),
        Outcome::Absent => ("ABSENT", Tone::Neutral),
        Outcome::Ambiguous => ("AMBIGUOUS", Tone::Doubt),
        Outcome::Unsure => ("UNSURE", Tone::Doubt),
    };
    let banner =
        |verdict: &str, tone| Banner { verdict: verdict.into(), tone, text: String::new(), note: String::new() };
    let there = if sample.targets.is_empty() { "NOT THERE" } else { "TRUTH" };
    [
        draw(&picture.image, &truth, Some(&banner(there, Tone::Neutral))),
        draw(&picture.image, &answer, Some(&banner(word, tone))),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::journal::tests::record;
    use super::*;

    #[test]
    fn successes_and_failures_are_spread_over_types() {
        // IoU n / (n + 3): below 0.5 for 0..=2, at least 0.75 from 9 on.
        let mut records: Vec<Record> = (0..30).map(|i| record(i, 0)).collect();
        records.iter_mut().for_each(|r| r.kind = if r.picture >= 20 { "name" } else { "size" }.to_owned());
        let shown = exhibits(&records, 0, 4);
        let of = |success| shown.iter().filter(|e| e.success == success).map(|e| e.record).collect::<Vec<_>>();
        assert_eq!(of(true), [29, 19, 28, 18]);
        let failures = of(false);
        assert_eq!(failures.len(), 3);
        let sure = |i: usize| records[i].answers[0].instances[0].confidence;
        assert!(sure(failures[0]) >= sure(failures[1]) && sure(failures[1]) >= sure(failures[2]));
    }
}
