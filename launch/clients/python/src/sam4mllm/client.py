"""A node, from ordinary code."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator, Mapping

import grpc
import numpy as np

from .channel import Security, opened
from .frames import Camera, Depth, Raw
from .requests import Requests, segment_request
from .results import Answer, FrameResult, Rejected, TargetResult, response
from .targets import CountHint, Options, Strategy, Target
from .v1 import perception_pb2 as wire
from .v1 import perception_pb2_grpc as stubs


class Client:
    """A connection to a node at `host:port`, or `unix:/path`. One client serves any number of threads.

    Every call raises `grpc.RpcError` where the node refuses it or cannot be reached.
    """

    def __init__(self, address: str = "127.0.0.1:50051", security: Security | None = None):
        self._channel, self._metadata = opened(grpc, address, security)
        self._stub = stubs.PerceptionStub(self._channel)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Ends all calls and the connection."""
        self._channel.close()

    def wait_ready(self, timeout_s: float) -> None:
        """Waits until there is a connection; raises `grpc.FutureTimeoutError`."""
        grpc.channel_ready_future(self._channel).result(timeout=timeout_s)

    def describe(self, timeout_s: float | None = 10) -> wire.DescribeResponse:
        """What serves there: bundle, backend, limits, encodings."""
        return self._stub.Describe(wire.DescribeRequest(), timeout=timeout_s, metadata=self._metadata)

    def segment(
        self,
        image: np.ndarray | bytes | Raw,
        command: str,
        *,
        hint: CountHint = CountHint.NONE_OR_MORE,
        strategy: Strategy = Strategy.USUAL,
        evidence: bool = False,
        encoding: str | None = None,
        depth: Depth | None = None,
        camera: Camera | None = None,
        timeout_s: float | None = 30,
    ) -> TargetResult:
        """One image, one command, one answer. `image` as in `frames.frame`."""
        request = segment_request(
            image, command, hint, strategy, evidence, encoding=encoding, depth=depth, camera=camera
        )
        return TargetResult.of(self._stub.Segment(request, timeout=timeout_s, metadata=self._metadata).result)

    def stream(
        self, targets: Mapping[str, str] | Iterable[Target] = (), *, timeout_s: float | None = None
    ) -> Stream:
        """A live camera, with these targets to begin with."""
        return Stream(self._stub, self._metadata, targets, timeout_s)


class Stream(Requests):
    """One live camera: send frames from one thread, iterate over the answers in another or in the same.

    The newest frame wins: a frame that waited while a newer one came gets no answer, so count on answers by their
    `seq`, not by their number.
    """

    def __init__(self, stub, metadata, targets, timeout_s):
        super().__init__()
        self._requests: queue.SimpleQueue = queue.SimpleQueue()
        self._replies = stub.Perceive(iter(self._requests.get, None), timeout=timeout_s, metadata=metadata)
        if targets:
            self.set_targets(targets)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_) -> None:
        self.close()
        self._replies.cancel()

    def _put(self, request: wire.PerceiveRequest | None) -> None:
        self._requests.put(request)

    def close(self) -> None:
        """Sends no more; what was received is still answered."""
        self._put(None)

    def set_targets(self, targets: Mapping[str, str] | Iterable[Target]) -> None:
        """Replaces all targets: `{target_id: command}` or `Target`s."""
        self._put(self._set_targets(targets))

    def add_target(self, target: Target) -> None:
        """Adds a target, or gives one that is there another command."""
        self._put(self._add_target(target))

    def remove_target(self, target_id: str) -> None:
        """Removes a target."""
        self._put(self._remove_target(target_id))

    def rename_target(self, target_id: str, new_target_id: str) -> None:
        """Gives a target another id; nothing else changes."""
        self._put(self._rename_target(target_id, new_target_id))

    def pause_target(self, target_id: str) -> None:
        """Has no more work done on a target."""
        self._put(self._pause_target(target_id))

    def resume_target(self, target_id: str) -> None:
        """Has work done on a paused target again."""
        self._put(self._resume_target(target_id))

    def reground_target(self, target_id: str) -> None:
        """Has the language model look at a target again as soon as it is free."""
        self._put(self._reground_target(target_id))

    def ask(
        self,
        question_id: str,
        command: str,
        *,
        hint: CountHint = CountHint.NONE_OR_MORE,
        strategy: Strategy = Strategy.USUAL,
    ) -> None:
        """Asks something once about the newest frame that was sent; an `Answer` comes among the replies."""
        self._put(self._ask(question_id, command, hint, strategy))

    def send(
        self,
        image: np.ndarray | bytes | Raw,
        *,
        stamp_ns: int = 0,
        optical_frame: str = "",
        encoding: str | None = None,
        depth: Depth | None = None,
        camera: Camera | None = None,
        options: Options = Options(),
    ) -> int:
        """Sends a frame and returns its `seq`; does not wait for an answer. `image` as in `frames.frame`."""
        request = self._frame(
            image,
            options,
            stamp_ns=stamp_ns,
            optical_frame=optical_frame,
            encoding=encoding,
            depth=depth,
            camera=camera,
        )
        self._put(request)
        return request.frame.seq

    def __iter__(self) -> Iterator[FrameResult | Rejected | Answer]:
        return self

    def __next__(self) -> FrameResult | Rejected | Answer:
        while True:
            if (reply := response(next(self._replies))) is not None:
                return reply
