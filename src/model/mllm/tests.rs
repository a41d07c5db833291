use super::*;
use crate::geometry::{BBox, Point};
use crate::model::toy::{IMAGE_BASE, IMAGE_TOKENS, frame, hashed, mllm, speech, vocabulary};
use crate::prompt::CountHint;

fn greedy(model: &mut Mllm, cache: &KvCache, query: &[u32], draft: &[u32]) -> Generated {
    let rest = |answer: &[u32]| draft.strip_prefix(answer).map(<[u32]>::to_vec).unwrap_or_default();
    let decoding = Decoding { first: &mut |p| argmax(p), draft: &rest, observe: &mut |_, _| () };
    model.generate(cache, query, decoding, None).expect("generates")
}

/// Logits with all weight on one token.
fn certain(token: u32) -> Vec<f32> {
    let mut row = vec![0.0; vocabulary()];
    row[token as usize] = 50.0;
    row
}

fn prefix(model: &mut Mllm, image: &Image) -> Arc<KvCache> {
    model.prefix(image, None, &mut Timings::default()).expect("prefills")
}

fn questions(speech: &Speech, answers: usize) -> Vec<Question> {
    let bbox = BBox::new(10.0, 10.0, 90.0, 90.0);
    (0..12)
        .map(|i| {
            let points: Vec<_> = (0..answers).map(|k| Point::new(20.0 + i as f32, 30.0 + k as f32)).collect();
            Question { tokens: speech.points_query(bbox, &points).expect("tokenizes"), answers }
        })
        .collect()
}

#[test]
fn the_image_stands_where_its_token_was() {
    let (mut model, _) = mllm(
        speech(|_| ()),
        Box::new(|seen| {
            let image = vec![IMAGE_BASE + 77; IMAGE_TOKENS];
            assert_eq!(seen[..6], [&[2][..], &image, &[5]].concat());
            hashed(seen)
        }),
    );
    let cache = prefix(&mut model, &frame(77));
    assert_eq!(cache.tokens(), 1 + IMAGE_TOKENS);
    let query = model.speech().proposal_query(CountHint::One, "the red mug").expect("tokenizes");
    greedy(&mut model, &cache, &query, &[]);
}

#[test]
fn generation_sees_what_it_said() {
    // Counts up from the number of tokens it sees, then stops.
    let (mut model, _) = mllm(
        speech(|_| ()),
        Box::new(|seen| match seen.len() {
            n @ 0..14 => certain(n as u32),
            _ => certain(3),
        }),
    );
    let cache = prefix(&mut model, &frame(0));
    let answer = greedy(&mut model, &cache, &[10, 11, 12, 13], &[]);
    assert_eq!((answer.tokens.as_slice(), answer.stopped), (&[9, 10, 11, 12, 13][..], true));
    assert_eq!((answer.pending.as_slice(), answer.cache.tokens()), (&[3][..], 14));
}

#[test]
fn an_answer_without_end_is_cut_and_says_so() {
    let (mut model, _) = mllm(speech(|_| ()), Box::new(|_| certain(9)));
    let cache = prefix(&mut model, &frame(0));
    let answer = greedy(&mut model, &cache, &[10], &[]);
    assert_eq!((answer.tokens.len(), answer.stopped), (24, false));
}

#[test]
fn drafts_change_the_passes_and_nothing_else() {
    let (mut model, _) = mllm(speech(|_| ()), Box::new(hashed));
    let cache = prefix(&mut model, &frame(3));
    for start in 10..20 {
        let query = [start, 11, 12];
        model.take_passes();
        let plain = greedy(&mut model, &cache, &query, &[]);
        let plain_passes = model.take_passes();
        for right in [1, 2, 5, plain.tokens.len()] {
            for wrong in [0, 3] {
                let right = right.min(plain.tokens.len());
                let draft = [&plain.tokens[..right], &vec![1; wrong]].concat();
                let drafted = greedy(&mut model, &cache, &query, &draft);
                let passes = model.take_passes();
                assert_eq!((&drafted.tokens, drafted.stopped), (&plain.tokens, plain.stopped));
                assert_eq!((&drafted.pending, &drafted.cache), (&plain.pending, &plain.cache));
                assert_eq!(passes, plain_passes - (right as u32).min(plain_passes - 1), "right {right}");
            }
        }
    }
}

#[test]
fn branches_equal_separate_conversations() {
    for answers in [1, 3] {
        let (mut model, calls) = mllm(
            speech(|w| w.points_per_question = answers),
            Box::new(|seen| {
                // Yes and no share most of the weight, in a proportion that hangs on the whole conversation.
                let mut row = hashed(seen);
                let last = vocabulary() - 1;
                row[last] += 12.0;
                row[last - 3] += 12.0;
                row
            }),
        );
        let cache = prefix(&mut model, &frame(9));
        let questions = questions(model.speech(), answers);
        let before = calls.lock().expect("not poisoned").1;
        let together = model.ask(&cache, &[3], &questions, None).expect("answers");
        assert_eq!(calls.lock().expect("not poisoned").1 - before, answers, "one pass an answer");
        let mut distinct = std::collections::HashSet::new();
        for (question, together) in questions.iter().zip(&together) {
            let alone = &model.ask(&cache, &[3], std::slice::from_ref(question), None).expect("answers")[0];
            assert_eq!(alone.len(), answers);
            for (a, b) in alone.iter().zip(together) {
                assert!((a.0 - b.0).abs() < 1e-4 && (a.1 - b.1).abs() < 1e-4, "{a:?} {b:?}");
                assert!(a.0 + a.1 > 0.5);
                distinct.insert(a.0.to_bits());
            }
        }
        assert!(distinct.len() > questions.len() / 2, "the answers hang on the questions");
    }
}

#[test]
fn very_many_branches_take_several_bounded_passes() {
    let (mut model, calls) = mllm(speech(|_| ()), Box::new(hashed));
    let cache = prefix(&mut model, &frame(9));
    let many: Vec<Question> = (0..700u32).map(|i| Question { tokens: vec![10, 11, i], answers: 1 }).collect();
    let before = calls.lock().expect("not poisoned").1;
    let answers = model.ask(&cache, &[3], &many, None).expect("answers");
    assert_eq!((answers.len(), calls.lock().expect("not poisoned").1 - before), (700, 2));
    let last = &model.ask(&cache, &[3], &many[699..], None).expect("answers")[0];
    assert_eq!(&answers[699], last);
}

#[test]
fn a_question_that_is_not_answered_ends() {
    let (mut model, _) = mllm(speech(|w| w.points_per_question = 3), Box::new(|_| certain(9)));
    let cache = prefix(&mut model, &frame(9));
    let questions = questions(model.speech(), 3);
    model.take_passes();
    let answers = model.ask(&cache, &[3], &questions, None).expect("answers");
    assert_eq!(model.take_passes(), 1);
    assert!(answers.iter().all(|a| a.len() == 3 && a[1] == (0.0, 0.0) && a[0].0 < 0.01));
}

#[test]
fn a_prefix_is_reused_for_the_same_pixels_only() {
    let (mut model, calls) = mllm(speech(|_| ()), Box::new(hashed));
    let first = prefix(&mut model, &frame(1));
    assert_eq!(prefix(&mut model, &frame(1)), first);
    assert_eq!(*calls.lock().expect("not poisoned"), (1, 1));
    assert_ne!(prefix(&mut model, &frame(2)), first);
    assert_eq!(*calls.lock().expect("not poisoned"), (2, 2));
    model.set_prefix_reuse(false);
    let again = prefix(&mut model, &frame(1));
    assert_eq!(again, first);
    prefix(&mut model, &frame(1));
    assert_eq!(*calls.lock().expect("not poisoned"), (4, 4));
}

#[test]
fn limits_and_deadlines_are_errors() {
    let (mut model, _) = mllm(speech(|_| ()), Box::new(hashed));
    let cache = prefix(&mut model, &frame(1));
    let past = Some(Instant::now() - std::time::Duration::from_millis(5));
    let decoding = || Decoding {
        first: Box::leak(Box::new(|p: &[f32]| argmax(p))),
        draft: &|_| Vec::new(),
        observe: Box::leak(Box::new(|_: &[f32], _| ())),
    };
    assert!(matches!(model.generate(&cache, &[5], decoding(), past), Err(ModelError::Deadline(_))));
    assert!(matches!(model.prefix(&frame(2), past, &mut Timings::default()), Err(ModelError::Deadline(_))));
    let question = Question { tokens: vec![5], answers: 1 };
    assert!(matches!(model.ask(&cache, &[], &[question], past), Err(ModelError::Deadline(_))));
    let long = vec![5; 5000];
    assert!(matches!(model.generate(&cache, &long, decoding(), None), Err(ModelError::TooLong { tokens: 5005, .. })));
}

#[test]
fn nan_logits_are_an_error() {
    let (mut model, _) = mllm(speech(|_| ()), Box::new(|_| vec![f32::NAN; vocabulary()]));
    let cache = prefix(&mut model, &frame(1));
    let decoding = Decoding { first: &mut |p| argmax(p), draft: &|_| Vec::new(), observe: &mut |_, _| () };
    let error = model.generate(&cache, &[5], decoding, None).expect_err("NaN");
    assert!(matches!(error, ModelError::Output { tensor: "logits", .. }), "{error}");
}
