"""What a step of dialogue training is made of."""

import unittest

import torch

from sam4mllm_train.dialogue import Packed
from sam4mllm_train.features import owners
from sam4mllm_train.rows import Rows, Tensors, collate
from sam4mllm_train.stream import batches
from sam4mllm_train.trunk import SIDE, cells


class Owners(unittest.TestCase):
    def test_a_token_belongs_to_what_covers_most_of_it(self):
        rng = torch.Generator().manual_seed(1)
        # Blocks of three pixels, so that tokens are shared by several objects.
        blocks = torch.randint(0, 6, (SIDE // 3 + 1, SIDE // 3 + 1), generator=rng, dtype=torch.uint8)
        instances = blocks.repeat_interleave(3, 0).repeat_interleave(3, 1)[:SIDE, :SIDE]
        instances[:40] = 0
        _, _, owner, empty = cells(instances[None], 5)
        expected = (owner + 1).masked_fill(empty, 0).flatten()
        self.assertTrue(torch.equal(owners(instances).long(), expected))
        self.assertEqual(owners(instances)[:32].sum(), 0)


class RowsTest(unittest.TestCase):
    def test_a_token_sees_the_picture_and_its_own_dialogue(self):
        packed = Packed()
        root = packed.add([1, 2], None)
        packed.add([5, 6, 7], root)
        packed.add([8, 9], root)
        rows = collate([packed])
        self.assertEqual(rows.ids.tolist(), [[5, 6, 7, 8, 9]])
        bias = rows.bias(2)
        self.assertEqual(tuple(bias.shape), (1, 1, 5, 7))
        seen = (bias[0, 0] == 0).long().tolist()
        self.assertEqual(seen, [[1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0, 0],
                                [1, 1, 0, 0, 0, 1, 0], [1, 1, 0, 0, 0, 1, 1]])

    def test_all_of_it_moves(self):
        packed = Packed()
        packed.add([5], packed.add([1], None))
        there = collate([packed]).to("meta")
        self.assertIsInstance(there, Tensors)
        self.assertTrue(all(getattr(there, name).is_meta for name in Rows.__dataclass_fields__))


class Batches(unittest.TestCase):
    def test_workers_take_turns(self):
        def make(worker):
            while True:
                yield torch.tensor(worker)

        drawn = batches(make, 2)
        self.assertEqual([int(next(drawn)) for _ in range(4)], [0, 1, 0, 1])
        self.assertEqual(int(next(batches(make, 0))), 0)


if __name__ == "__main__":
    unittest.main()
