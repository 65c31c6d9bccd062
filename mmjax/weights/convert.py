"""Apply a rename table: published tensors to our parameters, and back."""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import EinopsError
from flax import traverse_util

from mmjax.process.progress import Progress
from mmjax.weights import tensor_file
from mmjax.weights.layouts import Joined, Row
from mmjax.weights.shards import Shards
from mmjax.weights.tensor_file import Tensors

# Small, so kept in full precision.
KEPT_FP32 = ("scale", "bias", "mean", "variance", "gaussian")


def read_params(
    tensors: Tensors,
    rows: Sequence[Row],
    target: Any,
    *,
    ignored: Iterable[str] = (),
    dtype: str = "float32",
    initial: Callable[[], Any] | None = None,
    into: Callable[[str, jax.ShapeDtypeStruct], Any] = lambda name, want: None,
) -> tuple[Any, str]:
    """Our parameters from published tensors, each placed on devices as soon as it is read.

    Besides the placed ones, the host's memory holds of one parameter what this process's devices
    need, and one tensor of a layer; of a safetensors file only the bytes of those are read.

    Args:
      target: ShapeDtypeStructs of our parameters; those with a sharding are placed accordingly.
      dtype: of the matrices; scales and biases stay in float32.
      into: (name, ShapeDtypeStruct) -> what takes the layers of a parameter in place of `Shards`,
        or None.
      ignored: regular expressions that match full names of tensors that are not parameters.
      initial: gives initial parameters to use where tensors are missing; then missing and unused
        tensors are only reported.

    Returns:
      the parameters, and a report of every tensor.

    Raises:
      ValueError: tensors that are missing, unused or of another shape (all are listed), or one of
        our parameters that is not in the table.
    """
    wanted = traverse_util.flatten_dict(target, sep="/")
    expected = _expected(rows, wanted, tensors.name)
    missing = expected - tensors.shapes.keys()
    unused = tensors.shapes.keys() - expected
    if initial is None:
        _refuse(missing, {n for n in unused if not _is_ignored(n, ignored)}, tensors.name)
    start = traverse_util.flatten_dict(initial(), sep="/") if missing and initial else {}
    made, lines = {}, []
    with Progress(f"reading {tensors.name}", sum(len(row.theirs) for row in rows)) as progress:
        for row in rows:
            progress.advance(len(row.theirs))
            row_missing = sorted(missing & _names(row, wanted))
            if row_missing:
                made |= {n: _place(n, start[n], dtype, wanted[n]) for n in row.ours}
                lines += [f"  missing {', '.join(row_missing)}: initial {', '.join(row.ours)}"]
                continue
            made |= _read_row(tensors, row, wanted, dtype, into)
            lines += [f"  mapped  {', '.join(row.theirs)} -> {', '.join(row.ours)}"]
    lines += [f"  unused  {name}" for name in sorted(unused)]
    counts = f"{len(expected - missing)} tensors mapped, {len(missing)} missing"
    head = f"{tensors.name}: {counts}, {len(unused)} unused"
    return traverse_util.unflatten_dict(made, sep="/"), "\n".join([head, *lines])


def _read_row(
    tensors: Tensors,
    row: Row,
    wanted: Mapping[str, jax.ShapeDtypeStruct],
    dtype: str,
    into: Callable[[str, jax.ShapeDtypeStruct], Any],
) -> dict[str, Any]:
    """The parameters of one row, read layer by layer."""
    shards = {
        name: into(name, wanted[name])
        or Shards(wanted[name].shape, _dtype(name, wanted, dtype), wanted[name].sharding)
        for name in row.ours
    }
    first: dict[str, tuple[int, ...]] = {}
    for layer in _layers(row, wanted):
        if not any(held.needs(layer) for held in shards.values()):
            continue
        for name, part in zip(row.ours, _read(tensors, row, layer), strict=True):
            _check_shape(tensors, row, name, part.shape, first, wanted[name].shape)
            shards[name].fill(part, layer)
    return {name: held.array() for name, held in shards.items()}


def _check_shape(
    tensors: Tensors,
    row: Row,
    name: str,
    shape: tuple[int, ...],
    first: dict[str, tuple[int, ...]],
    want: tuple[int, ...],
) -> None:
    """Raise ValueError for a shape that is not that of the first layer, in `first` by name, or of
    the parameter."""
    before = first.setdefault(name, shape)
    if before != shape:
        shapes = " and ".join(str(list(x)) for x in sorted((before, shape)))
        raise ValueError(
            f"{' and '.join(row.theirs)} of '{tensors.name}' have other shapes in each layer, "
            f"{shapes}: get it again."
        )
    whole = (want[0], *shape) if _is_stacked(row) else shape
    if whole != tuple(want):
        raise ValueError(
            f"{' and '.join(row.theirs)} of '{tensors.name}' give {name} the shape {list(whole)}, "
            f"and the model that its config describes has {list(want)}: config and weights are "
            "from different models."
        )


def write_tensors(
    params: Any, rows: Sequence[Row], what: str = "model"
) -> Iterator[tuple[str, np.ndarray]]:
    """Published tensors of our parameters, one at a time, in float32.

    Raises:
      ValueError: parameters that do not match the published layout.
    """
    ours = traverse_util.flatten_dict(params, sep="/")
    known = {name for row in rows for name in row.ours}
    if ours.keys() - known or known - ours.keys():
        raise ValueError(
            f"This {what} cannot be written in the published layout: it has "
            f"the additional parameters {_some(ours.keys() - known)}, and is missing "
            f"{_some(known - ours.keys())}."
        )
    for row in rows:
        arrays = [np.asarray(ours[name], np.float32) for name in row.ours]
        for layer in _layers(row, ours):
            parts = arrays if layer is None else [x[layer] for x in arrays]
            for name, array in zip(row.theirs, row.write(*parts), strict=True):
                yield _at(name, layer), array


def _is_stacked(row: Row) -> bool:
    return any("{i}" in name for name in row.theirs)


def _layers(row: Row, ours: Mapping[str, Any]) -> Sequence[int | None]:
    """The layers of a row; [None] where it has none."""
    return range(ours[row.ours[0]].shape[0]) if _is_stacked(row) else [None]


def _at(name: str, layer: int | None) -> str:
    return name if layer is None else name.replace("{i}", str(layer))


def _read(tensors: Tensors, row: Row, layer: int | None) -> tuple[Any, ...]:
    """The parameters of a row in one layer: as views of the file where the row only moves values,
    else computed in fp32, to which the conversion from half precision is exact."""
    names = [_at(name, layer) for name in row.theirs]
    arrays = [tensor_file.view(tensors, name) for name in names]
    try:
        found = row.read(*arrays)
        if all(_is_view(part, arrays) for part in found):
            return found
        arrays = [array.astype(np.float32) for array in arrays]
        return row.read(*arrays)
    except (ValueError, IndexError, EinopsError):  # shapes do not fit
        shapes = " and ".join(str(list(x.shape)) for x in arrays)
        raise ValueError(
            f"{' and '.join(names)} of '{tensors.name}' has shape {shapes}, which does not fit its "
            "config: config and weights are from different models."
        ) from None


def _is_view(part: Any, arrays: Sequence[np.ndarray]) -> bool:
    parts = part.parts if isinstance(part, Joined) else [part]
    return all(any(np.may_share_memory(x, array) for array in arrays) for x in parts)


def kept_dtype(name: str, shape: Sequence[int], dtype: str) -> jnp.dtype:
    """The dtype of a parameter, where matrices are in `dtype`."""
    kept = name.rsplit("/", 1)[-1] in KEPT_FP32 or not shape
    return jnp.dtype("float32" if kept else dtype)


def _dtype(name: str, wanted: Mapping[str, Any], dtype: str) -> jnp.dtype:
    return kept_dtype(name, wanted[name].shape, dtype)


def _place(name: str, array: Any, dtype: str, want: jax.ShapeDtypeStruct) -> jax.Array:
    held = Shards(want.shape, kept_dtype(name, want.shape, dtype), want.sharding)
    held.fill(np.asarray(array), None)
    return held.array()


def _is_ignored(name: str, ignored: Iterable[str]) -> bool:
    return any(re.fullmatch(pattern, name) for pattern in ignored)


def _names(row: Row, ours: Mapping[str, Any]) -> set[str]:
    """The tensors of a row, with all of its layers."""
    return {_at(name, layer) for layer in _layers(row, ours) for name in row.theirs}


def _expected(rows: Sequence[Row], wanted: Mapping[str, Any], what: str) -> set[str]:
    """All tensors that the table names; raises ValueError where it does not fit the model."""
    covered = [name for row in rows for name in row.ours]
    if sorted(covered) != sorted(wanted):
        raise ValueError(
            f"The rename table for '{what}' does not fit the model: parameters without tensors: "
            f"{_some(wanted.keys() - set(covered))}; rows without a parameter: "
            f"{_some(set(covered) - wanted.keys())}."
        )
    return set().union(*(_names(row, wanted) for row in rows))


def _refuse(missing: set[str], unused: set[str], what: str) -> None:
    if missing or unused:
        near = difflib.get_close_matches(min(missing), unused, n=1) if missing and unused else []
        hint = f" ('{near[0]}' is similar to '{min(missing)}'.)" if near else ""
        raise ValueError(
            f"'{what}' is not the model that its config describes. Missing tensors: "
            f"{_some(missing)}. Unused tensors: {_some(unused)}.{hint}"
        )


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    shown = ", ".join(names[:10]) or "none"
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown
