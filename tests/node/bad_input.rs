//! What comes from outside is not believed: each bad item is a typed error, and the stream goes on.

use sam4mllm::server::wire::perceive_request::Request;
use sam4mllm::server::wire::{self, DropReason, ErrorCode, Verdict};

use crate::harness::{BLUE, RED, Running, Scene, Stream, dropped, error_of, hinted, of, target};

/// Frames that no one should be able to break anything with, and what each is.
pub fn bad_frames() -> Vec<(&'static str, wire::Frame, ErrorCode)> {
    let scene = Scene::new().with(RED, 33, 44);
    let jpeg = scene.jpeg();
    let file = |encoding: &str, data: &[u8]| wire::Frame {
        encoding: encoding.into(),
        data: data.to_vec().into(),
        ..Default::default()
    };
    let raw = |width, height, step, bytes| wire::Frame { width, height, step, ..file("rgb8", &vec![0; bytes]) };
    let mut bomb = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    bomb.extend([30_000u32.to_be_bytes(), 30_000u32.to_be_bytes()].concat());
    bomb.extend([8, 2, 0, 0, 0, 1, 2, 3, 4]);
    // A JPEG whose end is there and whose tables are not.
    let mut gutted = jpeg.clone();
    gutted.drain(100..500);
    let webp = |flags: u8, side: u8| {
        let canvas = [flags, 0, 0, 0, side, side, side, side, side, side];
        [&b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0"[..], &canvas[..]].concat()
    };
    let (animation, huge) = (webp(2, 0), webp(0, 0xFF));
    vec![
        ("half a JPEG", file("jpeg", &jpeg[..jpeg.len() / 2]), ErrorCode::FrameData),
        ("a JPEG without its end", file("jpeg", &jpeg[..jpeg.len() - 2]), ErrorCode::FrameData),
        ("a JPEG without its tables", file("jpeg", &gutted), ErrorCode::FrameData),
        ("30000 x 30000", file("png", &bomb), ErrorCode::FrameTooLarge),
        ("no bytes", file("jpeg", &[]), ErrorCode::FrameEncoding),
        ("a JPEG called PNG", file("png", &jpeg), ErrorCode::FrameEncoding),
        ("an unknown encoding", file("yuv444", &jpeg), ErrorCode::FrameEncoding),
        ("a depth encoding", file("16UC1", &jpeg), ErrorCode::FrameEncoding),
        ("an unknown number", wire::Frame { encoding_id: 99, ..file("", &jpeg) }, ErrorCode::FrameEncoding),
        ("a name and another number", wire::Frame { encoding_id: 2, ..file("jpeg", &jpeg) }, ErrorCode::FrameEncoding),
        ("an animation", file("webp", &animation), ErrorCode::FrameEncoding),
        ("a WebP of 2^48 pixels", file("webp", &huge), ErrorCode::FrameTooLarge),
        ("half a pair", wire::Frame { encoding: "nv12".into(), ..raw(5, 2, 0, 15) }, ErrorCode::FrameLayout),
        (
            "chroma in the luma",
            wire::Frame { encoding: "nv12".into(), chroma_offset: 7, ..raw(4, 2, 0, 12) },
            ErrorCode::FrameLayout,
        ),
        (
            "chroma far behind",
            wire::Frame { encoding: "nv12".into(), chroma_offset: u32::MAX, ..raw(4, 2, 0, 12) },
            ErrorCode::FrameLayout,
        ),
        ("chroma of its own", wire::Frame { chroma_step: 30, ..raw(10, 4, 30, 120) }, ErrorCode::FrameLayout),
        ("a long encoding", file(&"x".repeat(10_000), &jpeg), ErrorCode::FrameEncoding),
        ("another size", wire::Frame { width: 99, ..file("jpeg", &jpeg) }, ErrorCode::FrameLayout),
        ("a step below a row", raw(10, 4, 29, 120), ErrorCode::FrameLayout),
        ("too few bytes", raw(10, 4, 30, 119), ErrorCode::FrameLayout),
        ("too many bytes", raw(10, 4, 30, 121), ErrorCode::FrameLayout),
        ("no pixels", raw(0, 4, 30, 120), ErrorCode::FrameLayout),
        ("2^64 pixels", raw(u32::MAX, u32::MAX, u32::MAX, 120), ErrorCode::FrameTooLarge),
        (
            "a long optical frame",
            wire::Frame { optical_frame: "o".repeat(257), ..file("jpeg", &jpeg) },
            ErrorCode::Request,
        ),
    ]
}

/// A stream on which the red box is followed.
async fn following(node: &Running, scene: &Scene) -> Stream {
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    stream.until_verdict(scene, "r", Verdict::Found).await;
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_frames_are_refused_one_by_one() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 33, 44);
    let mut stream = following(&node, &scene).await;
    let before = stream.exchange(&scene).await;
    let (mut seq, mut bad) = (before.seq, 0);
    for (name, frame, code) in bad_frames() {
        seq += 1;
        bad += 1;
        stream.frame(wire::Frame { seq, ..frame }).await;
        let refused = stream.refusal().await;
        assert_eq!((refused.seq, error_of(&refused.error)), (Some(seq), Some(code)), "{name}: {refused:?}");
        assert!(refused.error.expect("has an error").message.len() < 300, "{name}");
        seq += 1;
        let good = stream.exchange(&scene).await;
        assert_eq!(good.seq, seq, "{name}");
        let (now, then) = (&of(&good, "r").instances[0], &of(&before, "r").instances[0]);
        assert_eq!((now.instance_id, &now.mask), (then.instance_id, &then.mask), "{name}");
        assert_eq!(dropped(&good).get(&DropReason::Undecodable), Some(&bad), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_must_not_go_back() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 33, 44);
    let mut stream = following(&node, &scene).await;
    stream.frame(scene.frame(500)).await;
    assert_eq!(stream.next().await.seq, 500);
    for seq in [500, 499, 0] {
        stream.frame(scene.frame(seq)).await;
        let refused = stream.refusal().await;
        assert_eq!((refused.seq, error_of(&refused.error)), (Some(seq), Some(ErrorCode::FrameOrder)));
    }
    assert_eq!(dropped(&stream.exchange(&scene).await), [(DropReason::OutOfOrder, 3)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_commands_fail_their_target_alone() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 33, 44).with(BLUE, 200, 100);
    let mut stream = node.stream().await;
    let bad = ["", " \t\n", &"red ".repeat(25_000), "red <image> <user>", "red\u{202e}"];
    let mut targets = vec![target("good", "red")];
    targets.extend(bad.iter().enumerate().map(|(i, command)| target(&format!("bad {i}"), command)));
    stream.set(targets).await;
    let frame = stream
        .until(&scene, |f| of(f, "good").verdict() == Verdict::Found && of(f, "bad 4").verdict() == Verdict::Failed)
        .await;
    let frame = match of(&frame, "bad 3").verdict() {
        Verdict::Failed => frame,
        _ => stream.until_verdict(&scene, "bad 3", Verdict::Failed).await,
    };
    for i in 0..bad.len() {
        let result = of(&frame, &format!("bad {i}"));
        assert_eq!(result.verdict(), Verdict::Failed, "{i}");
        assert_eq!(error_of(&result.error), Some(ErrorCode::Command), "{i}");
        assert!(result.error.as_ref().is_some_and(|e| e.message.len() < 300), "{i}");
    }
    // The same id with a command that makes sense.
    stream.add(target("bad 0", "blue")).await;
    stream.until_verdict(&scene, "bad 0", Verdict::Found).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_targets_change_nothing() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 33, 44);
    let mut stream = following(&node, &scene).await;
    let id = of(&stream.exchange(&scene).await, "r").instances[0].instance_id;
    let many: Vec<_> = (0..17).map(|i| target(&format!("{i}"), "blue")).collect();
    let odd = wire::Target { hint: 99, ..target("x", "blue") };
    let set = |targets| Request::SetTargets(wire::SetTargets { targets });
    let cases = [
        ("17 targets", set(many), ErrorCode::Limit),
        ("one id twice", set(vec![target("a", "blue"), target("a", "green")]), ErrorCode::Target),
        ("no id", Request::AddTarget(target("", "blue")), ErrorCode::Target),
        ("a long id", Request::AddTarget(target(&"i".repeat(129), "blue")), ErrorCode::Target),
        ("an unknown hint", Request::AddTarget(odd), ErrorCode::Request),
        ("an unknown id", Request::RemoveTarget(wire::RemoveTarget { target_id: "z".into() }), ErrorCode::Target),
    ];
    for (name, request, code) in cases {
        stream.send(wire::PerceiveRequest { request: Some(request), options: None }).await;
        let refused = stream.refusal().await;
        assert_eq!(error_of(&refused.error), Some(code), "{name}: {refused:?}");
        let frame = stream.exchange(&scene).await;
        assert_eq!(frame.targets.len(), 1, "{name}");
        assert_eq!(of(&frame, "r").instances[0].instance_id, id, "{name}");
    }
    stream.send(wire::PerceiveRequest::default()).await;
    assert_eq!(error_of(&stream.refusal().await.error), Some(ErrorCode::Request));
    // As many as there may be, one by one; then one more.
    for i in 1..16 {
        stream.add(hinted(&format!("t{i}"), "red", wire::CountHint::One)).await;
    }
    stream.add(target("t16", "red")).await;
    assert_eq!(error_of(&stream.refusal().await.error), Some(ErrorCode::Limit));
    assert_eq!(stream.exchange(&scene).await.targets.len(), 16);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_mask_format_is_refused() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 33, 44);
    let mut stream = following(&node, &scene).await;
    stream.options.mask_format = 42;
    stream.show(&scene).await;
    assert_eq!(error_of(&stream.refusal().await.error), Some(ErrorCode::Request));
    stream.options.mask_format = wire::MaskFormat::Png.into();
    assert_eq!(of(&stream.exchange(&scene).await, "r").verdict(), Verdict::Found);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_too_large_ends_its_stream_only() {
    let node = Running::start_with(|config| config.max_message_bytes = 1 << 20).await;
    let scene = Scene::new().with(RED, 33, 44);
    let mut other = following(&node, &scene).await;
    let mut stream = following(&node, &scene).await;
    stream.frame(wire::Frame { data: vec![0; 2 << 20].into(), ..scene.frame(1000) }).await;
    let status = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status:?}");
    assert_eq!(of(&other.exchange(&scene).await, "r").verdict(), Verdict::Found);
}
