//! ROS 2 beside the wire contract: messages as ROS has them, what they become, and with the feature `ros2` a bridge.
//!
//! A robot with ROS installed takes the package in `launch/ros2`, which does the same in Python. This one needs no ROS:
//! its participant speaks DDS itself, in pure Rust, and is a node like any other to `ros2 node list`.
//!
//! ```text
//!  sensor_msgs/Image, CompressedImage ─┐ newest wins                  ┌─▶ vision_msgs/Detection2DArray
//!  CameraInfo, depth with it ──────────┼─▶ a stream to the node ──────┼─▶ sensor_msgs/Image, mono8
//!  std_msgs/String, the command ───────┘                              └─▶ std_msgs/String, verdicts
//! ```
//!
//! Everything that comes out of one frame bears that frame's stamp and `frame_id`.

#[cfg(feature = "ros2")]
mod bridge;
pub mod convert;
#[cfg(feature = "ros2")]
mod link;
pub mod message;
#[cfg(feature = "ros2")]
mod pairs;
#[cfg(feature = "ros2")]
mod topics;

#[cfg(feature = "ros2")]
pub use bridge::{Bridge, BridgeError, Settings, Topics};
