"""Stage 3: the language model, a `LlavaForConditionalGeneration` on the warm trunk.

`align` teaches the projector to write, in the decoder's own word and number embeddings, what each image token
sees; `text` then trains decoder and projector by next-token cross-entropy on the assistant's tokens alone.
Source of the dialogue form and the loss: arXiv 2409.10542, section 3.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from . import optim
from .dialogue import ABSENT, BOX, LOOK, POINT, SCALE, Packer, build_tokenizer, grid
from .stream import SceneStream, fit, pixels
from .trunk import CLASSES, GRID, PATCH, SIDE, Trunk, dense_targets, vision_config

DIM, LAYERS, HEADS = 192, 4, 6


def build(tokenizer, trunk: Trunk | None) -> LlavaForConditionalGeneration:
    """Word rows of norm about 1; number rows are Fourier features of the value, so that near numbers are near."""
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=DIM, intermediate_size=512, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=2048, rope_theta=1e6,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        rms_norm_eps=1e-5)
    config = LlavaConfig(
        vision_config=vision_config().to_dict(), text_config=text.to_dict(), projector_hidden_act="gelu",
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), vision_feature_layer=-1,
        vision_feature_select_strategy="full", image_seq_length=GRID * GRID, tie_word_embeddings=True)
    model = LlavaForConditionalGeneration(config)
    model.tie_weights()
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table.normal_(0, 1 / math.sqrt(DIM))
        values = torch.arange(SCALE + 1).float() / SCALE
        wave = 2 * math.pi / torch.logspace(math.log10(2.0), math.log10(0.015), 24)
        phi = torch.cat([(values[:, None] * wave).sin(), (values[:, None] * wave).cos()], 1) / math.sqrt(24)
        basis = torch.linalg.qr(torch.randn(DIM, 48))[0]
        first = tokenizer.convert_tokens_to_ids("000")
        table[first:first + SCALE + 1] = phi @ basis.T
        for layer in model.model.language_model.layers:
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight.normal_(0, 1 / math.sqrt(DIM)))
            layer.self_attn.o_proj.weight.normal_(0, 0.3 / math.sqrt(DIM))
            layer.mlp.down_proj.weight.mul_(0.5)
        if trunk is not None:
            tower = model.model.vision_tower
            tower = getattr(tower, "vision_model", tower)
            tower.embeddings.load_state_dict(trunk.embeddings.state_dict())
            tower.encoder.load_state_dict(trunk.encoder.state_dict())
    return model


def trunk_of(model: LlavaForConditionalGeneration) -> Trunk:
    """The tower's modules, seen as a trunk (shared, not copied)."""
    trunk = Trunk.__new__(Trunk)
    nn.Module.__init__(trunk)
    tower = getattr(model.model.vision_tower, "vision_model", model.model.vision_tower)
    trunk.embeddings, trunk.encoder = tower.embeddings, tower.encoder
    return trunk


class AlignHeads(nn.Module):
    """Six maps from an image token to a number: the corners of its object's box, and its own cell's centre."""

    def __init__(self):
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(DIM, DIM, bias=False) for _ in range(6))


def word_table(tokenizer, assets: str) -> torch.Tensor:
    """f32[CLASSES + 1, V]: the words each class answers to (name, synonyms, colour, kind); background has its own."""
    table = torch.zeros(CLASSES + 1, len(tokenizer))
    ids = lambda t: tokenizer(t, add_special_tokens=False)["input_ids"]  # noqa: E731
    with open(f"{assets}/objects.csv", encoding="utf-8") as rows:
        next(rows)
        for i, row in enumerate(rows):
            name, _, colour, kind, synonyms = row.rstrip("\n").split(",")
            for text, weight in [(name, 2.0), (colour, 1.5), (kind, 1.5), *[(s, 1.0) for s in synonyms.split(";") if s]]:
                tokens = ids(text)
                for t in tokens:
                    table[i, t] += weight / len(tokens)
    table[CLASSES, ids("background")] = 1.0
    unknown = tokenizer.unk_token_id
    assert table[:, unknown].sum() == 0, "a word of the object table is missing from the vocabulary"
    return table / table.sum(1, keepdim=True)


def normed(x: torch.Tensor) -> torch.Tensor:
    return F.rms_norm(x, (DIM,))


def align_loss(model, heads, z, t, words, first: int):
    table = model.get_input_embeddings().weight
    label = t["label"]
    keep = (label != CLASSES) | (torch.rand(label.shape) < 0.15)
    name = F.cross_entropy(normed(z[keep]) @ table.T, words[label[keep]])
    o = t["object"]
    centre = (torch.arange(GRID) + 0.5) * PATCH
    cy, cx = torch.meshgrid(centre, centre, indexing="ij")
    cx, cy = cx.flatten()[None].expand_as(label)[o], cy.flatten()[None].expand_as(label)[o]
    l, top, r, b = (t["ltrb"][o] * 64.0).unbind(-1)
    values = [cx - l, cy - top, cx + r, cy + b, cx, cy]
    numbers = table[first:first + SCALE + 1]
    where = 0.0
    error = 0.0
    for m, v in zip(heads.maps, values):
        logits = normed(m(z[o])) @ numbers.T
        target = (v / SIDE * SCALE).round().clamp(0, SCALE).long()
        where = where + F.cross_entropy(logits, target)
        error = error + (logits.argmax(-1) - target).abs().float().mean().item() / 6
    norm = (z.norm(dim=-1) - 1.5).square().mean()
    with torch.no_grad():
        best = (normed(z[o]) @ table.T).argmax(-1)
        acc = (words[label[o]].gather(1, best[:, None]) > 0).float().mean().item()
    return name + 0.25 * where + norm, {"name": name.item(), "where": where.item() / 6, "acc": acc, "off": error}


def collate(packed, images_at: int = 1):
    """Pads token trees: ids, labels, kinds, positions i64[B, S] and an additive mask f32[B, 1, S, S]."""
    n = max(len(p.tokens) for p in packed)
    b = len(packed)
    ids, labels = np.zeros((b, n), np.int64), np.full((b, n), -100, np.int64)
    kinds, positions = np.zeros((b, n), np.int64), np.zeros((b, n), np.int64)
    mask = np.zeros((b, n, n), bool)
    mask[:, np.arange(n), np.arange(n)] = True
    for i, p in enumerate(packed):
        k = len(p.tokens)
        ids[i, :k], labels[i, :k], kinds[i, :k], positions[i, :k] = p.tokens, p.labels, p.kinds, p.positions
        mask[i, :k, :k] = p.mask()
    bias = torch.zeros(b, 1, n, n).masked_fill_(~torch.from_numpy(mask)[:, None], -1e9)
    return tuple(map(torch.from_numpy, (ids, labels, kinds, positions))) + (bias,)


def text_loss(model, z, ids, labels, kinds, positions, bias):
    table = model.get_input_embeddings()
    x = table(ids)
    n = z.shape[1]
    x = torch.cat([x[:, :1], z, x[:, 1 + n:]], 1)
    lm = model.model.language_model
    h = lm(inputs_embeds=x, attention_mask=bias, position_ids=positions, use_cache=False).last_hidden_state
    keep = labels != -100
    logits = h[keep] @ table.weight.T
    target, kind = labels[keep], kinds[keep]
    each = F.cross_entropy(logits, target, reduction="none")
    parts = {}
    with torch.no_grad():
        right = (logits.argmax(-1) == target).float()
        for name, k in (("box", BOX), ("absent", ABSENT), ("look", LOOK), ("point", POINT)):
            if (kind == k).any():
                parts[f"{name}_ce"] = each[kind == k].mean().item()
                parts[f"{name}_acc"] = right[kind == k].mean().item()
    return each.mean(), parts, logits.detach(), target, kind


def coordinate_error(logits, target, first: int) -> float:
    """Mean |argmax - truth| over coordinate tokens, in percent of the image side."""
    number = (target >= first) & (target <= first + SCALE)
    if not number.any():
        return 0.0
    got = logits[number][:, first:first + SCALE + 1].argmax(-1) + first
    return (got - target[number]).abs().float().mean().item() / SCALE * 100


def scenes_batch(stream, n: int):
    scenes = stream.take(n)
    fitted = [fit(s, SIDE, "squash") for s in scenes]
    maps = torch.stack([m for _, m in fitted])
    return scenes, pixels(torch.stack([i for i, _ in fitted])), maps


def train(args) -> None:
    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer(args.binary, args.assets)
    if args.resume:
        model = build(tokenizer, None)
        model.load_state_dict(torch.load(args.resume)["mllm"])
    else:
        trunk = Trunk(vision_config())
        trunk.load_state_dict(torch.load(args.trunk)["trunk"])
        model = build(tokenizer, trunk)
    trunk, projector = trunk_of(model), model.model.multi_modal_projector
    for p in trunk.parameters():
        p.requires_grad_(args.thaw)
    first = tokenizer.convert_tokens_to_ids("000")
    stream = SceneStream(args.binary, args.assets, "train", args.start, seed=args.seed + 200, kind="scenes", side=320,
                         expressions=args.expressions)

    def save(run, force=False):
        run.save({"mllm": model.state_dict()}, force)

    if not args.resume:
        heads, words = AlignHeads(), word_table(tokenizer, args.assets)
        run = optim.Run(args.out, "align", args.align_minutes, decay=0.3)
        opts = optim.optimisers([projector, heads, model.get_input_embeddings()], lr=args.lr, muon_lr=args.muon_lr)
        while run.schedule(opts):
            scenes, x, maps = scenes_batch(stream, 8)
            with torch.no_grad():
                h = trunk(x)
            t = dense_targets(maps, [[o["class"] for o in s.meta["objects"]] for s in scenes], SIDE)
            loss, parts = align_loss(model, heads, projector(h), t, words, first)
            optim.step(loss, opts, [*projector.parameters(), *heads.parameters(), *model.get_input_embeddings().parameters()])
            run.log(loss=loss.item(), **parts)
            save(run)
        save(run, True)

    run = optim.Run(args.out, "mllm", args.minutes)
    lm = model.model.language_model
    opts = optim.optimisers([lm, projector], lr=args.lr, muon_lr=args.muon_lr)
    if args.thaw:
        opts += optim.optimisers([trunk], lr=args.lr * 0.1, muon_lr=args.muon_lr * 0.1)
    packer = Packer(tokenizer, GRID * GRID, args.seed + args.start)
    params = [p for p in model.parameters() if p.requires_grad]
    while run.schedule(opts):
        scenes, x, _ = scenes_batch(stream, args.batch)
        with torch.set_grad_enabled(args.thaw):
            h = trunk(x)
        batch = collate([packer.pack(s, expressions=args.expressions, rounds=args.rounds) for s in scenes])
        loss, parts, logits, target, kind = text_loss(model, projector(h), *batch)
        optim.step(loss, opts, params)
        run.log(every=20, loss=loss.item(), off=coordinate_error(logits[kind == BOX], target[kind == BOX], first), **parts)
        save(run)
    save(run, True)
    stream.process.kill()
