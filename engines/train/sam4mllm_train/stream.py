"""Reads scenes from `sam4mllm dataset stream` and fits them to a model's square input.

With `--workers` other processes do that and what else a step needs, each with scenes of its own, a few steps ahead of the
model's.

Wire format, little endian, one record a scene: magic `S4DS`, u32 version, u32 length of the JSON,
u32 width, u32 height, the JSON, u8[height, width, 3] RGB, u8[height, width] instance map
(0 background, i + 1 the visible part of object i).
"""

from __future__ import annotations

import json
import os
import queue
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

MAGIC, VERSION = b"S4DS", 1
# Scenes between the first ones of two processes.
APART = 100_000


@dataclass
class Scene:
    """One rendered scene: `image` u8[H, W, 3], `instances` u8[H, W], `meta` the ground truth."""

    image: np.ndarray
    instances: np.ndarray
    meta: dict


class SceneStream:
    """Iterates over the scenes of a generator process; a thread reads ahead."""

    def __init__(self, binary: str, assets: str, split: str, start: int, ahead: int = 64, **options):
        command = [binary, "dataset", "stream", "--assets", assets, "--split", split, "--start", str(start)]
        for key, value in options.items():
            command += [f"--{key.replace('_', '-')}", str(value)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=1 << 20)
        self.queue: queue.Queue = queue.Queue(ahead)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while True:
                self.queue.put(self._record())
        except EOFError:
            self.queue.put(None)

    def _bytes(self, n: int) -> bytes:
        data = self.process.stdout.read(n)
        if len(data) < n:
            raise EOFError
        return data

    def _record(self) -> Scene:
        magic, version, n, width, height = struct.unpack("<4sIIII", self._bytes(20))
        if magic != MAGIC or version != VERSION:
            raise ValueError(f"not a scene record: {magic!r} version {version}")
        meta = json.loads(self._bytes(n))
        image = np.frombuffer(self._bytes(width * height * 3), np.uint8).reshape(height, width, 3)
        instances = np.frombuffer(self._bytes(width * height), np.uint8).reshape(height, width)
        return Scene(image, instances, meta)

    def __iter__(self):
        while (scene := self.queue.get()) is not None:
            yield scene

    def take(self, n: int) -> list[Scene]:
        scenes = [self.queue.get() for _ in range(n)]
        if any(s is None for s in scenes):
            raise EOFError("the scene stream ended")
        return scenes


class Source(IterableDataset):
    """What `make` yields for the number of the worker process that asks."""

    def __init__(self, make: Callable[[int], Iterator]):
        self.make = make

    def __iter__(self):
        worker = get_worker_info()
        if worker:
            # The process that trains comes first.
            os.nice(5)
        return self.make(worker.id if worker else 0)


def batches(make: Callable[[int], Iterator], workers: int) -> Iterator:
    """Of `workers` processes, taken in turn, or of this one where there are none."""
    there = {"multiprocessing_context": "fork", "prefetch_factor": 4} if workers else {}
    return iter(DataLoader(Source(make), batch_size=None, num_workers=workers, **there))


def fit(scene: Scene, side: int, mode: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Fits a scene into `side` x `side`: u8[3, side, side] and u8[side, side].

    `squash` scales each axis on its own; `letterbox` keeps the aspect and leaves the right or bottom
    empty (value 255 in the instance map, so that losses can skip it).
    """
    image = torch.from_numpy(scene.image.copy()).permute(2, 0, 1)
    instances = torch.from_numpy(scene.instances.copy())
    h, w = instances.shape
    if mode == "squash":
        nh = nw = side
    else:
        scale = side / max(h, w)
        nh, nw = int(h * scale + 0.5), int(w * scale + 0.5)
    if (nh, nw) != (h, w):
        image = F.interpolate(image[None], (nh, nw), mode="bilinear", antialias=True)[0]
        instances = F.interpolate(instances[None, None], (nh, nw), mode="nearest-exact")[0, 0]
    if (nh, nw) != (side, side):
        image = F.pad(image, (0, side - nw, 0, side - nh), value=0)
        instances = F.pad(instances, (0, side - nw, 0, side - nh), value=255)
    return image, instances


def pixels(images: torch.Tensor, padding: torch.Tensor | None = None) -> torch.Tensor:
    """u8[B, 3, H, W] to f32 in -1..1; pixels of the padding (bool[B, H, W]) become 0, as the processors do."""
    values = images.float().div_(127.5).sub_(1.0)
    if padding is not None:
        values.masked_fill_(padding[:, None], 0.0)
    return values
