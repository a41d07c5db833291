"""A node, from asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping

import numpy as np
from grpc import aio

from .channel import Security, opened
from .frames import Camera, Depth, Raw
from .requests import Requests, segment_request
from .results import Answer, FrameResult, Rejected, TargetResult, response
from .targets import CountHint, Options, Strategy, Target
from .v1 import perception_pb2 as wire
from .v1 import perception_pb2_grpc as stubs


class AsyncClient:
    """As `Client`; to be made, used and closed within one event loop."""

    def __init__(self, address: str = "127.0.0.1:50051", security: Security | None = None):
        self._channel, self._metadata = opened(aio, address, security)
        self._stub = stubs.PerceptionStub(self._channel)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends all calls and the connection."""
        await self._channel.close()

    async def wait_ready(self, timeout_s: float) -> None:
        """Waits until there is a connection; raises `TimeoutError`."""
        await asyncio.wait_for(self._channel.channel_ready(), timeout_s)

    async def describe(self, timeout_s: float | None = 10) -> wire.DescribeResponse:
        """What serves there: bundle, backend, limits, encodings."""
        return await self._stub.Describe(wire.DescribeRequest(), timeout=timeout_s, metadata=self._metadata)

    async def segment(
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
        reply = await self._stub.Segment(request, timeout=timeout_s, metadata=self._metadata)
        return TargetResult.of(reply.result)

    async def stream(
        self, targets: Mapping[str, str] | Iterable[Target] = (), *, timeout_s: float | None = None
    ) -> AsyncStream:
        """A live camera, with these targets to begin with."""
        stream = AsyncStream(self._stub, self._metadata, timeout_s)
        if targets:
            await stream.set_targets(targets)
        return stream


class AsyncStream(Requests):
    """One live camera: send frames in one task, iterate over the answers in another or in the same; as `Stream`."""

    def __init__(self, stub, metadata, timeout_s):
        super().__init__()
        self._call = stub.Perceive(timeout=timeout_s, metadata=metadata)

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_) -> None:
        self._call.cancel()

    async def close(self) -> None:
        """Sends no more; what was received is still answered."""
        await self._call.done_writing()

    async def set_targets(self, targets: Mapping[str, str] | Iterable[Target]) -> None:
        """Replaces all targets: `{target_id: command}` or `Target`s."""
        await self._call.write(self._set_targets(targets))

    async def add_target(self, target: Target) -> None:
        """Adds a target, or gives one that is there another command."""
        await self._call.write(self._add_target(target))

    async def remove_target(self, target_id: str) -> None:
        """Removes a target."""
        await self._call.write(self._remove_target(target_id))

    async def rename_target(self, target_id: str, new_target_id: str) -> None:
        """Gives a target another id; nothing else changes."""
        await self._call.write(self._rename_target(target_id, new_target_id))

    async def pause_target(self, target_id: str) -> None:
        """Has no more work done on a target."""
        await self._call.write(self._pause_target(target_id))

    async def resume_target(self, target_id: str) -> None:
        """Has work done on a paused target again."""
        await self._call.write(self._resume_target(target_id))

    async def reground_target(self, target_id: str) -> None:
        """Has the language model look at a target again as soon as it is free."""
        await self._call.write(self._reground_target(target_id))

    async def ask(
        self,
        question_id: str,
        command: str,
        *,
        hint: CountHint = CountHint.NONE_OR_MORE,
        strategy: Strategy = Strategy.USUAL,
    ) -> None:
        """Asks something once about the newest frame that was sent; an `Answer` comes among the replies."""
        await self._call.write(self._ask(question_id, command, hint, strategy))

    async def send(
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
        """Sends a frame and returns its `seq`; waits while the connection is full, not for an answer."""
        request = self._frame(
            image,
            options,
            stamp_ns=stamp_ns,
            optical_frame=optical_frame,
            encoding=encoding,
            depth=depth,
            camera=camera,
        )
        await self._call.write(request)
        return request.frame.seq

    async def __aiter__(self) -> AsyncIterator[FrameResult | Rejected | Answer]:
        async for message in self._call:
            if (reply := response(message)) is not None:
                yield reply
