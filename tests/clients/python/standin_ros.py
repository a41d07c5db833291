"""A stand-in for the part of rclpy that the bridge uses: messages that take only the types that rclpy's do, and a node
whose topics are lists. It says nothing of what ROS itself does with the calls."""

import array
import sys
import types


class Message:
    """Fields by `KINDS`: a class of messages, a plain type, or a list of messages. A wrong type is an AssertionError."""

    KINDS: dict = {}

    def __init__(self, **given):
        for name, kind in self.KINDS.items():
            object.__setattr__(self, name, kind() if callable(kind) else [])
        for name, value in given.items():
            setattr(self, name, value)

    def __setattr__(self, name, value):
        kind = self.KINDS[name]
        if kind is Bytes:
            assert isinstance(value, array.array) and value.typecode == "B", f"{name}: {type(value)}"
        else:
            assert isinstance(value, kind) and not isinstance(value, bool), f"{name}: {value!r} is no {kind}"
        if kind is int:
            assert -(2**31) <= value < 2**32, f"{name}: {value}"
        object.__setattr__(self, name, value)


class Bytes(array.array):
    def __new__(cls):
        return super().__new__(cls, "B")


def message(name, **kinds):
    return type(name, (Message,), {"KINDS": kinds})


Time = message("Time", sec=int, nanosec=int)
Header = message("Header", stamp=Time, frame_id=str)
String = message("String", data=str)
Image = message("Image", header=Header, height=int, width=int, encoding=str, is_bigendian=int, step=int, data=Bytes)
CompressedImage = message("CompressedImage", header=Header, format=str, data=Bytes)
CameraInfo = message("CameraInfo", header=Header, k=list, d=list)
Point = message("Point", x=float, y=float, z=float)
Pose = message("Pose", position=Point)
PoseWithCovariance = message("PoseWithCovariance", pose=Pose)
ObjectHypothesis = message("ObjectHypothesis", class_id=str, score=float)
ObjectHypothesisWithPose = message("ObjectHypothesisWithPose", hypothesis=ObjectHypothesis, pose=PoseWithCovariance)
Point2D = message("Point2D", x=float, y=float)
Pose2D = message("Pose2D", position=Point2D, theta=float)
BoundingBox2D = message("BoundingBox2D", center=Pose2D, size_x=float, size_y=float)
Detection2D = message("Detection2D", header=Header, results=list, bbox=BoundingBox2D, id=str)
Detection2DArray = message("Detection2DArray", header=Header, detections=list)


class Node:
    """Topics by name; parameters come from `given`."""

    given: dict = {}

    def __init__(self, name):
        self.name, self.readers, self.published, self.log, self.values = name, {}, {}, [], {}

    def declare_parameters(self, namespace, parameters):
        assert namespace == "" and self.given.keys() <= dict(parameters).keys(), self.given
        self.values = {**dict(parameters), **self.given}

    def get_parameter(self, name):
        return types.SimpleNamespace(value=self.values[name])

    def create_publisher(self, kind, topic, qos):
        sent = self.published.setdefault(topic, [])

        def publish(message):
            assert isinstance(message, kind), message
            sent.append(message)

        return types.SimpleNamespace(publish=publish)

    def create_subscription(self, kind, topic, callback, qos):
        self.readers[topic] = (kind, callback, qos)

    def get_logger(self):
        return types.SimpleNamespace(warning=lambda line, **_: self.log.append(line))

    def destroy_node(self):
        self.readers.clear()


def install():
    """Puts the stand-in where the bridge imports ROS from."""
    profile = types.SimpleNamespace(reliability="best effort", durability="volatile", history="keep last", depth=5)
    modules = {
        "rclpy": {},
        "rclpy.executors": {"ExternalShutdownException": type("ExternalShutdownException", (Exception,), {})},
        "rclpy.node": {"Node": Node},
        "rclpy.qos": {"QoSProfile": types.SimpleNamespace, "qos_profile_sensor_data": profile},
        "sensor_msgs": {},
        "sensor_msgs.msg": {"CameraInfo": CameraInfo, "CompressedImage": CompressedImage, "Image": Image},
        "std_msgs": {},
        "std_msgs.msg": {"String": String},
        "vision_msgs": {},
        "vision_msgs.msg": {
            "Detection2D": Detection2D,
            "Detection2DArray": Detection2DArray,
            "ObjectHypothesisWithPose": ObjectHypothesisWithPose,
        },
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
