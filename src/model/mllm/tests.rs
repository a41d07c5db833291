use proptest::prelude::*;

use super::*;
use crate::geometry::{BBox, Point};
use crate::model::toy::{IMAGE_BASE, IMAGE_TOKENS, frame, hashed, mllm, speech, token, vocabulary};
use crate::prompt::{CountHint, Progress, parse_answer, progress};

fn greedy(model: &mut Mllm, cache: &KvCache, query: &[u32], draft: &[u32]) -> Generated {
    let rest = |answer: &[u32]| draft.strip_prefix(answer).map(<[u32]>::to_vec).unwrap_or_default();
    let decoding = Decoding { first: &mut |p| argmax(p), draft: &rest, constrained: false, observe: &mut |_, _| () };
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
            Question { tokens: speech.points_query(bbox, &points).expect("tokenizes"), answers, draft: Vec::new() }
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

/// A checkpoint may stop at tokens of its own; those that stand for words are not believed to be such.
#[test]
fn answers_end_where_the_checkpoint_stops_too() {
    let script = || -> crate::model::toy::Script {
        Box::new(|seen| match seen.len() {
            n @ 0..14 => certain(n as u32),
            _ => certain(6),
        })
    };
    for (stops, ends) in [(&[][..], false), (&[6], true), (&[2, 6], true), (&[9], false)] {
        let (mut model, _) = mllm(speech(|_| ()).with_stops(stops), script());
        let cache = prefix(&mut model, &frame(0));
        let answer = greedy(&mut model, &cache, &[10, 11, 12, 13], &[]);
        assert_eq!((answer.stopped, &answer.tokens[..5]), (ends, &[9, 10, 11, 12, 13][..]), "{stops:?}");
        if ends {
            // What follows stands behind the end that the dialect was taught with.
            assert_eq!((answer.tokens.len(), &answer.pending[..]), (5, &[3][..]));
        }
    }
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
        let (mut model, calls) = opinionated(answers);
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

/// A model whose yes and no hang on the whole conversation and share most of the weight.
fn opinionated(answers: usize) -> (Mllm, crate::model::toy::Calls) {
    mllm(
        speech(|w| w.points_per_question = answers),
        Box::new(|seen| {
            let mut row = hashed(seen);
            let last = vocabulary() - 1;
            row[last] += 12.0;
            row[last - 3] += 12.0;
            row
        }),
    )
}

/// What the model says, from the probabilities of its answers.
fn said(answers: &[YesNo]) -> Vec<bool> {
    answers.iter().map(|(yes, no)| yes > no).collect()
}

#[test]
fn a_right_draft_of_all_answers_takes_one_pass_and_each_error_one_more() {
    const ANSWERS: usize = 25;
    let (mut model, _) = opinionated(ANSWERS);
    let cache = prefix(&mut model, &frame(9));
    let plain_questions = &questions(model.speech(), ANSWERS)[..3];
    model.take_passes();
    let plain = model.ask(&cache, &[3], plain_questions, None).expect("answers");
    assert_eq!(model.take_passes(), ANSWERS as u32);
    assert_eq!(model.take_decoded().one_by_one as usize, 1 + 3 * ANSWERS, "the image, and each answer alone");
    for errors in [0, 1, 4] {
        let draft = |answers: &Vec<YesNo>| {
            let mut draft = said(answers);
            draft.iter_mut().step_by(6).take(errors).for_each(|d| *d = !*d);
            draft
        };
        let drafted: Vec<_> =
            plain_questions.iter().zip(&plain).map(|(q, a)| Question { draft: draft(a), ..q.clone() }).collect();
        let together = model.ask(&cache, &[3], &drafted, None).expect("answers");
        assert_eq!(model.take_passes() as usize, 1 + errors);
        let decoded = model.take_decoded();
        // The last answer is never drafted, and what follows an error is drafted again.
        assert_eq!(decoded.accepted as usize, 3 * (ANSWERS - 1 - errors));
        assert_eq!((decoded.drafted == decoded.accepted, decoded.one_by_one as usize), (errors == 0, 3 * ANSWERS));
        // The toy's logits hang on what a place sees, not on how it was fed: equal to the bit.
        assert_eq!(together, plain);
    }
}

#[test]
fn drafts_never_make_a_conversation_too_long() {
    let limits = MllmLimits { max_answer_tokens: 24, max_positions: 60 };
    let (mut model, _) = opinionated(8);
    model.limits = limits;
    let cache = prefix(&mut model, &frame(9));
    // Exactly what fits: the query and all answers but the last, which is not fed.
    let tokens = vec![10; limits.max_positions - cache.tokens() - 7];
    let question = |answers, draft| Question { tokens: tokens.clone(), answers, draft };
    let plain = model.ask(&cache, &[], &[question(8, Vec::new())], None).expect("fits");
    let drafted = model.ask(&cache, &[], &[question(8, vec![true; 5000])], None).expect("fits");
    assert_eq!(plain, drafted);
    let error = model.ask(&cache, &[], &[question(9, vec![true; 5000])], None).expect_err("does not fit");
    assert!(matches!(error, ModelError::TooLong { tokens: 61, limit: 60 }), "{error}");

    let long: Vec<u32> = vec![7; 5000];
    let query = vec![10; limits.max_positions - cache.tokens() - 23];
    let plain = greedy(&mut model, &cache, &query, &[]);
    let drafting =
        Decoding { first: &mut |p| argmax(p), draft: &|_| long.clone(), constrained: false, observe: &mut |_, _| () };
    let drafted = model.generate(&cache, &query, drafting, None).expect("fits");
    assert_eq!((plain.tokens, plain.cache), (drafted.tokens, drafted.cache));
}

/// What hostile drafts are made of: any token of the vocabulary, control tokens and the ending one included.
fn any_tokens() -> impl Strategy<Value = Vec<Vec<u32>>> {
    let token = prop_oneof![Just(3), Just(4), 0..vocabulary() as u32];
    prop::collection::vec(prop::collection::vec(token, 0..40), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_draft_changes_an_answer(start in 10u32..900, drafts in any_tokens(), right in 0usize..24) {
        let (mut model, _) = mllm(speech(|_| ()), Box::new(hashed));
        let cache = prefix(&mut model, &frame(3));
        let query = [start, 11, 12];
        let plain = greedy(&mut model, &cache, &query, &[]);
        model.take_passes();
        let plain_passes = model.take_decoded().one_by_one - 1;
        // Right for a while, then anything, another time after each pass.
        let draft = |said: &[u32]| {
            let mut draft = plain.tokens.get(said.len()..right).unwrap_or_default().to_vec();
            draft.extend(&drafts[said.len() % drafts.len()]);
            draft
        };
        let decoding = Decoding { first: &mut |p| argmax(p), draft: &draft, constrained: false, observe: &mut |_, _| () };
        let drafted = model.generate(&cache, &query, decoding, None).expect("generates");
        prop_assert_eq!((&drafted.tokens, drafted.stopped), (&plain.tokens, plain.stopped));
        prop_assert_eq!((&drafted.pending, &drafted.cache), (&plain.pending, &plain.cache));
        let (passes, decoded) = (model.take_passes(), model.take_decoded());
        prop_assert_eq!(decoded.one_by_one, plain_passes);
        prop_assert!(decoded.accepted <= decoded.drafted && passes >= 1);
        prop_assert_eq!(passes + decoded.accepted, plain_passes);
    }

    #[test]
    fn no_draft_changes_a_label(
        seed in 0u8..200,
        answers in 1usize..26,
        drafts in prop::collection::vec(prop::collection::vec(any::<bool>(), 0..60), 12),
        right in prop::collection::vec(0usize..26, 12),
    ) {
        let (mut model, _) = opinionated(answers);
        let cache = prefix(&mut model, &frame(seed));
        let questions = questions(model.speech(), answers);
        let plain = model.ask(&cache, &[3], &questions, None).expect("answers");
        let plain_passes = model.take_passes();
        let drafted: Vec<_> = (0..questions.len())
            .map(|i| {
                let mut draft = said(&plain[i]);
                draft.truncate(right[i]);
                draft.extend(&drafts[i]);
                Question { draft, ..questions[i].clone() }
            })
            .collect();
        prop_assert_eq!(model.ask(&cache, &[3], &drafted, None).expect("answers"), plain);
        prop_assert!(model.take_passes() <= plain_passes, "a draft never takes more passes");
    }
}

/// The widest cache that an engine was fed.
struct Spy {
    inner: Box<dyn Engine>,
    widest: Arc<std::sync::atomic::AtomicUsize>,
}

impl Engine for Spy {
    fn name(&self) -> &str {
        self.inner.name()
    }
    fn inputs(&self) -> &[crate::engine::TensorInfo] {
        self.inner.inputs()
    }
    fn outputs(&self) -> &[crate::engine::TensorInfo] {
        self.inner.outputs()
    }
    fn run(
        &mut self,
        inputs: Vec<(&str, Tensor<'_>)>,
        wanted: &[&str],
    ) -> Result<Vec<Tensor<'static>>, crate::engine::EngineError> {
        let past = inputs.iter().find(|(name, _)| *name == "past_key.0").map_or(0, |(_, t)| t.shape()[2]);
        self.widest.fetch_max(past, std::sync::atomic::Ordering::Relaxed);
        self.inner.run(inputs, wanted)
    }
}

#[test]
fn a_bad_draft_does_not_fill_the_cache() {
    const ANSWERS: usize = 60;
    let yes = vocabulary() as u32 - 1;
    let (mut model, _) = mllm(speech(|w| w.points_per_question = ANSWERS), Box::new(move |_| certain(yes)));
    assert_eq!(model.speech().yes_and_no().0, yes);
    let cache = prefix(&mut model, &frame(9));
    let widest = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (inner, _) = mllm(speech(|_| ()), Box::new(hashed));
    let inner = std::mem::replace(&mut model.engines.decoder, inner.engines.decoder);
    model.engines.decoder = Box::new(Spy { inner, widest: widest.clone() });
    let ask = |model: &mut Mllm, draft: Vec<bool>| {
        let question = Question { tokens: vec![10, 11, 12], answers: ANSWERS, draft };
        let answers = model.ask(&cache, &[3], &[question], None).expect("answers");
        (answers, model.take_passes() as usize)
    };
    model.take_passes();
    let plain = ask(&mut model, Vec::new());
    assert_eq!(plain.1, ANSWERS);
    // Every answer is the contrary of what was guessed.
    assert_eq!(ask(&mut model, vec![false; ANSWERS]), plain);
    assert!(widest.load(std::sync::atomic::Ordering::Relaxed) < cache.tokens() + 4 + ANSWERS);
}

#[test]
fn very_many_branches_take_several_bounded_passes() {
    let (mut model, calls) = mllm(speech(|_| ()), Box::new(hashed));
    let cache = prefix(&mut model, &frame(9));
    let many: Vec<Question> =
        (0..700u32).map(|i| Question { tokens: vec![10, 11, i], answers: 1, draft: Vec::new() }).collect();
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
        constrained: false,
        first: Box::leak(Box::new(|p: &[f32]| argmax(p))),
        draft: &|_| Vec::new(),
        observe: Box::leak(Box::new(|_: &[f32], _| ())),
    };
    assert!(matches!(model.generate(&cache, &[5], decoding(), past), Err(ModelError::Deadline(_))));
    assert!(matches!(model.prefix(&frame(2), past, &mut Timings::default()), Err(ModelError::Deadline(_))));
    let question = Question { tokens: vec![5], answers: 1, draft: Vec::new() };
    assert!(matches!(model.ask(&cache, &[], &[question], past), Err(ModelError::Deadline(_))));
    let long = vec![5; 5000];
    assert!(matches!(model.generate(&cache, &long, decoding(), None), Err(ModelError::TooLong { tokens: 5005, .. })));
}

#[test]
fn nan_logits_are_an_error() {
    let (mut model, _) = mllm(speech(|_| ()), Box::new(|_| vec![f32::NAN; vocabulary()]));
    let cache = prefix(&mut model, &frame(1));
    let decoding =
        Decoding { first: &mut |p| argmax(p), draft: &|_| Vec::new(), constrained: false, observe: &mut |_, _| () };
    let error = model.generate(&cache, &[5], decoding, None).expect_err("NaN");
    assert!(matches!(error, ModelError::Output { tensor: "logits", .. }), "{error}");
}

/// What the model says by itself behind `start`, held to what can be read.
fn constrained(model: &mut Mllm, start: u32, guess: &[u32]) -> Generated {
    let cache = prefix(model, &frame(1));
    let draft = |_: &[u32]| guess.to_vec();
    let decoding = Decoding { first: &mut |p| argmax(p), draft: &draft, constrained: true, observe: &mut |_, _| () };
    model.generate(&cache, &[start], decoding, None).expect("generates")
}

#[test]
fn a_number_is_not_begun_where_its_pieces_do_not_join() {
    // The toy's tokenizer writes a space between any two tokens, so that nothing can follow on "[ 1".
    let words = speech(|_| ());
    let [opening, one] = ["[", "1"].map(|text| token(&words, text));
    let script = move |seen: &[u32]| {
        let mut row = hashed(seen);
        row[if seen.last() == Some(&opening) { one } else { opening } as usize] += 9.0;
        row
    };
    let (mut model, _) = mllm(speech(|_| ()), Box::new(script));
    let answer = constrained(&mut model, 5, &[]);
    assert_eq!(answer.tokens[0], opening);
    assert!(!answer.tokens.contains(&one), "{:?}", answer.tokens);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever a model would like to say, what it ends by itself can be read, and what is cut off could have gone on.
    #[test]
    fn constrained_answers_can_be_read(start in 10u32..1000, eager in 0u8..8) {
        let script = move |seen: &[u32]| {
            let mut row = hashed(seen);
            row[if eager.is_multiple_of(2) { 3 } else { 0 }] += f32::from(eager);
            row
        };
        // At <pad> the checkpoint stops too.
        let (mut model, _) = mllm(speech(|_| ()).with_stops(&[0]), Box::new(script));
        for draft in [vec![], vec![1, 2, 3]] {
            let answer = constrained(&mut model, start, &draft);
            let text = model.speech().text(&answer.tokens).expect("is text");
            let read = parse_answer(&text, model.speech().dialect());
            prop_assert!(read.is_ok() || !answer.stopped, "{}: {:?}", text, read);
            // A number of this tokenizer that is begun cannot be ended.
            let progress = progress(&text, model.speech().dialect());
            prop_assert!(!matches!(progress, Progress::Dead | Progress::Within), "{}", text);
        }
    }
}
