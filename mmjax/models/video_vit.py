"""Vision transformers of video by tubelets: ViViT, joint and factorized, and VideoMAE."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, reduce

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs
from mmjax.layers.linear import Linear, class_head
from mmjax.layers.norm import LayerNorm, unit_length
from mmjax.layers.parameters import param
from mmjax.layers.pixels import normalize
from mmjax.layers.precision import activation_dtype
from mmjax.layers.sizes import TrainSize
from mmjax.layers.tubelet_embed import (
    TubeletEmbed,
    TubeletPositions,
    alternating_sinusoids,
    check_tubelets,
)
from mmjax.losses.classification import check_classes, check_labels
from mmjax.models.build import build
from mmjax.models.classification import classification
from mmjax.models.encoder import Encoder
from mmjax.models.masked_video import MaskedVideo
from mmjax.models.video_decoder import VideoDecoder
from mmjax.sharding import shard
from mmjax.system import System


class VideoViT(TrainSize, Encoder):
    """batch["video"] [B, T, H, W, 3] -> video_features [B, width], logits [B, num_classes].

    `video_mask` [B, T]: a tubelet without any valid frame is not attended to.
    With `video_visible` [B, K] int32, of N tubelets only these, in ascending order, are seen; a
    model with a decoder then gives video_pixels [B, N, pixels of a tubelet].

    Attributes:
      frames, image_size: T and (H, W).
      tubelet: frames, height and width of a token.
      temporal_depth: 0: all tubelets attend to all others (ViViT's model 1, VideoMAE). Above: the
        `depth` blocks attend within the tubelets of a time, and so many blocks attend over the
        class tokens of all times (model 2, the factorized encoder).
      position: "learned", a table of all tubelets (of a factorized encoder one of places and one of
        times), or "sinusoids", fixed and one-dimensional.
      pool: "cls" (adds a class token), "first" (the first tubelet), or "mean" over the tubelets.
      final_norm: "tokens": a norm of all tokens before pooling; "features": after it, with
        `head_epsilon`; "none".
      pre_logits: width of a final linear map with tanh that gives video_features.
      qkv_bias, key_bias: see `Transformer`.
      num_classes: size of the head; None: no head.
      embed_dim: size of video_embed, of unit length, from a linear map; None: no such map.
      decoder: width, depth, heads and mlp_dim of a `VideoDecoder`, for pre-training by masked
        tubelets; None: no decoder.

    Raises:
      ValueError: inconsistent settings.

    Source: Arnab et al. 2021 (arXiv 2103.15691), sections 3.1 to 3.3; Tong et al. 2022 (arXiv
    2203.12602).
    """

    frames: int = 32
    image_size: int | tuple[int, int] = (224, 224)
    tubelet: tuple[int, int, int] = (2, 16, 16)
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_dim: int = 3072
    temporal_depth: int = 0
    position: str = "learned"
    pool: str = "cls"
    final_norm: str = "tokens"
    pre_logits: int | None = None
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    norm_epsilon: float = 1e-6
    head_epsilon: float = 1e-5
    qkv_bias: bool = True
    key_bias: bool = True
    stochastic_depth: float = 0.0
    num_classes: int | None = None
    embed_dim: int | None = None
    decoder: Mapping[str, Any] | None = None

    @property
    def grid(self) -> tuple[int, int, int]:
        """Tubelets along time, height and width."""
        return tuple(n // side for n, side in zip((self.frames, *self.train_size), self.tubelet))

    def check(self) -> None:
        """Raise ValueError for inconsistent settings."""
        check_tubelets(self.frames, self.train_size, self.tubelet)
        for name, known in (
            ("position", ("learned", "sinusoids")),
            ("pool", ("cls", "first", "mean")),
            ("final_norm", ("tokens", "features", "none")),
        ):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"config.model.{name} is '{value}'; use one of {known}.")
        if self.temporal_depth and (self.position, self.pool) != ("learned", "cls"):
            raise ValueError(
                "A factorized encoder (config.model.temporal_depth above 0) has learned positions "
                "and pool 'cls'."
            )
        if self.decoder is not None:
            self.pixel_decoder(parent=None)
            if self.pool == "cls" or self.num_classes is not None:
                raise ValueError(
                    "A model with a decoder (config.model.decoder) has no class token and no head: "
                    "set pool to 'mean' or 'first', and num_classes to None."
                )

    def pixel_decoder(self, **kwargs) -> VideoDecoder:
        """The module that `decoder` describes."""
        fields = {
            "tubelets": math.prod(self.grid),
            "pixels": 3 * math.prod(self.tubelet),
            "activation": self.activation,
            "epsilon": self.norm_epsilon,
            "qkv_bias": self.qkv_bias,
            "key_bias": self.key_bias,
            "remat": self.remat,
            "dtype": self.dtype,
            **(self.decoder or {}),
        }
        return VideoDecoder(**check_kwargs(VideoDecoder, fields, "config.model.decoder"), **kwargs)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        self.check()
        video, stream = batch["video"], activation_dtype(self.dtype)
        mask = None
        if "video_mask" in batch:
            mask = reduce(batch["video_mask"], "b (t s) -> b t", "max", s=self.tubelet[0])
        frames = rearrange(video, "b t h w c -> (b t) h w c")
        pixels = normalize(frames, self.image_mean, self.image_std)
        pixels = rearrange(pixels, "(b t) h w c -> b t h w c", t=video.shape[1])
        x = TubeletEmbed(tuple(self.tubelet), self.width, self.dtype, name="stem")(pixels)
        if x.shape[1:4] != self.grid:
            raise ValueError(
                f"The video has {x.shape[1:4]} tubelets and the model {self.grid}: its frames and "
                "sizes are those of config.model."
            )
        if self.temporal_depth:
            x, mask = self._factorized(x, mask, train)
            return self._outputs(self._normed(x), mask)
        valid = None if mask is None else jnp.repeat(mask, math.prod(self.grid[1:]), axis=1)
        visible = batch.get("video_visible")
        x, mask = self._joint(x.astype(stream), valid, visible, train)
        x = self._normed(x)
        outputs = self._outputs(x, mask)
        if self.decoder is not None and (visible is not None or self.is_initializing()):
            places = jnp.broadcast_to(jnp.arange(x.shape[1])[None], x.shape[:2])
            places = places if visible is None else visible
            decode = self.pixel_decoder(name="decoder")
            outputs["video_pixels"] = decode(x, places, valid, train)
        return outputs

    def _joint(
        self, x: jax.Array, mask: jax.Array | None, visible: jax.Array | None, train: bool
    ) -> tuple[jax.Array, jax.Array | None]:
        """All tokens that are visible after all blocks, and which are valid."""
        width, (_, height, across) = self.width, self.grid
        if self.position == "learned":
            place = TubeletPositions(self.grid, width, name="position")()
        else:
            tubelets = self.grid[0] * height * across
            table = jnp.asarray(alternating_sinusoids(tubelets, width))
            place = table.reshape(*self.grid, width)
        x = rearrange(x + place.astype(x.dtype)[None], "b t h w d -> b (t h w) d")
        if visible is not None:
            x = jnp.take_along_axis(x, visible[..., None], axis=1)
            mask = None if mask is None else jnp.take_along_axis(mask, visible, axis=1)
        x, mask = self._with_class(x, mask, "class")
        return self._blocks(x, mask, self.depth, "transformer", train), mask

    def _factorized(
        self, x: jax.Array, mask: jax.Array | None, train: bool
    ) -> tuple[jax.Array, jax.Array | None]:
        """The tokens of all times after both encoders, a class token first."""
        stream = activation_dtype(self.dtype)
        place = TubeletPositions(self.grid[1:], self.width, name="position")()
        times = x.shape[1]
        x = (x + place.astype(x.dtype)[None, None]).astype(stream)
        x, _ = self._with_class(rearrange(x, "b t h w d -> (b t) (h w) d"), None, "class")
        x = self._blocks(x, None, self.depth, "transformer", train)
        x = LayerNorm(self.norm_epsilon, stream, name="spatial_norm")(x[:, 0])
        x = rearrange(x, "(b t) d -> b t d", t=times)
        time = TubeletPositions(self.grid[:1], self.width, name="time")()
        x, mask = self._with_class(x + time.astype(x.dtype)[None], mask, "time_class")
        return self._blocks(x, mask, self.temporal_depth, "temporal", train), mask

    def _with_class(
        self, x: jax.Array, mask: jax.Array | None, name: str
    ) -> tuple[jax.Array, jax.Array | None]:
        """x and its mask with a class token, which has a position of its own, in front."""
        if self.pool != "cls":
            return x, mask
        init, shape = nn.initializers.normal(0.02), (self.width,)
        token = param(self, f"{name}_token", init, shape, ("embed",))
        token = (token + param(self, f"{name}_position", init, shape, ("embed",))).astype(x.dtype)
        x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, self.width)), x], axis=1)
        return x, mask if mask is None else jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True)

    def _blocks(self, x, mask, depth: int, name: str, train: bool) -> jax.Array:
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        blocks = self.blocks(
            depth,
            name,
            stochastic_depth=self.stochastic_depth,
            qkv_bias=self.qkv_bias,
            key_bias=self.key_bias,
        )
        return blocks(shard(x, "batch", "length", "act_embed"), mask, train=train)

    def _normed(self, x: jax.Array) -> jax.Array:
        """The tokens that are read after the blocks, in fp32."""
        if self.final_norm == "tokens":
            # The norm of one token, not of all, where the others are not read.
            x = x if self.pool == "mean" or self.decoder is not None else x[:, :1]
            x = LayerNorm(self.norm_epsilon, self.dtype, name="norm")(x)
        return x.astype(jnp.float32)

    def _outputs(self, x: jax.Array, mask: jax.Array | None) -> dict[str, jax.Array]:
        if self.pool == "mean":
            valid = jnp.ones(x.shape[:2], bool) if mask is None else mask
            count = jnp.maximum(valid.sum(1, dtype=jnp.float32), 1.0)[:, None]
            features = jnp.sum(x, axis=1, where=valid[..., None]) / count
        else:
            features = x[:, 0]
        if self.final_norm == "features":
            features = LayerNorm(self.head_epsilon, name="norm")(features)
        if self.pre_logits is not None:
            maps = Linear((self.pre_logits,), ("embed", None), name="pre_logits")
            features = jnp.tanh(maps(features))
        outputs = {"video_features": features}
        if self.embed_dim is not None:
            init = nn.initializers.normal(features.shape[-1] ** -0.5)
            project = Linear(
                (self.embed_dim,), ("embed", "joint"), False, kernel_init=init, name="video_proj"
            )
            outputs["video_embed"] = unit_length(project(features))
        if self.num_classes is not None:
            outputs["logits"] = class_head(self.num_classes)(features)
        return outputs


def make_model(config: Mapping[str, Any]) -> VideoViT:
    """The transformer that `config.model` describes. See `build`.

    Raises:
      ValueError: an unknown setting, or inconsistent ones.
    """
    model = build(VideoViT, config)
    model.check()
    return model


def make_system(config: Mapping[str, Any]) -> System:
    """A classifier of videos, see `vit.make_system` for `config.loss` and the terms; or, with a
    decoder, VideoMAE's pre-training: see `MaskedVideo`.

    Raises:
      ValueError: an unknown setting.
    """
    model = make_model(config["model"])
    if model.decoder is not None:
        masking = MaskedVideo(**check_kwargs(MaskedVideo, config["loss"], "config.loss"))
        return System(
            model=model,
            spec=spec(model),
            loss=masking.terms(tuple(model.tubelet)),
            corrupt=masking.corrupt(model.grid),
        )
    loss = classification(**check_kwargs(classification, config["loss"], "config.loss"))
    head = {"classes": model.num_classes, "setting": "config.model.num_classes"}
    labeled = model.num_classes is not None
    return System(
        model=model,
        spec=spec(model),
        loss=loss if labeled else None,
        check_batch=functools.partial(check_labels, **head) if labeled else None,
        check_source=functools.partial(check_classes, **head) if labeled else None,
        evaluators={"classification": {"kind": "classification", "modalities": ("video",)}},
    )


def spec(model: VideoViT) -> Spec:
    """The arrays that the model and its loss need, for a batch of one."""
    arrays = {
        "video": ((model.frames, *model.train_size, 3), jnp.uint8),
        "video_mask": ((model.frames,), jnp.bool_),
    }
    if model.num_classes is not None:
        arrays["label"] = ((), jnp.int32)
    return {k: jax.ShapeDtypeStruct((1, *shape), dtype) for k, (shape, dtype) in arrays.items()}
