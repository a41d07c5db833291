//! `Segment`: one image, one command, one answer.

use std::time::Duration;

use image::ImageEncoder;
use sam4mllm::server::wire::{self, CountHint, Origin, PointLabel, Verdict};
use tonic::Code;

use crate::harness::{BLUE, GREEN, RED, Running, Scene, decode_mask, eventually, iou, rle, soon};

fn request(scene: &Scene, command: &str) -> wire::SegmentRequest {
    wire::SegmentRequest { frame: Some(scene.frame(7)), command: command.into(), ..Default::default() }
}

async fn ask(node: &Running, request: wire::SegmentRequest) -> Result<wire::SegmentResponse, tonic::Status> {
    let mut client = node.client().await;
    soon("an answer", client.segment(request)).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_object_is_found_with_its_evidence() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 100, 80).with(BLUE, 220, 30);
    let mut plain = request(&scene, "the red box");
    let bare = ask(&node, plain.clone()).await.expect("answers").result.expect("has a result");
    assert!(bare.evidence.is_none() && bare.instances[0].evidence.is_some());

    plain.options = Some(wire::Options { evidence: true, ..Default::default() });
    let reply = ask(&node, plain).await.expect("answers");
    assert_eq!((reply.seq, reply.stamp_ns, reply.optical_frame.as_str()), (7, 1_000_007, "camera_optical"));
    assert_eq!((reply.width, reply.height), (320, 240));
    assert!(reply.sent_ns >= reply.received_ns && !reply.timings.is_empty());
    let result = reply.result.expect("has a result");
    assert_eq!(result.verdict(), Verdict::Found);
    assert!((0.5..=1.0).contains(&result.confidence));
    let evidence = result.evidence.expect("was asked for");
    assert_eq!((evidence.seq, evidence.passes), (7, 2));
    assert!(evidence.answer.starts_with('['), "{}", evidence.answer);
    let [instance] = &result.instances[..] else { panic!("{:?}", result.instances) };
    assert!(iou(instance, &scene.truth(0)) > 0.95, "{}", iou(instance, &scene.truth(0)));
    assert_eq!(instance.origin(), Origin::Grounded);
    assert_eq!((instance.grounded_seq, instance.mask_seq, instance.mask_age_ms), (7, 7, 0));
    let points = &instance.evidence.as_ref().expect("was asked for").points;
    assert_eq!(points.len(), 25);
    assert!(points.iter().all(|p| p.label() == PointLabel::On && p.p_yes > 0.75));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_such_object_is_a_verdict() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 20, 80).with(RED, 200, 80).with(BLUE, 110, 10);
    let cases = [
        ("the green box", CountHint::Unspecified, Verdict::Absent, 0),
        ("a green box", CountHint::One, Verdict::Absent, 0),
        ("the red boxes", CountHint::NoneOrMore, Verdict::Found, 2),
        ("the red box", CountHint::One, Verdict::Ambiguous, 2),
        ("the blue one", CountHint::One, Verdict::Found, 1),
        ("the kettle", CountHint::Unspecified, Verdict::Unsure, 0),
    ];
    for (command, hint, verdict, instances) in cases {
        let asked = wire::SegmentRequest { hint: hint.into(), ..request(&scene, command) };
        let result = ask(&node, asked).await.expect("answers").result.expect("has a result");
        assert_eq!((result.verdict(), result.instances.len()), (verdict, instances), "{command}");
        let mut ids: Vec<u64> = result.instances.iter().map(|i| i.instance_id).collect();
        ids.dedup();
        assert_eq!(ids.len(), instances, "{command}: ids differ");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mask_that_the_segmenter_doubts_is_shown_as_unsure() {
    let node = Running::start().await;
    node.script.segment.doubt(true);
    let result = ask(&node, request(&Scene::new().with(RED, 100, 80), "red")).await.expect("answers").result;
    let result = result.expect("has a result");
    assert_eq!((result.verdict(), result.instances.len()), (Verdict::Unsure, 1));
    assert!(result.instances[0].mask_score < 0.4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_encoding_gives_the_same_mask() {
    let node = Running::start().await;
    let scene = Scene::sized(321, 200).with(GREEN, 90, 60);
    let rgb = scene.rgb();
    let mut png = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut png);
    encoder.write_image(&rgb, 321, 200, image::ExtendedColorType::Rgb8).expect("encodes");
    let padded: Vec<u8> = rgb.chunks(963).flat_map(|row| [row, &[9; 61]].concat()).collect();
    let bgr: Vec<u8> = rgb.chunks(3).flat_map(|p| [p[2], p[1], p[0]]).collect();
    let cases: [(&str, u32, u32, u32, Vec<u8>); 4] = [
        ("png", 0, 0, 0, png),
        ("rgb8", 321, 200, 963, rgb.clone()),
        ("rgb8", 321, 200, 1024, padded),
        ("bgr8", 321, 200, 0, bgr),
    ];
    for (encoding, width, height, step, data) in cases {
        let frame =
            wire::Frame { encoding: encoding.into(), width, height, step, data: data.into(), ..Default::default() };
        let asked = wire::SegmentRequest { frame: Some(frame), command: "green".into(), ..Default::default() };
        let result = ask(&node, asked).await.expect("answers").result.expect("has a result");
        assert_eq!(iou(&result.instances[0], &scene.truth(0)), 1.0, "{encoding} {step}");
    }
    let grey = wire::Frame {
        encoding: "mono8".into(),
        width: 60,
        height: 40,
        data: vec![80; 2400].into(),
        ..Default::default()
    };
    let asked = wire::SegmentRequest { frame: Some(grey), command: "green".into(), ..Default::default() };
    let result = ask(&node, asked).await.expect("answers").result.expect("has a result");
    assert_eq!(result.verdict(), Verdict::Absent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn png_masks_equal_run_lengths() {
    let node = Running::start().await;
    let scene = Scene::sized(203, 151).with_box(RED, [17, 31, 90, 77]).with_box(BLUE, [40, 50, 60, 60]);
    let rle = ask(&node, request(&scene, "red")).await.expect("answers").result.expect("has a result");
    let options = Some(wire::Options { mask_format: wire::MaskFormat::Png.into(), ..Default::default() });
    let png = wire::SegmentRequest { options, ..request(&scene, "red") };
    let png = ask(&node, png).await.expect("answers").result.expect("has a result");
    let masks = [&rle, &png].map(|r| decode_mask(r.instances[0].mask.as_ref().expect("has a mask")));
    assert!(masks[0].area() > 0);
    assert_eq!(masks[0], masks[1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_gives_the_same_bytes() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 33, 44);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let result = ask(&node, request(&scene, "red")).await.expect("answers").result.expect("has a result");
        seen.push(rle(&result.instances[0]));
    }
    assert!(seen.iter().all(|s| *s == seen[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_invalid_arguments() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 33, 44);
    for (name, frame, _) in crate::bad_input::bad_frames() {
        let asked = wire::SegmentRequest { frame: Some(frame), command: "red".into(), ..Default::default() };
        let status = ask(&node, asked).await.expect_err(name);
        assert_eq!(status.code(), Code::InvalidArgument, "{name}: {status:?}");
    }
    for command in ["", "  \n ", &"red ".repeat(25_000), "red <image>", "red\u{7}"] {
        let status = ask(&node, request(&scene, command)).await.expect_err("a bad command");
        assert_eq!(status.code(), Code::InvalidArgument, "{} bytes: {status:?}", command.len());
        assert!(status.message().len() < 300, "{}", status.message());
    }
    let status = ask(&node, wire::SegmentRequest::default()).await.expect_err("no frame");
    assert_eq!(status.code(), Code::InvalidArgument);
    let odd = wire::SegmentRequest { hint: 77, ..request(&scene, "red") };
    assert_eq!(ask(&node, odd).await.expect_err("a hint that is unknown").code(), Code::InvalidArgument);
    assert!(ask(&node, request(&scene, "red")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_calls_are_refused_and_none_is_forgotten() {
    let node = Running::start_with(|config| config.node.max_calls = 1).await;
    let scene = Scene::new().with(RED, 33, 44);
    node.script.ground.gate.shut();
    let (mut client, asked) = (node.client().await, request(&scene, "red"));
    let first = tokio::spawn(async move { client.segment(asked).await });
    eventually("the first call", || node.script.ground.begun() == 1).await;
    let refused = ask(&node, request(&scene, "red")).await.expect_err("one too many");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    node.script.ground.gate.open();
    let first = soon("the first answer", first).await.expect("does not panic").expect("answers");
    assert_eq!(first.into_inner().result.expect("has a result").verdict(), Verdict::Found);
    assert!(ask(&node, request(&scene, "red")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_the_call_and_frees_its_place() {
    let node = Running::start_with(|config| config.node.max_calls = 1).await;
    let scene = Scene::new().with(RED, 33, 44);
    node.script.ground.gate.shut();
    let mut asked = tonic::Request::new(request(&scene, "red"));
    asked.set_timeout(Duration::from_millis(50));
    let mut client = node.client().await;
    let late = soon("the deadline", client.segment(asked)).await.expect_err("takes for ever");
    // tonic's client gives up by itself and calls that "cancelled".
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&late.code()), "{late:?}");
    node.script.ground.gate.open();
    soon("a free place", async {
        while ask(&node, request(&scene, "red")).await.is_err_and(|s| s.code() == Code::ResourceExhausted) {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_engine_is_an_internal_error() {
    // A failure that only spoils a draft is none.
    let node = Running::start_with(|config| config.node.draft_wait = Duration::ZERO).await;
    let scene = Scene::new().with(RED, 33, 44);
    for play in [&node.script.ground, &node.script.segment] {
        play.fail(1);
        let status = ask(&node, request(&scene, "red")).await.expect_err("scripted");
        assert_eq!(status.code(), Code::Internal, "{status:?}");
        assert!(status.message().contains("the script says so"), "{status:?}");
        assert!(ask(&node, request(&scene, "red")).await.is_ok());
    }
}
