"""The openclipart set: clean image–title–keyword pairs from Debian's package `openclipart-svg`.

The drawings are in the public domain; each SVG names its title, author and keywords in RDF.
"""

import collections
import dataclasses
import html
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from mmjax.data.builders.debian import find_tree
from mmjax.data.builders.drawing import on_white, render_svg, require_package, trim
from mmjax.data.builders.emoji_names import fraction_of
from mmjax.data.builders.split_builder import SplitBuilder, drawings
from mmjax.process.progress import Progress

SIZE = 128
DEBIAN_PACKAGE, FOLDER = "openclipart-svg", "usr/share/openclipart/svg"
# A title that one author gave to more drawings than this names a collection, not the drawing.
MAX_DRAWINGS_PER_TITLE = 5
# Authors with a larger fraction of the pairs are in train: they would dominate the test split.
LARGEST_HELD_OUT_AUTHOR = 0.02
MAX_ASPECT = 5.0  # longer drawings are rules and borders

_NO_KEYWORD = {"", "hash", "unsorted", "clip art", "clipart", "theme", "icons", "externalsource"}


@dataclasses.dataclass(frozen=True)
class Clip:
    """One drawing with the title and keywords of its author."""

    path: str  # below the tree's root
    title: str
    keywords: tuple[str, ...]
    author: str
    category: str  # the tree's first folder


def normalize_title(title: str) -> str:
    """Words of a title without case, digits and punctuation: 'Soft Couch 01' to 'soft couch'."""
    return " ".join(re.findall(r"[^\W\d_]+", title.casefold()))


def read_clip(text: str, path: str) -> Clip | None:
    """Title, author and keywords of an SVG's RDF block; None if it has no usable title.

    Parsed by regular expressions, because one file in fifty is not well-formed XML.
    """
    work = re.search(r"<(?:\w+:)?Work\b.*?</(?:\w+:)?Work>", text, re.DOTALL)
    if not work:
        return None
    agents = r"<dc:(creator|publisher|rights|contributor)\b.*?</dc:\1>"
    title = _first(r"<dc:title>(.*?)</dc:title>", re.sub(agents, "", work[0], flags=re.DOTALL))
    author = _first(r"<dc:creator>.*?<dc:title>(.*?)</dc:title>", work[0])
    author = "" if author.startswith("HASH(") else author
    title = re.sub(r"(?i)^clip ?art by .*? - ", "", title).replace("_", " ")
    title = re.sub(r"\s+", " ", re.sub(r"[\s#-]*\d+$", "", title)).strip()
    if not re.search(r"[^\W\d_]{3}", title) or len(title) > 80:
        return None
    keywords = [
        html.unescape(k).replace("_", " ").strip().casefold()
        for k in re.findall(r"<rdf:li>(.*?)</rdf:li>", work[0], re.DOTALL)
    ]
    kept = [
        k
        for k in dict.fromkeys(keywords)
        if k not in _NO_KEYWORD and "0x" not in k and k != title.casefold()
    ]
    return Clip(path, title, tuple(sorted(kept)), author, path.split("/")[0])


def _first(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.DOTALL)
    return html.unescape(found[1]).strip() if found else ""


def without_collections(clips: list[Clip]) -> list[Clip]:
    """Drop the titles that an author gave to a whole collection."""
    count = collections.Counter((c.author, normalize_title(c.title)) for c in clips)
    return [c for c in clips if count[c.author, normalize_title(c.title)] <= MAX_DRAWINGS_PER_TITLE]


def split_by_author(clips: list[Clip]) -> dict[str, list[Clip]]:
    """Train, validation and test; no author and no normalized title is in two of them.

    Authors are split by a hash: 20 % of the smaller ones to test, 10 % to validation. Clips without
    an author go to train. A title in several splits is kept in test, else in validation.
    """
    clips_of = collections.Counter(c.author for c in clips)
    parts: dict[str, list[Clip]] = {"test": [], "validation": [], "train": []}
    for clip in clips:
        x = fraction_of(clip.author, "mmjax openclipart: authors")
        large = clips_of[clip.author] > LARGEST_HELD_OUT_AUTHOR * len(clips)
        if large or not clip.author or x >= 0.30:
            parts["train"].append(clip)
        else:
            parts["test" if x < 0.20 else "validation"].append(clip)
    taken: set[str] = set()
    for part, members in parts.items():
        parts[part] = [c for c in members if normalize_title(c.title) not in taken]
        taken |= {normalize_title(c.title) for c in parts[part]}
    return {part: parts[part] for part in ("train", "validation", "test")}


class Openclipart(SplitBuilder):
    """Public-domain clip art at 128 × 128 pixels on white, captioned by its titles and keywords.

    No author and no normalized title is in two of the splits train, validation and test.
    """

    VERSION = tfds.core.Version("1.0.0")
    HOMEPAGE = "https://packages.debian.org/stable/openclipart-svg"

    def _features(self) -> dict[str, Any]:
        return drawings(SIZE, 3, ("keywords",), ("author", "category", "path"))

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        require_package("resvg_py", "resvg-py")
        cache = Path(self.data_dir_root)
        tree = find_tree(DEBIAN_PACKAGE, FOLDER, "*.svg", self._root, cache)
        files = sorted(p for p in tree.rglob("*.svg") if p.is_file() and not p.is_symlink())
        drawn = []
        with Progress("Drawing openclipart", len(files)) as bar, ThreadPoolExecutor() as pool:
            read = [read_clip(_text(p), str(p.relative_to(tree))) for p in files]
            clips = without_collections([clip for clip in read if clip])
            bar.advance(len(files) - len(clips))
            for clip, png in zip(clips, pool.map(lambda c: _draw(tree / c.path), clips)):
                if png is not None:
                    drawn.append((clip, png))
                bar.advance()
        # Some drawings are duplicates, which could otherwise end up in two splits.
        first_with = {png: clip for clip, png in reversed(drawn)}
        png_of = {clip.path: png for png, clip in first_with.items()}
        clips = [clip for clip, _ in drawn if clip.path in png_of]
        splits = split_by_author(clips)
        return {split: self._examples(part, png_of) for split, part in splits.items()}

    def _examples(self, clips: list[Clip], png_of: dict[str, bytes]) -> Iterator[tuple[int, dict]]:
        for i, clip in enumerate(clips):
            captions = [clip.title]
            if clip.keywords:
                captions.append(", ".join([clip.title, *clip.keywords]))
            yield (
                i,
                {
                    "image": png_of[clip.path],
                    "captions": captions,
                    "keywords": list(clip.keywords),
                    "author": clip.author,
                    "category": clip.category,
                    "path": clip.path,
                },
            )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def _draw(path: Path) -> bytes | None:
    """The drawing as PNG, cropped to its contents; None if it is empty or too long."""
    try:
        drawing = trim(render_svg(_text(path), 2 * SIZE))
    except ValueError:
        return None
    if drawing is None or not 1 / MAX_ASPECT <= drawing.width / drawing.height <= MAX_ASPECT:
        return None
    return on_white(drawing, SIZE)
