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
from mmjax.weights.layouts import Row
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
) -> tuple[Any, str]:
    """Our parameters from published tensors, each placed on devices as soon as it is read.

    At most one parameter (with all of its layers) is in host memory besides the placed ones.

    Args:
      target: ShapeDtypeStructs of our parameters; those with a sharding are placed accordingly.
      ignored: regular expressions that match full names of tensors that are not parameters.
      dtype: of the matrices; scales and biases stay in float32.
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
            arrays = [_read(tensors, row, layer) for layer in _layers(row, wanted)]
            stacked = _is_stacked(row)
            for k, name in enumerate(row.ours):
                parts = [layer[k] for layer in arrays]
                shapes = {part.shape for part in parts}
                if len(shapes) > 1:
                    raise ValueError(
                        f"{' and '.join(row.theirs)} of '{tensors.name}' have other shapes in each "
                        f"layer, {' and '.join(map(str, map(list, sorted(shapes))))}: get it again."
                    )
                array = np.stack(parts) if stacked else parts[0]
                want = wanted[name]
                if array.shape != tuple(want.shape):
                    raise ValueError(
                        f"{' and '.join(row.theirs)} of '{tensors.name}' give {name} the shape "
                        f"{list(array.shape)}, and the model that its config describes has "
                        f"{list(want.shape)}: config and weights are from different models."
                    )
                made[name] = _place(name, array, dtype, want)
            del arrays
            lines += [f"  mapped  {', '.join(row.theirs)} -> {', '.join(row.ours)}"]
    lines += [f"  unused  {name}" for name in sorted(unused)]
    counts = f"{len(expected - missing)} tensors mapped, {len(missing)} missing"
    head = f"{tensors.name}: {counts}, {len(unused)} unused"
    return traverse_util.unflatten_dict(made, sep="/"), "\n".join([head, *lines])


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


def _read(tensors: Tensors, row: Row, layer: int | None) -> tuple[np.ndarray, ...]:
    # One layer at a time in fp32; the conversion from half precision is exact.
    names = [_at(name, layer) for name in row.theirs]
    arrays = [tensors.read(name).astype(np.float32) for name in names]
    try:
        return row.read(*arrays)
    except (ValueError, IndexError, EinopsError):  # shapes do not fit
        shapes = " and ".join(str(list(x.shape)) for x in arrays)
        raise ValueError(
            f"{' and '.join(names)} of '{tensors.name}' has shape {shapes}, which does not fit its "
            "config: config and weights are from different models."
        ) from None


def kept_dtype(name: str, shape: Sequence[int], dtype: str) -> jnp.dtype:
    """The dtype of a parameter, where matrices are in `dtype`."""
    kept = name.rsplit("/", 1)[-1] in KEPT_FP32 or not shape
    return jnp.dtype("float32" if kept else dtype)


def _place(name: str, array: Any, dtype: str, want: jax.ShapeDtypeStruct) -> jax.Array:
    array = np.asarray(array, kept_dtype(name, want.shape, dtype), order="C")
    if want.sharding is None:
        return jax.device_put(array)
    return jax.make_array_from_callback(array.shape, want.sharding, lambda index: array[index])


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
