"""General dialogue about scenes, as a base model has had before anybody tunes it: what is at a place, how many there are,
whether it is there or of a colour, and where. Nothing here speaks of boxes.

`mllm --general N` trains on N questions a scene; `vqa` writes them down, and scores a model on them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from .dialogue import LOOK, PLAIN, VERDICT, WEIGHTY, Packed, Packer, grid

# The first is what `Packer.look` asks, too.
KINDS = ["naming", "counting", "presence", "colour", "where", "point"]
NUMBERS = ["no", "one", "two", "three", "four", "five", "six"]
# By thirds of the picture.
ROWS, COLUMNS = ["top", "", "bottom"], ["left", "", "right"]
COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "grey", "white"]


@dataclass
class Question:
    """`about` are the objects that the answer tells of; of "naming" `at` is the point, in grid units."""

    kind: str
    text: str
    answer: str
    about: list[int]
    at: tuple[str, str] | None = None


class Asker:
    """Makes questions of a scene's truth."""

    def __init__(self, packer: Packer, rng: random.Random):
        self.packer, self.rng = packer, rng

    def questions(self, scene, n: int, whole: bool = True) -> list[Question]:
        """Up to `n`; without `whole`, none that asks for a place of which no image token may be shown."""
        makers = [self.counting, self.presence, self.colour, self.where, self.point] + [self.naming] * whole
        made = (self.rng.choice(makers)(scene) for _ in range(n))
        return list({q.text: q for q in made if q}.values())

    def alone(self, scene) -> int | None:
        """Any object that is the only one of its class."""
        found = self.packer.alone(scene)
        return self.rng.choice(found) if found else None

    def naming(self, scene) -> Question:
        at, i = self.packer.spot(scene, 0.8, self.rng)
        said = scene.meta["objects"][i - 1]["name"] if i else "nothing"
        return Question("naming", f"what is at [{at[0]},{at[1]}]?", said, [i - 1] if i else [], at)

    def counting(self, scene) -> Question | None:
        rng, objects = self.rng, scene.meta["objects"]
        nouns = [o["name"] for o in objects] + ["object"] + [rng.choice(self.packer.names)]
        noun = rng.choice(nouns)
        about = [i for i, o in enumerate(objects) if noun in ("object", o["name"])]
        plural = self.packer.plural(noun)
        if plural is None or len(about) >= len(NUMBERS):
            return None
        return Question("counting", f"how many {plural} are in the picture?", NUMBERS[len(about)], about)

    def presence(self, scene) -> Question:
        rng, objects = self.rng, scene.meta["objects"]
        name = rng.choice(objects)["name"] if objects and rng.random() < 0.5 else rng.choice(self.packer.names)
        about = [i for i, o in enumerate(objects) if o["name"] == name]
        return Question("presence", f"is a {name} in the picture?", "yes" if about else "no", about)

    def colour(self, scene) -> Question | None:
        if (i := self.alone(scene)) is None:
            return None
        own = scene.meta["objects"][i]
        said = own["colour"] if self.rng.random() < 0.5 else self.rng.choice(COLOURS)
        return Question("colour", f"is the {own['name']} {said}?", "yes" if said == own["colour"] else "no", [i])

    def middle(self, scene, i: int) -> tuple[float, float]:
        """Of an object's box, row and column in 0..1."""
        (h, w), (x1, y1, x2, y2) = scene.instances.shape, scene.meta["objects"][i]["box"]
        return (y1 + y2) / 2 / h, (x1 + x2) / 2 / w

    def where(self, scene) -> Question | None:
        if (i := self.alone(scene)) is None:
            return None
        row, column = (min(2, int(3 * v)) for v in self.middle(scene, i))
        said = " ".join(w for w in (ROWS[row], COLUMNS[column]) if w) or "middle"
        return Question("where", f"where in the picture is the {scene.meta['objects'][i]['name']}?", said, [i])

    def point(self, scene) -> Question | None:
        if (i := self.alone(scene)) is None:
            return None
        row, column = self.middle(scene, i)
        return Question("point", f"point at the {scene.meta['objects'][i]['name']}", f"[{grid(column, 1)},{grid(row, 1)}]", [i])


def add(packer: Packer, packed: Packed, scene, n: int, whole: bool) -> None:
    """Appends up to `n` questions, each a dialogue of its own, to a scene's tree."""
    for q in Asker(packer, packer.rng).questions(scene, n, whole):
        query = packer.ids(f"<user> {q.text} <assistant>")
        said = packer.ids(q.answer)
        gaze = packer.nouns(query, scene.meta["objects"])
        told = packer.cell(*q.at) if q.at else packer.bits(q.about)
        # The token before each that says something has to look.
        number = q.kind == "point"
        gaze |= {len(query) + i: told for i in ((-1, 0, 2) if number else range(-1, len(said) - 1))}
        weights = [PLAIN, WEIGHTY, PLAIN, WEIGHTY, PLAIN] if number else [VERDICT] + [WEIGHTY] * (len(said) - 1)
        packed.add(query + said + packer.ids("</s>"), 0, len(said) + 1, LOOK, [*weights, PLAIN], gaze, KINDS.index(q.kind))
