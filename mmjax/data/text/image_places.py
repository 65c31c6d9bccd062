"""What a text has for an image: the token of an image, as often as the image has tokens."""

import dataclasses
from collections.abc import Sequence

PLACE = "<image>"  # stands for an image in a text, whatever the model's token


@dataclasses.dataclass(frozen=True)
class ImagePlaces:
    """How `PLACE` is expanded.

    Attributes:
      token: the model's token of an image, as text; length: how often it stands for an image.
      start, end: around an image, such as "<im_start>" and "<im_end>".
      tile: before each tile of an image that is split, with `{row}` and `{column}` from 1. The
        tiles of a row are followed by a line break, and all of them by another one and the whole
        image; "": images are not split.

    Source: the layout of tiles: transformers, processing_idefics3.py, replace_image_token.
    """

    token: str
    length: int
    start: str = ""
    end: str = ""
    tile: str = ""

    def text(self, grid: Sequence[int] = (0, 0)) -> str:
        """The text of an image with so many rows and columns of tiles; (0, 0): none."""
        rows, columns = (int(n) for n in grid)
        image, tiles = self.token * self.length, ""
        for row in range(rows):
            for column in range(columns):
                tiles += self.tile.format(row=row + 1, column=column + 1) + image
            tiles += "\n"
        return tiles + ("\n" if tiles else "") + self.start + image + self.end

    def expand(self, text: str, grids: Sequence[Sequence[int]]) -> str:
        """The text with each `PLACE` expanded, the k-th for an image with the k-th grid."""
        first, *others = text.split(PLACE)
        return first + "".join(self.text(grid) + part for grid, part in zip(grids, others))
