//! ROS 2 messages, field for field in the order of their definitions, which is the order of their CDR bytes.
//!
//! Source: `std_msgs`, `sensor_msgs` and `geometry_msgs` of `ros2/common_interfaces`, `vision_msgs` 4 (Humble and later).

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `builtin_interfaces/Time`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Time {
    /// Whole seconds.
    pub sec: i32,
    /// The rest, 0 to 999,999,999.
    pub nanosec: u32,
}

/// `std_msgs/Header`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Header {
    /// When it was taken.
    pub stamp: Time,
    /// The camera's optical frame.
    pub frame_id: String,
}

/// `uint8[]`, which CDR writes as its length and the bytes: moved in one piece rather than byte by byte.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bytes(pub Vec<u8>);

/// `std_msgs/String`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Text {
    /// The words.
    pub data: String,
}

/// `sensor_msgs/Image`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Image {
    /// Stamp and frame.
    pub header: Header,
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// As in `sensor_msgs/image_encodings`.
    pub encoding: String,
    /// Whether samples of two bytes have the high one first.
    pub is_bigendian: u8,
    /// Bytes from one row to the next.
    pub step: u32,
    /// `height * step` bytes.
    pub data: Bytes,
}

/// `sensor_msgs/CompressedImage`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CompressedImage {
    /// Stamp and frame.
    pub header: Header,
    /// `jpeg`, `png`, or `bgr8; jpeg compressed bgr8`.
    pub format: String,
    /// The file.
    pub data: Bytes,
}

/// `sensor_msgs/RegionOfInterest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RegionOfInterest {
    /// Left column.
    pub x_offset: u32,
    /// Top row.
    pub y_offset: u32,
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// Whether the region is to be rectified.
    pub do_rectify: bool,
}

/// `sensor_msgs/CameraInfo`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct CameraInfo {
    /// Stamp and frame.
    pub header: Header,
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// Such as `plumb_bob`.
    pub distortion_model: String,
    /// The distortion.
    pub d: Vec<f64>,
    /// The camera matrix, row by row: fx 0 cx, 0 fy cy, 0 0 1. All zero where the camera was not calibrated.
    pub k: [f64; 9],
    /// The rectification.
    pub r: [f64; 9],
    /// The projection, row by row.
    pub p: [f64; 12],
    /// Pixels in one, across.
    pub binning_x: u32,
    /// Pixels in one, down.
    pub binning_y: u32,
    /// The part of the sensor.
    pub roi: RegionOfInterest,
}

/// `geometry_msgs/Point` or a quaternion's first three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Point {
    /// Metres to the right.
    pub x: f64,
    /// Metres down.
    pub y: f64,
    /// Metres forward.
    pub z: f64,
}

/// `geometry_msgs/Quaternion`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Quaternion {
    /// First.
    pub x: f64,
    /// Second.
    pub y: f64,
    /// Third.
    pub z: f64,
    /// The real part.
    pub w: f64,
}

/// `geometry_msgs/Pose`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Pose {
    /// Where it is.
    pub position: Point,
    /// How it is turned; here always not at all.
    pub orientation: Quaternion,
}

/// `geometry_msgs/PoseWithCovariance`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct PoseWithCovariance {
    /// The pose.
    pub pose: Pose,
    /// `float64[36]`, row by row.
    pub covariance: [[f64; 6]; 6],
}

/// `vision_msgs/ObjectHypothesis`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ObjectHypothesis {
    /// The target's id.
    pub class_id: String,
    /// Confidence, 0 to 1.
    pub score: f64,
}

/// `vision_msgs/ObjectHypothesisWithPose`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ObjectHypothesisWithPose {
    /// What it is.
    pub hypothesis: ObjectHypothesis,
    /// Where it is, in the optical frame; all zero without depth.
    pub pose: PoseWithCovariance,
}

/// `vision_msgs/Point2D`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Point2d {
    /// Pixels to the right.
    pub x: f64,
    /// Pixels down.
    pub y: f64,
}

/// `vision_msgs/Pose2D`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Pose2d {
    /// The centre.
    pub position: Point2d,
    /// Radians; here 0.
    pub theta: f64,
}

/// `vision_msgs/BoundingBox2D`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct BoundingBox2d {
    /// The centre.
    pub center: Pose2d,
    /// Width in pixels.
    pub size_x: f64,
    /// Height in pixels.
    pub size_y: f64,
}

/// `vision_msgs/Detection2D`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Detection2d {
    /// That of the array.
    pub header: Header,
    /// One, the target.
    pub results: Vec<ObjectHypothesisWithPose>,
    /// Tight around the mask.
    pub bbox: BoundingBox2d,
    /// The instance's id.
    pub id: String,
}

/// `vision_msgs/Detection2DArray`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Detection2dArray {
    /// That of the camera's frame.
    pub header: Header,
    /// What was found.
    pub detections: Vec<Detection2d>,
}

impl Default for Quaternion {
    /// Not turned, as ROS has it.
    fn default() -> Self {
        Self { x: 0.0, y: 0.0, z: 0.0, w: 1.0 }
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl Visitor<'_> for Whole {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
                Ok(Bytes(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Whole)
    }
}
