"""Which image-text pairs of a batch are negatives: equal ids tell the false ones."""

from jaxtyping import Array, ArrayLike, Bool, Int

Ids = tuple[Int[ArrayLike, " _"] | None, Int[ArrayLike, " _"] | None]  # image ids, text ids


def negative_pairs(
    rows: Int[ArrayLike, " r"], columns: Int[ArrayLike, " c"], row_ids: Ids, column_ids: Ids
) -> Bool[Array, "r c"]:
    """True where pair (i, j) is a negative: off the diagonal, and no id in common.

    Two examples with the same image, or with the same caption, match each other as well as they
    match themselves, so to push them apart would punish the right answer.

    Args:
      rows, columns: [R] and [C], the examples' places in the batch.
      row_ids, column_ids: (image ids, text ids) of those examples, [R] and [C]; None: all differ.

    Returns:
      [R, C] bool.
    """
    negative = rows[:, None] != columns[None, :]
    for row_id, column_id in zip(row_ids, column_ids, strict=True):
        if row_id is not None:
            negative &= row_id[:, None] != column_id[None, :]
    return negative
