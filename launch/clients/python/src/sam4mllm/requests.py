"""The requests that both kinds of client share."""

from __future__ import annotations

import itertools

from . import frames
from .targets import CountHint, Options, Strategy, Target, targets
from .v1 import perception_pb2 as wire


def segment_request(
    image, command: str, hint: CountHint, strategy: Strategy, evidence: bool, **known
) -> wire.SegmentRequest:
    """One image and one command; `known` as `frames.frame` takes it."""
    return wire.SegmentRequest(
        frame=frames.frame(image, **known),
        command=command,
        hint=hint.value,
        strategy=strategy.value,
        options=wire.Options(evidence=evidence),
    )


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

    def _rename_target(self, target_id: str, new_target_id: str) -> wire.PerceiveRequest:
        return wire.PerceiveRequest(rename_target=wire.RenameTarget(target_id=target_id, new_target_id=new_target_id))

    def _pause_target(self, target_id: str) -> wire.PerceiveRequest:
        return wire.PerceiveRequest(pause_target=wire.PauseTarget(target_id=target_id))

    def _resume_target(self, target_id: str) -> wire.PerceiveRequest:
        return wire.PerceiveRequest(resume_target=wire.ResumeTarget(target_id=target_id))

    def _reground_target(self, target_id: str) -> wire.PerceiveRequest:
        return wire.PerceiveRequest(reground_target=wire.RegroundTarget(target_id=target_id))

    def _ask(self, question_id: str, command: str, hint: CountHint, strategy: Strategy) -> wire.PerceiveRequest:
        question = wire.Question(
            question_id=question_id, command=command, hint=hint.value, strategy=strategy.value
        )
        return wire.PerceiveRequest(question=question)

    def _frame(self, image, options: Options, **known) -> wire.PerceiveRequest:
        # Numbered last: a picture that cannot be sent takes no number.
        frame = frames.frame(image, **known)
        frame.seq = next(self._seq)
        return wire.PerceiveRequest(frame=frame, options=options.message())
