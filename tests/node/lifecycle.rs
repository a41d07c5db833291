//! Readiness, discovery, limits on sessions, shutdown.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use sam4mllm::node::Stages;
use sam4mllm::pipeline::DriftLimits;
use sam4mllm::pipeline::fake::{FakeGround, Script};
use sam4mllm::server::wire::perceive_response::Response;
use sam4mllm::server::wire::{self, Verdict};
use sam4mllm::server::{Backend, SERVICE, ServerError};
use tokio_stream::StreamExt;
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::harness::{RED, Running, Scene, Stream, backend, eventually, of, soon, target};

async fn health(node: &Running, service: &str) -> ServingStatus {
    let mut client = HealthClient::new(node.channel().await);
    let request = HealthCheckRequest { service: service.into() };
    soon("health", client.check(request)).await.expect("answers").into_inner().status()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_is_ready_when_its_stages_are() {
    let script = Script::default();
    let (go, wait) = mpsc::channel::<()>();
    let held = Backend {
        stages: Stages {
            ground: Box::new(move || {
                wait.recv()?;
                Ok(Box::new(FakeGround::new(Arc::default())))
            }),
            ..backend(&script).stages
        },
        ..backend(&script)
    };
    let node = Running::launch(held, script, |_| {}).await;
    for service in ["", SERVICE] {
        assert_eq!(health(&node, service).await, ServingStatus::NotServing);
    }
    let asked =
        wire::SegmentRequest { frame: Some(Scene::new().frame(1)), command: "red".into(), ..Default::default() };
    let early = node.client().await.segment(asked.clone()).await.expect_err("not ready");
    assert_eq!(early.code(), Code::Unavailable);
    assert_eq!(Stream::open(&node).await.err().map(|s| s.code()), Some(Code::Unavailable));
    go.send(()).expect("the factory waits");
    node.ready().await;
    let mut watch = HealthClient::new(node.channel().await);
    let mut watch = watch.watch(HealthCheckRequest { service: SERVICE.into() }).await.expect("watches").into_inner();
    soon("serving", async {
        while watch.message().await.expect("goes on").expect("goes on").status() != ServingStatus::Serving {}
    })
    .await;
    assert!(node.client().await.segment(asked).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_cannot_be_built_ends_the_server() {
    let script = Script::default();
    let broken = Backend {
        stages: Stages { segment: Box::new(|| Err("no such bundle".into())), ..backend(&script).stages },
        ..backend(&script)
    };
    let mut node = Running::launch(broken, script, |_| {}).await;
    let error = node.ended().await.expect_err("cannot start");
    assert!(matches!(error, ServerError::Stages(_)), "{error:?}");
    assert!(error.to_string().contains("no such bundle"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_settings_are_refused() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let mut config = sam4mllm::server::ServerConfig::default();
    config.node.max_targets = 0;
    let refused = sam4mllm::server::Server::build(config, listener, backend(&Script::default())).await.err();
    assert!(matches!(&refused, Some(ServerError::Config(e)) if e.setting() == "max_targets"), "{refused:?}");
    let good = DriftLimits::default();
    for (drift, setting) in [
        (DriftLimits { score_share: 1.1, ..good }, "drift_score_share"),
        (DriftLimits { area_ratio: 0.9, ..good }, "drift_area_ratio"),
        (DriftLimits { area_ratio: f32::NAN, ..good }, "drift_area_ratio"),
        (DriftLimits { area_ratio: f32::INFINITY, ..good }, "drift_area_ratio"),
        (DriftLimits { colour: -0.1, ..good }, "drift_colour"),
        (DriftLimits { shape: f32::NAN, ..good }, "drift_shape"),
    ] {
        let mut config = sam4mllm::node::NodeConfig::default();
        config.track.drift = drift;
        assert_eq!(config.validate().expect_err("is out of range").setting(), setting);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_describes_itself() {
    let node = Running::start_with(|config| config.node.max_targets = 5).await;
    let said = node.client().await.describe(wire::DescribeRequest {}).await.expect("describes").into_inner();
    assert_eq!(said.node_version, env!("CARGO_PKG_VERSION"));
    assert_eq!((said.bundle_name.as_str(), said.bundle_version.as_str()), ("colours", "1.2.3"));
    assert_eq!((said.bundle_fingerprint.as_str(), said.backend.as_str()), ("f00", "fake"));
    assert_eq!(said.encodings[..5], ["jpeg", "png", "webp", "rgb8", "bgr8"]);
    assert!(said.encodings.iter().any(|name| name == "yuv422_yuy2"), "other names are told too");
    let limits = said.limits.expect("has limits");
    assert_eq!((limits.max_targets, limits.max_message_bytes, limits.max_frame_pixels), (5, 32 << 20, 32 << 20));
    assert!(said.ready);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_knows_the_contract() {
    let node = Running::start().await;
    let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let mut client = ServerReflectionClient::new(node.channel().await);
    let questions = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(format!("{SERVICE}.Perceive"))),
    ];
    let answers = soon("reflection", client.server_reflection_info(tokio_stream::iter(questions))).await;
    let answers: Vec<ServerReflectionResponse> =
        answers.expect("answers").into_inner().map(|a| a.expect("goes on")).collect().await;
    let Some(MessageResponse::ListServicesResponse(list)) = &answers[0].message_response else { panic!("{answers:?}") };
    let names: Vec<&str> = list.service.iter().map(|s| s.name.as_str()).collect();
    assert!(names.contains(&SERVICE) && names.contains(&"grpc.health.v1.Health"), "{names:?}");
    let Some(MessageResponse::FileDescriptorResponse(file)) = &answers[1].message_response else {
        panic!("{answers:?}")
    };
    assert!(!file.file_descriptor_proto[0].is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_limited_and_given_back() {
    let node = Running::start_with(|config| config.node.max_sessions = 1).await;
    let scene = Scene::new().with(RED, 100, 80);
    let mut first = node.stream().await;
    first.set([target("r", "red")]).await;
    first.exchange(&scene).await;
    assert_eq!(Stream::open(&node).await.err().map(|s| s.code()), Some(Code::ResourceExhausted));
    // A client that just goes away.
    drop(first);
    node.lets_in().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_finishes_what_is_in_work() {
    let mut node = Running::start().await;
    let scene = Scene::new().with(RED, 100, 80);
    let mut watch = HealthClient::new(node.channel().await);
    let mut watch = watch.watch(HealthCheckRequest { service: String::new() }).await.expect("watches").into_inner();
    let mut next =
        async || -> HealthCheckResponse { soon("health", watch.message()).await.expect("goes on").expect("goes on") };
    assert_eq!(next().await.status(), ServingStatus::Serving);

    let mut idle = node.stream().await;
    idle.set([target("r", "red")]).await;
    idle.exchange(&scene).await;
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    stream.until_verdict(&scene, "r", Verdict::Found).await;
    node.script.segment.gate.shut();
    let begun = node.script.segment.begun();
    let in_work = stream.show(&scene).await;
    eventually("the frame in work", || node.script.segment.begun() > begun).await;
    stream.show(&scene).await;
    stream.barrier().await;

    node.ask_to_stop();
    assert_eq!(next().await.status(), ServingStatus::NotServing);
    node.script.segment.gate.open();
    // The frame in work is answered, the one behind it is not, and the stream says why it ends.
    let Ok(Some(Response::Frame(last))) = stream.message().await else { panic!("expected the frame in work") };
    assert_eq!((last.seq, of(&last, "r").verdict()), (in_work, Verdict::Found));
    for stream in [&mut stream, &mut idle] {
        assert_eq!(stream.message().await.expect_err("the end").code(), Code::Unavailable);
    }
    node.ended().await.expect("ends well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_answers_calls_and_takes_no_more() {
    let mut node = Running::start().await;
    node.script.ground.gate.shut();
    let scene = Scene::new().with(RED, 100, 80);
    let asked = wire::SegmentRequest { frame: Some(scene.frame(1)), command: "red".into(), ..Default::default() };
    let mut client = node.client().await;
    let mut late = node.client().await;
    let call = tokio::spawn({
        let asked = asked.clone();
        async move { client.segment(asked).await }
    });
    eventually("the call", || node.script.ground.begun() == 1).await;
    node.ask_to_stop();
    // A call before the node knows would be taken, and wait at the gate like the first.
    soon("the shutdown", async {
        while late.describe(wire::DescribeRequest {}).await.is_ok_and(|said| said.into_inner().ready) {}
    })
    .await;
    let refused = soon("the refusal", late.segment(asked)).await.expect_err("shutting down");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    node.script.ground.gate.open();
    let reply = soon("the answer", call).await.expect("does not panic").expect("is answered");
    assert_eq!(reply.into_inner().result.expect("has a result").verdict(), Verdict::Found);
    node.ended().await.expect("ends well");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_does_not_wait_for_ever() {
    let mut node = Running::start_with(|config| config.grace = Duration::from_millis(50)).await;
    node.script.segment.gate.shut();
    let scene = Scene::new().with(RED, 100, 80);
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    stream.show(&scene).await;
    eventually("the frame in work", || node.script.segment.begun() == 1).await;
    node.ask_to_stop();
    node.ended().await.expect("ends well");
    node.script.segment.gate.open();
}
