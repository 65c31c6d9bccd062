"""Update an index from its folder: new images are embedded, deleted ones removed."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mmjax.data import image_files
from mmjax.embedder import Embedder
from mmjax.process.progress import Progress
from mmjax.search.index import File, Writer


@dataclasses.dataclass(frozen=True)
class Summary:
    """What an update did, as numbers of files."""

    embedded: int
    duplicates: int
    removed: int
    unreadable: dict[str, str]  # path -> reason, of all unreadable files in the folder


def update(writer: Writer, embedder: Embedder) -> Summary:
    """Update the index from its root. An interruption loses at most one batch of work.

    Files whose size and modification time have not changed are not read again.

    Raises:
      ValueError: the root is missing or has no images; nothing is changed.
    """
    root = writer.root
    found = [str(p.relative_to(root)) for p in image_files.find([root])]
    todo = [path for path in found if not _unchanged(root / path, writer.files.get(path))]
    gone = set(writer.files) - set(found)
    changed = {path for path in todo if path in writer.files}
    writer.remove(gone | changed)
    writer.compact()

    batch: dict[str, tuple[np.ndarray, list[File]]] = {}  # by content
    others: list[File] = []  # files that need no new row
    embedded = duplicates = 0

    def flush() -> None:
        images = [image for image, _ in batch.values()]
        vectors = embedder.images(images) if images else np.empty((0, writer.about["dim"]), "f")
        files = [
            dataclasses.replace(file, row=writer.rows + n)
            for n, (_, same) in enumerate(batch.values())
            for file in same
        ]
        writer.append(vectors, files + others)
        batch.clear()
        others.clear()

    read = _reader(root, writer, embedder)
    with Progress(f"Indexing {root.name}", len(todo)) as bar:
        for path, result in image_files.stream(read, todo):
            if isinstance(result, ValueError):
                others.append(File(path, *_size_and_time(root / path), fault=str(result)))
            else:
                file, image = result
                known = writer.row_of.get(file.sha256)
                if known is not None:
                    others.append(dataclasses.replace(file, row=known))
                    duplicates += 1
                elif file.sha256 in batch:
                    batch[file.sha256][1].append(file)
                    duplicates += 1
                else:
                    batch[file.sha256] = (image, [file])
                    embedded += 1
            if len(batch) == embedder.sizes[-1] or len(others) == 1024:
                flush()
            bar.advance()
        flush()
    writer.finish()
    return Summary(embedded, duplicates, len(gone), writer.faults())


def _unchanged(path: Path, known: File | None) -> bool:
    return known is not None and _size_and_time(path) == (known.size, known.mtime_ns)


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:  # deleted since it was listed
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _reader(root: Path, writer: Writer, embedder: Embedder) -> Callable:
    """path -> (its File without a row, the prepared image, or None if it is in the index)."""

    def read(path: str) -> tuple[File, np.ndarray | None]:
        size, mtime_ns = _size_and_time(root / path)  # before the bytes, to notice a change
        data = (root / path).read_bytes()
        file = File(path, size, mtime_ns, hashlib.sha256(data).hexdigest())
        return file, None if file.sha256 in writer.row_of else embedder.prepare(data)

    return read
