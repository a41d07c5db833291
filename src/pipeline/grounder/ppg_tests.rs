//! PPG: one question, boxes and points in one answer.

use super::tests::{ground, grounder_of};
use super::*;
use crate::engine::bundle;
use crate::model::toy::{Calls, frame, speech};
use crate::prompt::AnswerErrorKind;
use crate::prompt::ppg::tests::ppg_words;

const ONE: &str = "[100,200,600,700](150,250,1)(600,700,1)(101,699,0)";

/// A model that was taught PPG of `groups` groups and gives `answer`.
fn taught(answer: &str, groups: usize) -> (Grounder, Calls) {
    let speech = speech(|w| w.ppg = Some(bundle::Ppg { groups, ..ppg_words() }));
    grounder_of(speech, 80, answer, (0.9, "mug"), 350)
}

fn by_ppg(grounder: &mut Grounder, hint: CountHint) -> Grounding {
    let command = grounder.check("the red mug", hint).expect("valid").by(Strategy::Ppg);
    grounder.ground(&frame(7), &command, None).expect("grounds")
}

#[test]
fn one_answer_holds_box_and_points() {
    let (mut g, calls) = taught(ONE, 1);
    let found = by_ppg(&mut g, CountHint::One);
    assert_eq!((found.outcome, found.strategy, found.malformed), (Outcome::Found, Strategy::Ppg, None));
    assert_eq!(found.answer.replace(' ', ""), ONE);
    let [instance] = &found.instances[..] else { panic!("one instance") };
    let labels: Vec<_> = instance.points.iter().map(|p| (p.label, p.p_yes)).collect();
    assert_eq!(labels, [(PointLabel::On, 1.0), (PointLabel::On, 1.0), (PointLabel::Off, 0.0)]);
    // The frame is 32 x 24.
    let (p, b) = (instance.points[1].point, instance.proposal);
    assert!((p.x - 600.0 / 999.0 * 32.0).abs() < 1e-3 && (p.y - 700.0 / 999.0 * 24.0).abs() < 1e-3, "{p:?}");
    let [prompt] = &instance.prompts()[..] else { panic!("one group is one prompt") };
    assert_eq!((prompt.bbox, prompt.points.len()), (Some(b), 3));
    assert_eq!(prompt.points.iter().map(|(_, on)| *on).collect::<Vec<_>>(), [true, true, false]);
    // 0.9 for the start, about 0.99 for the edges; nobody was asked about the points.
    assert!((instance.confidence - 0.9 * 0.99).abs() < 0.01, "{}", instance.confidence);
    // Prefix, query, and a pass for each number with what is the same in every answer behind it: no second round.
    assert_eq!((found.passes, calls.lock().expect("not poisoned").1), (12, 12));
    assert!(found.timings.iter().all(|(stage, _)| *stage != "points"));
}

#[test]
fn each_group_is_a_prompt_of_its_own() {
    let (mut g, _) = taught("[100,200,600,700](150,250,1)(600,700,1)(101,699,0)(160,260,1)(170,270,1)(600,200,0)", 2);
    let found = by_ppg(&mut g, CountHint::One);
    let [instance] = &found.instances[..] else { panic!("one instance") };
    let prompts = instance.prompts();
    assert_eq!(prompts.iter().map(|p| p.points.len()).collect::<Vec<_>>(), [3, 3]);
    assert!(prompts.iter().all(|p| p.bbox == Some(instance.proposal)));
    assert!((prompts[1].points[0].0.x - 160.0 / 999.0 * 32.0).abs() < 1e-3);
}

#[test]
fn several_targets_and_none_are_answered_as_by_pqpp() {
    let two = "[100,200,300,400](150,250,1)(160,260,1)(299,399,0)[500,200,900,400](550,250,1)(560,260,1)(899,399,0)";
    let (mut g, _) = taught(two, 1);
    let found = by_ppg(&mut g, CountHint::OneOrMore);
    assert_eq!((found.outcome, found.instances.len()), (Outcome::Found, 2));
    assert!(found.instances.iter().all(|i| i.points.len() == 3 && i.confidence > 0.8), "{:?}", found.instances);
    assert_eq!(by_ppg(&mut g, CountHint::One).outcome, Outcome::Ambiguous);

    let (mut g, _) = taught("no such object", 1);
    let absent = by_ppg(&mut g, CountHint::NoneOrMore);
    assert_eq!((absent.outcome, absent.instances.len(), absent.malformed), (Outcome::Absent, 0, None));
    // Prefix, query, and the drafted answer at once.
    assert_eq!(absent.passes, 3);
}

#[test]
fn malformed_answers_are_unsure_with_the_reason_and_never_a_mask() {
    use AnswerErrorKind::*;
    let cases = [
        ("[100,200,600,700]", Truncated),
        ("[100,200,600,700](150,250,1)(600,700,1)", Truncated),
        ("[100,200,600,700](150,250,1)(600,700,1)(101,699,1)", Label),
        ("[100,200,600,700](150,250,1)(601,700,1)(101,699,0)", OutsideBox),
        ("[100,200,600,700](150,250,1)(600,700,1)(101,699,0)(102,699,0)", Trailing),
        ("[100,200,600,700](150,red,1)(600,700,1)(101,699,0)", NotANumber),
        ("[600,200,100,700](150,250,1)(600,700,1)(101,699,0)", Inverted),
        ("no such red", Unexpected),
    ];
    for (answer, kind) in cases {
        let (mut g, _) = taught(answer, 1);
        let unsure = by_ppg(&mut g, CountHint::NoneOrMore);
        assert_eq!((unsure.outcome, unsure.instances.len(), unsure.confidence), (Outcome::Unsure, 0, 0.0), "{answer}");
        assert_eq!(unsure.malformed.map(|e| e.kind()), Some(kind), "{answer}");
        assert_eq!(unsure.answer.replace(' ', ""), answer.replace(' ', ""), "{answer}");
    }
    let speech = speech(|w| w.ppg = Some(ppg_words()));
    let (mut g, _) = grounder_of(speech, 30, ONE, (0.9, "mug"), 350);
    // All that was meant to be said is there; the model was only not seen to stop.
    let cut = by_ppg(&mut g, CountHint::One);
    assert_eq!((cut.outcome, cut.malformed.map(|e| e.kind())), (Outcome::Unsure, Some(Endless)));
}

#[test]
fn the_same_model_answers_by_every_strategy() {
    let (mut g, _) = taught("[100,200,600,700]", 1);
    assert_eq!(g.strategies().all().collect::<Vec<_>>(), Strategy::ALL);
    let usual = ground(&mut g, CountHint::One);
    assert_eq!((usual.strategy, usual.instances[0].points.len()), (Strategy::Pqpp, 25));
    assert_eq!(usual.instances[0].prompts().len(), 1);
}

#[test]
fn a_model_that_was_not_taught_refuses_before_it_looks() {
    let (mut g, calls) = grounder_of(speech(|_| ()), 80, ONE, (0.9, "mug"), 350);
    let command = g.check("the red mug", CountHint::One).expect("valid").by(Strategy::Ppg);
    let error = g.ground(&frame(7), &command, None).expect_err("was not taught");
    assert!(matches!(&error, PipelineError::Strategy(e) if e.strategy() == Strategy::Ppg), "{error}");
    assert_eq!(*calls.lock().expect("not poisoned"), (0, 0));
}
