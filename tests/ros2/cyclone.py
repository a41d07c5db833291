"""A robot on Cyclone DDS, which ROS 2 itself runs on: sends an image and a command, reads what the bridge answers.

Usage: cyclone.py DOMAIN. Knows the messages from ROS's own definitions alone, written down here once more as IDL types;
exits with 0 and prints "passed: N checks", or fails with an assertion.
"""

import sys
import time
from dataclasses import dataclass

from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import IdlStruct, types
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

PATIENCE_S = 60
WIDTH, HEIGHT = 320, 240
BOX = (90, 70, 150, 130)


@dataclass
class Time(IdlStruct, typename="builtin_interfaces::msg::dds_::Time_"):
    sec: types.int32
    nanosec: types.uint32


@dataclass
class Header(IdlStruct, typename="std_msgs::msg::dds_::Header_"):
    stamp: Time
    frame_id: str


@dataclass
class String(IdlStruct, typename="std_msgs::msg::dds_::String_"):
    data: str


@dataclass
class Image(IdlStruct, typename="sensor_msgs::msg::dds_::Image_"):
    header: Header
    height: types.uint32
    width: types.uint32
    encoding: str
    is_bigendian: types.uint8
    step: types.uint32
    data: types.sequence[types.uint8]


@dataclass
class Point(IdlStruct, typename="geometry_msgs::msg::dds_::Point_"):
    x: types.float64
    y: types.float64
    z: types.float64


@dataclass
class Quaternion(IdlStruct, typename="geometry_msgs::msg::dds_::Quaternion_"):
    x: types.float64
    y: types.float64
    z: types.float64
    w: types.float64


@dataclass
class Pose(IdlStruct, typename="geometry_msgs::msg::dds_::Pose_"):
    position: Point
    orientation: Quaternion


@dataclass
class PoseWithCovariance(IdlStruct, typename="geometry_msgs::msg::dds_::PoseWithCovariance_"):
    pose: Pose
    covariance: types.array[types.float64, 36]


@dataclass
class ObjectHypothesis(IdlStruct, typename="vision_msgs::msg::dds_::ObjectHypothesis_"):
    class_id: str
    score: types.float64


@dataclass
class ObjectHypothesisWithPose(IdlStruct, typename="vision_msgs::msg::dds_::ObjectHypothesisWithPose_"):
    hypothesis: ObjectHypothesis
    pose: PoseWithCovariance


@dataclass
class Point2D(IdlStruct, typename="vision_msgs::msg::dds_::Point2D_"):
    x: types.float64
    y: types.float64


@dataclass
class Pose2D(IdlStruct, typename="vision_msgs::msg::dds_::Pose2D_"):
    position: Point2D
    theta: types.float64


@dataclass
class BoundingBox2D(IdlStruct, typename="vision_msgs::msg::dds_::BoundingBox2D_"):
    center: Pose2D
    size_x: types.float64
    size_y: types.float64


@dataclass
class Detection2D(IdlStruct, typename="vision_msgs::msg::dds_::Detection2D_"):
    header: Header
    results: types.sequence[ObjectHypothesisWithPose]
    bbox: BoundingBox2D
    id: str


@dataclass
class Detection2DArray(IdlStruct, typename="vision_msgs::msg::dds_::Detection2DArray_"):
    header: Header
    detections: types.sequence[Detection2D]


checks = 0


def check(condition, what):
    global checks
    assert condition, what
    checks += 1


def picture():
    """A red box on grey, rgb8."""
    rows = bytearray([122] * (3 * WIDTH * HEIGHT))
    x1, y1, x2, y2 = BOX
    for y in range(y1, y2):
        rows[3 * (y * WIDTH + x1) : 3 * (y * WIDTH + x2)] = bytes((205, 25, 35)) * (x2 - x1)
    return list(rows)


def main():
    participant = DomainParticipant(int(sys.argv[1]))
    best_effort = Qos(Policy.Reliability.BestEffort, Policy.History.KeepLast(1))
    reliable = Qos(Policy.Reliability.Reliable(duration(milliseconds=100)), Policy.History.KeepLast(10))
    topic = lambda name, kind: Topic(participant, f"rt/{name}", kind)  # noqa: E731
    images = DataWriter(participant, topic("camera/image_raw", Image), qos=best_effort)
    commands = DataWriter(participant, topic("sam4mllm_bridge/command", String), qos=reliable)
    detections = DataReader(participant, topic("sam4mllm_bridge/detections", Detection2DArray), qos=reliable)
    masks = DataReader(participant, topic("sam4mllm_bridge/mask", Image), qos=reliable)

    data, seen, found = picture(), {}, None
    start, number = time.monotonic(), 0
    while found is None or (found.header.stamp.sec, found.header.stamp.nanosec) not in seen:
        assert time.monotonic() - start < PATIENCE_S, "nothing came"
        number += 1
        commands.write(String("the red box"))
        stamp = Time(1_700_000_000 + number, 987_654_321)
        images.write(Image(Header(stamp, "eye"), HEIGHT, WIDTH, "rgb8", 0, 3 * WIDTH, data))
        time.sleep(0.2)
        for mask in masks.take(N=20):
            seen[mask.header.stamp.sec, mask.header.stamp.nanosec] = mask
        for answer in detections.take(N=20):
            found = answer if answer.detections and found is None else found

    mask = seen[found.header.stamp.sec, found.header.stamp.nanosec]
    detection = found.detections[0]
    check(found.header == mask.header == detection.header, "one header")
    check((found.header.stamp.nanosec, found.header.frame_id) == (987_654_321, "eye"), "that of the frame")
    hypothesis, pose = detection.results[0].hypothesis, detection.results[0].pose
    check(len(found.detections) == 1 and hypothesis.class_id == "target" and 0 < hypothesis.score <= 1, hypothesis)
    check(pose.pose.orientation.w == 1 and list(pose.covariance) == [0] * 36, "no pose without depth")
    box, centre = detection.bbox, detection.bbox.center.position
    check((centre.x, centre.y, box.size_x, box.size_y, box.center.theta) == (120, 100, 60, 60, 0), box)
    check((mask.encoding, mask.width, mask.height, mask.step) == ("mono8", WIDTH, HEIGHT, WIDTH), "a mono8 image")
    x1, y1, x2, y2 = BOX
    truth = [255 if x1 <= x < x2 and y1 <= y < y2 else 0 for y in range(HEIGHT) for x in range(WIDTH)]
    check(list(mask.data) == truth, "the mask is exact")
    check(detection.id.isdigit(), "an instance's id")
    print(f"cyclone.py passed: {checks} checks")


if __name__ == "__main__":
    main()
