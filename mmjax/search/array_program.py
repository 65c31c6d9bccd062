"""A traced function as a list of array operations that NumPy runs, without importing JAX.

    program.json    operations with their settings, arrays by place, inputs, the output
    arrays.bin      the arrays, memory-mapped: only what is used is read

The operations are JAX's primitives by name; `record.py` writes them. Those that are not in
`OPERATIONS` cannot be recorded.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FILE, ARRAYS = "program.json", "arrays.bin"
VERSION = 1
ALIGN = 64  # bytes


def write(folder: Path, program: Mapping[str, Any], arrays: Sequence[np.ndarray]) -> None:
    """Write a program of `record.py` and its arrays."""
    places, end = [], 0
    with open(folder / ARRAYS, "wb") as file:
        for array in arrays:
            end += file.write(b"\0" * (-end % ALIGN))
            places.append([array.dtype.name, list(array.shape), end])
            end += file.write(np.ascontiguousarray(array).tobytes())
    (folder / FILE).write_text(
        json.dumps({"version": VERSION, "arrays": places, **program}, default=int)
    )


class Program:
    """A recorded function of named arrays.

    Raises:
      ValueError: no program of this version.
    """

    def __init__(self, folder: Path):
        self.program = json.loads((folder / FILE).read_text())
        if self.program["version"] != VERSION:
            raise ValueError(f"{folder} has a program of version {self.program['version']}.")
        data = np.memmap(folder / ARRAYS, np.uint8, "r")
        self._arrays = []
        for dtype, shape, start in self.program["arrays"]:
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            self._arrays.append(data[start : start + size].view(dtype).reshape(shape))

    def __call__(self, **inputs: np.ndarray) -> np.ndarray:
        """The output for these inputs, of the recorded shapes and dtypes."""
        values: dict[int, np.ndarray] = dict(enumerate(self._arrays))
        for name, place in self.program["inputs"].items():
            values[place] = inputs[name]
        # Masked-out scores are infinite, and unused branches may divide by 0: as under XLA.
        with np.errstate(all="ignore"):
            for name, settings, ins, outs, last in self.program["operations"]:
                found = OPERATIONS[name](*(values[place] for place in ins), **settings)
                found = found if isinstance(found, list) else [found]
                values.update(zip(outs, found, strict=True))
                for place in last:
                    del values[place]
        return values[self.program["output"]]


def _broadcast(x, shape, broadcast_dimensions):
    sizes = np.ones(len(shape), int)
    sizes[broadcast_dimensions] = x.shape
    return np.broadcast_to(x.reshape(sizes), shape)


def _dot(a, b, dimension_numbers):
    (contract_a, contract_b), (batch_a, batch_b) = dimension_numbers
    free_a = [d for d in range(a.ndim) if d not in (*contract_a, *batch_a)]
    free_b = [d for d in range(b.ndim) if d not in (*contract_b, *batch_b)]
    batch = [a.shape[d] for d in batch_a]
    inner = int(np.prod([a.shape[d] for d in contract_a]))
    left = a.transpose([*batch_a, *free_a, *contract_a]).reshape(*batch, -1, inner)
    right = b.transpose([*batch_b, *contract_b, *free_b]).reshape(*batch, inner, -1)
    return (left @ right).reshape(
        *batch, *(a.shape[d] for d in free_a), *(b.shape[d] for d in free_b)
    )


def _erf(x):
    """As XLA's for float32, a rational function: Eigen, generic_fast_erf_float."""
    above = (-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06)
    above += (-5.69250639462346e-05, -7.34990630326855e-04, -2.95459980854025e-03)
    above += (-1.60960333262415e-02,)
    below = (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03)
    below += (-7.37332916720468e-03, -1.42647390514189e-02)
    x = np.clip(x, np.float32(-4), np.float32(4))
    square = x * x
    p, q = (np.full_like(x, np.float32(terms[0])) for terms in (above, below))
    for value, terms in ((p, above), (q, below)):
        for term in terms[1:]:
            value *= square
            value += np.float32(term)
    return x * p / q


def _gather(x, indices, slice_sizes, offset_dims, collapsed, index_map, batching, index_batching):
    """XLA's gather with indices that are moved into range."""
    batch = indices.shape[:-1]
    kept = [d for d in range(x.ndim) if d not in (*collapsed, *batching)]
    grid = len(batch) + len(kept)
    places = []
    for d in range(x.ndim):
        place = np.zeros((1,) * grid, np.int64)
        if d in index_map:
            start = np.clip(indices[..., index_map.index(d)], 0, x.shape[d] - slice_sizes[d])
            place = place + start.reshape(*batch, *(1,) * len(kept))
        if d in batching:
            axis = index_batching[batching.index(d)]
            place = place + np.arange(batch[axis]).reshape(-1, *(1,) * (grid - axis - 1))
        if d in kept:
            axis = len(batch) + kept.index(d)
            place = place + np.arange(slice_sizes[d]).reshape(-1, *(1,) * (grid - axis - 1))
        places.append(place)
    found = x[tuple(np.broadcast_arrays(*places))]
    rest = [d for d in range(found.ndim) if d not in offset_dims]
    return np.moveaxis(found, range(found.ndim), [*rest, *offset_dims])


def _dynamic_slice(x, *starts, slice_sizes):
    starts = [np.clip(int(s), 0, n - k) for s, n, k in zip(starts, x.shape, slice_sizes)]
    return x[tuple(slice(s, s + k) for s, k in zip(starts, slice_sizes))]


def _div(x, y):
    return x / y if x.dtype.kind == "f" else np.trunc(x / y).astype(x.dtype)  # integers: to zero


def _split(x, sizes, axis):
    return np.split(x, np.cumsum(sizes)[:-1], axis)


def _cumsum(x, axis, reverse):
    if reverse:
        return np.flip(np.cumsum(np.flip(x, axis), axis, x.dtype), axis)
    return np.cumsum(x, axis, x.dtype)


def _iota(dtype, shape, dimension):
    return _broadcast(np.arange(shape[dimension], dtype=dtype), shape, [dimension])


def _slice(x, start_indices, limit_indices, strides):
    return x[tuple(map(slice, start_indices, limit_indices, strides))]


def _one(x):
    return np.ones((), x.dtype)


OPERATIONS: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(("add", "add_any"), np.add),
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _div,
    "rem": np.fmod,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "exp": np.exp,
    "exp2": np.exp2,
    "log": np.log,
    "log1p": np.log1p,
    "tanh": np.tanh,
    "logistic": lambda x: _one(x) / (_one(x) + np.exp(-x)),
    "erf": _erf,
    "erfc": lambda x: _one(x) - _erf(x),
    "sqrt": np.sqrt,
    "rsqrt": lambda x: _one(x) / np.sqrt(x),
    "square": np.square,
    "integer_pow": lambda x, y: x**y if y >= 0 else _one(x) / x**-y,
    "pow": np.power,
    "max": np.maximum,
    "min": np.minimum,
    "clamp": lambda low, x, high: np.clip(x, low, high),
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "not": np.bitwise_not,
    "is_finite": np.isfinite,
    "select_n": lambda which, *cases: np.choose(which.astype(np.int64), cases),
    "convert_element_type": lambda x, new_dtype: x.astype(new_dtype),
    "broadcast_in_dim": _broadcast,
    "reshape": lambda x, new_sizes: x.reshape(new_sizes),
    "squeeze": lambda x, dimensions: x.squeeze(tuple(dimensions)),
    "expand_dims": lambda x, dimensions: np.expand_dims(x, tuple(dimensions)),
    "transpose": lambda x, permutation: x.transpose(permutation),
    "concatenate": lambda *parts, dimension: np.concatenate(parts, dimension),
    "slice": _slice,
    "split": _split,
    "dynamic_slice": _dynamic_slice,
    "gather": _gather,
    "iota": _iota,
    "dot_general": _dot,
    "cumsum": _cumsum,
    "argmax": lambda x, axis, index_dtype: x.argmax(axis).astype(index_dtype),
    "reduce_sum": lambda x, axes: x.sum(tuple(axes), x.dtype),
    "reduce_max": lambda x, axes: x.max(tuple(axes)),
    "reduce_min": lambda x, axes: x.min(tuple(axes)),
    "reduce_and": lambda x, axes: x.all(tuple(axes)),
    "reduce_or": lambda x, axes: x.any(tuple(axes)),
    "rev": lambda x, dimensions: np.flip(x, dimensions),
    "row": lambda x, index: x[index],  # of a scan, which is unrolled
    "stack": lambda *parts: np.stack(parts),
    "copy": lambda x: x,
    "stop_gradient": lambda x: x,
    "optimization_barrier": lambda *parts: list(parts),
}
