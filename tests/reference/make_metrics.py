"""Writes metrics.json: random answers as COCO run lengths, with the field's metrics over them by pycocotools and numpy.

Areas, intersections and unions come from pycocotools' mask API, everything above them from the formulas of the papers in
numpy; nothing is shared with the Rust side.

    pip install pycocotools==2.0.11 numpy==2.4.6
    python tests/reference/make_metrics.py
"""

import json
from pathlib import Path

import numpy as np
from pycocotools import mask as coco

SAMPLES = 120
SEED = 20240916


def blob(rng, h, w):
    """An ellipse with a few bites out of it; never empty."""
    y, x = np.mgrid[:h, :w]
    cy, cx = rng.uniform(0.2, 0.8) * h, rng.uniform(0.2, 0.8) * w
    ry, rx = rng.uniform(0.1, 0.45) * h, rng.uniform(0.1, 0.45) * w
    on = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1
    on &= rng.uniform(size=(h, w)) > rng.choice([0.0, 0.02])
    on[int(cy), int(cx)] = True
    return on


def moved(rng, mask):
    """The same shape a little elsewhere: answers of every quality."""
    reach = rng.integers(0, 4)
    shift = rng.integers(-reach, reach + 1, size=2)
    out = np.roll(mask, shift, axis=(0, 1))
    return out if out.any() else mask


def encode(mask):
    return None if mask is None else coco.encode(np.asfortranarray(mask.astype(np.uint8)))


def draw(rng):
    h, w = int(rng.integers(12, 40)), int(rng.integers(12, 40))
    truth = blob(rng, h, w) if rng.uniform() < 0.75 else None
    if rng.uniform() < 0.2:
        answer = None
    elif truth is not None and rng.uniform() < 0.8:
        answer = moved(rng, truth)
    else:
        answer = blob(rng, h, w)
    return (h, w), encode(truth), encode(answer)


def overlap(truth, answer):
    """Intersection and union in pixels, by the mask API alone."""
    given = [m for m in (truth, answer) if m is not None]
    if not given:
        return 0, 0
    union = int(coco.area(coco.merge(given)))
    both = int(coco.area(coco.merge(given, intersect=True))) if len(given) == 2 else 0
    return both, union


def metrics(samples):
    """gRefCOCO's gIoU, cIoU, N-acc and T-acc; RefCOCO's P@X over expressions with a target."""
    i, u = np.array([overlap(t, a) for _, t, a in samples], dtype=np.float64).T
    target = np.array([t is not None for _, t, _ in samples])
    answered = np.array([a is not None for _, _, a in samples])
    iou = np.where(target, np.where(answered, i / np.maximum(u, 1), 0.0), (~answered).astype(float))
    figures = {
        "giou": iou.mean(),
        "ciou": i.sum() / u.sum(),
        "target_giou": iou[target].mean(),
        "n_acc": (~answered)[~target].mean(),
        "t_acc": answered[target].mean(),
    }
    figures |= {f"p{round(100 * x)}": (iou[target] >= x).mean() for x in (0.5, 0.6, 0.7, 0.8, 0.9)}
    return {k: float(v) for k, v in figures.items()}, iou


def ece(confidence, right, bins):
    which = np.digitize(confidence, np.linspace(0, 1, bins + 1)[1:-1])
    total = 0.0
    for b in np.unique(which):
        inside = which == b
        total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return float(total)


def auroc(confidence, right):
    """The share of pairs of a right and a wrong one in which the right one is surer."""
    good, bad = confidence[right][:, None], confidence[~right][None, :]
    return float(((good > bad) + 0.5 * (good == bad)).mean())


def main():
    rng = np.random.default_rng(SEED)
    samples = [draw(rng) for _ in range(SAMPLES)]
    figures, iou = metrics(samples)
    # Some confidences are equal, some lie at the ends.
    confidence = np.clip(np.round(0.5 * iou + rng.uniform(0, 0.6, SAMPLES), rng.integers(2, 7)), 0, 1) * 0.999
    confidence[:2] = 0.0, 1.0
    right = iou >= 0.5
    text = lambda m: None if m is None else m["counts"].decode()
    golden = {
        "samples": [
            {"size": list(s), "truth": text(t), "answer": text(a), "iou": float(q), "confidence": float(c)}
            for (s, t, a), q, c in zip(samples, iou, confidence)
        ],
        "metrics": figures,
        "ece": {str(n): ece(confidence, right, n) for n in (10, 15)},
        "auroc": auroc(confidence, right),
    }
    Path(__file__).with_name("metrics.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    print(json.dumps({k: v for k, v in golden.items() if k != "samples"}, indent=1))


if __name__ == "__main__":
    main()
