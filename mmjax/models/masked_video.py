"""VideoMAE's objective: the pixels of masked tubelets."""

import dataclasses
import math
from collections.abc import Callable

import jax.numpy as jnp
from einops import reduce

from mmjax.batch import Batch
from mmjax.losses.masked import masked_values, tubelet_pixels
from mmjax.losses.tube_masks import tube_masks
from mmjax.system import Context, Outputs, Terms


@dataclasses.dataclass(frozen=True)
class MaskedVideo:
    """Settings of `config.loss` of a video transformer with a decoder.

    Attributes:
      mask_ratio: of the places of a frame, masked at all times; 0.9 in the paper.
      normalize: the pixels of each tubelet and channel to mean 0 and deviation 1.
    """

    mask_ratio: float = 0.9
    normalize: bool = True

    def masked(self, grid: tuple[int, int, int]) -> int:
        """The number of masked places, of tubelets along time, height and width.

        Raises:
          ValueError: none, or all.
        """
        places = math.prod(grid[1:])
        count = int(self.mask_ratio * places)
        if not 0 < count < places:
            raise ValueError(
                f"config.loss.mask_ratio {self.mask_ratio} masks {count} of the {places} places of "
                "a frame: mask at least one and leave at least one."
            )
        return count

    def corrupt(self, grid: tuple[int, int, int]) -> Callable[[Batch, Context], Batch]:
        """`System.corrupt`: adds `video_visible` [B, K] int32 and `video_masked` [B, N] bool."""
        count = self.masked(grid)

        def f(batch: Batch, context: Context) -> Batch:
            visible, masked = tube_masks(context.rng, grid, count)
            return {**batch, "video_visible": visible, "video_masked": masked}

        return f

    def terms(self, tubelet: tuple[int, int, int]) -> Callable[[Outputs, Batch, Context], Terms]:
        """The loss `masked_video`: the mean squared error of the masked tubelets that are valid.

        Source: Tong et al. 2022 (arXiv 2203.12602), section 3.1; transformers 5.23,
        VideoMAEForPreTraining.
        """

        def loss(outputs: Outputs, batch: Batch, context: Context) -> Terms:
            del context
            target = tubelet_pixels(batch["video"], tubelet, self.normalize)
            masked = batch["video_masked"]
            if "video_mask" in batch:
                times = reduce(batch["video_mask"], "b (t s) -> b t", "max", s=tubelet[0])
                masked = masked & jnp.repeat(times, target.shape[1] // times.shape[1], axis=1)
            values = masked_values(outputs["video_pixels"], target, masked, normalize=False)
            return {"masked_video": values}

        return loss
