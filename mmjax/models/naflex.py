"""The image tower of SigLIP 2 NaFlex: images at their own aspect ratio, as rows of patches."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from mmjax.batch import Batch, Spec, UpTo
from mmjax.layers.norm import LayerNorm
from mmjax.layers.patch_embed import PatchEmbed, patchify
from mmjax.layers.patch_rows import members, read_grids, same_image
from mmjax.layers.pixels import normalize
from mmjax.layers.position import LearnedGrid
from mmjax.layers.precision import activation_dtype
from mmjax.layers.sizes import image_tower_sizes
from mmjax.models.tower import Tower, attention_pool, tower_blocks
from mmjax.sharding import shard


class NaFlex(Tower):
    """batch["image"] [B, N, P * P * 3], ["image_grid"] [B, 2] -> image_features [B, width].

    Or images of one size, [B, H, W, 3], whose sides are multiples of P.

    A row has the patches of an image, row by row, and then padding, which has no influence;
    `image_grid` are the image's rows and columns of patches. The step `patches` makes both. N may
    differ from batch to batch, and is compiled once for each value.

    With `image_grid` [B, M, 2] a row holds up to M images one after the other, and the features are
    [B, M, width]: attention and pooling are those of each image alone (NaViT). An image without
    patches, of grid (0, 0), has features without meaning.

    Attributes:
      variant: "B/16"; patch_size overrides it too. For what is not named here see `Tower`.
      position_grid: rows and columns of the position table, which is resized to each image's grid.
      max_patches: N of the longest row in training.
      row_images: M, the images of a row in training; 0: one, and no axis of images.

    Parameters are those of a `ViT` with pool "map" and images of `position_grid` patches.

    Raises:
      ValueError: a batch without grids, or with patches of another size.

    Source: Tschannen et al. 2025 (arXiv 2502.14786), NaFlex; Dehghani et al. 2023
    (arXiv 2307.06304, NaViT).
    """

    patch_size: int | None = None
    position_grid: tuple[int, int] = (16, 16)
    max_patches: int = 256
    row_images: int = 0
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)

    @property
    def sizes(self) -> dict[str, int]:
        """width, depth, heads, mlp_dim and patch_size, from the variant and the fields."""
        return image_tower_sizes(self, "config.model.image")

    def inputs(self) -> Spec:
        """The arrays that it reads, for a batch of one."""
        images = (self.row_images,) if self.row_images else ()
        row = (self.max_patches, 3 * self.sizes["patch_size"] ** 2)
        return {
            "image": UpTo((1, *row), jnp.uint8, axis=1),
            "image_grid": jax.ShapeDtypeStruct((1, *images, 2), jnp.int32),
        }

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        sizes = self.sizes
        rows, grids = self._rows(batch)
        packed = grids.ndim == 3
        grids = grids if packed else grids[:, None]
        images = grids.shape[1]

        # ---- patches to tokens, with the positions of each image's grid
        x = rearrange(rows, "b n (p c) -> b n p c", c=3)
        x = normalize(x, self.image_mean, self.image_std)
        x = shard(rearrange(x, "b n p c -> b n (p c)"), "batch", "length", None)
        x = PatchEmbed(sizes["patch_size"], sizes["width"], dtype=self.dtype, name="stem")(x)
        cells = read_grids(grids, x.shape[1])
        positions = LearnedGrid(self.position_grid, sizes["width"], "linear", name="position")
        x = x + positions(cells).astype(activation_dtype(self.dtype))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = shard(x, "batch", "length", "act_embed")

        # ---- blocks, and a vector of each image
        of_image = members(cells, images)
        of_image = of_image if packed else of_image[:, 0]
        mask = same_image(cells, images) if packed else of_image
        x = tower_blocks(self)(x, mask, train=train)
        x = LayerNorm(self.norm_epsilon, self.dtype, name="norm")(x)
        x = attention_pool(self)(x, of_image)
        return {"image_features": x.astype(jnp.float32)}

    def _rows(self, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Rows of patches, and the grids of their images; raises ValueError for another form."""
        image, patch = batch["image"], self.sizes["patch_size"]
        if image.ndim == 4:
            x = patchify(image, patch)
            grids = jnp.tile(jnp.asarray([x.shape[1:3]], jnp.int32), (len(x), 1))
            return rearrange(x, "b h w p -> b (h w) p"), grids
        if "image_grid" not in batch or image.ndim != 3:
            raise ValueError(
                f"A NaFlex tower reads rows of patches and their image_grid, not an array of shape "
                f"{list(image.shape)} alone: end the transforms of the image with patches(budget, "
                f"{patch})."
            )
        if image.shape[-1] != 3 * patch**2:
            raise ValueError(
                f"The batch has patches of {image.shape[-1]} numbers, and those of "
                f"config.model.image are {patch}x{patch}x3 = {3 * patch**2}: give patches() in "
                f"the transform the patch size {patch}."
            )
        return image, batch["image_grid"]
