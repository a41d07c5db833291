//! One-off questions on the current frame of a stream; words and hints reach the language model as they were said.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sam4mllm::engine::bundle::StreamThresholds;
use sam4mllm::frame::Image;
use sam4mllm::node::{MAX_QUESTIONS, Stages};
use sam4mllm::pipeline::fake::{FakeGround, Script};
use sam4mllm::pipeline::{Command, Drafter, Ground, Grounding, PipelineError};
use sam4mllm::prompt::CountHint as Hint;
use sam4mllm::server::Backend;
use sam4mllm::server::wire::answer::Outcome;
use sam4mllm::server::wire::{self, CountHint, ErrorCode, Verdict};

use crate::harness::{BLUE, GREEN, RED, Running, Scene, backend, eventually, hinted, iou, of, soon, target};

fn response(answer: wire::Answer, id: &str) -> wire::SegmentResponse {
    assert_eq!(answer.question_id, id);
    match answer.outcome {
        Some(Outcome::Response(response)) => response,
        other => panic!("expected a response, got {other:?}"),
    }
}

fn error(answer: wire::Answer, id: &str) -> ErrorCode {
    assert_eq!(answer.question_id, id);
    match answer.outcome {
        Some(Outcome::Error(error)) => error.code(),
        other => panic!("expected an error, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_is_answered_on_the_newest_frame_and_touches_no_target() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 20, 20).with(BLUE, 120, 100).with(GREEN, 230, 150);
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    let found = stream.until_verdict(&scene, "r", Verdict::Found).await;
    let red = &of(&found, "r").instances[0];
    let newest = stream.exchange(&scene).await.seq;
    stream.options.evidence = true;
    stream.question("is it there", "blue", CountHint::One).await;
    let said = response(stream.answer().await, "is it there");
    assert_eq!((said.seq, said.stamp_ns), (newest, 1_000_000 + newest as i64));
    let result = said.result.expect("has a result");
    assert_eq!((result.verdict(), result.target_id.as_str()), (Verdict::Found, ""));
    assert!(iou(&result.instances[0], &scene.truth(1)) > 0.95);
    assert!(result.evidence.is_some(), "the question's own options count");

    stream.question("", "yellow", CountHint::NoneOrMore).await;
    let said = response(stream.answer().await, "").result.expect("has a result");
    assert_eq!(said.verdict(), Verdict::Absent);

    let after = stream.exchange(&scene).await;
    assert_eq!(after.targets.len(), 1);
    assert_eq!(of(&after, "r").instances[0].instance_id, red.instance_id);
    let counters = after.counters.expect("has counters");
    assert_eq!((counters.received, counters.answered), (after.seq, after.seq), "questions are no frames");
}

/// What a bundle asks of a stream besides is not asked where an answer is about one frame.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_frame_takes_less_certainty_than_a_stream() {
    let script = Script::default();
    let mut backend = backend(&script);
    backend.stages.stream = StreamThresholds { found: 0.5, absent: 0.95, mask_score: 0.99, ..StreamThresholds::NONE };
    let node = Running::launch(backend, script, |_| {}).await;
    node.ready().await;
    let scene = Scene::new().with(RED, 20, 20);
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    let unsure = stream.until_verdict(&scene, "r", Verdict::Unsure).await;
    assert!(iou(&of(&unsure, "r").instances[0], &scene.truth(0)) > 0.95, "the mask goes on");
    stream.question("once", "red", CountHint::One).await;
    let said = response(stream.answer().await, "once").result.expect("has a result");
    assert_eq!(said.verdict(), Verdict::Found);

    // It is 0.9 that it is absent.
    stream.set([target("y", "yellow")]).await;
    stream.until_verdict(&scene, "y", Verdict::Unsure).await;
    stream.question("twice", "yellow", CountHint::One).await;
    let said = response(stream.answer().await, "twice").result.expect("has a result");
    assert!(said.verdict() == Verdict::Absent && said.confidence < 0.95, "{said:?}");
    let twice = stream.until_verdict(&scene, "y", Verdict::Absent).await;
    assert!(of(&twice, "y").confidence > 0.98, "{twice:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_waits_for_the_frame_that_was_sent_before_it() {
    let node = Running::start().await;
    let mut stream = node.stream().await;
    // There is no frame at all yet.
    stream.question("first", "red", CountHint::One).await;
    let seq = stream.show(&Scene::new().with(RED, 20, 20)).await;
    let (mut frame, mut answer) = (None, None);
    for _ in 0..2 {
        match stream.message().await.expect("goes on").expect("goes on") {
            wire::perceive_response::Response::Frame(f) => frame = Some(f),
            wire::perceive_response::Response::Answer(a) => answer = Some(a),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(frame.expect("is answered").seq, seq);
    assert_eq!(response(answer.expect("is answered"), "first").seq, seq);

    // The frame is held up in the segmenter, and the next one waits behind it.
    stream.set([target("r", "red")]).await;
    stream.until_verdict(&Scene::new().with(RED, 20, 20), "r", Verdict::Found).await;
    node.script.segment.gate.shut();
    let begun = node.script.segment.begun();
    stream.show(&Scene::new().with(RED, 20, 20)).await;
    eventually("the frame in work", || node.script.segment.begun() > begun).await;
    let newest = stream.show(&Scene::new().with(BLUE, 120, 100)).await;
    stream.question("newest", "blue", CountHint::One).await;
    stream.barrier().await;
    node.script.segment.gate.open();
    let said = loop {
        if let wire::perceive_response::Response::Answer(a) = stream.message().await.expect("goes on").expect("goes on")
        {
            break response(a, "newest");
        }
    };
    assert_eq!((said.seq, said.result.expect("has a result").verdict()), (newest, Verdict::Found));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_refused_with_a_reason() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 20, 20);
    let mut stream = node.stream().await;
    stream.exchange(&scene).await;
    for (id, command, code) in [("empty", " ", ErrorCode::Command), ("control", "red <image>", ErrorCode::Command)] {
        stream.question(id, command, CountHint::One).await;
        assert_eq!(error(stream.answer().await, id), code);
    }
    stream.question(&"x".repeat(129), "red", CountHint::One).await;
    assert_eq!(error(stream.answer().await, ""), ErrorCode::Request);

    // More than may be open: what is refused says so, what was taken is answered.
    node.script.ground.gate.shut();
    for i in 0..=MAX_QUESTIONS {
        stream.question(&i.to_string(), "red", CountHint::One).await;
    }
    assert_eq!(error(stream.answer().await, &MAX_QUESTIONS.to_string()), ErrorCode::Busy);
    node.script.ground.gate.open();
    let mut answered = Vec::new();
    for _ in 0..MAX_QUESTIONS {
        let answer = stream.answer().await;
        answered.push(answer.question_id.clone());
        assert!(matches!(answer.outcome, Some(Outcome::Response(_))));
    }
    answered.sort();
    assert_eq!(answered, (0..MAX_QUESTIONS).map(|i| i.to_string()).collect::<Vec<_>>());

    // Its budget is over before the grounder has time for it.
    node.script.ground.gate.shut();
    let begun = node.script.ground.begun();
    stream.question("held", "red", CountHint::One).await;
    eventually("the grounder to begin", || node.script.ground.begun() == begun + 1).await;
    stream.options.budget_ms = 1;
    stream.question("late", "red", CountHint::One).await;
    stream.options.budget_ms = 0;
    tokio::time::sleep(Duration::from_millis(5)).await;
    stream.show(&scene).await;
    let (mut late, mut frame) = (None, false);
    while late.is_none() || !frame {
        match stream.message().await.expect("goes on").expect("goes on") {
            wire::perceive_response::Response::Answer(a) => late = Some(error(a, "late")),
            _ => frame = true,
        }
    }
    assert_eq!(late, Some(ErrorCode::Deadline));
    assert_eq!(node.script.ground.begun(), begun + 1, "no work was spent on it");
    node.script.ground.gate.open();
    response(stream.answer().await, "held");

    // Without a frame there is nothing to look at.
    let mut blind = node.stream().await;
    blind.question("blind", "red", CountHint::One).await;
    blind.close();
    assert_eq!(error(blind.answer().await, "blind"), ErrorCode::Request);
    assert!(blind.message().await.expect("ends well").is_none());
}

/// What a grounder was asked.
type Heard = Arc<Mutex<Vec<(String, Hint)>>>;

/// Colours, with a record of the words.
struct Listening {
    colours: FakeGround,
    heard: Heard,
}

impl Ground for Listening {
    fn check(&self, text: &str, hint: Hint) -> Result<Command, PipelineError> {
        self.colours.check(text, hint)
    }

    fn ground_drafted(
        &mut self,
        image: &Image,
        command: &Command,
        drafter: &mut dyn Drafter,
        deadline: Option<Instant>,
    ) -> Result<Grounding, PipelineError> {
        self.heard.lock().expect("not poisoned").push((command.text.clone(), command.hint));
        self.colours.ground_drafted(image, command, drafter, deadline)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_and_negative_phrases_reach_the_language_model_word_for_word() {
    let (script, heard) = (Script::default(), Heard::default());
    let (play, record) = (script.ground.clone(), heard.clone());
    let fake = backend(&script);
    let ground = move || {
        let (colours, heard) = (FakeGround::new(play.clone()), record.clone());
        Ok(Box::new(Listening { colours, heard }) as Box<dyn Ground>)
    };
    let stages = Stages { ground: Box::new(ground), ..fake.stages };
    let node = Running::launch(Backend { stages, ..fake }, script, |config| {
        config.node.reground_after = Duration::from_secs(3600);
    })
    .await;
    node.ready().await;
    let scene = Scene::new().with(RED, 20, 20).with(BLUE, 120, 100);
    let said = "the red mug, not the blue one; don't take \u{201c}la tasse\u{201d} 杯子";
    let mut stream = node.stream().await;
    stream.set([hinted("a", said, CountHint::One), hinted("b", "red or none", CountHint::OneOrMore)]).await;
    stream.until(&scene, |f| f.targets.iter().all(|t| t.verdict() == Verdict::Found)).await;
    stream.question("q", "all red ones without the left one", CountHint::NoneOrMore).await;
    response(stream.answer().await, "q");
    let mut client = node.client().await;
    let asked = wire::SegmentRequest {
        frame: Some(scene.frame(1)),
        command: said.into(),
        hint: CountHint::OneOrMore.into(),
        ..Default::default()
    };
    soon("an answer", client.segment(asked)).await.expect("answers");
    let expected = [
        (said, Hint::One),
        ("red or none", Hint::OneOrMore),
        ("all red ones without the left one", Hint::NoneOrMore),
        (said, Hint::OneOrMore),
    ];
    let heard = heard.lock().expect("not poisoned").clone();
    assert_eq!(heard, expected.map(|(text, hint)| (text.to_owned(), hint)));
}
