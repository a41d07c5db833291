"""Colour and depth of one moment, which come as messages of their own and in any order. Needs no ROS."""

from __future__ import annotations

import threading
from dataclasses import replace

from sam4mllm import Depth

from .convert import Frame

# Stamps that are no farther apart are of one moment: less than half the time between frames of a fast camera.
TOGETHER_NS = 8_000_000


class Pairs:
    """The newest colour frame that waits for its depth, and the newest depth that waits for its colour frame.

    A frame whose depth does not come is not lost: it goes without when the next one comes. `colour` and `depth` return
    what may go now, or `None`; they may be called from any thread.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._colour: Frame | None = None
        self._depth: tuple[int, Depth] | None = None

    def colour(self, frame: Frame) -> Frame | None:
        """A colour frame has come."""
        with self._lock:
            if self._depth and together(self._depth[0], frame.known["stamp_ns"]):
                (_, depth), self._depth, self._colour = self._depth, None, None
                return paired(frame, depth)
            before, self._colour = self._colour, frame
            return before

    def depth(self, stamp_ns: int, depth: Depth) -> Frame | None:
        """Its depth, or another's, has come."""
        with self._lock:
            if self._colour and together(stamp_ns, self._colour.known["stamp_ns"]):
                frame, self._colour = self._colour, None
                return paired(frame, depth)
            self._depth = (stamp_ns, depth)
            return None


def together(a: int, b: int) -> bool:
    """Whether two stamps are of one moment."""
    return abs(a - b) <= TOGETHER_NS


def paired(frame: Frame, depth: Depth) -> Frame:
    """Depth is worth nothing without intrinsics, and the node refuses it."""
    return replace(frame, known={**frame.known, "depth": depth}) if frame.known["camera"] else frame
