//! ROS messages to the wire and back.
//!
//! Nothing is judged here that the node judges: a frame goes out as it came, and a refusal comes back as an answer.

use serde_json::json;

use super::message::{
    BoundingBox2d, Bytes, CameraInfo, CompressedImage, Detection2d, Detection2dArray, Header, Image, ObjectHypothesis,
    ObjectHypothesisWithPose, Point, Point2d, Pose, Pose2d, PoseWithCovariance, Time,
};
use crate::client::{ClientError, mask, origin_word, verdict_word};
use crate::server::wire;

const NANOSECONDS: i64 = 1_000_000_000;
/// No camera has more: a mask that says so is not believed.
const MAX_PIXELS: u64 = 1 << 28;
/// Id of the target of a command that names none.
pub const ONLY: &str = "target";

/// A command that cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// It begins with a brace, and is no object of strings.
    #[error("read command: it is no JSON object of target ids and commands")]
    Json(#[from] serde_json::Error),
}

/// How instances are drawn into the mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MaskValues {
    /// 255 on all of them.
    #[default]
    Binary,
    /// 1 on the first detection, 2 on the second, ...; where two overlap, the first counts. What comes after the 255th
    /// is 255 too.
    Labels,
}

/// Nanoseconds of a stamp.
pub fn stamp_ns(stamp: Time) -> i64 {
    i64::from(stamp.sec) * NANOSECONDS + i64::from(stamp.nanosec)
}

/// The stamp of nanoseconds; beyond the seconds that ROS can say, the last that it can.
pub fn stamp(ns: i64) -> Time {
    let sec = ns.div_euclid(NANOSECONDS);
    let nanosec = ns.rem_euclid(NANOSECONDS) as u32;
    Time { sec: sec.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32, nanosec }
}

/// A frame of raw pixels; `step`, byte order, stamp and `frame_id` as they came.
pub fn raw_frame(image: Image) -> wire::Frame {
    wire::Frame {
        stamp_ns: stamp_ns(image.header.stamp),
        optical_frame: image.header.frame_id,
        width: image.width,
        height: image.height,
        step: image.step,
        encoding: image.encoding,
        is_bigendian: image.is_bigendian != 0,
        data: image.data.0.into(),
        ..wire::Frame::default()
    }
}

/// A frame of a file.
pub fn file_frame(image: CompressedImage) -> wire::Frame {
    wire::Frame {
        stamp_ns: stamp_ns(image.header.stamp),
        optical_frame: image.header.frame_id,
        encoding: image.format,
        data: image.data.0.into(),
        ..wire::Frame::default()
    }
}

/// A depth image, `16UC1` or `32FC1`.
pub fn depth(image: Image) -> wire::Depth {
    wire::Depth {
        encoding: image.encoding,
        width: image.width,
        height: image.height,
        step: image.step,
        is_bigendian: image.is_bigendian != 0,
        data: image.data.0.into(),
    }
}

/// The camera's `K` and `D`; `None` where it was not calibrated.
pub fn intrinsics(camera: &CameraInfo) -> Option<wire::Intrinsics> {
    let [fx, _, cx, _, fy, cy, ..] = camera.k;
    (fx > 0.0 && fy > 0.0).then(|| wire::Intrinsics { fx, fy, cx, cy, distortion: camera.d.clone() })
}

/// The targets of a command: none for an empty one, one under [`ONLY`] for words, and for a JSON object of strings
/// (`{"mug": "the mug left of the kettle"}`) one under each of its keys.
///
/// # Errors
/// [`CommandError::Json`].
pub fn targets(command: &str) -> Result<Vec<wire::Target>, CommandError> {
    let command = command.trim();
    if command.is_empty() {
        return Ok(Vec::new());
    }
    if !command.starts_with('{') {
        return Ok(vec![wire::Target { target_id: ONLY.into(), command: command.into(), ..Default::default() }]);
    }
    let named: std::collections::BTreeMap<String, String> = serde_json::from_str(command)?;
    let target = |(target_id, command)| wire::Target { target_id, command, ..Default::default() };
    Ok(named.into_iter().map(target).collect())
}

/// The header of the frame that was answered.
pub fn header(answer: &wire::FrameResult) -> Header {
    Header { stamp: stamp(answer.stamp_ns), frame_id: answer.optical_frame.clone() }
}

/// What a robot may act upon: the instances of targets that are `FOUND`, with masks of this very frame. A `STALE` mask is
/// of an earlier one, which a message with this frame's stamp could not say.
fn fresh(answer: &wire::FrameResult) -> impl Iterator<Item = (&wire::TargetResult, &wire::Instance)> {
    let found = answer.targets.iter().filter(|target| target.verdict() == wire::Verdict::Found);
    let all = found.flat_map(|target| target.instances.iter().map(move |instance| (target, instance)));
    all.filter(|(_, instance)| instance.origin() != wire::Origin::Stale)
}

/// What was found on a frame: target as class, confidence as score, the instance's id, its tight box, and with depth the
/// centroid of its visible surface.
pub fn detections(answer: &wire::FrameResult) -> Detection2dArray {
    let header = header(answer);
    let detections = fresh(answer).map(|(target, instance)| detection(&header, target, instance)).collect();
    Detection2dArray { header, detections }
}

fn detection(header: &Header, target: &wire::TargetResult, instance: &wire::Instance) -> Detection2d {
    let b = instance.r#box.unwrap_or_default();
    let [x1, y1, x2, y2] = [b.x1, b.y1, b.x2, b.y2].map(f64::from);
    let centre = Pose2d { position: Point2d { x: (x1 + x2) / 2.0, y: (y1 + y2) / 2.0 }, theta: 0.0 };
    let centroid = instance.position.and_then(|position| position.centroid).unwrap_or_default();
    let [x, y, z] = [centroid.x, centroid.y, centroid.z].map(f64::from);
    let pose = Pose { position: Point { x, y, z }, ..Pose::default() };
    let hypothesis = ObjectHypothesis { class_id: target.target_id.clone(), score: f64::from(instance.confidence) };
    let result = ObjectHypothesisWithPose { hypothesis, pose: PoseWithCovariance { pose, ..Default::default() } };
    Detection2d {
        header: header.clone(),
        results: vec![result],
        bbox: BoundingBox2d { center: centre, size_x: x2 - x1, size_y: y2 - y1 },
        id: instance.instance_id.to_string(),
    }
}

/// The masks of the detections as one `mono8` image of the frame's size, 0 where there is none of them. `None` where
/// the frame was never decoded, so that its size is not known.
///
/// # Errors
/// [`ClientError::Mask`], [`ClientError::MaskFormat`] where a mask is not what the contract says.
pub fn mask_image(answer: &wire::FrameResult, values: MaskValues) -> Result<Option<Image>, ClientError> {
    let (width, height) = (answer.width, answer.height);
    if width == 0 || height == 0 {
        return Ok(None);
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(ClientError::MaskFormat);
    }
    let mut data = vec![0u8; width as usize * height as usize];
    for (index, (_, instance)) in fresh(answer).enumerate() {
        let mask = mask(instance)?;
        if (mask.size().width, mask.size().height) != (width, height) {
            return Err(ClientError::MaskFormat);
        }
        let value = match values {
            MaskValues::Binary => u8::MAX,
            MaskValues::Labels => u8::try_from(index + 1).unwrap_or(u8::MAX),
        };
        data.iter_mut().zip(mask.bits()).filter(|(pixel, on)| **on != 0 && **pixel == 0).for_each(|(p, _)| *p = value);
    }
    Ok(Some(Image {
        header: header(answer),
        height,
        width,
        encoding: "mono8".into(),
        is_bigendian: 0,
        step: width,
        data: Bytes(data),
    }))
}

/// What is known of every target, as JSON: `{"stamp_ns", "frame_id", "targets": {id: {"verdict", "confidence",
/// "instances": [{"id", "confidence", "mask_score", "origin", "grounded_age_ms", "mask_age_ms"}], "error"}}}`.
pub fn verdicts(answer: &wire::FrameResult) -> String {
    let targets: serde_json::Map<_, _> = answer.targets.iter().map(|t| (t.target_id.clone(), verdict(t))).collect();
    json!({ "stamp_ns": answer.stamp_ns, "frame_id": answer.optical_frame, "targets": targets }).to_string()
}

fn verdict(target: &wire::TargetResult) -> serde_json::Value {
    let instance = |i: &wire::Instance| {
        json!({
            "id": i.instance_id,
            "confidence": i.confidence,
            "mask_score": i.mask_score,
            "origin": origin_word(i.origin()),
            "grounded_age_ms": i.grounded_age_ms,
            "mask_age_ms": i.mask_age_ms,
        })
    };
    let mut said = json!({
        "verdict": verdict_word(target.verdict()),
        "confidence": target.confidence,
        "instances": target.instances.iter().map(instance).collect::<Vec<_>>(),
    });
    if let Some(error) = &target.error {
        said["error"] = json!(error.message);
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Size;
    use crate::mask::{Mask, Rle};
    use crate::ros2::message::Header;

    fn answer(targets: Vec<wire::TargetResult>) -> wire::FrameResult {
        let (stamp_ns, optical_frame) = (1_700_000_001_123_456_789, "eye".to_owned());
        wire::FrameResult { seq: 1, stamp_ns, optical_frame, width: 8, height: 4, targets, ..Default::default() }
    }

    /// An instance whose mask is the columns from `from` to `to`.
    fn instance(id: u64, from: u32, to: u32, origin: wire::Origin) -> wire::Instance {
        let mask = Mask::from_fn(Size::new(8, 4), |x, _| (from..to).contains(&x));
        let data = Some(wire::mask::Data::CocoRle(Rle::encode(&mask).to_coco_string()));
        wire::Instance {
            instance_id: id,
            mask: Some(wire::Mask { width: 8, height: 4, data }),
            r#box: Some(wire::Box { x1: from as f32, y1: 0.0, x2: to as f32, y2: 4.0 }),
            confidence: 0.75,
            origin: origin.into(),
            ..Default::default()
        }
    }

    fn target(id: &str, verdict: wire::Verdict, instances: Vec<wire::Instance>) -> wire::TargetResult {
        wire::TargetResult { target_id: id.into(), verdict: verdict.into(), instances, ..Default::default() }
    }

    #[test]
    fn stamps_come_back_as_they_went() {
        for time in [
            Time { sec: 0, nanosec: 0 },
            Time { sec: i32::MAX, nanosec: 999_999_999 },
            Time { sec: i32::MIN, nanosec: 1 },
            Time { sec: -1, nanosec: 999_999_999 },
        ] {
            assert_eq!(stamp(stamp_ns(time)), time);
        }
        // More than a second's worth, which ROS does not forbid; and times that it cannot say.
        assert_eq!(stamp(stamp_ns(Time { sec: 1, nanosec: u32::MAX })), Time { sec: 5, nanosec: 294_967_295 });
        assert_eq!((stamp(i64::MAX).sec, stamp(i64::MIN).sec), (i32::MAX, i32::MIN));
    }

    #[test]
    fn only_what_was_found_on_this_frame_is_detected() {
        use wire::{Origin, Verdict};
        let answer = answer(vec![
            target(
                "mug",
                Verdict::Found,
                vec![instance(7, 0, 3, Origin::Grounded), instance(8, 2, 5, Origin::Tracked)],
            ),
            target("book", Verdict::Found, vec![instance(9, 5, 6, Origin::Stale)]),
            target("lamp", Verdict::Unsure, vec![instance(10, 6, 8, Origin::Grounded)]),
            target("cup", Verdict::Absent, vec![]),
        ]);
        let found = detections(&answer);
        let named = |d: &Detection2d| (d.results[0].hypothesis.class_id.clone(), d.id.clone());
        let names: Vec<_> = found.detections.iter().map(named).collect();
        assert_eq!(names, [("mug".into(), "7".into()), ("mug".into(), "8".into())]);
        let header = Header { stamp: Time { sec: 1_700_000_001, nanosec: 123_456_789 }, frame_id: "eye".into() };
        assert!(found.header == header && found.detections.iter().all(|d| d.header == header));
        let b = found.detections[1].bbox;
        assert_eq!((b.center.position.x, b.center.position.y, b.size_x, b.size_y), (3.5, 2.0, 3.0, 4.0));

        let row = |values| mask_image(&answer, values).expect("is read").expect("has a size").data.0[..8].to_vec();
        assert_eq!(row(MaskValues::Binary), [255, 255, 255, 255, 255, 0, 0, 0]);
        assert_eq!(row(MaskValues::Labels), [1, 1, 1, 2, 2, 0, 0, 0]);

        let said: serde_json::Value = serde_json::from_str(&verdicts(&answer)).expect("is JSON");
        assert_eq!(said["targets"]["book"]["instances"][0]["origin"], "STALE");
        assert_eq!((&said["targets"]["cup"]["verdict"], &said["frame_id"]), (&json!("ABSENT"), &json!("eye")));
    }

    #[test]
    fn masks_of_another_size_are_refused() {
        let mut wrong =
            answer(vec![target("a", wire::Verdict::Found, vec![instance(1, 0, 3, wire::Origin::Grounded)])]);
        wrong.width = 9;
        assert!(matches!(mask_image(&wrong, MaskValues::Binary), Err(ClientError::MaskFormat)));
        (wrong.width, wrong.height) = (u32::MAX, u32::MAX);
        assert!(matches!(mask_image(&wrong, MaskValues::Binary), Err(ClientError::MaskFormat)));
        wrong.width = 0;
        assert!(matches!(mask_image(&wrong, MaskValues::Binary), Ok(None)));
    }

    #[test]
    fn commands_are_words_or_named_words_or_nothing() {
        let ids = |text| targets(text).map(|t| t.into_iter().map(|t| (t.target_id, t.command)).collect::<Vec<_>>());
        assert_eq!(ids(" \n").expect("is read"), []);
        assert_eq!(ids(" the red mug ").expect("is read"), [(ONLY.into(), "the red mug".into())]);
        let two = [("a".into(), "red".into()), ("b".into(), "blue".into())];
        assert_eq!(ids(r#"{"b": "blue", "a": "red"}"#).expect("is read"), two);
        for bad in ["{", r#"{"a": 1}"#, r#"{"a": {"b": "c"}}"#] {
            assert!(ids(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_uncalibrated_camera_has_no_intrinsics() {
        let mut camera = CameraInfo::default();
        assert_eq!(intrinsics(&camera), None);
        camera.k = [300.0, 0.0, 160.0, 0.0, 301.0, 120.0, 0.0, 0.0, 1.0];
        let found = intrinsics(&camera).expect("is calibrated");
        assert_eq!((found.fx, found.fy, found.cx, found.cy), (300.0, 301.0, 160.0, 120.0));
    }
}
