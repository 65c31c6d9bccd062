"""The U-Net of diffusion models: ADM's and GLIDE's, and that of DDPM."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.layers.group_norm import GroupNorm
from mmjax.layers.mbconv import Convolution
from mmjax.layers.parameters import param
from mmjax.layers.precision import activation_dtype
from mmjax.layers.stack import REMAT
from mmjax.layers.unet_blocks import (
    ZEROS,
    ResidualBlock,
    SpatialAttention,
    TimeEmbedding,
    doubled,
)
from mmjax.sharding import shard

WIDTH_OF_TIME = 4  # width of the time embedding, over that of the first level


class UNet(nn.Module):
    """x [B, H, W, C] at times [B] -> [B, H, W, out_channels] in fp32.

    What x is to be joined with (a low-resolution image, a masked one and its mask) comes as further
    channels of x. Level i has H / 2^i rows.

    Attributes:
      channels: widths of the levels; blocks: residual blocks of each, one more on the way up.
      out_channels: twice those of a sample where the variance is learned.
      attention: for each level, whether attention follows each block; mid_attention: between the
        two blocks in the middle.
      head_dim: of attention; None: one head.
      classes: rows of the table of class embeddings; 0: no classes.
      scale_shift: how the condition enters, see `ResidualBlock`.
      resample: "block", residual blocks that resize; "convolution", 3x3 ones (DDPM).
      down_padding: zeros before and after, of those convolutions of stride 2.
      time_style: see `time_features`.
      remat: what each block saves for the backward pass, see `stack.REMAT`.

    Raises:
      ValueError: sizes that do not fit, when it is called.

    Source: Dhariwal and Nichol 2021 (arXiv 2105.05233), section 3; Nichol et al. 2021 (arXiv
    2112.10741), section 4.1; Ho et al. 2020 (arXiv 2006.11239), appendix B.
    """

    channels: tuple[int, ...] = (192, 384, 576, 768)
    blocks: int = 3
    out_channels: int = 3
    attention: tuple[bool, ...] = (False, True, True, True)
    mid_attention: bool = True
    head_dim: int | None = 64
    classes: int = 0
    groups: int = 32
    epsilon: float = 1e-5
    scale_shift: bool = True
    resample: str = "block"
    down_padding: tuple[int, int] = (1, 1)
    time_style: str = "adm"
    dropout: float = 0.0
    remat: str = "none"
    dtype: str = "float32"

    @property
    def embedding_width(self) -> int:
        """Width of the condition, to which `embedding` is added."""
        return WIDTH_OF_TIME * self.channels[0]

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        *,
        label: jax.Array | None = None,
        embedding: jax.Array | None = None,
        context: jax.Array | None = None,
        context_mask: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """The prediction.

        Args:
          label: [B] int32, rows of the table of classes.
          embedding: [B, embedding_width], added to that of the time.
          context: [B, S, D], tokens to attend to; context_mask: [B, S], true on valid ones.
        """
        self._check(x.shape[1:3])
        condition = self._condition(time, label, embedding)
        x = shard(x.astype(activation_dtype(self.dtype)), "batch", "height", "width", "channels")
        x = self._convolution(self.channels[0], "conv_in")(x)
        skips = [x]

        def block(x, channels, name, resize=""):
            return self._block(channels, train, resize, name)(x, condition)

        def attend(x, name):
            return self._attention(name)(x, context, context_mask)

        last = len(self.channels) - 1
        for level, channels in enumerate(self.channels):
            for i in range(self.blocks):
                x = block(x, channels, f"down{level}_block{i}")
                if self.attention[level]:
                    x = attend(x, f"down{level}_attention{i}")
                skips.append(x)
            if level < last:
                name = f"down{level}_resize"
                if self.resample == "block":
                    x = block(x, channels, name, "down")
                else:
                    x = self._convolution(channels, name, 2)(x)
                skips.append(x)
        x = block(x, self.channels[-1], "mid_block0")
        if self.mid_attention:
            x = attend(x, "mid_attention")
        x = block(x, self.channels[-1], "mid_block1")
        for level, channels in reversed(list(enumerate(self.channels))):
            for i in range(self.blocks + 1):
                x = jnp.concatenate([x, skips.pop()], axis=-1)
                x = block(x, channels, f"up{level}_block{i}")
                if self.attention[level]:
                    x = attend(x, f"up{level}_attention{i}")
            if level:
                name = f"up{level}_resize"
                if self.resample == "block":
                    x = block(x, channels, name, "up")
                else:
                    x = self._convolution(channels, name)(doubled(x))
        norm = GroupNorm(self.groups, self.epsilon, str(x.dtype), name="norm_out")
        head = Convolution(
            self.out_channels,
            3,
            use_bias=True,
            dtype=self.dtype,
            names=(None, None, "embed", "channels"),
            kernel_init=ZEROS,
            name="conv_out",
        )
        return head(jax.nn.silu(norm(x))).astype(jnp.float32)

    def _condition(self, time, label, embedding) -> jax.Array:
        """[B, embedding_width] after its activation, which all blocks share."""
        width = self.embedding_width
        x = TimeEmbedding(self.channels[0], width, self.time_style, self.dtype, name="time")(time)
        if self.classes:
            if label is None:
                raise ValueError("This U-Net has classes: it needs the labels of the images.")
            init = nn.initializers.normal(0.02)
            table = param(self, "class_table", init, (self.classes, width), ("classes", None))
            x = x + jnp.take(table, label, axis=0).astype(x.dtype)
        if embedding is not None:
            x = x + embedding.astype(x.dtype)
        return jax.nn.silu(x)

    def _convolution(self, channels: int, name: str, stride: int = 1) -> Convolution:
        padding = self.down_padding if stride == 2 else None
        names = (None, None, None, "embed")
        return Convolution(
            channels, 3, stride, padding, use_bias=True, dtype=self.dtype, names=names, name=name
        )

    def _block(self, channels: int, train: bool, resize: str, name: str) -> ResidualBlock:
        kind = self._remat(ResidualBlock)
        rest = (self.scale_shift, resize, self.dropout, self.dtype, train)
        return kind(channels, self.groups, self.epsilon, *rest, name=name)

    def _attention(self, name: str) -> SpatialAttention:
        kind = self._remat(SpatialAttention)
        return kind(self.head_dim, self.groups, self.epsilon, self.dtype, name=name)

    def _remat(self, kind: type[nn.Module]) -> type[nn.Module]:
        if self.remat == "none":
            return kind
        return nn.remat(kind, policy=REMAT[self.remat], prevent_cse=False)

    def _check(self, size: tuple[int, int]) -> None:
        levels = len(self.channels)
        if len(self.attention) != levels:
            raise ValueError(
                f"The U-Net has {levels} levels (channels {self.channels}), and attention is given "
                f"for {len(self.attention)}: {self.attention}."
            )
        if self.resample not in ("block", "convolution"):
            raise ValueError(f"resample is '{self.resample}'; use 'block' or 'convolution'.")
        if self.remat not in REMAT:
            raise ValueError(f"Unknown remat '{self.remat}'; use one of {sorted(REMAT)}.")
        check_halves(size, levels)


def check_halves(size: tuple[int, int], levels: int) -> None:
    """Raise ValueError for an image size that a U-Net of so many levels cannot halve."""
    multiple = 2 ** (levels - 1)
    if any(side % multiple for side in size):
        raise ValueError(
            f"Images of {size[0]}x{size[1]} cannot be halved {levels - 1} times, as a U-Net of "
            f"{levels} levels does: use a multiple of {multiple}, or fewer levels."
        )
