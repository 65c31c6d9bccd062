"""The blocks of a U-Net of diffusion: residual convolutions, attention over positions, resizing."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange, reduce, repeat

from mmjax.layers import platform
from mmjax.layers.attention import MANY, attend, attend_by_head
from mmjax.layers.group_norm import GroupNorm
from mmjax.layers.linear import Linear
from mmjax.layers.mbconv import Convolution
from mmjax.layers.precision import activation_dtype
from mmjax.layers.recompute import recompute
from mmjax.sharding import shard

ZEROS = nn.initializers.zeros
STYLES = ("adm", "ddpm", "diffusers_dit")


def time_features(time: jax.Array, width: int, style: str = "adm") -> jax.Array:
    """Sinusoids [B, width] of times [B], which need not be integers; fp32.

    Args:
      style: "adm", cosines before sines; "ddpm", sines first, with frequencies down to 1e-4;
        "diffusers_dit", cosines first with the frequencies of "ddpm".

    Raises:
      ValueError: an unknown style.

    Source: openai/guided-diffusion, nn.py, timestep_embedding; hojonathanho/diffusion, nn.py;
    diffusers, embeddings.py, CombinedTimestepLabelEmbeddings, which differs from DiT's own code.
    """
    if style not in STYLES:
        raise ValueError(f"time_style is '{style}'; use one of {', '.join(STYLES)}.")
    half = width // 2
    steps = half if style == "adm" else half - 1
    frequency = np.exp(-np.log(10_000.0) * np.arange(half) / steps).astype(np.float32)
    angle = time.astype(jnp.float32)[:, None] * jnp.asarray(frequency)[None]
    parts = [jnp.cos(angle), jnp.sin(angle)]
    return jnp.concatenate(parts[::-1] if style == "ddpm" else parts, axis=-1)


class TimeEmbedding(nn.Module):
    """An MLP of `time_features`: [B] -> [B, width].

    Attributes:
      features: of the sinusoids.
    """

    features: int
    width: int
    style: str = "adm"
    dtype: str = "float32"

    @nn.compact
    def __call__(self, time: jax.Array) -> jax.Array:
        init = nn.initializers.normal(0.02)
        x = time_features(time, self.features, self.style)
        for name, names in (("up", (None, "embed")), ("down", ("embed", None))):
            x = x if name == "up" else jax.nn.silu(x)
            x = Linear((self.width,), names, True, self.dtype, init, name=name)(x)
        return x


def halved(x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, H/2, W/2, C], the mean of 2x2 pixels."""
    return reduce(x, "b (h 2) (w 2) c -> b h w c", "mean")


def doubled(x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, 2H, 2W, C], each pixel repeated."""
    return repeat(x, "b h w c -> b (h 2) (w 2) c")


RESIZE: dict[str, Callable] = {"": lambda x: x, "down": halved, "up": doubled}


class ResidualBlock(nn.Module):
    """[B, H, W, C] and a condition [B, E] -> [B, H', W', channels].

    Norm, activation, resizing and a convolution; then, under the condition, norm, activation and a
    convolution, added to the input.

    Attributes:
      resize: "", "down" or "up" (by 2).
      scale_shift: the condition scales and shifts the second norm's result; otherwise it is added
        before that norm.

    Source: Dhariwal and Nichol 2021 (arXiv 2105.05233), section 3; openai/guided-diffusion,
    unet.py, ResBlock; Ho et al. 2020 (arXiv 2006.11239), appendix B, without `scale_shift`.
    """

    channels: int
    groups: int = 32
    epsilon: float = 1e-5
    scale_shift: bool = True
    resize: str = ""
    dropout: float = 0.0
    dtype: str = "float32"
    train: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array) -> jax.Array:
        norm = {"groups": self.groups, "epsilon": self.epsilon, "dtype": self._stream}
        convolve = {"use_bias": True, "dtype": self.dtype}
        resize = RESIZE[self.resize]
        names = (None, None, "embed", "mlp")
        conv_in = Convolution(self.channels, 3, **convolve, names=names, name="conv_in")
        y = normed_convolution(GroupNorm(**norm, name="norm_in"), conv_in, x, resize=resize)
        x = resize(x)
        parts = 2 if self.scale_shift else 1
        width = (parts, self.channels)
        given = Linear(width, (None, None, "mlp"), dtype=self.dtype, name="condition")(condition)
        if not self.scale_shift:
            y = y + given[:, 0, None, None]
        names = (None, None, "mlp", "embed")
        conv_out = Convolution(
            self.channels, 3, **convolve, names=names, kernel_init=ZEROS, name="conv_out"
        )
        kept = None
        if self.dropout and self.train:
            kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.dropout, y.shape)
        y = normed_convolution(
            GroupNorm(**norm, axis="mlp", name="norm_out"),
            conv_out,
            y,
            (given[:, 0], given[:, 1]) if self.scale_shift else None,
            kept=kept,
            rate=self.dropout,
        )
        if x.shape[-1] != self.channels:
            names = (None, "embed")
            x = Linear((self.channels,), names, dtype=self.dtype, name="skip")(x)
        return shard(x + y, "batch", "height", "width", "act_embed")

    @property
    def _stream(self) -> str:
        return str(activation_dtype(self.dtype))


def normed_convolution(
    norm: GroupNorm,
    convolution: Convolution,
    x: jax.Array,
    condition: tuple[jax.Array, jax.Array] | None = None,
    *,
    resize: Callable[[jax.Array], jax.Array] = RESIZE[""],
    kept: jax.Array | None = None,
    rate: float = 0.0,
) -> jax.Array:
    """The convolution of silu(norm(x, condition)), resized and with dropout.

    On CPU in fp32 the backward pass makes the convolution's input again, so that of its activations
    only x is kept; the convolution itself is not computed twice.

    Args:
      norm, convolution: submodules of the caller.
      kept: bool, the numbers of the activation that dropout leaves; None: no dropout; rate: of it.
    """

    def f(x, condition, kept, normed, convolved):
        y = resize(jax.nn.silu(normed(x, condition)))
        if kept is not None:
            y = jnp.where(kept, y / (1 - rate), 0.0).astype(y.dtype)
        return convolved(y)

    again = platform.current().recomputes and norm.dtype == convolution.dtype == "float32"
    if not again or norm.is_initializing():
        return f(x, condition, kept, norm, convolution)
    alone = [module.clone(parent=None) for module in (norm, convolution)]

    def pure(x, condition, kept, params):
        calls = [functools.partial(m.apply, {"params": p}) for m, p in zip(alone, params)]
        return f(x, condition, kept, *calls)

    params = [module.variables["params"] for module in (norm, convolution)]
    return recompute(pure)(x, condition, kept, params)


class SpatialAttention(nn.Module):
    """Attention of the pixels of x [B, H, W, C] to each other and to a context [B, S, D]; added.

    The context's keys and values stand before those of the pixels, in one softmax. It is not
    normalized here.

    Attributes:
      head_dim: None: one head.

    Source: Nichol et al. 2021 (arXiv 2112.10741), section 4.1; openai/glide-text2im, unet.py,
    AttentionBlock.
    """

    head_dim: int | None = 64
    groups: int = 32
    epsilon: float = 1e-5
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        context: jax.Array | None = None,
        context_mask: jax.Array | None = None,
    ) -> jax.Array:
        """The next x; context_mask [B, S]: true on valid tokens."""
        channels, dtype = x.shape[-1], activation_dtype(self.dtype)
        head_dim = self.head_dim or channels
        if channels % head_dim:
            raise ValueError(
                f"Attention over {channels} channels has heads of {head_dim}: set head_dim to a "
                "divisor of all widths with attention."
            )
        heads = (channels // head_dim, head_dim)
        y = GroupNorm(self.groups, self.epsilon, str(dtype), name="norm")(x)
        y = rearrange(y, "b h w c -> b (h w) c")

        def project(tokens, parts, name, axis):
            names = (axis, "qkv", "heads", "head_dim")
            y = Linear((parts, *heads), names, dtype=self.dtype, name=name)(tokens)
            return rearrange(y, "b l n h d -> n b l h d")

        query, key, value = project(y, 3, "qkv", "embed")
        visible = None
        if context is not None:
            added = project(context.astype(dtype), 2, "key_value", None)
            key, value = (jnp.concatenate([a, b], 1) for a, b in zip(added, (key, value)))
            if context_mask is not None:
                pixels = jnp.ones((len(x), query.shape[1]), bool)
                visible = jnp.concatenate([context_mask, pixels], 1)[:, None, None, None]
        key, value = (rearrange(a, "b s h d -> b h s d") for a in (key, value))
        query = rearrange(query, "b l h d -> b l h 1 d")

        def result(query, key, value, visible):
            return attend(query, key, value, visible=visible, dtype=dtype)[0]

        many = query[..., 0].size * key.shape[2] >= MANY
        if many and visible is None and platform.current().attends_by_head:
            y = attend_by_head(query, key, value, dtype)
        else:
            if platform.current().recomputes and self.dtype == "float32":
                result = recompute(result)
            y = result(query, key, value, visible)
        y = rearrange(y, "b l h 1 d -> b l h d")
        names = ("heads", "head_dim", "embed")
        y = Linear((channels,), names, dtype=self.dtype, kernel_init=ZEROS, name="out")(y)
        return x + y.reshape(x.shape)
