"""SAM's prompt encoder and mask decoder: from an image's feature map and prompts to masks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, repeat

from mmjax.layers.activations import activation
from mmjax.layers.linear import Linear
from mmjax.layers.norm import LayerNorm
from mmjax.layers.parameters import param
from mmjax.layers.patch_embed import patchify
from mmjax.layers.precision import activation_dtype
from mmjax.layers.two_way import Doubling, NarrowAttention, TwoWayBlock
from mmjax.sharding import shard
from mmjax.system import BUFFERS

# What a token of a prompt is. An absent one is embedded as 0, as the padding of `transformers`.
BACKGROUND, OBJECT, TOP_LEFT, BOTTOM_RIGHT = range(4)
NO_POINT, ABSENT = -1, -10


class FourierPositions(nn.Module):
    """Coordinates [..., 2] (x, y), in 0..1 -> [..., width]: sines and cosines of random waves.

    The frequencies [2, width / 2] are drawn once and not trained: a buffer, no parameter.
    Source: Tancik et al. 2020 (arXiv 2006.10739), section 4, "Gaussian".
    """

    width: int

    @nn.compact
    def __call__(self, at: jax.Array) -> jax.Array:
        def draw():
            rng = np.random.default_rng(0)
            return jnp.asarray(rng.normal(size=(2, self.width // 2)), jnp.float32)

        waves = self.variable(BUFFERS, "gaussian", draw).value
        angles = 2 * np.pi * jnp.matmul(2 * at - 1, waves, precision="highest")
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class PromptEncoder(nn.Module):
    """Points, corners of boxes and masks as embeddings of `width`.

    Attributes:
      mask_channels: of the second of three convolutions of a mask; the first has a quarter of them.

    Source: Kirillov et al. 2023 (arXiv 2304.02643), appendix A, "Prompt encoder".
    """

    width: int
    mask_channels: int = 16
    activation: str = "gelu"
    epsilon: float = 1e-6
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, waves: jax.Array, labels: jax.Array, mask: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """The tokens [N, T, width], and what is added to the image: [N or 1, h, w or 1, width].

        Args:
          waves: [N, T, width], the positions of the tokens.
          labels: [N, T] int32: BACKGROUND, OBJECT, TOP_LEFT, BOTTOM_RIGHT, NO_POINT or ABSENT.
          mask: [N, 4h, 4w], logits of a mask; None: no mask.
        """

        def table(name, *shape):
            names = (None,) * len(shape[:-1]) + ("embed",)
            init = nn.initializers.normal(1.0)
            return param(self, name, init, shape, names).astype(jnp.float32)

        kinds, not_a_point = table("kinds", 4, self.width), table("not_a_point", self.width)
        no_mask = table("no_mask", self.width)
        kind = jax.nn.one_hot(labels, 4, dtype=waves.dtype)  # 0 for negative labels
        tokens = jnp.where(labels[..., None] >= 0, waves, 0.0) + jnp.matmul(kind, kinds)
        tokens = jnp.where(labels[..., None] == NO_POINT, not_a_point[None, None], tokens)
        if mask is None and not self.is_initializing():
            return tokens, no_mask[None, None, None]
        if mask is None:  # makes the parameters
            self._mask(jnp.zeros((1, 4, 4), jnp.float32))
            return tokens, no_mask[None, None, None]
        return tokens, self._mask(mask)

    def _mask(self, mask: jax.Array) -> jax.Array:
        """Logits [N, 4h, 4w] -> [N, h, w, width]."""
        x, act = mask[..., None], activation(self.activation)
        stream = activation_dtype(self.dtype)
        for name, channels in (("1", self.mask_channels // 4), ("2", self.mask_channels)):
            convolution = Linear((channels,), ("patch", None), dtype=self.dtype, name=f"mask{name}")
            norm = LayerNorm(self.epsilon, stream, "channels", name=f"mask_norm{name}")
            x = act(norm(convolution(patchify(x, 2))))
        return Linear((self.width,), (None, "embed"), dtype=self.dtype, name="mask3")(x)


class HeadMLP(nn.Module):
    """`depth` linear maps with ReLU between: [..., D] -> [..., outputs]."""

    width: int
    outputs: int
    depth: int = 3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(self.depth - 1):
            x = jax.nn.relu(Linear((self.width,), ("embed", None), name=f"map{i}")(x))
        return Linear((self.outputs,), ("embed", None), name=f"map{self.depth - 1}")(x)


class MaskFields(nn.Module):
    """The fields of the mask decoder and of the whole head.

    Attributes:
      masks: for one prompt, which may mean a part, a whole or what is around it.
      depth, heads, mlp_dim: of the two-way blocks.
      iou_depth, iou_width: of the MLP that predicts the IoU.
    """

    masks: int = 3
    depth: int = 2
    heads: int = 8
    mlp_dim: int = 2048
    iou_depth: int = 3
    iou_width: int = 256
    epsilon: float = 1e-6
    dtype: str = "float32"


class MaskDecoder(MaskFields):
    """Prompt tokens and an image's feature map -> logits of masks, and their predicted IoU.

    The first mask is meant for several prompts of one object; the other `masks` for one prompt.

    Source: Kirillov et al. 2023 (arXiv 2304.02643), appendix A, "Lightweight mask decoder" and
    "Making the model ambiguity-aware".
    """

    activation: str = "relu"

    @nn.compact
    def __call__(
        self,
        image: jax.Array,
        position: jax.Array,
        prompts: jax.Array,
        valid: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Logits [N, 1 + masks, 4h, 4w] and IoUs [N, 1 + masks], fp32.

        Args:
          image: [N, h, w, D], with the embedding of the mask; position: [h, w, D].
          prompts: [N, T, D].
          valid: [N, T] bool, the prompt tokens that count; None: all.
        """
        rows, height = len(prompts), image.shape[1]
        wide, outputs, stream = image.shape[-1], 1 + self.masks, activation_dtype(self.dtype)
        init = nn.initializers.normal(1.0)
        own = jnp.concatenate(
            [
                param(self, "iou_token", init, (1, wide), (None, "embed")),
                param(self, "mask_tokens", init, (outputs, wide), (None, "embed")),
            ]
        )
        tokens = jnp.concatenate([repeat(own, "t d -> n t d", n=rows), prompts], axis=1)
        tokens = placed = tokens.astype(stream)
        mask = None
        if valid is not None:
            mask = jnp.concatenate([jnp.ones((rows, len(own)), bool), valid], axis=1)
        image = rearrange(image, "n h w d -> n (h w) d").astype(stream)
        position = rearrange(position, "h w d -> 1 (h w) d").astype(stream)
        for i in range(self.depth):
            block = TwoWayBlock(
                self.heads,
                self.mlp_dim,
                i == 0,
                self.activation,
                self.epsilon,
                self.dtype,
                name=f"block{i}",
            )
            tokens, image = block(tokens, image, placed, position, mask)
        last = NarrowAttention(self.heads, wide // 2, self.dtype, name="to_image")
        tokens = tokens + last(tokens + placed, image + position, image)
        tokens = LayerNorm(1e-5, name="norm")(tokens)

        x = rearrange(image, "n (h w) d -> n h w d", h=height)
        x = Doubling(wide // 4, self.dtype, name="double1")(x)
        x = activation("gelu")(LayerNorm(1e-6, stream, "channels", name="double_norm")(x))
        x = activation("gelu")(Doubling(wide // 8, self.dtype, name="double2")(x))
        mixers = nn.vmap(
            HeadMLP,
            in_axes=1,
            out_axes=1,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(wide, wide // 8, name="mixers")(tokens[:, 1 : 1 + outputs])
        logits = jnp.einsum("nkc,nhwc->nkhw", mixers, x.astype(jnp.float32))
        iou = HeadMLP(self.iou_width, outputs, self.iou_depth, name="iou")(tokens[:, 0])
        return logits, iou


class MaskHead(MaskFields):
    """An image's feature map [B, h, w, D] and prompts -> logits of masks and their IoU.

    Attributes: those of `MaskFields`, and
      mask_channels, activation: see `PromptEncoder`; decoder_activation: of `MaskDecoder`.
      remat: of a round of interactive training, see `Transformer`.
    """

    mask_channels: int = 16
    activation: str = "gelu"
    decoder_activation: str = "relu"
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        embedding: jax.Array,
        points: jax.Array,
        labels: jax.Array,
        logits: jax.Array | None = None,
        valid: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Logits [B, M, 1 + masks, 4h, 4w] and IoUs [B, M, 1 + masks] of M objects per image.

        Args:
          points: [B, M, T, 2] (x, y) in 0..1 of the sides; labels: [B, M, T] int32, see
            `PromptEncoder`.
          logits: [B, M, 4h, 4w], masks as prompts; None: none.
          valid: [B, M, T] bool: tokens that are not valid are not attended to. None: all are.
        """
        batch, objects = points.shape[:2]
        height, width, wide = embedding.shape[1:]
        if wide % 8 or wide // 2 % self.heads:
            raise ValueError(
                f"The feature map has {wide} channels, and the mask decoder needs a multiple of 8 "
                f"whose half is a multiple of its {self.heads} heads: change "
                "config.model.image.out_width."
            )
        fourier = FourierPositions(wide, name="position")
        points, labels, logits, valid = (
            None if x is None else rearrange(x, "b m ... -> (b m) ...")
            for x in (points, labels, logits, valid)
        )
        prompts, dense = PromptEncoder(
            wide, self.mask_channels, self.activation, self.epsilon, self.dtype, name="prompts"
        )(fourier(points), labels, logits)
        y, x = ((np.arange(n, dtype=np.float32) + 0.5) / n for n in (height, width))
        position = fourier(jnp.asarray(np.stack(np.meshgrid(x, y), axis=-1)))
        image = repeat(embedding, "b h w d -> (b m) h w d", m=objects)
        image = shard(image + dense.astype(image.dtype), "batch", "height", "width", "channels")
        decoder = MaskDecoder(
            masks=self.masks,
            depth=self.depth,
            heads=self.heads,
            mlp_dim=self.mlp_dim,
            iou_depth=self.iou_depth,
            iou_width=self.iou_width,
            activation=self.decoder_activation,
            epsilon=self.epsilon,
            dtype=self.dtype,
            name="decoder",
        )
        found = decoder(image, position, prompts, valid)
        return tuple(rearrange(x, "(b m) ... -> b m ...", b=batch) for x in found)
