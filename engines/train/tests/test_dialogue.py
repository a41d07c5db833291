"""What is counted and how it is said: `python -m unittest discover -s engines/train/tests`."""

import random
import re
import sys
import types
import unittest
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from sam4mllm_train.dialogue import RECOUNTED, RECOUNTED_AT_ONCE, RECOUNTED_OF_SEVERAL, Count, Packer  # noqa: E402

# How the test split counts, which training must not see.
HELD_OUT = re.compile("which is (first|second|third|fourth) from the|(first|second|third|fourth) of the [a-z ]+ from the")
WORDS = {"mug": 1, "mugs": 2, "red": 3, "ones": 4, "<unk>": 9}


def packer() -> Packer:
    """One that knows mugs (classes 0 and 1), of which class 0 is red."""
    made = Packer(lambda text, add_special_tokens: {"input_ids": [WORDS.get(w, 9) for w in text.split()]}, [],
                  {1: {0, 1}, 3: {0, 2}}, re.compile("$^"), 256, seed=1)
    return made


def scene(classes: list[int]):
    """Objects of `classes` from left to right, each four pixels wide."""
    instances = np.repeat(np.arange(1, len(classes) + 1, dtype=np.uint8), 4)[None].repeat(3, 0)
    return types.SimpleNamespace(instances=instances, meta={"objects": [{"class": c} for c in classes]})


class CountTest(unittest.TestCase):
    def test_reads_what_training_says(self):
        cases = {
            "the second red mug from the left": (2, "red mug", "left"),
            "pick up third mug counting from the top please": (3, "mug", "top"),
            "show me the piece of fruit that is first from the bottom": (1, "piece of fruit", "bottom"),
            "where is the fourth one from the right": (4, "one", "right"),
        }
        for text, (n, noun, side) in cases.items():
            count = Count.read(text)
            self.assertEqual((count.n, count.noun, count.side), (n, noun, side), text)
        for text in ("the mug left of the kettle", "the leftmost mug", "the second mug"):
            self.assertIsNone(Count.read(text), text)

    def test_no_rewording_is_one_of_the_test_split(self):
        self.assertTrue(HELD_OUT.search("the mug which is second from the left"))
        self.assertTrue(HELD_OUT.search("the second of the mugs from the left"))
        rng, said = random.Random(1), set()
        for _ in range(400):
            text = Count.read("the second red mug from the left").reworded("the second red mug from the left", "red mugs", rng)
            self.assertIsNone(HELD_OUT.search(text), text)
            self.assertIn("second", text)
            said.add(text)
        self.assertEqual(len(said), len(RECOUNTED + RECOUNTED_AT_ONCE + RECOUNTED_OF_SEVERAL))

    def test_the_request_around_it_stays(self):
        text = "please pick up the second mug from the left for me"
        said = Count.read(text).reworded(text, None, random.Random(2))
        self.assertTrue(said.startswith("please pick up the ") and said.endswith(" for me"), said)

    def test_counts_what_the_noun_names_up_to_the_target(self):
        p, mugs = packer(), scene([0, 2, 1, 0])
        count = lambda text, target: p.counted(mugs, Count.read(text), [target])  # noqa: E731
        self.assertEqual(count("the third mug from the left", 3), [0, 2])
        self.assertEqual(count("the third mug from the right", 0), [3, 2])
        self.assertEqual(count("the second red mug from the left", 3), [0])
        self.assertEqual(count("the first mug from the left", 0), [])
        self.assertEqual(count("the second mug from the left", 3), [], "the truth disagrees")
        self.assertEqual(count("the fourth mug from the left", 3), [], "there are three")

    def test_plurals_are_words_of_the_vocabulary(self):
        self.assertEqual(packer().plural("red mug"), "red mugs")
        self.assertIsNone(packer().plural("red kettle"))


if __name__ == "__main__":
    unittest.main()
