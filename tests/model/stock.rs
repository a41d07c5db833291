//! A stock grounding model beside SAM, nothing trained: the small random Qwens of `tests/reference` with the segmenter of
//! the embedded default, made into a bundle and asked, by library and binary.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sam4mllm::dataset::{Assets, SceneGenerator, SceneOptions, Split};
use sam4mllm::engine::bundle::{Bundle, DialectName, Fit, MANIFEST, Verify};
use sam4mllm::frame::Image;
use sam4mllm::geometry::{BBox, GridScale, Point, Size, SourcePx};
use sam4mllm::import::{ComposeError, Composition, compose};
use sam4mllm::mask::{Mask, Rle};
use sam4mllm::model::stages::{LoadError, LoadOptions};
use sam4mllm::pipeline::{Ground, Outcome, Segment, Stages, Strategy, box_prompts};
use sam4mllm::prompt::{Answer, CountHint, Dialect, parse_answer};
use serde_json::Value;
use tempfile::TempDir;

const COMMANDS: [&str; 6] = ["red cup", "the left one", "anything", "a very small screw", "table", "what you see"];

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn made(checkpoint: &str, dialect: Option<DialectName>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mllm, sam) = (root(checkpoint), root("engines/tabletop/sam"));
    let parts = Composition { mllm: &mllm, sam: &sam, dialect, name: "stock", licence: "MIT" };
    compose(&parts, dir.path()).unwrap();
    dir
}

fn load(dir: &Path) -> Result<Stages, LoadError> {
    let bundle = Bundle::open(dir, Verify::Hashes).unwrap();
    let options = LoadOptions { cache_dir: Some(dir.join("cache")), ..LoadOptions::default() };
    Stages::load(&bundle, None, &options)
}

/// A frame without anything to know.
fn picture(width: u32, height: u32, seed: u32) -> Image {
    let value = |i: u32| (i.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 24) as u8;
    Image::from_rgb(Size::new(width, height), (0..width * height * 3).map(value).collect::<Vec<_>>()).unwrap()
}

/// Asks about pictures of several shapes: every answer can be read, and boxes are where it says in pixels of the source.
fn every_answer_can_be_read(checkpoint: &str, name: DialectName, scale_of: impl Fn(Size<SourcePx>) -> GridScale) {
    let dir = made(checkpoint, None);
    let mut stages = load(dir.path()).unwrap();
    let mut found = 0;
    for (i, (width, height)) in [(150, 41), (59, 83), (64, 48), (100, 70)].into_iter().enumerate() {
        let image = picture(width, height, i as u32);
        let mut dialect = Dialect::compile(&name.words()).unwrap();
        let scale = scale_of(image.size());
        dialect.fit(Size::new(scale.x, scale.y)).unwrap();
        for text in COMMANDS {
            let command = stages.grounder.check(text, CountHint::NoneOrMore).unwrap();
            let grounding = stages.grounder.ground(&image, &command, None).unwrap();
            println!("{text}: {:?} {:.2}, {:?}", grounding.outcome, grounding.confidence, grounding.answer);
            assert_eq!(grounding.malformed, None, "{}", grounding.answer);
            assert_eq!(grounding.strategy, Strategy::Box, "the dialect asks for boxes alone");
            assert!((grounding.p_found + grounding.p_absent - 1.0).abs() < 1e-5, "nothing else may be said");
            match (parse_answer(&grounding.answer, &dialect).unwrap(), grounding.outcome) {
                (Answer::Absent, outcome) => assert_eq!(outcome, Outcome::Absent),
                (Answer::Targets(targets), outcome) => {
                    assert_eq!(outcome, Outcome::Found);
                    let said: Vec<BBox<_>> =
                        targets.iter().map(|t| scale.bbox_to_source(t.bbox, image.size())).collect();
                    assert!(grounding.instances.iter().all(|i| said.contains(&i.proposal) && i.points.is_empty()));
                    found += grounding.instances.len();
                }
            }
        }
    }
    assert!(found > 0, "none of the answers has a box");
}

#[test]
fn random_weights_answer_boxes_in_pixels_of_the_resized_frame() {
    // As `smart_resize` has them: sides that are multiples of 8, from 256 to 2304 pixels in all.
    let sides = |size: Size<_>| match (size.width, size.height) {
        (150, 41) => GridScale { x: 88, y: 24 },
        (59, 83) => GridScale { x: 40, y: 56 },
        (64, 48) => GridScale { x: 48, y: 40 },
        _ => GridScale { x: 56, y: 40 },
    };
    every_answer_can_be_read("tests/reference/mllms/qwen2-5-vl", DialectName::QwenJson, sides);
}

#[test]
fn random_weights_answer_boxes_in_thousandths_of_the_frame() {
    every_answer_can_be_read("tests/reference/mllms/qwen3-vl", DialectName::Qwen3Json, |_| GridScale::square(1000));
}

#[test]
fn points_are_asked_about_where_that_is_wanted() {
    let dir = made("tests/reference/mllms/qwen3-vl", None);
    let mut stages = load(dir.path()).unwrap();
    let image = picture(64, 48, 2);
    let grounding = COMMANDS.iter().find_map(|text| {
        let command = stages.grounder.check(text, CountHint::NoneOrMore).unwrap().by(Strategy::Pqpp);
        Some(stages.grounder.ground(&image, &command, None).unwrap()).filter(|g| g.outcome == Outcome::Found)
    });
    let grounding = grounding.expect("one of them is found");
    for instance in &grounding.instances {
        assert_eq!(instance.points.len(), 25);
        assert!(instance.points.iter().all(|p| (0.0..=1.0).contains(&p.p_yes)));
    }
}

#[test]
fn pixels_are_only_for_models_that_see_a_resized_frame() {
    let dir = made("tests/reference/mllms/llava-mistral", Some(DialectName::QwenJson));
    let mut stages = load(dir.path()).unwrap();
    let command = stages.grounder.check("red cup", CountHint::One).unwrap();
    let error = stages.grounder.ground(&picture(64, 48, 0), &command, None).expect_err("sees a square");
    assert!(error.to_string().contains("counts pixels"), "{error}");
}

#[test]
fn what_is_no_pair_of_checkpoints_is_refused_by_name() {
    let (qwen, sam) = (root("tests/reference/mllms/qwen2-5-vl"), root("engines/tabletop/sam"));
    let parts = |mllm, sam| Composition { mllm, sam, dialect: None, name: "stock", licence: "MIT" };
    let dir = tempfile::tempdir().unwrap();
    let swapped = compose(&parts(&sam, &qwen), dir.path()).expect_err("the wrong way round");
    assert!(matches!(&swapped, ComposeError::Kind { class, .. } if class == "SamModel"), "{swapped}");
    let twice = compose(&parts(&qwen, &qwen), dir.path()).expect_err("two language models");
    assert!(matches!(&twice, ComposeError::Kind { wanted, .. } if wanted.contains("boxes")), "{twice}");
    assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing is left behind");
    compose(&parts(&qwen, &sam), dir.path()).unwrap();
    // SAM 2 is shown whole frames, SAM such with their shape kept.
    let second = tempfile::tempdir().unwrap();
    let sam_2 = root("tests/reference/checkpoints/sam2");
    compose(&parts(&qwen, &sam_2), second.path()).unwrap();
    let fit = |dir: &Path| Bundle::open(dir, Verify::Sizes).unwrap().manifest().sam.image.fit;
    assert_eq!((fit(dir.path()), fit(second.path())), (Fit::Letterbox, Fit::Squash));
    let taken = compose(&parts(&qwen, &sam), dir.path()).expect_err("is there");
    assert!(matches!(taken, ComposeError::Place(_)), "{taken}");
}

fn sam4mllm(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sam4mllm")).args(args).env_remove("RUST_LOG").output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// From two directories to a mask with three commands.
#[test]
fn two_checkpoints_become_a_bundle_that_cuts_out_what_is_boxed() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (bundle, clip, cache) = (path("bundle"), path("clip"), path("cache"));
    let (qwen, sam) = (root("tests/reference/mllms/qwen2-5-vl"), root("engines/tabletop/sam"));
    let (qwen, sam) = (qwen.to_str().unwrap(), sam.to_str().unwrap());
    said(&sam4mllm(&["engine", "import", qwen, "--sam", sam, "--out", &bundle, "--dialect", "qwen_json"]));
    let manifest = fs::read_to_string(Path::new(&bundle).join(MANIFEST)).unwrap();
    assert!(manifest.contains("coordinates = \"pixels\"") && manifest.contains("bbox_2d"), "{manifest}");
    said(&sam4mllm(&["dataset", "clip", &clip, "--seed", "3", "--frames", "1"]));
    let frame = format!("{clip}/frames/000000.jpg");
    let reports: Vec<Value> = COMMANDS
        .iter()
        .map(|command| {
            let args = ["segment", &frame, command, "--bundle", &bundle, "--cache-dir", &cache, "--format", "json"];
            serde_json::from_str(&said(&sam4mllm(&args))).unwrap()
        })
        .collect();
    let mut masks = Vec::new();
    for report in &reports {
        println!("{} {}", report["verdict"], report["answer"]);
        assert_eq!(report["strategy"], "box");
        assert!(report["answer"].as_str().unwrap().starts_with("```json"), "{report}");
        masks.extend(report["instances"].as_array().unwrap().iter().filter_map(share_in_its_box));
    }
    // Boxes of random weights are mostly of nothing; what SAM makes of them lies there all the same far more than it would by
    // chance, and some of it within.
    assert!(masks.iter().all(|(share, chance)| *share > 4.0 * chance), "{masks:?}");
    assert!(masks.iter().filter(|(share, _)| *share > 0.8).count() >= 2, "{masks:?}");
    assert!(reports.iter().any(|report| report["verdict"] == "FOUND"), "SAM trusts none of the masks");
}

/// The share of an instance's mask that lies in the box or near its edge, and that of all pixels; `None` where the mask is empty.
fn share_in_its_box(instance: &Value) -> Option<(f64, f64)> {
    let [x1, y1, x2, y2]: [f32; 4] = serde_json::from_value(instance["box"].clone()).unwrap();
    let [height, width]: [u32; 2] = serde_json::from_value(instance["mask"]["size"].clone()).unwrap();
    let size = Size::new(width, height);
    let mask = Rle::from_coco_string(instance["mask"]["counts"].as_str().unwrap(), size).unwrap().decode().unwrap();
    let near = BBox::new(x1, y1, x2, y2).expanded(0.1, size);
    let inside = Mask::from_fn(size, |x, y| near.contains(Point::new(x as f32 + 0.5, y as f32 + 0.5)));
    let share = mask.overlap(&inside).unwrap().0 as f64 / mask.area().max(1) as f64;
    let chance = inside.area() as f64 / f64::from(width * height);
    println!("box {x1} {y1} {x2} {y2}: {} pixels, {share:.2} of them inside, {chance:.3} by chance", mask.area());
    (mask.area() > 0).then_some((share, chance))
}

/// The segmenter's side of such a bundle, given boxes that are right.
#[test]
fn what_is_rightly_boxed_is_cut_out() {
    let dir = made("tests/reference/mllms/qwen2-5-vl", None);
    let mut segmenter = load(dir.path()).unwrap().segmenter;
    let assets = Assets::load(root("engines/tabletop")).unwrap();
    let generator = SceneGenerator::new(&assets, Split::Val, 0);
    let mut ious = Vec::new();
    for index in 0..4 {
        let scene = generator.scene(index, &SceneOptions::default());
        let whole: Vec<usize> = (0..scene.objects.len()).filter(|o| scene.objects[*o].visible > 0.95).collect();
        let boxes: Vec<_> = whole.iter().map(|o| scene.objects[*o].bbox).collect();
        let embedding = segmenter.embed(&Image::from_rgb(scene.size, scene.rgb.clone()).unwrap()).unwrap();
        let masks = segmenter.segment(&embedding, &box_prompts(&boxes)).unwrap();
        ious.extend(whole.iter().zip(&masks).map(|(o, m)| m.mask.iou(&scene.mask(*o)).unwrap()));
    }
    let mean = ious.iter().sum::<f32>() / ious.len() as f32;
    assert!(ious.len() >= 10 && mean > 0.7, "{mean} of {ious:?}");
}
