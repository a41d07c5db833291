"""Tokenizer, dialect and the packing of many dialogues behind one image.

A scene's dialogues form a tree over one image prefix: every dialogue sees the prefix and itself, every
round-2 point sees its dialogue and itself, none sees its neighbours. One pass trains them all, and on the
robot one pass answers them all.
"""

from __future__ import annotations

import itertools
import math
import random
import re
import subprocess
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<image>", "<user>", "<assistant>"]
SCALE = 999
DIALECT = {
    "coordinate_scale": SCALE,
    "coordinate_digits": 3,
    "prefix": "<s><image>",
    "hint_one": "one",
    "hint_one_or_more": "some",
    "hint_none_or_more": "any",
    "proposal_query": "<user> find {hint}: {command} <assistant>",
    "box": "[{x1},{y1},{x2},{y2}]",
    "absent_answer": "no such object",
    "count_on": ",",
    "end_of_answer": "</s>",
    "points_query": "<user> on {box}? {points} <assistant>",
    "point": "[{x},{y}]",
    "points_per_question": 1,
    "yes": "yes",
    "no": "no",
    "grid": [5, 5],
}
# PPG: one answer with the box and a group of points, those on the object first. It is asked for by a word that nobody
# says: "point" would be one that commands begin with.
PPG = {
    "query": "<user> ppg {hint}: {command} <assistant>",
    "point": "[{x},{y},{label}]",
    "on": "yes",
    "off": "no",
    "positives": 2,
    "negatives": 1,
    "groups": 1,
}
TYPES = ["name", "colour", "kind", "size", "position", "relation", "ordinal", "several", "none", "exclusion"]
# How much more often the types that are learned last are drawn.
EFFORT = {"ordinal": 3.0, "relation": 2.5, "size": 2.5}
# Words that came later than the first checkpoints keep their places at the end.
LATER = ["but", "except", "not", "ppg"]
EXTRA = "[ ] , ? : . ' find one some any no such object on yes what is at nothing background how many a".split()


def build_tokenizer(binary: str, assets: str) -> PreTrainedTokenizerFast:
    """A word-level tokenizer: special tokens, punctuation, every word of the scene language, 000..999."""
    words = subprocess.run([binary, "dataset", "vocabulary", "--assets", assets], check=True, capture_output=True,
                           text=True).stdout.split()
    numbers = [f"{i:03d}" for i in range(SCALE + 1)]
    vocab: dict[str, int] = {}
    plain = []
    pre = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation("isolated")])
    for w in words:
        plain += [t for t, _ in pre.pre_tokenize_str(w.lower())]
    for token in [*SPECIAL, *numbers, *sorted({*EXTRA, *plain} - {*LATER}), *LATER]:
        vocab.setdefault(token, len(vocab))
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre
    tokenizer.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        additional_special_tokens=["<image>", "<user>", "<assistant>"])


def grid(value: float, side: float) -> str:
    return f"{min(SCALE, max(0, round(value / side * SCALE))):03d}"


def margin(mask: np.ndarray) -> np.ndarray:
    """How many pixels each pixel of bool[H, W] lies inside the mask's outline, i16[H, W]; outside of it 0. The frame of
    the array is no outline."""
    depth, inner = np.zeros(mask.shape, np.int16), np.pad(mask, 1, constant_values=True)
    while inner[1:-1, 1:-1].any() and depth.max() < 64:
        depth += inner[1:-1, 1:-1]
        inner[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    return depth


def mask_points(mask: np.ndarray, box) -> list[tuple[float, float, str]]:
    """PPG's points of a mask bool[H, W] in its box, in pixels: two as far inside the outline as they go, then one off
    the mask, as far from it. Always the same for one mask, so that there is one thing to learn."""
    x1, y1, x2, y2 = (int(v) for v in box)
    inside = mask[y1:y2, x1:x2]
    on, off = margin(inside), margin(~inside)
    ys, xs = np.mgrid[:y2 - y1, :x2 - x1]
    top = np.unravel_index(on.argmax(), on.shape)
    apart = np.hypot(ys - top[0], xs - top[1]) * (on * 2 >= on.max())
    second = np.unravel_index(apart.argmax(), on.shape)
    corner = np.abs(ys - (y2 - y1) / 2) / (y2 - y1) + np.abs(xs - (x2 - x1) / 2) / (x2 - x1)
    third = np.unravel_index((off + 0.1 * corner).argmax(), off.shape)
    said = [(top, PPG["on"]), (second, PPG["on"]), (third, PPG["off"])]
    return [(x1 + x + 0.5, y1 + y + 0.5, label) for (y, x), label in said]


# Least distance of centres, as a fraction of the side, at which neighbours are counted apart.
LEAST_GAP = 0.045
# Classes of a word that may speak of anything.
EVERY = frozenset(range(1000))
# What a token is trained to do, for the curves.
BOX, ABSENT, POINT, LOOK = 1, 2, 3, 4
# Where a token's attention is taught to go: nowhere in particular, or (as a bit set) to the image tokens of objects,
# object i being bit i + 1, the empty set being "<s>"; or below `CELL`, to one image token.
FREE, CELL = -1, -2
# Weights of the answer's tokens: punctuation is learned at once, and would drown the rest.
PLAIN, WEIGHTY, VERDICT = 0.05, 1.0, 1.5


@dataclass
class Packed:
    """One scene's token tree: parallel lists, and for each segment its ancestors."""

    tokens: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    gaze: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    ancestors: list[set[int]] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    COLUMNS = ("tokens", "labels", "weights", "gaze", "kinds", "types", "positions", "segments")

    def add(self, tokens: list[int], parent: int | None, answer: int = 0, kind: int = 0, weights: list[float] = (),
            gaze: dict[int, int] = {}, type: int = 0) -> int:  # noqa: B006
        """Appends a segment whose last `answer` tokens are the assistant's, with their `weights`; `gaze` by index."""
        seg = len(self.ancestors)
        self.ancestors.append({seg} | (self.ancestors[parent] if parent is not None else set()))
        start = self.ends[parent] if parent is not None else 0
        n = len(tokens)
        for i, t in enumerate(tokens):
            asked = answer and n - answer - 1 <= i < n - 1
            self.tokens.append(t)
            self.labels.append(tokens[i + 1] if asked else -100)
            self.weights.append(weights[i - (n - answer - 1)] if asked else 0.0)
            self.gaze.append(gaze.get(i, FREE))
            self.kinds.append(kind)
            self.types.append(type)
            self.positions.append(start + i)
            self.segments.append(seg)
        self.ends.append(start + n)
        return seg

    def drop_last(self) -> None:
        """The last answer token is only predicted; where nothing follows it, feeding it would waste a step."""
        for column in self.COLUMNS:
            getattr(self, column).pop()

    def sees(self, at: np.ndarray) -> np.ndarray:
        """bool[n, n]: which of the tokens `at` sees which of them."""
        segments = np.array(self.segments)[at]
        names, inverse = np.unique(segments, return_inverse=True)
        ancestor = np.array([[b in self.ancestors[a] for b in names] for a in names])
        return ancestor[inverse[:, None], inverse[None]] & (at[None] <= at[:, None])


# What people put around a request. Many ways of asking keep the decoder from learning some of them by heart.
BEFORE = ["please", "robot,", "hey,", "hey robot,", "robot, please", "now", "now,", "can you", "could you", "could you please",
          "i want you to", "i need you to", "i would like you to", "go and", "please go and"]
AFTER = ["please", ", please", "for me", "for me, please", "for me please", "now", "now, please"]
REQUEST = re.compile("(find|pick up|segment|show|give|grab|get|point|look|bring|hand|pass|locate|highlight|mark|select|choose|"
                     "detect|take|put|touch|move|tell|outline) ")


def held_out_wordings(binary: str) -> re.Pattern:
    """Matches the test split's own wordings, which training must not see."""
    said = subprocess.run([binary, "dataset", "vocabulary", "--held-out-wordings"], check=True, capture_output=True,
                          text=True).stdout.splitlines()
    return re.compile("|".join(re.escape(w).replace(r"\{x\}", ".*").replace(r"\{is\}", "(is|are)") for w in said))


def reword(text: str, rng: random.Random, held_out: re.Pattern) -> str:
    """The same request, asked in another way that is not `held_out`, where it is one."""
    if not REQUEST.match(text):
        return text
    said = text
    if rng.random() < 0.6:
        said = f"{rng.choice(BEFORE)} {said}"
    if rng.random() < 0.35 and not said.endswith(("please", "me")):
        said = f"{said} {rng.choice(AFTER)}".replace(" ,", ",")
    return text if held_out.fullmatch(said) else said


def plural_forms(word: str) -> list[str]:
    """What the plural of a noun may be."""
    return [word + "s", word + "es", word[:-1] + "ies", word[:-1] + "ves", word[:-2] + "ves"] if len(word) > 2 else []


# How people count things off, with {o} an ordinal, {n} one thing, {p} several, {s} a side.
COUNTS = ["first", "second", "third", "fourth"]
COUNTED = re.compile(rf"(the )?({'|'.join(COUNTS)}) ([a-z' ]+?) (?:counting )?from the (left|right|top|bottom)")
COUNTED_AFTER = re.compile(rf"(the )?((?:(?!the\b)[a-z']+ )+)that is ({'|'.join(COUNTS)}) from the (left|right|top|bottom)")
RECOUNTED = ["the {n}, {o} from the {s}", "the {n} which, from the {s}, is {o}", "the {n} that is {o} counting from the {s}"]
RECOUNTED_AT_ONCE = ["counting from the {s}, the {o} {n}", "from the {s}, the {o} {n}"]
RECOUNTED_OF_SEVERAL = ["the {o} one from the {s} of the {p}", "the {o} from the {s} of all the {p}",
                        "the {o} one of the {p} counting from the {s}"]


@dataclass
class Count:
    """What an ordinal expression counts: the words `span` of its text, the `n`-th (from 1) `noun` from a `side`."""

    span: tuple[int, int]
    n: int
    noun: str
    side: str

    @staticmethod
    def read(text: str) -> Count | None:
        if m := COUNTED.search(text):
            return Count(m.span(), COUNTS.index(m[2]) + 1, m[3], m[4])
        if m := COUNTED_AFTER.search(text):
            # What stands before the article is the request.
            return Count(m.span(), COUNTS.index(m[3]) + 1, m[2].strip(), m[4]) if m[1] else None
        return None

    def reworded(self, text: str, plural: str | None, rng: random.Random) -> str:
        """The same count in other words."""
        wordings = RECOUNTED + (RECOUNTED_OF_SEVERAL if plural else []) + (RECOUNTED_AT_ONCE if self.span[0] == 0 else [])
        said = rng.choice(wordings).format(o=COUNTS[self.n - 1], n=self.noun, p=plural, s=self.side)
        return text[:self.span[0]] + said + text[self.span[1]:]


class Packer:
    """Turns a scene's truth into token trees."""

    def __init__(self, tokenizer, names: list[str], words: dict[int, set[int]], held_out: re.Pattern, image_tokens: int,
                 seed: int):
        """`words` are the classes that each token may speak of; no command is reworded to a `held_out` wording."""
        self.names, self.words, self.held_out = names, words, held_out
        self.encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
        self.cache: dict[str, list[int]] = {}
        self.rng = random.Random(seed)
        self.side = math.isqrt(image_tokens)
        self.prefix = self.encode("<s>") + self.encode("<image>") * image_tokens
        self.known: set[str] = set()

    def ids(self, text: str) -> list[int]:
        if text not in self.cache:
            if len(self.cache) > 200_000:
                self.cache.clear()
            self.cache[text] = self.encode(text)
        return self.cache[text]

    def box(self, box, w: int, h: int) -> str:
        return DIALECT["box"].format(x1=grid(box[0], w), y1=grid(box[1], h), x2=grid(box[2], w), y2=grid(box[3], h))

    def plain(self, scene, n: int) -> list[dict]:
        """The shortest commands there are: bare names, half of them of objects that are not there."""
        rng, classes = self.rng, [o["class"] for o in scene.meta["objects"]]
        alone, made = self.alone(scene), []
        for _ in range(n):
            if alone and rng.random() < 0.6:
                i = rng.choice(alone)
                made.append({"type": "name", "text": f"the {scene.meta['objects'][i]['name']}", "targets": [i]})
            else:
                absent = rng.randrange(len(self.names))
                if absent not in classes:
                    made.append({"type": "none", "text": f"the {self.names[absent]}", "targets": []})
        return made

    def counts(self, scene, n: int) -> list[dict]:
        """Up to `n` commands that count: any objects, or those of one name."""
        rng, objects, made = self.rng, scene.meta["objects"], []
        classes = [o["class"] for o in objects]
        nouns = ["object", "thing", "item"] + 3 * [o["name"] for o in objects if classes.count(o["class"]) > 1]
        for _ in range(n):
            count = Count((0, 0), 0, rng.choice(nouns), rng.choice(["left", "right", "top", "bottom"]))
            order = self.order(scene, count)
            if len(order) < 2:
                continue
            count.n = rng.randint(2, min(len(order), len(COUNTS)))
            side = scene.instances.shape[int(count.side in ("left", "right"))]
            gaps = [abs(a[1] - b[1]) / side for a, b in itertools.pairwise(order[:count.n + 1])]
            if min(gaps) >= LEAST_GAP:
                text = count.reworded("", self.plural(count.noun), rng) if rng.random() < 0.5 else \
                    f"the {COUNTS[count.n - 1]} {count.noun} from the {count.side}"
                asked = f"{rng.choice(['find', 'show me', 'where is', 'pick up', 'give me'])} " if rng.random() < 0.6 else ""
                made.append({"type": "ordinal", "text": asked + text, "targets": [order[count.n - 1][0]], "count": count})
        return made

    def pack(self, scene, expressions: int, rounds: int, points: int, looks: int, plain: float = 0.0,
             ppg: float = 0.0, counts: int = 0) -> Packed:
        """A scene's dialogues: `expressions` round 1s, `rounds` of them with a round 2 of `points` points, and `looks`
        questions of what is where. `plain` is the share of bare names among the commands, `ppg` that of commands that
        are answered with points at once; up to `counts` more commands count."""
        rng, packed = self.rng, Packed()
        root = packed.add(self.prefix, None)
        said = scene.meta["expressions"]
        simple = sum(rng.random() < plain for _ in range(expressions))
        drawn = sorted(said, key=lambda e: rng.random() ** (1 / EFFORT.get(e["type"], 1.0)), reverse=True)
        said = drawn[:expressions - simple] + self.plain(scene, simple) + self.counts(scene, counts)
        for i, e in enumerate(said):
            if len(e["targets"]) <= 2 and rng.random() < ppg:
                self.proposal(packed, root, scene, e, with_points=True)
                continue
            seg = self.proposal(packed, root, scene, e)
            if e["targets"] and i < rounds:
                self.points(packed, seg, scene, rng.choice(e["targets"]), points)
        for _ in range(looks):
            self.look(packed, root, scene)
        return packed

    def proposal(self, packed: Packed, root: int, scene, e: dict, with_points: bool = False) -> int:
        """Round 1: the command, and the boxes from left to right or that there is no such object. `with_points` is
        PPG: each box is followed by its points."""
        (h, w), objects = scene.instances.shape, scene.meta["objects"]
        targets = sorted(e["targets"], key=lambda t: objects[t]["box"][0] + objects[t]["box"][2])
        text, counted = e["text"], []
        if e.get("type") == "ordinal" and (count := e.get("count") or Count.read(text)):
            counted = [] if with_points else self.counted(scene, count, targets)
            if "count" not in e and self.rng.random() < 0.6:
                text = count.reworded(text, self.plural(count.noun), self.rng)
        command = self.estrange(reword(text, self.rng, self.held_out), bool(targets))
        template = PPG["query"] if with_points else DIALECT["proposal_query"]
        query = self.ids(template.format(hint=self.hint(len(targets)), command=command))
        gaze = self.nouns(query, objects)
        n = len(query)
        type = TYPES.index(e.get("type", "name"))
        if not targets:
            answer = self.ids(DIALECT["absent_answer"]) + self.ids("</s>")
            gaze[n - 1] = 0
            weights = [VERDICT] + [PLAIN] * (len(answer) - 1)
            return packed.add(query + answer, root, len(answer), ABSENT, weights, gaze, type)
        answer, weights = [], []
        targets = counted + targets
        for k, t in enumerate(targets):
            # "[" x1 "," y1 "," x2 "," y2 "]": the token before each of the numbers has to look at the object.
            at, said = n + len(answer), list(self.ids(self.box(objects[t]["box"], w, h)))
            gaze |= {at - 1: self.bits([t] if counted else targets[k:])} | {at + i: self.bits([t]) for i in (0, 2, 4, 6)}
            weights += [VERDICT if k == 0 else WEIGHTY, *[WEIGHTY, PLAIN] * 4]
            if k < len(counted):
                said += self.ids(DIALECT["count_on"])
                weights.append(WEIGHTY)
            for x, y, label in mask_points(scene.instances == t + 1, objects[t]["box"]) if with_points else ():
                at = n + len(answer) + len(said)
                said += self.ids(PPG["point"].format(x=grid(x, w), y=grid(y, h), label=label))
                gaze |= {at + i: self.bits([t]) for i in (0, 2)}
                weights += [PLAIN, WEIGHTY, PLAIN, WEIGHTY, PLAIN, 0.5, PLAIN]
            answer += said
        answer += self.ids("</s>")
        gaze[n + len(answer) - 2] = 0
        return packed.add(query + answer, root, len(answer), BOX, [*weights, WEIGHTY], gaze, type)

    def order(self, scene, count: Count) -> list[tuple[int, float]]:
        """What `count` may count, from its side on: objects and where the centres of their visible parts are, in pixels."""
        classes = EVERY.intersection(*[self.words.get(t, EVERY) for t in self.ids(count.noun)])
        axis, objects = int(count.side in ("left", "right")), scene.meta["objects"]
        found = [(i, c[axis]) for i, c in self.centres(scene).items() if objects[i]["class"] in classes]
        return sorted(found, key=lambda c: c[1], reverse=count.side in ("right", "bottom"))

    @staticmethod
    def centres(scene) -> dict[int, tuple[float, float]]:
        """Row and column of the middle of what is seen of each object."""
        if "centres" not in scene.meta:
            own = scene.instances.ravel()
            rows, columns = (axis.ravel() for axis in np.indices(scene.instances.shape))
            area, row, column = np.bincount(own), np.bincount(own, rows), np.bincount(own, columns)
            seen = range(1, min(len(area), len(scene.meta["objects"]) + 1))
            scene.meta["centres"] = {i - 1: (row[i] / area[i], column[i] / area[i]) for i in seen if area[i]}
        return scene.meta["centres"]

    def counted(self, scene, count: Count, targets: list[int]) -> list[int]:
        """The objects that are counted before the target, in order; none where the truth disagrees."""
        order = [i for i, _ in self.order(scene, count)]
        return order[:count.n - 1] if order[count.n - 1:count.n] == targets else []

    def plural(self, noun: str) -> str | None:
        """Several of what `noun` names, where the vocabulary has a word for it."""
        *before, last = noun.split()
        found = next((f for f in plural_forms(last) if self.ids(f) != self.ids("<unk>")), None)
        return found and " ".join([*before, found])

    @staticmethod
    def bits(objects) -> int:
        return sum(2 << i for i in objects)

    def estrange(self, text: str, has_target: bool) -> str:
        """Half of the nouns that never had a target become unknown words, as a user's own nouns will be."""
        if has_target:
            self.known.update(text.replace(",", " ").split())
            return text
        if len(self.known) < 300 or self.rng.random() < 0.5:
            return text
        return " ".join(w if w.strip(",") in self.known else "<unk>" for w in text.split())

    def hint(self, targets: int) -> str:
        """Mostly the hint that tells nothing, since that is what a robot usually knows."""
        if self.rng.random() < 0.85 or targets == 0:
            return DIALECT["hint_none_or_more"]
        return DIALECT["hint_one"] if targets == 1 and self.rng.random() < 0.6 else DIALECT["hint_one_or_more"]

    def points(self, packed: Packed, seg: int, scene, target: int, n: int) -> None:
        """Round 2: a box a little off, as the model's own will be, and points over it."""
        h, w = scene.instances.shape
        rng, b = self.rng, scene.meta["objects"][target]["box"]
        level = rng.choice([0.0, 0.03, 0.08])
        bw, bh = b[2] - b[0], b[3] - b[1]
        box = [v + rng.gauss(0, level) * s for v, s in zip(b, (bw, bh, bw, bh))]
        box = [min(max(v, 0), m) for v, m in zip(box, (w, h, w, h))]
        full = self.ids(DIALECT["points_query"].format(box=self.box(box, w, h), points="[000,000]"))
        head = packed.add(full[:-5], seg)
        for _ in range(n):
            x = box[0] + rng.random() * (box[2] - box[0])
            y = box[1] + rng.random() * (box[3] - box[1])
            gx, gy = grid(x, w), grid(y, h)
            on = self.at(scene, gx, gy) == target + 1
            tail = self.ids(f"{gx},{gy}] <assistant> {'yes' if on else 'no'}")
            packed.add(tail, head, 1, POINT, [WEIGHTY], {len(tail) - 2: self.cell(gx, gy)})
            packed.drop_last()

    @staticmethod
    def at(scene, gx: str, gy: str) -> int:
        """What the instance map holds at a grid point."""
        h, w = scene.instances.shape
        return int(scene.instances[min(h - 1, int(int(gy) / SCALE * h)), min(w - 1, int(int(gx) / SCALE * w))])

    def cell(self, gx: str, gy: str) -> int:
        """The image token under a grid point, as a gaze."""
        column, row = (min(self.side - 1, int(int(v) / SCALE * self.side)) for v in (gx, gy))
        return CELL - (row * self.side + column)

    def nouns(self, query: list[int], objects: list[dict]) -> dict[int, int]:
        """Where each word of a query that names objects looks: at all that it may speak of."""
        return {i: self.bits([k for k, o in enumerate(objects) if o["class"] in self.words[t]])
                for i, t in enumerate(query) if t in self.words}

    @staticmethod
    def alone(scene) -> list[int]:
        """The objects that are the only ones of their class."""
        classes = [o["class"] for o in scene.meta["objects"]]
        return [i for i, c in enumerate(classes) if classes.count(c) == 1]

    def spot(self, scene, inside: float, rng: random.Random) -> tuple[tuple[str, str], int]:
        """A point in grid units, a share `inside` of them in the boxes of objects, and what the instance map holds there."""
        (h, w), objects = scene.instances.shape, scene.meta["objects"]
        b = rng.choice(objects)["box"] if rng.random() < inside and objects else (0, 0, w, h)
        at = grid(b[0] + rng.random() * (b[2] - b[0]), w), grid(b[1] + rng.random() * (b[3] - b[1]), h)
        return at, self.at(scene, *at)

    def look(self, packed: Packed, root: int, scene) -> None:
        """General dialogue that teaches looking things up by position: what is at a point."""
        (gx, gy), i = self.spot(scene, 0.75, self.rng)
        query = self.ids(f"<user> what is at [{gx},{gy}]? <assistant>")
        answer = self.ids(scene.meta["objects"][i - 1]["name"] if i else "nothing") + self.ids("</s>")
        weights = [0.5] * (len(answer) - 1) + [PLAIN]
        packed.add(query + answer, root, len(answer), LOOK, weights, {len(query) - 1: self.cell(gx, gy)})
