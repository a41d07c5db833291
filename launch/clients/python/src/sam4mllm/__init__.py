"""Client of the sam4mllm perception node: camera frames and commands in, NumPy masks out.

`Client` and `AsyncClient` speak to a node; `Stream` and `AsyncStream` are one live camera each. Answers are plain
dataclasses (`results`); the wire messages themselves are in `sam4mllm.v1.perception_pb2`.
"""

from .aio import AsyncClient, AsyncStream
from .channel import Security
from .client import Client, Stream
from .frames import Camera, Depth, FrameError, Raw
from .results import (
    Answer,
    Box,
    Drop,
    Evidence,
    FrameResult,
    Instance,
    NodeError,
    Origin,
    Point,
    PointLabel,
    Position,
    Provenance,
    Rejected,
    TargetResult,
    Verdict,
)
from .targets import CountHint, Options, Strategy, Target

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncStream",
    "Box",
    "Camera",
    "Client",
    "CountHint",
    "Depth",
    "Drop",
    "Evidence",
    "FrameError",
    "FrameResult",
    "Instance",
    "NodeError",
    "Options",
    "Origin",
    "Point",
    "PointLabel",
    "Position",
    "Provenance",
    "Raw",
    "Rejected",
    "Security",
    "Strategy",
    "Stream",
    "Target",
    "TargetResult",
    "Verdict",
]
