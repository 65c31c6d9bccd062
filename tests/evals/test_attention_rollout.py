"""Attention rollout against matrix products written out, and grids worked by hand."""

import numpy as np
import pytest

from mmjax.evals.attention_rollout import attention_maps, patch_grid, rollout


def stochastic(rng, *shape):
    x = rng.random(shape)
    return (x / x.sum(-1, keepdims=True)).astype(np.float32)


def test_rollout_equals_the_sum_over_all_paths():
    weights = stochastic(np.random.default_rng(0), 3, 2, 4, 5, 5)  # layers, B, heads, L, L
    got = rollout(weights)
    for b in range(2):
        layer = [
            [
                [0.5 * weights[n, b, :, i, j].mean() + 0.5 * (i == j) for j in range(5)]
                for i in range(5)
            ]
            for n in range(3)
        ]
        for i in range(5):
            for j in range(5):
                # From token i of the last layer down through p and q to token j of the input.
                paths = sum(
                    layer[2][i][p] * layer[1][p][q] * layer[0][q][j]
                    for p in range(5)
                    for q in range(5)
                )
                assert got[b, i, j] == pytest.approx(paths, rel=1e-5)
    np.testing.assert_allclose(got.sum(-1), 1.0, rtol=1e-5)


def test_a_tower_whose_class_token_looks_at_one_patch_shows_that_patch():
    tokens = 1 + 2 * 3
    weights = np.tile(np.eye(tokens, dtype=np.float32), (1, 1, 1, 1, 1)).copy()
    weights[0, 0, 0, 0] = 0.0
    weights[0, 0, 0, 0, 1 + 4] = 1.0  # row 1, column 1
    maps = attention_maps(weights, 32, 48)
    assert maps.shape == (1, 2, 3)
    expected = np.zeros((2, 3))
    expected[1, 1] = 1.0
    np.testing.assert_allclose(maps[0], expected, atol=1e-6)


def test_without_a_class_token_all_tokens_are_averaged():
    weights = np.zeros((1, 1, 1, 4, 4), np.float32)
    weights[..., 2] = 1.0  # everyone looks at patch 2
    # Half of the flow goes there, half stays where it is, over four tokens.
    np.testing.assert_allclose(
        attention_maps(weights, 8, 8)[0], [[1 / 8, 1 / 8], [5 / 8, 1 / 8]], atol=1e-6
    )


@pytest.mark.parametrize(
    ("tokens", "height", "width", "grid"),
    [
        (64, 64, 64, (0, 8, 8)),
        (65, 64, 64, (1, 8, 8)),
        (197, 224, 224, (1, 14, 14)),
        (98, 112, 224, (0, 7, 14)),
        (99, 224, 112, (1, 14, 7)),
    ],
)
def test_grids(tokens, height, width, grid):
    assert patch_grid(tokens, height, width) == grid


def test_no_grid_is_an_error():
    with pytest.raises(ValueError, match="67 tokens are no grid"):
        patch_grid(67, 64, 64)
