"""The evaluator of autoencoders of images."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmjax.evals.evaluator import Evaluator, Results
from mmjax.evals.metrics.reconstruction import RADIUS, psnr, ssim
from mmjax.evals.outputs import in_order, select
from mmjax.process import distributed
from mmjax.system import Variables

COLLAPSED = 0.05  # perplexity, as a fraction of the codes that the images could use


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageReconstruction(Evaluator):
    """How near reconstructions from the codes are to their images, and how many codes are used.

    `psnr` in decibels and `ssim`, means over the images (of fewer than 11 pixels a side without
    SSIM); `codes_used`, a number, and `code_perplexity` of all codes of the source;
    `bits_per_image`, log2 of the codebook's size for each code. As baseline, `downsampled/psnr` and
    `downsampled/ssim` of images that are reduced to the grid of the codes (by the mean of each
    patch) and enlarged again (bicubic): 24 bits for each code.
    """

    kind = "reconstruction"

    def needs(self) -> Mapping[str, Sequence[str]]:
        return {"reconstruction": ("image",), "image_codes": ("image",)}

    def run(self, variables: Variables) -> Results:
        source = self._open(self.source)
        rows = in_order(self.runner, source, self._rebuilt(variables, source), "images")
        image, codes = rows["image"], rows["image_codes"]
        size, count = self.runner.codes, codes[0].size
        yield from _metrics("", rows["reconstruction"], image)
        yield "bits_per_image", count * math.log2(size)
        yield from _metrics("downsampled/", _downsampled(image, codes.shape[1:]), image)
        counts = np.bincount(codes.reshape(-1), minlength=size)
        p = counts[counts > 0] / counts.sum()
        used, perplexity = len(p), float(np.exp(-(p * np.log(p)).sum()))
        yield "codes_used", float(used)
        yield "code_perplexity", perplexity
        if perplexity < COLLAPSED * min(size, codes.size) and distributed.is_main():
            print(
                f"warning: the codebook has collapsed: {used} of {size} codes are used in "
                f"{len(codes)} images, with a perplexity of {perplexity:.1f}: raise the weight of "
                "'kl', or config.loss.revive."
            )

    def _rebuilt(
        self, variables: Variables, source: Any
    ) -> Iterator[tuple[Mapping[str, np.ndarray], dict[str, Sequence]]]:
        for batch in self._batches(source):
            given, _ = select(batch, ("image",))
            found = self.runner.apply(variables, given, ["reconstruction", "image_codes"])
            pixels = np.round(255 * found["reconstruction"]).astype(np.uint8)
            image = self.runner.gather({"image": batch["image"]})
            yield batch, {**image, "reconstruction": pixels, "image_codes": found["image_codes"]}


def _metrics(prefix: str, images: np.ndarray, reference: np.ndarray) -> Results:
    yield f"{prefix}psnr", float(psnr(images, reference).mean())
    if min(reference.shape[1:3]) > 2 * RADIUS:
        yield f"{prefix}ssim", float(ssim(images, reference).mean())


def _downsampled(images: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    size = images.shape[2], images.shape[1]
    small = (Image.fromarray(x).resize(grid[::-1], Image.Resampling.BOX) for x in images)
    return np.stack([np.asarray(x.resize(size, Image.Resampling.BICUBIC)) for x in small])
