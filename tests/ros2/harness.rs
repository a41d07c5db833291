//! A robot: a participant of the same domain as the bridge.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ros2_client::qos::{History, Reliability};
use ros2_client::{
    Context, ContextOptions, MessageTypeName, Name, Node, NodeName, NodeOptions, Publisher, QosProfile, Subscription,
};
use sam4mllm::ros2::message::{CameraInfo, CompressedImage, Detection2dArray, Header, Image, Text, Time};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::served::{PATIENCE, Served, waited};

/// A node with one thread an engine, on `address` (a port of 0 for any).
pub fn node(address: &str, arguments: &[&str]) -> Served {
    Served::on(address, &[&["--threads", "1"], arguments].concat())
}

/// Domains of this process: tests that run side by side do not hear each other.
pub fn domain(test: u32) -> String {
    (2 + (std::process::id() * 8 + test) % 200).to_string()
}

/// The robot's end of every topic.
pub struct Robot {
    pub images: Publisher<Image>,
    pub files: Publisher<CompressedImage>,
    pub depths: Publisher<Image>,
    pub camera: Publisher<CameraInfo>,
    pub commands: Publisher<Text>,
    pub detections: Subscription<Detection2dArray>,
    pub masks: Subscription<Image>,
    pub verdicts: Subscription<Text>,
    frames: u32,
    _node: Node,
}

impl Robot {
    pub fn join(domain: &str) -> Self {
        let domain = domain.parse().expect("a number");
        let context = Context::with_options(ContextOptions::new().domain_id(domain)).expect("joins");
        let options = NodeOptions::new().enable_rosout(false).start_parameter_services(false);
        let mut node = context.new_node(NodeName::new("/robot", "planner").expect("a name"), options).expect("is made");
        Self {
            images: write(&mut node, "/camera/image_raw", "sensor_msgs", "Image"),
            files: write(&mut node, "/camera/image_raw/compressed", "sensor_msgs", "CompressedImage"),
            depths: write(&mut node, "/camera/depth", "sensor_msgs", "Image"),
            camera: write(&mut node, "/camera/camera_info", "sensor_msgs", "CameraInfo"),
            commands: write(&mut node, "/sam4mllm_bridge/command", "std_msgs", "String"),
            detections: read(&mut node, "/sam4mllm_bridge/detections", "vision_msgs", "Detection2DArray"),
            masks: read(&mut node, "/sam4mllm_bridge/mask", "sensor_msgs", "Image"),
            verdicts: read(&mut node, "/sam4mllm_bridge/verdicts", "std_msgs", "String"),
            frames: 0,
            _node: node,
        }
    }

    /// The next frame's header; no stamp is a round number.
    pub fn header(&mut self) -> Header {
        self.frames += 1;
        let stamp = Time { sec: 1_700_000_000 + self.frames as i32, nanosec: 123_456_789 + self.frames };
        Header { stamp, frame_id: "camera_optical_frame".into() }
    }

    /// Says the command and shows frames until what is detected is what is wanted; returns it and the mask of its stamp.
    pub fn finds(
        &mut self,
        command: &str,
        wanted: impl Fn(&Detection2dArray) -> bool,
        show: impl Fn(&Self, Header),
    ) -> (Detection2dArray, Image) {
        let (mut masks, mut shown) = (Vec::new(), Instant::now() - PATIENCE);
        waited("a detection with its mask", || {
            if shown.elapsed() > Duration::from_millis(200) {
                // Again and again: what was said before the bridge was discovered is lost.
                self.commands.publish(Text { data: command.into() }).expect("is said");
                let header = self.header();
                show(self, header);
                shown = Instant::now();
            }
            masks.extend(all(&self.masks));
            let found = all(&self.detections).into_iter().filter(|d| wanted(d));
            let pair = |d: Detection2dArray| {
                let mask = masks.iter().find(|m| m.header == d.header)?.clone();
                Some((d, mask))
            };
            found.into_iter().find_map(pair)
        })
    }
}

fn reliable() -> QosProfile {
    QosProfile::subscription_default()
        .reliability(Reliability::Reliable { when_full: ros2_client::qos::WhenFull::DEFAULT })
        .history(History::KeepLast { depth: 10 })
}

fn write<M: Serialize>(node: &mut Node, topic: &str, package: &str, kind: &str) -> Publisher<M> {
    let name = Name::parse(topic).expect("a name");
    let topic = node.create_topic(&name, MessageTypeName::new(package, kind), &reliable()).expect("is made");
    node.create_publisher(&topic, None).expect("is made")
}

fn read<M: 'static>(node: &mut Node, topic: &str, package: &str, kind: &str) -> Subscription<M> {
    let name = Name::parse(topic).expect("a name");
    let topic = node.create_topic(&name, MessageTypeName::new(package, kind), &reliable()).expect("is made");
    node.create_subscription(&topic, None).expect("is made")
}

/// What has come so far.
pub fn all<M: DeserializeOwned + 'static>(from: &Subscription<M>) -> Vec<M> {
    std::iter::from_fn(|| from.take().expect("can be read")).map(|(message, _)| message).collect()
}

/// The Python that `tests/ros2/run` made, with Cyclone DDS.
pub fn cyclone() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ros2/bin/python");
    let outcome = Command::new(&python).args(["-c", "import cyclonedds"]).stderr(Stdio::null()).status();
    outcome.is_ok_and(|status| status.success()).then_some(python)
}
