"""The tuxpaint set: 950 captioned stamps in 77 languages, from `tuxpaint-stamps-default`.

Cut-out photos, drawings and signs with real transparency, made for a children's drawing program
and its translations by hundreds of people; GPL-2, as Debian's package says.
"""

import collections
import dataclasses
import hashlib
import itertools
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mmjax.data.builders.debian import find_tree
from mmjax.data.builders.drawing import centered, png, render_svg, require_package
from mmjax.data.builders.emoji_names import fraction_of, merge_groups
from mmjax.data.builders.split_builder import SplitBuilder, drawings
from mmjax.process.progress import Progress

SIZE = 128
DEBIAN_PACKAGE, FOLDER = "tuxpaint-stamps-default", "usr/share/tuxpaint/stamps"
CATEGORIES = (
    *("animals", "clothes", "food", "hobbies", "household", "medical", "military"),
    *("naturalforces", "people", "plants", "seasonal", "space", "sports", "symbols", "town"),
    "vehicles",
)
_TRANSLATION = re.compile(r"([\w@]+)\.utf8=(.*)")
_SOUND = re.compile(r"(_desc)?(?:_([a-z]{2}(?:_[A-Z]{2})?))?\.(?:ogg|wav)")
# Where the noun of a caption ends: 'A wooden toy | from Germany', 'A pair | of glasses'.
_AFTER_NOUN = re.compile(
    r"\(.*|[.;,:!?].*| (?:of|with|in|on|from|for|called|used|made|that|who|which|is|to)\b.*"
)


@dataclasses.dataclass(frozen=True)
class Stamp:
    """One image with its caption, names and sounds.

    `names` and `languages` are parallel, and so are `sounds`, `sound_languages` ('' for the
    default, English) and `spoken` (true: the name is spoken; false: the object's noise).
    """

    path: str  # below the tree, without its ending
    caption: str
    names: tuple[str, ...]
    languages: tuple[str, ...]
    sounds: tuple[str, ...]  # paths below the tree
    sound_languages: tuple[str, ...]
    spoken: tuple[bool, ...]


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.casefold()))


def head_noun(caption: str) -> str:
    """The head noun of a caption: 'A red apple.' to 'apple'."""
    words = _plain(_AFTER_NOUN.sub("", caption.casefold())).split()
    return words[-1] if words else caption.casefold()


def read_stamp(tree: Path, text: Path) -> Stamp | None:
    """The stamp of a `.txt` file; None if it has no image or no caption."""
    stem = text.with_suffix("")
    if not any(Path(f"{stem}{ending}").exists() for ending in (".svg", ".png")):
        return None
    first, *rest = text.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
    found = [_TRANSLATION.fullmatch(line.strip()) for line in rest]
    names = {m[1]: m[2].strip() for m in found if m and m[2].strip()}
    sounds = [
        (p.relative_to(tree).as_posix(), m[2] or "", bool(m[1]))
        for p in sorted(text.parent.glob(f"{stem.name}*"))
        if (m := _SOUND.fullmatch(p.name[len(stem.name) :]))
    ]
    if not first.strip():
        return None
    return Stamp(
        path=stem.relative_to(tree).as_posix(),
        caption=first.strip(),
        names=tuple(names.values()),
        languages=tuple(names),
        sounds=tuple(s[0] for s in sounds),
        sound_languages=tuple(s[1] for s in sounds),
        spoken=tuple(s[2] for s in sounds),
    )


def concepts_of(stamps: list[Stamp], images: list[bytes]) -> list[str]:
    """The concept of each stamp; the stamps of a concept stay within one split.

    Stamps have the same concept if their captions have the same head noun ('top hat', 'red hat'),
    if they share an image, or if they share a name in at least two languages: in a single language
    it may be a translator's mistake, and merging on those would chain half of the set together.
    """
    called = collections.defaultdict(list)
    for i, stamp in enumerate(stamps):
        for language, name in zip(stamp.languages, stamp.names, strict=True):
            called[language, _plain(name)].append(i)
    agree = collections.Counter(
        pair for stamps in called.values() for pair in itertools.combinations(stamps, 2)
    )
    marks = [[hashlib.sha256(image).hexdigest()] for image in images]
    for pair, languages in agree.items():
        for i in pair if languages >= 2 else ():
            marks[i].append(str(pair))
    return merge_groups([head_noun(s.caption) for s in stamps], marks)


def without_shared_names(parts: dict[str, list[Stamp]]) -> dict[str, list[Stamp]]:
    """Stamps without the names that also occur in an earlier part; captions are kept.

    Args:
      parts: test first, train last.
    """
    taken: set[tuple[str, str]] = set()
    result = {}
    for part, stamps in parts.items():
        kept = []
        for stamp in stamps:
            names = list(zip(stamp.languages, stamp.names, strict=True))
            own = [(lang, name) for lang, name in names if (lang, _plain(name)) not in taken]
            languages, words = zip(*own) if own else ((), ())
            kept.append(dataclasses.replace(stamp, names=words, languages=languages))
        result[part] = kept
        taken |= {(x, _plain(y)) for s in stamps for x, y in zip(s.languages, s.names)}
    return result


def part_of(concept: str) -> str:
    """'train', 'validation' (10 % of the concepts) or 'test' (20 %)."""
    x = fraction_of(concept, "mmjax tuxpaint: concepts")
    return "test" if x < 0.20 else "validation" if x < 0.30 else "train"


class Tuxpaint(SplitBuilder):
    """Captioned stamps at 128 × 128 pixels with their transparency; no concept is in two splits.

    Nor is any name in another language: the split that is held out less loses it.
    `decode` puts them on white. `sounds` are paths below the unpacked package, which stays in the
    cache: the name spoken, or the noise that the thing makes.
    """

    VERSION = tfds.core.Version("1.0.0")
    HOMEPAGE = "https://packages.debian.org/stable/tuxpaint-stamps-default"

    def _features(self) -> dict[str, Any]:
        lists = ("names", "languages", "sounds", "sound_languages")
        return {
            **drawings(SIZE, 4, lists, ("category", "concept", "path")),
            "label": tfds.features.ClassLabel(names=list(CATEGORIES)),
            "spoken": tfds.features.Sequence(np.bool_),
        }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        require_package("resvg_py", "resvg-py")
        cache = Path(self.data_dir_root)
        tree = self.tree = find_tree(DEBIAN_PACKAGE, FOLDER, "*.txt", self._root, cache)
        stamps = [s for text in sorted(tree.rglob("*.txt")) if (s := read_stamp(tree, text))]
        drawn = []
        with Progress("Drawing tuxpaint", len(stamps)) as bar, ThreadPoolExecutor() as pool:
            for stamp, image in zip(stamps, pool.map(lambda s: _draw(tree / s.path), stamps)):
                if image is not None:
                    drawn.append((stamp, image))
                bar.advance()
        stamps, images = map(list, zip(*drawn))
        concept_of = dict(zip((s.path for s in stamps), concepts_of(stamps, images)))
        image_of = dict(zip((s.path for s in stamps), images))
        parts: dict[str, list[Stamp]] = {"test": [], "validation": [], "train": []}
        for stamp in stamps:
            parts[part_of(concept_of[stamp.path])].append(stamp)
        parts = without_shared_names(parts)
        return {
            part: self._examples(parts[part], image_of, concept_of)
            for part in ("train", "validation", "test")
        }

    def _examples(
        self, stamps: list[Stamp], image_of: dict[str, bytes], concept_of: dict[str, str]
    ) -> Iterator[tuple[int, dict]]:
        for i, stamp in enumerate(stamps):
            category = stamp.path.split("/")[0]
            yield (
                i,
                {
                    "image": image_of[stamp.path],
                    "captions": [stamp.caption],
                    "names": list(stamp.names),
                    "languages": list(stamp.languages),
                    "label": category,
                    "category": category,
                    "concept": concept_of[stamp.path],
                    "path": stamp.path,
                    "sounds": list(stamp.sounds),
                    "sound_languages": list(stamp.sound_languages),
                    "spoken": list(stamp.spoken),
                },
            )


def _draw(stem: Path) -> bytes | None:
    """RGBA PNG without the empty border; None if the image is empty.

    PNG files are preferred: some of the SVG alternatives contain text, which needs fonts.
    """
    if Path(f"{stem}.png").exists():
        image = Image.open(f"{stem}.png").convert("RGBA")
    else:
        svg = Path(f"{stem}.svg").read_text(encoding="utf-8", errors="replace")
        image = render_svg(svg, 2 * SIZE)
    box = image.getchannel("A").getbbox()
    return png(centered(image.crop(box), SIZE)) if box else None
