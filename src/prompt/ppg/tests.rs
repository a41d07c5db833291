//! What is written can be read, and nothing else is.

use proptest::prelude::*;

use super::*;
use crate::prompt::codec::MAX_BOXES;
use crate::prompt::dialect::tests::{tabletop_words, words};

/// What the toy model's tokenizer can say.
pub(crate) fn ppg_words() -> bundle::Ppg {
    toml::from_str(
        r#"
        query = "<user> find points {hint}: {command} <assistant>"
        point = "({x},{y},{label})"
        on = "1"
        off = "0"
        "#,
    )
    .expect("valid words")
}

pub(crate) fn dialect(positives: usize, negatives: usize, groups: usize) -> Dialect {
    words(|w| w.ppg = Some(bundle::Ppg { positives, negatives, groups, ..ppg_words() }))
}

fn prompt(b: [u32; 4], groups: &[&[(u32, u32, bool)]]) -> GridPrompt {
    let [x1, y1, x2, y2] = b.map(|v| v as f32);
    let label = |&(x, y, on): &(u32, u32, bool)| (Point::new(x as f32, y as f32), on);
    let groups = groups.iter().map(|g| g.iter().map(label).collect()).collect();
    GridPrompt { bbox: BBox::new(x1, y1, x2, y2), groups }
}

#[test]
fn the_paper_s_counts_are_the_defaults() {
    let d = words(|w| w.ppg = Some(ppg_words()));
    let ppg = d.ppg().expect("has PPG");
    assert_eq!((ppg.positives(), ppg.negatives(), ppg.groups()), (2, 1, 1));
    let query = ppg.query(CountHint::OneOrMore, "the {hint} mug");
    assert_eq!(query, "<user> find points one or more: the {hint} mug <assistant>");
    assert!(words(|_| ()).ppg().is_none());
}

#[test]
fn answers_are_written_as_the_paper_writes_them() {
    let d = dialect(2, 1, 1);
    let ppg = d.ppg().expect("has PPG");
    let mug = prompt([281, 240, 863, 999], &[&[(300, 250, true), (863, 999, true), (281, 240, false)]]);
    let text = "[281,240,863,999](300,250,1)(863,999,1)(281,240,0)";
    assert_eq!(ppg.write(std::slice::from_ref(&mug)), Ok(text.to_owned()));
    assert_eq!(ppg.parse(" [281, 240,863,999] ( 300,250,1) (863,999,1)(281,240,0)\n"), Ok(Answer::Targets(vec![mug])));
    assert_eq!(ppg.write(&[]), Ok("no such object".to_owned()));
    assert_eq!(ppg.parse("no such object"), Ok(Answer::Absent));
}

#[test]
fn several_targets_and_groups_keep_their_order() {
    let d = dialect(1, 1, 2);
    let ppg = d.ppg().expect("has PPG");
    let a = prompt([0, 0, 10, 10], &[&[(1, 2, true), (3, 4, false)], &[(5, 6, true), (7, 8, false)]]);
    let b =
        prompt([500, 500, 999, 999], &[&[(999, 999, true), (500, 500, false)], &[(501, 501, true), (500, 999, false)]]);
    let text = ppg.write(&[a.clone(), b.clone()]).expect("can be said");
    assert_eq!(ppg.parse(&text), Ok(Answer::Targets(vec![a, b])));
}

#[test]
fn refuses_everything_else_with_its_place() {
    use AnswerErrorKind::*;
    let d = dialect(2, 1, 1);
    let ppg = d.ppg().expect("has PPG");
    let one = "[000,000,009,009](001,001,1)(002,002,1)(003,003,0)";
    let many = one.repeat(MAX_BOXES + 1);
    let cases = [
        ("", Empty, 0),
        ("[000,000,009,009]", Truncated, 17),
        ("[000,000,009,009](001,001,1)(002,002,1)", Truncated, 39),
        ("[000,000,009,009](001,001,1)(002,002,1)(003,003", Truncated, 47),
        ("[000,000,009,009](001,001,1)(002,002,1)(003,003,", Truncated, 48),
        ("[000,000,009,009](001,001,1)(002,002,1)(003,003,0", Truncated, 49),
        ("[000,000,009,009](001,001,0)(002,002,1)(003,003,0)", Label, 26),
        ("[000,000,009,009](001,001,1)(002,002,1)(003,003,1)", Label, 48),
        ("[000,000,009,009](001,001,2)(002,002,1)(003,003,0)", Label, 26),
        ("[000,000,009,009](001,001,10)(002,002,1)(003,003,0)", Unexpected, 27),
        ("[000,000,009,009](001,001)(002,002,1)(003,003,0)", Unexpected, 25),
        ("[000,000,009,009](001,010,1)(002,002,1)(003,003,0)", OutsideBox, 17),
        ("[005,005,009,009](005,005,1) (004,005,1)(006,006,0)", OutsideBox, 29),
        ("[000,000,009,009](01,001,1)(002,002,1)(003,003,0)", NotANumber, 18),
        ("[009,000,000,009](001,001,1)(002,002,1)(003,003,0)", Inverted, 0),
        ("[000,000,009,009][000,000,009,009]", Unexpected, 17),
        ("[000,000,009,009]no such object", Unexpected, 17),
        ("no such object (001,001,1)", Trailing, 15),
        ("[000,000,009,009](001,001,1)(002,002,1)(003,003,0)(004,004,0)", Trailing, 50),
        ("(001,001,1)[000,000,009,009](002,002,1)(003,003,0)", Unexpected, 0),
        (&many, TooMany, one.len() * MAX_BOXES),
    ];
    for (text, kind, at) in cases {
        let error = ppg.parse(text).expect_err(text);
        assert_eq!((error.kind(), error.at()), (kind, at), "{text}");
    }
    let narrow = words(|w| {
        w.coordinate_scale = 500;
        w.ppg = Some(ppg_words());
    });
    let text = "[000,000,500,500](001,001,1)(002,501,1)(003,003,0)";
    assert_eq!(narrow.ppg().expect("has PPG").parse(text).expect_err("501 > 500").kind(), OutOfRange);
}

#[test]
fn writes_nothing_that_could_not_be_read() {
    let d = dialect(1, 1, 1);
    let ppg = d.ppg().expect("has PPG");
    let cases = [
        (prompt([0, 0, 9, 9], &[]), AnswerErrorKind::Truncated),
        (prompt([0, 0, 9, 9], &[&[(1, 1, true)]]), AnswerErrorKind::Truncated),
        (prompt([0, 0, 9, 9], &[&[(1, 1, false), (2, 2, true)]]), AnswerErrorKind::Label),
        (prompt([0, 0, 9, 9], &[&[(1, 10, true), (2, 2, false)]]), AnswerErrorKind::OutsideBox),
        (prompt([0, 5, 9, 5], &[&[(1, 5, true), (2, 5, false)]]), AnswerErrorKind::Degenerate),
    ];
    for (prompt, kind) in cases {
        assert_eq!(ppg.write(&[prompt]).expect_err("unsayable").kind(), kind);
    }
}

#[test]
fn refuses_words_that_cannot_be_spoken() {
    use DialectErrorKind::*;
    type Change = fn(&mut bundle::Ppg);
    let cases: [(Change, DialectErrorKind, &str); 12] = [
        (|w| w.query = "find {hint}".into(), MissingSlot, "ppg.query"),
        (|w| w.query = "find {command} {box}".into(), UnknownSlot, "ppg.query"),
        (|w| w.point = "({x},{y})".into(), MissingSlot, "ppg.point"),
        (|w| w.point = "({x},{y}{label})".into(), Unreadable, "ppg.point"),
        (|w| w.point = "({x},{y},{label}".into(), Unreadable, "ppg.point"),
        (|w| w.on = " ".into(), Unreadable, "ppg.on"),
        (|w| w.off = "1 ".into(), Unreadable, "ppg.off"),
        (|w| w.positives = 0, Range, "ppg.positives"),
        (|w| w.positives = 17, Range, "ppg.positives"),
        (|w| w.negatives = 17, Range, "ppg.negatives"),
        (|w| w.groups = 0, Range, "ppg.groups"),
        (|w| w.groups = usize::MAX, Range, "ppg.groups"),
    ];
    for (i, (change, kind, field)) in cases.into_iter().enumerate() {
        let (mut words, mut ppg) = (tabletop_words(), ppg_words());
        change(&mut ppg);
        words.ppg = Some(ppg);
        let error = Dialect::compile(&words).expect_err(field);
        assert_eq!((error.kind(), error.field()), (kind, field), "case {i}: {error}");
    }
}

/// A target that may be said in a dialect of these counts.
fn sayable(positives: usize, negatives: usize, groups: usize) -> impl Strategy<Value = GridPrompt> {
    let bbox = (0u32..999, 0u32..999).prop_flat_map(|(x, y)| (Just(x), Just(y), x + 1..=999, y + 1..=999));
    bbox.prop_flat_map(move |(x1, y1, x2, y2)| {
        let points = prop::collection::vec((x1..=x2, y1..=y2), groups * (positives + negatives));
        points.prop_map(move |points| {
            let label = |(i, (x, y)): (usize, &(u32, u32))| (Point::new(*x as f32, *y as f32), i < positives);
            let group = |g: &[(u32, u32)]| g.iter().enumerate().map(label).collect();
            let bbox = BBox::new(x1 as f32, y1 as f32, x2 as f32, y2 as f32);
            GridPrompt { bbox, groups: points.chunks(positives + negatives).map(group).collect() }
        })
    })
}

fn answers() -> impl Strategy<Value = ((usize, usize, usize), Vec<GridPrompt>)> {
    (1usize..4, 0usize..3, 1usize..4)
        .prop_flat_map(|(p, n, k)| (Just((p, n, k)), prop::collection::vec(sayable(p, n, k), 0..4)))
}

/// What holds for every point that is ever read.
fn check(answer: &Answer, (p, n, k): (usize, usize, usize)) -> Result<(), TestCaseError> {
    let Answer::Targets(targets) = answer else { return Ok(()) };
    prop_assert!(!targets.is_empty() && targets.len() <= MAX_BOXES);
    for GridPrompt { bbox, groups } in targets {
        prop_assert!(bbox.x1 >= 0.0 && bbox.x1 < bbox.x2 && bbox.x2 <= 999.0);
        prop_assert!(bbox.y1 >= 0.0 && bbox.y1 < bbox.y2 && bbox.y2 <= 999.0);
        prop_assert_eq!(groups.len(), k);
        for group in groups {
            prop_assert_eq!(group.len(), p + n);
            for (i, (point, on)) in group.iter().enumerate() {
                prop_assert!((bbox.contains(*point) || !on) && *on == (i < p));
                prop_assert!(point.x.fract() == 0.0 && point.y.fract() == 0.0);
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(((p, n, k), targets) in answers()) {
        let d = dialect(p, n, k);
        let ppg = d.ppg().expect("has PPG");
        let text = ppg.write(&targets).expect("sayable");
        let answer = if targets.is_empty() { Answer::Absent } else { Answer::Targets(targets) };
        prop_assert_eq!(ppg.parse(&text), Ok(answer));
    }

    #[test]
    fn a_cut_answer_is_an_error_or_whole_targets(((p, n, k), targets) in answers(), cut in 0.0f64..1.0) {
        let d = dialect(p, n, k);
        let ppg = d.ppg().expect("has PPG");
        let text = ppg.write(&targets).expect("sayable");
        let at = (text.len() as f64 * cut) as usize;
        if let Ok(answer) = ppg.parse(&text[..at]) {
            check(&answer, (p, n, k))?;
            let Answer::Targets(read) = answer else { panic!("half a sentence is no answer") };
            prop_assert!(read.len() < targets.len() && read[..] == targets[..read.len()]);
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in ".{0,120}") {
        let d = dialect(2, 1, 1);
        let _ = d.ppg().expect("has PPG").parse(&text);
    }

    #[test]
    fn answer_like_text_never_yields_a_bad_point(text in "(\\[|\\(|[0-9]{1,4}|,|\\]|\\)|,1\\)|,0\\)| |no|é){0,40}") {
        let d = dialect(1, 0, 1);
        if let Ok(answer) = d.ppg().expect("has PPG").parse(&text) {
            check(&answer, (1, 0, 1))?;
        }
    }

    #[test]
    fn one_changed_sign_never_yields_a_bad_point(
        ((p, n, k), targets) in answers(), place in 0.0f64..1.0, sign in "[0-9(),\\[\\] a]"
    ) {
        let d = dialect(p, n, k);
        let ppg = d.ppg().expect("has PPG");
        let mut text = ppg.write(&targets).expect("sayable");
        let at = (text.len() as f64 * place) as usize;
        text.replace_range(at..at + 1, &sign);
        if let Ok(answer) = ppg.parse(&text) {
            check(&answer, (p, n, k))?;
        }
    }

    #[test]
    fn a_point_on_the_target_and_outside_its_box_is_an_error(
        (x1, y1) in (1u32..900, 1u32..900), (w, h) in (1u32..50, 1u32..50), (x, y) in (0u32..1000, 0u32..1000),
    ) {
        let d = dialect(1, 0, 1);
        let (x2, y2) = (x1 + w, y1 + h);
        let bbox = format!("[{x1:03},{y1:03},{x2:03},{y2:03}]");
        let off = format!("{bbox}({x1:03},{y1:03},1)({x:03},{y:03},0)");
        check(&dialect(1, 1, 1).ppg().expect("has PPG").parse(&off).expect("off may be anywhere"), (1, 1, 1))?;
        let text = format!("{bbox}({x:03},{y:03},1)");
        let inside = (x1..=x2).contains(&x) && (y1..=y2).contains(&y);
        match d.ppg().expect("has PPG").parse(&text) {
            Ok(answer) => {
                prop_assert!(inside);
                check(&answer, (1, 0, 1))?;
            }
            Err(error) => prop_assert_eq!((inside, error.kind()), (false, AnswerErrorKind::OutsideBox)),
        }
    }
}
