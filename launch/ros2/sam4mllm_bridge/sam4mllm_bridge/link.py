"""The bridge's stream to the node, on threads of its own: the newest frame out, answers in, and again from the start when
it breaks. Needs no ROS."""

from __future__ import annotations

import threading
from collections.abc import Callable

import grpc
from sam4mllm import Client, FrameResult, Rejected, Security, Target

from .convert import Frame

# One frame in work and one behind it, so that the node never waits for the network, nor the newest frame behind old ones.
UNDER_WAY = 2
# A frame that was dropped without a later answer to say so is not waited for longer.
SETTLED_WITHIN_S = 1.0
# Waits between attempts to reach the node: from the first, doubled up to the last.
AGAIN_S = (0.25, 4.0)


class Link:
    """Keeps a stream to a node open. `offer` and `look_for` never wait.

    `answered` gets each `FrameResult`, `told` a line for the log; both are called on the link's threads.
    """

    def __init__(
        self,
        address: str,
        answered: Callable[[FrameResult], None],
        told: Callable[[str], None],
        security: Security | None = None,
    ):
        self._address, self._security = address, security
        self._answered, self._told = answered, told
        # Guards all that follows; notified whenever any of it changes.
        self._changed = threading.Condition()
        self._newest: Frame | None = None
        self._targets: list[Target] = []
        self._said = 0
        self._ended = False
        self.superseded = 0
        self._thread = threading.Thread(target=self._run, name="sam4mllm", daemon=True)
        self._thread.start()

    def offer(self, frame: Frame) -> None:
        """Puts a frame in the place of any that waits."""
        with self._changed:
            self.superseded += self._newest is not None
            self._newest = frame
            self._changed.notify_all()

    def look_for(self, targets: list[Target]) -> None:
        """Replaces all targets. Frames are sent while there are any."""
        with self._changed:
            self._targets, self._said = list(targets), self._said + 1
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the stream, and waits for the threads."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join(10)

    def _run(self) -> None:
        wait = AGAIN_S[0]
        while not self._ended:
            session = Session(self)
            try:
                session.run()
            except grpc.RpcError as error:
                self._told(f"no stream to {self._address}: {error.code().name}: {error.details()}")
            except Exception as error:  # noqa: BLE001 - whatever it is, the camera goes on
                self._told(f"no stream to {self._address}: {error!r}")
            else:
                self._told(f"{self._address} ended the stream")
            wait = AGAIN_S[0] if session.answers else wait
            with self._changed:
                self._changed.wait_for(lambda: self._ended, wait)
            wait = min(2 * wait, AGAIN_S[1])


class Session:
    """One stream from its beginning to its end."""

    def __init__(self, link: Link):
        self.link = link
        # Numbers of the last frames that were sent, and answered or refused.
        self.sent = self.settled = 0
        self.answers = 0
        self.over = False
        self.refused = ""

    def run(self) -> None:
        """Reads answers until the stream ends; another thread sends."""
        link = self.link
        with Client(link._address, link._security) as client, client.stream() as stream:
            sender = threading.Thread(target=self.send, args=(stream,), name="sam4mllm-send", daemon=True)
            sender.start()
            try:
                for answer in stream:
                    self.read(answer)
            except grpc.RpcError:
                if not link._ended:
                    raise
            finally:
                with link._changed:
                    self.over = True
                    link._changed.notify_all()
                sender.join(10)

    def read(self, answer) -> None:
        """Hands an answer on."""
        self.answers += 1
        if (seq := getattr(answer, "seq", None)) is not None:
            with self.link._changed:
                self.settled = max(self.settled, seq)
                self.link._changed.notify_all()
        if isinstance(answer, FrameResult):
            self.link._answered(answer)
        # The same for every frame of a camera that sends what the node does not take: said once.
        elif isinstance(answer, Rejected) and answer.error.message != self.refused:
            self.refused = answer.error.message
            self.link._told(f"the node refused a request: {self.refused}")

    def send(self, stream) -> None:
        """Sends targets whenever they change, and frames while there are any targets."""
        link, said = self.link, -1
        while True:
            with link._changed:
                ready = lambda: link._newest is not None and link._targets and self.sent < self.settled + UNDER_WAY  # noqa: E731
                awake = lambda: self.over or link._ended or said != link._said or ready()  # noqa: E731
                if not link._changed.wait_for(awake, SETTLED_WITHIN_S):
                    self.settled = self.sent
                    continue
                ended, targets = self.over or link._ended, link._targets if said != link._said else None
                frame = None
                if targets is None and not ended:
                    frame, link._newest = link._newest, None
                said = link._said
            if ended:
                stream.close()
                return
            if targets is not None:
                stream.set_targets(targets)
            else:
                self.send_frame(stream, frame)

    def send_frame(self, stream, frame: Frame) -> None:
        """Sends a frame, or says why it cannot be."""
        try:
            self.sent = stream.send(frame.image, **frame.known)
        except ValueError as error:
            self.link._told(f"frame left out: {error}")
