"""What the trunk sees, stored: each scene goes through it once, and dialogue is drawn anew from it many times.

A store is a folder of shards, `torch.save`d lists of scenes: `features` f16[256, 192], scaled as the language model's
tower is, `owner` u8[256] (0 background, i + 1 the cell belongs to object i), `instances` u8[H, W], `meta` the truth.
"""

from __future__ import annotations

import glob
import os
import random

import torch

from .half import halve
from .mllm import FEATURE_SCALE
from .stream import Scene, SceneStream, fit, pixels
from .trunk import GRID, PATCH, SIDE, Trunk, vision_config

SHARD = 500


def owners(instances: torch.Tensor) -> torch.Tensor:
    """u8[S, S] instance map to u8[GRID * GRID]: which object each image token belongs to, from 15 % of it."""
    cell = torch.arange(SIDE) // PATCH
    at = (cell[:, None] * GRID + cell) * 256 + instances
    covered = torch.bincount(at.flatten(), minlength=256 * GRID * GRID).view(-1, 256)[:, 1:]
    most, owner = covered.max(1)
    return (owner + 1).masked_fill(most < 0.15 * PATCH * PATCH, 0).to(torch.uint8)


def fitted(scenes) -> tuple[torch.Tensor, torch.Tensor]:
    """Scenes as the language model's tower is shown them, u8[B, 3, S, S], and their owners u8[B, 256]."""
    both = [fit(s, SIDE, "squash") for s in scenes]
    return torch.stack([i for i, _ in both]), torch.stack([owners(m) for _, m in both])


@torch.no_grad()
def run(args) -> None:
    trunk = Trunk(vision_config())
    trunk.load_state_dict(torch.load(args.trunk)["trunk"])
    halve("cpu", trunk)
    os.makedirs(f"{args.out}/features", exist_ok=True)
    stream = SceneStream(args.binary, args.assets, "train", args.start, seed=args.seed + 200, kind="scenes", side=320,
                         expressions=args.drafts)
    for shard in range(args.scenes // SHARD):
        items = []
        while len(items) < SHARD:
            scenes = stream.take(20)
            images, own = fitted(scenes)
            h = (trunk(pixels(images)) / FEATURE_SCALE).half()
            items += [{"features": f.clone(), "owner": o.clone(), "instances": torch.from_numpy(s.instances.copy()),
                       "meta": s.meta} for s, f, o in zip(scenes, h, own)]
        path = f"{args.out}/features/{args.start + shard * SHARD:07d}.pt"
        torch.save(items, path + ".tmp")
        os.replace(path + ".tmp", path)
        print(f"features: {(shard + 1) * SHARD} scenes", flush=True)
    stream.process.kill()


class Store:
    """The scenes of a store, all in memory."""

    def __init__(self, directory: str):
        self.items = [item for path in sorted(glob.glob(f"{directory}/*.pt")) for item in torch.load(path)]

    def draw(self, n: int, rng: random.Random):
        """`n` scenes: their truth, owners u8[n, 256], features f32[n, 256, 192]."""
        chosen = rng.sample(self.items, n)
        scenes = [Scene(None, c["instances"].numpy(), c["meta"]) for c in chosen]
        return scenes, torch.stack([c["owner"] for c in chosen]), torch.stack([c["features"] for c in chosen]).float()
