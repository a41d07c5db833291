"""Times the bundle through PyTorch, as a script on a robot would run it: `transformers` generate + `SamModel`.

    python tests/reference/bench_pytorch.py engines/tabletop IMAGE "the red apple" [--runs 20] [--threads 2]

Round 1 is one `generate`; round 2 asks every point of the grid as one batch behind the shared key-value cache,
the fastest form that `transformers` offers without changing the model. Prints one JSON object: milliseconds,
p50, p95 and p99 of each part; compare with `sam4mllm engine bench` on the same machine in the same minute.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import time
import tomllib

import numpy as np
import torch
from PIL import Image
from transformers import AutoTokenizer, LlavaForConditionalGeneration, SamModel


def pixel_values(image: Image.Image, spec: dict) -> torch.Tensor:
    """f32[1, 3, H, W] as the manifest's image section says."""
    w, h = spec["width"], spec["height"]
    if spec["fit"] == "letterbox":
        scale = max(w, h) / max(image.size)
        image = image.resize((int(image.width * scale + 0.5), int(image.height * scale + 0.5)), Image.BILINEAR)
    else:
        image = image.resize((w, h), Image.BILINEAR)
    x = np.asarray(image, np.float32) / 255.0
    x = (x - np.array(spec["mean"], np.float32)) / np.array(spec["std"], np.float32)
    out = np.zeros((h, w, 3), np.float32)
    out[: x.shape[0], : x.shape[1]] = x
    return torch.from_numpy(out).permute(2, 0, 1)[None]


class Node:
    """The two models and the dialect of one bundle."""

    def __init__(self, bundle: str):
        with open(f"{bundle}/bundle.toml", "rb") as file:
            self.manifest = tomllib.load(file)
        self.tokenizer = AutoTokenizer.from_pretrained(f"{bundle}/mllm")
        self.mllm = LlavaForConditionalGeneration.from_pretrained(f"{bundle}/mllm").eval()
        self.sam = SamModel.from_pretrained(f"{bundle}/sam").eval()
        self.dialect = self.manifest["dialect"]

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def ground(self, image: Image.Image, command: str):
        """Round 1: the answer's boxes in grid units, with everything generated so far and its cache."""
        d = self.dialect
        image_token = self.mllm.config.image_token_index
        prefix = []
        for t in self.ids(d["prefix"]):
            prefix += [t] * (self.mllm.config.image_seq_length if t == image_token else 1)
        query = d["proposal_query"].format(hint=d["hint_none_or_more"], command=command)
        ids = torch.tensor([prefix + self.ids(query)])
        out = self.mllm.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, return_dict_in_generate=True,
            pixel_values=pixel_values(image, self.manifest["mllm"]["image"]),
            max_new_tokens=self.manifest["mllm"]["max_answer_tokens"])
        answer = self.tokenizer.decode(out.sequences[0, ids.shape[1]:], skip_special_tokens=True)
        boxes = re.findall(r"\[\s*(\d{3})\s*,\s*(\d{3})\s*,\s*(\d{3})\s*,\s*(\d{3})\s*\]", answer)
        return [[int(v) for v in b] for b in boxes], out

    def points(self, box: list[int], out):
        """Round 2 for one box: grid points and p(yes), all points as one batch."""
        d = self.dialect
        gx, gy = d["grid"]
        points = [(box[0] + (i % gx + 0.5) / gx * (box[2] - box[0]), box[1] + (i // gx + 0.5) / gy * (box[3] - box[1]))
                  for i in range(gx * gy)]
        box_text = d["box"].format(**dict(zip(("x1", "y1", "x2", "y2"), (f"{v:03d}" for v in box))))
        rows = [self.ids(d["points_query"].format(
            box=box_text, points=d["point"].format(x=f"{round(x):03d}", y=f"{round(y):03d}"))) for x, y in points]
        cache = copy.deepcopy(out.past_key_values)
        cache.batch_repeat_interleave(len(rows))
        past = cache.get_seq_length()
        ids = torch.tensor(rows)
        missing = out.sequences[:, past:]
        ids = torch.cat([missing.expand(len(rows), -1), ids], 1)
        logits = self.mllm(input_ids=ids, past_key_values=cache,
                           attention_mask=torch.ones(len(rows), past + ids.shape[1], dtype=torch.long)).logits[:, -1]
        yes, no = self.ids(d["yes"])[0], self.ids(d["no"])[0]
        return points, logits[:, [yes, no]].softmax(-1)[:, 0]

    def embed(self, image: Image.Image):
        return self.sam.get_image_embeddings(pixel_values(image, self.manifest["sam"]["image"]))

    def mask(self, embedding, image: Image.Image, box: list[int], points, p_yes) -> np.ndarray:
        scale = self.manifest["sam"]["image"]["width"] / max(image.size)
        to = torch.tensor([image.width, image.height], dtype=torch.float32) / self.dialect["coordinate_scale"] * scale
        t = self.dialect["thresholds"]
        kept = [(p, 1 if y > t["positive"] else 0) for p, y in zip(points, p_yes.tolist())
                if y > t["positive"] or 1 - y > t["negative"]]
        corners = torch.tensor(box, dtype=torch.float32).view(2, 2) * to
        prompts = {"input_boxes": corners.view(1, 1, 4)}
        if kept:
            prompts["input_points"] = (torch.tensor([p for p, _ in kept]) * to)[None, None]
            prompts["input_labels"] = torch.tensor([label for _, label in kept])[None, None]
        out = self.sam(image_embeddings=embedding, multimask_output=True, **prompts)
        best = out.pred_masks[0, 0, out.iou_scores[0, 0].argmax()]
        side = self.manifest["sam"]["image"]["width"]
        up = torch.nn.functional.interpolate(best[None, None], (side, side), mode="bilinear")
        w, h = (int(v * scale + 0.5) for v in image.size)
        up = torch.nn.functional.interpolate(up[..., :h, :w], (image.height, image.width), mode="bilinear")
        return (up[0, 0] > 0).numpy()


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("image")
    parser.add_argument("command")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    start = time.perf_counter()
    node = Node(args.bundle)
    load = time.perf_counter() - start
    image = Image.open(args.image).convert("RGB")
    times: dict[str, list[float]] = {}

    def timed(name, call):
        t = time.perf_counter()
        value = call()
        times.setdefault(name, []).append((time.perf_counter() - t) * 1000)
        return value

    for _ in range(args.runs + 3):
        t = time.perf_counter()
        boxes, out = timed("ground", lambda: node.ground(image, args.command))
        box = boxes[0] if boxes else [250, 250, 750, 750]
        points, p = timed("points", lambda: node.points(box, out))
        embedding = timed("embed", lambda: node.embed(image))
        mask = timed("mask", lambda: node.mask(embedding, image, box, points, p))
        times.setdefault("command_to_mask", []).append((time.perf_counter() - t) * 1000)
        t = time.perf_counter()
        node.mask(node.embed(image), image, box, [], torch.zeros(0))
        times.setdefault("tracked_frame", []).append((time.perf_counter() - t) * 1000)
    report = {k: {f"p{q}": round(float(np.percentile(v[3:], q)), 2) for q in (50, 95, 99)} for k, v in times.items()}
    print(json.dumps({"runs": args.runs, "threads": args.threads, "load_s": round(load, 2), "found": len(boxes),
                      "mask_pixels": int(mask.sum()), "ms": report}, indent=2))


if __name__ == "__main__":
    main()
