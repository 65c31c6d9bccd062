"""Attention over a grid by blocks of rows, beside that of the whole grid at once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.layers import grid_attention, platform
from mmjax.layers.grid_attention import grid_attend

BATCH, HEADS, WIDTH = 2, 2, 4
HEIGHT, COLUMNS = 6, 3


def slow(query, key, value, rows, columns):
    """Query by query in float64."""
    found = np.zeros(query.shape)
    for b, i, h in np.ndindex(*query.shape[:3]):
        logits = np.empty(HEIGHT * COLUMNS)
        for j in range(len(logits)):
            y, x = divmod(j, COLUMNS)
            product = query[b, i, h].astype(np.float64) @ key[b, j, h] / np.sqrt(WIDTH)
            logits[j] = product + rows[b, h, i, y] + columns[b, h, i, x]
        weights = np.exp(logits - logits.max())
        found[b, i, h] = weights @ value[b, :, h] / weights.sum()
    return found


def test_blocks_of_rows_are_the_whole_grid(monkeypatch):
    rng = np.random.default_rng(0)
    tokens, heads = (BATCH, HEIGHT * COLUMNS, HEADS), (BATCH, HEADS, HEIGHT * COLUMNS)
    shapes = [(*tokens, WIDTH)] * 3 + [(*heads, HEIGHT), (*heads, COLUMNS)]
    given = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    want = slow(*given)
    target = jnp.asarray(rng.normal(size=want.shape), jnp.float32)

    by_head = dataclasses.replace(platform.CPU, attends_by_head=True)
    whole = dataclasses.replace(platform.CPU, attends_by_head=False)
    monkeypatch.setattr(grid_attention, "MANY", 1)
    found = []
    for target_platform, at_once in ((whole, 8), (by_head, 2), (by_head, 4)):
        monkeypatch.setattr(grid_attention, "ROWS_AT_ONCE", at_once)
        with platform.compiling_for(target_platform):

            def run(*given):  # anew for each, as jax keeps what it has traced
                y, pull = jax.vjp(lambda *given: grid_attend(*given), *given)
                return y, pull(target)

            traced = jax.jit(run).trace(*given)
            assert ("scan[" in str(traced.jaxpr)) == (at_once == 2)  # 4 does not divide 6 rows
            found.append(traced.lower().compile()(*given))
    for y, gradients in found:
        np.testing.assert_allclose(y, want, atol=1e-5)
        for ours, whole_grid in zip(gradients, found[0][1], strict=True):
            np.testing.assert_allclose(ours, whole_grid, atol=1e-5)
