import math

import jax
import numpy as np
import pytest

from mmjax.losses.block_masks import DRAWS, from_draws, mask_blocks

GRIDS = [((14, 14), 75, 16), ((6, 6), 14, 4), ((4, 9), 15, 3), ((2, 2), 1, 1)]


def by_loops(draws, grid, total, smallest):
    """masking_generator.py of BEiT, with these numbers in place of its random ones."""
    mask, draws, count = np.zeros(grid, bool), iter(np.asarray(draws, np.float32)), 0
    while count < total:
        for _ in range(10):
            draw = next(draws, None)
            if draw is None:
                return mask
            area = smallest + draw[0] * np.float32(total - count - smallest)
            aspect = math.exp((2 * draw[1] - 1) * -math.log(0.3))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h < grid[0] and w < grid[1]:
                top, left = int(draw[2] * (grid[0] - h + 1)), int(draw[3] * (grid[1] - w + 1))
                block = mask[top : top + h, left : left + w]
                added = h * w - block.sum()
                if 0 < added <= total - count:
                    block[:] = True
                    count += added
                    break
        else:
            return mask
    return mask


@pytest.mark.parametrize(("grid", "total", "smallest"), GRIDS)
def test_by_loops(grid, total, smallest):
    draws = jax.random.uniform(jax.random.key(1), (200, DRAWS, 4))
    found = jax.jit(jax.vmap(lambda x: from_draws(x, grid, total, smallest)))(draws)
    want = np.stack([by_loops(x, grid, total, smallest) for x in draws])
    np.testing.assert_array_equal(found, want)


def test_rows_depend_on_their_own_key_alone():
    keys = jax.random.split(jax.random.key(0), 64)
    found = np.asarray(mask_blocks(keys, (14, 14), total=75, smallest=16))
    np.testing.assert_array_equal(
        found[5:9], mask_blocks(keys[5:9], (14, 14), total=75, smallest=16)
    )
    counts = found.sum(1)
    assert found.shape == (64, 196) and counts.max() <= 75 and counts.min() > 60
    assert len(np.unique(found, axis=0)) == 64


def test_numbers_that_the_grid_does_not_have_are_refused():
    keys = jax.random.split(jax.random.key(0), 2)
    for total, smallest in ((36, 4), (4, 5), (4, 0)):
        with pytest.raises(ValueError, match=f"at least {smallest} patches are to mask {total} of"):
            mask_blocks(keys, (6, 6), total=total, smallest=smallest)
