"""ROS messages to the client's frames, and answers to ROS messages. Needs no ROS: messages are anything with their fields.

Nothing is judged here that the node judges: a frame goes out as it came, and a refusal comes back as an answer.
"""

from __future__ import annotations

import array
import json
from dataclasses import dataclass

import numpy as np
from sam4mllm import Camera, Depth, FrameError, FrameResult, Origin, Raw, Target, Verdict

NANOSECONDS = 1_000_000_000
# Id of the target of a command that names none.
ONLY = "target"


class CommandError(ValueError):
    """A command that begins with a brace, and is no JSON object of strings."""


@dataclass(frozen=True)
class Frame:
    """A frame with what `Stream.send` takes beside it."""

    image: Raw | bytes
    known: dict


def stamp_ns(stamp) -> int:
    """Nanoseconds of a `builtin_interfaces/Time`."""
    return stamp.sec * NANOSECONDS + stamp.nanosec


def raw_frame(message, camera: Camera | None) -> Frame:
    """A `sensor_msgs/Image`; encoding, `step`, byte order, stamp and `frame_id` as they came."""
    raw = Raw(
        # rclpy has an array.array, of which bytes() is one copy.
        data=bytes(message.data),
        encoding=message.encoding,
        width=message.width,
        height=message.height,
        step=message.step,
        is_bigendian=bool(message.is_bigendian),
    )
    return Frame(raw, known(message.header, camera))


def file_frame(message, camera: Camera | None) -> Frame:
    """A `sensor_msgs/CompressedImage`."""
    return Frame(bytes(message.data), {"encoding": message.format, **known(message.header, camera)})


def known(header, camera: Camera | None) -> dict:
    """What both kinds of frames bring along."""
    return {"stamp_ns": stamp_ns(header.stamp), "optical_frame": header.frame_id, "camera": camera}


def camera(message) -> Camera | None:
    """K and D of a `sensor_msgs/CameraInfo`; `None` where the camera was not calibrated."""
    fx, _, cx, _, fy, cy, *_ = message.k
    return Camera(fx, fy, cx, cy, tuple(message.d)) if fx > 0 and fy > 0 else None


def depth(message) -> Depth:
    """A `sensor_msgs/Image` of depth, `16UC1` or `32FC1`.

    Raises `FrameError` for other encodings, and where size, step and length of the data contradict each other.
    """
    kind = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}.get(message.encoding)
    if kind is None:
        raise FrameError(f"depth of `{message.encoding}`: it has to be 16UC1 (millimetres) or 32FC1 (metres)")
    dtype = np.dtype((">" if message.is_bigendian else "<") + kind)
    width, height, data = message.width, message.height, bytes(message.data)
    row = width * dtype.itemsize
    step = message.step or row
    # The last row may lack its padding.
    if not width or not height or step < row or len(data) < step * (height - 1) + row:
        raise FrameError(f"depth of {width} x {height}, step {step}: {len(data)} bytes do not hold it")
    return Depth(np.ndarray((height, width), dtype, data, strides=(step, dtype.itemsize)))


def targets(command: str) -> list[Target]:
    """The targets of a command: none for an empty one, one under `ONLY` for words, and for a JSON object of strings
    (`{"mug": "the mug left of the kettle"}`) one under each of its keys.

    Raises `CommandError`.
    """
    command = command.strip()
    if not command:
        return []
    if not command.startswith("{"):
        return [Target(ONLY, command)]
    try:
        named = json.loads(command)
    # Braces without end recurse.
    except (ValueError, RecursionError) as error:
        raise CommandError(f"read command: it is no JSON object of target ids and commands: {error}") from None
    if not all(isinstance(words, str) for words in named.values()):
        raise CommandError("read command: it is no JSON object of target ids and commands: a value is no string")
    return [Target(target_id, words) for target_id, words in sorted(named.items())]


def fresh(answer: FrameResult):
    """What a robot may act upon, as (target, instance): those of targets that are FOUND, with masks of this very frame. A
    STALE mask is of an earlier one, which a message with this frame's stamp could not say."""
    for target in answer.targets.values():
        if target.verdict is Verdict.FOUND:
            yield from ((target, i) for i in target.instances if i.origin is not Origin.STALE)


def set_header(header, answer: FrameResult):
    """The header of the frame that was answered."""
    header.stamp.sec, header.stamp.nanosec = divmod(answer.stamp_ns, NANOSECONDS)
    header.frame_id = answer.optical_frame
    return header


def detections(answer: FrameResult, types):
    """What was found on a frame, as `vision_msgs/Detection2DArray`: target as class, confidence as score, the instance's
    id, its tight box.

    `types` has the classes `Detection2DArray`, `Detection2D` and `ObjectHypothesisWithPose`, as `vision_msgs.msg` does.
    """
    out = types.Detection2DArray()
    set_header(out.header, answer)
    for target, instance in fresh(answer):
        detection, hypothesis = types.Detection2D(), types.ObjectHypothesisWithPose()
        set_header(detection.header, answer)
        hypothesis.hypothesis.class_id = target.target_id
        hypothesis.hypothesis.score = float(instance.confidence)
        if (position := instance.position) is not None:
            point = hypothesis.pose.pose.position
            point.x, point.y, point.z = position.centroid
        box, centre = instance.box, detection.bbox.center.position
        centre.x, centre.y = (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2
        detection.bbox.size_x, detection.bbox.size_y = box.x2 - box.x1, box.y2 - box.y1
        detection.results.append(hypothesis)
        detection.id = str(instance.instance_id)
        out.detections.append(detection)
    return out


def mask_image(answer: FrameResult, image, labels: bool = False):
    """The masks of the detections, drawn into `image`, a new `sensor_msgs/Image`: `mono8`, of the frame's size, 255 on all
    of them, or with `labels` 1 on the first, 2 on the second, ... (where two overlap, the first; 255 from the 255th on).
    `None` where the frame was never decoded, so that its size is not known.

    Raises `ValueError` where a mask is not what the contract says.
    """
    width, height = answer.message.width, answer.message.height
    if not width or not height:
        return None
    pixels = np.zeros((height, width), np.uint8)
    for number, (_, instance) in enumerate(fresh(answer), 1):
        if instance.mask.shape != pixels.shape:
            raise ValueError(f"read mask: it has {instance.mask.shape} pixels, the frame {pixels.shape}")
        pixels[instance.mask & (pixels == 0)] = min(number, 255) if labels else 255
    set_header(image.header, answer)
    image.height, image.width, image.step = height, width, width
    image.encoding, image.is_bigendian = "mono8", 0
    # What rclpy takes without looking at each of the pixels.
    image.data = array.array("B", pixels.tobytes())
    return image


def verdicts(answer: FrameResult) -> str:
    """What is known of every target, as JSON: `{"stamp_ns", "frame_id", "targets": {id: {"verdict", "confidence",
    "instances": [{"id", "confidence", "mask_score", "origin", "grounded_age_ms", "mask_age_ms"}], "error"}}}`."""
    said = {
        "stamp_ns": answer.stamp_ns,
        "frame_id": answer.optical_frame,
        "targets": {target.target_id: verdict(target) for target in answer.targets.values()},
    }
    return json.dumps(said)


def verdict(target) -> dict:
    """What is known of one."""
    instances = [
        {
            "id": i.instance_id,
            "confidence": i.confidence,
            "mask_score": i.mask_score,
            "origin": i.origin.name,
            "grounded_age_ms": i.message.grounded_age_ms,
            "mask_age_ms": i.age_ms,
        }
        for i in target.instances
    ]
    said = {"verdict": target.verdict.name, "confidence": target.confidence, "instances": instances}
    return said if target.error is None else {**said, "error": target.error.message}
