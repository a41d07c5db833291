//! The field's metrics against pycocotools and numpy, on `metrics.json`, made by `make_metrics.py`.
//!
//! Every comparison prints both values; they may differ by 1e-6.

use sam4mllm::eval::{Judged, Metrics, Reliability, Score};
use sam4mllm::geometry::Size;
use sam4mllm::mask::{Mask, Rle};
use serde_json::Value;

const TOLERANCE: f64 = 1e-6;

fn golden() -> Value {
    serde_json::from_str(include_str!("metrics.json")).expect("is JSON")
}

fn mask(sample: &Value, key: &str) -> Option<Mask> {
    let side = |i: usize| sample["size"][i].as_u64().expect("a side") as u32;
    let rle = Rle::from_coco_string(sample[key].as_str()?, Size::new(side(1), side(0))).expect("run lengths");
    Some(rle.decode().expect("covers the picture"))
}

fn scores(golden: &Value) -> Vec<Score> {
    let samples = golden["samples"].as_array().expect("a list");
    samples.iter().map(|s| Score::new(mask(s, "truth").as_ref(), mask(s, "answer").as_ref(), None)).collect()
}

fn compare(name: &str, ours: f64, theirs: &Value) {
    let theirs = theirs.as_f64().unwrap_or_else(|| panic!("no {name}"));
    eprintln!("{name}: {ours:.9}, reference {theirs:.9}");
    assert!((ours - theirs).abs() <= TOLERANCE, "{name}");
}

#[test]
fn metrics_agree_with_pycocotools_and_numpy() {
    let golden = golden();
    let scores = scores(&golden);
    for (i, score) in scores.iter().enumerate() {
        let theirs = golden["samples"][i]["iou"].as_f64().expect("an IoU");
        assert!((score.iou() - theirs).abs() <= TOLERANCE, "sample {i}: {}, reference {theirs}", score.iou());
    }
    let ours = serde_json::to_value(Metrics::of(scores)).expect("is JSON");
    for (name, theirs) in golden["metrics"].as_object().expect("figures") {
        compare(name, ours[name].as_f64().unwrap_or_else(|| panic!("we have no {name}")), theirs);
    }
}

#[test]
fn calibration_agrees_with_numpy() {
    let golden = golden();
    let confidence = |i: usize| golden["samples"][i]["confidence"].as_f64().expect("a confidence");
    let judge = |(i, s): (usize, Score)| Judged { confidence: confidence(i), right: s.iou() >= 0.5 };
    let outcomes: Vec<Judged> = scores(&golden).into_iter().enumerate().map(judge).collect();
    for bins in [10, 15] {
        compare(&format!("ECE in {bins} bins"), Reliability::of(&outcomes, bins).ece, &golden["ece"][bins.to_string()]);
    }
    compare("AUROC", Reliability::of(&outcomes, 10).auroc.expect("both kinds"), &golden["auroc"]);
}
