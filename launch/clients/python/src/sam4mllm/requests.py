"""The requests of a stream, which both kinds of stream share."""

from __future__ import annotations

import itertools

from . import frames
from .targets import Options, Target, targets
from .v1 import perception_pb2 as wire


class Requests:
    """Makes requests and numbers the frames."""

    def __init__(self):
        self._seq = itertools.count(1)

    def _set_targets(self, given) -> wire.PerceiveRequest:
        return wire.PerceiveRequest(set_targets=wire.SetTargets(targets=targets(given)))

    def _add_target(self, target: Target) -> wire.PerceiveRequest:
        return wire.PerceiveRequest(add_target=target.message())

    def _remove_target(self, target_id: str) -> wire.PerceiveRequest:
        return wire.PerceiveRequest(remove_target=wire.RemoveTarget(target_id=target_id))

    def _frame(self, image, options: Options, **known) -> wire.PerceiveRequest:
        # Numbered last: a picture that cannot be sent takes no number.
        frame = frames.frame(image, **known)
        frame.seq = next(self._seq)
        return wire.PerceiveRequest(frame=frame, options=options.message())
