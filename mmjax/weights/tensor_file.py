"""The tensors of a published checkpoint by name, read one at a time."""

import contextlib
import json
import math
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mmjax import storage
from mmjax.data import text_file

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
# What zipfile and numpy raise for damaged archives besides ValueError and OSError.
_DAMAGED_ZIP = (zipfile.BadZipFile, zlib.error, RuntimeError, SyntaxError, tokenize.TokenError)
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class Tensors(Protocol):
    """Named tensors: `shapes` of all of them, and `read` for one."""

    name: str
    shapes: dict[str, tuple[int, ...]]

    def read(self, name: str) -> np.ndarray:
        """One tensor in its stored dtype (including bfloat16 and float16)."""


def view(tensors: Tensors, name: str) -> np.ndarray:
    """One tensor as a view of its file, of which only those parts are read that are used; where
    the file has no such views, the tensor itself."""
    return getattr(tensors, "view", tensors.read)(name)


class Safetensors:
    """The tensors of one or more safetensors files, which are read from disk on demand.

    Attributes:
      name: of the file or folder, for messages.
      shapes: name -> shape.

    Raises:
      ValueError: a file that is missing, damaged or not a safetensors file, or without a tensor
        that the index lists.
    """

    def __init__(self, folder: str | Path, whole: str = WHOLE, index: str | None = INDEX):
        folder = Path(folder)
        if index and (folder / index).is_file():
            file_of = _read_index(folder / index)
            self.name = str(folder)
            files = {file: _open(folder / file) for file in sorted(set(file_of.values()))}
            inside = {file: set(opened.keys()) for file, opened in files.items()}
            self._file = {name: files[file] for name, file in file_of.items()}
            self._path = {name: folder / file for name, file in file_of.items()}
            for name, file in file_of.items():
                if name not in inside[file]:
                    raise ValueError(
                        f"'{folder / index}' says that '{file}' holds '{name}', which it does not: "
                        "get both again."
                    )
        else:
            self.name = str(folder / whole)
            file = _open(folder / whole)
            self._file = dict.fromkeys(file.keys(), file)
            self._path = dict.fromkeys(file.keys(), folder / whole)
        self._places: dict[Path, Mapping[str, Any]] = {}
        self.shapes = {
            name: tuple(file.get_slice(name).get_shape()) for name, file in self._file.items()
        }

    def read(self, name: str) -> np.ndarray:
        """One tensor in its stored dtype (including bfloat16 and float16)."""
        return self._file[name].get_tensor(name)

    def view(self, name: str) -> np.ndarray:
        """One tensor as a read-only view of its file; what is read of it leaves the memory with the
        view."""
        path = self._path[name]
        if path not in self._places:
            self._places[path] = _read_places(path)
        dtype, start, end = self._places[path].get(name, (None, 0, 0))
        shape = self.shapes[name]
        if dtype is None or end - start != math.prod(shape) * np.dtype(dtype).itemsize:
            return self.read(name)
        if end == start:
            return np.zeros(shape, dtype)
        return np.asarray(np.memmap(path, dtype, "r", start, shape))


class Npz:
    """The tensors of a .npz file, which are read on demand, like `Safetensors`.

    Raises:
      ValueError: a file that is missing, damaged or not a .npz file, or that holds Python objects.
    """

    def __init__(self, path: str | Path):
        self.name = str(path)
        with self._one_sentence():
            self._file = np.load(path, allow_pickle=False)
            if not isinstance(self._file, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array without a name")
            self.shapes = {name: self._shape(name) for name in self._file.files}

    @contextlib.contextmanager
    def _one_sentence(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise ValueError(f"There is no file '{self.name}'.") from None
        except (ValueError, OSError, EOFError, KeyError, *_DAMAGED_ZIP) as error:
            raise ValueError(
                f"'{self.name}' is damaged or not a .npz file ({error}): get it again."
            ) from None

    def _shape(self, name: str) -> tuple[int, ...]:
        """Read from the array's header only."""
        entry = f"{name}.npy"
        with self._file.zip.open(entry) as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                read = np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            head = file.tell()
        if dtype.hasobject:
            raise ValueError(f"'{name}' holds Python objects, which are never loaded")
        if not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError(f"'{name}' has the shape {shape}")
        # Before numpy allocates what the header says.
        has = self._file.zip.getinfo(entry).file_size - head
        if math.prod(shape) * dtype.itemsize != has:
            raise ValueError(f"'{name}' has {has:,} bytes, and its shape {shape} in {dtype} others")
        return shape

    def read(self, name: str) -> np.ndarray:
        """One tensor; numpy stores bfloat16 as untyped two-byte values.

        Raises:
          ValueError: its values are damaged.
        """
        with self._one_sentence():
            array = self._file[name]
        return array.view(ml_dtypes.bfloat16) if array.dtype == np.dtype("V2") else array


class Renamed:
    """Tensors under other names.

    Args:
      rename: name in the file -> new name; None: without this tensor.

    Raises:
      ValueError: two tensors get the same name.
    """

    def __init__(self, tensors: Tensors, rename: Callable[[str], str | None]):
        self._tensors, self.name = tensors, tensors.name
        kept = [name for name in tensors.shapes if rename(name) is not None]
        self._theirs = {rename(name): name for name in kept}
        self.shapes = {name: tensors.shapes[theirs] for name, theirs in self._theirs.items()}
        if len(self.shapes) < len(kept):
            lost = min(set(kept) - set(self._theirs.values()))
            raise ValueError(
                f"'{self.name}' has both '{lost}' and '{self._theirs[rename(lost)]}', which are "
                "names of the same tensor: get it again."
            )

    def read(self, name: str) -> np.ndarray:
        """One tensor in its stored dtype."""
        return self._tensors.read(self._theirs[name])

    def view(self, name: str) -> np.ndarray:
        """One tensor, see the function `view`."""
        return view(self._tensors, self._theirs[name])


class Joined:
    """Some tensors concatenated along their first axis.

    Args:
      parts: new name -> names of its parts; where one of these is missing, nothing is joined.
    """

    def __init__(self, tensors: Tensors, parts: Mapping[str, Sequence[str]]):
        self._tensors, self.name = tensors, tensors.name
        self._parts = {k: names for k, names in parts.items() if tensors.shapes.keys() >= {*names}}
        used = set().union(*self._parts.values())
        self.shapes = {name: shape for name, shape in tensors.shapes.items() if name not in used}
        for name, names in self._parts.items():
            first = tensors.shapes[names[0]]
            self.shapes[name] = (sum(tensors.shapes[n][0] for n in names), *first[1:])

    def read(self, name: str) -> np.ndarray:
        """One tensor in its stored dtype."""
        if name not in self._parts:
            return self._tensors.read(name)
        return np.concatenate([self._tensors.read(part) for part in self._parts[name]])

    def view(self, name: str) -> np.ndarray:
        """One tensor, see the function `view`."""
        return self.read(name) if name in self._parts else view(self._tensors, name)


class Files:
    """The tensors of several files as those of one.

    Args:
      parts: prefix of the names -> tensors.
    """

    def __init__(self, parts: Mapping[str, Tensors]):
        self.name = " and ".join(part.name for part in parts.values())
        self._place = {
            f"{k}{name}": (part, name) for k, part in parts.items() for name in part.shapes
        }
        self.shapes = {k: part.shapes[name] for k, (part, name) in self._place.items()}

    def read(self, name: str) -> np.ndarray:
        """One tensor in its stored dtype."""
        part, theirs = self._place[name]
        return part.read(theirs)

    def view(self, name: str) -> np.ndarray:
        """One tensor, see the function `view`."""
        part, theirs = self._place[name]
        return view(part, theirs)


def _read_index(path: Path) -> dict[str, str]:
    try:
        file_of = text_file.parse_json(path.read_bytes())["weight_map"]
        if not file_of or not all(isinstance(file, str) for file in file_of.values()):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"'{path}' is not an index of safetensors files: get it again.") from None
    size = {x: len(x.encode("utf-8", "surrogatepass")) for x in file_of.values()}
    outside = [x for x in file_of.values() if Path(x).name != x or size[x] > 255]
    if outside:
        raise ValueError(f"'{path}' names the file '{outside[0]}', which is not next to it.")
    return file_of


# Of the names in the header of a safetensors file, those that our models can have.
_DTYPES = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32, "F64": np.float64}


def _read_places(path: Path) -> dict[str, tuple[Any, int, int]]:
    """Name -> dtype, first byte and end in a safetensors file that `_open` has checked."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    places = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] in _DTYPES:
            begin, end = (8 + size + offset for offset in entry["data_offsets"])
            places[name] = (_DTYPES[entry["dtype"]], begin, end)
    return places


def _open(path: Path):
    if not path.is_file():
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        pickles = sorted(p.name for p in beside if p.suffix in PICKLES)
        hint = (
            f"; '{pickles[0]}' is a pickle, which can run any code and is never loaded: save the "
            "model as safetensors with the library that wrote it"
            if pickles
            else ""
        )
        raise ValueError(f"There is no '{path.name}' in '{path.parent}'{hint}.")
    try:
        return safe_open(path, framework="numpy")
    except SafetensorError as error:
        with path.open("rb") as file:  # only now: a header of 640 bytes begins as a pickle
            head = file.read(2)
        if head in (b"\x80\x02", b"\x80\x04", b"PK"):
            raise ValueError(
                f"'{path}' is a pickle under another name; pickles can run any code and are never "
                "loaded: save the model as safetensors with the library that wrote it."
            ) from None
        raise ValueError(
            f"'{path}' is truncated or not a safetensors file ({path.stat().st_size:,} bytes; "
            f"{error}): get it again."
        ) from None


def write(
    folder: Path,
    tensors: Iterable[tuple[str, np.ndarray]],
    whole: str = WHOLE,
    index: str | None = INDEX,
    shard_bytes: int = 5 * 10**9,
) -> None:
    """Write a stream of tensors into one file, or into shards and their index.

    At most one shard is in memory at a time.

    Args:
      whole: name of the single file; index: name of the index of shards; None: shards are not
        allowed.
    """
    shards: list[list[str]] = []
    pending: dict[str, np.ndarray] = {}

    def flush() -> None:
        save_file(pending, folder / f"shard{len(shards)}.partial", metadata={"format": "pt"})
        shards.append(list(pending))
        pending.clear()

    total = 0
    for name, array in tensors:
        pending_bytes = sum(x.nbytes for x in pending.values())
        if index and pending and pending_bytes + array.nbytes > shard_bytes:
            flush()
        # safetensors 0.8.0 writes the memory of a transposed array as it is
        pending[name] = np.asarray(array, order="C")
        total += array.nbytes
    flush()
    names = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    names = [whole] if len(shards) == 1 else names
    for i, name in enumerate(names):
        (folder / f"shard{i}.partial").replace(folder / name)
    if len(names) > 1:
        file_of = {tensor: name for name, shard in zip(names, shards) for tensor in shard}
        content = {"metadata": {"total_size": total}, "weight_map": file_of}
        storage.write(folder / index, json.dumps(content, indent=2))
