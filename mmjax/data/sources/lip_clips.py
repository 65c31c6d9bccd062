"""Recordings of speakers' faces in the layouts of GRID and of LRS2 and LRS3.

A clip is a video file, or a folder of its frames as images at 25 Hz, with a WAV file beside it or
its own sound. Video files need the extra `mmjax[video]`.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmjax.data import text_file
from mmjax.data.source import Source
from mmjax.data.sources.videos import VIDEOS, frame_files, is_video
from mmjax.data.transforms.video_ops import read_sound
from mmjax.process.printable import printable

LAYOUTS = ("grid", "lrs")
_SILENCE = ("sil", "sp")  # words of GRID's alignments that are none


class Clip(NamedTuple):
    """Paths of a clip: its video, a file or a folder of images, its WAV file or None; its words."""

    video: Path
    sound: Path | None
    words: str


def open_lip_clips(
    root: str | os.PathLike, layout: str, speakers: tuple[str, ...] = ()
) -> "LipClips":
    """Clips with their words as caption, sorted by path.

    Args:
      layout: "grid": `root/SPEAKER/CLIP.mpg` (or `root/SPEAKER/video/CLIP.mpg`) with the words in
        `root/SPEAKER/align/CLIP.align` or `root/align/SPEAKER/CLIP.align`, lines of begin, end and
        word, and optionally `root/SPEAKER/audio/CLIP.wav` or `root/audio/SPEAKER/CLIP.wav`.
        "lrs": `root/SPEAKER/CLIP.mp4` beside `CLIP.txt`, whose first line is "Text: WORDS", and
        optionally `CLIP.wav`.
      speakers: names of folders to take; (): all. To leave speakers out, name the others.

    Raises:
      ValueError: no such folder, layout or speaker, no clips, a clip without words, or words that
        cannot be read.

    Source: Cooke et al. 2006, "An audio-visual corpus for speech perception and automatic speech
    recognition"; Afouras et al. 2018 (arXiv 1809.02108 and 1809.00496).
    """
    root = Path(root).expanduser()
    if layout not in LAYOUTS:
        raise ValueError(f"The layout of lip clips is '{layout}'; use one of {', '.join(LAYOUTS)}.")
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}: set root to the folder of the speakers.")
    known = {
        path.name: path
        for path in sorted(root.iterdir())
        if path.is_dir() and not (layout == "grid" and path.name in ("align", "audio"))
    }
    missing = [name for name in speakers if name not in known]
    if missing:
        raise ValueError(
            f"{root} has no speaker '{missing[0]}'; it has {', '.join(known) or 'no folders'}."
        )
    read = _grid if layout == "grid" else _lrs
    clips = [
        read(root, path, video)
        for name, path in known.items()
        if not speakers or name in speakers
        for video in _videos(path)
    ]
    if not clips:
        raise ValueError(
            f"{root} has no clips: videos ({', '.join(VIDEOS)}) or folders of images, below a "
            "folder for each speaker."
        )
    return LipClips(root, clips)


def _videos(speaker: Path) -> list[Path]:
    """A speaker's video files and folders of images, by name."""
    folder = speaker / "video" if (speaker / "video").is_dir() else speaker
    return [path for path in sorted(folder.iterdir()) if is_video(path)]


def _grid(root: Path, speaker: Path, video: Path) -> Clip:
    name = video.stem

    def beside(kind: str, suffix: str) -> Path | None:
        places = (
            speaker / kind / f"{name}{suffix}",
            root / kind / speaker.name / f"{name}{suffix}",
        )
        return next((path for path in places if path.is_file()), None)

    align = beside("align", ".align")
    if align is None:
        raise ValueError(
            f"The clip {video} has no words: expected {speaker / 'align' / name}.align."
        )
    words = []
    for line in text_file.lines(text_file.read(align)):
        if not line.strip():
            continue
        fields = line.split()
        if len(fields) != 3 or not all(re.fullmatch(r"[\d.]+", x) for x in fields[:2]):
            raise ValueError(f"{align} has the line '{printable(line)}', not 'begin end word'.")
        words += [] if fields[2] in _SILENCE else [fields[2]]
    return Clip(video, beside("audio", ".wav"), " ".join(words))


def _lrs(root: Path, speaker: Path, video: Path) -> Clip:
    del root, speaker
    text, sound = video.with_suffix(".txt"), video.with_suffix(".wav")
    if not text.is_file():
        raise ValueError(f"The clip {video} has no words: expected {text}.")
    first = (text_file.lines(text_file.read(text)) or [""])[0]
    match = re.fullmatch(r"Text:\s*(.+?)\s*", first)
    if not match:
        raise ValueError(f"{text} begins with '{printable(first)}', not with 'Text: WORDS'.")
    return Clip(video, sound if sound.is_file() else None, match[1].lower())


class LipClips(Source):
    """Clips; files are read when their example is accessed.

    `video` are the bytes of the file or a list of encoded frames; `audio` a WAV file, absent where
    the clip has no sound; `captions` one text; `key` the path below the root.
    """

    def __init__(self, root: Path, clips: Sequence[Clip]):
        self.name, self.class_names = str(root), None
        self._root, self._clips = root, clips

    def __len__(self) -> int:
        return len(self._clips)

    def files(self) -> Iterable[Path]:
        """See `Source.files`."""
        for clip in self._clips:
            yield from frame_files(clip.video) if clip.video.is_dir() else [clip.video]
            yield from filter(None, [clip.sound])

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip = self._clips[index]
        if clip.video.is_dir():
            video = [path.read_bytes() for path in frame_files(clip.video)]
        else:
            video = clip.video.read_bytes()
        audio = None
        if clip.sound is not None:
            audio = clip.sound.read_bytes()
        elif isinstance(video, bytes):
            audio = read_sound(video)
        found = {**self.meta(index), "video": video}
        return found if audio is None else {**found, "audio": audio}

    def meta(self, index: int) -> Mapping[str, Any]:
        """See `Source.meta`; nothing is read."""
        clip = self._clips[index]
        key = printable(clip.video.relative_to(self._root).as_posix())
        return {"captions": [clip.words], "key": key}
