"""GGUF, the file format of llama.cpp: metadata, and tensors that are often quantized.

Source: ggml-org/ggml, docs/gguf.md (versions 2 and 3); blocks as in ggml's ggml-quants.c.
"""

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_NUMBERS[12] = "d"
_STRING, _ARRAY = 8, 9


class Tensor(NamedTuple):
    """Where a tensor lies: `shape` as numpy has it (the file writes it backwards)."""

    shape: tuple[int, ...]
    kind: int
    offset: int


# ---- from blocks of bytes [N, bytes] to float32 [N, values] --------------------------------------


def _half(blocks: np.ndarray) -> np.ndarray:
    """[N, 2k] bytes as k float16 each, in float32."""
    return np.ascontiguousarray(blocks).view("<f2").astype(np.float32)


def _nibbles(blocks: np.ndarray) -> np.ndarray:
    """[N, k] bytes as [N, 2k] numbers below 16: the low halves of all, then the high ones."""
    return np.concatenate([blocks & 15, blocks >> 4], axis=1)


def _f32(blocks):
    return np.ascontiguousarray(blocks).view("<f4")


def _bf16(blocks):
    wide = np.ascontiguousarray(blocks).view("<u2").astype(np.uint32) << 16
    return wide.view(np.float32)


def _q4_0(blocks):
    return _half(blocks[:, :2]) * (_nibbles(blocks[:, 2:]).astype(np.float32) - 8)


def _q4_1(blocks):
    scale, least = _half(blocks[:, :2]), _half(blocks[:, 2:4])
    return scale * _nibbles(blocks[:, 4:]) + least


def _q8_0(blocks):
    return _half(blocks[:, :2]) * np.ascontiguousarray(blocks[:, 2:]).view(np.int8)


def _q6_k(blocks):
    """Two runs of 128 values: low 4 bits, high 2 bits, and a scale for each 16 values."""
    n = len(blocks)
    low = blocks[:, :128].reshape(n, 2, 1, 64)
    low = np.concatenate([low & 15, low >> 4], axis=2).reshape(n, 2, 4, 32)
    high = blocks[:, 128:192].reshape(n, 2, 1, 32)
    high = (high >> np.asarray([0, 2, 4, 6], np.uint8)[:, None]) & 3
    values = (low | high << 4).astype(np.float32) - 32
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32)
    values = values.reshape(n, 16, 16) * (scales * _half(blocks[:, 208:]))[:, :, None]
    return values.reshape(n, 256)


class Kind(NamedTuple):
    """A type of tensor: values and bytes of a block, and its reader."""

    name: str
    values: int
    bytes: int
    read: Callable[[np.ndarray], np.ndarray]


KINDS = {
    0: Kind("F32", 1, 4, _f32),
    1: Kind("F16", 1, 2, _half),
    2: Kind("Q4_0", 32, 18, _q4_0),
    3: Kind("Q4_1", 32, 20, _q4_1),
    8: Kind("Q8_0", 32, 34, _q8_0),
    14: Kind("Q6_K", 256, 210, _q6_k),
    30: Kind("BF16", 1, 2, _bf16),
}


# ---- the file ------------------------------------------------------------------------------------


class GGUF:
    """A GGUF file: `metadata` (name -> value), and its `Tensors`.

    Opening reads the header; the tensors stay on disk until they are read.

    Raises:
      ValueError: no such file, another kind of file, another version, or a truncated one.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"There is no GGUF file '{path}'.")
        if self.path.stat().st_size < 24:
            raise ValueError(f"'{path}' is no GGUF file: it has {self.path.stat().st_size} bytes.")
        self._bytes = np.memmap(self.path, np.uint8, "r")
        self._at = 0
        magic, version = self._take("<4sI")
        if magic != b"GGUF":
            raise ValueError(f"'{path}' is no GGUF file: it begins with {magic!r}, not b'GGUF'.")
        if version not in (2, 3):
            raise ValueError(f"'{path}' has version {version} of GGUF; 2 and 3 can be read.")
        count, pairs = self._take("<QQ")
        self.metadata: dict[str, Any] = {}
        for _ in range(pairs):
            name = self._string()
            self.metadata[name] = self._value(self._take("<I")[0])
        self.tensors: dict[str, Tensor] = {}
        for _ in range(count):
            name = self._string()
            shape = self._take(f"<{self._take('<I')[0]}Q")
            self.tensors[name] = Tensor(shape[::-1], *self._take("<IQ"))
        self.name = str(self.path)
        self.shapes = {name: tensor.shape for name, tensor in self.tensors.items()}
        self._check(int(self.metadata.get("general.alignment", 32)))

    def read(self, name: str) -> np.ndarray:
        """A tensor in float32."""
        tensor = self.tensors[name]
        kind = KINDS[tensor.kind]
        start = self._start + tensor.offset
        blocks = self._bytes[start : start + self._size(tensor)].reshape(-1, kind.bytes)
        return kind.read(np.asarray(blocks)).astype(np.float32, copy=False).reshape(tensor.shape)

    def _check(self, alignment: int) -> None:
        """Every tensor must be of a kind that we read, and lie inside the file."""
        self._start = -(-self._at // alignment) * alignment
        for name, tensor in self.tensors.items():
            if tensor.kind not in KINDS:
                raise ValueError(
                    f"Tensor '{name}' of '{self.path}' has ggml type {tensor.kind}, which cannot "
                    f"be read; these can: {', '.join(k.name for k in KINDS.values())}."
                )
            kind = KINDS[tensor.kind]
            if not tensor.shape or tensor.shape[-1] % kind.values:
                raise ValueError(
                    f"Tensor '{name}' of '{self.path}' has shape {list(tensor.shape)}, which is "
                    f"not made of {kind.name} blocks of {kind.values}: the file is damaged."
                )
            if self._start + tensor.offset + self._size(tensor) > len(self._bytes):
                raise self._truncated(f"tensor '{name}' goes beyond its end")

    def _size(self, tensor: Tensor) -> int:
        kind = KINDS[tensor.kind]
        return math.prod(tensor.shape) // kind.values * kind.bytes

    def _truncated(self, what: str) -> ValueError:
        return ValueError(
            f"'{self.path}' is truncated or damaged: {what} ({len(self._bytes)} bytes). "
            "Get it again."
        )

    def _run(self, size: int) -> bytes:
        """The next bytes of the header."""
        if self._at + size > len(self._bytes):
            raise self._truncated("its header goes beyond its end")
        self._at += size
        return self._bytes[self._at - size : self._at].tobytes()

    def _take(self, form: str) -> tuple:
        return struct.unpack(form, self._run(struct.calcsize(form)))

    def _string(self) -> str:
        return self._run(self._take("<Q")[0]).decode("utf-8", errors="replace")

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            of, count = self._take("<IQ")
            if of in _NUMBERS:
                return list(self._take(f"<{count}{_NUMBERS[of]}"))
            return [self._value(of) for _ in range(count)]
        if kind not in _NUMBERS:
            raise self._truncated(f"its header has a value of type {kind}")
        return self._take("<" + _NUMBERS[kind])[0]
