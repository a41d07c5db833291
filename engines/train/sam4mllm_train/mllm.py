"""Stage 3: the language model, a `LlavaForConditionalGeneration` on the warm trunk.

`align` teaches the projector to write, in the decoder's own word and number embeddings, what each image token
sees; `text` then trains decoder and projector by next-token cross-entropy on the assistant's tokens alone.
Source of the dialogue form and the loss: arXiv 2409.10542, section 3.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

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
        # Long waves weigh most: the nearest peak is then never far, and a coordinate is almost linear in the state.
        length = torch.logspace(math.log10(4.0), math.log10(0.1), 12)
        weight = length.pow(0.4) / length.pow(0.8).sum().sqrt()
        angle = values[:, None] * (2 * math.pi / length)
        phi = torch.cat([angle.sin() * weight, angle.cos() * weight], 1)
        basis = torch.linalg.qr(torch.randn(DIM, 24))[0]
        first = tokenizer.convert_tokens_to_ids("000")
        table[first:first + SCALE + 1] = phi @ basis.T
        for layer in model.model.language_model.layers:
            # Attention starts as looking up what is alike, sharply, and copying it as it is.
            a, turn = layer.self_attn, torch.linalg.qr(torch.randn(DIM, DIM))[0]
            a.k_proj.weight.copy_(a.q_proj.weight.normal_(0, 1.6 / math.sqrt(DIM)))
            a.v_proj.weight.copy_(turn)
            a.o_proj.weight.copy_(0.5 * turn.T)
            layer.mlp.down_proj.weight.mul_(0.5)
        model.model.multi_modal_projector.linear_2.weight.mul_(0.2)
        if trunk is not None:
            tower = model.model.vision_tower
            tower = getattr(tower, "vision_model", tower)
            tower.embeddings.load_state_dict(trunk.embeddings.state_dict())
            tower.encoder.load_state_dict(trunk.encoder.state_dict())
            rescale(tower, 1 / 18)
    return model


def rescale(tower, factor: float) -> None:
    """Scales the residual stream, and so the features, by `factor`: the pre-norm blocks compute the same.

    The trunk's features end at 18 a dimension; with them a step of the projector is 18 times as long as it looks,
    and dialogue training tears down in a minute what alignment has built.
    """
    writers = [tower.embeddings.patch_embedding]
    for layer in tower.encoder.layers:
        writers += [layer.self_attn.out_proj, layer.mlp.fc2]
    for module in writers:
        module.weight.mul_(factor)
        module.bias.mul_(factor)
    tower.embeddings.position_embedding.weight.mul_(factor)


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
        self.sharpness = nn.Parameter(torch.full((6,), 1.5))


# Kinds that people do not say as the table writes them.
SPOKEN = {"home": "household", "electronics": "electronic"}


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
    for m, v, sharpness in zip(heads.maps, values, heads.sharpness):
        logits = sharpness * normed(m(z[o])) @ numbers.T
        target = (v / SIDE * SCALE).round().clamp(0, SCALE).long()
        where = where + F.cross_entropy(logits, target)
        error = error + (logits.argmax(-1) - target).abs().float().mean().item() / 6
    norm = (z.norm(dim=-1) - 1.5).square().mean()
    with torch.no_grad():
        best = (normed(z[o]) @ table.T).argmax(-1)
        acc = (words[label[o]].gather(1, best[:, None]) > 0).float().mean().item()
    return name + 0.25 * where + norm, {"name": name.item(), "where": where.item() / 6, "acc": acc, "off": error}


ROW = 96


@dataclass
class Rows:
    """Token trees cut into rows: whole dialogues, several to a row, each row behind its scene's image prefix.

    ids, labels, kinds, positions i64[N, R]; bias f32[N, 1, R, P + R], additive; scene i64[N].
    """

    ids: torch.Tensor
    labels: torch.Tensor
    kinds: torch.Tensor
    positions: torch.Tensor
    bias: torch.Tensor
    scene: torch.Tensor


def collate(packed) -> Rows:
    """First-fit packing of each scene's dialogues into rows; a dialogue never leaves its row."""
    prefix = packed[0].ends[0]
    rows: list[tuple[int, np.ndarray]] = []
    for scene, p in enumerate(packed):
        segments = np.array(p.segments)
        top = np.array([min(a - {0}, default=0) for a in p.ancestors])[segments]
        bins: list[list[np.ndarray]] = []
        groups = [np.flatnonzero(top == g) for g in np.unique(top) if g]
        for group in sorted(groups, key=len, reverse=True):
            home = next((b for b in bins if sum(map(len, b)) + len(group) <= ROW), None)
            if home is None:
                bins.append(home := [])
            home.append(group)
        rows += [(scene, np.concatenate(b)) for b in bins]
    width = max(len(r) for _, r in rows)
    shape = (len(rows), width)
    columns = {name: np.zeros(shape, np.int64) for name in ("tokens", "kinds", "positions")}
    columns["labels"] = np.full(shape, -100, np.int64)
    mask = np.zeros((len(rows), width, prefix + width), bool)
    mask[:, np.arange(width), prefix + np.arange(width)] = True
    for i, (scene, at) in enumerate(rows):
        n = len(at)
        for name, column in columns.items():
            column[i, :n] = np.array(getattr(packed[scene], name))[at]
        mask[i, :n, :prefix] = True
        mask[i, :n, prefix:prefix + n] = packed[scene].sees(at)
    bias = torch.zeros(mask.shape).masked_fill_(~torch.from_numpy(mask), -1e9)[:, None]
    c = {k: torch.from_numpy(v) for k, v in columns.items()}
    return Rows(c["tokens"], c["labels"], c["kinds"], c["positions"], bias, torch.tensor([s for s, _ in rows]))


def decoder(lm, prefix: torch.Tensor, x: torch.Tensor, rows: Rows, seen: torch.Tensor | None = None) -> torch.Tensor:
    """The Llama decoder over image prefixes f32[B, P, D] and dialogue rows f32[N, R, D]; returns the rows' states.

    The same arithmetic as the model's own forward with one long masked sequence, without attending to what the
    mask hides: rows see their scene's prefix and themselves. The prefix ends in the last layer's keys.
    With `seen` i64[B, K], only those image tokens of the prefix exist; they keep their positions.
    """
    b, p, _ = prefix.shape
    at, bias = torch.arange(p)[None].expand(b, -1), rows.bias
    if seen is not None:
        at = torch.cat([torch.zeros(b, 1, dtype=torch.long), seen + 1], 1)
        prefix = prefix.gather(1, at[..., None].expand(-1, -1, prefix.shape[-1]))
        bias = torch.cat([bias[..., :at.shape[1]], bias[..., p:]], -1)
    heads = lambda t: t.view(*t.shape[:2], -1, lm.layers[0].self_attn.head_dim).transpose(1, 2)  # noqa: E731
    spin_p = lm.rotary_emb(prefix, at)
    spin_r = lm.rotary_emb(x, rows.positions)
    for i, layer in enumerate(lm.layers):
        a, last = layer.self_attn, i == len(lm.layers) - 1
        hp, hr = layer.input_layernorm(prefix), layer.input_layernorm(x)
        qp, kp = apply_rotary_pos_emb(heads(a.q_proj(hp)) if not last else heads(a.k_proj(hp)), heads(a.k_proj(hp)), *spin_p)
        qr, kr = apply_rotary_pos_emb(heads(a.q_proj(hr)), heads(a.k_proj(hr)), *spin_r)
        vp, vr = heads(a.v_proj(hp)), heads(a.v_proj(hr))
        k, v = torch.cat([kp[rows.scene], kr], 2), torch.cat([vp[rows.scene], vr], 2)
        out = F.scaled_dot_product_attention(qr, k, v, attn_mask=bias)
        x = x + a.o_proj(out.transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
        if not last:
            out = F.scaled_dot_product_attention(qp, kp, vp, is_causal=True)
            prefix = prefix + a.o_proj(out.transpose(1, 2).flatten(2))
            prefix = prefix + layer.mlp(layer.post_attention_layernorm(prefix))
    return lm.norm(x)


STARTS: list[int] = []


def text_loss(model, z, first: int, rows: Rows, seen: torch.Tensor | None = None):
    """Cross-entropy on the assistant's tokens; `first` is the id of "<s>", which stands before the image tokens z."""
    table = model.get_input_embeddings()
    start = table(torch.tensor([[first]])).expand(len(z), -1, -1)
    h = decoder(model.model.language_model, torch.cat([start, z], 1), table(rows.ids), rows, seen)
    keep = rows.labels != -100
    logits = h[keep] @ table.weight.T
    target, kind = rows.labels[keep], rows.kinds[keep]
    each = F.cross_entropy(logits, target, reduction="none")
    parts = {}
    with torch.no_grad():
        right = (logits.argmax(-1) == target).float()
        for name, k in (("box", BOX), ("absent", ABSENT), ("look", LOOK), ("point", POINT)):
            if (kind == k).any():
                parts[f"{name}_ce"] = each[kind == k].mean().item()
                parts[f"{name}_acc"] = right[kind == k].mean().item()
        # Whether the first word already says "there" or "not there".
        starts = [(target == t) & ((kind == BOX) | (kind == ABSENT)) for t in STARTS]
        parts["there"], parts["not_there"] = (right[m].mean().item() if m.any() else 0.0 for m in starts)
    return each.mean(), parts, logits.detach(), target, kind


def coordinate_error(logits, target, first: int) -> float:
    """Mean |argmax - truth| over coordinate tokens, in percent of the image side."""
    number = (target >= first) & (target <= first + SCALE)
    if not number.any():
        return 0.0
    got = logits[number][:, first:first + SCALE + 1].argmax(-1) + first
    return (got - target[number]).abs().float().mean().item() / SCALE * 100


class Replay:
    """Scenes with the frozen trunk's features of them: each is computed once and seen several times.

    The trunk costs a third of a step; the words of a scene are drawn anew each time.
    """

    def __init__(self, stream, trunk: Trunk, capacity: int):
        self.stream, self.trunk, self.capacity = stream, trunk, capacity
        self.items: list[tuple] = []
        self.at = 0

    @torch.no_grad()
    def add(self, n: int) -> None:
        scenes = self.stream.take(n)
        fitted = [fit(s, SIDE, "squash") for s in scenes]
        features = self.trunk(pixels(torch.stack([i for i, _ in fitted]))).half()
        for scene, (_, instances), h in zip(scenes, fitted, features):
            scene.image = None
            item = (scene, instances, h.clone())
            if len(self.items) < self.capacity:
                self.items.append(item)
            else:
                self.items[self.at] = item
                self.at = (self.at + 1) % self.capacity

    def draw(self, n: int, rng: random.Random):
        chosen = rng.sample(self.items, n)
        return [c[0] for c in chosen], torch.stack([c[1] for c in chosen]), torch.stack([c[2] for c in chosen]).float()


def sparse(maps: torch.Tensor, per_object: int, background: int, rng: random.Random) -> torch.Tensor:
    """Picks image tokens, i64[B, K]: some of each object's, some of the background; the same number for each scene.

    Finding one's token among few is learned much sooner than among 256, and carries over.
    """
    cells = maps[:, PATCH // 2::PATCH, PATCH // 2::PATCH].flatten(1)
    chosen = []
    for row in cells.tolist():
        by_object: dict[int, list[int]] = {}
        for i, v in enumerate(row):
            by_object.setdefault(v, []).append(i)
        pick = [i for v, at in by_object.items() if v for i in rng.sample(at, min(per_object, len(at)))]
        rest = by_object.get(0, [0])
        pick += rng.sample(rest, min(background, len(rest)))
        chosen.append(pick)
    k = min(map(len, chosen))
    return torch.tensor([sorted(rng.sample(c, k)) for c in chosen])


def align(args, model, replay: Replay, tokenizer, run, rng) -> None:
    """Projector and embeddings alone, on stored features."""
    projector, heads, words = model.model.multi_modal_projector, AlignHeads(), word_table(tokenizer, args.assets)
    first = tokenizer.convert_tokens_to_ids("000")
    opts = optim.optimisers([projector, heads, model.get_input_embeddings()], lr=args.lr, muon_lr=args.muon_lr)
    params = [*projector.parameters(), *heads.parameters(), *model.get_input_embeddings().parameters()]
    while run.schedule(opts):
        if rng.random() < 0.25:
            replay.add(1)
        scenes, maps, h = replay.draw(8, rng)
        t = dense_targets(maps, [[o["class"] for o in s.meta["objects"]] for s in scenes], SIDE)
        loss, parts = align_loss(model, heads, projector(h), t, words, first)
        optim.step(loss, opts, params)
        run.log(loss=loss.item(), **parts)


def train(args) -> None:
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed + args.start)
    tokenizer = build_tokenizer(args.binary, args.assets)
    if args.resume:
        model = build(tokenizer, None)
        state = torch.load(args.resume)["mllm"]
        if args.fresh_decoder:
            state = {k: v for k, v in state.items() if ".language_model.layers." not in k}
        model.load_state_dict(state, strict=not args.fresh_decoder)
    else:
        trunk = Trunk(vision_config())
        trunk.load_state_dict(torch.load(args.trunk)["trunk"])
        model = build(tokenizer, trunk)
    trunk, projector = trunk_of(model), model.model.multi_modal_projector
    for p in trunk.parameters():
        p.requires_grad_(False)
    first = tokenizer.convert_tokens_to_ids("000")
    STARTS[:] = tokenizer.convert_tokens_to_ids(["[", "no"])
    stream = SceneStream(args.binary, args.assets, "train", args.start, seed=args.seed + 200, kind="scenes", side=320,
                         expressions=2 * args.expressions)
    replay = Replay(stream, trunk, args.replay)
    while len(replay.items) < min(args.replay, 1200):
        replay.add(16)
    if args.align_minutes > 0:
        run = optim.Run(args.out, "align", args.align_minutes, decay=0.4)
        align(args, model, replay, tokenizer, run, rng)
    run = optim.Run(args.out, "mllm", args.minutes)
    lm = model.model.language_model
    # What alignment has built moves slowly; the blocks have everything to learn.
    table = model.get_input_embeddings()
    opts = optim.optimisers([projector, table], lr=args.lr * 0.1, muon_lr=args.muon_lr * 0.05)
    opts += optim.optimisers([lm], lr=args.lr, muon_lr=args.muon_lr, skip=("embed_tokens",))
    with open(f"{args.assets}/objects.csv", encoding="utf-8") as rows:
        names = [row.split(",")[0].replace("-", "") for row in rows][1:]
    packer = Packer(tokenizer, names, GRID * GRID, args.seed + args.start)
    params = [p for p in model.parameters() if p.requires_grad]
    while run.schedule(opts):
        few = run.progress < args.sparse_share
        if rng.random() < (0.25 if few else 1.0):
            replay.add(1 if few else args.batch // 4)
        scenes, maps, h = replay.draw(args.batch, rng)
        seen = sparse(maps, rng.choice([1, 2, 4]), rng.choice([2, 12]), rng) if few else None
        plain = run.progress < args.plain_share
        batch = collate([packer.pack(s, args.expressions, 0 if plain else args.rounds, args.points, args.looks, plain)
                         for s in scenes])
        loss, parts, logits, target, kind = text_loss(model, projector(h), tokenizer.bos_token_id, batch, seen)
        optim.step(loss, opts, params)
        run.log(every=20, loss=loss.item(), off=coordinate_error(logits[kind == BOX], target[kind == BOX], first),
                **parts)
        run.save({"mllm": model.state_dict()})
    run.save({"mllm": model.state_dict()}, True)
    stream.process.kill()
