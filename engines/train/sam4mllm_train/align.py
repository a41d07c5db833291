"""Alignment: image tokens that speak the decoder's own words and numbers.

The projector learns to write what each image token sees so that the tied word embeddings name its object, and linear
maps of it say its box: a word then finds its token, and a token knows its place, before dialogue starts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .dialogue import SCALE, plural_forms
from .mllm import DIM
from .trunk import CLASSES, GRID


class AlignHeads(nn.Module):
    """Six maps from an image token to a number: the corners of its object's box, and its own cell's centre."""

    def __init__(self):
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(DIM, DIM, bias=False) for _ in range(6))
        self.sharpness = nn.Parameter(torch.full((6,), 1.5))


# Kinds that people do not say as the table writes them.
SPOKEN = {"home": "household", "electronics": "electronic"}


def plurals(tokenizer, token: int) -> list[int]:
    """Tokens that are plurals of the word `token`, as far as the vocabulary has them."""
    found = (tokenizer.convert_tokens_to_ids(f) for f in plural_forms(tokenizer.convert_ids_to_tokens(token)))
    return [t for t in found if t is not None and t != tokenizer.unk_token_id]


def word_table(tokenizer, assets: str) -> torch.Tensor:
    """f32[CLASSES + 1, V]: the words each class answers to (name, synonyms, colour, kind); background has its own."""
    table = torch.zeros(CLASSES + 1, len(tokenizer))
    ids = lambda t: tokenizer(t, add_special_tokens=False)["input_ids"]  # noqa: E731
    with open(f"{assets}/objects.csv", encoding="utf-8") as rows:
        next(rows)
        for i, row in enumerate(rows):
            name, _, colour, kind, synonyms = row.rstrip("\n").split(",")
            kind = SPOKEN.get(kind, kind)
            for text, weight in [(name.replace("-", ""), 2.0), (colour, 1.5), (kind, 1.5), *[(s, 1.0) for s in synonyms.split(";") if s]]:
                tokens = ids(text)
                for t in tokens:
                    for form, share in [(t, 1.0), *[(p, 0.5) for p in plurals(tokenizer, t)]]:
                        table[i, form] += share * weight / len(tokens)
    table[CLASSES, ids("background")] = 1.0
    unknown = tokenizer.unk_token_id
    assert table[:, unknown].sum() == 0, "a word of the object table is missing from the vocabulary"
    return table / table.sum(1, keepdim=True)


def speakers(words: torch.Tensor) -> dict[int, set[int]]:
    """Of each word of a `word_table` that names objects: the classes it may speak of."""
    of = {int(t): set(words[:CLASSES, t].nonzero().flatten().tolist()) for t in words[:CLASSES].sum(0).nonzero()}
    return {t: classes for t, classes in of.items() if len(classes) < 60}


def normed(x: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, (DIM,))


def targets(scenes, owner: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What each image token has to say: its class i64[B, 256], background last; the corners of its object's box and
    its own centre f32[B, 256, 6], in 0..1 of the image."""
    label = torch.full(owner.shape, CLASSES)
    centre = (torch.arange(GRID) + 0.5) / GRID
    cy, cx = torch.meshgrid(centre, centre, indexing="ij")
    place = torch.stack([*[cx.flatten()] * 4, cx.flatten(), cy.flatten()], -1).repeat(len(owner), 1, 1)
    for b, scene in enumerate(scenes):
        h, w = scene.instances.shape
        classes = torch.tensor([CLASSES, *[o["class"] for o in scene.meta["objects"]]])
        boxes = torch.tensor([[0, 0, 0, 0], *[o["box"] for o in scene.meta["objects"]]]) / torch.tensor([w, h, w, h])
        own = owner[b].long()
        label[b] = classes[own]
        place[b, :, :4] = boxes[own]
    return label, place


def align_loss(model, heads, z, label, place, words, first: int, share: float = 1.0):
    """Names (tied embeddings) and numbers (linear maps) of a `share` of the image tokens z f32[B, 256, D]."""
    table = model.get_input_embeddings().weight
    luck = torch.rand(label.shape, device=label.device)
    o = (label != CLASSES) & (luck < share)
    keep = o | (luck < 0.15 * share)
    name = F.cross_entropy(normed(z[keep]) @ table.T, words[label[keep]])
    numbers = table[first:first + SCALE + 1]
    grid = (place[o] * SCALE).round().clamp(0, SCALE)
    where, error = 0.0, 0.0
    for m, value, sharpness in zip(heads.maps, grid.T, heads.sharpness):
        logits = sharpness * normed(m(z[o])) @ numbers.T
        where = where + soft_numbers(logits.log_softmax(-1), value.long()).mean()
        error = error + (logits.argmax(-1) - value).abs().mean().item() / 60
    norm = (z.norm(dim=-1) - 1.5).square().mean()
    with torch.no_grad():
        best = (normed(z[o]) @ table.T).argmax(-1)
        acc = (words[label[o]].gather(1, best[:, None]) > 0).float().mean().item()
    return name + 0.25 * where + norm, {"name": name.item(), "acc": acc, "off": error}


def soft_numbers(log_p: torch.Tensor, value: torch.Tensor, sigma: float = 8.0) -> torch.Tensor:
    """Cross-entropy f32[M] of number log-probabilities f32[M, SCALE + 1] against values i64[M], a bell of `sigma`
    wide: a coordinate is never known to the unit, and neighbours should not count as wrong as strangers."""
    d = torch.arange(-24, 25, 2, device=value.device)
    bell = torch.softmax(-(d / sigma).square() / 2, 0)
    at = (value[:, None] + d).clamp(0, SCALE)
    return -(log_p.gather(1, at) * bell).sum(-1)
