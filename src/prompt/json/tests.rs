use proptest::prelude::*;

use super::reader::{MAX_JSON_BYTES, MAX_POINTS};
use super::*;
use crate::engine::bundle::DialectName;
use crate::geometry::{BBox, GridScale, ModelPx, Point, Size, SourcePx};
use crate::prompt::MAX_BOXES;
use crate::prompt::{parse_answer, progress_within};

fn dialect(name: DialectName) -> Dialect {
    let words = bundle::Dialect { prefix: "<image>".into(), ..name.words() };
    Dialect::compile(&words).expect("compiles")
}

/// Qwen2.5-VL's about a frame that is resized to 644 x 476.
fn pixels() -> Dialect {
    let mut dialect = dialect(DialectName::QwenJson);
    dialect.fit(Size::<ModelPx>::new(644, 476)).expect("can be said");
    dialect
}

fn target(corners: [u32; 4], points: &[(u32, u32)]) -> GridPrompt {
    let [x1, y1, x2, y2] = corners.map(|v| v as f32);
    let group: Vec<_> = points.iter().map(|(x, y)| (Point::new(*x as f32, *y as f32), true)).collect();
    let groups = if group.is_empty() { Vec::new() } else { vec![group] };
    GridPrompt { bbox: BBox::new(x1, y1, x2, y2), groups }
}

#[test]
fn reads_what_grounding_models_write() {
    let one = [target([12, 40, 310, 222], &[])];
    let two = [target([0, 0, 644, 476], &[]), target([1, 2, 3, 4], &[])];
    let pointed = [target([12, 40, 310, 222], &[(100, 50)])];
    let points = [target([12, 40, 310, 222], &[(100, 50), (12, 222)])];
    let cases: [(&str, &[GridPrompt]); 10] = [
        ("```json\n[\n\t{\"bbox_2d\": [12, 40, 310, 222], \"label\": \"the mug\"}\n]\n```", &one),
        ("[{\"bbox_2d\":[12,40,310,222]}]", &one),
        ("```\n[ { \"label\" : \"\\u00e9\\\"\" , \"bbox_2d\" : [ 12 , 40 , 310 , 222 ] } ]\n```\n", &one),
        ("[{\"bbox_2d\": [0, 0, 644, 476]}, {\"bbox_2d\": [1, 2, 3, 4]}]", &two),
        ("[{\"bbox_2d\": [12, 40, 310, 222], \"point_2d\": [100, 50], \"label\": \"\"}]", &pointed),
        ("[{\"point_2d\": [[100, 50], [12, 222]], \"bbox_2d\": [12, 40, 310, 222]}]", &points),
        ("[{\"point_2d\": [ [ 100 , 50 ] ], \"bbox_2d\": [12, 40, 310, 222]}]", &pointed),
        ("[]", &[]),
        ("```json\n[]\n```", &[]),
        (" [ ] ", &[]),
    ];
    for (text, targets) in cases {
        let answer = if targets.is_empty() { Answer::Absent } else { Answer::Targets(targets.to_vec()) };
        assert_eq!(parse_answer(text, &pixels()), Ok(answer), "{text}");
    }
}

#[test]
fn refuses_everything_else_with_its_place() {
    use Kind::*;
    let many = format!("[{}]", ["{\"bbox_2d\": [1, 2, 3, 4]}"; MAX_BOXES + 1].join(","));
    let points = format!("[{{\"point_2d\": [{}]}}]", ["[1, 2]"; MAX_POINTS + 1].join(","));
    let label = format!("[{{\"label\": \"{}\"}}]", "x".repeat(600));
    let long = format!("[{}", " ".repeat(MAX_JSON_BYTES));
    let space = format!("[{}]", " ".repeat(65));
    let cases = [
        ("", Empty, 0),
        (" \n", Empty, 2),
        ("[", Truncated, 1),
        ("```json\n[]\n``", Truncated, 13),
        ("[{\"bbox_2d\": [12, 40, 310, 22", Truncated, 29),
        ("[{\"bbox_2d\": [310, 40, 12, 22", Truncated, 29),
        ("[{\"bbox_2d\": [12, 40, 310, 222], \"label\": \"the", Truncated, 46),
        ("There is no mug.", Unexpected, 0),
        ("{\"bbox_2d\": [12, 40, 310, 222]}", Unexpected, 0),
        ("[[12, 40, 310, 222]]", Unexpected, 1),
        ("[{}]", Unexpected, 2),
        ("[{\"label\": \"the mug\"}]", Unexpected, 1),
        ("[{\"label\": \"a\", \"label\": \"b\"}]", Unexpected, 16),
        ("[{\"box\": [12, 40, 310, 222]}]", Unexpected, 2),
        ("[{\"bbox_2d\": [12, 40, 310]}]", Unexpected, 25),
        ("[{\"bbox_2d\": [12, 40, 310, 222, 1]}]", Unexpected, 30),
        ("[{\"bbox_2d\": [12, 40, 310, 222],}]", Unexpected, 32),
        ("[{\"bbox_2d\": [12, 40, 310, 222], \"label\": \"\\ud800\"}]", Unexpected, 42),
        ("[{\"bbox_2d\": [12, 40, 310, 222], \"label\": \"a\nb\"}]", Unexpected, 42),
        ("[{\"bbox_2d\": [\"12\", 40, 310, 222]}]", NotANumber, 14),
        ("[{\"bbox_2d\": [-12, 40, 310, 222]}]", NotANumber, 14),
        ("[{\"bbox_2d\": [1e2, 40, 310, 222]}]", NotANumber, 14),
        ("[{\"bbox_2d\": [12.5, 40, 310, 222]}]", NotANumber, 14),
        ("[{\"bbox_2d\": [012, 40, 310, 222]}]", NotANumber, 14),
        ("[{\"bbox_2d\": [NaN, 40, 310, 222]}]", NotANumber, 14),
        ("[{\"bbox_2d\": [\u{661}, 40, 310, 222]}]", NotANumber, 14),
        ("[{\"bbox_2d\": [12, 40, 645, 222]}]", OutOfRange, 22),
        ("[{\"bbox_2d\": [12, 40, 310, 477]}]", OutOfRange, 27),
        ("[{\"bbox_2d\": [12, 40, 99999999999999999999, 477]}]", OutOfRange, 22),
        ("[{\"bbox_2d\": [310, 40, 12, 222]}]", Inverted, 13),
        ("[{\"bbox_2d\": [12, 40, 12, 222]}]", Degenerate, 13),
        ("[{\"bbox_2d\": [12, 40, 310, 222], \"point_2d\": [11, 50]}]", OutsideBox, 1),
        ("[{\"point_2d\": [100, 50], \"label\": \"the mug\"}]", NoBox, 1),
        ("[{\"bbox_2d\": [12, 40, 310, 222], \"point_2d\": \u{e9}[1, 2]}]", Unexpected, 45),
        ("[] and more", Trailing, 3),
        ("```json\n[]\n``` there", Trailing, 15),
        (&many, TooMany, 833),
        (&points, TooMany, 127),
        (&label, TooLong, 11),
        (&long, TooLong, MAX_JSON_BYTES),
        (&space, TooLong, 1),
    ];
    for (text, kind, at) in cases {
        let error = parse_answer(text, &pixels()).expect_err(text);
        assert_eq!((error.kind(), error.at()), (kind, at), "{text}");
    }
}

#[test]
fn texts_are_told_apart() {
    let dialect = pixels();
    let cases = [
        ("", Progress::Open),
        ("``", Progress::Open),
        ("```json\n[", Progress::Open),
        ("```json\n[]", Progress::Open),
        ("```json\n[]\n```", Progress::Whole),
        ("[]", Progress::Whole),
        ("[\n", Progress::Open),
        // Behind white space a target was meant.
        ("[\n]", Progress::Dead),
        ("[{\"label\"", Progress::Dead),
        ("[{\"point_2d\"", Progress::Dead),
        ("[{\"bbox_2d\": [64", Progress::Open),
        ("[{\"bbox_2d\": [644", Progress::Dead),
        ("[{\"bbox_2d\": [643,", Progress::Open),
        ("[{\"bbox_2d\": [500, 0, 5", Progress::Open),
        ("[{\"bbox_2d\": [500, 0, 500", Progress::Dead),
        ("[{\"bbox_2d\": [500, 0, 7", Progress::Dead),
        ("[{\"bbox_2d\": [500, 0, 50,", Progress::Dead),
        ("[{\"bbox_2d\": [0, 0, 0", Progress::Dead),
        ("[{\"bbox_2d\": [1, 0, 501, 1], \"label\": \"a", Progress::Open),
        ("[{\"bbox_2d\": [1, 0, 501, 1], \"label\": \"\\", Progress::Dead),
        ("[{\"bbox_2d\": [1, 0, 501, 1]}, {", Progress::Open),
        ("[{\"bbox_2d\": [1, 0, 501, 1]}]", Progress::Whole),
        ("none", Progress::Dead),
    ];
    for (text, wanted) in cases {
        assert_eq!(progress_within(text, usize::MAX, &dialect), wanted, "{text}");
    }
}

#[test]
fn who_names_a_target_says_so_with_the_first_sign_of_it() {
    let dialect = pixels();
    let cases = [
        ("[", None),
        ("[\n", None),
        ("[ {", Some(true)),
        ("[]", Some(false)),
        ("```json\n[]", Some(false)),
        ("x", None),
    ];
    for (text, wanted) in cases {
        assert_eq!(names_target(text, &dialect), wanted, "{text}");
    }
}

#[test]
fn what_is_missing_is_counted_to_the_byte() {
    let dialect = pixels();
    let whole = "[{\"bbox_2d\":[100,0,101,1]}]";
    for at in 1..whole.len() {
        let missing = whole.len() - at;
        // A number that can end does, and the smallest corner that is left is that of this box.
        let enough = progress_within(&whole[..at], missing, &dialect);
        assert_eq!(enough, Progress::Open, "{}", &whole[..at]);
    }
    assert_eq!(progress_within("[{\"bbox_2d\":[100,0,1", 6, &dialect), Progress::Dead);
    assert_eq!(progress_within("[{\"bbox_2d\":[100,0,1", 7, &dialect), Progress::Open);
}

#[test]
fn an_input_with_sides_that_cannot_be_said_is_refused() {
    let mut pixels = pixels();
    let error = pixels.fit(Size::<ModelPx>::new(100_000, 28)).expect_err("six digits");
    assert_eq!(error.field(), "coordinate_scale");
    assert_eq!(pixels.scale(), GridScale { x: 644, y: 476 }, "stays as it was");
    let mut relative = dialect(DialectName::Qwen3Json);
    relative.fit(Size::<ModelPx>::new(100_000, 28)).expect("does not matter");
    assert_eq!(relative.scale(), GridScale::square(1000));
}

/// Signs of which answers are made, in pieces as tokens have them.
const PIECES: [&str; 35] = [
    "[",
    "]",
    "{",
    "}",
    "[\n\t{\"",
    "bbox_2d",
    "\": [",
    "label",
    "\"label\"",
    "\"point_2d\"",
    ":",
    ",",
    ", ",
    " ",
    "\n",
    "\"",
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "7",
    "8",
    "9",
    "64",
    "```",
    "json",
    "mug",
    "\u{e9}",
    "\\",
    "\"}",
    "}]",
    "`",
];

proptest! {
    #[test]
    fn a_box_comes_back_within_a_pixel_of_the_input(
        (w, h) in (32u32..4000, 32u32..4000),
        (wide, high) in (1u32..100, 1u32..100),
        at in proptest::array::uniform4(0.0f32..1.0),
        label in ".{0,20}",
        relative in any::<bool>(),
    ) {
        let mut dialect = dialect(if relative { DialectName::Qwen3Json } else { DialectName::QwenJson });
        let input = Size::<ModelPx>::new(28 * wide, 28 * high);
        dialect.fit(input).expect("can be said");
        let (size, scale) = (Size::<SourcePx>::new(w, h), dialect.scale());
        let [x1, y1, x2, y2] = at;
        let (fw, fh) = (w as f32, h as f32);
        let bbox = BBox::<SourcePx>::new(x1 * fw, y1 * fh, x2 * fw, y2 * fh);
        let said = scale.bbox_to_grid(bbox, size);
        prop_assume!(said.width() > 0.0 && said.height() > 0.0);
        let centre = Point::new(said.centre().x.floor(), said.centre().y.floor());
        let targets = [
            GridPrompt { bbox: said, groups: Vec::new() },
            GridPrompt { bbox: said, groups: vec![vec![(centre, true)]] },
        ];
        let text = dialect.write_answer(&targets, &label);
        prop_assert_eq!(parse_answer(&text, &dialect), Ok(Answer::Targets(targets.to_vec())), "{}", text);
        let back = scale.bbox_to_source(said, size);
        // Half a step of the grid, which is half a pixel of the input where those are counted.
        let (sx, sy) = (fw / scale.x as f32 * 0.501, fh / scale.y as f32 * 0.501);
        prop_assert!((back.x1 - bbox.x1).abs() <= sx && (back.x2 - bbox.x2).abs() <= sx);
        prop_assert!((back.y1 - bbox.y1).abs() <= sy && (back.y2 - bbox.y2).abs() <= sy);
    }

    /// What is accepted is JSON, and says the same to a library.
    #[test]
    fn arbitrary_answers_never_panic_and_are_json_where_they_are_read(
        picks in proptest::collection::vec(0usize..PIECES.len(), 0..40),
        text in ".{0,60}",
    ) {
        let dialect = pixels();
        let _ = parse_answer(&text, &dialect);
        let text: String = picks.iter().map(|i| PIECES[*i]).collect();
        let Ok(answer) = parse_answer(&text, &dialect) else { return Ok(()) };
        let bare = text.trim().trim_start_matches("```json").trim_matches('`');
        let list: Vec<serde_json::Value> = serde_json::from_str(bare).expect("is JSON");
        let targets = match answer {
            Answer::Absent => Vec::new(),
            Answer::Targets(targets) => targets,
        };
        prop_assert_eq!(list.len(), targets.len());
        for (object, target) in list.iter().zip(&targets) {
            let b = target.bbox;
            prop_assert_eq!(&object["bbox_2d"], &serde_json::json!([b.x1, b.y1, b.x2, b.y2].map(|v| v as u32)));
            prop_assert!(b.x1 < b.x2 && b.x2 <= 644.0 && b.y1 < b.y2 && b.y2 <= 476.0);
        }
    }

    /// Whoever says nothing dead is never at a loss, ends within the room there is, and can be read.
    #[test]
    fn what_is_never_dead_can_be_read(
        picks in proptest::collection::vec(0usize..1000, 400),
        room in 60usize..400,
    ) {
        let dialect = pixels();
        let mut text = String::new();
        for pick in picks {
            // A byte a token: the worst there is, and one for the end.
            let next = |piece: &&str| format!("{text}{piece}");
            let fits = |t: &String| {
                t.len() <= room && progress_within(t, room - t.len(), &dialect) != Progress::Dead
            };
            let alive: Vec<String> = PIECES.iter().map(next).filter(fits).collect();
            let whole = progress_within(&text, 0, &dialect) == Progress::Whole;
            prop_assert!(whole || !alive.is_empty(), "at a loss: {}", text);
            prop_assert_eq!(parse_answer(&text, &dialect).is_ok(), whole, "{}", text);
            if whole {
                break;
            }
            text.clone_from(&alive[pick % alive.len()]);
        }
        prop_assert!(parse_answer(&text, &dialect).is_ok(), "{}", text);
    }
}
