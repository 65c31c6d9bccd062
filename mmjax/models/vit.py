"""Vision transformer: from an image to one vector or to tokens, and with a head to class logits."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs
from mmjax.layers.conv_tokenizer import ConvTokenizer
from mmjax.layers.linear import Linear, class_head
from mmjax.layers.norm import LayerNorm, unit_length
from mmjax.layers.parameters import broadcast_last, param
from mmjax.layers.patch_embed import ConvStem, PatchEmbed, check_divides, drop_patches
from mmjax.layers.pixels import normalize
from mmjax.layers.pooling import check_pool, pool_tokens
from mmjax.layers.position import LearnedGrid, sincos1d, sincos2d
from mmjax.layers.precision import activation_dtype
from mmjax.layers.sizes import TrainSize, image_tower_sizes
from mmjax.losses.classification import check_classes, check_labels
from mmjax.models.build import build
from mmjax.models.classification import classification
from mmjax.models.tower import Tower, learned_token, pool_and_norm, tower_blocks
from mmjax.sharding import shard
from mmjax.system import System

POOLS = ("cls", "cls_mean", "cls_tokens", "mean", "map", "sequence", "none", "all")


class ViT(TrainSize, Tower):
    """batch["image"] [B, H, W, 3] -> image_features [B, width], and logits [B, num_classes].

    With a mask_token, a batch may have `image_masked` [B, patches] bool: the patches that it
    replaces.

    Attributes:
      variant: "ViT-B/16"; patch_size overrides it too. For what is not named here see `Tower`.
      image_size: (H, W) of training; sets the stored grid of positions. Other sizes work too.
      image_mean, image_std: of the pixels in [0, 1], per channel.
      pool: "cls" (adds a class token), "cls_mean" (class token and mean of the patches
        concatenated, [B, 2 width]), "mean", "map" (attention with a learned query) or "sequence" (a
        mean by learned weights); "none" gives image_tokens [B, patches, width], normalized, instead
        of image_features; "all" gives all tokens of the last block, not normalized, including those
        before the patches; "cls_tokens" gives both the class token and image_tokens, normalized.
      feature_layer: with pool "all", the block whose tokens are returned: 1 the first, -1 the last.
        The parameters of the blocks after it, and of the final norm, exist and are not used, as in
        a LLaVA; None: the last block, without a final norm.
      class_token: add a class token whatever the pool. Only pools named "cls..." return it.
      distillation: "token" adds a second token with a position (DeiT), "head" also a head on it;
        the logits are the mean of both heads.
      registers: number of register tokens, without positions, not returned.
      mask_token: add a learned token for masked patches (BEiT).
      pre_logits: width of a final linear map with tanh that gives image_features.
      position: "learned", "sincos2d", or "sincos1d" of the tokens row by row.
      position_resize: how learned positions are resized to another grid, see `resize_grid`;
        "sincos2d" positions are scaled to the grid, or with "none" extended, as in big_vision.
      position_std: initial standard deviation of learned positions; None: width^-1/2.
      stem: "patch" (one linear map per patch), "conv" (3x3 convolutions of stride 2) or "conv_pool"
        (convolutions of `stem_kernel`, each with max pooling: see `ConvTokenizer`).
      pre_norm: a norm before the first block, as in CLIP.
      drop_partial_patches: drop the pixels at the bottom and right that do not fill a patch, like a
        convolution without padding; otherwise such images raise an error.
      patch_dropout: fraction of the patches that a training step drops.
      block_norm: "pre" or "between"; see `Block`.
      gated_mlp, qkv_bias, layer_scale, attention_dropout: see `Transformer`.
      num_classes: size of the head; None: no head.
      embed_dim: size of image_embed, of unit length, from a linear map of image_features as in a
        CLIP; None: no such map.

    Raises:
      ValueError: inconsistent settings.

    Source: Dosovitskiy et al. 2021 (arXiv 2010.11929); Radford et al. 2021 (arXiv 2103.00020);
    "sequence", "conv_pool" and "between": CCT, Hassani et al. 2021 (arXiv 2104.05704);
    distillation: Touvron et al. 2021 (arXiv 2012.12877); registers: Darcet et al. 2023
    (arXiv 2309.16588); mask token: BEiT, Bao et al. 2022 (arXiv 2106.08254), section 2.3.
    """

    patch_size: int | None = None
    image_size: int | tuple[int, int] = (224, 224)
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    pool: str = "cls"
    position: str = "learned"
    stem: str = "patch"
    patch_bias: bool = True
    pre_norm: bool = False
    patch_dropout: float = 0.0
    num_classes: int | None = None
    class_token: bool = False
    distillation: str = "none"
    registers: int = 0
    mask_token: bool = False
    pre_logits: int | None = None
    position_resize: str = "antialias"
    gated_mlp: bool = False
    qkv_bias: bool = True
    layer_scale: float | None = None
    drop_partial_patches: bool = False
    embed_dim: int | None = None
    feature_layer: int | None = None
    block_norm: str = "pre"
    attention_dropout: float = 0.0
    position_std: float | None = None
    stem_kernel: int = 3

    @property
    def sizes(self) -> dict[str, int]:
        """width, depth, heads, mlp_dim and patch_size, from the variant and the fields."""
        return image_tower_sizes(self, "config.model of a ViT")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the patches of an image of `train_size`."""
        return tuple(side // self.sizes["patch_size"] for side in self.train_size)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        sizes = self.sizes
        width = sizes["width"]
        stream = activation_dtype(self.dtype)
        self._check()

        # ---- pixels to patch tokens, with their positions
        image = shard(batch["image"], "batch", "height", "width", "channels")
        if self.drop_partial_patches:
            bottom, right = (n - n % sizes["patch_size"] for n in image.shape[1:3])
            image = image[:, :bottom, :right]
        else:
            check_divides(self.train_size, sizes["patch_size"])
        x = self._stem(sizes)(normalize(image, self.image_mean, self.image_std))
        grid = x.shape[1:3]
        x = self._masked(x, batch.get("image_masked"))
        x = (x + self._positions(grid, width).astype(stream)[None]).reshape(x.shape[0], -1, width)
        if train and self.patch_dropout:
            x = drop_patches(x, self.patch_dropout, self.make_rng("dropout"))
        first = self._first_tokens(width, batch)  # in front of the patches
        if first is not None:
            first = jnp.broadcast_to(first.astype(stream), (x.shape[0], *first.shape[1:]))
            x = jnp.concatenate([first, x], axis=1)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = shard(x, "batch", "length", "act_embed")
        if self.pre_norm:
            x = LayerNorm(self.norm_epsilon, stream, name="pre_norm")(x)

        # ---- blocks
        x = tower_blocks(
            self,
            self._used_blocks(sizes["depth"]),
            gated_mlp=self.gated_mlp,
            qkv_bias=self.qkv_bias,
            layer_scale=self.layer_scale,
            norm=self.block_norm,
            attention_dropout=self.attention_dropout,
        )(x, train=train)

        # ---- one vector, or all tokens
        norm = LayerNorm(self.norm_epsilon, self.dtype, name="norm")
        if self.pool == "all":
            if self.feature_layer is not None and self.is_initializing():
                norm(x)
            return {"image_tokens": x}
        patches = x if first is None else x[:, first.shape[1] :]
        if self.pool == "none":
            return {"image_tokens": norm(patches)}
        if self.pool == "cls_tokens":
            x = norm(x)
            features = x[:, 0].astype(jnp.float32)
            return {"image_features": features, "image_tokens": x[:, first.shape[1] :]}
        if self.pool == "cls_mean":
            features = jnp.concatenate([norm(x[:, 0]), pool_tokens(norm(patches), "mean")], -1)
        else:
            y = x if self.pool == "cls" else patches
            features = pool_and_norm(self, norm, y, None)
        features = features.astype(jnp.float32)
        if self.pre_logits is not None:
            features = jnp.tanh(
                Linear((self.pre_logits,), ("embed", None), name="pre_logits")(features)
            )
        outputs = {"image_features": features}
        if self.embed_dim is not None:
            init = nn.initializers.normal(features.shape[-1] ** -0.5)
            project = Linear(
                (self.embed_dim,), ("embed", "joint"), False, kernel_init=init, name="image_proj"
            )
            outputs["image_embed"] = unit_length(project(features))
        if self.num_classes is not None:
            outputs["logits"] = class_head(self.num_classes)(features)
        if self.distillation == "head":
            second = norm(x[:, 1]).astype(jnp.float32)
            second = class_head(self.num_classes, "distillation_head")(second)
            outputs["logits"] = (outputs["logits"] + second) / 2
        return outputs

    def _check(self) -> None:
        """Raise ValueError for inconsistent settings."""
        check_pool(self.pool, "pool of a ViT", POOLS)
        if self.pool in ("none", "all", "cls_tokens") and self.num_classes is not None:
            raise ValueError(f"A ViT with pool '{self.pool}' has no head: unset num_classes.")
        if self.feature_layer is not None and self.pool != "all":
            raise ValueError(
                f"A ViT with pool '{self.pool}' has feature_layer {self.feature_layer}, which pool "
                "'all' alone takes: unset it."
            )
        if self.block_norm not in ("pre", "between"):
            raise ValueError(f"block_norm of a ViT is '{self.block_norm}'; use 'pre' or 'between'.")
        if self.distillation not in ("none", "token", "head"):
            raise ValueError(
                f"distillation of a ViT is '{self.distillation}'; use 'none', 'token' or 'head'."
            )
        if self.distillation != "none" and self.pool != "cls":
            raise ValueError(
                f"A ViT with a distillation token has pool 'cls', not '{self.pool}': change one."
            )
        if self.distillation == "head" and self.num_classes is None:
            raise ValueError("A ViT with distillation 'head' has two heads: set num_classes.")

    def _used_blocks(self, depth: int) -> int | None:
        """How many blocks are applied; None: all of them."""
        layer = self.feature_layer
        if layer is None:
            return None
        if layer == 0 or abs(layer) > depth:
            raise ValueError(
                f"feature_layer of a ViT of {depth} blocks is {layer}: give 1 to {depth}, or "
                f"-{depth} to -1."
            )
        return layer if layer > 0 else depth + 1 + layer

    def _masked(self, x: jax.Array, masked: jax.Array | None) -> jax.Array:
        """Patches [B, h, w, width] with the mask token in place of those that are masked."""
        if not self.mask_token:
            return x
        init = nn.initializers.normal(0.02)
        token = param(self, "mask_token", init, x.shape[-1:], ("embed",))
        if masked is None:
            return x
        return jnp.where(
            masked.reshape(*x.shape[:3], 1), broadcast_last(token.astype(x.dtype), x.ndim), x
        )

    def _first_tokens(self, width: int, batch: Batch) -> jax.Array | None:
        """Class token, distillation token and registers, if any: [1 or B, n, width]."""
        del batch
        names = {
            "class": self.class_token or self.pool in ("cls", "cls_mean", "cls_tokens"),
            "distillation": self.distillation != "none",
        }
        tokens = [
            learned_token(self, name, width)[None] for name, wanted in names.items() if wanted
        ]
        if self.registers:
            shape, init = (self.registers, width), nn.initializers.normal(width**-0.5)
            tokens.append(param(self, "registers", init, shape, ("length", "embed")))
        return jnp.concatenate(tokens)[None] if tokens else None

    def _stem(self, sizes: dict[str, int]) -> nn.Module:
        patch, width = sizes["patch_size"], sizes["width"]
        if self.stem == "patch":
            return PatchEmbed(patch, width, self.patch_bias, self.dtype, name="stem")
        if self.stem == "conv":
            return ConvStem(patch, width, self.dtype, name="stem")
        if self.stem == "conv_pool":
            return ConvTokenizer(patch, width, self.stem_kernel, self.dtype, name="stem")
        raise ValueError(f"stem of a ViT is '{self.stem}'; use 'patch', 'conv' or 'conv_pool'.")

    def _positions(self, grid: tuple[int, int], width: int) -> jax.Array:
        stored = self.grid
        if self.position == "learned":
            table = LearnedGrid(
                stored, width, self.position_resize, self.position_std, name="position"
            )
            return table(grid)
        if self.position == "sincos1d":
            return jnp.asarray(sincos1d(math.prod(grid), width).reshape(*grid, width))
        if self.position == "sincos2d":
            stored = None if self.position_resize == "none" else stored
            return jnp.asarray(sincos2d(grid, width, stored))
        raise ValueError(
            f"position of a ViT is '{self.position}'; use 'learned', 'sincos1d' or 'sincos2d'."
        )


def make_model(config: Mapping[str, Any]) -> ViT:
    """The classifier that `config.model` describes. See `build`."""
    return build(ViT, config)


def make_system(config: Mapping[str, Any]) -> System:
    """A ViT classifier; see `classifier`.

    Raises:
      ValueError: an unknown setting.
    """
    return classifier(make_model(config["model"]), config["loss"])


def classifier(model: nn.Module, settings: Mapping[str, Any]) -> System:
    """A classifier of images; `config.loss` may set `label_smoothing`, `independent`, `evidential`.

    Its loss gives `classification` and `accuracy`; see `classification_loss`.

    Args:
      model: with `num_classes` and `train_size`; settings: `config.loss`.

    Raises:
      ValueError: an unknown setting.
    """
    loss = classification(**check_kwargs(classification, settings, "config.loss"))
    head = {"classes": model.num_classes, "setting": "config.model.num_classes"}
    labeled = model.num_classes is not None
    return System(
        model=model,
        spec=spec(model),
        loss=loss,
        check_batch=functools.partial(check_labels, **head) if labeled else None,
        check_source=functools.partial(check_classes, **head) if labeled else None,
        evaluators={"classification": {"kind": "classification", "modalities": ("image",)}},
    )


def spec(model: nn.Module) -> Spec:
    """The arrays that the model and its loss need, for a batch of one."""
    arrays = {"image": jax.ShapeDtypeStruct((1, *model.train_size, 3), jnp.uint8)}
    if model.num_classes is not None:
        arrays["label"] = jax.ShapeDtypeStruct((1,), jnp.int32)
    return arrays
