"""Dual encoders, chosen by config: CLIP, ALIGN-style, SigLIP-style, and locked-image tuning."""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mmjax.batch import Batch, Spec, UpTo, modality_of
from mmjax.config import check_kwargs
from mmjax.layers.batch_norm import COUPLES_ROWS
from mmjax.layers.feature_head import FeatureHead
from mmjax.layers.linear import Linear
from mmjax.layers.norm import unit_length
from mmjax.layers.parameters import param
from mmjax.losses.contrastive import CHUNK_SIZE, MEMORY_MB, contrastive_loss
from mmjax.losses.duplicates import Ids
from mmjax.models.bert import BERT
from mmjax.models.build import build, of_kind
from mmjax.models.efficientnet import EfficientNet
from mmjax.models.frames import Frames
from mmjax.models.hard_negatives import negatives_of, with_negatives
from mmjax.models.loss_memory import leaner_losses, notes
from mmjax.models.naflex import NaFlex
from mmjax.models.packed_pairs import by_row, each_text, flat_pairs, packed_ids
from mmjax.models.resnet import ModifiedResNet
from mmjax.models.text import TextTransformer
from mmjax.models.vit import ViT
from mmjax.system import STATISTICS, Context, Outputs, System, Terms, Weighted

IMAGE_TOWERS = {
    "vit": ViT,
    "efficientnet": EfficientNet,
    "frames": Frames,
    "naflex": NaFlex,
    "resnet": ModifiedResNet,
}
TEXT_TOWERS = {"transformer": TextTransformer, "bert": BERT}


class CLIP(nn.Module):
    """An image tower and a text tower with a shared embedding space.

    A batch with `image` gives image_features and image_embed [B, embed_dim]; one with `text`
    gives text_features and text_embed; both also give logit_scale (and logit_bias). Embeddings
    are fp32 and of unit length. With several images and texts packed in each row, see `NaFlex`, the
    text is [B, M, L] and features and embeddings are [B, M, D].

    Attributes:
      image, text: fields of the towers; they inherit `dtype`. `kind` selects a tower other than
        `ViT` and `TextTransformer`: "efficientnet" (`EfficientNet`), "resnet" (`ModifiedResNet`),
        "frames" (`Frames`, of videos), "naflex" (`NaFlex`, of images at their own aspect ratio),
        "bert" (`BERT`).
      image_proj, text_proj: a linear map into the shared space; without one the tower's width
        must be embed_dim.
      proj_bias: those maps have a bias.
      text_map: width of a layer with ReLU before text_proj; 0: none.
      head: fields of `FeatureHead`, which then takes the place of both maps: for frozen towers.
      text_words: the text's head also reads its tokens, as a bag of words.
      logit_scale_init, logit_scale_max: logarithms of the inverse temperature; training keeps it
        at or below the maximum, and a larger one in a file is used as it is until then.
      logit_bias_init: -10 for SigLIP; None: no bias.
      text_tokens: also give the text tower's text_tokens [B, L, width].
      lock_image: the image tower is frozen and runs in evaluation mode (LiT).
      given: features that training reads in place of images or texts, by name and width: what a
        frozen tower gives, computed once. {"image_features": 1280, "text_features": 384}

    Source: CLIP, Radford et al. 2021 (arXiv 2103.00020), figure 3; ALIGN, Jia et al. 2021
    (arXiv 2102.05918); SigLIP, Zhai et al. 2023 (arXiv 2303.15343); LiT, Zhai et al. 2022
    (arXiv 2111.07991).
    """

    embed_dim: int
    image: Mapping[str, Any]
    text: Mapping[str, Any]
    image_proj: bool = True
    text_proj: bool = True
    proj_bias: bool = False
    text_map: int = 0
    head: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    text_words: bool = False
    logit_scale_init: float = math.log(1 / 0.07)
    logit_scale_max: float = math.log(100.0)
    logit_bias_init: float | None = None
    text_tokens: bool = False
    lock_image: bool = False
    given: Mapping[str, int] = dataclasses.field(default_factory=dict)
    dtype: str = "float32"

    def image_tower(self, **kwargs) -> ViT | EfficientNet | Frames | NaFlex | ModifiedResNet:
        """The image tower that `image` describes."""
        fields = {"dtype": self.dtype, "kind": "vit", **self.image}
        return of_kind(IMAGE_TOWERS, fields, "config.model.image", **kwargs)

    def text_tower(self, **kwargs) -> TextTransformer | BERT:
        """The text tower that `text` describes."""
        fields = {"dtype": self.dtype, "kind": "transformer", **self.text}
        if self.text_tokens and fields["kind"] == "transformer":
            fields["tokens"] = True  # a BERT always gives them
        return of_kind(TEXT_TOWERS, fields, "config.model.text", **kwargs)

    def feature_head(self, words: bool = False, **kwargs) -> FeatureHead:
        """The head of images, or of texts, that `head` describes."""
        size = self.text["vocab_size"] if words else 0
        fields = {"width": self.embed_dim, "vocab_size": size, **self.head}
        return FeatureHead(**check_kwargs(FeatureHead, fields, "config.model.head"), **kwargs)

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool = False) -> dict[str, jax.Array]:
        outputs = {}
        if self.is_initializing():  # of towers whose features are given, too
            batch = {k: jnp.zeros(x.shape, x.dtype) for k, x in inputs(self).items()} | batch
        if "image" in batch:
            tower_train = train and not self.lock_image
            outputs |= self.image_tower(name="image")(batch, train=tower_train)
            if self.lock_image:
                outputs = jax.lax.stop_gradient(outputs)
        if "text" in batch and ("text_features" not in batch or self.is_initializing()):
            texts, rows = with_negatives(batch), batch["text"].shape[0]
            text = each_text(self.text_tower(name="text"), texts, train=train)
            outputs["text_features"] = text["text_features"]
            if self.text_tokens:
                outputs["text_tokens"] = text["text_tokens"].astype(jnp.float32)[:rows]
        outputs |= {k: x for k, x in batch.items() if k in ("image_features", "text_features")}
        if self.head:
            return outputs | self._heads(outputs, batch, train) | self._scale()
        if "image_features" in outputs:
            outputs["image_embed"] = self._embed(outputs["image_features"], "image_proj")
        if "text_features" in outputs:
            features = outputs["text_features"]
            if self.text_map:
                init = nn.initializers.he_normal()
                names = ("embed", "joint")
                text_map = Linear((self.text_map,), names, kernel_init=init, name="text_map")
                features = nn.relu(text_map(features))
            outputs["text_embed"] = self._embed(features, "text_proj")
            if "text_negative" in batch:
                rows = batch["text"].shape[0]
                outputs["text_negative_embed"] = outputs["text_embed"][rows:]
                for name in ("text_features", "text_embed"):
                    outputs[name] = outputs[name][:rows]

        return outputs | self._scale()

    def _scale(self) -> dict[str, jax.Array]:
        """The parameters of the loss: logit_scale, and logit_bias if there is one."""
        found = {"logit_scale": logit_scale(self)}
        if self.logit_bias_init is not None:
            init = nn.initializers.constant(self.logit_bias_init)
            found["logit_bias"] = param(self, "logit_bias", init, (), ())
        return found

    def _heads(self, outputs: Outputs, batch: Batch, train: bool) -> dict[str, jax.Array]:
        """image_embed and text_embed by `FeatureHead`s."""
        found = {}
        if "image_features" in outputs:
            head = self.feature_head(name="image_head")
            found["image_embed"] = unit_length(head(outputs["image_features"], train=train))
        if "text_features" in outputs:
            head = self.feature_head(self.text_words, name="text_head")
            words = (batch["text"], batch["text_mask"]) if self.text_words else ()
            found["text_embed"] = unit_length(head(outputs["text_features"], *words, train=train))
        return found

    def _embed(self, features: jax.Array, name: str) -> jax.Array:
        """[B, width] -> [B, embed_dim] of unit length, in fp32."""
        width = features.shape[-1]
        if getattr(self, name):
            features = joint_projection(width, self.embed_dim, self.proj_bias, name)(features)
        elif width != self.embed_dim:
            raise ValueError(
                f"Without config.model.{name} the tower's width {width} must be embed_dim "
                f"{self.embed_dim}: change one of the three."
            )
        return unit_length(features)


def joint_projection(width: int, embed_dim: int, use_bias: bool, name: str) -> Linear:
    """The map of a tower's features [B, width] into the shared space, [B, embed_dim]."""
    init = nn.initializers.normal(width**-0.5)
    return Linear((embed_dim,), ("embed", "joint"), use_bias, kernel_init=init, name=name)


def logit_scale(model: nn.Module) -> jax.Array:
    """exp of the model's parameter `logit_scale`, from its logit_scale_init."""
    init = nn.initializers.constant(model.logit_scale_init)
    return jnp.exp(param(model, "logit_scale", init, (), ()))


def limits(model: nn.Module) -> dict[str, float]:
    """`System.limits` of a model with a `logit_scale`: clipped after each update, as in open_clip's
    train.py (Radford et al. 2021, section 2.5)."""
    return {"logit_scale": model.logit_scale_max} if math.isfinite(model.logit_scale_max) else {}


def make_model(config: Mapping[str, Any]) -> CLIP:
    """The dual encoder that `config.model` describes. See `build`."""
    return build(CLIP, config, "image_tower", "text_tower")


def make_system(config: Mapping[str, Any]) -> System:
    """CLIP with the contrastive loss of `config.loss`; see `contrastive`.

    Raises:
      ValueError: an unknown setting.
    """
    model, loss = make_model(config["model"]), config["loss"]
    if model.head:
        model.feature_head(parent=None)
    elif model.text_words:
        raise ValueError("config.model.text_words is read by a head: set config.model.head too.")
    settings = check_kwargs(contrastive, loss, "config.loss")
    hard_negatives = bool(settings.get("hard_negatives"))
    if hard_negatives and (model.head or model.given):
        raise ValueError(
            "config.loss.hard_negatives needs a text tower that reads them: unset "
            "config.model.head and config.model.given."
        )
    normed = isinstance(model.image_tower(parent=None), ModifiedResNet) and not model.lock_image
    return System(
        model=model,
        spec=spec(model, bool(settings.get("mask_duplicates")), hard_negatives),
        loss=contrastive(**settings),
        limits=limits(model),
        mutable=(STATISTICS,) if normed else (),
        couples_rows=COUPLES_ROWS if normed else "",
        check_batch=check_pairs,
        evaluators={"contrastive": {"kind": "retrieval"}},
        notes=functools.partial(notes, config),
        leaner_losses=functools.partial(leaner_losses, config),
    )


def contrastive(
    kind: str = "softmax",
    implementation: str = "auto",
    chunk_size: int = CHUNK_SIZE,
    memory_mb: float = MEMORY_MB,
    label_smoothing: float = 0.0,
    mask_duplicates: bool = False,
    alignment: bool = False,
    hard_negatives: bool = False,
) -> Callable[..., Terms]:
    """The loss function for these settings of `config.loss`; see `contrastive_loss`.

    It gives `contrastive`, accuracies, `logit_scale`, and `logit_bias` if there is one.

    Args:
      mask_duplicates: do not use pairs that share an image or a caption as negatives.
      alignment: also give `alignment`, one minus the cosine of each pair.
      hard_negatives: swapped captions, which the step `hard_negative` makes, are further texts that
        an image is compared with (Yuksekgonul et al. 2023, arXiv 2210.01936, section 4: NegCLIP).
    """

    def loss(outputs: Outputs, batch: Batch, context: Context) -> Terms:
        del context
        images, texts, present = outputs["image_embed"], outputs["text_embed"], pairs_present(batch)
        packed = images.ndim == 3
        if packed:
            images, texts, present = flat_pairs(images, texts, batch, present)
        image_ids, text_ids = duplicate_ids(batch) if mask_duplicates else (None, None)
        losses, metrics = contrastive_loss(
            images,
            texts,
            outputs["logit_scale"],
            outputs.get("logit_bias"),
            kind=kind,
            implementation=implementation,
            chunk_size=chunk_size,
            memory_mb=memory_mb,
            label_smoothing=label_smoothing,
            image_ids=image_ids,
            text_ids=text_ids,
            present=present,
            **(negatives_of(outputs, batch, text_ids, row_ids) if hard_negatives else {}),
        )
        scalars = {k: outputs[k] for k in ("logit_scale", "logit_bias") if k in outputs}
        terms = {"contrastive": losses, **metrics}
        if alignment:
            terms["alignment"] = 1 - (images * texts).astype(jnp.float32).sum(axis=-1)
        if packed:
            terms = by_row(terms, present, len(outputs["image_embed"]))
        elif present is not None:
            terms = {k: Weighted(v, present) if v.ndim else v for k, v in terms.items()}
        return terms | scalars

    return loss


def pairs_present(
    batch: Batch, pair: Sequence[str] = ("image", "text")
) -> jax.Array | np.ndarray | None:
    """[B] bool: which rows have both modalities; None: the batch has no presence masks."""
    masks = [batch[f"{name}_present"] for name in pair if f"{name}_present" in batch]
    return functools.reduce(operator.and_, masks) if masks else None


def check_pairs(batch: Batch, pairs: Sequence[Sequence[str]] = (("image", "text"),)) -> None:
    """Raise ValueError for a batch on the host without any complete pair: its loss would be 0."""
    present = [pairs_present(batch, pair) for pair in pairs]
    # With several processes, one of them may have none.
    if jax.process_count() == 1 and not any(x is None or x.any() for x in present):
        both = ", or ".join(f"its {one} and its {other}" for one, other in pairs)
        raise ValueError(
            f"No example of the batch has both {both}: check config.data.train, and what its "
            "transform marks as not present."
        )


def duplicate_ids(batch: Batch) -> Ids:
    """Image ids and text ids, [B] each; equal ids mean the same image, or the same caption.

    An image is known by its number in the source, since given features of it (see `CLIP.given`)
    are random means of its copies; a caption by its tokens, or without them by its features.
    """
    if "text" in batch:
        return packed_ids(batch, row_ids) or (
            batch.get("example_id"),
            row_ids(batch["text"], batch.get("text_mask")),
        )
    features = jax.lax.bitcast_convert_type(batch["text_features"], jnp.int32)
    return batch.get("example_id"), row_ids(features)


def row_ids(text: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """A 32-bit hash of each row of tokens: equal rows have equal ids. [B, L] int32 -> [B] int32.

    Padding (false in `mask`) is ignored. Two different rows collide with probability 2^-32.
    Source: multilinear hashing, Lemire and Kaser 2014 (arXiv 1202.4961).
    """
    tokens = text.astype(jnp.uint32) + jnp.uint32(1)
    if mask is not None:
        tokens = jnp.where(mask, tokens, jnp.zeros_like(tokens))
    factors = np.random.default_rng(0).integers(0, 2**32, text.shape[1], np.uint32) | 1
    mixed = tokens * jnp.asarray(factors)[None]
    mixed = (mixed ^ (mixed >> 16)) * jnp.uint32(0x85EBCA6B)
    return jax.lax.bitcast_convert_type(mixed.sum(1, dtype=jnp.uint32), jnp.int32)


def spec(model: CLIP, example_ids: bool, hard_negatives: bool = False) -> Spec:
    """The arrays that the model and its loss need, for a batch of one; see `duplicate_ids`."""
    arrays = {
        name: x
        for name, x in inputs(model).items()
        if f"{modality_of(name)}_features" not in model.given
        or (modality_of(name) == "text" and model.text_words)
    }
    for name, width in model.given.items():
        arrays[name] = jax.ShapeDtypeStruct((1, width), jnp.float32)
    if hard_negatives:
        arrays["text_negative"], arrays["text_negative_mask"] = arrays["text"], arrays["text_mask"]
    if example_ids:
        arrays["example_id"] = jax.ShapeDtypeStruct((1,), jnp.int32)
    return arrays


def inputs(model: CLIP) -> Spec:
    """The arrays that the towers read, for a batch of one."""
    image, words = model.image_tower(parent=None), model.text_tower(parent=None)
    text = (words.length,)
    if isinstance(image, NaFlex):
        found = image.inputs()
        text = (image.row_images, *text) if image.row_images else text
    else:
        found = {"image": jax.ShapeDtypeStruct((1, *image.train_size, 3), jnp.uint8)}
    if isinstance(image, Frames):
        found["image_mask"] = jax.ShapeDtypeStruct((1, image.frames), jnp.bool_)
    for name, dtype in (("text", jnp.int32), ("text_mask", jnp.bool_)):
        shape = (1, *text)
        padded = not isinstance(words, TextTransformer) or words.reads_padding
        found[name] = (
            jax.ShapeDtypeStruct(shape, dtype) if padded else UpTo(shape, dtype, len(text))
        )
    return found
