"""`sam4mllm-lora`: tunes a LLaVA checkpoint by LoRA on dialogues, as the paper does (arXiv 2409.10542, section 4.1).

The base is frozen. Trained are LoRA on every linear layer of the language model and the projector as a whole, by
cross-entropy on the assistant's tokens, without augmentation. The adapter is saved as peft saves it, for
`sam4mllm engine import --adapter` or a bundle. One process, one device: bf16 products on a GPU, f32 on a CPU; weights
that are trained are f32 on both.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import shutil
import time

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.utils.data import DataLoader
from transformers import AutoModelForImageTextToText, AutoProcessor

from .chat import IGNORED, Encoder, Packs, plan, read

# Parts of a model by the ends of their names, the same in all LLaVA classes.
TEXT, PROJECTOR = "language_model", "multi_modal_projector"


def load_processor(base: str, config):
    """The base's processor; what a checkpoint of bare parts leaves out is taken from the model's own configuration."""
    processor = AutoProcessor.from_pretrained(base)
    strategy = config.vision_feature_select_strategy
    # A CLIP tower has a class token; "default" drops it again.
    extra = int(config.vision_config.model_type == "clip_vision_model")
    missing = {"patch_size": config.vision_config.patch_size, "vision_feature_select_strategy": strategy,
               "num_additional_image_tokens": extra}
    if getattr(processor, "patch_size", None) is None:
        for key, value in missing.items():
            setattr(processor, key, value)
    return processor


def text_layers(model: nn.Module) -> str:
    """A pattern, as peft takes it, for the linear layers of the language model; not its head."""
    inside = [(name, m) for name, m in model.named_modules() if f"{TEXT}." in name or name.startswith(f"{TEXT}.")]
    leaves = sorted({name.rsplit(".", 1)[-1] for name, m in inside if isinstance(m, nn.Linear)} - {"lm_head"})
    if not leaves:
        raise ValueError(f"{type(model).__name__} has no linear layers under `{TEXT}`")
    return rf".*{TEXT}\..*\.({'|'.join(map(re.escape, leaves))})"


def build(args, device: torch.device) -> PeftModel:
    """The base with an adapter on it: a new one, or the checkpoint's."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    base = AutoModelForImageTextToText.from_pretrained(args.base, dtype=dtype)
    if args.recompute:
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        base.enable_input_require_grads()
    if args.resume:
        model = PeftModel.from_pretrained(base, f"{args.out}/checkpoint/adapter", is_trainable=True)
    else:
        model = get_peft_model(base, LoraConfig(
            r=args.rank, lora_alpha=args.alpha, lora_dropout=args.dropout, target_modules=text_layers(base),
            modules_to_save=[PROJECTOR]))
    for p in model.parameters():
        if p.requires_grad:
            p.data = p.data.float()
    return model.to(device)


def rate(step: int, steps: int, warmup: float) -> float:
    """One cycle with linear anneal: the share of the learning rate at a step."""
    warm = max(1, round(steps * warmup))
    return min((step + 1) / warm, (steps - step) / max(1, steps - warm))


class Trainer:
    """Model, data and optimiser of a run."""

    def __init__(self, args):
        self.args = args
        torch.manual_seed(args.seed)
        self.device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = build(args, self.device)
        config = self.model.get_base_model().config
        self.encoder = Encoder(load_processor(args.base, config), config, read_text(args.template))
        self.train, self.val = self.load(args.data), self.load([args.val]) if args.val else []
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.trained, lr=args.lr, weight_decay=args.weight_decay)
        self.batches = self.schedule()
        self.step = 0
        if args.resume:
            self.resume()

    def load(self, paths: list[str]):
        examples, left = [], 0
        for path in paths:
            some, longer = read(path, self.encoder, self.args.tokens)
            examples, left = examples + some, left + longer
        said = sum(label != IGNORED for e in examples for label in e.labels)
        tokens = sum(len(e.ids) for e in examples)
        print(f"{', '.join(paths)}: {len(examples)} conversations, {tokens} tokens, {said} the assistant's; "
              f"{left} longer than {self.args.tokens} left out", flush=True)
        return examples

    def schedule(self) -> list[list[list[int]]]:
        """The packs of every step, known from the start: a resumed run goes on with the same ones."""
        a, batches, epoch = self.args, [], 0
        while epoch < a.epochs if a.steps is None else len(batches) < a.steps:
            packs = plan(self.train, a.tokens, a.seed, epoch)
            batches += [packs[i:i + a.accumulate] for i in range(0, len(packs), a.accumulate)]
            epoch += 1
        return batches[:a.steps]

    def loss(self, pack: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
        """The sum of the cross-entropy of the assistant's tokens, and their number."""
        pack = {k: v.to(self.device, non_blocking=True) for k, v in pack.items()}
        labels = pack.pop("labels")[0]
        at = (labels != IGNORED).nonzero()[:, 0]
        # Logits at the assistant's positions only: of all, they would be the largest tensor there is.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.model(**pack, logits_to_keep=at, use_cache=False).logits[0]
        return F.cross_entropy(logits.float(), labels[at], reduction="sum"), len(at)

    def run(self) -> None:
        a, steps = self.args, len(self.batches)
        packs = Packs(self.train, [p for batch in self.batches[self.step:] for p in batch], self.encoder)
        # A generator of its own: the loader draws from it when it starts, and a resumed run starts once more.
        loader = iter(DataLoader(packs, batch_size=None, num_workers=a.workers, generator=torch.Generator()))
        self.model.train()
        curve, begun = Curve(f"{a.out}/lora.csv", self.step), time.time()
        trainable = sum(p.numel() for p in self.trained)
        print(f"{trainable} of {sum(p.numel() for p in self.model.parameters())} parameters are trained, {steps} steps")
        if self.val and self.step == 0:
            curve.add(step=0, val=self.validate())
        while self.step < steps and not (a.stop_after and self.step >= a.stop_after):
            for group in self.optimiser.param_groups:
                group["lr"] = a.lr * rate(self.step, steps, a.warmup)
            batch = self.batches[self.step]
            loss, tokens = self.update([next(loader) for _ in batch], batch)
            self.step += 1
            row = {"step": self.step, "loss": loss, "lr": self.optimiser.param_groups[0]["lr"], "tokens": tokens,
                   "seconds": time.time() - begun}
            last = self.step == steps
            if self.val and (last or self.step % a.val_every == 0):
                row["val"] = self.validate()
            curve.add(**row)
            if self.step % a.save_every == 0:
                self.checkpoint()
        self.checkpoint()
        replace_dir(f"{a.out}/adapter", self.save_adapter)

    def update(self, packs: list[dict], batch: list[list[int]]) -> tuple[float, int]:
        """One optimiser step over several packs, every token with the same weight."""
        count = sum(label != IGNORED for p in batch for i in p for label in self.train[i].labels[1:])
        total = 0.0
        for pack in packs:
            loss, _ = self.loss(pack)
            (loss / count).backward()
            total += loss.item()
        nn.utils.clip_grad_norm_(self.trained, self.args.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return total / count, count

    @torch.no_grad()
    def validate(self) -> float:
        self.model.eval()
        packs = Packs(self.val, plan(self.val, self.args.tokens, 0, 0), self.encoder)
        parts = [self.loss(packs[i]) for i in range(len(packs))]
        self.model.train()
        return sum(loss.item() for loss, _ in parts) / sum(n for _, n in parts)

    def save_adapter(self, directory: str) -> None:
        self.model.save_pretrained(directory)

    def checkpoint(self) -> None:
        def fill(directory: str) -> None:
            self.save_adapter(f"{directory}/adapter")
            state = {"optimiser": self.optimiser.state_dict(), "step": self.step, "random": torch.get_rng_state(),
                     "steps": len(self.batches)}
            if self.device.type == "cuda":
                state["cuda"] = torch.cuda.get_rng_state()
            torch.save(state, f"{directory}/state.pt")
        replace_dir(f"{self.args.out}/checkpoint", fill)

    def resume(self) -> None:
        state = torch.load(f"{self.args.out}/checkpoint/state.pt", map_location=self.device, weights_only=True)
        if state["steps"] != len(self.batches):
            raise ValueError(f"the checkpoint is of a run of {state['steps']} steps, these data and options make "
                             f"{len(self.batches)}; resume with those of the first run")
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]
        torch.set_rng_state(state["random"].cpu())
        if self.device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"].cpu())


def read_text(path: str | None) -> str | None:
    if path is None:
        return None
    with open(path, encoding="utf-8") as file:
        return file.read()


def replace_dir(directory: str, fill) -> None:
    """A directory that is there whole or not at all."""
    part = f"{directory}.part"
    shutil.rmtree(part, ignore_errors=True)
    os.makedirs(part)
    fill(part)
    shutil.rmtree(directory, ignore_errors=True)
    os.rename(part, directory)


class Curve:
    """What was logged, a line a step, also printed; lines beyond the step that is resumed from are dropped."""

    FIELDS = ("step", "loss", "val", "lr", "tokens", "seconds")

    def __init__(self, path: str, step: int):
        kept = []
        if step and os.path.exists(path):
            with open(path, newline="", encoding="utf-8") as file:
                kept = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        self.file = open(path, "w", newline="", buffering=1, encoding="utf-8")
        self.writer = csv.DictWriter(self.file, self.FIELDS, restval="")
        self.writer.writeheader()
        self.writer.writerows(kept)

    def add(self, **values) -> None:
        row = {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in values.items()}
        self.writer.writerow(row)
        print(json.dumps(row), flush=True)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="sam4mllm-lora", description=__doc__.split("\n")[0])
    made.add_argument("--base", required=True, help="checkpoint directory, or a model's name on the hub")
    made.add_argument("--data", required=True, nargs="+", help="chat-format JSONL files")
    made.add_argument("--val", help="one that is only looked at")
    made.add_argument("--out", required=True, help="adapter, checkpoint and curve go there")
    made.add_argument("--template", help="chat template (Jinja), where the base has none")
    made.add_argument("--rank", type=int, default=128)
    made.add_argument("--alpha", type=int, default=128)
    made.add_argument("--dropout", type=float, default=0.05)
    made.add_argument("--lr", type=float, default=1e-4)
    made.add_argument("--weight-decay", type=float, default=1e-3)
    made.add_argument("--warmup", type=float, default=0.01, help="share of the steps in which the rate rises")
    made.add_argument("--clip", type=float, default=1.0, help="largest norm of a gradient")
    made.add_argument("--epochs", type=int, default=3)
    made.add_argument("--steps", type=int, help="steps instead of epochs")
    made.add_argument("--stop-after", type=int, help="stop after this step of the schedule; --resume goes on")
    made.add_argument("--tokens", type=int, default=1536, help="of a packed sequence; longer ones are left out")
    made.add_argument("--accumulate", type=int, default=8, help="packed sequences a step")
    made.add_argument("--recompute", action="store_true", help="recompute activations: less memory, a third more time")
    made.add_argument("--save-every", type=int, default=200, help="steps between checkpoints")
    made.add_argument("--val-every", type=int, default=200, help="steps between looks at --val")
    made.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--workers", type=int, default=0, help="processes that prepare images")
    made.add_argument("--threads", type=int, default=0, help="of a CPU; default: torch's own choice")
    made.add_argument("--device", help="default: cuda where there is one")
    return made


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    os.makedirs(args.out, exist_ok=True)
    Trainer(args).run()


if __name__ == "__main__":
    main()
