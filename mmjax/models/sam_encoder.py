"""SAM's image encoder: a ViT with windowed and global attention, and a neck."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from mmjax.layers.grid_attention import GridBlock
from mmjax.layers.linear import Linear
from mmjax.layers.mbconv import Convolution
from mmjax.layers.norm import LayerNorm
from mmjax.layers.padded_patches import inside
from mmjax.layers.patch_embed import PatchEmbed, check_divides
from mmjax.layers.pixels import normalize
from mmjax.layers.position import LearnedGrid
from mmjax.layers.precision import activation_dtype
from mmjax.layers.sizes import TrainSize, image_tower_sizes
from mmjax.layers.stack import REMAT
from mmjax.models.tower import Sized
from mmjax.sharding import shard

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class WindowedViT(TrainSize, Sized):
    """Images [B, S, S, 3] -> a feature map [B, S/patch, S/patch, out_width].

    Attributes:
      variant: "B/16"; width, depth, heads, mlp_dim and patch_size override it.
      image_size: S; images of another size are refused, as the relative positions of global
        attention are those of one grid.
      image_mean, image_std: of the pixels in [0, 1], per channel.
      window: side of the windows, in patches; global_blocks: the blocks without windows.
      out_width: channels of the neck, a 1x1 and a 3x3 convolution, each with a norm.
      qkv_bias, stochastic_depth, remat: see `Transformer`.

    Raises:
      ValueError: inconsistent settings, or images of another size.

    Source: Kirillov et al. 2023 (arXiv 2304.02643), appendix A; Li et al. 2022 (arXiv 2203.16527).
    """

    patch_size: int | None = None
    image_size: int = 1024
    image_mean: tuple[float, float, float] = IMAGENET_MEAN
    image_std: tuple[float, float, float] = IMAGENET_STD
    window: int = 14
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)
    out_width: int = 256
    qkv_bias: bool = True
    norm_epsilon: float = 1e-6
    activation: str = "gelu"
    stochastic_depth: float = 0.0
    remat: str = "none"
    dtype: str = "float32"

    @property
    def sizes(self) -> dict[str, int]:
        """width, depth, heads, mlp_dim and patch_size, from the variant and the fields."""
        return image_tower_sizes(self, "config.model.image")

    @property
    def side(self) -> int:
        """Rows and columns of the feature map."""
        return self.image_size // self.sizes["patch_size"]

    def check(self) -> None:
        """Raise ValueError for inconsistent settings."""
        sizes, size = self.sizes, self.image_size
        if not isinstance(size, int):
            raise ValueError(
                f"config.model.image.image_size is {size}; SAM's images are square: give a number."
            )
        check_divides(self.train_size, sizes["patch_size"])
        wrong = [i for i in self.global_blocks if not 0 <= i < sizes["depth"]]
        if wrong:
            raise ValueError(
                f"config.model.image.global_blocks names block {wrong[0]}, and the encoder has "
                f"the blocks 0 to {sizes['depth'] - 1}."
            )
        if self.window < 1:
            raise ValueError(f"config.model.image.window is {self.window}; the smallest is 1.")
        if self.remat not in REMAT:
            raise ValueError(f"Unknown remat '{self.remat}'; use one of {sorted(REMAT)}.")

    @nn.compact
    def __call__(
        self, image: jax.Array, size: jax.Array | None = None, *, train: bool = False
    ) -> jax.Array:
        """The feature map.

        Args:
          size: [B, 2] int32, height and width of the valid pixels at the top left; the others count
            as the mean color. None: all are valid.
        """
        sizes = self.sizes
        self.check()
        if image.shape[1:3] != self.train_size:
            raise ValueError(
                f"The images are {image.shape[1]}x{image.shape[2]} and the encoder takes "
                f"{self.image_size}x{self.image_size}: resize the longer side to "
                f"{self.image_size} and pad at the bottom and the right."
            )
        image = shard(image, "batch", "height", "width", "channels")
        x = normalize(image, self.image_mean, self.image_std)
        if size is not None:
            x = jnp.where(inside(size, x.shape[1:3])[..., None], x, 0.0)
        x = PatchEmbed(sizes["patch_size"], sizes["width"], dtype=self.dtype, name="stem")(x)
        grid = x.shape[1:3]
        position = LearnedGrid(grid, sizes["width"], name="position")(grid)
        x = rearrange(x + position.astype(x.dtype)[None], "b h w d -> b (h w) d")
        x = shard(x, "batch", "length", "act_embed")
        for i in range(sizes["depth"]):
            x = self._block(i, sizes, grid, train)(x, None, None, None, self._rate(i, train))[0]
        x = rearrange(x, "b (h w) d -> b h w d", h=grid[0])
        return self._neck(x)

    def _rate(self, i: int, train: bool) -> jax.Array | None:
        """The rate of stochastic depth of a block, which grows linearly from 0 at the first."""
        if not train or not self.stochastic_depth:
            return None
        return jnp.asarray(self.stochastic_depth * i / max(1, self.sizes["depth"] - 1), jnp.float32)

    def _block(self, i: int, sizes: Mapping[str, Any], grid, train: bool) -> GridBlock:
        kind = GridBlock
        if self.remat != "none":
            kind = nn.remat(GridBlock, policy=REMAT[self.remat])
        return kind(
            sizes["heads"],
            sizes["mlp_dim"],
            2 * sizes["depth"],
            activation=self.activation,
            qkv_bias=self.qkv_bias,
            epsilon=self.norm_epsilon,
            dtype=self.dtype,
            train=train,
            grid=grid,
            window=0 if i in self.global_blocks else self.window,
            name=f"block{i}",
        )

    def _neck(self, x: jax.Array) -> jax.Array:
        """[B, h, w, width] -> [B, h, w, out_width]."""
        stream = activation_dtype(self.dtype)
        x = Linear((self.out_width,), ("embed", "channels"), False, self.dtype, name="neck_in")(x)
        x = LayerNorm(1e-6, stream, "channels", name="neck_norm")(x)
        x = Convolution(self.out_width, 3, 1, (1, 1), dtype=self.dtype, name="neck_conv")(x)
        x = LayerNorm(1e-6, "float32", "channels", name="norm")(x)
        return shard(x, "batch", "height", "width", "channels")
