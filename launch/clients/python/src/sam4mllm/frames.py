"""Camera frames as the node takes them: NumPy arrays, or the bytes of a JPEG, PNG or WebP file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .v1 import perception_pb2 as wire

# Raw encodings by dtype and channels; what OpenCV gives is "bgr8" and has to be said.
USUAL = {("uint8", 1): "mono8", ("uint16", 1): "mono16", ("uint8", 3): "rgb8", ("uint8", 4): "rgba8"}
CHANNELS = {"mono8": 1, "mono16": 1, "rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4}


class FrameError(ValueError):
    """A picture that cannot be sent as it is."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera in pixels, as K and D of ROS `CameraInfo`. Distortion is not corrected by the node."""

    fx: float
    fy: float
    cx: float
    cy: float
    distortion: Sequence[float] = ()

    def message(self) -> wire.Intrinsics:
        """The wire message."""
        return wire.Intrinsics(fx=self.fx, fy=self.fy, cx=self.cx, cy=self.cy, distortion=self.distortion)


@dataclass(frozen=True)
class Depth:
    """Depth registered to the colour image: `uint16[h, w]` millimetres or `float32[h, w]` metres, 0 or NaN unknown."""

    image: np.ndarray

    def message(self) -> wire.Depth:
        """The wire message.

        Raises `FrameError` for another dtype or shape.
        """
        encoding = {"uint16": "16UC1", "float32": "32FC1"}.get(self.image.dtype.name)
        if encoding is None or self.image.ndim != 2:
            raise FrameError(f"depth of {described(self.image)}: give uint16[h, w] millimetres or float32[h, w] metres")
        height, width = self.image.shape
        return wire.Depth(encoding=encoding, width=width, height=height, data=packed(self.image))


@dataclass(frozen=True)
class Raw:
    """A camera's bytes as they are, under any raw encoding of the contract ("nv12", "bayer_rggb8", ...): `height` rows of
    `step` bytes, 0 for packed ones. The node judges whether they fit."""

    data: bytes
    encoding: str
    width: int
    height: int
    step: int = 0
    is_bigendian: bool = False

    def fields(self) -> dict:
        """Those of the wire message."""
        return dict(vars(self))


def described(image: np.ndarray) -> str:
    """dtype and shape."""
    return f"{image.dtype.name}{list(image.shape)}"


def packed(image: np.ndarray) -> bytes:
    """The samples row by row, low byte first."""
    little = image.dtype.newbyteorder("<")
    return np.ascontiguousarray(image, dtype=little).tobytes()


def file_encoding(data: bytes) -> str:
    """ "jpeg", "png" or "webp", by the file's first bytes.

    Raises `FrameError` for anything else.
    """
    if data[:2] == b"\xff\xd8":
        return "jpeg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    raise FrameError("these bytes are no JPEG, PNG or WebP file; for raw pixels give a NumPy array")


def frame(
    image: np.ndarray | bytes | Raw,
    *,
    seq: int = 0,
    stamp_ns: int = 0,
    optical_frame: str = "",
    encoding: str | None = None,
    depth: Depth | None = None,
    camera: Camera | None = None,
) -> wire.Frame:
    """The wire message of a frame.

    `image` is the bytes of a file, `Raw`, or an array: `uint8[h, w, 3]` (RGB unless `encoding` is "bgr8"), `uint8[h, w, 4]`,
    `uint8[h, w]` or `uint16[h, w]`. Any strides will do.

    Raises `FrameError` for other dtypes and shapes, and where `encoding` says something else than the array.
    """
    known = {"seq": seq, "stamp_ns": stamp_ns, "optical_frame": optical_frame}
    known |= {} if depth is None else {"depth": depth.message()}
    known |= {} if camera is None else {"intrinsics": camera.message()}
    if isinstance(image, Raw):
        if encoding not in (None, image.encoding):
            raise FrameError(f"raw image of `{image.encoding}` is not `{encoding}`: leave the encoding out")
        return wire.Frame(**image.fields(), **known)
    if isinstance(image, (bytes, bytearray, memoryview)):
        data = bytes(image)
        return wire.Frame(encoding=encoding or file_encoding(data), data=data, **known)
    channels = 1 if image.ndim == 2 else image.shape[-1] if image.ndim == 3 else 0
    usual = USUAL.get((image.dtype.name, channels))
    if usual is None:
        raise FrameError(f"image of {described(image)}: give uint8[h, w, 3], uint8[h, w, 4], uint8[h, w] or uint16[h, w]")
    encoding = encoding or usual
    wide = encoding == "mono16"
    if CHANNELS.get(encoding) != channels or wide != (usual == "mono16"):
        raise FrameError(f"image of {described(image)} is not `{encoding}`: leave the encoding out or say `{usual}`")
    height, width = image.shape[:2]
    step = width * channels * (2 if wide else 1)
    return wire.Frame(encoding=encoding, width=width, height=height, step=step, data=packed(image), **known)
