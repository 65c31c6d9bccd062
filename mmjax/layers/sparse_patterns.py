"""Sparse attention over a sequence of a text and the codes of an image, by masks.

Every token attends to the whole text before it. A code of the image, in raster order with w codes
a row, attends to the codes before it of its pattern:

    full         all
    row          itself and the w codes before it: the last is above it
    column       those of its column
    convolution  those in a square of `kernel` rows and columns around it, which wraps around: what
                 is left of the first column is the end of the row above

Source: Ramesh et al. 2021 (arXiv 2102.12092), appendix B.1 and figure 11; Child et al. 2019 (arXiv
1904.10509), section 4.2.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Int

PATTERNS = ("full", "row", "column", "convolution")


def attends(
    pattern: str,
    query: Int[ArrayLike, "..."],
    key: Int[ArrayLike, "..."],
    text: int,
    columns: int,
    kernel: int,
) -> Bool[Array, "..."]:
    """Whether the token at the position `query` attends to that at `key`.

    Args:
      query, key: positions in the sequence; their shapes broadcast.
      text: tokens of the text, which come first.
      columns: codes of a row of the image.
    """
    past = key <= query
    if pattern == "full":
        return past
    back = query - key
    if pattern == "row":
        near = back <= columns
    elif pattern == "column":
        near = back % columns == 0
    else:
        reach = kernel // 2
        rows = jnp.minimum((back + columns // 2) // columns, reach)  # the nearest row of the square
        near = jnp.abs(back - rows * columns) <= reach
    return past & (near | (key < text))


def layer_patterns(depth: int) -> tuple[str, ...]:
    """The pattern of each layer in DALL-E: row, column, row, row, and so on, at last convolution.

    Source: Ramesh et al. 2021, appendix B.1.
    """
    usual = ["column" if i % 4 == 1 else "row" for i in range(depth - 1)]
    return (*usual, "convolution")


def check_patterns(patterns: Sequence[str], depth: int) -> None:
    """Raise ValueError for an unknown pattern, or another number of them than layers."""
    unknown = sorted(set(patterns) - set(PATTERNS))
    if unknown or len(patterns) != depth:
        raise ValueError(
            f"patterns of a decoder are {list(patterns)} for {depth} layers: give one of "
            f"{', '.join(PATTERNS)} for each."
        )
