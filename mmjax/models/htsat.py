"""HTSAT: a Swin transformer on a log-mel spectrogram folded into a square image, as in CLAP."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from mmjax.batch import Batch
from mmjax.layers.batch_norm import BatchNorm
from mmjax.layers.linear import Linear
from mmjax.layers.norm import LayerNorm
from mmjax.layers.patch_embed import PatchEmbed
from mmjax.layers.position import cubic_weights
from mmjax.layers.stack import REMAT
from mmjax.layers.swin import PatchMerging, SwinBlock
from mmjax.sharding import shard

CROPS = 4  # with fusion: the whole clip shrunk to the length of a crop, and three crops


class HTSAT(nn.Module):
    """batch["audio"] [B, frames, mels] float32, a log-mel spectrogram -> audio_features [B, D].

    D = width · 2^(stages - 1). Also gives audio_tokens [B, H, W, D], before the mean over them. The
    mel bins are normalized by a batch norm. Time is resized to image_size · r samples, with
    r = image_size / mels, and cut into r parts, which are put one above the other.

    With `fusion`, batch["audio"] is [B, 4, frames, mels]: the whole clip shrunk in time, and crops
    of its front, middle and back. Where batch["audio_longer"] [B] bool is true, the patches of the
    crops are added by attentional feature fusion; elsewhere only the first spectrogram counts.

    Attributes:
      frames: length of the spectrogram; shorter ones need another model.
      depths, heads: blocks and attention heads of each stage, which halves the grid of the last.
      fusion_reduction: the width over the internal width of the fusion.
      stochastic_depth: rate of the last block; it grows linearly from 0 at the first.
      remat: as in `Transformer`, of each block.

    Raises:
      ValueError: sizes that do not fit, or audio that is not one of `train_shape`.

    Source: HTS-AT, Chen et al. 2022 (arXiv 2202.00874), section 2; fusion: CLAP, Wu et al. 2022
    (arXiv 2211.06687), section 4.2; transformers' ClapAudioModel.
    """

    frames: int
    mels: int = 64
    image_size: int = 256
    patch_size: int = 4
    width: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    heads: tuple[int, ...] = (4, 8, 16, 32)
    window: int = 8
    mlp_ratio: float = 4.0
    activation: str = "gelu"
    qkv_bias: bool = True
    patch_norm: bool = True
    fusion: bool = False
    fusion_reduction: int = 4
    norm_epsilon: float = 1e-5
    dropout: float = 0.0
    stochastic_depth: float = 0.0
    remat: str = "none"
    dtype: str = "float32"

    @property
    def train_shape(self) -> tuple[int, ...]:
        """The shape of a row of `audio`."""
        return (CROPS, self.frames, self.mels) if self.fusion else (self.frames, self.mels)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        self._check(batch["audio"].shape)
        audio = shard(batch["audio"], "batch", *(None,) * len(self.train_shape))
        present = batch.get("audio_present", jnp.ones(audio.shape[:1], bool))
        norm = BatchNorm(name="norm_mel")
        audio = norm(audio.astype(jnp.float32), train=train, valid=present)
        if self.fusion:
            whole, *crops = (self._image(x) for x in jnp.moveaxis(audio, 1, 0))
            x = self._patches(whole)
            x = self._fused(x, jnp.stack(crops, 1), batch["audio_longer"] & present, train)
        else:
            x = self._patches(self._image(audio))
        if self.patch_norm:
            x = LayerNorm(1e-5, self.dtype, name="norm_patches")(x)

        rates = np.linspace(0.0, self.stochastic_depth, sum(self.depths))
        block_class = SwinBlock
        if self.remat != "none":
            block_class = nn.remat(SwinBlock, policy=REMAT[self.remat], prevent_cse=False)
        for stage, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True)):
            if stage:
                x = PatchMerging(self.dtype, name=f"merge{stage}")(x)
            for place in range(depth):
                # A window as large as the grid has nothing to be shifted by.
                shifted = place % 2 and min(x.shape[1:3]) > self.window
                x = block_class(
                    heads,
                    self.window,
                    self.window // 2 if shifted else 0,
                    int(self.mlp_ratio * x.shape[-1]),
                    self.activation,
                    self.qkv_bias,
                    self.dropout,
                    float(rates[sum(self.depths[:stage]) + place]),
                    self.norm_epsilon,
                    self.dtype,
                    train,
                    name=f"stage{stage}_block{place}",
                )(x)
        x = LayerNorm(1e-5, self.dtype, name="norm")(x).astype(jnp.float32)
        return {"audio_tokens": x, "audio_features": x.mean((1, 2))}

    def _check(self, shape: tuple[int, ...]) -> None:
        ratio = self.image_size // self.mels
        smallest = self.patch_size * 2 ** (len(self.depths) - 1)
        if len(self.depths) != len(self.heads) or self.remat not in REMAT:
            raise ValueError(
                f"config.model.audio has depths {tuple(self.depths)}, heads {tuple(self.heads)} "
                f"and remat '{self.remat}': give as many heads as depths, and a remat of "
                f"{sorted(REMAT)}."
            )
        if self.image_size % self.mels or self.image_size % smallest:
            raise ValueError(
                f"config.model.audio.image_size is {self.image_size}: it must be a multiple of "
                f"mels {self.mels}, and of patch_size x 2^(stages - 1) = {smallest}."
            )
        if self.image_size // smallest < self.window:
            raise ValueError(
                f"config.model.audio.window is {self.window} and the last stage has "
                f"{self.image_size // smallest} tokens a side: use a smaller window."
            )
        if self.frames > ratio * self.image_size:
            raise ValueError(
                f"config.model.audio.frames is {self.frames}, and an image of {self.image_size} "
                f"holds {ratio * self.image_size} frames of {self.mels} mels: use shorter clips."
            )
        if shape[1:] != self.train_shape:
            raise ValueError(
                f"The batch's 'audio' is {list(shape[1:])} per example and config.model.audio "
                f"expects {list(self.train_shape)}: change config.data.transform or the model."
            )

    def _image(self, audio: jax.Array) -> jax.Array:
        """[B, frames, mels] -> [B, image_size, image_size, 1], see the class."""
        ratio = self.image_size // self.mels
        old, new = self.frames, self.image_size * ratio
        if old < new:
            # Places in fp32, as in torch: their rounding changes the embeddings by over 1e-5.
            places = np.arange(new, dtype=np.float32) * np.float32((old - 1) / (new - 1))
            weights = jnp.asarray(cubic_weights(places.astype(np.float64), old))
            audio = jnp.einsum("Tt,btm->bTm", weights, audio, precision="highest")
        return rearrange(audio, "b (r t) m -> b (r m) t 1", r=ratio)

    def _patches(self, image: jax.Array) -> jax.Array:
        return PatchEmbed(self.patch_size, self.width, dtype=self.dtype, name="stem")(image)

    def _fused(self, x: jax.Array, crops: jax.Array, longer: jax.Array, train: bool) -> jax.Array:
        """The patches x [B, H, W, D], fused with those of crops [B, 3, S, S, 1] where longer [B].

        A patch of a crop is three times as wide, so that those of three crops cover the grid.
        """
        side = self.patch_size
        columns = crops.shape[3] // (3 * side)
        crops = crops[:, :, :, : columns * 3 * side, 0]
        local = rearrange(crops, "b c (h p) (w q) -> b h (c w) (p q)", p=side, q=3 * side)
        local = Linear((self.width,), ("patch", "embed"), dtype=self.dtype, name="crop_stem")(local)
        local = jnp.pad(local, ((0, 0), (0, 0), (0, x.shape[2] - local.shape[2]), (0, 0)))
        fuse = AttentionalFusion(self.width // self.fusion_reduction, self.dtype, name="fusion")
        fused = fuse(x, local, longer, train=train)
        return jnp.where(longer[:, None, None, None], fused, x)


class AttentionalFusion(nn.Module):
    """x and y [B, H, W, D] weighted by each other: 2 x w + 2 y (1 - w), w in (0, 1) learned.

    w is the sigmoid of a map of each token of x + y and a map of the mean over all tokens.

    Source: Dai et al. 2021 (arXiv 2009.14082), section 3; LAION-AI/CLAP, feature_fusion.py, AFF.
    """

    inner: int
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, x: jax.Array, y: jax.Array, valid: jax.Array, *, train: bool = False
    ) -> jax.Array:
        """`valid` [B] bool: rows that count in the statistics of the batch norms."""
        total, names = x + y, (None, "channels")

        def branch(z, name):
            for width, part in ((self.inner, "down"), (x.shape[-1], "up")):
                z = Linear((width,), names, dtype=self.dtype, name=f"{name}_{part}")(z)
                norm = BatchNorm(dtype=self.dtype, name=f"{name}_norm_{part}")
                z = norm(z, train=train, valid=valid)
                z = jax.nn.relu(z) if part == "down" else z
            return z

        mean = total.mean((1, 2), keepdims=True)
        weight = jax.nn.sigmoid(branch(total, "local") + branch(mean, "global"))
        return 2 * x * weight + 2 * y * (1 - weight)
