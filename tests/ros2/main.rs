//! `sam4mllm ros2` on topics: real DDS, a real node, and a participant that plays the robot.

mod harness;
#[path = "../fuzz/mutate.rs"]
mod mutate;
#[path = "../served.rs"]
mod served;

use std::fmt::Debug;
use std::process::Command;

use harness::{Robot, all, cyclone, domain, node};
use mutate::Mutator;
use ros2_client::dds::rustdds::serialization::{
    RepresentationIdentifier as Cdr, deserialize_from_cdr_with_rep_id, to_writer_with_rep_id,
};
use sam4mllm::client::{Client, Reply, masks, raw_frame};
use sam4mllm::dataset::{Assets, SceneGenerator, SceneOptions, Split};
use sam4mllm::ros2::convert;
use sam4mllm::ros2::message::{Bytes, CameraInfo, CompressedImage, Detection2dArray, Header, Image, Text};
use sam4mllm::server::wire;
use served::{PATIENCE, Process, waited};

const RED: [u8; 3] = [205, 25, 35];
const BLUE: [u8; 3] = [25, 45, 200];
const SIZE: (u32, u32) = (320, 240);
/// Left, top, right, bottom.
const RED_BOX: [u32; 4] = [90, 70, 150, 130];
const BLUE_BOX: [u32; 4] = [220, 150, 270, 200];

fn inside(corners: [u32; 4], x: u32, y: u32) -> bool {
    (corners[0]..corners[2]).contains(&x) && (corners[1]..corners[3]).contains(&y)
}

/// Two boxes on grey.
fn pixel(x: u32, y: u32) -> [u8; 3] {
    match () {
        () if inside(RED_BOX, x, y) => RED,
        () if inside(BLUE_BOX, x, y) => BLUE,
        () => [122; 3],
    }
}

fn rgb() -> Vec<u8> {
    (0..SIZE.1).flat_map(|y| (0..SIZE.0).flat_map(move |x| pixel(x, y))).collect()
}

/// `bgr8` with rows that are padded, as drivers send them.
fn padded(header: Header) -> Image {
    let row = |y| (0..SIZE.0).flat_map(move |x| pixel(x, y).into_iter().rev()).chain([0xaa; 64]);
    let data = (0..SIZE.1).flat_map(row).collect();
    let step = 3 * SIZE.0 + 64;
    Image { header, height: SIZE.1, width: SIZE.0, encoding: "bgr8".into(), is_bigendian: 0, step, data: Bytes(data) }
}

/// A wall at 1.5 m.
fn depth(header: Header) -> Image {
    let data = 1500u16.to_be_bytes().repeat((SIZE.0 * SIZE.1) as usize);
    let step = 2 * SIZE.0;
    Image { header, height: SIZE.1, width: SIZE.0, encoding: "16UC1".into(), is_bigendian: 1, step, data: Bytes(data) }
}

fn file(header: Header) -> CompressedImage {
    let mut data = Vec::new();
    let encoder = jpeg_encoder::Encoder::new(&mut data, 95);
    encoder.encode(&rgb(), SIZE.0 as u16, SIZE.1 as u16, jpeg_encoder::ColorType::Rgb).expect("encodes");
    CompressedImage { header, format: "bgr8; jpeg compressed bgr8".into(), data: Bytes(data) }
}

fn bridge(address: &str, domain: &str, more: &[&str]) -> Process {
    let fixed = ["ros2", "--node", address, "--domain", domain, "--image", "/camera/image_raw"];
    Process::start(&[&fixed, more].concat())
}

#[test]
fn a_raw_camera_gets_boxes_and_a_mask_of_the_same_stamp() {
    let domain = domain(0);
    // Both show each other their certificates.
    let pem = |name: &str| format!("{}/tests/node/tls/{name}", env!("CARGO_MANIFEST_DIR"));
    let (root, chain, key) = (pem("root.pem"), pem("server.pem"), pem("server.key"));
    let serve = ["--backend", "fake", "--tls-certificate", &chain, "--tls-key", &key, "--tls-client-ca", &root];
    let node = node("127.0.0.1:0", &serve);
    let address = node.address.replace("127.0.0.1", "https://localhost");
    let (chain, key) = (pem("client.pem"), pem("client.key"));
    let access = ["--ca", &root, "--certificate", &chain, "--key", &key];
    let bridge = bridge(&address, &domain, &[&["--labels", "--depth", "/camera/depth"], &access[..]].concat());
    let mut robot = Robot::join(&domain);
    let command = r#"{"absent": "the green box", "first": "the red box", "second": "the blue box"}"#;
    // The intrinsics may be the last topic to be discovered.
    let located = |found: &Detection2dArray| {
        found.detections.len() == 2 && found.detections.iter().all(|d| d.results[0].pose.pose.position.z > 0.0)
    };
    let (found, mask) = robot.finds(command, located, |robot, header| {
        let k = [300.0, 0.0, 160.0, 0.0, 300.0, 120.0, 0.0, 0.0, 1.0];
        robot.camera.publish(CameraInfo { header: header.clone(), k, ..CameraInfo::default() }).expect("is sent");
        robot.depths.publish(depth(header.clone())).expect("is sent");
        robot.images.publish(padded(header)).expect("is sent");
    });

    assert_eq!(found.header.frame_id, "camera_optical_frame");
    assert_eq!(found.header.stamp.nanosec - 123_456_789, (found.header.stamp.sec - 1_700_000_000) as u32);
    let boxes: Vec<_> = found.detections.iter().map(|d| (d.results[0].hypothesis.class_id.as_str(), d.bbox)).collect();
    assert_eq!(boxes.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ["first", "second"]);
    let (red, blue) = (boxes[0].1, boxes[1].1);
    assert_eq!((red.center.position.x, red.center.position.y, red.size_x, red.size_y), (120.0, 100.0, 60.0, 60.0));
    assert_eq!((blue.center.position.x, blue.center.position.y, blue.size_x, blue.size_y), (245.0, 175.0, 50.0, 50.0));
    assert!(found.detections.iter().all(|d| d.header == found.header && d.results[0].hypothesis.score > 0.0));
    assert_ne!(found.detections[0].id, found.detections[1].id);
    // 1.5 m away, in the middle of the box: (120 - 160.5 + 0.5) / 300 * 1.5.
    let centroid = found.detections[0].results[0].pose.pose.position;
    assert!((centroid.x + 0.2025).abs() < 1e-3 && (centroid.z - 1.5).abs() < 1e-3, "{centroid:?}");

    assert_eq!((mask.encoding.as_str(), mask.width, mask.height, mask.step), ("mono8", 320, 240, 320));
    let label = |x, y| u8::from(inside(RED_BOX, x, y)) + 2 * u8::from(inside(BLUE_BOX, x, y));
    let truth: Vec<u8> = (0..SIZE.1).flat_map(|y| (0..SIZE.0).map(move |x| label(x, y))).collect();
    assert!(mask.data.0 == truth, "the mask is exact");

    // Grounded one after the other: where the last two are found, the first was answered.
    let said = waited("a verdict", || all(&robot.verdicts).pop());
    let said: serde_json::Value = serde_json::from_str(&said.data).expect("JSON");
    assert_eq!(said["targets"]["absent"]["verdict"], "ABSENT", "{said}");
    assert_eq!(said["targets"]["first"]["verdict"], "FOUND", "{said}");
    assert_eq!(bridge.stop(), Some(0));
}

#[test]
fn a_compressed_camera_finds_its_node_again() {
    let domain = domain(1);
    let first = node("127.0.0.1:0", &["--backend", "fake"]);
    let address = first.address;
    let bridge = bridge(&address, &domain, &["--compressed"]);
    let mut robot = Robot::join(&domain);
    let one = |found: &Detection2dArray| found.detections.len() == 1;
    let show = |robot: &Robot, header| robot.files.publish(file(header)).expect("is sent");
    let (_, mask) = robot.finds("the red box", one, show);
    let truth = |x, y| inside(RED_BOX, x, y);
    let pixels = |mask: &Image| mask.data.0.iter().filter(|p| **p == 255).count() as i64;
    // JPEG smears the edges.
    assert!((pixels(&mask) - 3600).abs() < 300 && truth(120, 100) && mask.data.0[100 * 320 + 120] == 255);

    assert_eq!(first.process.stop(), Some(0));
    waited("the end of the stream", || bridge.log().contains("stream to the node").then_some(()));
    let second = node(&address, &["--backend", "fake"]);
    assert_eq!(second.address, address);
    let (found, _) = robot.finds("the blue box", one, show);
    assert_eq!(found.detections[0].results[0].hypothesis.class_id, "target");
    assert_eq!(bridge.stop(), Some(0));
}

/// The first answer to a command in a stream of one frame over and over.
async fn first_answer(client: &mut Client, frame: &wire::Frame, command: &str) -> wire::TargetResult {
    let mut stream = client.stream().await.expect("opens");
    stream.add("target", command).await.expect("is sent");
    loop {
        stream.frame(frame.clone()).await.expect("is sent");
        let Some(Reply::Frame(answer)) = stream.reply().await.expect("goes on") else { continue };
        if let Some(target) = answer.targets.into_iter().find(|t| t.verdict() != wire::Verdict::Pending) {
            return target;
        }
    }
}

#[tokio::test]
async fn the_embedded_default_says_on_topics_what_it_says_over_grpc() {
    let domain = domain(2);
    let node = node("127.0.0.1:0", &[]);
    let assets = Assets::load("engines/tabletop").expect("loads");
    let generator = SceneGenerator::new(&assets, Split::Test, 0);
    let mut client = Client::connect(node.url()).await.expect("connects");
    client.ready(PATIENCE).await.expect("becomes ready");

    let mut said = None;
    'scenes: for number in 0..8 {
        let scene = generator.scene(number, &SceneOptions { longest_side: 640, ..SceneOptions::default() });
        let (width, height) = (scene.size.width, scene.size.height);
        for expression in scene.expressions(4) {
            let frame = raw_frame("rgb8", width, height, 3 * width, scene.rgb.clone());
            let result = first_answer(&mut client, &frame, &expression.text).await;
            if result.verdict() == wire::Verdict::Found {
                said = Some((scene, expression.text, masks(&result).expect("run lengths")));
                break 'scenes;
            }
        }
    }
    let (scene, command, over_grpc) = said.expect("something is found");
    let (width, height) = (scene.size.width, scene.size.height);
    let bridge = bridge(&node.address, &domain, &[]);
    let mut robot = Robot::join(&domain);
    let (found, mask) = robot.finds(
        &command,
        |found| found.detections.len() == over_grpc.len(),
        |robot, header| {
            let data = Bytes(scene.rgb.clone());
            let image =
                Image { header, height, width, encoding: "rgb8".into(), is_bigendian: 0, step: 3 * width, data };
            robot.images.publish(image).expect("is sent");
        },
    );
    assert_eq!((found.detections.len(), mask.width, mask.height), (over_grpc.len(), width, height));
    let bits = mask.data.0.iter().map(|p| u8::from(*p == 255)).collect();
    let on_topic = sam4mllm::mask::Mask::from_bits(scene.size, bits).expect("is binary");
    let mut whole = over_grpc[0].clone();
    over_grpc.iter().for_each(|mask| whole.union_with(mask));
    let iou = on_topic.iou(&whole).expect("of one size");
    eprintln!("`{command}`: {} on the topic, IoU {iou:.3} with the mask over gRPC", found.detections.len());
    // Those on the topic may be followed rather than grounded.
    assert!(iou > 0.8, "{iou}");
    assert_eq!(bridge.stop(), Some(0));
}

#[test]
fn what_cyclone_dds_sends_and_reads_is_the_same() {
    let Some(python) = cyclone() else {
        eprintln!("skipped: 1 test, no Cyclone DDS (run tests/ros2/setup.sh)");
        return;
    };
    let domain = domain(3);
    let node = node("127.0.0.1:0", &["--backend", "fake"]);
    let _bridge = bridge(&node.address, &domain, &[]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ros2/cyclone.py");
    let output = Command::new(python).args([script, &domain]).output().expect("runs");
    let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
    assert!(output.status.success() && text.contains("passed: "), "{text}");
    eprintln!("{}", text.trim());
}

/// Bytes as they come from anyone in the domain: read or refused, and what is read becomes a frame or a command.
#[test]
fn hostile_bytes_are_refused_or_read() {
    fn bytes<M: serde::Serialize>(message: &M) -> Vec<u8> {
        let mut out = Vec::new();
        to_writer_with_rep_id(&mut out, message, Cdr::CDR_LE).expect("is written");
        out
    }
    fn check<M: serde::Serialize + serde::de::DeserializeOwned + Debug + PartialEq>(message: M, each: impl Fn(M)) {
        let seed = bytes(&message);
        let read = |bytes: &[u8]| deserialize_from_cdr_with_rep_id::<M>(bytes, Cdr::CDR_LE).map(|(read, _)| read);
        assert_eq!(read(&seed).expect("is read"), message);
        let mut mutator = Mutator::new("cdr", vec![seed]);
        let sound = (0..20_000).filter_map(|_| read(&mutator.next()).ok().map(&each)).count();
        assert!((1..20_000).contains(&sound), "{sound}");
    }
    let header = || Header { frame_id: "eye".into(), ..Header::default() };
    let camera = CameraInfo { header: header(), k: [1.0; 9], d: vec![0.5; 5], ..CameraInfo::default() };
    let image = Image { header: header(), height: 2, width: 4, encoding: "mono8".into(), step: 4, ..Image::default() };
    check(Image { data: Bytes(vec![7; 8]), ..image }, |image| drop(convert::raw_frame(image)));
    let file = CompressedImage { header: header(), format: "jpeg".into(), data: Bytes(vec![7; 9]) };
    check(file, |file| drop(convert::file_frame(file)));
    check(camera, |camera| drop(convert::intrinsics(&camera)));
    check(Text { data: r#"{"mug": "the mug"}"#.into() }, |text| drop(convert::targets(&text.data)));
}
