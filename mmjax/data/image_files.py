"""User image files: found below folders, checked before decoding, streamed."""

import collections
import io
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from PIL import Image

from mmjax.data.sources.folder import IMAGE_SUFFIXES

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MIN_SIDE = 4
MAX_PIXELS = 64_000_000
MAX_ASPECT = 50  # resizing the shorter side of a thinner image would make the longer one huge

# `check_image` raises a clearer error instead of Pillow's warning.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

T, R = TypeVar("T"), TypeVar("R")


def find(paths: Iterable[str | os.PathLike]) -> list[Path]:
    """The given files, and all files with an image suffix below each given folder, sorted.

    Symbolic links that point outside their folder are skipped.

    Raises:
      ValueError: a path that does not exist, or a folder without images.
    """
    found: list[Path] = []
    for given in map(Path, paths):
        if given.is_file():
            found.append(given)
        elif given.is_dir():
            below = sorted(_below(given))
            if not below:
                raise ValueError(
                    f"The folder '{given}' has no images below it (files that end in "
                    f"{', '.join(IMAGE_SUFFIXES)}): give another."
                )
            found += below
        else:
            raise ValueError(f"There is no file or folder '{given}'.")
    return list(dict.fromkeys(found))


def _below(root: Path) -> Iterator[Path]:
    whole = root.resolve()
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if path.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            if not path.is_symlink() or (path.exists() and path.resolve().is_relative_to(whole)):
                yield path


def check_image(data: bytes) -> None:
    """Check an encoded image by its header, before it is decoded.

    Raises:
      ValueError: not an image in one of `FORMATS`, or one whose size or aspect ratio is out of
        range.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except Image.DecompressionBombError:
        raise ValueError(
            f"the image has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels: make it smaller "
            f"than {MAX_PIXELS:,}"
        ) from None
    except (OSError, SyntaxError, ValueError):
        raise ValueError(
            f"{len(data):,} bytes that start with {data[:12]!r} are no image: use one of "
            f"{', '.join(FORMATS)}"
        ) from None
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"the image has {width} x {height} pixels; the maximum is {MAX_PIXELS:,}: make it "
            "smaller"
        )
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
