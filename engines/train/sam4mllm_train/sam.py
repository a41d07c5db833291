"""Stage 2: a `SamModel` on the warm trunk: box and points in, mask and its IoU out.

The encoder stays frozen for the first part, while prompt encoder, neck and mask decoder find each other;
then everything is trained. All objects of a view share one encoding. A view is a whole scene, or with `--zoom` the
square around one object that the node cuts out for it (`[sam.zoom]` of the manifest).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig

from . import optim
from .half import halve
from .rows import Tensors
from .stream import APART, Scene, SceneStream, batches, fit, pixels
from .trunk import GRID, PATCH, SIDE, Trunk, vision_config

LOW = 4 * GRID
PROMPTS = 6
# What the node shows of a frame for a prompt: a square of so many longer sides of its box, and at least so many pixels.
ZOOM = {"factor": 2.2, "least_side": 32}
# Least visible pixels of an object, in the view, that a prompt may be about.
LEAST_AREA = 64


def config() -> SamConfig:
    v = vision_config()
    return SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=v.hidden_size, output_channels=128, num_hidden_layers=v.num_hidden_layers,
            num_attention_heads=v.num_attention_heads, image_size=SIDE, patch_size=PATCH, hidden_act="gelu",
            use_rel_pos=False, window_size=0, global_attn_indexes=[], mlp_dim=v.intermediate_size,
            num_pos_feats=64, layer_norm_eps=v.layer_norm_eps,
        ).to_dict(),
        prompt_encoder_config=SamPromptEncoderConfig(hidden_size=128, image_size=SIDE, patch_size=PATCH).to_dict(),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=128, mlp_dim=512, num_attention_heads=4, iou_head_hidden_dim=128,
        ).to_dict(),
    )


@torch.no_grad()
def from_trunk(trunk: Trunk) -> SamModel:
    """A `SamModel` whose encoder is the trunk; the prompt encoding is fixed, so that corners and tokens share it."""
    sam = SamModel(config())
    v = sam.vision_encoder
    v.patch_embed.projection.load_state_dict(trunk.embeddings.patch_embedding.state_dict())
    v.pos_embed.copy_(trunk.embeddings.position_embedding.weight.view(1, GRID, GRID, -1))
    for theirs, ours in zip(v.layers, trunk.encoder.layers, strict=True):
        a = ours.self_attn
        theirs.layer_norm1.load_state_dict(ours.layer_norm1.state_dict())
        theirs.layer_norm2.load_state_dict(ours.layer_norm2.state_dict())
        theirs.attn.qkv.weight.copy_(torch.cat([a.q_proj.weight, a.k_proj.weight, a.v_proj.weight]))
        theirs.attn.qkv.bias.copy_(torch.cat([a.q_proj.bias, a.k_proj.bias, a.v_proj.bias]))
        theirs.attn.proj.load_state_dict(a.out_proj.state_dict())
        theirs.mlp.lin1.load_state_dict(ours.mlp.fc1.state_dict())
        theirs.mlp.lin2.load_state_dict(ours.mlp.fc2.state_dict())
    sam.shared_image_embedding.positional_embedding.normal_(
        0, 0.6, generator=torch.Generator().manual_seed(7))
    sam.prompt_encoder.shared_embedding = sam.shared_image_embedding
    for e in [*sam.prompt_encoder.point_embed, sam.prompt_encoder.no_mask_embed, sam.mask_decoder.mask_tokens,
              sam.mask_decoder.iou_token]:
        e.weight.normal_(0, 0.5)
    for block in [*sam.mask_decoder.transformer.layers]:
        for attention in (block.cross_attn_token_to_image, block.cross_attn_image_to_token, block.self_attn):
            attention.k_proj.weight.copy_(attention.q_proj.weight)
    final = sam.mask_decoder.transformer.final_attn_token_to_image
    final.k_proj.weight.copy_(final.q_proj.weight)
    sam.shared_image_embedding.positional_embedding.requires_grad_(False)
    return sam


def zoomed(scene: Scene, zoom: tuple[float, float], rng: torch.Generator) -> Scene | None:
    """The square around one object of `scene`, `zoom[0]` to `zoom[1]` times as long as the object's longer side and a
    little off, inside the scene; `None` where no object is large enough."""
    large = [o["box"] for o in scene.meta["objects"] if o["area"] >= 24]
    if not large:
        return None
    x1, y1, x2, y2 = large[int(torch.randint(0, len(large), (), generator=rng))]
    h, w = scene.instances.shape
    longer = max(x2 - x1, y2 - y1)
    factor = zoom[0] + (zoom[1] - zoom[0]) * float(torch.rand((), generator=rng))
    side = int(min(max(longer * factor, ZOOM["least_side"]), h, w))
    off = torch.randn(2, generator=rng).clamp(-2, 2) * 0.08 * longer
    left = int(min(max((x1 + x2) / 2 + float(off[0]) - side / 2, 0), w - side))
    top = int(min(max((y1 + y2) / 2 + float(off[1]) - side / 2, 0), h - side))
    window = (slice(top, top + side), slice(left, left + side))
    return Scene(scene.image[window], scene.instances[window], scene.meta)


def views(scenes: list[Scene], zoom: tuple[float, float] | None, rng: torch.Generator) -> list[Scene]:
    """The scenes, or with `zoom` two zoomed views of each and now and then a whole one."""
    if zoom is None:
        return scenes
    whole = [s for s in scenes if float(torch.rand((), generator=rng)) < 0.12]
    return whole + [v for s in scenes for v in (zoomed(s, zoom, rng), zoomed(s, zoom, rng)) if v is not None]


def shown(instances: torch.Tensor) -> list[int]:
    """Numbers of the objects in the middle of a view's instance map u8[S, S] that are large enough to be asked about;
    of one that the view cuts off the node would have made another view."""
    edge = torch.cat([instances[0], instances[-1], instances[:, 0], instances[:, -1]]).unique().tolist()
    numbers, areas = instances.unique(return_counts=True)
    large = [n for n, a in zip(numbers.tolist(), areas.tolist(), strict=True) if 0 < n < 255 and a >= LEAST_AREA]
    return [n for n in large if n not in edge] or large


@dataclass
class Views(Tensors):
    """B views: pictures `images` u8[B, 3, S, S], instance `maps` u8[B, S, S], the objects `asked` about u8[B, P], and which
    views have any to ask about, `usable` bool[B]."""

    images: torch.Tensor
    maps: torch.Tensor
    asked: torch.Tensor
    usable: torch.Tensor


def rendered(args):
    """Views of fresh scenes, other ones in each worker. Zoomed ones are cut from sharp frames too, as a robot's camera gives
    them."""

    def make(worker: int):
        rng = torch.Generator().manual_seed(args.seed + 1000 + worker)
        streams = [SceneStream(args.binary, args.assets, "train", args.start + APART * worker, seed=args.seed + 100,
                               kind="scenes", side=side) for side in ((320, 640) if args.zoom else (320,))]
        while True:
            for stream in streams:
                fitted = [fit(s, SIDE, "letterbox") for s in views(stream.take(args.batch), args.zoom, rng)]
                maps = torch.stack([m for _, m in fitted])
                shuffled = [torch.tensor(n)[torch.randperm(len(n), generator=rng)] for n in map(shown, maps)]
                asked = torch.stack([(n if len(n) else torch.ones(1)).repeat(PROMPTS)[:PROMPTS] for n in shuffled])
                usable = torch.tensor([len(n) > 0 for n in shuffled])
                yield Views(torch.stack([i for i, _ in fitted]), maps, asked.to(torch.uint8), usable)

    return make


def prompts(maps: torch.Tensor, asked: torch.Tensor, rng: torch.Generator):
    """Prompts as the language model would give them: a box that is a little off, and points over it, on a 5 x 5 grid or
    anywhere, labelled almost as surely as the language model labels them.

    Returns boxes f32[B, P, 4], points f32[B, P, N, 2], labels i64[B, P, N], masks bool[B, P, S, S].
    """
    b, on = len(maps), {"generator": rng, "device": maps.device}
    masks = maps[:, None] == asked[..., None, None]
    rows, cols = masks.any(3).float(), masks.any(2).float()
    x1, y1 = cols.argmax(-1).float(), rows.argmax(-1).float()
    x2, y2 = SIDE - cols.flip(-1).argmax(-1).float(), SIDE - rows.flip(-1).argmax(-1).float()
    box = torch.stack([x1, y1, x2, y2], -1)
    side = torch.stack([x2 - x1, y2 - y1, x2 - x1, y2 - y1], -1)
    level = torch.tensor([0.0, 0.05, 0.05, 0.1, 0.15], device=maps.device)[torch.randint(0, 5, (b, PROMPTS, 1), **on)]
    noise = torch.randn(b, PROMPTS, 4, **on).clamp(-2, 2) * level * side
    box = (box + noise + torch.randn(b, PROMPTS, 4, **on) * 0.7).clamp(0, SIDE)
    n = int(torch.randint(0, 13, (), **on)) if torch.rand((), **on) < 0.6 else 0
    cell = torch.rand(b, PROMPTS, 25, **on).argsort(-1)[..., :n]
    fx, fy = (cell % 5 + 0.5) / 5, (cell // 5 + 0.5) / 5
    if torch.rand((), **on) < 0.5:
        fx, fy = torch.rand(2, *cell.shape, **on)
    px = box[..., 0:1] + fx * (box[..., 2:3] - box[..., 0:1])
    py = box[..., 1:2] + fy * (box[..., 3:4] - box[..., 1:2])
    xi, yi = px.long().clamp(0, SIDE - 1), py.long().clamp(0, SIDE - 1)
    flat = masks.flatten(2)
    labels = torch.gather(flat, 2, yi * SIDE + xi).long()
    flip = torch.rand(labels.shape, **on) < 0.06
    labels = torch.where(flip, 1 - labels, labels)
    return box, torch.stack([px, py], -1), labels, masks


def decode(sam: SamModel, embedding: torch.Tensor, box, points, labels, multimask: bool):
    sparse, dense = sam.prompt_encoder(
        input_points=points if points.shape[2] else None, input_labels=labels if points.shape[2] else None,
        input_boxes=box, input_masks=None)
    pe = sam.get_image_wide_positional_embeddings().repeat(len(embedding), 1, 1, 1)
    return sam.mask_decoder(embedding, pe, sparse, dense, multimask)[:2]


def mask_loss(logits: torch.Tensor, target: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
    """Dice + class-balanced cross-entropy, f32[..., L, L] each, on soft targets; negatives near the box count most."""
    p = logits.sigmoid()
    dice = 1 - (2 * (p * target).sum((-1, -2)) + 1) / ((p + target).sum((-1, -2)) + 1)
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    mean = lambda w: (bce * w).sum((-1, -2)) / w.sum((-1, -2)).clamp(min=1.0)  # noqa: E731
    return dice + mean(target) + mean((1 - target) * near) + 0.5 * mean((1 - target) * (1 - near))


@torch.no_grad()
def iou(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """IoU at the model's input resolution, where masks of small objects still mean something."""
    b, p, m = logits.shape[:3]
    up = F.interpolate(logits.flatten(0, 1), (SIDE, SIDE), mode="bilinear").view(b, p, m, SIDE, SIDE) > 0
    truth = masks[:, :, None]
    return (up & truth).sum((-1, -2)) / (up | truth).sum((-1, -2)).clamp(min=1)


def losses(sam: SamModel, embedding, some: Views, rng):
    box, points, labels, masks = prompts(some.maps, some.asked, rng)
    multimask = bool(torch.rand((), generator=rng, device=rng.device) < 0.75)
    logits, score = decode(sam, embedding, box, points, labels, multimask)
    b, p, m = logits.shape[:3]
    target = F.avg_pool2d(masks.flatten(0, 1)[:, None].float(), SIDE // LOW).view(b, p, 1, LOW, LOW).expand_as(logits)
    grown = (box[..., 2:] - box[..., :2]) * 0.4 + 6
    ax = (torch.arange(LOW, device=box.device) + 0.5) * (SIDE / LOW)
    inx = (ax > box[..., 0:1] - grown[..., 0:1]) & (ax < box[..., 2:3] + grown[..., 0:1])
    iny = (ax > box[..., 1:2] - grown[..., 1:2]) & (ax < box[..., 3:4] + grown[..., 1:2])
    near = (iny[..., :, None] & inx[..., None, :]).float()[:, :, None].expand_as(logits)
    each = mask_loss(logits, target, near)
    with torch.no_grad():
        actual = iou(logits, masks)
    best = each.min(-1).values + 0.1 * each.mean(-1)
    usable = some.usable
    loss = best[usable].mean() + 2.0 * F.mse_loss(score[usable], actual[usable])
    chosen = actual.gather(-1, score.argmax(-1, keepdim=True))[..., 0][usable]
    return loss, {"mask": best[usable].mean(), "miou": chosen.mean(), "p75": (chosen > 0.75).float().mean(),
                  "score_err": (score - actual)[usable].abs().mean()}


def train(args) -> None:
    torch.manual_seed(args.seed)
    rng = torch.Generator(args.device).manual_seed(args.seed)
    trunk = Trunk(vision_config())
    if args.resume:
        sam = from_trunk(trunk)
        sam.load_state_dict(torch.load(args.resume)["sam"])
    else:
        trunk.load_state_dict(torch.load(args.trunk)["trunk"])
        sam = from_trunk(trunk)
    del trunk
    halve(args.device, sam)
    sam.to(args.device)
    drawn = batches(rendered(args), args.workers)
    run = optim.Run(args.out, "sam", args.minutes, args.decay)
    neck = sam.vision_encoder.neck
    frozen = [p for n, p in sam.vision_encoder.named_parameters() if not n.startswith("neck")]
    free = [neck, sam.prompt_encoder, sam.mask_decoder]
    opts = optim.optimisers(free, lr=args.lr, muon_lr=args.muon_lr)
    thawed = optim.optimisers([sam.vision_encoder], lr=args.lr * 0.3, muon_lr=args.muon_lr * 0.3, skip=("neck",))
    for p in frozen:
        p.requires_grad_(False)
    thaw_at = 0.0 if args.resume else args.freeze_share
    cold = True
    while run.schedule(opts + thawed):
        if cold and run.progress >= thaw_at:
            for p in frozen:
                p.requires_grad_(True)
            cold = False
        some = next(drawn).to(args.device)
        embedding = sam.vision_encoder(pixels(some.images, some.maps == 255)).last_hidden_state
        loss, parts = losses(sam, embedding, some, rng)
        active = opts if cold else opts + thawed
        optim.step(loss, active, [p for p in sam.parameters() if p.requires_grad])
        run.log(loss=loss.item(), **{k: v.item() for k, v in parts.items()})
        run.save({"sam": sam.state_dict()})
    run.save({"sam": sam.state_dict()}, force=True)
