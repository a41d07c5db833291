"""Token trees to batches."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from .dialogue import CELL, FREE

ROW = 96


class Tensors:
    """A dataclass of tensors, of other such dataclasses, or of None."""

    def to(self, device):
        """All of it on a device."""
        there = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in there.items() if v is not None})


@dataclass
class Rows(Tensors):
    """Token trees cut into rows: whole dialogues, several to a row, each row behind its scene's image prefix.

    ids, labels, gaze, kinds, types, positions i64[N, R]; weights f32[N, R]; live bool[N, R], what is no padding; sees
    bool[N, R, R], which token of a row each may attend to; scene i64[N].
    """

    ids: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    gaze: torch.Tensor
    kinds: torch.Tensor
    types: torch.Tensor
    positions: torch.Tensor
    live: torch.Tensor
    sees: torch.Tensor
    scene: torch.Tensor

    def bias(self, prefix: int) -> torch.Tensor:
        """f32[N, 1, R, prefix + R], additive: a row sees all of its scene's prefix, and of itself what it may."""
        shown = torch.cat([self.live[..., None].expand(-1, -1, prefix), self.sees], 2)
        return torch.zeros(shown.shape, device=shown.device).masked_fill_(~shown, -1e9)[:, None]


def collate(packed) -> Rows:
    """First-fit packing of each scene's dialogues into rows; a dialogue never leaves its row."""
    rows: list[tuple[int, np.ndarray]] = []
    for scene, p in enumerate(packed):
        segments = np.array(p.segments)
        top = np.array([min(a - {0}, default=0) for a in p.ancestors])[segments]
        bins: list[list[np.ndarray]] = []
        groups = [np.flatnonzero(top == g) for g in np.unique(top) if g]
        for group in sorted(groups, key=len, reverse=True):
            home = next((b for b in bins if sum(map(len, b)) + len(group) <= ROW), None)
            if home is None:
                bins.append(home := [])
            home.append(group)
        rows += [(scene, np.concatenate(b)) for b in bins]
    width = max(len(r) for _, r in rows)
    shape = (len(rows), width)
    columns = {name: np.zeros(shape, np.int64) for name in ("tokens", "kinds", "types", "positions")}
    columns |= {"labels": np.full(shape, -100, np.int64), "gaze": np.full(shape, FREE, np.int64)}
    columns["weights"] = np.zeros(shape, np.float32)
    live, sees = np.zeros(shape, bool), np.zeros((*shape, width), bool)
    sees[:, np.arange(width), np.arange(width)] = True
    for i, (scene, at) in enumerate(rows):
        n = len(at)
        for name, column in columns.items():
            column[i, :n] = np.array(getattr(packed[scene], name))[at]
        live[i, :n] = True
        sees[i, :n, :n] = packed[scene].sees(at)
    c = {k: torch.from_numpy(v) for k, v in (columns | {"live": live, "sees": sees}).items()}
    return Rows(ids=c.pop("tokens"), **c, scene=torch.tensor([s for s, _ in rows]))


def gaze_targets(rows: Rows, owner: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """bool[N, R, P]: the prefix tokens that each token's gaze is meant for; none where it is free.

    `owner` u8[B, P - 1] are the objects of the shown image tokens, `at` i64[B, P] the positions of the prefix.
    """
    own = torch.nn.functional.pad(owner.long(), (1, 0))[rows.scene][:, None]
    gaze = rows.gaze[..., None]
    objects = (gaze > 0) & (own > 0) & ((gaze >> own) & 1).bool()
    sink = (gaze == 0) & (torch.arange(at.shape[1], device=at.device) == 0)
    cell = (gaze <= CELL) & (at[rows.scene][:, None] == CELL - gaze + 1)
    return objects | sink | cell


def hop_targets(rows: Rows) -> torch.Tensor:
    """bool[N, R, R]: the nouns that each answering token has to take up: those that speak of its object, or all where
    there is none."""
    answers = rows.weights > 0
    noun = (rows.gaze >= 0) & ~answers
    same = (rows.gaze[..., None] & rows.gaze[:, None].clamp(min=0)) > 0
    told = (answers & (rows.gaze >= 0))[..., None]
    return told & noun[:, None] & rows.sees & (same | (rows.gaze == 0)[..., None])
