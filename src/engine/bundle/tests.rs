//! Bundles that are not what they claim to be: each refused with its own kind and the place at fault.

use std::fs;

use tempfile::TempDir;

use super::*;

const TEXT: &str = include_str!("testdata/bundle.toml");

/// A sealed bundle with small files in place of checkpoints; nothing here reads their content.
fn bundle() -> TempDir {
    let dir = TempDir::new().unwrap();
    for directory in ["mllm", "sam"] {
        fs::create_dir(dir.path().join(directory)).unwrap();
        fs::write(dir.path().join(directory).join("config.json"), format!("{{\"for\": \"{directory}\"}}")).unwrap();
        fs::write(dir.path().join(directory).join("model.safetensors"), [7; 64]).unwrap();
    }
    fs::write(dir.path().join(MANIFEST), TEXT).unwrap();
    seal(dir.path()).unwrap();
    dir
}

fn open(dir: &TempDir) -> Result<Bundle, BundleError> {
    Bundle::open(dir.path(), Verify::Hashes)
}

/// Opens a bundle after `edit` changed its manifest's text.
fn open_edited(edit: impl Fn(&str) -> String) -> BundleError {
    let dir = bundle();
    let text = fs::read_to_string(dir.path().join(MANIFEST)).unwrap();
    let edited = edit(&text);
    assert_ne!(text, edited, "the edit must change something");
    fs::write(dir.path().join(MANIFEST), edited).unwrap();
    open(&dir).unwrap_err()
}

#[test]
fn sealed_bundle_opens() {
    let dir = bundle();
    let opened = open(&dir).unwrap();
    assert_eq!(opened.manifest().files.len(), 4);
    assert_eq!(opened.fingerprint().len(), 16);
    assert_eq!(opened.manifest().dialect.bbox, "[{x1},{y1},{x2},{y2}]");
    assert_eq!(opened.manifest().eval["giou"].as_float(), Some(0.6));
}

#[test]
fn ppg_is_optional_and_its_counts_have_defaults() {
    let ppg = |text: &str| Manifest::parse(text).unwrap().dialect.ppg.map(|p| (p.positives, p.negatives, p.groups));
    assert_eq!(ppg(TEXT), Some((3, 2, 4)));
    let counts = "positives = 3\nnegatives = 2\ngroups = 4\n";
    assert_eq!(ppg(&TEXT.replace(counts, "")), Some((2, 1, 1)));
    let (start, end) = (TEXT.find("[dialect.ppg]").unwrap(), TEXT.find("[files]").unwrap());
    assert_eq!(ppg(&[&TEXT[..start], &TEXT[end..]].concat()), None);
}

#[test]
fn a_zoom_is_optional_and_has_a_least_side() {
    let zoom = |text: &str| Manifest::parse(text).unwrap().sam.zoom.map(|z| (z.factor, z.least_side));
    assert_eq!(zoom(TEXT), Some((2.5, 24)));
    assert_eq!(zoom(&TEXT.replace("least_side = 24\n", "")), Some((2.5, 32)));
    assert_eq!(zoom(&TEXT.replace("[sam.zoom]\nfactor = 2.5\nleast_side = 24\n", "")), None);
}

#[test]
fn seal_keeps_everything_but_the_files() {
    let dir = bundle();
    let sealed = fs::read_to_string(dir.path().join(MANIFEST)).unwrap();
    let (before, after) = TEXT.split_once("[files]").unwrap();
    assert!(sealed.starts_with(before));
    assert!(sealed.ends_with(&after[after.find("# figures").unwrap()..]));
    let first = open(&dir).unwrap().fingerprint().to_owned();
    assert_eq!(seal(dir.path()).unwrap().fingerprint, first, "sealing twice changes nothing");
    fs::write(dir.path().join("sam/extra.json"), "{}").unwrap();
    let again = seal(dir.path()).unwrap();
    assert_eq!(again.files, 5);
    assert_ne!(again.fingerprint, first);
    open(&dir).unwrap();
}

#[test]
fn seal_adds_a_missing_table() {
    let dir = bundle();
    let (head, tail) = TEXT.split_once("[files]").unwrap();
    let eval = &tail[tail.find("# figures").unwrap()..];
    fs::write(dir.path().join(MANIFEST), format!("{head}{eval}")).unwrap();
    assert_eq!(open(&dir).unwrap_err().kind(), BundleErrorKind::Unlisted);
    assert_eq!(seal(dir.path()).unwrap().files, 4);
    open(&dir).unwrap();
}

#[test]
fn damaged_files_are_refused() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage, BundleErrorKind, &str); 6] = [
        (
            "one flipped bit",
            |dir| {
                let path = dir.join("sam/model.safetensors");
                let mut bytes = fs::read(&path).unwrap();
                bytes[33] ^= 1;
                fs::write(path, bytes).unwrap();
            },
            BundleErrorKind::Hash,
            "sam/model.safetensors",
        ),
        (
            "truncated",
            |dir| fs::write(dir.join("mllm/model.safetensors"), [7; 63]).unwrap(),
            BundleErrorKind::Size,
            "mllm/model.safetensors",
        ),
        (
            "missing",
            |dir| fs::remove_file(dir.join("mllm/config.json")).unwrap(),
            BundleErrorKind::Missing,
            "mllm/config.json",
        ),
        (
            "a directory in place of a file",
            |dir| {
                fs::remove_file(dir.join("mllm/config.json")).unwrap();
                fs::create_dir(dir.join("mllm/config.json")).unwrap();
            },
            BundleErrorKind::Missing,
            "mllm/config.json",
        ),
        (
            "unlisted",
            |dir| fs::write(dir.join("sam/model-2.safetensors"), "x").unwrap(),
            BundleErrorKind::Unlisted,
            "sam/model-2.safetensors",
        ),
        ("no manifest", |dir| fs::remove_file(dir.join(MANIFEST)).unwrap(), BundleErrorKind::Open, MANIFEST),
    ];
    for (what, damage, kind, place) in cases {
        let dir = bundle();
        damage(dir.path());
        let error = open(&dir).unwrap_err();
        assert_eq!(error.kind(), kind, "{what}: {error}");
        assert!(error.place().ends_with(place), "{what}: {error}");
    }
}

#[test]
fn paths_that_leave_the_bundle_are_refused() {
    for path in ["../secret", "/etc/passwd", "sam/../../secret", "sam//config.json", "./sam", "C:/x", "sam\\\\x", ""] {
        let line = format!("[files]\n\"{path}\" = {{ bytes = 1, sha256 = \"{}\" }}", "0".repeat(64));
        let error = open_edited(|text| text.replacen("[files]", &line, 1));
        assert_eq!(error.kind(), BundleErrorKind::Path, "{path}: {error}");
        let error = open_edited(|text| text.replace("directory = \"sam\"", &format!("directory = \"{path}\"")));
        assert_eq!(error.kind(), BundleErrorKind::Path, "{path}: {error}");
    }
}

#[test]
fn manifest_values_are_rejected_not_clamped() {
    let cases = [
        ("format = 1", "format = 2", "format"),
        ("licence = \"MIT\"", "licence = \"\"", "licence"),
        ("max_answer_tokens = 96", "max_answer_tokens = 0", "mllm.max_answer_tokens"),
        ("width = 256", "width = 8", "mllm.image.width"),
        ("std = [0.5, 0.5, 0.5]", "std = [0.5, 0.0, 0.5]", "mllm.image.std"),
        ("mean = [0.5, 0.5, 0.5]", "mean = [nan, 0.0, 0.5]", "mllm.image.mean"),
        ("factor = 2.5", "factor = 0.5", "sam.zoom.factor"),
        ("factor = 2.5", "factor = nan", "sam.zoom.factor"),
        ("least_side = 24", "least_side = 0", "sam.zoom.least_side"),
        ("coordinate_scale = 999", "coordinate_scale = 1000", "dialect.coordinate_scale"),
        ("found = 0.5", "found = 1.5", "dialect.thresholds.found"),
        ("mask_score = 0.4", "mask_score = nan", "dialect.thresholds.mask_score"),
        (
            "mask_score = 0.4",
            "mask_score = 0.4\nstream = { found = 0.9, hold = 1.5 }",
            "dialect.thresholds.stream.hold",
        ),
        (
            "mask_score = 0.4",
            "mask_score = 0.4\nstream = { found = 0.9, absent = nan }",
            "dialect.thresholds.stream.absent",
        ),
        ("grid = [5, 5]", "grid = [5, 0]", "dialect.grid"),
        ("coordinates = \"relative\"", "coordinates = \"pixels\"", "dialect.coordinates"),
        ("absent_answer = \"no such object\"\n", "", "dialect.absent_answer"),
        ("no = \"no\"", "no = \"no\"\ncount_on = \" \"", "dialect.count_on"),
        ("{command} <assistant>", "<assistant>", "dialect.proposal_query"),
        ("{points} <assistant>", "{points} {points}", "dialect.points_query"),
        ("[{x},{y}]", "[{x},{z}]", "dialect.point"),
        ("no = \"no\"", "no = \"yes\"", "dialect.no"),
        ("points {hint}: {command}", "points {hint}", "dialect.ppg.query"),
        ("({x},{y},{label})", "({x},{y})", "dialect.ppg.point"),
        ("off = \"0\"", "off = \"1\"", "dialect.ppg.off"),
        ("positives = 3", "positives = 0", "dialect.ppg.positives"),
        ("negatives = 2", "negatives = 17", "dialect.ppg.negatives"),
        ("groups = 4", "groups = 0", "dialect.ppg.groups"),
    ];
    for (from, to, place) in cases {
        let error = open_edited(|text| text.replacen(from, to, 1));
        assert_eq!((error.kind(), error.place()), (BundleErrorKind::Invalid, place), "{from} -> {to}: {error}");
    }
    for (from, to) in [
        ("format = 1", "format = 1\ntypo = 2"),
        ("fit = \"squash\"", "fit = \"crop\""),
        ("yes = \"yes\"\n", ""),
        ("grid = [5, 5]", "grid = [5, 5, 5]"),
        ("[sam]", "[sam"),
        ("groups = 4", "group = 4"),
        ("on = \"1\"\n", ""),
    ] {
        let error = open_edited(|text| text.replacen(from, to, 1));
        assert_eq!(error.kind(), BundleErrorKind::Parse, "{from} -> {to}: {error}");
    }
}

#[test]
fn calibrating_keeps_everything_else_and_can_be_done_again() {
    let dir = bundle();
    let sealed = fs::read_to_string(dir.path().join(MANIFEST)).unwrap();
    let before = open(&dir).unwrap();
    assert_eq!(before.manifest().dialect.calibration, None);
    let mask = Some(MaskCalibration { language: 0.9, score: 1.25, fill: -2.5, bias: -0.1 });
    let first = Calibration { temperature: 1.7, bias: 0.3, mask };
    let fingerprint = calibrate(dir.path(), &first).unwrap();
    let opened = open(&dir).unwrap();
    assert_eq!((opened.fingerprint(), opened.manifest().dialect.calibration), (fingerprint.as_str(), Some(first)));
    assert_ne!(fingerprint, before.fingerprint());
    let written = fs::read_to_string(dir.path().join(MANIFEST)).unwrap();
    let start = written.find("[dialect.calibration]").unwrap();
    let rest = &written[start..];
    let end = start + rest.find("[files]").unwrap();
    assert_eq!([&written[..start], &written[end..]].concat(), sealed, "every other byte stays");
    let second = Calibration { temperature: 0.5, bias: 0.0, mask: None };
    calibrate(dir.path(), &second).unwrap();
    let opened = open(&dir).unwrap();
    assert_eq!(opened.manifest().dialect.calibration, Some(second));
    assert_eq!(opened.manifest().files, before.manifest().files);
}

#[test]
fn calibrations_out_of_range_are_refused_and_leave_the_bundle_alone() {
    let good = Calibration { temperature: 1.0, bias: 0.0, mask: None };
    let mask = |language, score, bias| Some(MaskCalibration { language, score, fill: 0.0, bias });
    let filled = Some(MaskCalibration { language: 1.0, score: 1.0, fill: 101.0, bias: 0.0 });
    let cases = [
        (Calibration { temperature: 0.0, ..good }, "temperature"),
        (Calibration { temperature: f32::NAN, ..good }, "temperature"),
        (Calibration { temperature: f32::INFINITY, ..good }, "temperature"),
        (Calibration { bias: 21.0, ..good }, "bias"),
        (Calibration { bias: f32::NAN, ..good }, "bias"),
        (Calibration { mask: mask(-0.1, 1.0, 0.0), ..good }, "mask.language"),
        (Calibration { mask: mask(0.0, 0.0, 0.0), ..good }, "mask"),
        (Calibration { mask: mask(1.0, 1.0, f32::NAN), ..good }, "mask.bias"),
        (Calibration { mask: filled, ..good }, "mask.fill"),
    ];
    let dir = bundle();
    for (calibration, key) in cases {
        let error = calibrate(dir.path(), &calibration).unwrap_err();
        assert_eq!((error.kind(), error.place()), (BundleErrorKind::Invalid, &*format!("dialect.calibration.{key}")));
        assert_eq!(open(&dir).unwrap().manifest().dialect.calibration, None);
    }
    Calibration { mask: mask(0.0, 1.0, 0.0), ..good }.validate().unwrap();
}
