"""Chat-format JSONL to token sequences: what a model reads, and which of its tokens are the assistant's.

A line is `{"messages": [...], "images": ["path", ...]}`; a message has a `role` and a `content`, a text or a list of
`{"type": "image"}` and `{"type": "text", "text": ...}`, as TRL takes it. Image paths are relative to the file.

Nothing here knows a model: the chat template writes the conversation, the tokenizer and the processor are the base's
own. What the assistant says is found by writing each conversation twice, up to its turn and through it.
"""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass, field

import torch
from PIL import Image

IGNORED = -100


@dataclass
class Example:
    """One conversation: `ids` with each image as all of its tokens, `labels` (IGNORED where not the assistant's)."""

    ids: list[int]
    labels: list[int]
    images: list[str] = field(default_factory=list)


class Encoder:
    """Turns records into examples by the base's own processor and a chat template."""

    def __init__(self, processor, config, template: str | None = None):
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.template = template or processor.chat_template or self.tokenizer.chat_template
        if not self.template:
            raise ValueError("neither processor nor tokenizer has a chat template; give one with --template")
        if not self.tokenizer.is_fast:
            raise ValueError("the tokenizer is a slow one; character offsets need a fast one (tokenizer.json)")
        self.image_id = config.image_token_id
        self.image_token = self.tokenizer.convert_ids_to_tokens(self.image_id)
        self.counts: dict[tuple[int, int], int] = {}

    def render(self, messages: list[dict], prompt: bool = False) -> str:
        return self.tokenizer.apply_chat_template(
            messages, chat_template=self.template, tokenize=False, add_generation_prompt=prompt)

    def spans(self, messages: list[dict], whole: str) -> list[tuple[int, int]]:
        """Where in the rendered conversation the assistant speaks, the end of its turn included."""
        spans = []
        for i, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before, after = self.render(messages[:i], prompt=True), self.render(messages[:i + 1])
            if not (after.startswith(before) and whole.startswith(after)):
                raise ValueError("the chat template writes earlier turns differently once there are later ones")
            spans.append((len(before), len(after.rstrip())))
        return spans

    def encode(self, record: dict, folder: str) -> Example:
        """`record` is a parsed line; image paths are relative to `folder`."""
        messages, images = normal(record), [os.path.join(folder, path) for path in record.get("images") or []]
        text = self.render(messages)
        coded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        spans = self.spans(messages, text)
        if not spans:
            raise ValueError("the assistant never speaks")
        places = iter(images)
        example = Example([], [], images)
        for token, (start, end) in zip(coded["input_ids"], coded["offset_mapping"]):
            said = any(start < e and end > s for s, e in spans)
            if said and not any(s <= start and end <= e for s, e in spans):
                raise ValueError(f"a token is half the assistant's: {text[start:end]!r}")
            copies = 1
            if token == self.image_id:
                path = next(places, None)
                if path is None:
                    raise ValueError("more images are mentioned than given")
                copies, said = self.count(path), False
            example.ids += [token] * copies
            example.labels += [token if said else IGNORED] * copies
        if next(places, None) is not None:
            raise ValueError("more images are given than mentioned")
        return example

    def count(self, path: str) -> int:
        """Tokens of an image. They follow from its size, and processing one is slow, so each size is tried once."""
        with Image.open(path) as image:
            size = image.size
        if size not in self.counts:
            blank = self.processor(text=self.image_token, images=Image.new("RGB", size), return_tensors="pt")
            self.counts[size] = int((blank["input_ids"] == self.image_id).sum())
        return self.counts[size]

    def see(self, paths: list[str]) -> dict[str, torch.Tensor]:
        """What the vision tower is fed: for towers that cut an image into crops with its size, too."""
        if not paths:
            return {}
        pictures = [Image.open(path).convert("RGB") for path in paths]
        seen = self.processor.image_processor(images=pictures, return_tensors="pt")
        return {key: value for key, value in seen.items() if key in ("pixel_values", "image_sizes")}


def normal(record: dict) -> list[dict]:
    """Messages whose contents are lists, checked."""
    messages = record.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError("`messages` is no list, or an empty one")
    made = []
    for message in messages:
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if role not in ("system", "user", "assistant"):
            raise ValueError(f"a message has the role {role!r}")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not (isinstance(parts, list) and all(map(is_part, parts))):
            raise ValueError("a content is neither a text nor a list of texts and images")
        made.append({"role": role, "content": parts})
    return made


def is_part(part) -> bool:
    """Whether a content's element is an image or a text."""
    if not isinstance(part, dict):
        return False
    return part.get("type") == "image" or part.get("type") == "text" and isinstance(part.get("text"), str)


def read(path: str, encoder: Encoder, longest: int) -> tuple[list[Example], int]:
    """All conversations of a file up to `longest` tokens, and how many were longer: those are left out whole."""
    examples, left = [], 0
    folder = os.path.dirname(path)
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                example = encoder.encode(json.loads(line), folder)
            except (ValueError, OSError, AttributeError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            if len(example.ids) > longest:
                left += 1
            else:
                examples.append(example)
    if not examples:
        raise ValueError(f"{path}: no conversation of at most {longest} tokens")
    return examples, left


def plan(examples: list[Example], longest: int, seed: int, epoch: int) -> list[list[int]]:
    """An epoch's sequences: shuffled conversations, one behind the other as long as they fit."""
    order = list(range(len(examples)))
    random.Random(f"{seed} {epoch}").shuffle(order)
    packs, room = [], 0
    for i in order:
        n = len(examples[i].ids)
        if n > room:
            packs.append([])
            room = longest
        packs[-1].append(i)
        room -= n
    return packs


class Packs(torch.utils.data.Dataset):
    """Packed sequences as a model takes them: one row whose positions start anew with each conversation.

    `transformers` keeps conversations apart by those positions, whatever the attention is computed with; no mask is
    given, so that kernels for packed sequences can be used.
    """

    def __init__(self, examples: list[Example], packs: list[list[int]], encoder: Encoder):
        self.examples, self.packs, self.encoder = examples, packs, encoder

    def __len__(self) -> int:
        return len(self.packs)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        chosen = [self.examples[i] for i in self.packs[index]]
        ids = [t for e in chosen for t in e.ids]
        # What position i is to say is token i + 1; the last of a conversation says nothing.
        labels = [t for e in chosen for t in [*e.labels[1:], IGNORED]]
        positions = [i for e in chosen for i in range(len(e.ids))]
        row = {"input_ids": ids, "labels": labels, "position_ids": positions}
        return {k: torch.tensor([v]) for k, v in row.items()} | self.encoder.see([p for e in chosen for p in e.images])
