"""Transformers on spectrograms with a head to class logits: AST, and the Keyword Transformer."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs
from mmjax.layers.linear import Linear, class_head
from mmjax.layers.norm import LayerNorm
from mmjax.layers.position import LearnedGrid
from mmjax.layers.precision import activation_dtype
from mmjax.layers.sizes import decode_variant, resolve
from mmjax.losses.classification import check_classes, check_labels
from mmjax.models.build import build
from mmjax.models.classification import classification
from mmjax.models.tower import Tower, learned_token, tower_blocks
from mmjax.sharding import shard
from mmjax.system import System

# width, depth, mlp_dim, heads: Berg et al. 2021 (arXiv 2104.00769), table 1.
KEYWORD_SIZES = {
    "KWT-1": (64, 12, 256, 1),
    "KWT-2": (128, 12, 512, 2),
    "KWT-3": (192, 12, 768, 3),
}


class AudioClassifier(Tower):
    """batch["audio"] [B, frames, bins] -> audio_features [B, width], logits [B, num_classes].

    The defaults are those of AST; a Keyword Transformer has one patch per frame, norms behind the
    blocks, and neither a distillation token, biases of queries, keys and values, nor a norm of the
    head.

    Attributes:
      variant: "B" or another size of a ViT, or "KWT-1" to "KWT-3"; for it and what is not named
        here see `Tower`.
      frames, bins: of the spectrograms in training; sets the stored grid of positions.
      patch_size, stride: (frames, bins) of a patch, and from one to the next; what does not fill a
        patch at the end is dropped.
      norm: "pre", with a norm of the result, or "post".
      distillation: add a second token with a position; the features are the mean of both.
      head_norm: a norm of the features before the head.
      num_classes: size of the head; None: no head.

    Raises:
      ValueError: inconsistent settings.

    Source: AST, Gong et al. 2021 (arXiv 2104.01778), section 2; KWT, Berg et al. 2021 (arXiv
    2104.00769), section 2, and ARM-software/keyword-transformer.
    """

    frames: int = 1024
    bins: int = 128
    patch_size: tuple[int, int] = (16, 16)
    stride: tuple[int, int] = (10, 10)
    norm: str = "pre"
    qkv_bias: bool = True
    distillation: bool = True
    head_norm: bool = True
    num_classes: int | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """width, depth, heads and mlp_dim, from the variant and the fields."""
        names = ("width", "depth", "heads", "mlp_dim")
        if self.variant in KEYWORD_SIZES:
            decoded = dict(zip(("width", "depth", "mlp_dim", "heads"), KEYWORD_SIZES[self.variant]))
        else:
            decoded = decode_variant(self.variant) if self.variant else {}
        return resolve(decoded, {n: getattr(self, n) for n in names}, "config.model")

    def grid(self, frames: int, bins: int) -> tuple[int, int]:
        """Patches along the frames and along the bins of a spectrogram.

        Raises:
          ValueError: a spectrogram smaller than a patch, or a stride of 0.
        """
        if min(self.stride) < 1:
            raise ValueError(f"config.model.stride is {self.stride}: it must be at least 1.")
        if frames < self.patch_size[0] or bins < self.patch_size[1]:
            raise ValueError(
                f"A spectrogram of {frames} frames and {bins} bins is smaller than a patch of "
                f"{self.patch_size[0]} x {self.patch_size[1]}: set config.model.patch_size, or "
                "make larger ones in config.data.transform."
            )
        sides = zip((frames, bins), self.patch_size, self.stride)
        return tuple((size - patch) // step + 1 for size, patch, step in sides)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        width, stream = self.sizes["width"], activation_dtype(self.dtype)

        # ---- patches to tokens, with their positions
        audio = shard(batch["audio"], "batch", "length", None)
        grid = self.grid(*audio.shape[1:])
        patches = overlapping_patches(audio, self.patch_size, self.stride, grid)
        x = Linear((width,), ("patch", "embed"), dtype=self.dtype, name="stem")(patches)
        stored = self.grid(self.frames, self.bins)
        position = LearnedGrid(stored, width, name="position")(grid)
        x = rearrange(x + position.astype(stream)[None], "b t f d -> b (t f) d")
        names = ("class", "distillation") if self.distillation else ("class",)
        first = jnp.stack([learned_token(self, name, width) for name in names]).astype(stream)
        x = jnp.concatenate([jnp.broadcast_to(first, (x.shape[0], *first.shape)), x], axis=1)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = shard(x, "batch", "length", "act_embed")

        # ---- blocks
        x = tower_blocks(self, norm=self.norm, qkv_bias=self.qkv_bias)(x, train=train)

        # ---- one vector, and the head
        x = x[:, : len(names)]
        if self.norm == "pre":
            x = LayerNorm(self.norm_epsilon, self.dtype, name="norm")(x)
        features = x.astype(jnp.float32).mean(axis=1)
        outputs = {"audio_features": features}
        if self.num_classes is not None:
            if self.head_norm:
                features = LayerNorm(self.norm_epsilon, name="head_norm")(features)
            outputs["logits"] = class_head(self.num_classes)(features)
        return outputs


def overlapping_patches(
    audio: jax.Array, size: tuple[int, int], stride: tuple[int, int], grid: tuple[int, int]
) -> jax.Array:
    """[B, F, M] -> [B, *grid, frames · bins of a patch], its frames one after another."""
    rows, columns = (
        np.arange(n)[:, None] * step + np.arange(side) for n, step, side in zip(grid, stride, size)
    )
    patches = audio[:, rows][..., columns]  # [B, t, i, f, j]
    return rearrange(patches, "b t i f j -> b t f (i j)")


def make_system(config: Mapping[str, Any]) -> System:
    """An audio classifier.

    `config.loss` may set `label_smoothing` and `independent`; the loss gives `classification` and
    `accuracy`, see `classification_loss`.

    Raises:
      ValueError: an unknown setting.
    """
    model = build(AudioClassifier, config["model"])
    model.grid(model.frames, model.bins)
    loss = classification(**check_kwargs(classification, config["loss"], "config.loss"))
    head = {"classes": model.num_classes, "setting": "config.model.num_classes"}
    labeled = model.num_classes is not None
    independent = config["loss"].get("independent", False)
    shown = {"kind": "multi_label" if independent else "classification", "modalities": ("audio",)}
    return System(
        model=model,
        spec=spec(model, independent),
        loss=loss,
        check_batch=functools.partial(check_labels, **head) if labeled else None,
        check_source=functools.partial(check_classes, **head) if labeled else None,
        evaluators={"classification": shown},
    )


def spec(model: AudioClassifier, several: bool) -> Spec:
    """The arrays that the model and its loss need, for a batch of one.

    Args:
      several: an example may be of several classes.
    """
    arrays = {"audio": jax.ShapeDtypeStruct((1, model.frames, model.bins), jnp.float32)}
    if model.num_classes is not None and several:
        arrays["label_probs"] = jax.ShapeDtypeStruct((1, model.num_classes), jnp.float32)
    elif model.num_classes is not None:
        arrays["label"] = jax.ShapeDtypeStruct((1,), jnp.int32)
    return arrays
