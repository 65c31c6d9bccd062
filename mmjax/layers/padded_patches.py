"""Patch tokens of images of several sizes that are padded to one array."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, repeat

from mmjax.layers.parameters import param
from mmjax.layers.patch_embed import PatchEmbed, check_divides
from mmjax.layers.pixels import normalize
from mmjax.layers.position import LearnedGrid
from mmjax.layers.precision import activation_dtype
from mmjax.layers.sizes import TrainSize
from mmjax.sharding import shard


class PaddedPatches(TrainSize, nn.Module):
    """Images [B, H, W, 3] -> a class token and patch tokens [B, 1 + P, width], mask [B, 1 + P].

    The position table is resized to the valid grid of each image, bilinearly with aligned corners;
    patches outside of it are masked. A patch is valid if its first pixel is, and its pixels that
    are not count as the mean color.

    Attributes:
      image_size: (H, W) whose grid the position table has; others work too.
      image_mean, image_std: of the pixels in [0, 1], per channel.
      max_patches: a training step keeps a random subset of at most that many; None: all.

    Raises:
      ValueError: an array whose height or width is not a multiple of the patch size.

    Source: ViLT, Kim et al. 2021 (arXiv 2102.03334), section 4.1; dandelin/ViLT, visual_embed.
    """

    width: int
    patch_size: int
    image_size: int | tuple[int, int]
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    max_patches: int | None = None
    dtype: str = "float32"

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patches of an image of `train_size`."""
        return tuple(side // self.patch_size for side in self.train_size)

    @nn.compact
    def __call__(
        self, image: jax.Array, size: jax.Array | None = None, *, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """The tokens in the stream's dtype, and their mask.

        Args:
          size: [B, 2] int32, height and width of the valid pixels at the top left; None: all.
        """
        patch = self.patch_size
        check_divides(self.train_size, patch)
        image = shard(image, "batch", "height", "width", "channels")
        x = normalize(image, self.image_mean, self.image_std)
        if size is not None:
            x = jnp.where(inside(size, x.shape[1:3])[..., None], x, 0.0)
        x = PatchEmbed(patch, self.width, dtype=self.dtype, name="stem")(x)
        rows, grid = len(x), x.shape[1:3]
        mask = jnp.ones((rows, *grid), bool)
        covered = None
        if size is not None:
            covered = -(-size // patch)
            mask = inside(covered, grid)
        position = LearnedGrid(self.grid, self.width, "corners", name="position")(grid, covered)
        x = x + (position if covered is not None else position[None]).astype(x.dtype)
        x, mask = rearrange(x, "b h w d -> b (h w) d"), rearrange(mask, "b h w -> b (h w)")
        if train and self.max_patches is not None and self.max_patches < x.shape[1]:
            x, mask = sample_valid(x, mask, self.max_patches, self.make_rng("dropout"))

        init = nn.initializers.normal(self.width**-0.5)
        first = param(self, "class_token", init, (self.width,), ("embed",))
        first += param(self, "class_position", init, (self.width,), ("embed",))
        first = repeat(first.astype(activation_dtype(self.dtype)), "d -> b 1 d", b=rows)
        x = jnp.concatenate([first, x], axis=1)
        return x, jnp.concatenate([jnp.ones((rows, 1), bool), mask], axis=1)


def inside(size: jax.Array, sides: tuple[int, int]) -> jax.Array:
    """[B, *sides] bool: true on the first rows and columns, of which row b has `size[b]` [B, 2]."""
    rows, columns = (jnp.arange(n)[None] < size[:, i, None] for i, n in enumerate(sides))
    return rows[:, :, None] & columns[:, None, :]


def sample_valid(
    tokens: jax.Array, mask: jax.Array, keep: int, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """A random subset of `keep` tokens of each row, in order: tokens [B, K, D], mask [B, K].

    Masked tokens are kept only where a row has fewer than `keep` valid ones.
    """
    noise = jnp.where(mask, jax.random.uniform(key, mask.shape), -1.0)
    index = jnp.sort(jax.lax.top_k(noise, keep)[1], axis=-1)
    kept = jnp.take_along_axis(tokens, index[:, :, None], axis=1)
    return kept, jnp.take_along_axis(mask, index, axis=1)
