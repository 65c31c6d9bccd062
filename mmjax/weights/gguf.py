"""GGUF, the file format of llama.cpp: metadata, and quantized tensors, which the package `gguf`
dequantizes one at a time; split files too.
"""

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.weights.gguf_header import Header

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


class GGUF:
    """A GGUF file, or all files of a split one: `metadata` (name -> value), and its `Tensors`.

    Opening reads only the headers; tensors are read on demand. The path may be any file of a split
    model; all its files must be in one folder.

    Raises:
      ValueError: a missing file, another kind of file, another version, a truncated or damaged
        one, or tensors of a type that cannot be dequantized.
    """

    def __init__(self, path: str | Path):
        self.name = str(path)
        first, *others = (_open(part) for part in _parts(Path(path)))
        self.metadata = first.metadata
        count = self.metadata.get("split.count", 1)
        if count != 1 + len(others):
            raise ValueError(
                f"'{path}' is one of {count} files of a split model: restore their original names, "
                f"such as model-00001-of-{count:05}.gguf."
            )
        self._file = {name: file for file in (first, *others) for name in file.tensors}
        total = sum(len(file.tensors) for file in (first, *others))
        expected = self.metadata.get("split.tensors.count", total)
        if not expected == total == len(self._file):
            raise ValueError(
                f"The {count} files of '{path}' hold {total} tensors with {len(self._file)} names, "
                f"where the first file counts {expected}: they are not of one model."
            )
        self.shapes = {name: file.tensors[name].shape for name, file in self._file.items()}
        for name in self._file:
            self._stored(name)

    def read(self, name: str) -> np.ndarray:
        """A tensor in float32."""
        from gguf import quants

        return quants.dequantize(*self._stored(name)).reshape(self.shapes[name])

    def _stored(self, name: str) -> tuple[np.ndarray, Any]:
        """The bytes of a tensor, and the package's name of its type."""
        from gguf import constants  # imported late: few runs need it, and it takes 0.1 s

        file = self._file[name]
        try:
            kind = constants.GGMLQuantizationType(file.tensors[name].kind)
            data = file.data(name, *constants.GGML_QUANT_SIZES[kind])
        except ValueError as error:
            raise ValueError(
                f"'{self.name}' is truncated or damaged ({error}): get it again."
            ) from None
        if not _can_dequantize(kind):
            raise ValueError(
                f"Tensor '{name}' of '{self.name}' has type {kind.name}, which the package gguf "
                "cannot dequantize: use a file with another quantization."
            )
        return data, kind


def _parts(path: Path) -> list[Path]:
    """All files of the model that `path` is a part of."""
    split = _SPLIT.search(path.name)
    if split is None:
        return [path]
    stem, count = path.name[: split.start()], int(split[2])
    return [path.with_name(f"{stem}-{i + 1:05}-of-{count:05}.gguf") for i in range(count)]


def _open(path: Path) -> Header:
    """The header of one file."""
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
        return Header(path)
    except ValueError as error:
        raise ValueError(f"'{path}' is truncated or damaged ({error}): get it again.") from None


@functools.cache
def _can_dequantize(kind: Any) -> bool:
    """Whether the package can dequantize a type; tested with a block of zeros."""
    from gguf import constants, quants

    try:
        quants.dequantize(np.zeros((1, constants.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True
