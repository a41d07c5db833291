use std::error::Error;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::geometry::{BBox, Size};
use crate::mask::Mask;

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dataset").join(path)
}

fn files(records: impl Into<PathBuf>) -> Files {
    Files { records: records.into(), instances: None, images: None, split: None }
}

fn read_fixture(source: Source, path: &str) -> Collection {
    read(source, &files(fixture(path))).unwrap_or_else(|e| panic!("{path}: {}", chain(&e)))
}

/// An error with its causes, as the command line prints it.
fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

fn texts(record: &Record) -> Vec<&str> {
    record.referring().expect("expressions").expressions.iter().map(|e| e.text.as_str()).collect()
}

fn mask(record: &Record) -> Mask {
    record.referring().and_then(Referring::mask).expect("a target")
}

#[test]
fn refcoco_is_read_from_every_pickle_of_it() {
    for file in ["refs(unc).p", "refs(google).p", "refs(umd).p"] {
        let records = read_fixture(Source::RefCoco, &format!("refcoco/{file}")).records;
        let names: Vec<_> = records.iter().map(|r| (r.name.as_str(), r.split.word())).collect();
        assert_eq!(names, [("ref 1", "train"), ("ref 2", "train"), ("ref 3", "testA"), ("ref 4", "val")]);
        assert_eq!(texts(&records[0]), ["left man", "man in the café"], "{file}");
        assert_eq!(texts(&records[2]), ["it's \"that\" one"]);
        assert_eq!(texts(&records[3]), ["?!", "ring"], "where cleaning left nothing, what was written");
        let image = &records[0].image;
        assert_eq!(image.id, ImageId::Coco(581_857));
        assert_eq!(image.size, Some(Size::new(64, 48)));
        assert!(image.path.ends_with("refcoco/COCO_train2014_000000581857.jpg"));
        let target = &records[0].referring().expect("expressions").targets[0];
        assert_eq!((target.annotation, target.category.as_deref()), (Some(1_719_310), Some("person")));
        assert_eq!(target.bbox(), Some(BBox::new(10.0, 5.0, 35.5, 25.0)));
    }
}

#[test]
fn polygons_and_every_kind_of_run_lengths_become_masks() {
    let records = read_fixture(Source::RefCoco, "refcoco/refs(unc).p").records;
    let inside = |x: u32, y: u32, x1, y1, x2, y2| (x1..x2).contains(&x) && (y1..y2).contains(&y);
    let two_parts =
        Mask::from_fn(Size::new(64, 48), |x, y| inside(x, y, 10, 5, 20, 25) || inside(x, y, 30, 10, 36, 20));
    assert_eq!(mask(&records[0]), two_parts);
    assert_eq!(mask(&records[1]), Mask::from_fn(Size::new(50, 60), |x, _| x < 2), "uncompressed, of a crowd");
    let ring = Mask::from_fn(Size::new(50, 60), |x, y| inside(x, y, 5, 10, 30, 40) && !inside(x, y, 10, 20, 15, 25));
    assert_eq!(mask(&records[3]), ring, "compressed");
    assert_eq!(mask(&records[2]).bits(), [1, 1, 1, 0, 1, 0], "the union of a list");
}

#[test]
fn grefcoco_has_none_one_and_many_targets() {
    let records = read_fixture(Source::GRefCoco, "grefcoco/grefs(unc).json").records;
    let targets: Vec<_> = records.iter().map(|r| r.referring().expect("expressions").targets.len()).collect();
    assert_eq!(targets, [2, 0, 0, 1]);
    assert_eq!(records[3].split, SourceSplit::TestB);
    assert_eq!(records[1].referring().and_then(Referring::mask), None);
    // The second box reaches out of the picture and is clipped to it: 24 x 18 pixels.
    let many = records[0].referring().expect("expressions");
    assert_eq!(many.targets[1].bbox(), Some(BBox::new(40.0, 30.0, 64.0, 48.0)));
    assert_eq!(mask(&records[0]).area(), 200 + 60 + 24 * 18);
}

#[test]
fn reason_seg_paints_small_shapes_over_large_ones() {
    let records = read_fixture(Source::ReasonSeg, "reasonseg/train").records;
    let [record] = &records[..] else { panic!("one picture") };
    let referring = record.referring().expect("expressions");
    assert!(referring.expressions.iter().all(|e| e.sentence) && referring.expressions.len() == 2);
    assert_eq!(record.image.size, Some(Size::new(32, 24)));
    record.image.check().expect("the picture has that size");
    let areas: Vec<_> = referring.targets.iter().map(|t| t.mask().area()).collect();
    assert_eq!(areas, [15 * 15 - 4 * 4, 4 + 4], "a hole; two shapes of one group");
    assert_eq!(referring.targets[1].bbox(), Some(BBox::new(22.0, 5.0, 28.0, 7.0)));
    let ignored = referring.ignored.as_ref().expect("something is ignored").mask();
    assert_eq!(ignored.area(), 16);
    assert_eq!(ignored.overlap(&mask(record)), Some((0, 16 + 225 - 16 + 8)));
}

#[test]
fn reason_seg_takes_windows_text_and_the_split_of_its_folder() {
    let records = read_fixture(Source::ReasonSeg, "reasonseg/val").records;
    assert_eq!((records[0].split, texts(&records[0])), (SourceSplit::Val, vec!["the chef\u{2019}s hat"]));
    let error = read(Source::ReasonSeg, &files(fixture("reasonseg"))).expect_err("no split");
    assert_eq!(error.kind(), ReadErrorKind::Value);
}

#[test]
fn llava_keeps_turns_and_leaves_out_what_has_no_picture() {
    let collection = read_fixture(Source::Llava, "llava/llava_instruct.json");
    assert_eq!((collection.records.len(), collection.without_picture), (3, 1));
    let ids: Vec<_> = collection.records.iter().map(|r| r.image.id.clone()).collect();
    assert_eq!(ids, [ImageId::Coco(131_074), ImageId::Coco(999), ImageId::Named("2354786".to_owned())]);
    let Content::Dialogue(turns) = &collection.records[1].content else { panic!("a conversation") };
    let turn = |speaker, text: &str| Turn { speaker, text: text.to_owned() };
    let (human, assistant) = (Speaker::Human, Speaker::Assistant);
    assert_eq!(
        *turns,
        [turn(human, "Where?"), turn(assistant, "Here."), turn(human, "Sure?"), turn(assistant, "Yes.")]
    );
}

#[test]
fn leakage_is_removed_within_and_between_sources() {
    let mut refcoco = read_fixture(Source::RefCoco, "refcoco/refs(unc).p").records;
    let mut grefcoco = read_fixture(Source::GRefCoco, "grefcoco/grefs(unc).json").records;
    let mut llava = read_fixture(Source::Llava, "llava/llava_instruct.json").records;
    let mut held_out = HeldOut::default();
    held_out.add(refcoco.iter().chain(&grefcoco).chain(&llava));
    assert_eq!(held_out.len(), 3);
    let names = |records: &[Record]| records.iter().map(|r| r.name.clone()).collect::<Vec<_>>();
    let one = |expressions| Dropped { records: 1, expressions, images: 1 };
    assert_eq!(held_out.drop_from(&mut refcoco), one(1));
    assert_eq!(names(&refcoco), ["ref 1", "ref 3", "ref 4"]);
    assert_eq!(held_out.drop_from(&mut grefcoco), Dropped { records: 2, expressions: 2, images: 2 });
    assert_eq!(names(&grefcoco), ["ref 1", "ref 4"]);
    assert_eq!(held_out.drop_from(&mut llava), one(0));
    assert_eq!(held_out.drop_from(&mut llava), Dropped::default());
}

#[test]
fn summaries_count_expressions_not_records() {
    let records = read_fixture(Source::GRefCoco, "grefcoco/grefs(unc).json").records;
    let summary = SourceSummary::of(&records);
    assert_eq!(
        summary,
        SourceSummary { images: 3, records: 4, expressions: 5, targets: 2 * 2 + 1, no_target: 2, turns: 0 }
    );
}

/// A data set with one thing changed: what is written, and how reading it fails.
struct Damage {
    name: &'static str,
    edit: fn(&mut Value, &mut Value),
    kind: ReadErrorKind,
    record: Option<&'static str>,
}

const fn damage(
    name: &'static str,
    kind: ReadErrorKind,
    record: Option<&'static str>,
    edit: fn(&mut Value, &mut Value),
) -> Damage {
    Damage { name, edit, kind, record }
}

/// `r` are the refs of gRefCOCO, `i` its instances.
const DAMAGES: [Damage; 22] = {
    use ReadErrorKind::*;
    let (ann, ref1) = (Some("annotation 1719310"), Some("ref 1"));
    [
        damage("odd corners", Polygon, ann, |_, i| i["annotations"][0]["segmentation"][0] = json!([1, 2, 3])),
        damage("far corner", Polygon, ann, |_, i| i["annotations"][0]["segmentation"][0][3] = json!(1e30)),
        damage("no parts", Value, ann, |_, i| i["annotations"][0]["segmentation"] = json!([])),
        damage("no segmentation", Value, ann, |_, i| i["annotations"][0]["segmentation"] = json!(null)),
        damage("mixed", Value, ann, |_, i| {
            i["annotations"][0]["segmentation"][0] = json!({"counts": [64 * 48], "size": [48, 64]})
        }),
        damage("short runs", RunLengths, ann, |_, i| {
            i["annotations"][0]["segmentation"] = json!({"counts": [5, 6], "size": [48, 64]})
        }),
        damage("bad string", RunLengths, ann, |_, i| {
            i["annotations"][0]["segmentation"] = json!({"counts": "~~", "size": [48, 64]})
        }),
        damage("runs of another size", Size, ann, |_, i| {
            i["annotations"][0]["segmentation"] = json!({"counts": [64 * 48], "size": [64, 48]})
        }),
        damage("negative box", Value, ann, |_, i| i["annotations"][0]["bbox"][2] = json!(-1)),
        damage("no such category", Unknown, ann, |_, i| i["annotations"][0]["category_id"] = json!(9)),
        damage("annotation twice", Duplicate, Some("annotation 1719311"), |_, i| {
            i["annotations"][0]["id"] = json!(1_719_311)
        }),
        damage("image twice", Duplicate, Some("image 581857"), |_, i| i["images"][2]["id"] = json!(581_857)),
        damage("huge image", Size, Some("image 581857"), |_, i| i["images"][0]["width"] = json!(4_000_000_000u64)),
        damage("empty image", Size, Some("image 581857"), |_, i| i["images"][0]["height"] = json!(0)),
        damage("path", Path, Some("image 581857"), |_, i| i["images"][0]["file_name"] = json!("../../x.jpg")),
        damage("no annotations", Json, None, |_, i| i["annotations"] = json!(3)),
        damage("unknown annotation", Unknown, ref1, |r, _| r[0]["ann_id"] = json!([12])),
        damage("annotation of another image", Unknown, ref1, |r, _| r[0]["ann_id"] = json!([203])),
        damage("ref twice", Duplicate, ref1, |r, _| r[1]["ref_id"] = json!(1)),
        damage("split", Value, ref1, |r, _| r[0]["split"] = json!("trian")),
        damage("no target but one", Value, ref1, |r, _| r[0]["no_target"] = json!(true)),
        damage("no id", Json, Some("entry 2"), |r, _| r[2]["ref_id"] = json!("three")),
    ]
};

#[test]
fn damage_is_an_error_with_file_and_record() {
    let load = |path: &str| -> Value {
        serde_json::from_slice(&std::fs::read(fixture(path)).expect("the fixture is there")).expect("JSON")
    };
    let (refs, instances) = (load("grefcoco/grefs(unc).json"), load("grefcoco/instances.json"));
    let mut failed = Vec::new();
    for Damage { name, edit, kind, record } in DAMAGES {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (mut r, mut i) = (refs.clone(), instances.clone());
        edit(&mut r, &mut i);
        std::fs::write(dir.path().join("refs.json"), r.to_string()).expect("writable");
        std::fs::write(dir.path().join("instances.json"), i.to_string()).expect("writable");
        match read(Source::GRefCoco, &files(dir.path().join("refs.json"))) {
            Ok(_) => failed.push(format!("{name}: read without an error")),
            Err(e) if (e.kind(), e.record()) != (kind, record) => failed.push(format!("{name}: {}", chain(&e))),
            Err(e) => {
                assert!(e.file().starts_with(dir.path()) && e.source().is_some() || kind == ReadErrorKind::Duplicate)
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn what_is_not_json_or_not_there_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("list.json");
    let fails = |source, text: &str| {
        std::fs::write(&path, text).expect("writable");
        read(source, &files(&path)).expect_err("damaged")
    };
    let nan = fails(Source::GRefCoco, r#"[{"ref_id": NaN}]"#);
    assert_eq!((nan.kind(), nan.record()), (ReadErrorKind::Json, Some("entry 0")), "{nan}");
    assert_eq!(fails(Source::Llava, "[]]").kind(), ReadErrorKind::Json);
    assert_eq!(fails(Source::Llava, "[{").kind(), ReadErrorKind::Json);
    let turns = |image: &str, value: &str| json!([{"image": image, "conversations": [{"from": "human", "value": value}, {"from": "gpt", "value": "x"}]}]);
    let twice = fails(Source::Llava, &turns("a.jpg", "<image> or <image>?").to_string());
    assert_eq!((twice.kind(), twice.record()), (ReadErrorKind::Value, Some("entry 0")));
    assert_eq!(fails(Source::Llava, &turns("/a.jpg", "<image> what?").to_string()).kind(), ReadErrorKind::Path);
    let missing = read(Source::RefCoco, &files(dir.path().join("none.p"))).expect_err("not there");
    assert_eq!(missing.kind(), ReadErrorKind::Io);
    assert!(chain(&missing).contains("none.p"), "{}", chain(&missing));
}

#[test]
fn hostile_pickles_are_refused_with_their_instruction() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("refs(unc).p");
    let fails = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("writable");
        read(Source::RefCoco, &files(&path)).expect_err("hostile")
    };
    let error = fails(b"(lp0\ncposix\nsystem\np1\n(S'true'\ntRa.");
    assert_eq!(error.kind(), ReadErrorKind::Pickle);
    let source = error.source().and_then(|s| s.downcast_ref::<PickleError>()).expect("a pickle error");
    assert_eq!((source.kind(), source.opcode_name(), source.at()), (PickleErrorKind::Refused, "GLOBAL", 5));
    // One sentence, recalled a thousand times by one ref.
    let mut bomb = b"](}(U\x06ref_idK\x01U\x05splitU\x05trainU\x09sentences]}(U\x04sentU\x01auq\x01a(".to_vec();
    bomb.extend(b"h\x01".repeat(1000));
    bomb.extend(b"eue.");
    let error = fails(&bomb);
    assert_eq!((error.kind(), error.record()), (ReadErrorKind::Value, Some("ref 1")), "{}", chain(&error));
    assert!(chain(&error).contains("without end"), "{}", chain(&error));
    let error = fails(b"](}(U\x06ref_idK\x02uK\x07e.");
    assert!(chain(&error).contains("ref 2: `split` is missing"), "{}", chain(&error));
}

#[test]
fn a_picture_of_another_size_is_an_error() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::copy(fixture("reasonseg/val/5678.jpg"), dir.path().join("5678.jpg")).expect("writable");
    let text = json!({"text": ["x"], "shapes": [], "imageWidth": 10, "imageHeight": 17}).to_string();
    std::fs::write(dir.path().join("5678.json"), text).expect("writable");
    let in_split = Files { split: Some(SourceSplit::Test), ..files(dir.path()) };
    let error = read(Source::ReasonSeg, &in_split).expect_err("10 x 17, but 9 x 17");
    assert_eq!(error.kind(), ReadErrorKind::Size, "{}", chain(&error));
    std::fs::remove_file(dir.path().join("5678.jpg")).expect("writable");
    assert_eq!(read(Source::ReasonSeg, &in_split).expect_err("no picture").kind(), ReadErrorKind::Picture);

    let mut record = read_fixture(Source::ReasonSeg, "reasonseg/val").records.remove(0);
    record.image.size = Some(Size::new(17, 9));
    assert_eq!(record.image.check().expect_err("turned").kind(), ReadErrorKind::Size);
}
