"""Files of `torch.save` that hold a dict of plain tensors, read without torch.

Two containers: since torch 1.6 a zip of a pickle and one entry per storage; before, a stream of
pickles followed by the storages. The pickles are interpreted by `torch_pickle`, never executed.

Source of the format: torch 2.13, serialization.py (_save, _legacy_save, _legacy_load).
"""

import io
import math
import struct
import zipfile
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mmjax.weights import torch_pickle
from mmjax.weights.torch_pickle import SAFER, Storage, Tensor

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class _Container(Protocol):
    """The value of a file's pickle, and the bytes of its storages."""

    value: Any

    def stored(self, storage: Storage) -> np.ndarray:
        """The bytes of a storage, [N] uint8; raises `ValueError` where they have another size."""


class TorchFile:
    """The tensors of a torch file, which are read on demand, like `tensor_file.Safetensors`.

    Attributes:
      name: of the file, for messages; shapes: name -> shape.

    Raises:
      ValueError: a file that is missing, damaged or of another kind, that holds anything but a dict
        of tensors, or a tensor that reaches beyond its storage.
    """

    def __init__(self, path: str | Path):
        self.name = str(path)
        if not Path(path).is_file():
            raise ValueError(f"There is no file '{path}'.")
        with open(path, "rb") as file:
            start = file.read(2)
        if start == b"PK":
            self._container: _Container = _Zip(self.name)
        elif start == b"\x80\x02":
            self._container = _Stream(self.name)
        else:
            raise ValueError(f"'{path}' is no file of torch.save: get it again.")
        self._tensors = self._container.value
        if not isinstance(self._tensors, dict):
            raise ValueError(self._other(f"a {type(self._tensors).__name__}"))
        for name, tensor in self._tensors.items():
            if not isinstance(tensor, Tensor):
                raise ValueError(self._other(f"a {type(tensor).__name__} as '{name}'"))
            _check_fits(tensor, name, self.name)
        self.shapes = {name: tensor.shape for name, tensor in self._tensors.items()}

    def _other(self, what: str) -> str:
        return f"'{self.name}' holds {what} and not a dict of tensors alone: {SAFER}."

    def read(self, name: str) -> np.ndarray:
        """One tensor in its stored dtype (including bfloat16 and float16)."""
        tensor = self._tensors[name]
        dtype = tensor.storage.dtype
        flat = self._container.stored(tensor.storage).view(dtype)[tensor.offset :]
        strides = [stride * dtype.itemsize for stride in tensor.strides]
        return np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=False)


def _check_fits(tensor: Tensor, name: str, file: str) -> None:
    """Raise ValueError unless a tensor is inside its storage, and no larger than it."""
    storage, count = tensor.storage, math.prod(tensor.shape)
    last = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides))
    inside = tensor.offset + last < storage.size if count else tensor.offset <= storage.size
    if not inside or count > storage.size or len(tensor.shape) > 32:
        raise ValueError(
            f"'{name}' of '{file}' has the shape {list(tensor.shape)} with the strides "
            f"{list(tensor.strides)}, which do not fit its {storage.size:,} stored values: get it "
            "again."
        )


def _check_bytes(file: str, storage: Storage, has: int) -> None:
    wanted = storage.size * storage.dtype.itemsize
    if has != wanted:
        raise ValueError(
            f"Storage {storage.key} of '{file}' has {has:,} bytes where {wanted:,} are needed: get "
            "it again."
        )


class _Zip:
    """A zip whose entries are not compressed: PREFIX/data.pkl, and PREFIX/data/KEY per storage."""

    def __init__(self, name: str):
        self._name, self._last = name, None
        try:
            self._zip = zipfile.ZipFile(name)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
            raise ValueError(
                f"'{name}' is truncated or no zip of torch.save ({error}): get it again."
            ) from None
        names = self._zip.namelist()
        pickles = [n for n in names if n.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(
                f"'{name}' is a zip with {len(pickles)} entries data.pkl where torch.save writes "
                "one: get it again."
            )
        self._prefix = pickles[0].removesuffix("data.pkl")
        order = f"{self._prefix}byteorder"
        if order in names and self._entry(order) != b"little":
            raise ValueError(f"'{name}' has big-endian numbers, which cannot be read: {SAFER}.")
        self.value = torch_pickle.read(io.BytesIO(self._entry(pickles[0])), name)

    def _entry(self, entry: str) -> bytes:
        try:
            info = self._zip.getinfo(entry)
        except KeyError:
            raise ValueError(f"'{self._name}' has no '{entry}': get it again.") from None
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(
                f"'{entry}' of '{self._name}' is compressed, which torch.save never does: {SAFER}."
            )
        try:
            return self._zip.read(info)
        except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError) as error:
            # Also of one that is encrypted, or whose name is another than in the directory.
            raise ValueError(f"'{self._name}' is damaged ({error}): get it again.") from None

    def stored(self, storage: Storage) -> np.ndarray:
        if self._last is None or self._last[0] != storage:  # several tensors may be its views
            data = np.frombuffer(self._entry(f"{self._prefix}data/{storage.key}"), np.uint8)
            _check_bytes(self._name, storage, len(data))
            self._last = storage, data
        return self._last[1]


class _Stream:
    """Pickles of a magic number, the protocol, the system, the value and the keys of storages, and
    then of each storage its number of values (int64) and the values."""

    def __init__(self, name: str):
        self._name = name
        with open(name, "rb") as file:
            magic, protocol, system = (torch_pickle.read(file, name) for _ in range(3))
            if magic != _MAGIC or protocol != _PROTOCOL or not isinstance(system, dict):
                raise ValueError(f"'{name}' is a pickle, but none of torch.save: {SAFER}.")
            if system.get("little_endian") is not True:
                raise ValueError(f"'{name}' has big-endian numbers, which cannot be read: {SAFER}.")
            self.value, keys = (torch_pickle.read(file, name) for _ in range(2))
            at = file.tell()
        self._bytes = np.memmap(name, np.uint8, "r")
        self._places = self._find(keys, at)

    def _find(self, keys: Any, at: int) -> dict[str, tuple[int, int]]:
        """key -> first byte, and number of bytes, of each storage."""
        values = self.value.values() if isinstance(self.value, dict) else ()
        of = {x.storage.key: x.storage for x in values if isinstance(x, Tensor)}
        places = {}
        for key in keys if isinstance(keys, list) else ():
            if key not in of:
                raise ValueError(f"'{self._name}' has a storage that no tensor uses: get it again.")
            head = self._bytes[at : at + 8].tobytes()
            size = struct.unpack("<q", head)[0] if len(head) == 8 else 0
            places[key] = at + 8, size * of[key].dtype.itemsize
            at += 8 + places[key][1]
            if len(head) < 8 or size < 0 or at > len(self._bytes):
                raise ValueError(
                    f"'{self._name}' is truncated at {len(self._bytes):,} bytes: get it again."
                )
        return places

    def stored(self, storage: Storage) -> np.ndarray:
        if storage.key not in self._places:
            raise ValueError(f"'{self._name}' has no storage {storage.key}: get it again.")
        at, size = self._places[storage.key]
        _check_bytes(self._name, storage, size)
        return self._bytes[at : at + size]
