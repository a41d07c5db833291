"""Stage 3: dialogue. Commands to boxes or to "no such object", points to yes and no.

The loss is next-token cross-entropy on the assistant's tokens (arXiv 2409.10542, section 3). While the decoder is
young it is also told where to look (`mllm.LOOKUP` and what follows it), without which it stays at the answers' prior.
Four phases: `sparse` shows a few image tokens of each object, from stored features or, `--live`, from fresh scenes;
`full` shows all of them; `tower` trains tower and projector on alignment alone; `whole` trains everything.
"""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F

from . import general, optim
from .align import AlignHeads, align_loss, soft_numbers, targets, word_table
from .dialogue import ABSENT, BOX, LOOK, PLAIN, POINT, SCALE, TYPES, build_tokenizer
from .draw import TOKENS, Drawn, draw, packer_of, rendered
from .features import Store
from .half import halve
from .mllm import FEATURE_SCALE, GAZE, HOP, LOOKUP, READ, build, decoder, prefix_of, trunk_of, writers_of
from .rows import Rows, gaze_targets, hop_targets
from .stream import SceneStream, batches, pixels
from .trunk import Trunk, vision_config


def with_new_words(state: dict, model) -> dict:
    """A checkpoint's weights with rows as `model` has them for words that came later."""
    for name, own in model.state_dict().items():
        if name.endswith(("embed_tokens.weight", "lm_head.weight")) and len(state[name]) < len(own):
            state[name] = torch.cat([state[name], own[len(state[name]):]])
    return state


class Trainer:
    """The model with all that its loss needs."""

    def __init__(self, args):
        self.args, self.rng = args, random.Random(args.seed + args.start)
        self.tokenizer = build_tokenizer(args.binary, args.assets)
        self.first = self.tokenizer.convert_tokens_to_ids("000")
        self.heads = AlignHeads()
        trunk = Trunk(vision_config())
        trunk.load_state_dict(torch.load(args.trunk)["trunk"])
        self.model = build(self.tokenizer, trunk)
        if args.resume:
            state = torch.load(args.resume)
            if args.tower:
                seen = torch.load(args.tower)["mllm"].items()
                state["mllm"] |= {k: v for k, v in seen if "vision_tower" in k or "multi_modal_projector" in k}
            self.model.load_state_dict(with_new_words(state["mllm"], self.model))
            # A checkpoint that was taken from a bundle comes without these; alignment learns them anew.
            self.heads.load_state_dict(state.get("heads", self.heads.state_dict()))
        words = word_table(self.tokenizer, args.assets)
        self.packer = packer_of(args, self.tokenizer, words, args.seed + args.start)
        halve(args.device, self.model.model.language_model, self.model.model.vision_tower)
        self.model.to(args.device), self.heads.to(args.device)
        self.words = words.to(args.device)
        self.projector = self.model.model.multi_modal_projector
        self.trunk = trunk_of(self.model)

    def alignment(self, drawn: Drawn, z: torch.Tensor, share: float = 1.0):
        """Alignment's loss on a `share` of the image tokens z f32[B, 256, D], and its parts."""
        return align_loss(self.model, self.heads, z, drawn.label, drawn.place, self.words, self.first, share)

    def tokens(self, drawn: Drawn) -> torch.Tensor:
        """Image tokens f32[B, 256, D]."""
        return self.projector(self.trunk(pixels(drawn.images)) if drawn.features is None else drawn.features)

    def loss(self, drawn: Drawn, gaze_weight: float, align_weight: float):
        z, owner, rows = self.tokens(drawn), drawn.owner, drawn.rows
        total, parts = 0.0, {}
        if align_weight:
            align, said = self.alignment(drawn, z, 0.2)
            total, parts = align_weight * align, {"name_acc": said["acc"], "name_off": said["off"]}
        at = torch.arange(TOKENS + 1, device=z.device)[None].expand(len(z), -1)
        if drawn.seen is not None:
            z = z.gather(1, drawn.seen[..., None].expand(-1, -1, z.shape[-1]))
            owner, at = owner.gather(1, drawn.seen), F.pad(drawn.seen + 1, (1, 0))
        state, gazes = self.decode(z, rows, at)
        answer, said = self.answer_loss(state, rows)
        parts |= said
        total = total + answer
        if gaze_weight:
            look, said = self.gaze_loss(gazes, rows, owner, at)
            parts |= said
            total = total + gaze_weight * look
        return total, parts

    def decode(self, z, rows: Rows, at):
        """Image tokens z f32[B, K, D] at `at` i64[B, K + 1], "<s>" included, and rows through the decoder."""
        prefix = prefix_of(self.model, z, self.tokenizer.bos_token_id)
        return decoder(self.model.model.language_model, prefix, self.model.get_input_embeddings()(rows.ids), rows, at)

    def state(self) -> dict:
        """What a checkpoint holds."""
        return {"mllm": self.model.state_dict(), "heads": self.heads.state_dict()}

    def answer_loss(self, state, rows: Rows):
        keep = rows.labels != -100
        log_p = (state[keep] @ self.model.get_input_embeddings().weight.T).log_softmax(-1)
        target, kind, weight = rows.labels[keep], rows.kinds[keep], rows.weights[keep]
        each = -log_p.gather(1, target[:, None])[:, 0]
        number = (target >= self.first) & (target <= self.first + SCALE)
        hard = each.detach()
        if not self.args.hard:
            soft = soft_numbers(log_p[number][:, self.first:self.first + SCALE + 1], target[number] - self.first)
            each = each.masked_scatter(number, soft)
        loss = (each * weight).sum() / weight.sum()
        with torch.no_grad():
            best = log_p.argmax(-1)
            off = (best - target).abs().float()[number & (kind == BOX)].clamp(max=SCALE).mean().item() / SCALE * 100
            parts = {"loss": loss.item(), "off": off}
            right = (best == target).float()
            first = {"there": (target == self.tokenizer.convert_tokens_to_ids("[")) & (kind == BOX) & (weight > 1.2),
                     "not_there": (kind == ABSENT) & (weight > 1.2), "point": kind == POINT, "look": (kind == LOOK) & (weight > 0.2)}
            parts |= {k: right[m].mean().item() for k, m in first.items() if m.any()}
            parts |= {"point_ce": hard[kind == POINT].mean().item()} if (kind == POINT).any() else {}
        return loss, parts

    def gaze_loss(self, gazes, rows: Rows, owner, at):
        """Minus the log of the attention that falls where it should, over the tokens that are told."""
        aim, hop = gaze_targets(rows, owner, at), hop_targets(rows)
        answers = (rows.weights > 0)[..., None]
        measures = ((rows.labels >= self.first) & (rows.labels <= self.first + SCALE) | (rows.kinds >= POINT))[..., None]
        at_image = lambda m: F.pad(m, (0, rows.ids.shape[1]))  # noqa: E731
        total, parts = 0.0, {}
        for name, layer, aims in (("lookup", LOOKUP, at_image(aim & ~answers)),
                                  ("hop", HOP, F.pad(hop, (at.shape[1], 0))),
                                  ("gaze", GAZE, at_image(aim & answers)),
                                  ("read", READ, at_image(aim & answers & measures))):
            told = aims.any(-1)
            logits, aims = gazes[layer].transpose(1, 2)[told], aims[told][:, None]
            miss = logits.logsumexp(-1) - logits.masked_fill(~aims, -1e9).logsumexp(-1)
            total = total + miss.mean()
            parts[name] = (-miss.detach()).exp().mean().item()
        return total, parts

    @torch.no_grad()
    def check(self, scenes) -> None:
        """Prints, teacher-forced: the shares of right verdicts, and the mean IoU of the first box by expression type."""
        iou: dict[str, list[float]] = {}
        verdict: dict[str, list[float]] = {}
        known: dict[str, list[float]] = {}
        table = self.model.get_input_embeddings()
        for b in range(0, len(scenes), 10):
            drawn = draw(self.packer, self.args, scenes[b:b + 10], plain=0.0)
            rows, drawn = drawn.rows, drawn.to(self.args.device)
            z = self.tokens(drawn)
            at = torch.arange(TOKENS + 1, device=z.device)[None].expand(len(z), -1)
            state, _ = self.decode(z, drawn.rows, at)
            logits = (state @ table.weight.T).cpu()
            for n, r in (rows.weights > 1.2).nonzero().tolist():
                if int(rows.kinds[n, r]) not in (BOX, ABSENT):
                    continue
                name = TYPES[int(rows.types[n, r])]
                verdict.setdefault(name, []).append(float(logits[n, r].argmax() == rows.labels[n, r]))
                if rows.kinds[n, r] == BOX:
                    spots = [r + 1, r + 3, r + 5, r + 7]
                    truth = (rows.labels[n, spots] - self.first).tolist()
                    guess = logits[n, spots, self.first:self.first + SCALE + 1].argmax(-1).tolist()
                    iou.setdefault(name, []).append(box_iou(guess, truth))
            hit = (rows.kinds == POINT) & (rows.weights > 0)
            if hit.any():
                verdict.setdefault("point", []).extend((logits[hit].argmax(-1) == rows.labels[hit]).float().tolist())
            for n, r in ((rows.kinds == LOOK) & (rows.weights > PLAIN)).nonzero().tolist():
                said = float(logits[n, r].argmax() == rows.labels[n, r])
                known.setdefault(general.KINDS[int(rows.types[n, r])], []).append(said)
        mean = lambda v: sum(v) / max(1, len(v))  # noqa: E731
        flat = [v for t in iou.values() for v in t]
        found = [v for t, vs in verdict.items() if t not in ("none", "point") for v in vs]
        said = {"iou": mean(flat), "p50": mean([v > 0.5 for v in flat]), "t_acc": mean(found),
                "n_acc": mean(verdict.get("none", [])),
                **{f"iou_{t}": mean(v) for t, v in sorted(iou.items())}, "point": mean(verdict.get("point", [])),
                **{f"knows_{t}": mean(v) for t, v in sorted(known.items())}}
        print("check", " ".join(f"{k}={v:.3f}" for k, v in said.items()), flush=True)


def box_iou(a, b) -> float:
    side = lambda i: max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i]))  # noqa: E731
    area = lambda v: max(0, v[2] - v[0]) * max(0, v[3] - v[1])  # noqa: E731
    both = side(0) * side(1)
    return both / max(1e-6, area(a) + area(b) - both)


def fresh(args, n: int):
    """Scenes that training does not see."""
    stream = SceneStream(args.binary, args.assets, "val", 0, seed=args.seed, kind="scenes", side=320,
                         expressions=args.expressions)
    scenes = stream.take(n)
    stream.process.kill()
    return scenes


def align(trainer: Trainer, store: Store) -> None:
    """Projector and embeddings alone, on stored features."""
    args, model = trainer.args, trainer.model
    run = optim.Run(args.out, "align", args.align_minutes, decay=0.4)
    modules = [trainer.projector, trainer.heads, model.get_input_embeddings()]
    opts = optim.optimisers(modules, lr=args.lr, muon_lr=args.muon_lr)
    params = [p for m in modules for p in m.parameters()]
    while run.schedule(opts):
        scenes, owner, h = store.draw(8, trainer.rng)
        drawn = Drawn(owner, *targets(scenes, owner), features=h).to(args.device)
        loss, parts = trainer.alignment(drawn, trainer.tokens(drawn))
        optim.step(loss, opts, params)
        run.log(loss=loss.item(), **parts)


def tower_optimisers(trunk: Trunk, lr: float, muon_lr: float):
    """What writes into the residual stream was scaled down, and so are its steps."""
    opts = optim.optimisers(writers_of(trunk), lr=lr / FEATURE_SCALE, muon_lr=muon_lr / FEATURE_SCALE)
    names = ("out_proj", "fc2", "patch_embedding", "position_embedding")
    return opts + optim.optimisers([trunk.embeddings, trunk.encoder], lr=lr, muon_lr=muon_lr, skip=names)


def optimisers(trainer: Trainer):
    """What alignment has built moves slowly; the decoder's blocks have everything to learn."""
    args, model, trunk, phase, live = trainer.args, trainer.model, trainer.trunk, trainer.args.phase, trainer.args.live
    words = [trainer.heads, model.get_input_embeddings()]
    for modules, free in (([trunk], phase in ("tower", "whole")), ([trainer.projector], live or phase != "sparse"),
                          (words, live or phase in ("full", "whole")), (model.model.language_model.layers, phase != "tower")):
        for p in (p for m in modules for p in m.parameters()):
            p.requires_grad_(free)
    opts = optim.optimisers([trainer.projector, *words], lr=args.lr * 0.3, muon_lr=args.muon_lr * 0.2)
    opts += optim.optimisers([model.model.language_model], lr=args.lr, muon_lr=args.muon_lr, skip=("embed_tokens",))
    return opts + tower_optimisers(trunk, args.lr * args.tower_rate, args.muon_lr * args.tower_rate)


def train_tower(trainer: Trainer) -> None:
    """Tower and projector on alignment alone, words and maps held: the decoder goes on elsewhere meanwhile, and the
    two fit together afterwards."""
    args, opts = trainer.args, optimisers(trainer)
    run = optim.Run(args.out, "tower", args.minutes, decay=args.decay)
    params = [p for o in opts for g in o.param_groups for p in g["params"]]
    drawn = batches(rendered(args), args.workers)
    while run.schedule(opts):
        some = next(drawn).to(args.device)
        loss, parts = trainer.alignment(some, trainer.tokens(some))
        optim.step(loss, opts, params)
        run.log(loss=loss.item(), **parts)
        run.save(trainer.state())
    run.save(trainer.state(), True)


def stored(trainer: Trainer, store: Store):
    """Steps of scenes from a store."""
    while True:
        scenes, owner, features = store.draw(trainer.args.batch, trainer.rng)
        yield draw(trainer.packer, trainer.args, scenes, (owner, features))


def train(args) -> None:
    rank = optim.join(args)
    torch.manual_seed(args.seed)
    trainer = Trainer(args)
    torch.manual_seed(args.seed + rank)
    if args.phase == "tower":
        return train_tower(trainer)
    held, live = fresh(args, 120), args.live or args.phase == "whole"
    store = None if live else Store(f"{args.out}/features")
    if args.align_minutes > 0:
        align(trainer, store)
    drawn = batches(rendered(args), args.workers) if live else stored(trainer, store)
    opts = optimisers(trainer)
    params = [p for o in opts for g in o.param_groups for p in g["params"]]
    run = optim.Run(args.out, "mllm", args.minutes, decay=args.decay)
    last = 0.0
    while run.schedule(opts):
        loss, parts = trainer.loss(next(drawn).to(args.device), args.gaze, args.align)
        optim.step(loss, opts, params)
        if rank > 0:
            continue
        run.log(every=20, **parts)
        run.save(trainer.state())
        if run.progress * args.minutes - last > args.check_minutes:
            last = run.progress * args.minutes
            trainer.check(held)
    if rank == 0:
        run.save(trainer.state(), True)
        trainer.check(held)
