"""User image files: found below folders, checked before decoding, streamed."""

import collections
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from PIL import Image

from mmjax.data.transforms.decode import image_suffixes, opened
from mmjax.process.printable import printable

MIN_SIDE = 4
MAX_ASPECT = 50  # resizing the shorter side of a thinner image would make the longer one huge
IMAGES = "files in .jpg, .png, .webp, .tif or another format of FORMATS in decode.py"  # in messages
# Folders of operating systems and programs, never of images of the user.
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information")

# `check_image` raises a clearer error instead of Pillow's warning.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_log = logging.getLogger(__name__)
T, R = TypeVar("T"), TypeVar("R")


class Skipped:
    """What a reader of folders leaves out, for one summary line."""

    def __init__(self):
        self._suffixes: collections.Counter[str] = collections.Counter()
        self._others: collections.Counter[str] = collections.Counter()

    def file(self, name: str) -> bool:
        """Whether a file is to be skipped by its name; then it is counted."""
        suffix = os.path.splitext(name)[1].lower()
        if name.startswith("."):
            self._others["hidden files"] += 1
        elif suffix not in image_suffixes():
            self._suffixes[suffix or "without a suffix"] += 1
        else:
            return False
        return True

    def folder(self, name: str) -> bool:
        """Whether a folder is hidden or one of `SYSTEM_FOLDERS`; then it is counted."""
        if not name.startswith(".") and name not in SYSTEM_FOLDERS:
            return False
        self._others[f"folders '{name}'"] += 1
        return True

    def add(self, what: str, number: int = 1) -> None:
        """Count something else, or files by their suffix (".heic")."""
        (self._suffixes if what.startswith(".") else self._others)[what] += number

    def __str__(self) -> str:
        """Such as "3 .heic, 1 .txt (no image formats that are read), 2 hidden files"; or ""."""
        files = ", ".join(f"{n:,} {suffix}" for suffix, n in self._suffixes.most_common())
        parts = [f"{files} (no image formats that are read)"] if files else []
        return printable(", ".join(parts + [f"{n:,} {what}" for what, n in self._others.items()]))

    def report(self, where: object) -> None:
        """Log the summary line, if anything was skipped."""
        if str(self):
            _log.warning("%s: skipped %s", printable(where), self)


def find(paths: Iterable[str | os.PathLike]) -> list[Path]:
    """The given files, and all images below each given folder, sorted.

    Links that point outside their folder are skipped, as is what `below` skips; one line says how
    many files.

    Raises:
      ValueError: a path that does not exist, or a folder without images.
    """
    found: list[Path] = []
    for given in map(Path, paths):
        if given.is_file():
            found.append(given)
        elif given.is_dir():
            skipped = Skipped()
            images = sorted(below(given, skipped))
            skipped.report(given)
            if not images:
                said = f"; skipped: {skipped}" if str(skipped) else ""
                raise ValueError(
                    f"The folder '{given}' has no images below it ({IMAGES}{said}): give another."
                )
            found += images
        else:
            raise ValueError(f"There is no file or folder '{given}'.")
    return list(dict.fromkeys(found))


def below(root: Path, skipped: Skipped, links: bool = False) -> list[Path]:
    """The image files below a folder at any depth, in the order of torchvision's ImageFolder:
    sorted by their folder's path as a string, then by name.

    Hidden files and folders, `SYSTEM_FOLDERS` and files with other suffixes are skipped.

    Args:
      skipped: counts them.
      links: follow links to anywhere; otherwise links to folders, and to files outside `root`, are
        skipped.
    """
    whole, rows = os.path.realpath(root), []
    waiting = [(str(root), (whole,))]  # folders, with the real paths of each and of those around it
    while waiting:
        folder, around = waiting.pop()
        images = []
        for entry in _entries(folder, skipped):
            link = entry.is_symlink()
            if entry.is_dir():
                real = os.path.realpath(entry.path) if link else os.path.join(around[0], entry.name)
                if skipped.folder(entry.name):
                    continue
                if link and (not links or real in around):
                    skipped.add("links to folders around them" if links else "links to folders")
                else:
                    waiting.append((entry.path, (real, *around)))
            elif not skipped.file(entry.name):
                if link and not links and not Path(entry.path).resolve().is_relative_to(whole):
                    skipped.add("links out of the folder")
                elif entry.is_file():
                    images.append(Path(entry.path))
                else:
                    skipped.add("broken links")
        rows.append((folder, images))
    return [path for _, images in sorted(rows) for path in images]


def _entries(folder: str, skipped: Skipped) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        skipped.add(f"folders that cannot be read ('{folder}': {error.strerror})")
        return []


def file_fault(root: Path, name: str, folders: bool = False) -> str | None:
    """Why a file that a data set names below its folder cannot be read; None if it is there.

    A name must not lead out of the folder, by ".." or as an absolute path of another one: a data
    set could else make any file of this machine an example.

    Args:
      folders: a folder in place of a file is one, too.
    """
    if "\0" in name:
        return f"'{printable(name)}' has a null character, which no name of a file has"
    whole, path = (os.path.normpath(os.path.abspath(p)) for p in (root, root / name))
    if path != whole and os.path.commonpath([whole, path]) != whole:
        how = "name files below it, without '..'"
        if os.path.isabs(name):
            how = "set root to a folder that all files are in, or name them relative to root"
        return f"'{name}' leads out of the folder {root}: {how}"
    # Also false of a name that is too long for a file.
    there = os.path.isfile(path) or (folders and os.path.isdir(path))
    return None if there else f"there is no file {root / name}"


def read(path: str | os.PathLike) -> bytes:
    """The bytes of an image's file.

    Raises:
      ValueError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        why = error.strerror or error
        raise ValueError(f"Cannot read the image '{printable(path)}': {why}.") from None


def read_checked(path: str | os.PathLike) -> bytes:
    """As `read`, of an image that `check_image` allows."""
    data = read(path)
    try:
        check_image(data)
    except ValueError as error:
        raise ValueError(f"Cannot read the image '{printable(path)}': {error}.") from None
    return data


def check_image(data: bytes) -> None:
    """Check an encoded image by its header, before it is decoded.

    Raises:
      ValueError: not an image in one of `formats`, or one whose size or aspect ratio is out of
        range: see `decode.MAX_PIXELS`.
    """
    with opened(data) as image:
        width, height = image.size
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
        raise ValueError(
            f"the image has {width} x {height} pixels: each side needs {MIN_SIDE} or more, and "
            f"the longer at most {MAX_ASPECT} times the shorter"
        )


def stream(work: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R | ValueError]]:
    """(item, `work(item)`) in order, computed in threads a few items ahead of the consumer.

    If `work` raises ValueError or OSError, the result is a ValueError.
    """
    threads = os.cpu_count() or 1
    waiting: collections.deque = collections.deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(_caught, work, item)))
                if len(waiting) > 32 * threads:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _caught(work: Callable[[T], R], item: T) -> R | ValueError:
    try:
        return work(item)
    except OSError as error:
        return ValueError(error.strerror or str(error))
    except ValueError as error:
        return error
