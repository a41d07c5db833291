"""Optimisers, the wall-clock schedule, curves and checkpoints that every stage shares."""

from __future__ import annotations

import csv
import os
import time

import torch
from torch import distributed, nn

from .stream import APART


def optimisers(modules: list[nn.Module], lr: float, muon_lr: float, skip=()) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside transformer blocks, AdamW for everything else that is trainable.

    A matrix goes to Muon unless its name says it is an embedding or a head, which Muon is not made for.
    """
    matrices, rest, seen = [], [], set()
    for module in modules:
        for name, p in module.named_parameters():
            if not p.requires_grad or id(p) in seen or any(s in name for s in skip):
                continue
            seen.add(id(p))
            block = p.ndim == 2 and not isinstance(module, nn.Embedding) and not any(s in name for s in ("embed", "head", "token", "position"))
            (matrices if block else rest).append(p)
    made: list[torch.optim.Optimizer] = []
    if rest:
        made.append(torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.01))
    if matrices:
        made.append(torch.optim.Muon(matrices, lr=muon_lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))
    for o in made:
        for g in o.param_groups:
            g["base_lr"] = g["lr"]
    return made


class Run:
    """One stage of training: time budget, learning-rate schedule, curve file, checkpoints.

    The schedule follows the wall clock, since a stage is given minutes rather than steps: linear warm-up
    over the first 2 %, then flat, then linear to zero over the last `decay` of the budget.
    """

    def __init__(self, directory: str, stage: str, minutes: float, decay: float = 0.35, save_every: float = 180.0):
        self.stage, self.minutes, self.decay, self.save_every = stage, minutes, decay, save_every
        self.directory = directory
        os.makedirs(directory, exist_ok=True)
        self.path = os.path.join(directory, f"{stage}.pt")
        self.curve = open(os.path.join(directory, f"{stage}.csv"), "a", newline="", buffering=1)
        self.writer = None
        self.start = self.last_save = self.last_log = time.time()
        self.step = 0
        self.sums: dict[str, float] = {}
        self.count = 0

    @property
    def progress(self) -> float:
        return (time.time() - self.start) / (60 * self.minutes)

    def schedule(self, opts) -> bool:
        """Sets the learning rates of this step; False once the budget is used up. All processes go by the first's clock."""
        t = self.progress
        if distributed.is_initialized():
            clock = torch.tensor([t], dtype=torch.float64)
            distributed.broadcast(clock, 0)
            t = clock.item()
        factor = min(1.0, t / 0.02 + 0.02, max(0.0, (1.0 - t) / self.decay))
        for o in opts:
            for g in o.param_groups:
                g["lr"] = g["base_lr"] * factor
        return t < 1.0

    def log(self, every: float = 15.0, **values: float) -> None:
        self.step += 1
        self.count += 1
        for k, v in values.items():
            self.sums[k] = self.sums.get(k, 0.0) + float(v)
        now = time.time()
        if now - self.last_log < every:
            return
        row = {"minute": round((now - self.start) / 60, 2), "step": self.step}
        row["steps_per_s"] = round(self.count / (now - self.last_log), 2)
        row |= {k: round(v / self.count, 4) for k, v in self.sums.items()}
        if self.writer is None:
            self.writer = csv.DictWriter(self.curve, fieldnames=list(row), extrasaction="ignore", restval="")
            self.writer.writeheader()
        self.writer.writerow(row)
        print(self.stage, " ".join(f"{k}={v}" for k, v in row.items()), flush=True)
        self.sums, self.count, self.last_log = {}, 0, now

    def save(self, state: dict, force: bool = False) -> None:
        if not force and time.time() - self.last_save < self.save_every:
            return
        # On the CPU: a checkpoint that a GPU wrote is read anywhere.
        torch.save({name: {k: v.cpu() for k, v in part.items()} for name, part in state.items()}, self.path + ".tmp")
        os.replace(self.path + ".tmp", self.path)
        self.last_save = time.time()


def step(loss: torch.Tensor, opts, parameters, clip: float = 1.0) -> None:
    for o in opts:
        o.zero_grad(set_to_none=True)
    loss.backward()
    if distributed.is_initialized():
        average(parameters)
    nn.utils.clip_grad_norm_(parameters, clip)
    for o in opts:
        o.step()


def average(parameters) -> None:
    """The mean of the gradients over all processes, in one message; a missing one counts as zero."""
    parameters = [p for p in parameters if p.requires_grad]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for p, g in zip(parameters, flat.split([p.numel() for p in parameters])):
        p.grad = g.view_as(p)


def join(args) -> int:
    """Joins the other processes of a `torchrun`, if there are any; returns this one's rank. Each reads its own scenes.

    Processes share cores better than threads do, whose barriers spin while another job holds the core.
    """
    if "RANK" not in os.environ:
        return 0
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    args.start += APART * max(1, args.workers) * rank
    return rank
