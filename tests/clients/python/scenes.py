"""Pictures for the fake backend, whose commands are colour words, and checks that are counted."""

import io

import numpy as np
from PIL import Image

RED, BLUE = (205, 25, 35), (25, 45, 200)
checks = 0


def check(condition, what):
    global checks
    assert condition, what
    checks += 1


def scene(boxes, size=(240, 320)):
    """A grey picture with coloured boxes: [(rgb, x, y, side)], and the truth of each box."""
    rgb = np.full((*size, 3), 122, np.uint8)
    truths = []
    for colour, x, y, side in boxes:
        rgb[y : y + side, x : x + side] = colour
        truth = np.zeros(size, bool)
        truth[y : y + side, x : x + side] = True
        truths.append(truth)
    return rgb, truths


def jpeg(rgb):
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", quality=92)
    return out.getvalue()


def iou(a, b):
    return (a & b).sum() / (a | b).sum()
