"""The ktuberling set: 493 named objects on 10 boards, from Debian's package `ktuberling-data`.

The game of KDE in which children put eyes on a potato: each board is an SVG whose objects are
elements with a name of their own, so that their masks are exact. Put several on the background of
their board with a source of kind `scenes`. GPL-2, as Debian's package says.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, ImageColor

from mmjax.data.builders.debian import find_tree
from mmjax.data.builders.drawing import png, require_package
from mmjax.data.builders.split_builder import SplitBuilder
from mmjax.data.builders.svg_parts import read_svg, render_element
from mmjax.process.progress import Progress

OBJECT_SIZE, BOARD_SIZE = 160, 384  # pixels of the longer side
DEBIAN_PACKAGE, FOLDER = "ktuberling-data", "usr/share/ktuberling/pics"
# Each with the beginning of the names of its sounds.
BOARDS = {
    "butterflies": "butterflies_",
    "christmas": "xmas_",
    "default_theme": "",
    "egypt": "egypt_",
    "moon": "moon_",
    "pizzeria": "pizzeria_",
    "potato-game": "",
    "robin-tux": "",
    "robot_workshop": "robot_workshop_",
    "train_valley": "tv_",
}


class Board(NamedTuple):
    """A board: its drawing, the color around it, and (element, name) of each object."""

    drawing: Path
    color: tuple[int, ...]
    objects: Sequence[tuple[str, str]]


def split_name(board: str) -> str:
    """The name of a board's split: 'potato-game' to 'potato_game'."""
    return board.replace("-", "_")


def read_board(tree: Path, board: str) -> Board:
    """A board's objects, each once, named after the sound that the game plays for it."""
    theme = ET.parse(tree / f"{board}.theme").getroot()
    named = {}
    for element in theme.iter("object"):
        sound = element.get("sound").removeprefix(BOARDS[board])
        named[element.get("name")] = re.sub(r"[_-]+", " ", sound)
    color = ImageColor.getrgb(theme.get("bgcolor"))
    return Board(tree / theme.get("gameboard"), color, list(named.items()))


class Ktuberling(SplitBuilder):
    """Cut-out objects with their transparency, and the empty boards; a split is a board.

    Join them with `+`, or leave one out: "all-egypt". A board is an example with `background` true
    and no label. Names are few words ("eye", "snowman", "fire engine"); a few are on two boards.
    """

    VERSION = tfds.core.Version("1.0.0")
    HOMEPAGE = "https://packages.debian.org/stable/ktuberling-data"

    def _features(self) -> dict[str, Any]:
        text = tfds.features.Text()
        return {
            "image": tfds.features.Image(shape=(None, None, 4), encoding_format="png"),
            "captions": tfds.features.Sequence(text),
            "label": tfds.features.ClassLabel(),
            "board": text,
            "object": text,
            "background": tfds.features.Scalar(np.bool_),
        }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        require_package("resvg_py", "resvg-py")
        cache = Path(self.data_dir_root)
        tree = find_tree(DEBIAN_PACKAGE, FOLDER, "*.theme", self._root, cache)
        boards = {name: read_board(tree, name) for name in BOARDS}
        names = {called for board in boards.values() for _, called in board.objects}
        self.info.features["label"].names = sorted(names)
        return {split_name(name): self._examples(name, board) for name, board in boards.items()}

    def _examples(self, name: str, board: Board) -> Iterator[tuple[int, dict]]:
        root = read_svg(board.drawing)
        common = {"board": split_name(name), "background": False}
        with Progress(f"Drawing {name}", 1 + len(board.objects)) as bar:
            drawn = render_element(root, "background", BOARD_SIZE)
            canvas = Image.new("RGBA", drawn.size, board.color)
            yield (
                0,
                {
                    **common,
                    "image": png(Image.alpha_composite(canvas, drawn)),
                    "captions": [],
                    "label": -1,
                    "object": "background",
                    "background": True,
                },
            )
            bar.advance()
            for i, (element, called) in enumerate(board.objects, 1):
                image = render_element(root, element, OBJECT_SIZE)
                if image is not None:
                    made = {"image": png(image), "captions": [called], "label": called}
                    yield i, {**common, **made, "object": element}
                bar.advance()
