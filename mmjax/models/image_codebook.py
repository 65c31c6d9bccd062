"""Image codebooks: frozen models that give each patch of an image an id, the target of masking."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch
from mmjax.layers.linear import Linear
from mmjax.layers.mbconv import Convolution
from mmjax.layers.parameters import param
from mmjax.layers.patch_embed import check_divides, patchify
from mmjax.layers.pixels import normalize
from mmjax.layers.sizes import TrainSize
from mmjax.models.build import build, of_kind
from mmjax.system import System

GROUPS = 4  # of the published dVAE's encoder; between them the feature map is halved


class DVAEEncoder(TrainSize, nn.Module):
    """The encoder of DALL-E's discrete VAE: an id per patch of batch["image"] [B, H, W, 3].

    Gives image_code_logits [B, H/p, W/p, vocab_size] and image_codes [B, H/p, W/p] int32, the
    largest of them, with patches of p = 2 ** (groups - 1) pixels.

    Attributes:
      width: channels of the first group of blocks; each doubles them.
      blocks: residual blocks of a group.
      image_mean, image_std: of the pixels in [0, 1]; by default they are mapped to 0.1 ... 0.9.

    Source: Ramesh et al. 2021 (arXiv 2102.12092), appendix A.2; openai/DALL-E, encoder.py.
    """

    vocab_size: int = 8192
    width: int = 256
    blocks: int = 2
    image_size: int | tuple[int, int] = (112, 112)
    image_mean: tuple[float, float, float] = (-0.125,) * 3
    image_std: tuple[float, float, float] = (1.25,) * 3
    dtype: str = "float32"
    groups: int = GROUPS

    @property
    def patch(self) -> int:
        """Side, in pixels, of the patch that an id stands for."""
        return 2 ** (self.groups - 1)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        del train  # nothing is random
        check_divides(batch["image"].shape[1:3], self.patch)
        x = normalize(batch["image"], self.image_mean, self.image_std)
        x = convolution(self.width, 7, self.dtype, "input")(x)
        gain = (self.groups * self.blocks) ** -2
        for group in range(self.groups):
            for block in range(self.blocks):
                name = f"group{group}_block{block}"
                x = residual_block(x, self.width * 2**group, gain, self.dtype, name)
            if group < self.groups - 1:
                x = nn.max_pool(x, (2, 2), (2, 2))
        logits = pointwise(self.vocab_size, self.dtype, "output")(jax.nn.relu(x))
        logits = logits.astype(jnp.float32)
        return {"image_code_logits": logits, "image_codes": logits.argmax(-1).astype(jnp.int32)}


def residual_block(
    x: jax.Array, channels: int, gain: float, dtype: str, name: str, *, decoder: bool = False
) -> jax.Array:
    """A block of a dVAE: a bottleneck of four convolutions times `gain`, beside the identity or,
    to another number of channels, a 1x1.

    Called in a compact method, whose module gets the parameters.

    Args:
      decoder: the 1x1 convolution of the bottleneck is the first one, not the last.
    """
    y = x
    if decoder:
        y = pointwise(channels // 4, dtype, f"{name}_in")(jax.nn.relu(y))
    for i in range(3):
        to = channels if decoder and i == 2 else channels // 4
        y = convolution(to, 3, dtype, f"{name}_conv{i}")(jax.nn.relu(y))
    if not decoder:
        y = pointwise(channels, dtype, f"{name}_out")(jax.nn.relu(y))
    if x.shape[-1] != channels:
        x = pointwise(channels, dtype, f"{name}_identity")(x)
    return x + y * jnp.asarray(gain, y.dtype)


def convolution(channels: int, kernel: int, dtype: str, name: str) -> Convolution:
    """A convolution with a bias that keeps height and width."""
    return Convolution(channels, kernel, use_bias=True, dtype=dtype, name=name)


def pointwise(channels: int, dtype: str, name: str) -> Linear:
    """A 1x1 convolution with a bias."""
    return Linear((channels,), (None, "channels"), dtype=dtype, name=name)


class RandomQuantizer(TrainSize, nn.Module):
    """An id per patch of batch["image"] [B, H, W, 3] without any training.

    The id is that of the code nearest to a random projection of the patch, both of unit length;
    neither is trained. Gives image_codes [B, h, w] int32.

    Attributes:
      width: dimensions of the projection.

    Source: BEST-RQ, Chiu et al. 2022 (arXiv 2202.01855), section 3.1, there of speech.
    """

    patch_size: int
    image_size: int | tuple[int, int]
    vocab_size: int = 256
    width: int = 16
    image_mean: tuple[float, float, float] = (0.5,) * 3
    image_std: tuple[float, float, float] = (0.5,) * 3

    @property
    def patch(self) -> int:
        """Side, in pixels, of the patch that an id stands for."""
        return self.patch_size

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        del train
        x = patchify(normalize(batch["image"], self.image_mean, self.image_std), self.patch_size)
        init, normal = nn.initializers.xavier_uniform(), nn.initializers.normal(1.0)
        projection = param(self, "projection", init, (x.shape[-1], self.width), ("patch", None))
        codes = param(self, "codes", normal, (self.vocab_size, self.width), ("codes", None))
        codes = codes / jnp.linalg.norm(codes, axis=-1, keepdims=True)
        # The length of the projected patch does not change which code is the nearest.
        similarity = jnp.matmul(jnp.matmul(x, projection, precision="highest"), codes.T)
        return {"image_codes": similarity.argmax(-1).astype(jnp.int32)}


CODEBOOKS = {"dvae": DVAEEncoder, "random": RandomQuantizer}


def make_codebook(
    fields: Mapping[str, Any], where: str, **kwargs: Any
) -> DVAEEncoder | RandomQuantizer:
    """The codebook of `kind` "dvae" (the default) or "random", with its fields.

    Raises:
      ValueError: an unknown kind or setting.
    """
    return of_kind(CODEBOOKS, {"kind": "dvae", **fields}, where, **kwargs)


def make_system(config: Mapping[str, Any]) -> System:
    """A published codebook alone: it is not trained.

    Raises:
      ValueError: an unknown setting.
    """
    model = build(DVAEEncoder, config["model"])
    spec = {"image": jax.ShapeDtypeStruct((1, *model.train_size, 3), jnp.uint8)}
    return System(model=model, spec=spec, loss=None)
