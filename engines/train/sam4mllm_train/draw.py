"""What a step of dialogue training is made of: scenes, what their image tokens have to say, and their packed dialogues."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from . import general
from .align import speakers, targets, word_table
from .dialogue import Packer, build_tokenizer, held_out_wordings
from .features import fitted
from .rows import Rows, Tensors, collate
from .stream import APART, SceneStream
from .trunk import GRID

TOKENS = GRID * GRID


@dataclass
class Drawn(Tensors):
    """B scenes: pictures `images` u8[B, 3, S, S] or what the tower saw in them, `features` f32[B, 256, D]; `owner` u8[B, 256],
    `label` i64[B, 256] and `place` f32[B, 256, 6] of their image tokens; `seen` i64[B, K], the tokens that exist where it is
    not all of them; their dialogues."""

    owner: torch.Tensor
    label: torch.Tensor
    place: torch.Tensor
    images: torch.Tensor | None = None
    features: torch.Tensor | None = None
    seen: torch.Tensor | None = None
    rows: Rows | None = None


def sparse(owner: torch.Tensor, per_object: int, background: int, rng: random.Random) -> torch.Tensor:
    """Picks image tokens, i64[B, K]: up to `per_object` of each object's and at least `background` others.

    Finding one's token among few is learned much sooner than among 256, and carries over.
    """
    picks, rests = [], []
    for row in owner.tolist():
        by_object: dict[int, list[int]] = {}
        for i, v in enumerate(row):
            by_object.setdefault(v, []).append(i)
        picks.append([i for v, at in by_object.items() if v for i in rng.sample(at, min(per_object, len(at)))])
        rests.append(by_object.get(0, []))
    k = max(map(len, picks)) + background
    return torch.tensor([sorted((p + rng.sample(r, min(k - len(p), len(r))) + [0] * k)[:k]) for p, r in zip(picks, rests)])


def packer_of(args, tokenizer, words: torch.Tensor, seed: int) -> Packer:
    """Of the `args.assets`' objects and their `word_table`."""
    with open(f"{args.assets}/objects.csv", encoding="utf-8") as rows:
        names = [row.split(",")[0].replace("-", "") for row in rows][1:]
    return Packer(tokenizer, names, speakers(words), held_out_wordings(args.binary), TOKENS, seed)


def packed(packer: Packer, args, scenes, whole: bool, plain: float) -> Rows:
    """The scenes' dialogues; only with the `whole` of the picture those about places and those that count."""
    rounds, looks, ppg, counts = (args.rounds, args.looks, args.ppg, args.counts) if whole else (0, 0, 0.0, 0)
    trees = [packer.pack(s, args.expressions, rounds, args.points, looks, plain, ppg, counts) for s in scenes]
    for tree, scene in zip(trees, scenes):
        general.add(packer, tree, scene, args.general, whole)
    return collate(trees)


def draw(packer: Packer, args, scenes, kept: tuple | None = None, plain: float | None = None) -> Drawn:
    """A step's worth of `scenes`; `kept` are owners and features that are known already. Without `plain` the phase's own
    share of bare names, and in the sparse phase mostly few image tokens."""
    images, owner = fitted(scenes) if kept is None else (None, kept[0])
    drawn = Drawn(owner, *targets(scenes, owner), images, kept and kept[1])
    if args.phase == "tower":
        return drawn
    rng, whole = packer.rng, True
    if plain is None and args.phase == "sparse" and rng.random() < 0.8:
        drawn.seen, whole = sparse(owner, rng.choice([1, 2, 4]), rng.choice([6, 6, 24, 64]), rng), False
    drawn.rows = packed(packer, args, scenes, whole, args.plain if plain is None else plain)
    return drawn


def rendered(args) -> Callable[[int], Iterator[Drawn]]:
    """Fresh scenes, other ones in each worker."""

    def make(worker: int):
        tokenizer = build_tokenizer(args.binary, args.assets)
        start = args.start + APART * worker
        packer = packer_of(args, tokenizer, word_table(tokenizer, args.assets), args.seed + start)
        stream = SceneStream(args.binary, args.assets, "train", start, seed=args.seed + 300, kind="scenes", side=320,
                             expressions=2 * args.expressions, exclusions=args.exclusions)
        while True:
            yield draw(packer, args, stream.take(args.batch))

    return make
