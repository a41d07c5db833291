//! Where thresholds should lie: every answer is got once, and judged under all of them.
//!
//! The language model is made to name its target whatever the probability, and every point that leans either way is kept;
//! what stricter thresholds would have made of that is then known exactly.

use super::EvalError;
use super::metrics::{Metrics, Score};
use super::runner::{command, names_targets, union};
use super::source::{Sample, Source};
use super::variant::Variant;
use crate::mask::Mask;
use crate::pipeline::{
    Embedding, Ground, GroundedInstance, Grounder, Grounding, PipelineError, Segment, segment_groups,
};
use crate::prompt::{LabelledPoint, PointLabel, PointThresholds, Prompt, Thresholds};

/// What lies between yes and no; below it a label would turn into the other one.
const LEAST_POINT: f32 = 0.5;

/// The thresholds that are tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// Of `found`, each `0.0..=1.0`.
    pub found: Vec<f32>,
    /// Of `positive`, each `0.5..=1.0`; at 1 no point is positive.
    pub positive: Vec<f32>,
    /// Of `negative`, each `0.5..=1.0`; at 1 no point is negative.
    pub negative: Vec<f32>,
}

impl Default for Grid {
    fn default() -> Self {
        let points = vec![0.5, 0.75, 0.9, 0.97, 1.0];
        Self { found: vec![0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95], positive: points.clone(), negative: points }
    }
}

/// One choice of thresholds with what it gives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    /// See [`Thresholds::found`].
    pub found: f32,
    /// When points are believed.
    pub point: PointThresholds,
    /// Over all samples.
    pub metrics: Metrics,
}

/// An answer, to be judged.
struct Observed {
    has_target: bool,
    p_found: f32,
    p_absent: f32,
    /// Against the truth where the target is named, one for each choice of point thresholds; all the same or empty
    /// where nothing is.
    named: Vec<Score>,
    /// Where it is not.
    unnamed: Score,
}

/// Answers all samples of `source` by `variant` and judges them under every setting of `grid`, in its order: found,
/// then positive, then negative. `progress` is called after each picture. The grounder's own thresholds are put back.
///
/// # Errors
/// Engine failures, and pictures that cannot be used.
pub fn sweep(
    (ground, thresholds): (&mut Grounder, Thresholds),
    segment: &mut dyn Segment,
    source: &dyn Source,
    (variant, grid): (Variant, &Grid),
    progress: &mut dyn FnMut(),
) -> Result<Vec<Setting>, EvalError> {
    let lax = PointThresholds { positive: LEAST_POINT, negative: LEAST_POINT };
    ground.set_thresholds(Thresholds { found: 0.0, absent: 1.0, point: lax, ..thresholds });
    let points = grid.points();
    let observed = observe(ground, segment, source, (variant, &points), progress);
    ground.set_thresholds(thresholds);
    let observed = observed?;
    let mut settings = Vec::new();
    for &found in &grid.found {
        for (i, &point) in points.iter().enumerate() {
            let scores = observed.iter().map(|o| o.judged(found, thresholds.absent, i));
            settings.push(Setting { found, point, metrics: Metrics::of(scores) });
        }
    }
    Ok(settings)
}

/// The setting with the highest gIoU among those whose N-acc is at least `n_acc`, the first of equals; `None` where none is.
pub fn best(settings: &[Setting], n_acc: f64) -> Option<&Setting> {
    let fit = settings.iter().filter(|s| s.metrics.n_acc >= n_acc);
    fit.reduce(|best, s| if s.metrics.giou > best.metrics.giou { s } else { best })
}

impl Grid {
    fn points(&self) -> Vec<PointThresholds> {
        let with = |positive| self.negative.iter().map(move |&negative| PointThresholds { positive, negative });
        self.positive.iter().flat_map(|&p| with(p)).collect()
    }
}

impl Observed {
    /// As the grounder's verdict would have been.
    fn judged(&self, found: f32, absent: f32, point: usize) -> Score {
        let rivals = self.p_absent >= absent && self.p_found < self.p_absent;
        match self.named.get(point) {
            Some(score) if self.p_found >= found && !rivals => *score,
            _ => Score { has_target: self.has_target, ..self.unnamed },
        }
    }
}

fn observe(
    ground: &mut dyn Ground,
    segment: &mut dyn Segment,
    source: &dyn Source,
    (variant, points): (Variant, &[PointThresholds]),
    progress: &mut dyn FnMut(),
) -> Result<Vec<Observed>, EvalError> {
    let mut observed = Vec::new();
    for index in 0..source.pictures() {
        let picture = source.picture(index)?;
        let embedding = segment.embed(&picture.image)?;
        for sample in &picture.samples {
            let truth = sample.truth();
            let unnamed = Score::new(truth.as_ref(), None, sample.ignored.as_ref());
            let has_target = truth.is_some();
            observed.push(match command(ground, sample, variant)? {
                None => Observed { has_target, p_found: 0.0, p_absent: 0.0, named: Vec::new(), unnamed },
                Some(command) => {
                    let said = ground.ground(&picture.image, &command, None)?;
                    let named = named(segment, &embedding, (&said, points), (sample, truth.as_ref()))?;
                    Observed { has_target, p_found: said.p_found, p_absent: said.p_absent, named, unnamed }
                }
            });
        }
        progress();
    }
    Ok(observed)
}

/// The score of the answer under each of `points`; empty where it names nothing.
fn named(
    segment: &mut dyn Segment,
    embedding: &Embedding,
    (said, points): (&Grounding, &[PointThresholds]),
    (sample, truth): (&Sample, Option<&Mask>),
) -> Result<Vec<Score>, PipelineError> {
    if !names_targets(said) {
        return Ok(Vec::new());
    }
    // Many thresholds keep the same points, and each prompt goes through SAM once.
    let mut groups: Vec<Vec<Prompt>> = Vec::new();
    let mut uses: Vec<Vec<usize>> = Vec::new();
    for &thresholds in points {
        let of_instance = |instance: &GroundedInstance| {
            let prompts = relabelled(instance, thresholds).prompts();
            groups.iter().position(|g| *g == prompts).unwrap_or_else(|| {
                groups.push(prompts);
                groups.len() - 1
            })
        };
        uses.push(said.instances.iter().map(of_instance).collect());
    }
    let masks = segment_groups(segment, embedding, &groups)?;
    let score = |uses: &Vec<usize>| {
        let used: Vec<_> = uses.iter().map(|&i| masks[i].clone()).collect();
        Score::new(truth, union(&used).as_ref(), sample.ignored.as_ref())
    };
    Ok(uses.iter().map(score).collect())
}

/// The instance with the labels that `thresholds`, stricter than those it was made with, would have given.
fn relabelled(instance: &GroundedInstance, thresholds: PointThresholds) -> GroundedInstance {
    let label = |p: &LabelledPoint| {
        let label = match p.label {
            PointLabel::On if p.p_yes > thresholds.positive => PointLabel::On,
            PointLabel::Off if 1.0 - p.p_yes > thresholds.negative => PointLabel::Off,
            PointLabel::On | PointLabel::Off | PointLabel::Unsure => PointLabel::Unsure,
        };
        LabelledPoint { label, ..*p }
    };
    GroundedInstance { points: instance.points.iter().map(label).collect(), ..instance.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(p_found: f32, p_absent: f32, has_target: bool) -> Observed {
        let named = if has_target { 8 } else { 0 };
        let score = |intersection, union, answered| Score { intersection, union, has_target, answered };
        Observed { has_target, p_found, p_absent, named: vec![score(named, 10, true)], unnamed: score(0, 10, false) }
    }

    #[test]
    fn verdicts_follow_the_thresholds() {
        let named = |o: &Observed, found, absent| o.judged(found, absent, 0).answered;
        let o = observed(0.6, 0.3, true);
        assert!(named(&o, 0.6, 0.5) && !named(&o, 0.61, 0.5));
        // Both reached: the more likely one holds.
        let rivals = observed(0.3, 0.6, true);
        assert!(!named(&rivals, 0.2, 0.5) && named(&rivals, 0.2, 0.7));
        let mute = Observed { named: Vec::new(), ..observed(0.9, 0.0, true) };
        assert!(!named(&mute, 0.1, 0.5));
    }

    #[test]
    fn the_best_setting_keeps_to_the_least_n_acc() {
        let answers =
            [observed(0.9, 0.1, true), observed(0.55, 0.4, true), observed(0.5, 0.4, false), observed(0.2, 0.7, false)];
        let point = PointThresholds { positive: 0.75, negative: 0.9 };
        let setting =
            |found| Setting { found, point, metrics: Metrics::of(answers.iter().map(|o| o.judged(found, 0.5, 0))) };
        let settings = [0.3, 0.52, 0.8].map(setting);
        assert_eq!(settings.map(|s| s.metrics.n_acc), [0.5, 1.0, 1.0]);
        assert_eq!(best(&settings, 0.93).map(|s| s.found), Some(0.52));
        assert_eq!(best(&settings[..1], 0.93), None);
        assert_eq!(best(&settings[..1], 0.4).map(|s| s.found), Some(0.3));
    }
}
