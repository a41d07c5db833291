"""Stage 1: one vision trunk for both models.

SAM's image encoder and the language model's vision tower are the same pre-norm ViT, so their blocks are
trained once, on dense targets that every image token can answer for its own cell: which object is it, where
is that object's box, and which of the cell's 4 x 4 sub-cells belong to it. Small images with one object come
first (16 times cheaper a picture), whole scenes after. The heads are dropped afterwards.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import SiglipVisionConfig, SiglipVisionModel

from . import optim
from .stream import SceneStream, fit, pixels

SIDE, PATCH, SUB = 256, 16, 4
GRID = SIDE // PATCH
CLASSES = 121


def vision_config() -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=192, intermediate_size=768, num_hidden_layers=6, num_attention_heads=6, image_size=SIDE,
        patch_size=PATCH, hidden_act="gelu", vision_use_head=False, layer_norm_eps=1e-6,
    )


def sincos(grid: int, dim: int) -> torch.Tensor:
    """2-D sine-cosine position embedding, f32[grid * grid, dim]."""
    pos = torch.arange(grid).float()
    freq = torch.exp(-math.log(100.0) * torch.arange(dim // 4) / (dim // 4))
    angle = pos[:, None] * freq
    one = torch.cat([angle.sin(), angle.cos()], 1)
    y, x = one[:, None].expand(-1, grid, -1), one[None].expand(grid, -1, -1)
    return torch.cat([x, y], -1).reshape(grid * grid, dim)


class Trunk(nn.Module):
    """The ViT; `forward` takes f32[B, 3, S, S] of any side S that the patch divides."""

    def __init__(self, config: SiglipVisionConfig):
        super().__init__()
        self.vision = SiglipVisionModel(config)
        model = getattr(self.vision, "vision_model", self.vision)
        self.embeddings, self.encoder = model.embeddings, model.encoder
        with torch.no_grad():
            self.embeddings.position_embedding.weight.copy_(0.3 * sincos(GRID, config.hidden_size))
            for layer in self.encoder.layers:
                layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)
                layer.self_attn.out_proj.weight.mul_(0.3)
                layer.mlp.fc2.weight.mul_(0.3)

    @torch.no_grad()
    def whiten(self, patches: torch.Tensor) -> None:
        """Starts the patch embedding at the principal components of real patches f32[N, 3 * P * P], whitened."""
        w = self.embeddings.patch_embedding.weight
        mean = patches.mean(0)
        _, s, v = torch.linalg.svd(patches - mean, full_matrices=False)
        n = w.shape[0]
        scale = 1.0 / (s[:n] / math.sqrt(len(patches)) + 0.05)
        rows = v[:n] * scale[:, None] * 0.5
        w.copy_(rows.reshape(w.shape))
        self.embeddings.patch_embedding.bias.copy_(-(rows @ mean))

    def forward(self, x: torch.Tensor, corner: tuple[int, int] = (0, 0)) -> torch.Tensor:
        h = self.embeddings.patch_embedding(x)
        g = h.shape[-1]
        pos = self.embeddings.position_embedding.weight.view(GRID, GRID, -1)
        pos = pos[corner[0]:corner[0] + g, corner[1]:corner[1] + g].reshape(1, g * g, -1)
        h = h.flatten(2).transpose(1, 2) + pos
        for layer in self.encoder.layers:
            h = layer(h, None)
            h = h[0] if isinstance(h, tuple) else h
        return h


class DenseHeads(nn.Module):
    """Per token: class (background last), box (left, top, right, bottom of the object from the cell's centre), sub-cells,
    and the place: cell centre and box in the whole image. Without the last a token forgets where it is, for everything
    else can be told relative to it; the language model has to say where.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, CLASSES + 1 + 4 + SUB * SUB + SUB * SUB)
        self.place = nn.Linear(dim, 6)

    def forward(self, h: torch.Tensor):
        h = self.norm(h)
        return *self.head(h).split([CLASSES + 1, 4, SUB * SUB, SUB * SUB], -1), self.place(h)


def cells(instances: torch.Tensor, n: int):
    """u8[B, S, S] instance maps of up to `n` objects to one map an object f32[B, n, S, S], the shares of its sub-cells
    f32[B, n, 4 G, 4 G], and of each cell the object that covers most of it i64[B, G, G] and whether that is too little."""
    ids = torch.arange(1, n + 1, dtype=torch.uint8)
    onehot = (instances[:, None] == ids[None, :, None, None]).float()
    sub = F.avg_pool2d(onehot, PATCH // SUB)
    share, owner = F.avg_pool2d(sub, SUB).max(1)
    return onehot, sub, owner, share < 0.15


def dense_targets(instances: torch.Tensor, classes: list[list[int]], side: int, corner=(0, 0)) -> dict[str, torch.Tensor]:
    """u8[B, S, S] instance maps to per-cell targets; a cell belongs to the object that covers most of it, from 15 %.

    `corner` is the grid row and column at which a smaller image lies in the whole one.
    """
    b, g = len(instances), side // PATCH
    n = max(len(c) for c in classes)
    onehot, sub, owner, empty = cells(instances, n)
    table = torch.full((b, n), CLASSES)
    for i, c in enumerate(classes):
        table[i, :len(c)] = torch.tensor(c)
    label = torch.gather(table, 1, owner.flatten(1)).view(b, g, g)
    label[empty] = CLASSES
    padded = F.avg_pool2d((instances == 255).float()[:, None], PATCH)[:, 0] > 0.5
    label[padded] = -100
    own = torch.gather(sub.view(b, n, g, SUB, g, SUB), 1,
                       owner.view(b, 1, g, 1, g, 1).expand(b, 1, g, SUB, g, SUB))[:, 0]
    own = own.permute(0, 1, 3, 2, 4).reshape(b, g, g, SUB * SUB)
    any_object = sub.sum(1).view(b, g, SUB, g, SUB).permute(0, 1, 3, 2, 4).reshape(b, g, g, SUB * SUB)
    rows, cols = onehot.amax(3), onehot.amax(2)
    first = lambda m: m.argmax(-1).float()  # noqa: E731
    last = lambda m: side - m.flip(-1).argmax(-1).float()  # noqa: E731
    boxes = torch.stack([first(cols), first(rows), last(cols), last(rows)], -1)
    box = torch.gather(boxes, 1, owner.flatten(1)[..., None].expand(-1, -1, 4)).view(b, g, g, 4)
    centre = (torch.arange(g) + 0.5) * PATCH
    cy, cx = torch.meshgrid(centre, centre, indexing="ij")
    ltrb = torch.stack([cx - box[..., 0], cy - box[..., 1], box[..., 2] - cx, box[..., 3] - cy], -1) / 64.0
    shift = torch.tensor([corner[1], corner[0]] * 3) * PATCH
    place = (torch.cat([torch.stack([cx, cy], -1).expand(b, g, g, 2), box], -1) + shift) / SIDE
    return {"label": label.flatten(1), "place": place.flatten(1, 2), "ltrb": ltrb.flatten(1, 2), "own": own.flatten(1, 2), "fg": any_object.flatten(1, 2),
            "object": (~empty & ~padded).flatten(1), "valid": (~padded).flatten(1)}


def dense_loss(heads: DenseHeads, h: torch.Tensor, t: dict[str, torch.Tensor]):
    cls, ltrb, own, fg, place = heads(h)
    weight = torch.ones(CLASSES + 1)
    weight[CLASSES] = 0.2
    name = F.cross_entropy(cls.flatten(0, 1), t["label"].flatten(), weight=weight, label_smoothing=0.05)
    o = t["object"]
    box = F.smooth_l1_loss(ltrb[o], t["ltrb"][o], beta=0.05)
    mask = F.binary_cross_entropy_with_logits(own[o], t["own"][o])
    ground = F.binary_cross_entropy_with_logits(fg[t["valid"]], t["fg"][t["valid"]])
    with torch.no_grad():
        acc = (cls.argmax(-1) == t["label"])[o].float().mean()
        error = (ltrb[o] - t["ltrb"][o]).abs().mean() * 64.0
    where = F.smooth_l1_loss(place[o], t["place"][o], beta=0.01)
    return name + 2.0 * box + mask + ground + 8.0 * where, {"off": (place[o] - t["place"][o]).abs().mean() * 100, "name": name, "acc": acc, "box_px": error, "own": mask, "fg": ground}


def batch(scenes, side: int, rng: torch.Generator):
    """Fits each scene either way, since the two models fit their frames differently."""
    images, maps = [], []
    for s in scenes:
        mode = "squash" if torch.rand((), generator=rng) < 0.5 else "letterbox"
        image, instances = fit(s, side, mode)
        images.append(image)
        maps.append(instances)
    maps = torch.stack(maps)
    return pixels(torch.stack(images), maps == 255), maps, [[o["class"] for o in s.meta["objects"]] for s in scenes]


def train(args) -> None:
    torch.manual_seed(args.seed)
    rng = torch.Generator().manual_seed(args.seed)
    trunk, heads = Trunk(vision_config()), None
    heads = DenseHeads(192)
    run = optim.Run(args.out, "trunk", args.minutes, decay=0.3)
    if args.resume:
        state = torch.load(args.resume)
        trunk.load_state_dict(state["trunk"])
        # A trunk that was taken from a bundle comes without its heads; they are learned anew in minutes.
        heads.load_state_dict(state.get("heads", {}), strict=False)
    opts = optim.optimisers([trunk, heads], lr=args.lr, muon_lr=args.muon_lr)
    params = [*trunk.parameters(), *heads.parameters()]
    stages = [("crops", 64, 96, args.crop_share), ("scenes", SIDE, 6, 1.0)]
    first = not args.resume
    for kind, side, size, until in stages:
        if run.progress >= until:
            continue
        options = dict(kind=kind, side=64 if kind == "crops" else 320)
        stream = SceneStream(args.binary, args.assets, "train", args.start, seed=args.seed, **options)
        while run.progress < until and run.schedule(opts):
            x, maps, classes = batch(stream.take(size), side, rng)
            if first:
                p = F.unfold(x, PATCH, stride=PATCH).transpose(1, 2).reshape(-1, 3 * PATCH * PATCH)
                trunk.whiten(p[:4000])
                first = False
            g = side // PATCH
            corner = tuple(torch.randint(0, GRID - g + 1, (2,), generator=rng).tolist())
            loss, parts = dense_loss(heads, trunk(x, corner), dense_targets(maps, classes, side, corner))
            optim.step(loss, opts, params)
            run.log(pictures=size, loss=loss.item(), **{k: v.item() for k, v in parts.items()})
            run.save({"trunk": trunk.state_dict(), "heads": heads.state_dict()})
        stream.process.kill()
    run.save({"trunk": trunk.state_dict(), "heads": heads.state_dict()}, force=True)
