//! The strategy is the client's choice, target by target, among those that the language model was taught.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use sam4mllm::engine::bundle::Manifest;
use sam4mllm::frame::Image;
use sam4mllm::geometry::Point;
use sam4mllm::node::Stages;
use sam4mllm::pipeline::fake::{FakeGround, Script};
use sam4mllm::pipeline::{self, Command, Drafter, Ground, Grounding, Outcome, PipelineError, Strategies};
use sam4mllm::prompt::{CountHint, Dialect, LabelledPoint, PointLabel};
use sam4mllm::server::Backend;
use sam4mllm::server::wire::{self, ErrorCode, Strategy, Verdict};
use tonic::Code;

use crate::harness::{BLUE, RED, Running, Scene, backend, error_of, iou, of, soon, target};

/// A manifest that has PPG.
const MANIFEST: &str = include_str!("../../src/engine/bundle/testdata/bundle.toml");

fn by(strategy: Strategy, target: wire::Target) -> wire::Target {
    wire::Target { strategy: strategy.into(), ..target }
}

async fn ask(node: &Running, scene: &Scene, command: &str, strategy: i32) -> Result<wire::TargetResult, tonic::Status> {
    let request = wire::SegmentRequest {
        frame: Some(scene.frame(1)),
        command: command.into(),
        strategy,
        options: Some(wire::Options { evidence: true, ..Default::default() }),
        ..Default::default()
    };
    let mut client = node.client().await;
    let reply = soon("an answer", client.segment(request)).await?;
    Ok(reply.into_inner().result.expect("has a result"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_answered_by_the_strategy_it_asks_for() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 100, 80);
    let said = node.client().await.describe(wire::DescribeRequest {}).await.expect("describes").into_inner();
    assert_eq!(said.strategies().collect::<Vec<_>>(), [Strategy::Box, Strategy::Pqpp]);
    assert_eq!(said.default_strategy(), Strategy::Pqpp);
    let cases = [
        (Strategy::Unspecified, Strategy::Pqpp, 25),
        (Strategy::Pqpp, Strategy::Pqpp, 25),
        (Strategy::Box, Strategy::Box, 0),
    ];
    for (asked, used, points) in cases {
        let result = ask(&node, &scene, "red", asked.into()).await.expect("answers");
        assert_eq!(result.verdict(), Verdict::Found, "{asked:?}");
        let evidence = result.evidence.as_ref().expect("was asked for");
        assert_eq!((evidence.strategy(), evidence.malformed.as_str()), (used, ""), "{asked:?}");
        assert_eq!(result.instances[0].evidence.as_ref().expect("was asked for").points.len(), points, "{asked:?}");
        assert!(iou(&result.instances[0], &scene.truth(0)) > 0.95, "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_for_what_was_not_taught_is_a_failed_precondition() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 100, 80);
    let status = ask(&node, &scene, "red", Strategy::Ppg.into()).await.expect_err("was not taught");
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().contains("`ppg`"), "{status:?}");
    let status = ask(&node, &scene, "red", 99).await.expect_err("no such strategy");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert_eq!(node.script.ground.begun(), 0, "nothing of it reached the model");
    assert!(ask(&node, &scene, "red", 0).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_for_what_was_not_taught_fails_alone() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 33, 44).with(BLUE, 200, 100);
    let mut stream = node.stream().await;
    stream.options.evidence = true;
    stream.set([target("usual", "red"), by(Strategy::Box, target("box", "blue"))]).await;
    stream.add(by(Strategy::Ppg, target("ppg", "red"))).await;
    let frame = stream.until(&scene, |f| ["usual", "box"].iter().all(|id| of(f, id).verdict() == Verdict::Found)).await;
    let used = |id| of(&frame, id).evidence.as_ref().expect("was asked for").strategy();
    assert_eq!((used("usual"), used("box")), (Strategy::Pqpp, Strategy::Box));
    let failed = of(&frame, "ppg");
    assert_eq!((failed.verdict(), error_of(&failed.error)), (Verdict::Failed, Some(ErrorCode::Strategy)));
    assert_eq!(node.script.ground.begun(), 2);

    stream.add(by(Strategy::Pqpp, target("ppg", "red"))).await;
    stream.until_verdict(&scene, "ppg", Verdict::Found).await;
    stream.add(wire::Target { strategy: 99, ..target("odd", "red") }).await;
    assert_eq!(error_of(&stream.refusal().await.error), Some(ErrorCode::Request));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_strategy_starts_afresh_and_the_usual_one_by_name_does_not() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 33, 44);
    let mut stream = node.stream().await;
    stream.set([target("t", "red")]).await;
    let found = stream.until_verdict(&scene, "t", Verdict::Found).await;
    let id = of(&found, "t").instances[0].instance_id;
    stream.add(by(Strategy::Pqpp, target("t", "red"))).await;
    let same = stream.exchange(&scene).await;
    assert_eq!((of(&same, "t").verdict(), of(&same, "t").instances[0].instance_id), (Verdict::Found, id));
    node.script.ground.gate.shut();
    stream.add(by(Strategy::Box, target("t", "red"))).await;
    assert_eq!(of(&stream.exchange(&scene).await, "t").verdict(), Verdict::Pending);
    node.script.ground.gate.open();
    stream.until_verdict(&scene, "t", Verdict::Found).await;
}

/// Colours by every strategy; what is called garbled gets an answer that cannot be read.
struct Taught {
    colours: FakeGround,
    dialect: Dialect,
}

impl Ground for Taught {
    fn check(&self, text: &str, hint: CountHint) -> Result<Command, PipelineError> {
        self.colours.check(text, hint)
    }

    fn ground_drafted(
        &mut self,
        image: &Image,
        command: &Command,
        drafter: &mut dyn Drafter,
        deadline: Option<Instant>,
    ) -> Result<Grounding, PipelineError> {
        let command_by_box = command.clone().by(pipeline::Strategy::Box);
        let mut grounding = self.colours.ground_drafted(image, &command_by_box, drafter, deadline)?;
        grounding.strategy = command.strategy.expect("the node always chooses");
        if command.text.contains("garbled") {
            grounding.answer = "[281,240,863,999](300,250,1)(310,2".into();
            grounding.malformed = self.dialect.ppg().expect("was taught").parse(&grounding.answer).err();
            (grounding.outcome, grounding.confidence) = (Outcome::Unsure, 0.0);
            grounding.instances.clear();
        }
        for instance in &mut grounding.instances {
            let (centre, corner) = (instance.proposal.centre(), Point::new(instance.proposal.x1, instance.proposal.y1));
            let on = LabelledPoint { point: centre, p_yes: 1.0, label: PointLabel::On };
            let off = LabelledPoint { point: corner, p_yes: 0.0, label: PointLabel::Off };
            instance.points = vec![on, on, off, on, on, off];
            instance.points_per_prompt = NonZeroUsize::new(3);
        }
        Ok(grounding)
    }
}

/// A node whose usual strategy is PPG.
async fn taught() -> Running {
    let script = Script::default();
    let fake = backend(&script);
    let play = script.ground.clone();
    let ground = move || {
        let dialect = Dialect::compile(&Manifest::parse(MANIFEST)?.dialect)?;
        Ok(Box::new(Taught { colours: FakeGround::new(Arc::clone(&play)), dialect }) as Box<dyn Ground>)
    };
    let strategies = Strategies::new(pipeline::Strategy::Ppg, true).expect("was taught");
    let stages = Stages { ground: Box::new(ground), strategies, ..fake.stages };
    let node = Running::launch(Backend { stages, ..fake }, script, |_| {}).await;
    node.ready().await;
    node
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ppg_is_served_where_it_was_taught() {
    let node = taught().await;
    let said = node.client().await.describe(wire::DescribeRequest {}).await.expect("describes").into_inner();
    assert_eq!(said.strategies().collect::<Vec<_>>(), [Strategy::Box, Strategy::Ppg, Strategy::Pqpp]);
    assert_eq!(said.default_strategy(), Strategy::Ppg);
    let scene = Scene::new().with(RED, 100, 80);
    for asked in [Strategy::Unspecified, Strategy::Ppg] {
        let result = ask(&node, &scene, "red", asked.into()).await.expect("answers");
        assert_eq!(result.verdict(), Verdict::Found);
        assert_eq!(result.evidence.expect("was asked for").strategy(), Strategy::Ppg);
        let [instance] = &result.instances[..] else { panic!("two groups make one mask: {:?}", result.instances) };
        assert!(iou(instance, &scene.truth(0)) > 0.95);
        let points = &instance.evidence.as_ref().expect("was asked for").points;
        assert_eq!(points.iter().map(|p| p.p_yes).collect::<Vec<_>>(), [1.0, 1.0, 0.0, 1.0, 1.0, 0.0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_answer_is_unsure_and_says_why() {
    let node = taught().await;
    let scene = Scene::new().with(RED, 100, 80);
    let result = ask(&node, &scene, "garbled red", 0).await.expect("is an answer");
    assert_eq!((result.verdict(), result.instances.len(), result.confidence), (Verdict::Unsure, 0, 0.0));
    let evidence = result.evidence.expect("was asked for");
    assert!(evidence.malformed.contains("truncated"), "{}", evidence.malformed);
    assert!(evidence.answer.ends_with("(310,2"), "{}", evidence.answer);

    let mut stream = node.stream().await;
    stream.options.evidence = true;
    stream.set([target("t", "garbled red")]).await;
    let frame = stream.until_verdict(&scene, "t", Verdict::Unsure).await;
    assert!(of(&frame, "t").instances.is_empty());
    assert!(of(&frame, "t").evidence.as_ref().is_some_and(|e| e.malformed.contains("truncated")));
}
