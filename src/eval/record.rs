//! What is kept of one answered expression: enough for every figure, without the masks.

use serde::{Deserialize, Serialize};

use super::metrics::{RIGHT_IOU, Score};
use super::reliability::Outcome as Judged;
use super::source::Sample;
use crate::mask::Mask;
use crate::pipeline::Outcome;
use crate::prompt::MaskSigns;

/// One expression with the answers of all variants; a line of the record file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Index of the picture in its source.
    pub picture: u64,
    /// Index of the sample in its picture.
    pub sample: usize,
    /// Its place in the source, for people.
    pub id: String,
    /// The words; from outside.
    pub expression: String,
    /// Its type.
    pub kind: String,
    /// No target, but almost.
    pub near_miss: bool,
    /// What is known of the targets; `None` where there is none.
    pub target: Option<TargetFacts>,
    /// One a variant, in the variants' order.
    pub answers: Vec<Answer>,
}

/// What is known of an expression's targets.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetFacts {
    /// How many.
    pub count: usize,
    /// Their pixels as a share of the picture's, together.
    pub area: f64,
    /// Share of its box that a target fills, the smallest of all.
    pub fill: f64,
    /// Hidden share of the most hidden one, where that is known.
    pub hidden: Option<f32>,
}

/// What a verdict was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Targets were found.
    Found,
    /// There is no such thing.
    Absent,
    /// Several match where one was asked for.
    Ambiguous,
    /// Not sure, or the answer could not be read.
    Unsure,
    /// The command holds a word that the model does not know: the robot is told so, and gets no mask.
    Refused,
}

impl Verdict {
    /// As reports call it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Absent => "absent",
            Self::Ambiguous => "ambiguous",
            Self::Unsure => "unsure",
            Self::Refused => "refused",
        }
    }
}

impl From<Outcome> for Verdict {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Found => Self::Found,
            Outcome::Absent => Self::Absent,
            Outcome::Ambiguous => Self::Ambiguous,
            Outcome::Unsure => Self::Unsure,
        }
    }
}

/// What one variant answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// The verdict.
    pub verdict: Verdict,
    /// Confidence in it.
    pub confidence: f32,
    /// Why the model's answer could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub malformed: Option<String>,
    /// Passes through the language model; 0 where it was not asked.
    pub passes: u32,
    /// Passes that the same answer takes one token at a time.
    pub one_by_one: u32,
    /// Tokens of it whose two best logits differ so little that drafts could change them.
    pub near_ties: u32,
    /// Confident points that agree with the truth, and all of them, of instances on the right object.
    pub points: [u64; 2],
    /// All masks together against the truth.
    pub score: Score,
    /// The instances that have a mask, best first.
    pub instances: Vec<Instance>,
}

impl Answer {
    /// To a command that was refused.
    pub(super) fn refused(score: Score) -> Self {
        let verdict = Verdict::Refused;
        Self {
            verdict,
            confidence: 0.0,
            malformed: None,
            passes: 0,
            one_by_one: 0,
            near_ties: 0,
            points: [0, 0],
            score,
            instances: Vec::new(),
        }
    }

    /// Share of the confident points that agree with the truth; `None` where there are none.
    pub fn point_accuracy(&self) -> Option<f64> {
        (self.points[1] > 0).then(|| self.points[0] as f64 / self.points[1] as f64)
    }
}

/// One instance of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// The language model's confidence, calibrated as its side of the bundle says.
    pub language: f32,
    /// SAM's predicted IoU.
    pub score: f32,
    /// The mask's area over that of the language model's box, with an upper end.
    pub fill: f32,
    /// What a robot is told: all of it together, calibrated.
    pub confidence: f32,
    /// IoU of the mask with the target that it fits best; 0 where there is none.
    pub iou: f64,
}

impl Instance {
    /// What its mask tells.
    pub(super) fn signs(&self) -> MaskSigns {
        MaskSigns { score: self.score, fill: self.fill }
    }

    /// Whether its mask is on a target.
    pub fn is_right(&self) -> bool {
        self.iou >= RIGHT_IOU
    }

    /// `confidence` with what became of it.
    pub fn judged(&self, confidence: f32) -> Judged {
        Judged { confidence: f64::from(confidence), right: self.is_right() }
    }
}

impl TargetFacts {
    /// Those of `sample`.
    pub(super) fn of(sample: &Sample) -> Option<Self> {
        let truth = sample.truth()?;
        let fill = |mask: &Mask| mask.bbox().map_or(0.0, |b| mask.area() as f64 / f64::from(b.area()));
        Some(Self {
            count: sample.targets.len(),
            area: truth.area() as f64 / truth.size().pixels() as f64,
            fill: sample.targets.iter().map(fill).fold(1.0, f64::min),
            hidden: sample.hidden,
        })
    }

    /// Name of its size: COCO's bounds of 32² and 96² pixels, as shares of a picture of 640 × 480.
    pub fn size(&self) -> &'static str {
        match self.area {
            a if a < 32.0 * 32.0 / (640.0 * 480.0) => "small",
            a if a < 96.0 * 96.0 / (640.0 * 480.0) => "medium",
            _ => "large",
        }
    }

    /// Name of how much is hidden.
    pub fn occlusion(&self) -> &'static str {
        match self.hidden {
            None => "unknown",
            Some(h) if h <= 0.0 => "not hidden",
            Some(h) if h < 0.2 => "hidden below 20 %",
            Some(h) if h < 0.6 => "hidden 20-60 %",
            Some(_) => "hidden 60 % or more",
        }
    }

    /// Name of how much of its box it fills: what is concave, thin or slanted fills little.
    pub fn filling(&self) -> &'static str {
        match self.fill {
            f if f < 0.5 => "fills below 50 %",
            f if f < 0.7 => "fills 50-70 %",
            _ => "fills 70 % or more",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_have_their_lower_bound() {
        let facts = |area, fill, hidden| TargetFacts { count: 1, area, fill, hidden };
        let (small, large) = (facts(0.003, 0.49, Some(0.0)), facts(0.03, 0.7, Some(0.6)));
        assert_eq!((small.size(), small.filling(), small.occlusion()), ("small", "fills below 50 %", "not hidden"));
        assert_eq!((large.size(), large.filling()), ("large", "fills 70 % or more"));
        assert_eq!(large.occlusion(), "hidden 60 % or more");
        assert_eq!(facts(0.004, 0.5, Some(0.2)).occlusion(), "hidden 20-60 %");
        assert_eq!(facts(0.004, 0.5, Some(0.199)).occlusion(), "hidden below 20 %");
        assert_eq!((facts(0.004, 0.5, None).size(), facts(0.0, 0.5, None).occlusion()), ("medium", "unknown"));
    }
}
