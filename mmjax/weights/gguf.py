"""GGUF, the file format of llama.cpp, read by the package `gguf`: metadata and quantized tensors.

In addition to the package's reader: errors that name the file, bounds checks on every read (a
damaged length could otherwise cause very long loops), split files, and dequantization of one tensor
at a time.
"""

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
# What the package raises on unexpected bytes.
_DAMAGED = (ValueError, KeyError, IndexError, OverflowError, TypeError)


class GGUF:
    """A GGUF file, or all files of a split one: `metadata` (name -> value), and its `Tensors`.

    Opening reads only the header; tensors are read on demand. The path may be any file of a split
    model; all its files must be in one folder.

    Raises:
      ValueError: a missing file, another kind of file, another version, a truncated or damaged
        one, or tensors of a type that cannot be dequantized.
    """

    def __init__(self, path: str | Path):
        self.name = str(path)
        first, *others = (_open(part) for part in _parts(Path(path)))
        self.metadata = _metadata(first)
        count = self.metadata.get("split.count", 1)
        if count != 1 + len(others):
            raise ValueError(
                f"'{path}' is one of {count} files of a split model: restore their original names, "
                f"such as model-00001-of-{count:05}.gguf."
            )
        tensors = [tensor for reader in (first, *others) for tensor in reader.tensors]
        self._tensors = {tensor.name: tensor for tensor in tensors}
        expected = self.metadata.get("split.tensors.count", len(tensors))
        if not expected == len(tensors) == len(self._tensors):
            raise ValueError(
                f"The {count} files of '{path}' hold {len(tensors)} tensors with "
                f"{len(self._tensors)} names, where the first file counts {expected}: they are "
                "not of one model."
            )
        self.shapes = {k: tuple(x.shape.tolist())[::-1] for k, x in self._tensors.items()}
        for name, tensor in self._tensors.items():
            if not _can_dequantize(tensor.tensor_type):
                raise ValueError(
                    f"Tensor '{name}' of '{path}' has type {tensor.tensor_type.name}, which the "
                    "package gguf cannot dequantize: use a file with another quantization."
                )

    def read(self, name: str) -> np.ndarray:
        """A tensor in float32."""
        from gguf import quants

        tensor = self._tensors[name]
        return quants.dequantize(tensor.data, tensor.tensor_type).reshape(self.shapes[name])


def _parts(path: Path) -> list[Path]:
    """All files of the model that `path` is a part of."""
    split = _SPLIT.search(path.name)
    if split is None:
        return [path]
    stem, count = path.name[: split.start()], int(split[2])
    return [path.with_name(f"{stem}-{i + 1:05}-of-{count:05}.gguf") for i in range(count)]


def _open(path: Path) -> Any:
    """The package's reader of one file."""
    if not path.is_file():
        raise ValueError(f"There is no GGUF file '{path}'.")
    with path.open("rb") as file:
        head = file.read(8)
    if head[:4] != _MAGIC:
        raise ValueError(
            f"'{path}' is not a GGUF file: it begins with {head[:4]!r}, not {_MAGIC!r}."
        )
    version = int.from_bytes(head[4:], "little")
    if version not in _VERSIONS:
        raise ValueError(
            f"'{path}' has version {version} of GGUF; 2 and 3, little-endian, can be read."
        )
    try:
        return _reader()(path)
    except _DAMAGED as error:
        raise ValueError(f"'{path}' is truncated or damaged ({error}): get it again.") from None


@functools.cache
def _reader() -> type:
    from gguf import GGUFReader  # imported late: few runs need it, and it takes 0.1 s

    class Reader(GGUFReader):
        """The package's reader, with reads limited to the file."""

        def _get(self, offset, dtype, count=1, override_order=None):
            del override_order  # the file is little-endian
            return np.frombuffer(self.data, np.dtype(dtype).newbyteorder("<"), int(count), offset)

    return Reader


def _metadata(reader: Any) -> dict[str, Any]:
    """The values as Python objects, without those that the package adds."""
    fields = {k: field for k, field in reader.fields.items() if not k.startswith("GGUF.")}
    try:
        return {name: field.contents() for name, field in fields.items()}
    except _DAMAGED as error:
        path = reader.data.filename
        raise ValueError(f"'{path}' has damaged metadata ({error}): get it again.") from None


@functools.cache
def _can_dequantize(kind: Any) -> bool:
    """Whether the package can dequantize a type; tested with a block of zeros."""
    from gguf import constants, quants

    try:
        quants.dequantize(np.zeros((1, constants.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True
