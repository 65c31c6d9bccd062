"""Inserted features and pixel shuffle against loops."""

import numpy as np
import pytest

from mmjax.layers.inserted import insert
from mmjax.layers.projector import count_tokens, merged_blocks

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("seed", range(4))
def test_insertion_against_a_loop_over_rows(seed):
    rng = np.random.default_rng(seed)
    x, features = (rng.normal(size=(5, n, 3)).astype(np.float32) for n in (9, 4))
    places = np.zeros((5, 9), bool)
    for row, count in enumerate((0, 4, 2, 1, 4)):  # also fewer places than features
        places[row, rng.permutation(9)[:count]] = True
    want = x.copy()
    for row in range(5):
        taken = 0
        for place in range(9):
            if places[row, place]:
                want[row, place] = features[row, taken]
                taken += 1
    np.testing.assert_array_equal(insert(x, features, places), want)


def test_pixel_shuffle_against_a_loop():
    x = RNG.normal(size=(2, 36, 3)).astype(np.float32)
    want = np.zeros((2, 9, 12), np.float32)
    for row in range(6):
        for column in range(6):
            block, within = 3 * (row // 2) + column // 2, 2 * (row % 2) + column % 2
            want[:, block, 3 * within : 3 * within + 3] = x[:, 6 * row + column]
    np.testing.assert_array_equal(merged_blocks(x, 2), want)
    assert count_tokens(36, 3) == 4 and count_tokens(35, 1) == 35
    with pytest.raises(ValueError, match="shuffle 4 got images of 36 tokens: it needs a square"):
        merged_blocks(x, 4)
