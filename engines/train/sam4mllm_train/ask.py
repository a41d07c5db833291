"""A base, with an adapter where one is given, that is asked one question at a time, as the node asks it."""

from __future__ import annotations

import argparse

import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText

from .chat import Encoder
from .lora import load_processor, read_text


def add_options(made: argparse.ArgumentParser, data: str) -> None:
    """What a command takes that renders scenes to train and score on, to `data` by default, and scores a model."""
    made.add_argument("what", choices=["make", "score"])
    made.add_argument("--binary", default="target/release/sam4mllm")
    made.add_argument("--assets", default="engines/tabletop")
    made.add_argument("--val", type=int, default=100, help="scenes to score on")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--base", default="engines/tabletop/mllm")
    made.add_argument("--adapter")
    made.add_argument("--template", default="engines/train/templates/tabletop.jinja")
    made.add_argument("--data", default=data)
    made.add_argument("--count", type=int, help="scenes to score, default all")
    made.add_argument("--threads", type=int, default=1)


class Asked:
    """The model of a command's options."""

    def __init__(self, args):
        model = AutoModelForImageTextToText.from_pretrained(args.base)
        self.encoder = Encoder(load_processor(args.base, model.config), model.config, read_text(args.template))
        if args.adapter:
            model = PeftModel.from_pretrained(model, args.adapter)
        self.model = model.eval()

    @torch.no_grad()
    def answer(self, text: str, image: str, longest: int) -> str:
        """What it says to a text about the picture at the path `image`, greedily, in at most `longest` tokens."""
        ask = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}
        # As trained on, less the answer: an empty one is the mark of its end alone.
        messages = [ask, {"role": "assistant", "content": ""}]
        ids = torch.tensor([self.encoder.encode({"messages": messages, "images": [image]}, "").ids[:-1]])
        end = self.encoder.tokenizer.eos_token_id
        said = self.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **self.encoder.see([image]),
                                   max_new_tokens=longest, do_sample=False, eos_token_id=end, pad_token_id=end)
        return self.encoder.tokenizer.decode(said[0, ids.shape[1]:], skip_special_tokens=True)
