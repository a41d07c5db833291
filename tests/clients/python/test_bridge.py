"""The ROS 2 package in launch/ros2 without ROS: its conversions and its link for real, against a node, the ROS node on a
stand-in for rclpy.

Usage: test_bridge.py ADDRESS   (of a node that runs `serve --backend fake`, whose commands are colour words)
Exits with 0 and prints "passed: N checks", or fails with an assertion.
"""

import array
import json
import pathlib
import socket
import sys
import threading
import time

import numpy as np
import scenes
import standin_ros as ros
from sam4mllm import Camera
from scenes import BLUE, RED, check, iou, jpeg, scene

ros.install()
sys.path.insert(0, str(pathlib.Path(__file__).parents[3] / "launch/ros2/sam4mllm_bridge"))
from sam4mllm_bridge import convert, link, pairs  # noqa: E402
from sam4mllm_bridge.node import Bridge, beside, security  # noqa: E402

PATIENCE_S = 30
K = [300.0, 0.0, 160.0, 0.0, 300.0, 120.0, 0.0, 0.0, 1.0]


def waited(what, look):
    """Calls `look` until there is something."""
    start = time.monotonic()
    while not (found := look()):
        assert time.monotonic() - start < PATIENCE_S, f"{what} did not come"
        time.sleep(0.005)
    return found


def header(number):
    return ros.Header(stamp=ros.Time(sec=1_700_000_000 + number, nanosec=123_456_789), frame_id="eye")


def raw(rgb, number, encoding="bgr8", padding=64):
    """An image with rows that are padded, as drivers send them."""
    height, width, _ = rgb.shape
    rows = np.full((height, 3 * width + padding), 0xAA, np.uint8)
    rows[:, : 3 * width] = rgb[..., ::-1].reshape(height, -1)
    data = array.array("B", rows.tobytes())
    return ros.Image(
        header=header(number), height=height, width=width, encoding=encoding, step=3 * width + padding, data=data
    )


def wall(number):
    """Depth of 1.5 m everywhere, with the high byte first."""
    data = array.array("B", np.full((240, 320), 1500, ">u2").tobytes())
    return ros.Image(
        header=header(number), height=240, width=320, encoding="16UC1", is_bigendian=1, step=640, data=data
    )


def check_pairs():
    """Colour and depth in any order, and depth that does not come."""
    sent = pairs.Pairs()
    colour = lambda ns: convert.Frame(b"", {"stamp_ns": ns, "camera": Camera(1, 1, 1, 1)})  # noqa: E731
    said = lambda frame: frame and (frame.known["stamp_ns"], "depth" in frame.known)  # noqa: E731
    steps = [
        (sent.colour, (colour(0),), None),
        (sent.depth, (1_000_000, "d"), (0, True)),
        (sent.depth, (33_000_000, "d"), None),
        (sent.colour, (colour(33_000_000),), (33_000_000, True)),
        (sent.colour, (colour(66_000_000),), None),
        (sent.colour, (colour(99_000_000),), (66_000_000, False)),
        (sent.depth, (99_000_000, "d"), (99_000_000, True)),
    ]
    for step, given, wanted in steps:
        check((got := said(step(*given))) == wanted, (got, wanted))


def check_conversions():
    rgb, _ = scene([(RED, 90, 70, 60)])
    frame = convert.raw_frame(raw(rgb, 1), None)
    check((frame.image.encoding, frame.image.step, frame.image.is_bigendian) == ("bgr8", 3 * 320 + 64, False), frame)
    check(frame.known["stamp_ns"] == 1_700_000_001_123_456_789, "no nanosecond is lost")
    check(frame.known["optical_frame"] == "eye", "the frame_id")
    check(convert.camera(ros.CameraInfo(k=K, d=[0.1])) == Camera(300, 300, 160, 120, (0.1,)), "intrinsics")
    check(convert.camera(ros.CameraInfo(k=[0.0] * 9)) is None, "not calibrated")
    check(convert.targets("  ") == [], "nothing to look for")
    only = convert.targets(" the red box\n")
    check([(t.target_id, t.command) for t in only] == [(convert.ONLY, "the red box")], only)
    named = convert.targets('{"b": "blue", "a": "red"}')
    check([(t.target_id, t.command) for t in named] == [("a", "red"), ("b", "blue")], named)
    for bad in ('{"a": 1}', "{", '{"a": "b"}}', '{"a":' * 100_000):
        try:
            convert.targets(bad)
            raise AssertionError(f"not refused: {bad[:20]}")
        except convert.CommandError:
            check(True, bad)
    check(beside("/camera/image_raw") == "/camera/camera_info" and beside("image") == "camera_info", "beside the image")
    check(security(dict.fromkeys(("token_file", "ca_file", "certificate_file", "key_file"), "")) is None, "plain")


def check_node(address):
    """The ROS node: raw frames in, detections and mask of the same header out."""
    ros.Node.given = {"node": address, "image": "/camera/image_raw", "labels": True, "depth": "/camera/depth"}
    bridge = Bridge()
    kind, show, qos = bridge.readers["/camera/image_raw"]
    check((kind, qos.depth, qos.reliability) == (ros.Image, 1, "best effort"), "sensor data")
    bridge.readers["/camera/camera_info"][1](ros.CameraInfo(k=K, d=[0.0] * 5))
    bridge.readers["~/command"][1](ros.String(data="{"))
    check(len(bridge.log) == 1 and "command ignored" in bridge.log[0], bridge.log)
    bridge.readers["~/command"][1](ros.String(data='{"absent": "green", "first": "red", "second": "blue"}'))
    rgb, truths = scene([(RED, 90, 70, 60), (BLUE, 220, 150, 50)])
    number = 0

    def found():
        nonlocal number
        number += 1
        bridge.readers["/camera/depth"][1](wall(number))
        show(raw(rgb, number))
        time.sleep(0.02)
        return [d for d in bridge.published["~/detections"] if len(d.detections) == 2]

    detections = waited("detections", found)[0]
    mask = next(m for m in bridge.published["~/mask"] if vars(m.header.stamp) == vars(detections.header.stamp))
    check(detections.header.frame_id == mask.header.frame_id == "eye", "the frame_id")
    check(detections.header.stamp.nanosec == 123_456_789, "the stamp")
    first, second = detections.detections
    check([d.results[0].hypothesis.class_id for d in (first, second)] == ["first", "second"], "targets as classes")
    box = first.bbox
    check((box.center.position.x, box.center.position.y, box.size_x, box.size_y) == (120, 100, 60, 60), "a tight box")
    point = first.results[0].pose.pose.position
    check(abs(point.z - 1.5) < 1e-3 and abs(point.x + 0.2025) < 1e-3, vars(point))
    check(first.id.isdigit() and first.id != second.id, "ids")
    pixels = np.frombuffer(mask.data, np.uint8).reshape(mask.height, mask.width)
    check((mask.encoding, mask.step) == ("mono8", 320), "mono8")
    check(np.array_equal(pixels, truths[0] + 2 * truths[1].astype(np.uint8)), "the mask is exact, by number")
    said = json.loads(bridge.published["~/verdicts"][-1].data)["targets"]
    check(said["absent"]["verdict"] == "ABSENT" and said["first"]["instances"], said)
    bridge.readers["/camera/depth"][1](ros.Image(encoding="32FC1", width=4, height=4, step=3))
    check("depth ignored" in bridge.log[-1], bridge.log)
    show(raw(rgb, number + 1, encoding="no such"))
    bridge.readers["/camera/depth"][1](wall(number + 1))
    waited("a refusal", lambda: [line for line in bridge.log if "refused" in line])
    check(True, "refused, and said so")
    bridge.readers["~/command"][1](ros.String(data=""))
    bridge.destroy_node()
    check(not [t for t in threading.enumerate() if t.name.startswith("sam4mllm")], "its threads have ended")


def check_files(address):
    """Compressed frames."""
    ros.Node.given = {"node": address, "compressed": True, "command": "the red box"}
    bridge = Bridge()
    rgb, truths = scene([(RED, 90, 70, 60)])
    data = array.array("B", jpeg(rgb))

    def found():
        message = ros.CompressedImage(header=header(1), format="bgr8; jpeg compressed bgr8", data=data)
        bridge.readers["image/compressed"][1](message)
        time.sleep(0.02)
        return [m for m in bridge.published["~/mask"] if any(m.data)]

    mask = waited("a mask", found)[0]
    pixels = np.frombuffer(mask.data, np.uint8).reshape(mask.height, mask.width)
    check(set(np.unique(pixels)) == {0, 255} and iou(pixels > 0, truths[0]) > 0.95, "a mask of 255")
    bridge.destroy_node()


def check_nobody():
    """Where there is no node, callbacks return, only the newest frame is kept, and the link tries again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        told = []
        lost = link.Link(f"127.0.0.1:{free.getsockname()[1]}", lambda _: None, told.append)
        lost.look_for(convert.targets("red"))
        waited("two attempts", lambda: len(told) >= 2 and "UNAVAILABLE" in told[-1])
        frames = [convert.Frame(b"\xff\xd8" + bytes([n]), {}) for n in range(50)]
        for frame in frames:
            lost.offer(frame)
        check(lost.superseded >= 50 - 2 * link.UNDER_WAY * len(told), lost.superseded)
        lost.close()
        check(lost._newest in (frames[-1], None), "the newest")


def main():
    check_conversions()
    check_pairs()
    check_node(sys.argv[1])
    check_files(sys.argv[1])
    check_nobody()
    print(f"passed: {scenes.checks} checks")


if __name__ == "__main__":
    main()
