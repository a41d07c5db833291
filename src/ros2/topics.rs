//! The bridge's ends in DDS: a ROS 2 node with its subscriptions and publishers.

use ros2_client::qos::{History, Reliability, WhenFull};
use ros2_client::{
    Context, ContextOptions, MessageTypeName, Name, Node, NodeName, NodeOptions, Publisher, QosProfile, Subscription,
};
use serde::Serialize;

use super::bridge::{BridgeError, Settings, Topics};
use super::message::{CameraInfo, CompressedImage, Detection2dArray, Image, Text};

/// What `rclcpp` calls `SensorDataQoS`, of depth 1: an old frame is of no use.
const SENSOR: QosProfile =
    QosProfile::subscription_default().reliability(Reliability::BestEffort).history(History::KeepLast { depth: 1 });
/// For what people and planners send and read. A reader that does not keep up loses messages; it never holds the bridge.
const RELIABLE: QosProfile = QosProfile::publisher_default()
    .reliability(Reliability::Reliable { when_full: WhenFull::Fail })
    .history(History::KeepLast { depth: 5 });

/// What the camera sends.
pub(super) enum Camera {
    Raw(Subscription<Image>),
    Compressed(Subscription<CompressedImage>),
}

/// Everything that the bridge reads and writes.
pub(super) struct Ends {
    pub camera: Camera,
    pub camera_info: Subscription<CameraInfo>,
    pub depth: Option<Subscription<Image>>,
    pub command: Subscription<Text>,
    pub detections: Publisher<Detection2dArray>,
    pub mask: Publisher<Image>,
    pub verdicts: Publisher<Text>,
    /// Last, for it takes the participant with it, which the others take leave of.
    pub node: Node,
}

impl Ends {
    /// Joins the domain.
    pub fn open(settings: &Settings) -> Result<Self, BridgeError> {
        let create = |what: &str| format!("join domain {}: {what}", settings.domain);
        let context = Context::with_options(ContextOptions::new().domain_id(settings.domain))
            .map_err(|e| BridgeError::Dds(create(&e.to_string())))?;
        let name = NodeName::new(&settings.namespace, &settings.name);
        let name = name.map_err(|e| BridgeError::Name(format!("{}/{}", settings.namespace, settings.name), e))?;
        let options = NodeOptions::new().enable_rosout(false).start_parameter_services(false);
        let node = context.new_node(name, options).map_err(|e| BridgeError::Dds(create(&e.to_string())))?;
        let mut maker = Maker { settings, node };
        let topics = &settings.topics;
        let camera = match topics.compressed {
            false => Camera::Raw(maker.read(&topics.image, "sensor_msgs", "Image", SENSOR)?),
            true => {
                let image = format!("{}/compressed", topics.image);
                Camera::Compressed(maker.read(&image, "sensor_msgs", "CompressedImage", SENSOR)?)
            }
        };
        Ok(Self {
            camera,
            camera_info: maker.read(&topics.camera_info(), "sensor_msgs", "CameraInfo", SENSOR)?,
            depth: topics.depth.as_ref().map(|d| maker.read(d, "sensor_msgs", "Image", SENSOR)).transpose()?,
            command: maker.read(&topics.command, "std_msgs", "String", RELIABLE)?,
            detections: maker.write(&topics.detections, "vision_msgs", "Detection2DArray")?,
            mask: maker.write(&topics.mask, "sensor_msgs", "Image")?,
            verdicts: maker.write(&topics.verdicts, "std_msgs", "String")?,
            node: maker.node,
        })
    }
}

struct Maker<'a> {
    settings: &'a Settings,
    node: Node,
}

impl Maker<'_> {
    fn read<M: 'static>(
        &mut self,
        topic: &str,
        package: &str,
        kind: &str,
        qos: QosProfile,
    ) -> Result<Subscription<M>, BridgeError> {
        let (name, failed) = self.named(topic)?;
        let topic = self.node.create_topic(&name, MessageTypeName::new(package, kind), &qos).map_err(&failed)?;
        self.node.create_subscription(&topic, Some(qos)).map_err(failed)
    }

    fn write<M: Serialize>(&mut self, topic: &str, package: &str, kind: &str) -> Result<Publisher<M>, BridgeError> {
        let (name, failed) = self.named(topic)?;
        let topic = self.node.create_topic(&name, MessageTypeName::new(package, kind), &RELIABLE).map_err(&failed)?;
        self.node.create_publisher(&topic, Some(RELIABLE)).map_err(failed)
    }

    /// The topic's full name, and what to say where it cannot be had.
    fn named(
        &self,
        topic: &str,
    ) -> Result<(Name, impl Fn(ros2_client::CreateError) -> BridgeError + use<>), BridgeError> {
        let full = self.settings.resolved(topic);
        let name = Name::parse(&full).map_err(|e| BridgeError::Name(full.clone(), e))?;
        Ok((name, move |error: ros2_client::CreateError| BridgeError::Dds(format!("open {full}: {error}"))))
    }
}

impl Topics {
    /// As told, else beside the image, where ROS expects it.
    fn camera_info(&self) -> String {
        let beside = || match self.image.rsplit_once('/') {
            Some((namespace, _)) => format!("{namespace}/camera_info"),
            None => "camera_info".into(),
        };
        self.camera_info.clone().unwrap_or_else(beside)
    }
}

impl Settings {
    /// A topic's name by ROS's rules: `/absolute`, `~/under/the/node`, or within the namespace.
    pub(super) fn resolved(&self, topic: &str) -> String {
        let namespace = self.namespace.trim_end_matches('/');
        match topic.strip_prefix("~/") {
            _ if topic.starts_with('/') => topic.to_owned(),
            Some(private) => format!("{namespace}/{}/{private}", self.name),
            None => format!("{namespace}/{topic}"),
        }
    }
}
