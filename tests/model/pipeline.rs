//! From raw pixels to verdicts, points and masks, against `transformers`: `make_reference.py` made what is under
//! `reference/`. The language model there knows a few dialogues by heart; SAM is the random one of `tests/reference`.

use std::fs;
use std::path::{Path, PathBuf};

use sam4mllm::engine::bundle::{Bundle, Verify, seal};
use sam4mllm::frame::Image;
use sam4mllm::geometry::{BBox, GridScale, Point, Size};
use sam4mllm::mask::Mask;
use sam4mllm::model::mllm::{Decoding, Question, argmax};
use sam4mllm::model::stages::{LoadError, LoadOptions};
use sam4mllm::model::{ModelError, Timings};
use sam4mllm::pipeline::{Ground, Outcome, Segment, Stages, Strategy};
use sam4mllm::prompt::{CountHint, PointLabel, Prompt};
use serde::Deserialize;
use tempfile::TempDir;

/// Largest difference of a probability.
const TOLERANCE: f32 = 2e-3;
const SCALE: GridScale = GridScale::square(999);

#[derive(Deserialize)]
struct Expected {
    dialogues: Vec<Dialogue>,
    masks: Vec<ExpectedMask>,
}

#[derive(Deserialize)]
struct Dialogue {
    picture: usize,
    hint: String,
    command: String,
    tokens: Vec<u32>,
    p_box: f32,
    p_absent: f32,
    points: Vec<ExpectedPoint>,
}

#[derive(Deserialize)]
struct ExpectedPoint {
    r#box: [f32; 4],
    point: [f32; 2],
    yes: f32,
    no: f32,
}

#[derive(Deserialize)]
struct ExpectedMask {
    picture: usize,
    r#box: Option<[f32; 4]>,
    points: Vec<[f32; 3]>,
    score: f32,
    mask: String,
}

impl Dialogue {
    fn hint(&self) -> CountHint {
        match self.hint.as_str() {
            "exactly one" => CountHint::One,
            "one or more" => CountHint::OneOrMore,
            _ => CountHint::NoneOrMore,
        }
    }
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/model/reference").join(path)
}

fn expected() -> Expected {
    serde_json::from_str(&fs::read_to_string(here("expected.json")).unwrap()).unwrap()
}

fn picture(index: usize) -> Image {
    let rgb = image::open(here(&format!("pictures/{index}.png"))).unwrap().into_rgb8();
    Image::from_rgb(Size::new(rgb.width(), rgb.height()), rgb.into_raw()).unwrap()
}

pub(crate) const MANIFEST: &str = r#"
format = 1
name = "by-heart"
version = "0.1.0"
licence = "MIT"
[mllm]
directory = "mllm"
class = "LlavaForConditionalGeneration"
max_answer_tokens = 48
image = { fit = "squash", width = 32, height = 32, filter = "bilinear", mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }
[sam]
directory = "sam"
class = "SamModel"
[sam.image]
fit = "letterbox"
width = 32
height = 32
filter = "bilinear"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
[dialect]
coordinate_scale = 999
coordinate_digits = 3
prefix = "<s><image>"
hint_one = "exactly one"
hint_one_or_more = "one or more"
hint_none_or_more = "none or more"
proposal_query = "<user> find {hint}: {command} <assistant>"
box = "[{x1},{y1},{x2},{y2}]"
absent_answer = "no such object"
end_of_answer = "</s>"
points_query = "<user> which points are on {box}? {points} <assistant>"
point = "[{x},{y}]"
points_per_question = 1
yes = "yes"
no = "no"
grid = [5, 5]
[dialect.thresholds]
found = 0.5
absent = 0.5
positive = 0.75
negative = 0.9
mask_score = 0.4
"#;

/// A sealed bundle of the reference models, and the stages loaded from it.
struct Loaded {
    dir: TempDir,
    stages: Stages,
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

pub(crate) fn bundle_dir(manifest: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(&here("mllm"), &dir.path().join("mllm"));
    copy(&here("../../reference/checkpoints/sam"), &dir.path().join("sam"));
    fs::write(dir.path().join("bundle.toml"), manifest).unwrap();
    dir
}

fn load(dir: &Path) -> Result<Stages, LoadError> {
    seal(dir).unwrap();
    let bundle = Bundle::open(dir, Verify::Hashes).unwrap();
    let options = LoadOptions { cache_dir: Some(dir.join("cache")), ..LoadOptions::default() };
    Stages::load(&bundle, Strategy::Pqpp, &options)
}

fn loaded() -> Loaded {
    let dir = bundle_dir(MANIFEST);
    let stages = load(dir.path()).unwrap();
    let names: Vec<_> = stages.timings.iter().map(|(name, _)| *name).collect();
    for engine in ["import", "vision", "embed", "decoder", "tokenizer", "image_encoder", "mask_decoder"] {
        assert!(names.contains(&engine), "{engine} is not among {names:?}");
    }
    Loaded { dir, stages }
}

#[test]
fn answers_are_those_of_transformers_token_by_token() {
    let mut loaded = loaded();
    let mllm = loaded.stages.grounder.mllm_mut();
    for dialogue in expected().dialogues {
        let query = mllm.speech().proposal_query(dialogue.hint(), &dialogue.command).unwrap();
        let cache = mllm.prefix(&picture(dialogue.picture), None, &mut Timings::default()).unwrap();
        let opening = mllm.speech().opening(Strategy::Pqpp).unwrap();
        let (box_start, absent) = (opening.box_start(), opening.absent().to_vec());
        let mut first = None;
        let decoding = Decoding {
            constrained: false,
            first: &mut |p| {
                first = Some((p[box_start as usize], p[absent[0] as usize]));
                argmax(p)
            },
            draft: &|_| Vec::new(),
            observe: &mut |_, _| (),
        };
        let answer = mllm.generate(&cache, &query, decoding, None).unwrap();
        let spoken: Vec<u32> = answer.tokens.iter().copied().chain(answer.pending.iter().copied()).collect();
        assert!(answer.stopped);
        assert_eq!(spoken, dialogue.tokens, "{}", dialogue.command);
        let (p_box, p_absent) = first.unwrap();
        println!("{}: p(found) {p_box:.5}, by transformers {:.5}", dialogue.command, dialogue.p_box);
        assert!((p_box - dialogue.p_box).abs() < TOLERANCE && (p_absent - dialogue.p_absent).abs() < TOLERANCE);
    }
}

#[test]
fn groundings_are_those_of_transformers() {
    let mut loaded = loaded();
    let grounder = &mut loaded.stages.grounder;
    for dialogue in expected().dialogues {
        let image = picture(dialogue.picture);
        let command = grounder.check(&dialogue.command, dialogue.hint()).unwrap();
        let grounding = grounder.ground(&image, &command, None).unwrap();
        let boxes = dialogue.points.len() / 25;
        let outcome = match (boxes, dialogue.hint()) {
            (0, _) => Outcome::Absent,
            (2, CountHint::One) => Outcome::Ambiguous,
            _ => Outcome::Found,
        };
        let name = &dialogue.command;
        assert_eq!((grounding.outcome, grounding.instances.len()), (outcome, boxes), "{name}: {}", grounding.answer);
        let (mut worst, mut on) = (0f32, 0);
        for instance in &grounding.instances {
            // Instances come best first, the reference in the model's order.
            let [x1, y1, x2, y2] = instance_box(instance.proposal, image.size());
            let points: Vec<_> = dialogue.points.iter().filter(|p| p.r#box == [x1, y1, x2, y2]).collect();
            assert_eq!(points.len(), 25, "{name}");
            for (found, want) in instance.points.iter().zip(points) {
                let at = SCALE.to_source(Point::new(want.point[0], want.point[1]), image.size());
                assert!((found.point.x - at.x).hypot(found.point.y - at.y) < 1e-3);
                worst = worst.max((found.p_yes - want.yes / (want.yes + want.no)).abs());
                on += usize::from(found.label == PointLabel::On);
            }
        }
        println!("{name}: {:?}, {on} points on, p(yes) within {worst:.1e}", grounding.outcome);
        assert!(worst < TOLERANCE, "{name}: {worst}");
        assert!(boxes == 0 || on > 8, "{name}: {on} points on");
    }
}

fn instance_box(b: BBox<sam4mllm::geometry::SourcePx>, size: Size<sam4mllm::geometry::SourcePx>) -> [f32; 4] {
    let g = SCALE.bbox_to_grid(b, size);
    [g.x1, g.y1, g.x2, g.y2]
}

#[test]
fn one_branched_pass_equals_separate_passes() {
    let mut loaded = loaded();
    let mllm = loaded.stages.grounder.mllm_mut();
    let cache = mllm.prefix(&picture(0), None, &mut Timings::default()).unwrap();
    // Most answers are nearly certain, so it is their small remainders that have to agree.
    let questions: Vec<_> = (0..90)
        .map(|i| {
            let bbox = if i % 2 == 0 { BBox::new(120.0, 200.0, 560.0, 840.0) } else { BBox::new(0.0, 1.0, 2.0, 3.0) };
            let point = Point::new(10.0 * i as f32, 940.0 - 10.0 * i as f32);
            Question { tokens: mllm.speech().points_query(bbox, &[point]).unwrap(), answers: 1, draft: Vec::new() }
        })
        .collect();
    let pending = [mllm.speech().end()];
    mllm.take_passes();
    let together = mllm.ask(&cache, &pending, &questions, None).unwrap();
    assert_eq!(mllm.take_passes(), 1);
    let (mut worst, mut relative, mut distinct) = (0f32, 0f32, std::collections::HashSet::new());
    for (question, together) in questions.iter().zip(&together) {
        distinct.insert(together[0].0.to_bits());
        let alone = &mllm.ask(&cache, &pending, std::slice::from_ref(question), None).unwrap()[0][0];
        for (a, b) in [(alone.0, together[0].0), (alone.1, together[0].1)] {
            worst = worst.max((a - b).abs());
            relative = relative.max((a - b).abs() / a);
        }
    }
    println!("branches differ from separate passes by at most {worst:.1e}, {relative:.1e} of themselves");
    assert!(worst < 1e-4 && relative < 1e-3, "{worst}, {relative}");
    assert!(distinct.len() > 80, "{} different answers", distinct.len());
}

#[test]
fn the_prefix_cache_changes_nothing_but_the_work() {
    let mut loaded = loaded();
    let grounder = &mut loaded.stages.grounder;
    let mut runs = Vec::new();
    for reuse in [true, false] {
        grounder.mllm_mut().set_prefix_reuse(reuse);
        let mut run = Vec::new();
        for dialogue in expected().dialogues.iter().filter(|d| d.picture == 0) {
            let command = grounder.check(&dialogue.command, dialogue.hint()).unwrap();
            let grounding = grounder.ground(&picture(0), &command, None).unwrap();
            let looked = grounding.timings.iter().any(|(stage, _)| *stage == "vision");
            assert_eq!(looked, !reuse || run.is_empty());
            run.push((grounding.outcome, grounding.answer, grounding.instances));
        }
        runs.push(run);
    }
    assert_eq!(runs[0], runs[1]);
}

#[test]
fn masks_are_those_of_transformers_in_source_pixels() {
    let mut loaded = loaded();
    let segmenter = &mut loaded.stages.segmenter;
    for index in 0..2 {
        let (image, expected) = (picture(index), expected());
        let embedding = segmenter.embed(&image).unwrap();
        for want in expected.masks.iter().filter(|m| m.picture == index) {
            let prompt = Prompt {
                bbox: want.r#box.map(|[x1, y1, x2, y2]| BBox::new(x1, y1, x2, y2)),
                points: want.points.iter().map(|[x, y, on]| (Point::new(*x, *y), *on == 1.0)).collect(),
            };
            let found = segmenter.segment(&embedding, &[prompt]).unwrap().remove(0);
            let png = image::open(here(&want.mask)).unwrap().into_luma8();
            assert_eq!((png.width(), png.height()), (image.size().width, image.size().height));
            let mask = Mask::from_fn(image.size(), |x, y| png.get_pixel(x, y)[0] > 127);
            let (inter, union) = found.mask.overlap(&mask).unwrap();
            let score = want.score.clamp(0.0, 1.0);
            println!(
                "{}: {} of {union} pixels differ, score {:.4} ({score:.4})",
                want.mask,
                union - inter,
                found.score
            );
            // A pixel of these small masks is up to 0.08 %, and resizing may differ by a level of 255.
            assert!(inter as f64 / union as f64 > 0.998, "{}: {inter} of {union}", want.mask);
            assert!((found.score - score).abs() < 1e-2, "{}: {} {score}", want.mask, found.score);
        }
    }
}

#[test]
fn prompts_of_one_frame_go_together_where_they_are_alike() {
    let mut loaded = loaded();
    let segmenter = &mut loaded.stages.segmenter;
    let embedding = segmenter.embed(&picture(0)).unwrap();
    let prompts: Vec<_> =
        (0..5).map(|i| Prompt { bbox: Some(BBox::new(5.0 + i as f32, 5.0, 40.0, 50.0)), points: Vec::new() }).collect();
    let together = segmenter.segment(&embedding, &prompts).unwrap();
    for (prompt, together) in prompts.iter().zip(&together) {
        let alone = segmenter.segment(&embedding, std::slice::from_ref(prompt)).unwrap().remove(0);
        assert!(alone.mask.iou(&together.mask).unwrap() > 0.999);
        assert!((alone.score - together.score).abs() < 1e-4);
    }
}

#[test]
fn bundles_whose_words_do_not_fit_their_tokenizer_are_refused() {
    let cases: [(&[(&str, &str)], &str); 4] = [
        (&[("<s><image>", "<s>")], "prefix"),
        (&[("<s><image>", "<image><s><image>")], "prefix"),
        (&[("\"</s>\"", "\"</s> or\"")], "end_of_answer"),
        // Two words that the tokenizer does not know share a token.
        (&[("\"yes\"", "\"oui\""), ("\"no\"", "\"non\"")], "no"),
    ];
    for (changes, field) in cases {
        let manifest = changes.iter().fold(MANIFEST.to_owned(), |m, (from, to)| m.replace(from, to));
        assert_ne!(manifest, MANIFEST, "{changes:?}");
        match load(bundle_dir(&manifest).path()).err() {
            Some(LoadError::Dialect(error)) => assert_eq!(error.field(), field, "{error}"),
            other => panic!("{changes:?}: {other:?}"),
        }
    }
}

#[test]
fn a_conversation_longer_than_the_model_is_an_error() {
    let mut loaded = loaded();
    let mllm = loaded.stages.grounder.mllm_mut();
    let cache = mllm.prefix(&picture(0), None, &mut Timings::default()).unwrap();
    let decoding =
        Decoding { first: &mut |p| argmax(p), draft: &|_| Vec::new(), constrained: false, observe: &mut |_, _| () };
    let error = mllm.generate(&cache, &[10; 200], decoding, None).unwrap_err();
    assert!(matches!(error, ModelError::TooLong { tokens: 217, limit: 128 }), "{error}");
    drop(loaded.dir);
}
