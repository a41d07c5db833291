"""General questions about scenes, written down and scored: what a base knows before it is tuned, and still knows after.

    python -m sam4mllm_train.vqa make                                 # target/vqa: pictures, and LLaVA's lists
    python -m sam4mllm_train.vqa score --base DIR [--adapter DIR]     # the share of right answers by kind of question
"""

from __future__ import annotations

import argparse
import json
import os
import random

import torch
from PIL import Image

from .align import word_table
from .ask import Asked, add_options
from .dialogue import SCALE, Packer, build_tokenizer
from .draw import packer_of
from .general import KINDS, Asker
from .stream import SceneStream

# Scenes of the stream that no other stage reads.
FIRST = {"train": 50_000_000, "val": 51_000_000}


def make_split(args, packer: Packer, split: str, count: int) -> None:
    asker = Asker(packer, random.Random(f"{args.seed} {split}"))
    os.makedirs(f"{args.out}/{split}", exist_ok=True)
    stream = SceneStream(args.binary, args.assets, split, FIRST[split], kind="scenes", side=320)
    entries = []
    for n, scene in zip(range(count), stream):
        path, turns = f"{split}/{n:05d}.jpg", []
        Image.fromarray(scene.image).save(f"{args.out}/{path}", quality=92)
        asked = asker.questions(scene, args.questions)
        for q in asked:
            turns += [{"from": "human", "value": q.text}, {"from": "gpt", "value": q.answer}]
        if turns:
            turns[0]["value"] = f"<image>\n{turns[0]['value']}"
            entries.append({"id": f"{n}", "image": path, "conversations": turns, "kinds": [q.kind for q in asked]})
    stream.process.kill()
    with open(f"{args.out}/{split}.json", "w", encoding="utf-8") as file:
        json.dump(entries, file, indent=0)
    print(f"{split}: {sum(len(e['kinds']) for e in entries)} questions about {len(entries)} scenes")


def right(kind: str, said: str, wanted: str) -> bool:
    """Word for word; a point within a twentieth of the side."""
    if kind != "point":
        return said.split() == wanted.split()
    numbers = lambda text: [int(v) for v in text.strip(" []").replace(" ", "").split(",") if v.isdigit()]  # noqa: E731
    a, b = numbers(said), numbers(wanted)
    return len(a) == 2 and all(abs(x - y) <= SCALE / 20 for x, y in zip(a, b))


def score(args) -> None:
    model = Asked(args)
    folder = os.path.dirname(args.data)
    with open(args.data, encoding="utf-8") as file:
        entries = json.load(file)[:args.count]
    hits: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    for entry in entries:
        for i, kind in enumerate(entry["kinds"]):
            asked, wanted = (entry["conversations"][2 * i + k]["value"] for k in (0, 1))
            said = model.answer(asked.replace("<image>\n", ""), os.path.join(folder, entry["image"]), 8)
            hits[kind].append(right(kind, said, wanted))
    for kind, some in hits.items():
        print(f"{kind:<10} n = {len(some):4d}: right {sum(some) / max(1, len(some)):.3f}")


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add_options(made, "target/vqa/val.json")
    made.add_argument("--out", default="target/vqa")
    made.add_argument("--train", type=int, default=2000, help="scenes to train on")
    made.add_argument("--questions", type=int, default=6, help="a scene, at most")
    args = made.parse_args()
    torch.set_num_threads(args.threads)
    if args.what == "score":
        return score(args)
    tokenizer = build_tokenizer(args.binary, args.assets)
    packer = packer_of(args, tokenizer, word_table(tokenizer, args.assets), args.seed)
    make_split(args, packer, "train", args.train)
    make_split(args, packer, "val", args.val)


if __name__ == "__main__":
    main()
