"""Rename tables: how our parameters map to published tensors, with the layout conversions.

A family's table is a list of rows. PyTorch's matrices are [out, in], ours [in, out]; its heads are
merged into one axis, ours are separate; its queries, keys and values are often three tensors, ours
one. A "{i}" in the published name runs over the layers, which are the leading axis of our
parameter; the functions of a row get one layer at a time.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mmjax.system import STATISTICS

Arrays = tuple[np.ndarray, ...]


class Joined:
    """Arrays joined along an axis, of which only those parts are read that are asked for.

    A tensor of a file is a view of it (`tensor_file.view`), and so is what transposes, reshapes or
    splits it; a numpy array of several tensors would read all of them.
    """

    def __init__(self, parts: Sequence[np.ndarray], axis: int):
        self.parts, self.axis = parts, axis % parts[0].ndim
        sizes, self.shape = [part.shape[self.axis] for part in parts], list(parts[0].shape)
        for part in parts:
            if part.ndim != len(self.shape) or any(
                a != b for i, (a, b) in enumerate(zip(part.shape, self.shape)) if i != self.axis
            ):
                shapes = " and ".join(str(list(part.shape)) for part in parts)
                raise ValueError(f"Arrays of the shapes {shapes} cannot be joined.")
        self.shape[self.axis] = sum(sizes)
        self.shape = tuple(self.shape)
        self._first = np.cumsum([0, *sizes[:-1]]).tolist()

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        """A slice of each axis."""
        index = [part.indices(size)[:2] for part, size in zip(index, self.shape)]
        begin, end = index[self.axis]
        found = []
        for part, first in zip(self.parts, self._first):
            size = part.shape[self.axis]
            index[self.axis] = [min(max(x - first, 0), size) for x in (begin, end)]
            found.append(part[tuple(slice(*bounds) for bounds in index)])
        return np.concatenate(found, self.axis)


class Row(NamedTuple):
    """Some of our parameters, the corresponding published tensors, and both conversions.

    `read(*theirs) -> ours` and `write(*ours) -> theirs`, each a tuple of arrays in the order of
    the names. `read` may be called twice: with views of the file, in its dtype, and, if what it
    returns is neither a view of them nor `Joined`, with arrays in float32.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    read: Callable[..., Arrays]
    write: Callable[..., Arrays]


def same(ours: str, theirs: str) -> list[Row]:
    """One tensor, unchanged."""
    return [Row((ours,), (theirs,), lambda x: (x,), lambda x: (x,))]


def transposed(ours: str, theirs: str) -> list[Row]:
    """One matrix, transposed."""
    return [Row((ours,), (theirs,), lambda x: (x.T,), lambda x: (x.T,))]


def reshaped(
    ours: str, theirs: str, our_shape: Sequence[int], their_shape: Sequence[int]
) -> list[Row]:
    """One tensor, reshaped; one size may be -1."""
    return [
        Row(
            (ours,),
            (theirs,),
            lambda x: (x.reshape(our_shape),),
            lambda x: (x.reshape(their_shape),),
        )
    ]


def linear(ours: str, theirs: str, bias: bool = True) -> list[Row]:
    """`weight` [out, in] and `bias` of a linear map -> `kernel` [in, out] and `bias`."""
    rows = transposed(f"{ours}/kernel", f"{theirs}.weight")
    return rows + (same(f"{ours}/bias", f"{theirs}.bias") if bias else [])


def norm(ours: str, theirs: str, bias: bool = True) -> list[Row]:
    """`weight` and `bias` of a norm -> `scale` and `bias`."""
    rows = same(f"{ours}/scale", f"{theirs}.weight")
    return rows + (same(f"{ours}/bias", f"{theirs}.bias") if bias else [])


def batch_norm(ours: str, theirs: str) -> list[Row]:
    """A batch norm with its running statistics."""
    return [
        *norm(ours, theirs),
        *same(f"{STATISTICS}/{ours}/mean", f"{theirs}.running_mean"),
        *same(f"{STATISTICS}/{ours}/variance", f"{theirs}.running_var"),
    ]


def frozen_batch_norm(ours: str, theirs: str) -> list[Row]:
    """A batch norm whose running statistics are parameters, see `FrozenBatchNorm`."""
    return [
        *norm(ours, theirs),
        *same(f"{ours}/mean", f"{theirs}.running_mean"),
        *same(f"{ours}/variance", f"{theirs}.running_var"),
    ]


def batch_counts(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """The numbers of batches of batch norms, which PyTorch reports as missing otherwise."""
    names = [name for row in rows for name in row.theirs if name.endswith(".running_var")]
    return {n.replace("running_var", "num_batches_tracked"): np.int64(0)[...] for n in names}


def split_heads(ours: str, theirs: str, heads: int, bias: bool = True) -> list[Row]:
    """A map to heads: `weight` [H · D, in] -> `kernel` [in, H, D], `bias` [H, D]."""

    def read(x):
        return (x.T.reshape(x.shape[1], heads, -1),)

    def write(x):
        return (x.reshape(len(x), -1).T,)

    rows = [Row((f"{ours}/kernel",), (f"{theirs}.weight",), read, write)]
    return rows + (reshaped(f"{ours}/bias", f"{theirs}.bias", (heads, -1), (-1,)) if bias else [])


def merge_heads(ours: str, theirs: str, heads: int, bias: bool = True) -> list[Row]:
    """A map from heads: `weight` [out, H · D] -> `kernel` [H, D, out]."""

    def read(x):
        return (x.T.reshape(heads, -1, len(x)),)

    def write(x):
        return (x.reshape(-1, x.shape[-1]).T,)

    rows = [Row((f"{ours}/kernel",), (f"{theirs}.weight",), read, write)]
    return rows + (same(f"{ours}/bias", f"{theirs}.bias") if bias else [])


def qkv(ours: str, theirs: Sequence[str], heads: int, bias: bool = True) -> list[Row]:
    """N maps to heads -> one `kernel` [in, N, H, D] and `bias` [N, H, D].

    Args:
      theirs: the names of the maps of queries, keys and values, or of keys and values.
    """
    count = len(theirs)

    def read(*parts):
        return (Joined([x.T.reshape(x.shape[1], 1, heads, -1) for x in parts], axis=1),)

    def write(x):
        return tuple(x[:, i].reshape(len(x), -1).T for i in range(count))

    def read_bias(*parts):
        return (np.stack(parts).reshape(count, heads, -1),)

    def write_bias(x):
        return tuple(x.reshape(count, -1))

    rows = [Row((f"{ours}/kernel",), tuple(f"{name}.weight" for name in theirs), read, write)]
    if bias:
        names = tuple(f"{name}.bias" for name in theirs)
        rows.append(Row((f"{ours}/bias",), names, read_bias, write_bias))
    return rows


def fused_qkv(ours: str, weight: str, bias: str | None, heads: int) -> list[Row]:
    """One `weight` [3 · H · D, in] of torch's MultiheadAttention -> `kernel` [in, 3, H, D]."""

    def read(x):
        return (x.T.reshape(x.shape[1], 3, heads, -1),)

    def write(x):
        return (x.reshape(len(x), -1).T,)

    rows = [Row((f"{ours}/kernel",), (weight,), read, write)]
    return rows + (reshaped(f"{ours}/bias", bias, (3, heads, -1), (-1,)) if bias else [])


def fused_cross(ours: str, weights: Sequence[str], bias: str, heads: int) -> list[Row]:
    """Queries, keys and values of torch's MultiheadAttention -> our `query` and `key_value`.

    Args:
      ours: the attention, with `query/kernel` [in, H, D] and `key_value/kernel` [in, 2, H, D].
      weights: names of one tensor [3 · H · D, in], or, if the widths differ, three [H · D, in].
      bias: [3 · H · D].
    """

    def read(*x):
        query, key, value = np.split(x[0], 3) if len(x) == 1 else x
        query, key, value = (a.T.reshape(a.shape[1], heads, -1) for a in (query, key, value))
        return query, Joined([key[:, None], value[:, None]], axis=1)

    def write(query, key_value):
        parts = (query, key_value[:, 0], key_value[:, 1])
        parts = tuple(a.reshape(len(a), -1).T for a in parts)
        return (np.concatenate(parts),) if len(weights) == 1 else parts

    def read_bias(x):
        query, *key_value = x.reshape(3, heads, -1)
        return query, np.stack(key_value)

    def write_bias(query, key_value):
        return (np.concatenate([query[None], key_value]).reshape(-1),)

    def names(part):
        return f"{ours}/query/{part}", f"{ours}/key_value/{part}"

    return [
        Row(names("kernel"), tuple(weights), read, write),
        Row(names("bias"), (bias,), read_bias, write_bias),
    ]


def patches(ours: str, theirs: str, patch: int, bias: bool = True) -> list[Row]:
    """A convolution's `weight` [out, 3, P, P] -> `kernel` [P · P · 3, out]."""

    def read(x):
        return (x.transpose(2, 3, 1, 0).reshape(-1, len(x)),)

    def write(x):
        return (x.reshape(patch, patch, -1, x.shape[-1]).transpose(3, 2, 0, 1),)

    rows = [Row((f"{ours}/kernel",), (f"{theirs}.weight",), read, write)]
    return rows + (same(f"{ours}/bias", f"{theirs}.bias") if bias else [])


def grid(ours: str, theirs: str, grid_size: tuple[int, int]) -> list[Row]:
    """Positions of patches [h · w, D] -> [h, w, D]."""
    return reshaped(ours, theirs, (*grid_size, -1), (grid_size[0] * grid_size[1], -1))


def class_and_grid(
    ours: str, theirs: tuple[str, str], grid_size: Sequence[int], batched: bool = True
) -> Row:
    """A class token [1, 1, D], and a table [1, 1 + n, D] of its position and those of a grid.

    Args:
      ours: prefix of our names, empty or ending in a slash; theirs: the names of the token and of
        the table.
      batched: with the leading axes of size 1; without: [D] and [1 + n, D].
    """

    def read(token, table):
        table = table.reshape(-1, table.shape[-1])
        return token.reshape(-1), table[0], table[1:].reshape(*grid_size, -1)

    def write(token, first, table):
        table = np.concatenate([first[None], table.reshape(-1, table.shape[-1])])
        return (token[None, None], table[None]) if batched else (token, table)

    names = ("class_token", "class_position", "position/table")
    return Row(tuple(f"{ours}{name}" for name in names), theirs, read, write)


def convolution(ours: str, theirs: str, bias: bool = False) -> list[Row]:
    """`weight` [out, in, K, K] -> `kernel` [K, K, in, out]."""

    def read(x):
        return (x.transpose(2, 3, 1, 0),)

    def write(x):
        return (x.transpose(3, 2, 0, 1),)

    rows = [Row((f"{ours}/kernel",), (f"{theirs}.weight",), read, write)]
    return rows + (same(f"{ours}/bias", f"{theirs}.bias") if bias else [])


def pointwise(ours: str, theirs: str, bias: bool = False) -> list[Row]:
    """The `weight` [out, in, 1, 1] of a 1x1 convolution -> `kernel` [in, out]."""

    def read(x):
        return (x[:, :, 0, 0].T,)

    def write(x):
        return (x.T[:, :, None, None],)

    rows = [Row((f"{ours}/kernel",), (f"{theirs}.weight",), read, write)]
    return rows + (same(f"{ours}/bias", f"{theirs}.bias") if bias else [])
