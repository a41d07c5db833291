"""What is asked: targets, and how they are to be answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from .v1 import perception_pb2 as wire


class CountHint(Enum):
    """How many instances a command may have; becomes part of the question."""

    ONE = wire.COUNT_HINT_ONE
    ONE_OR_MORE = wire.COUNT_HINT_ONE_OR_MORE
    NONE_OR_MORE = wire.COUNT_HINT_NONE_OR_MORE


class Strategy(Enum):
    """How the language model is asked, and so what SAM is prompted with."""

    USUAL = wire.STRATEGY_UNSPECIFIED
    BOX = wire.STRATEGY_BOX
    PPG = wire.STRATEGY_PPG
    PQPP = wire.STRATEGY_PQPP


@dataclass(frozen=True)
class Target:
    """Something to look for: an id of your own and what the user said.

    `reground_after_ms` has the language model look again when its last look is that old; 0 is the node's own time.
    """

    target_id: str
    command: str
    hint: CountHint = CountHint.NONE_OR_MORE
    strategy: Strategy = Strategy.USUAL
    reground_after_ms: int = 0

    def message(self) -> wire.Target:
        """The wire message."""
        return wire.Target(
            target_id=self.target_id,
            command=self.command,
            hint=self.hint.value,
            strategy=self.strategy.value,
            reground_after_ms=self.reground_after_ms,
        )


@dataclass(frozen=True)
class Options:
    """How one frame is to be answered.

    `evidence` adds the language model's own words; `max_wait_ms` drops the frame where its turn comes later, and
    `budget_ms` where its work would begin later, 0 never; `revise` has a frame answered again when a grounding ends and
    no newer frame waits; `anytime` has it answered as soon as there are boxes, then masks, then better ones.
    """

    evidence: bool = False
    max_wait_ms: int = 0
    revise: bool = False
    budget_ms: int = 0
    anytime: bool = False

    def message(self) -> wire.Options:
        """The wire message."""
        return wire.Options(
            evidence=self.evidence,
            max_wait_ms=self.max_wait_ms,
            revise=self.revise,
            budget_ms=self.budget_ms,
            anytime=self.anytime,
        )


def targets(given: Mapping[str, str] | Iterable[Target]) -> list[wire.Target]:
    """Targets from `{target_id: command}` or from `Target`s."""
    if isinstance(given, Mapping):
        given = [Target(target_id, command) for target_id, command in given.items()]
    return [target.message() for target in given]
