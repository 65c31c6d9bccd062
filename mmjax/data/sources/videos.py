"""Folders of videos: with a file of captions, or with one subfolder per class.

A video is a container (MP4, WebM, ...; needs the extra `mmjax[video]`), an animation (GIF, APNG,
WebP), or a folder of its frames as images.
"""

import importlib.metadata
import itertools
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import PIL

from mmjax.data.bad_records import allow
from mmjax.data.cache import data_root
from mmjax.data.image_files import SYSTEM_FOLDERS
from mmjax.data.source import Source
from mmjax.data.sources.captions import read_captions
from mmjax.data.sources.folder import CAPTION_FILES, file_faults
from mmjax.data.transforms.decode import image_suffixes
from mmjax.data.transforms.video_clips import RATE, open_clip
from mmjax.process.printable import printable

VIDEOS = (".mp4", ".mpg", ".mpeg", ".avi", ".mkv", ".mov", ".webm")
ANIMATIONS = (".gif", ".apng", ".webp")


def open_videos(
    root: str | os.PathLike,
    captions: str | None = None,
    video_column: str | None = None,
    caption_column: str | None = None,
    multiple_captions: bool | None = None,
    frame_rate: float = RATE,
    max_bad_records: int | float = 0.01,
    data_dir: str | os.PathLike | None = None,
    workdir: str | os.PathLike | None = None,
) -> "VideoSource":
    """Videos below `root`, with captions from a file or labels from the subfolders' names.

    Args:
      captions: the caption file, a path below `root`, or absolute, in a layout of `captions.py`
        whose paths are those of video files or of folders of frames; None: the first of
        `folder.CAPTION_FILES` that exists, otherwise the classes `root/<class>/<video>`.
      video_column: column with the video's path; None: the first of `captions.IMAGE_COLUMNS`.
      caption_column, multiple_captions: see `captions.read_captions`.
      frame_rate: frames per second of folders of frames, which are sorted by the numbers in their
        names.
      max_bad_records: see `mmjax.data.bad_records.allow`.
      workdir: where bad records are listed; None: the data cache.

    The timestamps of every video are read once, when the folder is first opened; the result is
    cached until a file changes.

    Raises:
      ValueError: no such folder, no videos, a missing column, or too many bad records.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}: set root to the folder of the videos.")
    if not frame_rate > 0:
        raise ValueError(f"frame_rate is {frame_rate}; it must be above 0.")
    if captions is None:
        captions = next((name for name in CAPTION_FILES if (root / name).is_file()), None)
    class_names, bad = None, []
    if captions is not None:
        records, bad = read_captions(
            root / captions, video_column, caption_column, multiple_captions, "video"
        )
    else:
        class_names, records = _by_class(root)
    total = len(records) + len(bad)
    if total == 0:
        raise ValueError(f"{root / (captions or '')} lists no videos.")
    bad += file_faults(
        root,
        [record["key"] for record in records],
        data_root(data_dir),
        lambda path: video_fault(read_bytes(path)),
        video_reader(),
        "unreadable_video",
        "videos",
    )
    allow(bad, total, max_bad_records, str(root), Path(workdir or data_root(data_dir)))
    faulty = {b.key for b in bad if b.kind in ("unreadable_video", "missing_file")}
    good = [record for record in records if record["key"] not in faulty]
    if not good:
        raise ValueError(f"{root} has no usable video left: all {total} are bad.")
    return VideoSource(root, good, class_names, frame_rate)


class VideoSource(Source):
    """Videos, read when their record is accessed.

    `video` are the bytes of a file, or a sequence of encoded frames that are read one by one;
    `frame_rate` is that of frames; `captions` or `label`; `key` the path below the root.
    """

    def __init__(
        self,
        root: Path,
        records: Sequence[dict[str, Any]],
        class_names: list[str] | None,
        frame_rate: float,
    ):
        self.name, self.class_names = str(root), class_names
        self._root, self._records, self._rate = root, records, frame_rate

    def __len__(self) -> int:
        return len(self._records)

    def files(self) -> Iterable[Path]:
        """See `Source.files`; of frames, those of each folder."""
        paths = [self._root / record["key"] for record in self._records]
        frames = (frame_files(path) if path.is_dir() else [path] for path in paths)
        return [*self.named_files, *itertools.chain.from_iterable(frames)]

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = self._root / self._records[index]["key"]
        return {**self.meta(index), "video": read_bytes(path), "frame_rate": self._rate}

    def meta(self, index: int) -> dict[str, Any]:
        """See `Source.meta`; nothing is read."""
        record = self._records[index]
        return {**record, "key": printable(record["key"])}


class FrameFiles(Sequence):
    """The encoded frames of a folder, each read when it is accessed."""

    def __init__(self, paths: Sequence[Path]):
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> bytes:
        return self._paths[index].read_bytes()


def read_bytes(path: Path) -> bytes | FrameFiles:
    """The content of a video file, or the frames of a folder."""
    return FrameFiles(frame_files(path)) if path.is_dir() else path.read_bytes()


def is_video(path: Path, suffixes: tuple[str, ...] = VIDEOS) -> bool:
    """Whether a path is that of a video file or of a folder of frames."""
    if path.is_dir():
        return bool(frame_files(path))
    return path.suffix.lower() in suffixes


def frame_files(folder: Path) -> list[Path]:
    """Frames, by the numbers in their names: `9.png` before `10.png`."""
    found = [p for p in folder.iterdir() if p.suffix.lower() in image_suffixes()]
    return sorted(
        found, key=lambda p: ([int(n) for n in re.findall(r"\d+", p.stem)] or [0], p.name)
    )


def _by_class(root: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Class names, and the records of their videos, with labels."""

    def shown(path: Path) -> bool:
        return not path.name.startswith(".") and path.name not in SYSTEM_FOLDERS

    folders = sorted(p for p in root.iterdir() if p.is_dir() and shown(p))
    found = [
        [p for p in sorted(folder.iterdir()) if shown(p) and is_video(p, VIDEOS + ANIMATIONS)]
        for folder in folders
    ]
    empty = [folder.name for folder, videos in zip(folders, found) if not videos]
    if empty or not folders:
        raise ValueError(
            f"{root} has neither a captions.jsonl (.csv, .tsv, ...) nor videos in subfolders by "
            f"class, root/<class>/<video>: files in {', '.join(VIDEOS + ANIMATIONS)}, or folders "
            "of images."
            + (f" There are none in {', '.join(map(printable, empty[:5]))}." if empty else "")
        )
    records = [
        {"key": path.relative_to(root).as_posix(), "label": label}
        for label, videos in enumerate(found)
        for path in videos
    ]
    return [printable(folder.name) for folder in folders], records


def video_fault(data: bytes | Sequence[bytes]) -> str | None:
    """Why a video cannot be used, by its timestamps and its first frame; None if it can."""
    try:
        open_clip(data).frames([0])
    except ValueError as error:
        return str(error)
    return None


def video_reader() -> str:
    """The version of what reads videos: another one may read other files."""
    try:
        return f"{PIL.__version__} {importlib.metadata.version('av')}"
    except importlib.metadata.PackageNotFoundError:
        return PIL.__version__
