//! Drafts of the embedded default's answers: they change no answer, and most of them are right.

use std::fs;
use std::path::Path;

use sam4mllm::dataset::{Assets, SceneGenerator, SceneOptions, Split};
use sam4mllm::engine::bundle::{Bundle, Verify, seal};
use sam4mllm::frame::Image;
use sam4mllm::geometry::{BBox, Point, SourcePx};
use sam4mllm::mask::Mask;
use sam4mllm::model::stages::LoadOptions;
use sam4mllm::pipeline::{
    Decoded, Drafting, FrameSam, Ground, Grounding, Outcome, SamDrafts, Segment, Segmented, Stages, Strategy,
    box_prompts, segment_groups,
};
use sam4mllm::prompt::CountHint;

use super::{BUNDLE, copy, stages};

/// Frames of the test split with their commands.
fn pictures(scenes: u64) -> Vec<(Image, Vec<String>)> {
    let assets = Assets::load(BUNDLE).expect("loads");
    let generator = SceneGenerator::new(&assets, Split::Test, 0);
    let look = SceneOptions { longest_side: 320, ..SceneOptions::default() };
    let picture = |index| {
        let scene = generator.scene(index, &look);
        let image = Image::from_rgb(scene.size, scene.rgb.clone()).expect("fills its size");
        (image, scene.expressions(4).into_iter().map(|e| e.text).collect())
    };
    (0..scenes).map(picture).collect()
}

/// The same weights, asked about `points` points in a question, which they were not taught: how they answer is worth
/// nothing, that they answer the same whatever is drafted is.
fn asked_otherwise(points: usize) -> Stages {
    let folder = tempfile::tempdir().expect("a folder");
    copy(Path::new(BUNDLE), folder.path());
    let manifest = folder.path().join("bundle.toml");
    let text = fs::read_to_string(&manifest).expect("reads");
    let changed = text.replace("points_per_question = 1", &format!("points_per_question = {points}"));
    assert_ne!(text, changed);
    fs::write(&manifest, changed).expect("writes");
    seal(folder.path()).expect("seals");
    let bundle = Bundle::open(folder.path(), Verify::Hashes).expect("is sealed");
    Stages::load(&bundle, Strategy::Pqpp, &LoadOptions::default()).expect("loads")
}

fn ground(stages: &mut Stages, image: &Image, text: &str, drafting: Drafting, last: &[Mask]) -> Option<Grounding> {
    // A word that it was never taught.
    let command = stages.grounder.check(text, CountHint::NoneOrMore).ok()?;
    stages.grounder.set_drafting(drafting);
    let mut sam = FrameSam::new(&mut stages.segmenter, image);
    let mut drafts = SamDrafts::new(last, |prompts| sam.segment(prompts));
    Some(stages.grounder.ground_drafted(image, &command, &mut drafts, None).expect("grounds"))
}

fn masks(stages: &mut Stages, image: &Image, grounding: &Grounding) -> Vec<Mask> {
    let embedding = stages.segmenter.embed(image).expect("embeds");
    let groups: Vec<_> = grounding.instances.iter().map(|i| i.prompts()).collect();
    let masks = segment_groups(&mut stages.segmenter, &embedding, &groups).expect("segments");
    masks.into_iter().map(|m: Segmented| m.mask).collect()
}

fn assert_same(plain: &Grounding, drafted: &Grounding, what: &str) {
    if plain.decoded.near_ties > 0 {
        eprintln!("{what}: {} near ties", plain.decoded.near_ties);
        return;
    }
    assert_eq!(
        (plain.outcome, &plain.answer, plain.malformed),
        (drafted.outcome, &drafted.answer, drafted.malformed),
        "{what}"
    );
    assert_eq!(plain.decoded.one_by_one, drafted.decoded.one_by_one, "{what}");
    assert!(drafted.passes <= plain.passes, "{what}: {} and {} passes", plain.passes, drafted.passes);
    assert_eq!(plain.instances.len(), drafted.instances.len(), "{what}");
    for (a, b) in plain.instances.iter().zip(&drafted.instances) {
        assert_eq!((a.proposal, a.points.len()), (b.proposal, b.points.len()), "{what}");
        assert!((a.confidence - b.confidence).abs() < 1e-3, "{what}");
        for (p, q) in a.points.iter().zip(&b.points) {
            assert_eq!(p.point, q.point, "{what}");
            assert!((p.p_yes - q.p_yes).abs() < 1e-3, "{what}: p(yes) {} and {}", p.p_yes, q.p_yes);
        }
    }
}

#[test]
fn groundings_are_the_same_with_any_draft() {
    for points in [1, 5, 25] {
        let mut stages = if points == 1 { stages() } else { asked_otherwise(points) };
        stages.grounder.mllm_mut().set_prefix_reuse(false);
        let (mut passes, mut sum) = ([0; 3], Decoded::default());
        for (image, texts) in pictures(3) {
            let mut wrong = vec![Mask::from_fn(image.size(), |x, y| x > 250 && y > 150)];
            for text in texts {
                let Some(plain) = ground(&mut stages, &image, &text, Drafting::None, &[]) else { continue };
                let words = ground(&mut stages, &image, &text, Drafting::Words, &[]).expect("is a command");
                assert_same(&plain, &words, &format!("{text}, {points} points, words"));
                let right = masks(&mut stages, &image, &plain);
                for last in [&[][..], &right, &wrong, &[Mask::empty(image.size())]] {
                    let drafted = ground(&mut stages, &image, &text, Drafting::Masks, last).expect("is a command");
                    assert_same(&plain, &drafted, &format!("{text}, {points} points, {} masks", last.len()));
                    sum += drafted.decoded;
                    passes[2] += drafted.passes;
                }
                (passes[0], passes[1]) = (passes[0] + plain.passes, passes[1] + words.passes);
                // What was found is in the wrong place for the next command.
                wrong.extend(right);
            }
        }
        let [plain, words, drafted] = passes;
        eprintln!("{points} points a question: passes {plain} without, {words} with words, {} with masks", drafted / 4);
        eprintln!("{sum:?}");
        assert!(words < plain && sum.accepted > 0);
    }
}

/// What is guessed of points, by name.
type Guess = (&'static str, fn(&Mask, BBox<SourcePx>, Point<SourcePx>) -> bool);

const GUESSES: [Guess; 4] = [
    ("SAM's mask of the box", |mask, _, p| mask.at(p)),
    ("the ellipse in the box", |_, b, p| {
        let (x, y) = ((p.x - b.centre().x) / b.width(), (p.y - b.centre().y) / b.height());
        x * x + y * y <= 0.25
    }),
    ("yes", |_, _, _| true),
    ("no", |_, _, _| false),
];

#[test]
fn sam_guesses_labels_better_than_a_blind_yes_or_no() {
    let scenes = std::env::var("SAM4MLLM_SCENES").ok().and_then(|n| n.parse().ok()).unwrap_or(15);
    let mut stages = stages();
    // For each guess, how many of 25 labels were wrong, the last one apart: it is never guessed.
    let mut wrong: [Vec<usize>; 4] = Default::default();
    for (image, texts) in pictures(scenes) {
        let embedding = stages.segmenter.embed(&image).expect("embeds");
        for text in texts {
            let Some(grounding) = ground(&mut stages, &image, &text, Drafting::Words, &[]) else { continue };
            if grounding.outcome != Outcome::Found {
                continue;
            }
            let boxes: Vec<_> = grounding.instances.iter().map(|i| i.proposal).collect();
            let masks = stages.segmenter.segment(&embedding, &box_prompts(&boxes)).expect("segments");
            for (instance, mask) in grounding.instances.iter().zip(&masks) {
                assert_eq!(instance.points.len(), 25);
                for ((_, guess), wrong) in GUESSES.iter().zip(&mut wrong) {
                    let is_wrong = |p: &&sam4mllm::prompt::LabelledPoint| {
                        guess(&mask.mask, instance.proposal, p.point) != (p.p_yes > 0.5)
                    };
                    wrong.push(instance.points[..24].iter().filter(is_wrong).count());
                }
            }
        }
    }
    let mut means = Vec::new();
    for ((name, _), mut wrong) in GUESSES.iter().zip(wrong) {
        wrong.sort_unstable();
        let at = |q: f64| wrong[((wrong.len() - 1) as f64 * q) as usize] + 1;
        let mean = wrong.iter().sum::<usize>() as f64 / wrong.len() as f64;
        let few = wrong.iter().filter(|w| **w <= 2).count() as f64 / wrong.len() as f64;
        eprintln!(
            "{name}: {:.1} % right; one question of 25 points would take {:.2} passes on average, p50 {}, p90 {}, at most \
             3 for {:.0} % of {} instances",
            100.0 - mean / 24.0 * 100.0,
            mean + 1.0,
            at(0.5),
            at(0.9),
            few * 100.0,
            wrong.len()
        );
        means.push(mean);
    }
    // An ellipse is nearly as good with these weights, so it is only told.
    assert!(means[2..].iter().all(|blind| means[0] < *blind), "{means:?}");
    assert!(means[0] < 24.0 * 0.4, "{means:?}");
}
