"""The mean of two language models' weights, of which one went on from the other: what either has forgotten comes back."""

from __future__ import annotations

import os

import torch


def run(args) -> None:
    """`--resume` with a `--share` of `--other`, to `--out`; the trained heads are those of `--resume`."""
    state, other = torch.load(args.resume), torch.load(args.other)["mllm"]
    for name, weight in state["mllm"].items():
        if weight.is_floating_point():
            state["mllm"][name] = torch.lerp(weight, other[name], args.share)
    os.makedirs(args.out, exist_ok=True)
    torch.save(state, f"{args.out}/mllm.pt")
