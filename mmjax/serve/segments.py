"""Segmentation by clicks for many callers; images that a SAM has encoded are kept for a while."""

import asyncio
import collections
import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmjax import pretrained
from mmjax.data import rle
from mmjax.masks.prompted import prompted_masks
from mmjax.masks.segmenter import Prompt, Seen, Segmenter
from mmjax.pretrained import Pretrained
from mmjax.process.printable import printable
from mmjax.serve.decoders import Lanes
from mmjax.serve.jobs import Jobs

KEPT = 32  # images, of 4 MB each with a published SAM
SIDE = 1024  # of an image and its masks, at most
WAITING = 8  # images and clicks that may wait
MAX_POINTS = 32  # the model is compiled for each number of points that occurs


class NotKept(Exception):
    """The image is not kept any more, or was never sent."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """An image that clicks may refer to: its name, and the width and height of its masks."""

    image: str
    width: int
    height: int


@dataclasses.dataclass(frozen=True)
class Mask:
    """A mask as COCO's RLE, {"size": [height, width], "counts": [...]}, its predicted IoU and its
    part of the image's area."""

    segmentation: dict[str, list[int]]
    iou: float
    area: float


def open_segments(path: str, decoding: Lanes) -> "Segments":
    """Segmentation by the SAM at a path.

    Raises:
      ValueError: no model there, or another one.
    """
    return Segments(pretrained.load(path), printable(Path(path).resolve().name), decoding)


class Segments:
    """Serves many concurrent callers.

    Args:
      loaded: a SAM; name: of it, for the page.

    Raises:
      ValueError: another model.
    """

    def __init__(self, loaded: Pretrained, name: str, decoding: Lanes):
        self.name, self._segmenter, self._decoding = name, Segmenter(loaded), decoding
        self._seen: collections.OrderedDict[str, Seen] = collections.OrderedDict()
        self._jobs = Jobs(WAITING)

    def warm_up(self) -> None:
        """Compile what the first clicks need."""
        seen = self._segmenter.see(np.zeros((64, 64, 3), np.uint8))
        for prompt in (Prompt([(9, 9)], [1]), Prompt(box=(9, 9, 30, 30))):
            prompted_masks(self._segmenter, seen, prompt)

    async def encode(self, data: bytes) -> Encoded:
        """Encode an image, unless it is kept already.

        Raises:
          ValueError: it cannot be decoded.
          Busy: too many wait already.
        """
        name = (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()
        if name not in self._seen:
            image = await self._decoding.reduced(data, SIDE)
            await self._jobs.run(self._see, name, image)
        height, width = self._find(name).size
        return Encoded(name, width, height)

    async def masks(
        self,
        name: str,
        points: Sequence[tuple[float, float]],
        labels: Sequence[int],
        box: tuple[float, float, float, float] | None,
    ) -> list[Mask]:
        """The masks of points and a box, the best first.

        Args:
          points, box: as fractions of the image's width and height; labels: 1 on the object, 0
            beside it.

        Raises:
          NotKept: the image has to be sent again.
          ValueError: a prompt that does not fit the image.
          Busy: too many wait already.
        """
        seen = self._find(name)
        height, width = seen.size
        prompt = Prompt(
            [(x * width, y * height) for x, y in points],
            labels,
            box and tuple(x * side for x, side in zip(box, (width, height) * 2)),
        )
        prompt.check(seen.size, self._segmenter.low)
        return await self._jobs.run(self._masks, seen, prompt)

    def _find(self, name: str) -> Seen:
        if name not in self._seen:
            raise NotKept
        self._seen.move_to_end(name)
        return self._seen[name]

    def _see(self, name: str, image: bytes) -> None:
        if name in self._seen:  # another caller's, meanwhile
            return
        self._seen[name] = self._segmenter.see(image)
        if len(self._seen) > KEPT:
            self._seen.popitem(last=False)

    def _masks(self, seen: Seen, prompt: Prompt) -> list[Mask]:
        height, width = seen.size
        return [
            Mask(
                {"size": [height, width], "counts": found.mask.counts.tolist()},
                round(found.iou, 4),
                rle.area(found.mask) / (height * width),
            )
            for found in prompted_masks(self._segmenter, seen, prompt)
        ]
