"""An index on disk: one vector per distinct image of a folder, and the files that contain it.

    index.json         root, model, its fingerprint, storage, the current generation of files, and
                       the number of completed updates
    files-G.jsonl      one line per file, later lines replace earlier ones: path, size, mtime_ns,
                       sha256, row; or a fault instead of a row; or gone
    vectors-G.bin      rows as encoded by `storage.encode`; for int8 also scales-G.bin

Rows are written before the lines that refer to them: an interruption leaves at most unreferenced
rows, which the next writer truncates. Rows are never changed in place. When some are no longer
needed, the files are rewritten as the next generation, and index.json is switched to it atomically.
"""

import dataclasses
import functools
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmjax import storage
from mmjax.data.cache import data_root
from mmjax.search.storage import KINDS, encode
from mmjax.workdir import jsonl

INDEX = "index.json"
FORMAT = 1
MOST_DIM = 1 << 20  # numbers of a vector; a larger count is damage
_TEXTS = dict.fromkeys(("root", "model", "fingerprint", "storage"), str)


@dataclasses.dataclass(frozen=True)
class File:
    """A file below the root: the row of its image, or the fault if it is unreadable."""

    path: str
    size: int
    mtime_ns: int
    sha256: str | None = None
    row: int | None = None
    fault: str | None = None


@dataclasses.dataclass(frozen=True)
class Hit:
    """A search result: its cosine, the hash of its content, and the files with that content."""

    score: float
    sha256: str
    paths: list[str]


def default_index() -> Path:
    """The folder of the index if none is named."""
    return data_root() / "index"


def open_index(folder: str | None) -> "Index":
    """The index in a folder; None: the default one.

    Raises:
      ValueError: there is none, or it has no images.
    """
    opened = Index(folder or default_index())
    if not opened.rows:
        raise ValueError(f"The index '{opened.folder}' holds no images yet: run `index` again.")
    return opened


class Index:
    """An index, opened for reading.

    Attributes:
      about: contents of index.json; files: path -> File; rows: number of vectors.
      stamp: of the index.json that was read; see `stamp`.

    Raises:
      ValueError: no index, one of another format, or a damaged one.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        while True:
            self.stamp = stamp(self.folder)
            self.about = read_about(self.folder)
            try:
                self._open()
            except (ValueError, OSError):  # a file is missing, perhaps due to a new generation
                if stamp(self.folder) == self.stamp:
                    raise
            if stamp(self.folder) == self.stamp:  # otherwise a new generation was just written
                break

    def _open(self) -> None:
        lines = _read_files(self._file("files", "jsonl"))
        self.root = Path(self.about["root"])
        self.files: dict[str, File] = {}
        for line in lines:
            if line.get("gone"):
                self.files.pop(line["path"], None)
            else:
                self.files[line["path"]] = File(**line)
        self.rows = 1 + max((line.get("row", -1) for line in lines), default=-1)
        self.vectors = self._map("vectors", self.about["storage"], self.about["dim"])
        self.scales = None
        if self.about["storage"] == "int8":
            self.scales = self._map("scales", "float32", 1)[:, 0]

    def faults(self) -> dict[str, str]:
        """path -> reason, for unreadable files."""
        return {f.path: f.fault for f in self.files.values() if f.fault}

    @functools.cached_property
    def files_of_row(self) -> list[list[File]]:
        """For each row, the files that contain its image, sorted by path."""
        files: list[list[File]] = [[] for _ in range(self.rows)]
        for file in sorted(self.files.values(), key=lambda f: f.path):
            if file.row is not None:
                files[file.row].append(file)
        return files

    @functools.cached_property
    def path_of(self) -> dict[str, str]:
        """Content hash -> a file with that content."""
        return {f.sha256: f.path for f in self.files.values() if f.row is not None}

    @functools.cached_property
    def gallery(self) -> Any:
        """The `top_k.Gallery` of the vectors, for searching."""
        # Imported late: a query of the command line does without JAX, see quick.py.
        from mmjax.search.top_k import Gallery

        return Gallery(self.vectors, self.scales)

    def prepare(self) -> None:
        """Compute all cached properties, so that no search waits for them."""
        _ = self.files_of_row, self.path_of, self.gallery

    def search(self, queries: np.ndarray, k: int, by: Any = None) -> list[list[Hit]]:
        """The k best images of each query `[Q, D]`, best first.

        Args:
          by: an object with the method `search` of `Gallery`; None: exact search.
        """
        # During an update there may be rows whose last file was just removed.
        files = self.files_of_row
        orphans = sum(not of_row for of_row in files)
        found = []
        for scores, rows in zip(*(by or self.gallery).search(queries, k + orphans)):
            pairs = [(float(s), files[row]) for s, row in zip(scores, rows) if files[row]]
            found.append([Hit(s, fs[0].sha256, [f.path for f in fs]) for s, fs in pairs[:k]])
        return found

    def sample(self, k: int) -> list[Hit]:
        """Up to k images, evenly spaced over the index, with a score of 0."""
        kept = [files for files in self.files_of_row if files]
        chosen = np.unique(np.linspace(0, len(kept) - 1, min(k, len(kept))).astype(int))
        return [Hit(0.0, kept[i][0].sha256, [f.path for f in kept[i]]) for i in chosen]

    def check_model(self, fingerprint: str, named: str | os.PathLike) -> None:
        """Raise ValueError if the index was made by another model than this one."""
        if fingerprint != self.about["fingerprint"]:
            raise ValueError(
                f"The index '{self.folder}' was made by another model ('{self.about['model']}', "
                f"{self.about['fingerprint']}) than '{named}' is now ({fingerprint}): their "
                "vectors do not compare; use that model, or index again with --rebuild, which "
                "keeps this index beside the new one."
            )

    def _file(self, name: str, suffix: str) -> Path:
        return self.folder / f"{name}-{self.about['generation']}.{suffix}"

    def _map(self, name: str, dtype: str, width: int) -> np.ndarray:
        path, shape = self._file(name, "bin"), (self.rows, width)
        needed = self.rows * width * np.dtype(dtype).itemsize
        size = path.stat().st_size if path.exists() else 0
        if size < needed:
            raise ValueError(
                f"{path} has {size:,} bytes and needs {needed:,}: restore it, or delete the index "
                f"'{self.folder}' and make it again."
            )
        return np.memmap(path, dtype, "r", shape=shape) if needed else np.empty(shape, dtype)


class Writer(Index):
    """An index, opened for writing; the caller must hold its lock."""

    def __init__(self, folder: str | os.PathLike):
        super().__init__(folder)
        self._clean()
        self.row_of = {f.sha256: f.row for f in self.files.values() if f.row is not None}

    def append(self, vectors: np.ndarray, files: Iterable[File]) -> None:
        """Add rows `[n, D]`, and files with their final row numbers (or faults)."""
        stored, scales = encode(vectors, self.about["storage"])
        for name, rows in (("vectors", stored), ("scales", scales)):
            if rows is not None and len(rows):
                with open(self._file(name, "bin"), "ab") as file:
                    file.write(rows.tobytes())
                    file.flush()
                    os.fsync(file.fileno())
        self.rows += len(stored)
        self._log(files)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; rows without files are removed by the next `compact`."""
        gone = list(paths)
        jsonl.append(self._file("files", "jsonl"), [{"path": p, "gone": True} for p in gone])
        for path in gone:
            del self.files[path]

    def compact(self) -> None:
        """Write the next generation without the rows that have no file, if there are any."""
        used = sorted({f.row for f in self.files.values() if f.row is not None})
        if len(used) == self.rows:
            return
        mapped = Index(self.folder)  # includes rows appended since this writer was opened
        generation = self.about["generation"] + 1
        new = {row: n for n, row in enumerate(used)}
        for name, rows in (("vectors", mapped.vectors), ("scales", mapped.scales)):
            if rows is not None:
                with open(self.folder / f"{name}-{generation}.bin", "wb") as file:
                    for start in range(0, len(used), 4096):
                        file.write(rows[used[start : start + 4096]].tobytes())
                    file.flush()
                    os.fsync(file.fileno())
        files = [
            dataclasses.replace(f, row=None if f.row is None else new[f.row])
            for f in self.files.values()
        ]
        lines = "".join(json.dumps(_line(f)) + "\n" for f in files)
        storage.write(self.folder / f"files-{generation}.jsonl", lines)
        _write_about(self.folder, {**self.about, "generation": generation})
        self.__init__(self.folder)

    def finish(self) -> None:
        """Record a completed update in index.json, for concurrent readers."""
        updates = self.about.get("updates", 0) + 1
        _write_about(self.folder, {**self.about, "updates": updates})
        self.about = read_about(self.folder)

    def _log(self, files: Iterable[File]) -> None:
        files = list(files)
        jsonl.append(self._file("files", "jsonl"), map(_line, files))
        self.files |= {f.path: f for f in files}
        self.row_of |= {f.sha256: f.row for f in files if f.row is not None}

    def _clean(self) -> None:
        """Truncate incomplete writes of an interrupted run, and delete other generations."""
        jsonl.cut_torn_end(self._file("files", "jsonl"))
        widths = {"vectors": np.dtype(self.about["storage"]).itemsize * self.about["dim"]}
        for name, width in (widths | {"scales": 4}).items():
            path = self._file(name, "bin")
            if path.exists() and path.stat().st_size > self.rows * width:
                os.truncate(path, self.rows * width)
        kept = {self._file(*name) for name in (("files", "jsonl"), ("vectors", "bin"))}
        kept.add(self._file("scales", "bin"))
        for pattern in ("files-*.jsonl*", "vectors-*.bin", "scales-*.bin"):
            for path in set(self.folder.glob(pattern)) - kept:
                path.unlink()


def create(
    folder: str | os.PathLike, root: Path, model: str, fingerprint: str, dim: int, storage: str
) -> None:
    """Write an empty index.

    Raises:
      ValueError: an unknown storage.
    """
    if storage not in KINDS:
        raise ValueError(f"The storage is '{storage}'; use one of {', '.join(KINDS)}.")
    about = {"root": str(root.resolve()), "model": str(Path(model).resolve())}
    about |= {"fingerprint": fingerprint, "dim": dim, "storage": storage, "generation": 0}
    _write_about(Path(folder), about)


def _read_files(path: Path) -> list[dict[str, Any]]:
    """The lines of a list of files.

    Raises:
      ValueError: one that is damaged.
    """
    kinds = {"size": (int,), "mtime_ns": (int,), "row": (int, type(None))}
    kinds |= dict.fromkeys(("sha256", "fault"), (str, type(None)))
    lines = jsonl.read(path, path=str)
    for number, line in enumerate(lines, 1):
        given = {k: v for k, v in line.items() if k not in ("path", "gone")}
        known = all(type(v) in kinds.get(k, ()) for k, v in given.items())
        whole = line.get("gone") is True or {"size", "mtime_ns"} <= given.keys()
        row, sha256 = line.get("row"), line.get("sha256")
        if not (known and whole) or (row is not None and (row < 0 or sha256 is None)):
            raise ValueError(f"{path}, line {number}, is damaged: delete that line.")
    return lines


def _line(file: File) -> dict:
    return {k: v for k, v in dataclasses.asdict(file).items() if v is not None}


def _write_about(folder: Path, about: Mapping) -> None:
    storage.write(folder / INDEX, json.dumps({"format": FORMAT, **about}, indent=1) + "\n")


def stamp(folder: Path) -> tuple[int, ...] | None:
    """A value that changes whenever index.json is rewritten; None: it does not exist."""
    try:
        found = (folder / INDEX).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def set_aside(folder: Path) -> Path:
    """Move an index into a new folder beside its own, complete there before it is removed here."""
    numbers = itertools.count(1)
    aside = next(p for n in numbers if not (p := Path(f"{folder}.old{n}")).exists())
    partial = aside.with_name(f"{aside.name}.partial")
    partial.mkdir()
    names = [INDEX, *(p.name for p in folder.iterdir() if p.suffix and p.name != INDEX)]
    for name in names:
        try:
            os.link(folder / name, partial / name)
        except OSError:  # a disk without hard links
            shutil.copy2(folder / name, partial / name)
    partial.rename(aside)
    for name in names:
        (folder / name).unlink()
    return aside


def read_about(folder: Path) -> dict:
    """The contents of index.json.

    Raises:
      ValueError: no index, or one of another format.
    """
    path = folder / INDEX
    if not path.is_file():
        raise ValueError(
            f"There is no index in '{folder}': make one with `python -m mmjax.search index DIR "
            f"--index={folder}`; --model names another model than the default."
        )
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        fault = jsonl.fault_of(about, format=int, dim=int, generation=int, **_TEXTS)
        if fault or about.pop("format") != FORMAT or about["storage"] not in KINDS:
            raise ValueError
        if not 1 <= about["dim"] <= MOST_DIM or type(about.get("updates", 0)) is not int:
            raise ValueError
        if "\0" in about["root"]:
            raise ValueError
    except (ValueError, RecursionError):
        raise ValueError(
            f"{path} is no index of this version (format {FORMAT}): delete '{folder}' and index "
            "again."
        ) from None
    return about
