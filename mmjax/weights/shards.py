"""What the devices of this process hold of one parameter, filled while its tensors are read."""

import math
from typing import Any

import jax
import numpy as np

Slices = tuple[slice, ...]
Bounds = tuple[tuple[int, int], ...]  # begin and end along each axis


class Shards:
    """One parameter in the host memory that its shards on this process's devices need.

    Args:
      shape: of the whole parameter; sharding: None: it is on the default device.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype, sharding: jax.sharding.Sharding | None
    ):
        self._shape, self._sharding = tuple(shape), sharding
        held = _held(self._shape, sharding)
        self._buffers = {bounds: _aligned([b - a for a, b in bounds], dtype) for bounds in held}

    def needs(self, layer: int | None) -> bool:
        """Whether any shard has a part of the layer, along the first axis."""
        return any(_place(bounds, layer) is not None for bounds in self._buffers)

    def fill(self, array: Any, layer: int | None) -> None:
        """Take what the shards need of a parameter, or of a layer of it.

        Args:
          array: of any float dtype; only those of its slices are read that are needed.
        """
        for bounds, buffer in self._buffers.items():
            place = _place(bounds, layer)
            if place is not None:
                inner = bounds if layer is None else bounds[1:]
                buffer[place] = array[tuple(slice(a, b) for a, b in inner)]

    def array(self) -> jax.Array:
        """The parameter on its devices."""
        if self._sharding is None:
            (buffer,) = self._buffers.values()
            return jax.device_put(buffer)

        def held(index: Slices) -> np.ndarray:
            return self._buffers[_bounds(index, self._shape)]

        return jax.make_array_from_callback(self._shape, self._sharding, held)


def held_bytes(
    shape: tuple[int, ...], dtype: np.dtype, sharding: jax.sharding.Sharding | None
) -> int:
    """Bytes of a parameter in the host memory of this process while it is read."""
    held = _held(tuple(shape), sharding)
    sizes = (math.prod(end - begin for begin, end in bounds) for bounds in held)
    return sum(sizes) * np.dtype(dtype).itemsize


def _held(shape: tuple[int, ...], sharding: jax.sharding.Sharding | None) -> set[Bounds]:
    """The shards of a parameter on this process's devices, each once; without a sharding all of
    it."""
    if sharding is None:
        return {tuple((0, size) for size in shape)}
    indices = sharding.addressable_devices_indices_map(shape).values()
    return {_bounds(index, shape) for index in indices}


def _bounds(index: Slices, shape: tuple[int, ...]) -> Bounds:
    return tuple(part.indices(size)[:2] for part, size in zip(index, shape))


def _place(bounds: Bounds, layer: int | None) -> Any:
    """Where a layer is in a shard; None: it is not."""
    if layer is None:
        return ...
    first, end = bounds[0]
    return (layer - first, ...) if first <= layer < end else None


def _aligned(shape: list[int], dtype: np.dtype) -> np.ndarray:
    """An array that a CPU device takes over without a copy."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)
