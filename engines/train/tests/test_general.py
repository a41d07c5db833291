"""General questions are answered by the truth: `python -m unittest discover -s engines/train/tests`."""

import random
import re
import sys
import types
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from sam4mllm_train.dialogue import LOOK, Packed, Packer  # noqa: E402
from sam4mllm_train.general import KINDS, NUMBERS, Asker, add  # noqa: E402
from sam4mllm_train.vqa import right  # noqa: E402

NAMES = ["mug", "kettle", "axe"]
WORDS = {"mug": 10, "mugs": 11, "kettle": 12, "kettles": 13, "axe": 14, "axes": 15, "objects": 16, "<unk>": 9}


def encode(text: str, add_special_tokens: bool) -> dict:
    code = lambda w: WORDS.get(w, 20 + len(w)) if w.isalpha() and not w.endswith("ves") else 9  # noqa: E731
    return {"input_ids": [code(w) for w in re.findall(r"\w+|[^\w ]", text)]}


def packer() -> Packer:
    return Packer(encode, NAMES, {10: {0}, 11: {0}, 12: {1}, 13: {1}}, re.compile("$^"), 256, seed=1)


def scene():
    """Two red mugs and a blue kettle, 40 x 30 pixels; the kettle at the top right."""
    instances = np.zeros((30, 40), np.uint8)
    boxes = [(0, 20, 10, 30), (15, 10, 25, 20), (30, 0, 40, 10)]
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        instances[y1:y2, x1:x2] = i + 1
    looks = [(0, "mug", "red"), (0, "mug", "red"), (1, "kettle", "blue")]
    objects = [{"class": c, "name": n, "colour": o, "box": b} for (c, n, o), b in zip(looks, boxes)]
    return types.SimpleNamespace(instances=instances, meta={"objects": objects, "expressions": []})


class GeneralTest(unittest.TestCase):
    def test_answers_are_true(self):
        asker, seen = Asker(packer(), random.Random(1)), set()
        for q in (q for _ in range(60) for q in asker.questions(scene(), 8)):
            seen.add(q.kind)
            with self.subTest(q.text):
                if q.kind == "counting":
                    noun = re.match("how many ([a-z]+) are", q.text)[1]
                    self.assertEqual(q.answer, NUMBERS[{"mugs": 2, "kettles": 1, "axes": 0, "objects": 3}[noun]])
                elif q.kind == "presence":
                    self.assertEqual(q.answer, "no" if "axe" in q.text else "yes")
                elif q.kind == "colour":
                    self.assertEqual(q.answer, "yes" if q.text == "is the kettle blue?" else "no")
                elif q.kind == "where":
                    self.assertEqual((q.text, q.answer), ("where in the picture is the kettle?", "top right"))
                elif q.kind == "point":
                    self.assertEqual((q.text, q.answer), ("point at the kettle", "[874,166]"))
                else:
                    x, y = (int(v) for v in q.at)
                    self.assertEqual(q.answer == "kettle", x >= 750 and y < 333)
        self.assertEqual(seen, set(KINDS))

    def test_none_is_asked_twice_and_places_only_of_what_is_shown(self):
        asker = Asker(packer(), random.Random(2))
        for _ in range(40):
            asked = asker.questions(scene(), 12, whole=False)
            self.assertEqual(len({q.text for q in asked}), len(asked))
            self.assertNotIn("naming", [q.kind for q in asked])

    def test_a_tree_trains_on_every_token_of_an_answer(self):
        p = packer()
        packed = Packed()
        packed.add(p.prefix, None)
        add(p, packed, scene(), 20, True)
        for segment in range(1, len(packed.ancestors)):
            at = [i for i, s in enumerate(packed.segments) if s == segment]
            said = [i for i in at if packed.labels[i] >= 0]
            self.assertTrue(said and all(packed.weights[i] > 0 for i in said))
            self.assertEqual({packed.kinds[i] for i in at}, {LOOK})

    def test_a_point_may_be_a_little_off(self):
        self.assertTrue(right("point", "[ 500 , 520 ]", "[510,500]"))
        self.assertFalse(right("point", "[500,600]", "[510,500]"))
        self.assertFalse(right("point", "nothing", "[510,500]"))
        self.assertTrue(right("where", "top left", "top left"))
        self.assertFalse(right("where", "top", "top left"))


if __name__ == "__main__":
    unittest.main()
