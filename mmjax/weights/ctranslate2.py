"""Read model.bin of CTranslate2: named tensors, in full or half precision or in int8.

Source of the format: CTranslate2, src/models/model.cc (Model::load) and python/ctranslate2/specs/
model_spec.py (ModelSpec._serialize).
"""

import math
import struct
from pathlib import Path

import ml_dtypes
import numpy as np

FILE = "model.bin"
VERSION = 6
_DTYPES = (np.float32, np.int8, np.int16, np.int32, np.float16, ml_dtypes.bfloat16)
_SCALE = "_scale"  # of an integer tensor: what it, or each of its rows, was multiplied by


class CTranslate2:
    """The tensors of a model.bin, read on demand, like `tensor_file.Safetensors`.

    A tensor in int8 or int16 is returned in fp32, divided by its scale, which is not a tensor of
    its own.

    Attributes:
      name: of the file, for messages; spec: the kind of model, such as "WhisperSpec".
      shapes: name -> shape, () of numbers.
      aliases: further name -> name of the same tensor.

    Raises:
      ValueError: a file that is missing, truncated, of another version, or of another kind.
    """

    def __init__(self, path: str | Path):
        self.name = str(path)
        if not Path(path).is_file():
            raise ValueError(f"There is no file '{path}'.")
        empty = not Path(path).stat().st_size  # which cannot be mapped
        self._bytes = np.empty(0, np.uint8) if empty else np.memmap(path, np.uint8, "r")
        self._at = 0
        (version,) = self._numbers("<I")
        if version != VERSION:
            raise ValueError(
                f"'{path}' is no model.bin of CTranslate2 in version {VERSION}, the only one that "
                f"can be read (its first number is {version}): convert the model again with "
                "CTranslate2 4, or load its folder of transformers."
            )
        self.spec = self._string()
        self.revision, count = self._numbers("<II")
        self._places = dict(self._variable() for _ in range(count))
        self.aliases = {self._string(): self._string() for _ in range(self._numbers("<I")[0])}
        self.shapes = {
            name: shape
            for name, (shape, _, _) in self._places.items()
            if name.removesuffix(_SCALE) not in self._places or not name.endswith(_SCALE)
        }

    def read(self, name: str) -> np.ndarray:
        """One tensor in its stored dtype, or in float32 where it has a scale."""
        array = self._stored(name)
        if name + _SCALE not in self._places:
            return array
        scale = self._stored(name + _SCALE).astype(np.float32)
        return array.astype(np.float32) / scale.reshape(-1, *(1,) * (array.ndim - 1))

    def _stored(self, name: str) -> np.ndarray:
        shape, dtype, at = self._places[name]
        size = math.prod(shape) * dtype.itemsize
        return self._bytes[at : at + size].view(dtype).reshape(shape)

    def _take(self, size: int) -> np.ndarray:
        found = self._bytes[self._at : self._at + size]
        if len(found) < size:
            raise ValueError(
                f"'{self.name}' is truncated at {len(self._bytes):,} bytes: get it again."
            )
        self._at += size
        return found

    def _numbers(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self._take(struct.calcsize(form)).tobytes())

    def _string(self) -> str:
        (size,) = self._numbers("<H")  # with the NUL at the end
        text = self._take(size).tobytes()
        try:
            return text[:-1].decode()
        except UnicodeDecodeError:
            raise ValueError(f"'{self.name}' is damaged: get it again.") from None

    def _variable(self) -> tuple[str, tuple[tuple[int, ...], np.dtype, int]]:
        """The name of the next variable, and its shape, dtype and place in the file."""
        name = self._string()
        (rank,) = self._numbers("<B")
        shape = self._numbers(f"<{rank}I")
        kind, size = self._numbers("<BI")
        if kind >= len(_DTYPES):
            raise ValueError(
                f"'{name}' of '{self.name}' has the unknown dtype {kind}: get it again."
            )
        dtype = np.dtype(_DTYPES[kind])
        if size != math.prod(shape) * dtype.itemsize:
            raise ValueError(
                f"'{name}' of '{self.name}' has {size} bytes and the shape {list(shape)} in "
                f"{dtype}, which do not fit: get it again."
            )
        at = self._at
        self._take(size)
        return name, (shape, dtype, at)
