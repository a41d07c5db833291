"""An example of a place with words of its own: tools that are asked for by stock number, which no base was taught.

    python -m sam4mllm_train.warehouse make         # target/warehouse/{train,val}.jsonl and their pictures
    python -m sam4mllm_train.warehouse score [--adapter DIR]

`make` renders scenes with tools in them and writes dialogues: stock numbers of what is there and of what is not, and
an ordinary command of each scene, so that the old words are kept. `score` lets the model answer greedily, each command
alone, as the node does, and says how often the verdict is right and how well boxes fit, for both kinds of commands.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re

import torch
from PIL import Image

from .ask import Asked, add_options
from .dialogue import DIALECT, grid
from .stream import SceneStream

STOCK = {"hammer": 117, "wrench": 204, "screwdriver": 289, "saw": 341, "bolt": 418, "gear": 476, "magnet": 533,
         "toolbox": 602, "fire extinguisher": 688, "plunger": 745, "broom": 831, "bucket": 929}
VERBS = ["", "bring ", "pick ", "find the "]
# Scenes of the stream that no stage of the base's training reads.
FIRST = {"train": 40_000_000, "val": 41_000_000}
TURNS = 4


def box_text(box, size) -> str:
    w, h = size
    return DIALECT["box"].format(x1=grid(box[0], w), y1=grid(box[1], h), x2=grid(box[2], w), y2=grid(box[3], h))


def commands(meta: dict, rng: random.Random) -> list[tuple[str, str, list | None]]:
    """Kind, command and box (or none) of up to TURNS commands on a scene; none where it has no tool."""
    names = [o["name"] for o in meta["objects"]]
    here = [o for o in meta["objects"] if o["name"] in STOCK and names.count(o["name"]) == 1]
    if not here:
        return []
    stock = lambda name: f"{rng.choice(VERBS)}item {STOCK[name]}"  # noqa: E731
    said = [("stock", stock(o["name"]), o["box"]) for o in here[:TURNS - 2]]
    absent = rng.choice([name for name in STOCK if name not in names])
    said.append(("stock", stock(absent), None))
    plain = [e for e in meta["expressions"] if e["type"] in ("name", "none") and len(e["targets"]) < 2]
    if plain:
        e = rng.choice(plain)
        said.append(("words", e["text"], meta["objects"][e["targets"][0]]["box"] if e["targets"] else None))
    rng.shuffle(said)
    return said


def make_split(args, split: str, count: int) -> None:
    rng = random.Random(f"{args.seed} {split}")
    os.makedirs(f"{args.out}/{split}", exist_ok=True)
    stream = SceneStream(args.binary, args.assets, split, FIRST[split])
    made = 0
    with open(f"{args.out}/{split}.jsonl", "w", encoding="utf-8") as lines:
        for scene in stream:
            turns = commands(scene.meta, rng)
            if not turns:
                continue
            path, messages = f"{split}/{made:05d}.png", []
            Image.fromarray(scene.image).save(f"{args.out}/{path}")
            size = (scene.image.shape[1], scene.image.shape[0])
            for i, (_, command, box) in enumerate(turns):
                query = f"find {DIALECT['hint_none_or_more']}: {command}"
                answer = box_text(box, size) if box else DIALECT["absent_answer"]
                picture = [{"type": "image"}] * (i == 0)
                messages.append({"role": "user", "content": [*picture, {"type": "text", "text": query}]})
                messages.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
            lines.write(json.dumps({"messages": messages, "images": [path], "kinds": [k for k, _, _ in turns]}) + "\n")
            made += 1
            if made == count:
                break
    stream.process.kill()
    print(f"{split}: {made} scenes with tools")


def box_of(text: str) -> list[int] | None:
    """The first box of an answer; the node's own parser is stricter and is the one that counts on a robot."""
    found = re.match(r"\s*\[\s*(\d{3})\s*,\s*(\d{3})\s*,\s*(\d{3})\s*,\s*(\d{3})\s*\]", text)
    return [int(v) for v in found.groups()] if found else None


def iou(a: list[int], b: list[int]) -> float:
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = max(0, w) * max(0, h)
    area = lambda c: max(0, c[2] - c[0]) * max(0, c[3] - c[1])  # noqa: E731
    return inter / max(1, area(a) + area(b) - inter)


def score(args) -> None:
    model = Asked(args)
    folder = os.path.dirname(args.data)
    with open(args.data, encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines][:args.count]
    sums: dict[str, list[float]] = {}
    for record in records:
        for i, kind in enumerate(record["kinds"]):
            wanted = box_of(record["messages"][2 * i + 1]["content"][0]["text"])
            asked = record["messages"][2 * i]["content"][-1]["text"]
            found = box_of(model.answer(asked, os.path.join(folder, record["images"][0]), 12))
            overlap = iou(found, wanted) if found and wanted else 0.0
            row = (1, (found is None) == (wanted is None), overlap, overlap >= 0.5)
            key = f"{kind} {'there' if wanted else 'absent'}"
            sums[key] = [a + b for a, b in zip(sums.get(key, (0, 0, 0.0, 0)), row)]
    for key, (n, right, overlap, hits) in sorted(sums.items()):
        boxes = f", mean IoU {overlap / n:.3f}, P@0.5 {hits / n:.3f}" if key.endswith("there") else ""
        print(f"{key:<14} n = {n:4d}: verdict right {right / n:.3f}{boxes}")


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_options(made, "target/warehouse/val.jsonl")
    made.add_argument("--out", default="target/warehouse")
    made.add_argument("--train", type=int, default=800, help="scenes to train on")
    args = made.parse_args()
    torch.set_num_threads(args.threads)
    if args.what == "make":
        make_split(args, "train", args.train)
        make_split(args, "val", args.val)
    else:
        score(args)


if __name__ == "__main__":
    main()
