"""The header of a GGUF file: metadata, and where its tensors are, with every number bounded.

A count in the header is compared with the bytes that are left before anything of it is read, so
that a damaged or hostile file ends at once.

Source of the format: ggml, docs/gguf.md.
"""

import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# Value types 0 to 12; 8 is a text and 9 an array.
_NUMBERS = {i: np.dtype(t) for i, t in enumerate(("u1", "i1", "<u2", "<i2", "<u4", "<i4", "<f4"))}
_NUMBERS |= {7: np.dtype("?"), 10: np.dtype("<u8"), 11: np.dtype("<i8"), 12: np.dtype("<f8")}
_TEXT, _ARRAY = 8, 9
_MAX_DIMS = 4  # GGML_MAX_DIMS
_MAX_ALIGNMENT = 1 << 20
_MAX_NESTED = 4  # arrays within arrays


class Tensor(NamedTuple):
    """A tensor: its shape in NumPy's order, ggml's number of its type, and its first byte."""

    shape: tuple[int, ...]
    kind: int
    offset: int


class Header:
    """What a file has before its data.

    Attributes:
      bytes: the whole file, mapped, [N] uint8.
      metadata: name -> number, text, or list.
      tensors: name -> `Tensor`, whose offset counts from the beginning of the file.

    Raises:
      ValueError: a truncated or damaged header; the message says how, without the file's name.
    """

    def __init__(self, path: Path):
        self.bytes = np.memmap(path, np.uint8, "r")
        self._view = memoryview(self.bytes)  # of which small slices are fast
        self._at = 8  # after magic number and version
        tensors, pairs = self._numbers("<QQ")
        # A pair has 13 bytes or more, a description of a tensor 24.
        if 13 * pairs + 24 * tensors > len(self.bytes):
            raise ValueError(f"{pairs} settings and {tensors} tensors in {len(self.bytes)} bytes")
        self.metadata: dict[str, Any] = {}
        for _ in range(pairs):
            name = self._text()
            if name in self.metadata:
                raise ValueError(f"the setting '{name}' twice")
            self.metadata[name] = self._value(*self._numbers("<I"))
        self.tensors: dict[str, Tensor] = {}
        for _ in range(tensors):
            name, (dims,) = self._text(), self._numbers("<I")
            if dims > _MAX_DIMS or name in self.tensors:
                raise ValueError(f"the tensor '{name}' of {dims} axes, or twice")
            shape = self._numbers(f"<{dims}Q")[::-1]
            self.tensors[name] = Tensor(shape, *self._numbers("<IQ"))
        alignment = self.metadata.get("general.alignment", 32)
        if (
            not isinstance(alignment, int)
            or not 0 < alignment <= _MAX_ALIGNMENT
            or alignment & (alignment - 1)
        ):
            raise ValueError(f"general.alignment is {alignment!r}, no power of two")
        start = -(-self._at // alignment) * alignment
        self.tensors = {k: x._replace(offset=start + x.offset) for k, x in self.tensors.items()}

    def data(self, name: str, block: int, size: int) -> np.ndarray:
        """The bytes of a tensor, [..., bytes of a row] uint8.

        Args:
          block, size: how many values of its type are stored together, and in how many bytes.

        Raises:
          ValueError: rows that are no whole blocks, or data beyond the end of the file.
        """
        shape, _, offset = self.tensors[name]
        row = shape[-1] if shape else 1
        if row % block:
            raise ValueError(f"'{name}' has rows of {row} values in blocks of {block}")
        total = math.prod(shape) // block * size
        if offset + total > len(self.bytes):
            raise ValueError(f"'{name}' ends at {offset + total:,} of {len(self.bytes):,} bytes")
        return self.bytes[offset : offset + total].reshape(*shape[:-1], row // block * size)

    def _take(self, size: int) -> memoryview:
        found = self._view[self._at : self._at + size]
        if len(found) < size:
            raise ValueError(f"{size:,} bytes are wanted at {self._at:,} of {len(self.bytes):,}")
        self._at += size
        return found

    def _numbers(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self._take(struct.calcsize(form)))

    def _text(self) -> str:
        return self._take(*self._numbers("<Q")).tobytes().decode()

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind == _TEXT:
            return self._text()
        if kind in _NUMBERS:
            return np.frombuffer(self._take(_NUMBERS[kind].itemsize), _NUMBERS[kind])[0].item()
        if kind != _ARRAY or depth == _MAX_NESTED:
            raise ValueError(f"a value of the type {kind} in {depth} arrays")
        inner, count = self._numbers("<IQ")
        if inner in _NUMBERS:
            data = self._take(count * _NUMBERS[inner].itemsize)
            return np.frombuffer(data, _NUMBERS[inner]).tolist()
        # A text has 8 bytes or more, an array 12.
        if 8 * count > len(self.bytes) - self._at:
            raise ValueError(f"an array of {count} values at {self._at:,} of {len(self.bytes):,}")
        return [self._value(inner, depth + 1) for _ in range(count)]
