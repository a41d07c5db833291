"""What the node answers, as dataclasses; masks are NumPy arrays, decoded when they are looked at."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import numpy as np

from .v1 import perception_pb2 as wire


class _Open(Enum):
    """A word of the wire. A newer node may say one that this client has not heard of: it is `UNKNOWN`, never `FOUND`."""

    @classmethod
    def _missing_(cls, _):
        return cls["UNKNOWN"]


class Verdict(_Open):
    """What is known about a target on a frame. Act upon `FOUND` alone."""

    FOUND = wire.VERDICT_FOUND
    ABSENT = wire.VERDICT_ABSENT
    AMBIGUOUS = wire.VERDICT_AMBIGUOUS
    UNSURE = wire.VERDICT_UNSURE
    PENDING = wire.VERDICT_PENDING
    LOST = wire.VERDICT_LOST
    FAILED = wire.VERDICT_FAILED
    PAUSED = wire.VERDICT_PAUSED
    UNKNOWN = wire.VERDICT_UNSPECIFIED


class Origin(_Open):
    """Where a mask comes from."""

    GROUNDED = wire.ORIGIN_GROUNDED
    TRACKED = wire.ORIGIN_TRACKED
    STALE = wire.ORIGIN_STALE
    UNKNOWN = wire.ORIGIN_UNSPECIFIED


class PointLabel(_Open):
    """What SAM was told about a point."""

    ON = wire.POINT_LABEL_ON
    OFF = wire.POINT_LABEL_OFF
    UNSURE = wire.POINT_LABEL_UNSURE
    UNKNOWN = wire.POINT_LABEL_UNSPECIFIED


@dataclass(frozen=True)
class Box:
    """Pixels of the frame as it was sent; right and bottom exclusive."""

    x1: float
    y1: float
    x2: float
    y2: float

    @classmethod
    def of(cls, box: wire.Box) -> Box:
        """From the wire."""
        return cls(box.x1, box.y1, box.x2, box.y2)


@dataclass(frozen=True)
class Point:
    """A point that the language model was asked about."""

    x: float
    y: float
    p_yes: float
    label: PointLabel


@dataclass(frozen=True)
class Position:
    """Where the visible surface is: metres in the camera's optical frame (x right, y down, z forward)."""

    centroid: tuple[float, float, float]
    min: tuple[float, float, float]
    max: tuple[float, float, float]
    depth_pixels: int
    used_pixels: int
    distorted: bool

    @classmethod
    def of(cls, position: wire.Position) -> Position:
        """From the wire."""
        vector = lambda v: (v.x, v.y, v.z)  # noqa: E731
        return cls(
            vector(position.centroid),
            vector(position.min),
            vector(position.max),
            position.depth_pixels,
            position.used_pixels,
            position.distorted,
        )


def decode_rle(counts: str, height: int, width: int) -> np.ndarray:
    """COCO's compressed run-length string to `bool[height, width]`.

    Raises `ValueError` where the runs do not cover the mask exactly.
    """
    runs: list[int] = []
    value = shift = 0
    for char in counts.encode("ascii"):
        chunk = char - 48
        value |= (chunk & 0x1F) << shift
        shift += 5
        if chunk & 0x20:
            continue
        if chunk & 0x10:
            value |= -1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(f"read mask: {len(runs)} runs do not cover {width} x {height} pixels")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(width, height).T


@dataclass(frozen=True, eq=False)
class Instance:
    """One object that matches a command."""

    message: wire.Instance

    @property
    def instance_id(self) -> int:
        """Stable while the same object is followed; never used for another one in the stream."""
        return self.message.instance_id

    @cached_property
    def mask(self) -> np.ndarray:
        """`bool[height, width]`, of the frame as it was sent."""
        mask = self.message.mask
        return decode_rle(mask.coco_rle, mask.height, mask.width)

    @property
    def box(self) -> Box:
        """Tight around the mask."""
        return Box.of(self.message.box)

    @property
    def mask_score(self) -> float:
        """SAM's own estimate of the mask's IoU, 0 to 1."""
        return self.message.mask_score

    @property
    def confidence(self) -> float:
        """How probable it is that the mask is on the right thing, 0 to 1."""
        return self.message.confidence

    @property
    def origin(self) -> Origin:
        """Where the mask comes from."""
        return Origin(self.message.origin)

    @property
    def age_ms(self) -> int:
        """How old the mask is: 0 unless it is STALE."""
        return self.message.mask_age_ms

    @property
    def grounded_seq(self) -> int:
        """The frame that the language model saw."""
        return self.message.grounded_seq

    @property
    def proposal(self) -> Box:
        """The language model's box, in pixels of the frame `grounded_seq`."""
        return Box.of(self.message.evidence.proposal)

    @cached_property
    def points(self) -> list[Point]:
        """The points that the language model was asked about, in pixels of the frame `grounded_seq`."""
        return [Point(p.x, p.y, p.p_yes, PointLabel(p.label)) for p in self.message.evidence.points]

    @property
    def position(self) -> Position | None:
        """Where it is in space, where the frame came with depth."""
        return Position.of(self.message.position) if self.message.HasField("position") else None


@dataclass(frozen=True)
class NodeError:
    """Something that could not be answered: the code's name and a text for people."""

    code: str
    message: str

    @classmethod
    def of(cls, error: wire.Error) -> NodeError:
        """From the wire."""
        names = wire.ErrorCode.DESCRIPTOR.values_by_number
        name = names[error.code].name if error.code in names else str(error.code)
        return cls(name.removeprefix("ERROR_CODE_"), error.message)


@dataclass(frozen=True)
class Evidence:
    """Why the language model said what it said."""

    seq: int
    answer: str
    passes: int
    malformed: str


@dataclass(frozen=True, eq=False)
class TargetResult:
    """The state of one target on one frame.

    `proposals` are boxes that have no masks yet, `partial` says that masks come from boxes alone; see `Options.anytime`.
    """

    target_id: str
    verdict: Verdict
    confidence: float
    instances: list[Instance]
    error: NodeError | None
    evidence: Evidence | None
    proposals: list[Box]
    partial: bool

    @classmethod
    def of(cls, result: wire.TargetResult) -> TargetResult:
        """From the wire."""
        said = result.evidence
        return cls(
            result.target_id,
            Verdict(result.verdict),
            result.confidence,
            [Instance(instance) for instance in result.instances],
            NodeError.of(result.error) if result.HasField("error") else None,
            Evidence(said.seq, said.answer, said.passes, said.malformed) if result.HasField("evidence") else None,
            [Box.of(box) for box in result.proposals],
            result.partial,
        )

    @property
    def mask(self) -> np.ndarray | None:
        """All instances' masks as one, `bool[height, width]`, where the target is FOUND; else `None`."""
        if self.verdict is not Verdict.FOUND or not self.instances:
            return None
        return np.logical_or.reduce([instance.mask for instance in self.instances])


@dataclass(frozen=True)
class Provenance:
    """What made an answer: the same provenance, frame and command give the same answer."""

    bundle_name: str
    bundle_version: str
    bundle_fingerprint: str
    engine: str
    engine_version: str
    node_version: str

    @classmethod
    def of(cls, message: wire.Provenance) -> Provenance:
        """From the wire."""
        return cls(
            message.bundle_name,
            message.bundle_version,
            message.bundle_fingerprint,
            message.engine,
            message.engine_version,
            message.node_version,
        )


@dataclass(frozen=True)
class Drop:
    """Frames that got no answer, since the stream began."""

    reason: str
    frames: int


@dataclass(frozen=True, eq=False)
class FrameResult:
    """The answer to one frame: its targets by id, in the order in which they were set.

    `partial` says that this frame is answered again, see `Options.anytime`.
    """

    seq: int
    stamp_ns: int
    optical_frame: str
    received_ns: int
    sent_ns: int
    revision: int
    partial: bool
    targets: dict[str, TargetResult]
    timings_ms: dict[str, float]
    dropped: list[Drop]
    provenance: Provenance
    message: wire.FrameResult

    @classmethod
    def of(cls, result: wire.FrameResult) -> FrameResult:
        """From the wire."""
        reason = lambda r: wire.DropReason.Name(r).removeprefix("DROP_REASON_")  # noqa: E731
        return cls(
            result.seq,
            result.stamp_ns,
            result.optical_frame,
            result.received_ns,
            result.sent_ns,
            result.revision,
            result.partial,
            {target.target_id: TargetResult.of(target) for target in result.targets},
            {timing.stage: timing.ms for timing in result.timings},
            [Drop(reason(drop.reason), drop.frames) for drop in result.counters.dropped],
            Provenance.of(result.provenance),
            result,
        )


@dataclass(frozen=True)
class Rejected:
    """A request that was refused; the stream goes on."""

    seq: int | None
    target_id: str | None
    error: NodeError

    @classmethod
    def of(cls, message: wire.Rejected) -> Rejected:
        """From the wire."""
        return cls(
            message.seq if message.HasField("seq") else None,
            message.target_id if message.HasField("target_id") else None,
            NodeError.of(message.error),
        )


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer to a question: about which frame, and either a result or an error."""

    question_id: str
    seq: int | None
    result: TargetResult | None
    error: NodeError | None

    @classmethod
    def of(cls, message: wire.Answer) -> Answer:
        """From the wire."""
        if message.WhichOneof("outcome") == "response":
            return cls(message.question_id, message.response.seq, TargetResult.of(message.response.result), None)
        return cls(message.question_id, None, None, NodeError.of(message.error))


def response(message: wire.PerceiveResponse) -> FrameResult | Rejected | Answer | None:
    """From the wire; `None` for what this client has not heard of."""
    kind = message.WhichOneof("response")
    if kind == "frame":
        return FrameResult.of(message.frame)
    if kind == "answer":
        return Answer.of(message.answer)
    return Rejected.of(message.rejected) if kind == "rejected" else None
