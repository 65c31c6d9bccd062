"""Which image-text pairs of a batch are negatives; pairs with equal ids are false negatives."""

from jaxtyping import Array, ArrayLike, Bool, Int

Ids = tuple[Int[ArrayLike, " _"] | None, Int[ArrayLike, " _"] | None]  # image ids, text ids


def negative_pairs(
    rows: Int[ArrayLike, " r"], columns: Int[ArrayLike, " c"], row_ids: Ids, column_ids: Ids
) -> Bool[Array, "r c"]:
    """True where pair (i, j) is a negative: off the diagonal, and without a common id.

    Examples with the same image or the same caption match each other, so they are not negatives.

    Args:
      rows, columns: [R] and [C], the examples' positions in the batch.
      row_ids, column_ids: (image ids, text ids) of those examples, [R] and [C]; None: all differ.

    Returns:
      [R, C] bool.
    """
    negative = rows[:, None] != columns[None, :]
    for row_id, column_id in zip(row_ids, column_ids, strict=True):
        if row_id is not None:
            negative &= row_id[:, None] != column_id[None, :]
    return negative
