//! Answers against the truth of the clip.

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};

use super::client::{Answer, target_id};
use crate::cli::quantile;
use crate::client;
use crate::dataset::{Clip, Expression};
use crate::geometry::{Size, SourcePx};
use crate::mask::Mask;
use crate::server::wire::{Instance, TargetResult, Verdict};

/// How one command was answered over the clip.
#[derive(Debug, Clone)]
pub struct Score {
    /// The verdict given most often, once there was one.
    pub verdict: Verdict,
    /// Frames with a mask.
    pub masks: usize,
    /// Frames answered FOUND.
    pub found: usize,
    /// Mean IoU over the frames after the first verdict in which the target is seen; a missing mask counts 0.
    pub iou: f64,
    /// From the first frame to the first verdict, in milliseconds.
    pub first_ms: f64,
    /// Time of one frame in milliseconds, over the frames after the first verdict: p50 and p95.
    pub latency: [f64; 2],
}

impl Score {
    /// Scores command `index`.
    pub fn of(clip: &Clip, command: &Expression, answers: &[Answer], index: usize) -> Self {
        let (mut masks, mut first_ms) = (0, 0.0);
        let (mut ious, mut latencies, mut verdicts) = (Vec::new(), Vec::new(), Vec::new());
        for (i, answer) in answers.iter().enumerate() {
            let Some(result) = result(answer, index) else { continue };
            let ms = answer.latency.as_secs_f64() * 1e3;
            if verdicts.is_empty() {
                first_ms += ms;
            }
            if result.verdict() == Verdict::Pending {
                continue;
            }
            verdicts.push(result.verdict());
            latencies.push(ms);
            let mask = union(&result.instances, clip.size());
            masks += usize::from(mask.is_some());
            let truth = clip.frame(i).mask_of(&command.targets);
            if truth.area() > 0 {
                ious.push(mask.and_then(|m| m.iou(&truth)).map_or(0.0, f64::from));
            }
        }
        latencies.sort_by(f64::total_cmp);
        Self {
            verdict: most_common(&verdicts),
            masks,
            found: verdicts.iter().filter(|v| **v == Verdict::Found).count(),
            iou: ious.iter().sum::<f64>() / ious.len().max(1) as f64,
            first_ms,
            latency: [0.5, 0.95].map(|q| quantile(&latencies, q).unwrap_or(f64::NAN)),
        }
    }
}

/// The reply about command `index`.
pub fn result(answer: &Answer, index: usize) -> Option<&TargetResult> {
    answer.result.targets.iter().find(|t| t.target_id == target_id(index))
}

/// A mask off the wire; `None` where there is none or it is not what the contract says.
pub fn mask(instance: &Instance, size: Size<SourcePx>) -> Option<Mask> {
    client::mask(instance).ok().filter(|m| m.size() == size)
}

/// The masks of all instances together; `None` where there is none.
pub fn union(instances: &[Instance], size: Size<SourcePx>) -> Option<Mask> {
    instances.iter().filter_map(|i| mask(i, size)).reduce(|mut all, m| {
        all.union_with(&m);
        all
    })
}

fn most_common(verdicts: &[Verdict]) -> Verdict {
    let count = |v: Verdict| verdicts.iter().filter(|&&x| x == v).count();
    verdicts.iter().copied().max_by_key(|&v| count(v)).unwrap_or(Verdict::Pending)
}

/// Whether no absent object was found in any frame, and the mean IoU of each other command reaches `min_iou` on average.
pub fn passed(commands: &[Expression], scores: &[Score], min_iou: f64) -> bool {
    let both = || commands.iter().zip(scores);
    let absent = both().filter(|(c, _)| c.targets.is_empty()).all(|(_, s)| s.found == 0);
    let ious: Vec<f64> = both().filter(|(c, _)| !c.targets.is_empty()).map(|(_, s)| s.iou).collect();
    absent && ious.iter().sum::<f64>() / ious.len().max(1) as f64 >= min_iou
}

/// The table at the end.
pub fn table(commands: &[Expression], scores: &[Score]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(["command", "truth", "verdict", "masks", "mean IoU", "first verdict", "frame p50", "frame p95"]);
    for (c, s) in commands.iter().zip(scores) {
        let truth = if c.targets.is_empty() { "absent".to_owned() } else { format!("{} object(s)", c.targets.len()) };
        table.add_row([
            c.text.clone(),
            truth,
            client::verdict_word(s.verdict).to_lowercase(),
            s.masks.to_string(),
            if c.targets.is_empty() { String::new() } else { format!("{:.3}", s.iou) },
            format!("{:.0} ms", s.first_ms),
            format!("{:.0} ms", s.latency[0]),
            format!("{:.0} ms", s.latency[1]),
        ]);
    }
    table
}
