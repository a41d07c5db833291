//! What cameras send: every encoding, depth beside it, raw 4K; and what every reply says of itself.

use std::time::{SystemTime, UNIX_EPOCH};

use image::ImageEncoder;
use sam4mllm::server::wire::{self, Encoding, ErrorCode, Origin, Verdict};

use crate::harness::{BLUE, RED, Running, Scene, Stream, error_of, iou, of, soon, target};

const CAMERA: wire::Intrinsics =
    wire::Intrinsics { fx: 300.0, fy: 290.0, cx: 159.5, cy: 119.5, distortion: Vec::new() };

async fn segment(node: &Running, frame: wire::Frame, command: &str) -> Result<wire::SegmentResponse, tonic::Status> {
    let request = wire::SegmentRequest { frame: Some(frame), command: command.into(), ..Default::default() };
    let mut client = node.client().await;
    soon("an answer", client.segment(request)).await.map(tonic::Response::into_inner)
}

/// Y, U, V of a colour, BT.601, limited range.
fn yuv(rgb: &[u8]) -> [u8; 3] {
    let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(|c| f64::from(c) / 255.0);
    let y = 0.299 * r + 0.587 * g + 0.114 * b;
    [16.0 + 219.0 * y, 128.0 + 224.0 * (b - y) / 1.772, 128.0 + 224.0 * (r - y) / 1.402].map(|v| v.round() as u8)
}

/// The scene as a camera would write it.
fn written(scene: &Scene, encoding: &str) -> Vec<u8> {
    let (rgb, w) = (scene.rgb(), scene.width as usize);
    let pixels = |order: &[usize]| rgb.chunks(3).flat_map(|p| order.iter().map(|i| *p.get(*i).unwrap_or(&9))).collect();
    let colours: Vec<[u8; 3]> = rgb.chunks(3).map(yuv).collect();
    let groups = |order: [usize; 4]| {
        let group = |p: &[[u8; 3]]| order.map(|i| [p[0][0], p[1][0], p[0][1], p[0][2]][i]);
        colours.chunks(2).flat_map(group).collect()
    };
    match encoding {
        "rgba8" => pixels(&[0, 1, 2, 3]),
        "bgra8" => pixels(&[2, 1, 0, 3]),
        "yuyv" => groups([0, 2, 1, 3]),
        "uyvy" => groups([2, 0, 3, 1]),
        "nv12" => {
            let chroma = colours.chunks(2 * w).flat_map(|rows| rows[..w].chunks(2).flat_map(|p| [p[0][1], p[0][2]]));
            colours.iter().map(|c| c[0]).chain(chroma).collect()
        }
        "bayer_grbg8" => {
            let sample = |(i, p): (usize, &[u8])| p[[[1, 0], [2, 1]][i / w % 2][i % w % 2]];
            rgb.chunks(3).enumerate().map(sample).collect()
        }
        "webp" => {
            let mut out = Vec::new();
            let encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut out);
            encoder.write_image(&rgb, scene.width, scene.height, image::ExtendedColorType::Rgb8).expect("encodes");
            out
        }
        other => panic!("{other} is not written here"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_camera_is_understood_by_name_and_by_number() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 90, 60).with(BLUE, 200, 100);
    let cases = [
        ("webp", "WebP", Encoding::Webp, 1.0),
        ("rgba8", "rgba8", Encoding::Rgba8, 1.0),
        ("bgra8", "bgra8", Encoding::Bgra8, 1.0),
        ("yuyv", "yuv422_yuy2", Encoding::Yuyv, 1.0),
        ("uyvy", "yuv422", Encoding::Uyvy, 1.0),
        ("nv12", "NV12", Encoding::Nv12, 1.0),
        // Interpolated edges are of neither colour.
        ("bayer_grbg8", "bayer_grbg8", Encoding::BayerGrbg8, 0.9),
    ];
    let about = node.client().await.describe(wire::DescribeRequest {}).await.expect("describes").into_inner();
    for (written_as, name, id, least) in cases {
        let (width, height) = if written_as == "webp" { (0, 0) } else { (scene.width, scene.height) };
        let raw = wire::Frame { width, height, data: written(&scene, written_as).into(), ..Default::default() };
        let named = wire::Frame { encoding: name.into(), ..raw.clone() };
        let numbered = wire::Frame { encoding_id: id.into(), ..raw };
        for frame in [named, numbered] {
            let reply = segment(&node, frame, "red").await.expect("answers");
            assert_eq!((reply.width, reply.height), (320, 240), "{name}");
            let result = reply.result.expect("has a result");
            assert!(iou(&result.instances[0], &scene.truth(0)) >= least, "{name}");
        }
        assert!(about.encodings.iter().any(|e| e.eq_ignore_ascii_case(name)), "{name} is announced");
    }
}

/// Depth of the scene: the box 0 at `near` metres before a wall at 2 m, as `encoding` has it.
fn depth(scene: &Scene, near: f32, encoding: &str, is_bigendian: bool) -> wire::Depth {
    let truth = scene.truth(0);
    let sample = |bit: &u8| -> Vec<u8> {
        let metres = if *bit == 1 { near } else { 2.0 };
        let mm = (metres * 1000.0).round() as u16;
        match (encoding, is_bigendian) {
            ("16UC1", false) => mm.to_le_bytes().to_vec(),
            ("16UC1", true) => mm.to_be_bytes().to_vec(),
            (_, false) => metres.to_le_bytes().to_vec(),
            (_, true) => metres.to_be_bytes().to_vec(),
        }
    };
    let rows = (0..scene.height).flat_map(|y| {
        // Rows are padded, as a device aligns them.
        [truth.row(y).iter().flat_map(sample).collect(), vec![0xEE; 12]].concat()
    });
    let bytes = if encoding == "16UC1" { 2 } else { 4 };
    wire::Depth {
        encoding: encoding.into(),
        width: scene.width,
        height: scene.height,
        step: scene.width * bytes + 12,
        is_bigendian,
        data: rows.collect(),
    }
}

fn near(v: &Option<wire::Vector>, expected: [f64; 3], what: &str) {
    let v = v.as_ref().expect("is there");
    let off = [v.x, v.y, v.z].iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
    // Two pixels at 1 m.
    assert!(off < 0.008, "{what}: {v:?} is not {expected:?}");
}

/// Checks the position of a 60 x 60 box whose left top corner is at (`x`, `y`), `z` metres away.
fn check_position(instance: &wire::Instance, x: f64, y: f64, z: f64) {
    let position = instance.position.as_ref().expect("has a position");
    let at = |x: f64, y: f64| [(x - CAMERA.cx) * z / CAMERA.fx, (y - CAMERA.cy) * z / CAMERA.fy, z];
    near(&position.centroid, at(x + 29.5, y + 29.5), "centroid");
    near(&position.min, at(x, y), "min");
    near(&position.max, at(x + 59.0, y + 59.0), "max");
    assert!((3300..=3900).contains(&position.depth_pixels), "{position:?}");
    assert!(position.used_pixels * 10 >= position.depth_pixels * 9 && position.used_pixels <= 3600, "{position:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn depth_gives_every_instance_a_position() {
    let node = Running::start().await;
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    let mut seq = 0;
    let mut show = |scene: &Scene, metres: Option<f32>, encoding: &str, big: bool| {
        seq += 1;
        let depth = metres.map(|m| depth(scene, m, encoding, big));
        wire::Frame { depth, intrinsics: Some(CAMERA), ..scene.frame(seq) }
    };
    let at = |x: u32| Scene::new().with(RED, x, 80);
    // Until the target is grounded.
    let first = loop {
        stream.frame(show(&at(100), Some(1.0), "16UC1", false)).await;
        let frame = stream.next().await;
        if of(&frame, "r").verdict() == Verdict::Found {
            break frame;
        }
    };
    check_position(&of(&first, "r").instances[0], 100.0, 80.0, 1.0);
    assert_eq!(first.intrinsics, Some(CAMERA));
    assert!(first.timings.iter().any(|t| t.stage == "locate"), "{:?}", first.timings);
    let cases = [(104, 0.9, "16UC1", true), (108, 0.8, "32FC1", false), (112, 0.7, "32FC1", true)];
    for (x, metres, encoding, big) in cases {
        stream.frame(show(&at(x), Some(metres), encoding, big)).await;
        let frame = stream.next().await;
        let instance = &of(&frame, "r").instances[0];
        assert_eq!(instance.origin(), Origin::Tracked);
        check_position(instance, x.into(), 80.0, f64::from(metres));
    }
    // A frame without depth says nothing about where it is, and the last one's position is not repeated.
    stream.frame(show(&at(112), None, "", false)).await;
    let frame = stream.next().await;
    assert!(of(&frame, "r").instances[0].position.is_none());
    // A stale mask keeps the position that it was seen at.
    stream.frame(show(&at(112), Some(0.6), "16UC1", false)).await;
    let seen = stream.next().await;
    node.script.segment.fail(1);
    stream.frame(show(&at(116), Some(0.5), "16UC1", false)).await;
    let frame = stream.next().await;
    let (now, then) = (&of(&frame, "r").instances[0], &of(&seen, "r").instances[0]);
    assert_eq!((now.origin(), now.mask_seq), (Origin::Stale, seen.seq));
    assert!(now.position.is_some());
    assert_eq!(now.position, then.position);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_gets_positions_too_and_too_little_depth_gives_none() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 100, 80);
    let frame = |depth: wire::Depth, distortion: &[f64]| wire::Frame {
        depth: Some(depth),
        intrinsics: Some(wire::Intrinsics { distortion: distortion.to_vec(), ..CAMERA }),
        ..scene.frame(3)
    };
    let full = depth(&scene, 1.25, "16UC1", false);
    for (distortion, distorted) in [(&[][..], false), (&[0.0; 5], false), (&[-0.2, 0.1, 0.0, 0.0, 0.0], true)] {
        let reply = segment(&node, frame(full.clone(), distortion), "red").await.expect("answers");
        let result = reply.result.expect("has a result");
        check_position(&result.instances[0], 100.0, 80.0, 1.25);
        assert_eq!(result.instances[0].position.as_ref().map(|p| p.distorted), Some(distorted));
    }
    let holes = wire::Depth { data: vec![0; full.data.len()].into(), ..full };
    let reply = segment(&node, frame(holes, &[]), "red").await.expect("answers");
    let result = reply.result.expect("has a result");
    assert_eq!(result.verdict(), Verdict::Found);
    assert!(result.instances[0].position.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn depth_that_does_not_fit_is_refused_and_the_stream_goes_on() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 100, 80);
    let mut stream = node.stream().await;
    stream.set([target("r", "red")]).await;
    let good = depth(&scene, 1.0, "16UC1", false);
    let other = depth(&Scene::sized(160, 120).with(RED, 20, 20), 1.0, "16UC1", false);
    let camera = |intrinsics| (good.clone(), Some(intrinsics));
    let cases = [
        ("another size", (other, Some(CAMERA)), "register depth"),
        ("no intrinsics", (good.clone(), None), "without intrinsics"),
        ("no focal length", camera(wire::Intrinsics { fx: 0.0, ..CAMERA }), "CameraInfo"),
        ("no number", camera(wire::Intrinsics { cy: f64::NAN, ..CAMERA }), "CameraInfo"),
        ("distortion without end", camera(wire::Intrinsics { distortion: vec![0.0; 17], ..CAMERA }), "at most 16"),
        ("infinite distortion", camera(wire::Intrinsics { distortion: vec![f64::INFINITY], ..CAMERA }), "at most 16"),
        ("a colour as depth", (wire::Depth { encoding: "rgb8".into(), ..good.clone() }, Some(CAMERA)), "32FC1"),
        ("a short step", (wire::Depth { step: 639, ..good.clone() }, Some(CAMERA)), "smaller than a row"),
        ("a huge step", (wire::Depth { step: u32::MAX, ..good.clone() }, Some(CAMERA)), "expected"),
        ("too few bytes", (wire::Depth { data: good.data.slice(1..600), ..good.clone() }, Some(CAMERA)), "expected"),
        ("no columns", (wire::Depth { width: 0, ..good.clone() }, Some(CAMERA)), "empty"),
    ];
    for (seq, (name, (depth, intrinsics), what)) in (1..).zip(cases) {
        let frame = wire::Frame { depth: Some(depth), intrinsics, ..scene.frame(2 * seq) };
        let status = segment(&node, frame.clone(), "red").await.expect_err(name);
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{name}: {status:?}");
        stream.frame(frame).await;
        let refused = stream.refusal().await;
        assert_eq!(error_of(&refused.error), Some(ErrorCode::FrameDepth), "{name}: {refused:?}");
        let message = refused.error.expect("has an error").message;
        assert!(message.contains(what) && message.len() < 300, "{name}: {message}");
        assert_eq!(stream.exchange(&scene).await.seq, 2 * seq + 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_4k_fits_and_with_depth_takes_a_larger_limit() {
    let scene = Scene::sized(3840, 2160).with_box(RED, [800, 600, 1400, 1200]);
    let rgb8 = wire::Frame {
        encoding: "rgb8".into(),
        width: 3840,
        height: 2160,
        data: scene.rgb().into(),
        ..Default::default()
    };
    let node = Running::start().await;
    let reply = segment(&node, rgb8.clone(), "red").await.expect("answers");
    assert!(iou(&reply.result.expect("has a result").instances[0], &scene.truth(0)) > 0.99);
    let depth = depth(&scene, 1.0, "16UC1", false);
    let both = wire::Frame { depth: Some(depth), intrinsics: Some(CAMERA), ..rgb8 };
    let status = segment(&node, both.clone(), "red").await.expect_err("has 41.5 MB");
    assert_eq!(status.code(), tonic::Code::OutOfRange, "{status:?}");
    let roomy = Running::start_with(|config| config.max_message_bytes = 48 << 20).await;
    let reply = segment(&roomy, both, "red").await.expect("answers");
    let position = reply.result.expect("has a result").instances[0].position.expect("has depth");
    assert!((position.centroid.expect("is there").z - 1.0).abs() < 1e-3);
}

fn now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("is after").as_nanos() as i64
}

/// Whoever keeps a reply can tell what made it.
fn check_provenance(provenance: &Option<wire::Provenance>) {
    let expected = wire::Provenance {
        bundle_name: "colours".into(),
        bundle_version: "1.2.3".into(),
        bundle_fingerprint: "f00".into(),
        engine: "fake".into(),
        engine_version: "4.5".into(),
        node_version: env!("CARGO_PKG_VERSION").into(),
    };
    assert_eq!(provenance.as_ref(), Some(&expected));
}

/// Stages are timed, and together they fit between the two stamps.
fn check_times(timings: &[wire::Timing], received_ns: i64, sent_ns: i64, sent: i64, stages: &[&str]) {
    assert!(sent <= received_ns && received_ns <= sent_ns && sent_ns <= now_ns(), "{sent} {received_ns} {sent_ns}");
    let names: Vec<&str> = timings.iter().map(|t| t.stage.as_str()).collect();
    assert_eq!(names, stages);
    assert!(timings.iter().all(|t| t.ms >= 0.0 && t.ms.is_finite()), "{timings:?}");
    let sum: f32 = timings.iter().map(|t| t.ms).sum();
    // Clocks differ a little.
    assert!(sum <= (sent_ns - received_ns) as f32 * 1e-6 + 1.0, "{timings:?} in {} ns", sent_ns - received_ns);
}

/// Box, points and score, without asking for them.
fn check_evidence(instance: &wire::Instance, scene: &Scene) {
    let evidence = instance.evidence.as_ref().expect("is in every reply");
    let proposal = evidence.proposal.as_ref().expect("has a box");
    let truth = scene.truth(0).bbox().expect("is not empty");
    let off = [proposal.x1 - truth.x1, proposal.y1 - truth.y1, proposal.x2 - truth.x2, proposal.y2 - truth.y2];
    assert!(off.iter().all(|d| d.abs() < 20.0), "{proposal:?}");
    assert_eq!(evidence.points.len(), 25);
    assert!(evidence.points.iter().all(|p| (0.0..=1.0).contains(&p.p_yes)));
    assert!((0.4..=1.0).contains(&instance.mask_score) && (0.0..=1.0).contains(&instance.confidence));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reply_says_why_and_what_made_it_and_when() {
    let node = Running::start().await;
    let scene = Scene::new().with(RED, 100, 80);
    let sent = now_ns();
    let reply = segment(&node, scene.frame(7), "red").await.expect("answers");
    check_provenance(&reply.provenance);
    assert_eq!((reply.stamp_ns, reply.intrinsics), (1_000_007, None));
    let result = reply.result.expect("has a result");
    assert!(result.evidence.is_none(), "the model's words are only on request");
    check_evidence(&result.instances[0], &scene);
    let names: Vec<&str> = reply.timings.iter().map(|t| t.stage.as_str()).collect();
    assert_eq!((names.first(), names.last()), (Some(&"decode"), Some(&"encode")));
    assert!(sent <= reply.received_ns && reply.received_ns <= reply.sent_ns && reply.sent_ns <= now_ns());

    let mut stream: Stream = node.stream().await;
    stream.set([target("r", "red"), target("g", "green"), target("bad", "")]).await;
    stream.until_verdict(&scene, "r", Verdict::Found).await;
    stream.until_verdict(&scene, "g", Verdict::Absent).await;
    for _ in 0..3 {
        let sent = now_ns();
        let frame = stream.exchange(&scene).await;
        check_provenance(&frame.provenance);
        let stages = ["wait", "decode", "embed", "segment", "encode"];
        check_times(&frame.timings, frame.received_ns, frame.sent_ns, sent, &stages);
        let [instance] = &of(&frame, "r").instances[..] else { panic!("{frame:?}") };
        check_evidence(instance, &scene);
        assert_eq!((instance.origin(), instance.mask_age_ms), (Origin::Tracked, 0));
        let age_ns = i64::from(instance.grounded_age_ms) * 1_000_000;
        assert!(age_ns <= now_ns() - sent + 60_000_000_000, "{age_ns}");
    }
    let about = node.client().await.describe(wire::DescribeRequest {}).await.expect("describes").into_inner();
    check_provenance(&about.provenance);
    assert_eq!(about.depth_encodings, ["16UC1", "32FC1"]);
}
