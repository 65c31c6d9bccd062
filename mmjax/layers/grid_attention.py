"""Attention over a grid of patches with decomposed relative positions, global or in windows."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from mmjax.layers import platform
from mmjax.layers.attention import MANY, Attention, attend
from mmjax.layers.block import Block
from mmjax.layers.parameters import param

ROWS_AT_ONCE = 8  # of the queries' grid, whose attention weights are computed together on CPU


class GridAttention(Attention):
    """Self-attention over x [B, h · w, D], the tokens of a grid: -> [B, h · w, D].

    The logit of a query at (y, x) and a key at (y', x') gets query · rows[y - y'] + query ·
    columns[x - x'], with the query that is not divided by sqrt(head_dim). In windows, the grid is
    padded with zeros at the bottom and the right, and the padding takes part in the attention.

    Attributes:
      grid: (h, w).
      window: side of the windows; 0: one window, the whole grid.

    Source: Li et al. 2022 (MViTv2, arXiv 2112.01526), eq. 4; Li et al. 2022 (ViTDet, arXiv
    2203.16527), section 3; facebookresearch/segment-anything, image_encoder.py.
    """

    grid: tuple[int, int] = (1, 1)
    window: int = 0

    @nn.compact
    def __call__(self, q: jax.Array, kv: jax.Array | None = None, **unused) -> jax.Array:
        del kv, unused  # a grid has neither contexts, masks nor rotary positions
        (height, width), side = self.grid, self.window
        x = rearrange(q, "b (h w) d -> b h w d", h=height)
        if side:
            x = jnp.pad(x, ((0, 0), (0, -height % side), (0, -width % side), (0, 0)))
            rows = x.shape[1] // side
            x = rearrange(x, "b (h p) (w q) d -> (b h w) p q d", p=side, q=side)
        sides, head_dim = x.shape[1:3], self._dim(q)
        x = rearrange(x, "b p q d -> b (p q) d")
        query, key, value = rearrange(
            self._project(x, "qkv", head_dim), "b l three k d -> three b l k d"
        )
        biases = [
            self._relative(query, name, sides, axis)
            for axis, name in enumerate(("rows", "columns"))
        ]
        y = grid_attend(query, key, value, *biases, dtype=self.dtype)
        y = self._out(y, q.shape[-1])
        if side:
            y = rearrange(y, "(b h w) (p q) d -> b (h p) (w q) d", b=len(q), h=rows, p=side, q=side)
            y = rearrange(y[:, :height, :width], "b h w d -> b (h w) d")
        return y

    def _relative(self, query: jax.Array, name: str, sides, axis: int) -> jax.Array:
        """[B, H, L, n]: query · table[offset] for each of the n rows or columns of keys."""
        n = sides[axis]
        zeros, shape = nn.initializers.zeros, (2 * n - 1, query.shape[-1])
        table = param(self, name, zeros, shape, ("length", "head_dim")).astype(query.dtype)
        at = np.arange(n)
        table = table[at[:, None] - at + n - 1]  # [query, key, head_dim]
        query = rearrange(query, "b (p q) k d -> b k p q d", p=sides[0])
        found = jnp.einsum("bkpqd,psd->bkpqs" if axis == 0 else "bkpqd,qsd->bkpqs", query, table)
        return rearrange(found, "b k p q s -> b k (p q) s")


def grid_attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    rows: jax.Array,
    columns: jax.Array,
    dtype="float32",
) -> jax.Array:
    """softmax(query · key / sqrt(D) + rows + columns) · value.

    Args:
      query, key, value: [B, L, H, D], L = h · w tokens of a grid.
      rows: [B, H, L, h], for the row of each key; columns: [B, H, L, w], for its column.

    Returns:
      [B, L, H, D].
    """
    key, value = (rearrange(x, "b s k d -> b k s d") for x in (key, value))
    height, width = rows.shape[-1], columns.shape[-1]

    def one(query, key, value, rows, columns):
        """query [B, L, K, 1, D], key and value [B, K, S, D], rows [B, K, L, h]."""
        bias = rows[..., :, None] + columns[..., None, :]
        bias = bias.reshape(*bias.shape[:3], 1, height * width)
        return attend(query, key, value, bias=bias, dtype=dtype)[0]

    batch, length, heads, _ = query.shape
    at_once = ROWS_AT_ONCE * width
    whole = batch * heads * length * length < MANY or not platform.current().attends_by_head
    if whole or length % at_once:
        return one(query[:, :, :, None], key, value, rows, columns)[:, :, :, 0]

    # The weights of all heads do not fit the caches of a CPU, nor do those of one head.
    def of_head(given):
        query, key, value, rows, columns = given  # of one head of one row of the batch
        split = functools.partial(rearrange, pattern="(n l) d -> n 1 1 l d", l=at_once)
        query = rearrange(query, "(n l) d -> n 1 l 1 1 d", l=at_once)
        key, value = key[None, None], value[None, None]
        y = jax.lax.map(
            lambda x: one(x[0], key, value, *x[1:]), (query, split(rows), split(columns))
        )
        return rearrange(y, "n 1 l 1 1 d -> (n l) d")

    given = (rearrange(query, "b l k d -> b k l d"), key, value, rows, columns)
    given = [rearrange(x, "b k l d -> (b k) l d") for x in given]
    return rearrange(jax.lax.map(of_head, given), "(b k) l d -> b l k d", b=batch)


class GridBlock(Block):
    """A block whose attention is a `GridAttention`; see there for `grid` and `window`."""

    grid: tuple[int, int] = (1, 1)
    window: int = 0

    def _attention(self, x: jax.Array, cross: bool = False) -> Attention:
        kind = functools.partial(GridAttention, grid=self.grid, window=self.window)
        return super()._attention(x, cross, kind)
