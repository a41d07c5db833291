//! The bridge: ROS topics on one side, a stream to the node on the other.

use std::cell::RefCell;
use std::future::Future;

use ros2_client::{Publisher, ReadError, Subscription};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_stream::StreamExt;
use tracing::{info, warn};

use super::convert::{self, MaskValues};
use super::link::{Link, Slot};
use super::message::{CameraInfo, Image, Text};
use super::pairs::Pairs;
use super::topics::{Camera, Ends};
use crate::chain::Chain;
use crate::client::Access;
use crate::server::wire;

/// The bridge cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BridgeError {
    /// A name that ROS does not allow.
    #[error("use name `{0}`: {1:?}")]
    Name(String, ros2_client::names::NameError),
    /// The domain cannot be joined, or a topic not be opened in it.
    #[error("{0}")]
    Dds(String),
}

/// Names of topics, by ROS's rules: `/absolute`, `~/under/the/node`, or within the namespace.
#[derive(Debug, Clone)]
pub struct Topics {
    /// `sensor_msgs/Image`.
    pub image: String,
    /// Read `sensor_msgs/CompressedImage` from `image` + `/compressed` instead.
    pub compressed: bool,
    /// `sensor_msgs/CameraInfo`. Default: `camera_info` beside the image.
    pub camera_info: Option<String>,
    /// `sensor_msgs/Image` of depth, registered to the image: with it detections have positions.
    pub depth: Option<String>,
    /// `std_msgs/String`: see [`convert::targets`].
    pub command: String,
    /// `vision_msgs/Detection2DArray`, out.
    pub detections: String,
    /// `sensor_msgs/Image`, `mono8`, out.
    pub mask: String,
    /// `std_msgs/String`, out: see [`convert::verdicts`].
    pub verdicts: String,
}

/// Where the bridge stands.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The sam4mllm node: `http://127.0.0.1:50051`.
    pub address: String,
    /// How it lets the bridge in.
    pub access: Access,
    /// `ROS_DOMAIN_ID`.
    pub domain: u16,
    /// The ROS node's namespace, from `/`.
    pub namespace: String,
    /// The ROS node's name.
    pub name: String,
    /// What it reads and writes.
    pub topics: Topics,
    /// How the mask is drawn.
    pub values: MaskValues,
    /// What to look for before the first command comes.
    pub command: String,
}

/// A participant of the domain that has not begun yet.
pub struct Bridge {
    settings: Settings,
    ends: Ends,
}

impl Bridge {
    /// Joins the domain. The sam4mllm node need not be there yet.
    ///
    /// # Errors
    /// [`BridgeError::Name`], [`BridgeError::Dds`].
    pub fn open(settings: Settings) -> Result<Self, BridgeError> {
        let ends = Ends::open(&settings)?;
        let topics = &settings.topics;
        info!(domain = settings.domain, image = settings.resolved(&topics.image), "ROS 2 node open");
        Ok(Self { settings, ends })
    }

    /// Bridges until `shutdown` is done. Nothing in here waits for anything else in here: the newest frame is in the
    /// slot whether or not the node takes it.
    ///
    /// # Errors
    /// [`BridgeError::Dds`] where the participant fails.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), BridgeError> {
        let Self { settings, mut ends } = self;
        let spinner = ends.node.spinner().map_err(|e| BridgeError::Dds(format!("watch the graph: {e}")))?;
        let (slot, inputs) = (Slot::default(), Inputs::new(ends.depth.is_some()));
        let (targets, told) = watch::channel(first(&settings.command));
        let link = Link {
            address: &settings.address,
            access: &settings.access,
            slot: &slot,
            targets: told,
            answered: |answer: &wire::FrameResult| publish(&ends, answer, settings.values),
        };
        tokio::select! {
            () = shutdown => Ok(()),
            end = spinner.spin() => Err(BridgeError::Dds(format!("watch the graph: {end:?}"))),
            () = frames(&ends.camera, |frame| inputs.colour(frame, &slot)) => Err(ended("image")),
            () = depths(ends.depth.as_ref(), |depth| inputs.depth(depth, &slot)) => Err(ended("depth")),
            () = read(&ends.camera_info, "camera_info", |info| inputs.camera(&info)) => Err(ended("camera_info")),
            () = read(&ends.command, "command", |text| command(&text, &targets)) => Err(ended("command")),
            never = link.run() => match never {},
        }
    }
}

fn ended(topic: &str) -> BridgeError {
    BridgeError::Dds(format!("read {topic}: the subscription has ended"))
}

/// The targets to begin with.
fn first(command: &str) -> Vec<wire::Target> {
    convert::targets(command).unwrap_or_else(|error| {
        warn!(error = %Chain(&error), "command ignored");
        Vec::new()
    })
}

fn command(text: &Text, targets: &watch::Sender<Vec<wire::Target>>) {
    match convert::targets(&text.data) {
        Ok(new) => drop(targets.send_replace(new)),
        Err(error) => warn!(error = %Chain(&error), "command ignored"),
    }
}

/// What has come from the camera, on its way to the slot.
struct Inputs {
    intrinsics: RefCell<Option<wire::Intrinsics>>,
    /// Where there is a topic of depth.
    pairs: Option<RefCell<Pairs>>,
}

impl Inputs {
    fn new(with_depth: bool) -> Self {
        Self { intrinsics: RefCell::default(), pairs: with_depth.then(RefCell::default) }
    }

    fn camera(&self, info: &CameraInfo) {
        self.intrinsics.replace(convert::intrinsics(info));
    }

    fn colour(&self, frame: wire::Frame, slot: &Slot) {
        let frame = wire::Frame { intrinsics: self.intrinsics.borrow().clone(), ..frame };
        let ready = match &self.pairs {
            Some(pairs) => pairs.borrow_mut().colour(frame),
            None => Some(frame),
        };
        ready.into_iter().for_each(|frame| slot.put(frame));
    }

    fn depth(&self, image: Image, slot: &Slot) {
        let stamp_ns = convert::stamp_ns(image.header.stamp);
        let pair = |pairs: &RefCell<Pairs>| pairs.borrow_mut().depth(stamp_ns, convert::depth(image));
        self.pairs.as_ref().and_then(pair).into_iter().for_each(|frame| slot.put(frame));
    }
}

async fn frames(from: &Camera, mut each: impl FnMut(wire::Frame)) {
    match from {
        Camera::Raw(images) => read(images, "image", |image| each(convert::raw_frame(image))).await,
        Camera::Compressed(images) => read(images, "image", |image| each(convert::file_frame(image))).await,
    }
}

async fn depths(from: Option<&Subscription<Image>>, each: impl FnMut(Image)) {
    match from {
        Some(images) => read(images, "depth", each).await,
        None => std::future::pending().await,
    }
}

/// Hands on every message that can be read. Ends only where DDS does.
async fn read<M: DeserializeOwned + 'static>(from: &Subscription<M>, topic: &str, mut each: impl FnMut(M)) {
    let mut messages = std::pin::pin!(from.async_stream());
    while let Some(message) = messages.next().await {
        match message {
            Ok((message, _)) => each(message),
            Err(error) => unreadable(topic, &error),
        }
    }
}

fn unreadable(topic: &str, error: &ReadError) {
    warn!(topic, %error, "message ignored");
}

fn publish(ends: &Ends, answer: &wire::FrameResult, values: MaskValues) {
    // The mask first: who waits for both has them once the detections come.
    match convert::mask_image(answer, values) {
        Ok(Some(mask)) => send(&ends.mask, "mask", mask),
        Ok(None) => {}
        Err(error) => warn!(error = %Chain(&error), "mask left out"),
    }
    send(&ends.detections, "detections", convert::detections(answer));
    send(&ends.verdicts, "verdicts", Text { data: convert::verdicts(answer) });
}

fn send<M: Serialize + std::fmt::Debug>(to: &Publisher<M>, topic: &str, message: M) {
    // A reader that does not keep up. There will be a next one.
    if let Err(error) = to.publish(message) {
        tracing::debug!(topic, ?error, "message not sent");
    }
}
