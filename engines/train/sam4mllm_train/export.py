"""Writes the bundle: two ordinary Hugging Face checkpoints and their manifest."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import subprocess

import torch
from transformers import SamImageProcessor, SiglipImageProcessor

from . import mllm, sam
from .dialogue import DIALECT, PPG, build_tokenizer
from .trunk import SIDE, Trunk, vision_config

MEAN = STD = [0.5, 0.5, 0.5]
# A wrong mask is worse than none: what is found less surely than 0.85 is UNSURE. Absent: from 0.8 on it was true 97 times of
# 100 on 300 val scenes (0.6.0), from 0.5 on 91 times. Points: `eval --sweep` on val.
THRESHOLDS = {"found": 0.85, "absent": 0.8, "positive": 0.97, "negative": 0.9, "mask_score": 0.4}
# In a stream an answer holds for many frames. Mask score and hold: engines/train/README.md, "Where it stands". Confidence: by
# 100 clips of val no mask of 0.6.0's that was called FOUND overlapped its object by less than half. Absent: of the 821 things
# that are there in 250 val scenes none is called absent with 0.9, but a hidden book in a clip is with 0.984.
STREAM = {"found": 0.996, "absent": 0.99, "mask_score": 0.88, "confidence": 0.92, "hold": 0.8}


def processor_configs(directory: str) -> None:
    """The preprocessing as `transformers` classes would be told it."""
    SiglipImageProcessor(size={"height": SIDE, "width": SIDE}, resample=2, image_mean=MEAN, image_std=STD
                         ).save_pretrained(f"{directory}/mllm")
    SamImageProcessor(size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE}, image_mean=MEAN,
                      image_std=STD, mask_size={"longest_edge": SIDE // 4},
                      mask_pad_size={"height": SIDE // 4, "width": SIDE // 4}).save_pretrained(f"{directory}/sam")


def toml_value(value) -> str:
    return json.dumps(value)


def manifest(version: str, ppg: bool) -> str:
    image = lambda fit: "\n".join([  # noqa: E731
        f'fit = "{fit}"', f"width = {SIDE}", f"height = {SIDE}", 'filter = "bilinear"', f"mean = {MEAN}", f"std = {STD}"])
    table = lambda values: "\n".join(f"{k} = {toml_value(v)}" for k, v in values.items())  # noqa: E731
    said = f"\n[dialect.ppg]\n{table(PPG)}\n" if ppg else ""
    return f"""# The embedded default: 121 everyday objects on rendered tables. Small on purpose; real scenes need a real checkpoint.
format = 1
name = "tabletop"
version = "{version}"
licence = "MIT OR Apache-2.0"
description = "tiny MLLM and SAM trained on rendered tabletop scenes"

[mllm]
directory = "mllm"
class = "LlavaForConditionalGeneration"
max_answer_tokens = 160

[mllm.image]
{image("squash")}

[sam]
directory = "sam"
class = "SamModel"

[sam.image]
{image("letterbox")}

[sam.zoom]
{table(sam.ZOOM)}

[dialect]
{table(DIALECT)}
{said}
[dialect.thresholds]
{table(THRESHOLDS)}

[dialect.thresholds.stream]
{table(STREAM)}

[files]
"""


def kept_sections(path: str) -> str:
    """The evaluation figures of the manifest that is there, since they are another command's to write."""
    if not os.path.exists(path):
        return ""
    with open(path, encoding="utf-8") as file:
        found = re.search(r"^\[eval\]$.*", file.read(), re.M | re.S)
    return "\n" + found.group(0) if found else ""


@torch.no_grad()
def run(args) -> None:
    tokenizer = build_tokenizer(args.binary, args.assets)
    target = args.bundle
    language = mllm.build(tokenizer, None)
    language.load_state_dict(torch.load(f"{args.out}/mllm.pt")["mllm"])
    segmenter = sam.from_trunk(Trunk(vision_config()))
    segmenter.load_state_dict(torch.load(f"{args.out}/sam.pt")["sam"])
    for name in ("mllm", "sam"):
        shutil.rmtree(f"{target}/{name}", ignore_errors=True)
    language.save_pretrained(f"{target}/mllm", max_shard_size="12MB")
    segmenter.save_pretrained(f"{target}/sam", max_shard_size="12MB")
    tokenizer.save_pretrained(f"{target}/mllm")
    # `safetensors` writes for the owner alone; a node runs as a user of its own.
    for path in glob.glob(f"{target}/*/*.safetensors"):
        os.chmod(path, 0o644)
    processor_configs(target)
    kept = kept_sections(f"{target}/bundle.toml")
    with open(f"{target}/bundle.toml", "w", encoding="utf-8") as file:
        file.write(manifest(args.version, args.ppg > 0))
        file.write(kept)
    subprocess.run([args.binary, "engine", "seal", target], check=True)


def seed(args) -> None:
    """The way back: stage checkpoints from a committed bundle, so that `--resume` goes on from it."""
    language = mllm.LlavaForConditionalGeneration.from_pretrained(f"{args.bundle}/mllm")
    segmenter = sam.SamModel.from_pretrained(f"{args.bundle}/sam")
    os.makedirs(args.out, exist_ok=True)
    torch.save({"mllm": language.state_dict()}, f"{args.out}/mllm.pt")
    torch.save({"sam": segmenter.state_dict()}, f"{args.out}/sam.pt")
    tower, trunk = mllm.tower_of(language), Trunk(vision_config())
    mllm.rescale(tower, mllm.FEATURE_SCALE)
    trunk.embeddings.load_state_dict(tower.embeddings.state_dict())
    trunk.encoder.load_state_dict(tower.encoder.state_dict())
    torch.save({"trunk": trunk.state_dict()}, f"{args.out}/trunk.pt")
