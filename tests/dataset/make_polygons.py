"""Writes polygons.json beside this file: polygons and the masks that COCO's own mask API makes of them.

    pip install pycocotools==2.0.11 numpy && python make_polygons.py
"""

import json
import math
import pathlib
import random

from pycocotools import mask as api


def star(rng, height, width, digits):
    """A ragged outline, as annotators draw them; it may reach out of the picture."""
    cx, cy = rng.uniform(0, width), rng.uniform(0, height)
    radius = rng.uniform(1, max(height, width) * 0.6)
    corners = rng.randint(3, 40)
    part = []
    for i in range(corners):
        r, a = radius * rng.uniform(0.3, 1), 2 * math.pi * i / corners
        part += [round(cx + r * math.cos(a), digits), round(cy + r * math.sin(a), digits)]
    return part


def scribble(rng, height, width, digits):
    """Corners anywhere: self-intersections, steep and flat edges, far outside."""
    reach = rng.choice([1, 1, 2, 50])
    return [
        round(rng.uniform(-0.2 * reach, 1 + 0.2 * reach) * (width if i % 2 == 0 else height), digits)
        for i in range(2 * rng.randint(3, 9))
    ]


def main():
    rng = random.Random(7)
    cases = []
    for i in range(300):
        height, width = rng.randint(1, 70), rng.randint(1, 90)
        make = star if i % 3 else scribble
        # One and two digits after the point are what COCO has; none and one make ties on the grid of fifths.
        digits = rng.choice([0, 1, 2, 2, 6])
        parts = [make(rng, height, width, digits) for _ in range(rng.choice([1, 1, 1, 2, 4]))]
        if i % 7 == 0:
            parts[0] += parts[0][-2:]  # a corner twice
        merged = api.merge(api.frPyObjects(parts, height, width))
        cases.append({"size": merged["size"], "parts": parts, "counts": merged["counts"].decode()})
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    pathlib.Path(__file__).with_name("polygons.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
