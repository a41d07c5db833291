use super::*;
use crate::geometry::Size;
use crate::prompt::PointLabel;

const SIZE: Size<SourcePx> = Size::new(120, 80);

/// Grey with filled boxes.
fn scene(boxes: &[([u32; 4], [u8; 3])]) -> Image {
    let pixel = |x: u32, y: u32| {
        let hit = boxes.iter().rev().find(|([x1, y1, x2, y2], _)| (*x1..*x2).contains(&x) && (*y1..*y2).contains(&y));
        hit.map_or([120, 118, 122], |(_, rgb)| *rgb)
    };
    let rgb: Vec<u8> = (0..80).flat_map(|y| (0..120).flat_map(move |x| pixel(x, y))).collect();
    Image::from_rgb(SIZE, rgb).expect("sizes match")
}

const RED: [u8; 3] = [210, 30, 40];
const BLUE: [u8; 3] = [30, 50, 200];

fn ask(image: &Image, text: &str, hint: CountHint) -> Grounding {
    let mut ground = FakeGround::new(Arc::default());
    let command = ground.check(text, hint).expect("a fair command");
    ground.ground(image, &command, None).expect("grounds")
}

#[test]
fn colour_words_are_found_largest_first() {
    let image = scene(&[([5, 5, 15, 15], RED), ([40, 20, 80, 60], RED), ([90, 5, 110, 25], BLUE)]);
    let many = ask(&image, "the Red things", CountHint::NoneOrMore);
    assert_eq!(many.outcome, Outcome::Found);
    let lefts: Vec<f32> = many.instances.iter().map(|i| i.proposal.x1).collect();
    assert_eq!(lefts, [40.0, 5.0]);
    assert!(many.instances[0].points.iter().all(|p| p.label == PointLabel::On));
    assert_eq!(ask(&image, "the red box", CountHint::One).outcome, Outcome::Ambiguous);
    assert_eq!(ask(&image, "blue", CountHint::One).outcome, Outcome::Found);
    assert_eq!(ask(&image, "something green", CountHint::NoneOrMore).outcome, Outcome::Absent);
    assert_eq!(ask(&image, "the kettle", CountHint::NoneOrMore).outcome, Outcome::Unsure);
}

#[test]
fn every_strategy_but_ppg_is_known() {
    let image = scene(&[([40, 20, 80, 60], RED)]);
    let mut ground = FakeGround::new(Arc::default());
    let mut by = |strategy| {
        let command = ground.check("red", CountHint::One).expect("a fair command").by(strategy);
        ground.ground(&image, &command, None)
    };
    for (strategy, points) in [(Strategy::Pqpp, 25), (Strategy::Box, 0)] {
        let found = by(strategy).expect("grounds");
        assert_eq!((found.strategy, found.instances[0].points.len()), (strategy, points));
    }
    assert!(matches!(by(Strategy::Ppg), Err(PipelineError::Strategy(_))));
    assert!(FakeGround::strategies(Strategy::Ppg).is_err());
}

#[test]
fn prompts_get_the_region_under_them() {
    let image = scene(&[([40, 20, 80, 60], RED), ([50, 30, 60, 40], BLUE)]);
    let mut segment = FakeSegment::new(Arc::default());
    let embedding = segment.embed(&image).expect("embeds");
    let found = ask(&image, "red", CountHint::One);
    let points = found.instances[0].points.iter();
    let points = points.filter(|p| p.label == PointLabel::On).map(|p| (p.point, true)).collect();
    let prompt = Prompt { bbox: Some(found.instances[0].proposal), points };
    let nothing = Prompt { bbox: Some(BBox::new(0.0, 0.0, 20.0, 20.0)), points: vec![] };
    let masks = segment.segment(&embedding, &[prompt, nothing]).expect("segments");
    assert_eq!(masks[0].mask.area(), 40 * 40 - 10 * 10);
    assert!(!masks[0].mask.at(Point::new(55.0, 35.0)) && masks[0].mask.at(Point::new(41.0, 21.0)));
    assert_eq!((masks[1].mask.area(), masks[1].score), (0, 0.0));
}

#[test]
fn scripted_failures_come_once() {
    let play = Arc::<Play>::default();
    play.fail(1);
    let mut segment = FakeSegment::new(play.clone());
    let image = scene(&[]);
    assert!(matches!(segment.embed(&image), Err(PipelineError::Engine(_))));
    assert!(segment.embed(&image).is_ok());
    assert_eq!(play.begun(), 2);
}
