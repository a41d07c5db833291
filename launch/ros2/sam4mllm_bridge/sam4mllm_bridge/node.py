"""The ROS 2 node. Its callbacks only put things down: the link's threads do the rest, so the executor never waits."""

from __future__ import annotations

import pathlib

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sam4mllm import FrameError, Security
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String
from vision_msgs import msg as vision

from . import convert
from .link import Link
from .pairs import Pairs

PARAMETERS = {
    "node": "127.0.0.1:50051",
    "token_file": "",
    "ca_file": "",
    "certificate_file": "",
    "key_file": "",
    "image": "image",
    "compressed": False,
    "camera_info": "",
    "depth": "",
    "labels": False,
    "command": "",
}


def sensor_data() -> QoSProfile:
    """Best effort, and of depth 1: an old frame is of no use."""
    return QoSProfile(
        reliability=qos_profile_sensor_data.reliability,
        durability=qos_profile_sensor_data.durability,
        history=qos_profile_sensor_data.history,
        depth=1,
    )


class Bridge(Node):
    """Topics on one side, a stream to a sam4mllm node on the other."""

    def __init__(self):
        super().__init__("sam4mllm_bridge")
        self.declare_parameters("", list(PARAMETERS.items()))
        said = {name: self.get_parameter(name).value for name in PARAMETERS}
        self.labels, self.camera = said["labels"], None
        # Before the link, whose answers go there. Reliable, which every kind of reader may subscribe to.
        self.detections = self.create_publisher(vision.Detection2DArray, "~/detections", 5)
        self.mask = self.create_publisher(Image, "~/mask", 5)
        self.verdicts = self.create_publisher(String, "~/verdicts", 5)
        self.link = Link(said["node"], self.answered, self.get_logger().warning, security(said))
        self.look_for(said["command"])
        image, qos = said["image"], sensor_data()
        if said["compressed"]:
            self.create_subscription(CompressedImage, f"{image}/compressed", self.on_file, qos)
        else:
            self.create_subscription(Image, image, self.on_raw, qos)
        self.create_subscription(CameraInfo, said["camera_info"] or beside(image), self.on_camera, qos)
        self.pairs = Pairs() if said["depth"] else None
        if self.pairs:
            self.create_subscription(Image, said["depth"], self.on_depth, qos)
        self.create_subscription(String, "~/command", lambda message: self.look_for(message.data), 5)

    def on_raw(self, message: Image) -> None:
        """A frame of raw pixels."""
        self.offer(convert.raw_frame(message, self.camera))

    def on_file(self, message: CompressedImage) -> None:
        """A frame of a file."""
        self.offer(convert.file_frame(message, self.camera))

    def offer(self, frame: convert.Frame) -> None:
        """A frame, which may wait for its depth."""
        if (ready := self.pairs.colour(frame) if self.pairs else frame) is not None:
            self.link.offer(ready)

    def on_depth(self, message: Image) -> None:
        """Depth, registered to the image."""
        try:
            ready = self.pairs.depth(convert.stamp_ns(message.header.stamp), convert.depth(message))
        except FrameError as error:
            self.get_logger().warning(f"depth ignored: {error}", throttle_duration_sec=10.0)
            return
        if ready is not None:
            self.link.offer(ready)

    def on_camera(self, message: CameraInfo) -> None:
        """The intrinsics of the frames from here on."""
        self.camera = convert.camera(message)

    def look_for(self, command: str) -> None:
        """A command."""
        try:
            self.link.look_for(convert.targets(command))
        except convert.CommandError as error:
            self.get_logger().warning(f"command ignored: {error}")

    def answered(self, answer) -> None:
        """Publishes an answer; on a thread of the link's, which rclpy allows."""
        # The mask first: who waits for both has them once the detections come.
        if (mask := convert.mask_image(answer, Image(), self.labels)) is not None:
            self.mask.publish(mask)
        self.detections.publish(convert.detections(answer, vision))
        self.verdicts.publish(String(data=convert.verdicts(answer)))

    def destroy_node(self):
        """Ends the stream first."""
        self.link.close()
        return super().destroy_node()


def beside(image: str) -> str:
    """Where ROS expects the intrinsics of a camera."""
    namespace, slash, _ = image.rpartition("/")
    return f"{namespace}{slash}camera_info"


def security(said: dict) -> Security | None:
    """TLS and token, where any of them is asked for."""
    read = lambda name: pathlib.Path(said[name]).read_bytes() if said[name] else None  # noqa: E731
    token = read("token_file")
    if not any(said[name] for name in ("token_file", "ca_file", "certificate_file", "key_file")):
        return None
    return Security(
        root_certificates=read("ca_file"),
        certificate_chain=read("certificate_file"),
        private_key=read("key_file"),
        token=token.decode().strip() if token else None,
        tls=bool(said["ca_file"] or said["certificate_file"]),
    )


def main() -> None:
    """Runs the bridge until it is interrupted."""
    rclpy.init()
    bridge = Bridge()
    try:
        rclpy.spin(bridge)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        bridge.destroy_node()
        rclpy.try_shutdown()
