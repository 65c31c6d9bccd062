"""Captioning: an image encoder, and a text decoder with cross-attention to the image."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs
from mmjax.layers.norm import LayerNorm
from mmjax.models import language
from mmjax.models.build import build
from mmjax.models.text_decoder import GeneratesText, TextDecoder, decode_text, make_text_decoder
from mmjax.models.vit import ViT
from mmjax.system import System


class Captioner(GeneratesText, nn.Module):
    """batch["image"] [B, H, W, 3] and ["text"] [B, L] -> `text_logits` [B, L, V].

    Without text, images give `image_tokens` [B, patches, width].

    The same model answers questions: the text is then a question and its answer, and
    `text_loss_mask` is true on the answer only. A missing image (`image_present` false) is masked.
    While decoding (mmjax/layers/decoder.py) it gives next_logits [B, V], and needs the image only
    with the prompt.

    Attributes:
      image: fields of `ViT`; the text attends to its tokens.
      text: fields of `TextDecoder`; cross-attention in every layer by default (its decoder's
        cross_every).

    Source: the decoder of Vaswani et al. 2017 (arXiv 1706.03762), section 3.1, over a ViT.
    """

    image: Mapping[str, Any]
    text: Mapping[str, Any]
    dtype: str = "float32"

    def image_tower(self, **kwargs) -> ViT:
        """The image encoder that `image` describes."""
        return image_tower(self.image, self.dtype, **kwargs)

    def text_decoder(self, **kwargs) -> TextDecoder:
        """The decoder that `text` describes."""
        return make_text_decoder(self.text, self.dtype, cross_every=1, **kwargs)

    @nn.compact
    def __call__(
        self, batch: Batch, *, train: bool = False, cache_length: int = 0
    ) -> dict[str, jax.Array]:
        context = mask = None
        if "image" in batch:
            context = self.image_tower(name="image")(batch, train=train)["image_tokens"]
            mask = context_mask(batch, context)
        elif not self.has_variable("cache", "text"):
            raise ValueError("A captioner needs an image and the batch has none: give it one.")
        if "text" not in batch:
            return {"image_tokens": context}
        return decode_text(self, batch, context, mask, train, cache_length)


def context_mask(batch: Batch, context: jax.Array) -> jax.Array | None:
    """[B, S] bool: false on a context [B, S, C] whose image is missing; None: none is."""
    if "image_present" not in batch:
        return None
    return jnp.broadcast_to(batch["image_present"][:, None], context.shape[:2])


def image_tower(fields: Mapping[str, Any], dtype: str, **kwargs) -> ViT:
    """A ViT that returns its tokens.

    Raises:
      ValueError: an unknown setting, or a pool other than "none" and "all".
    """
    fields = {"dtype": dtype, "pool": "none", **fields}
    if fields["pool"] not in ("none", "all"):
        raise ValueError(
            f"config.model.image.pool is '{fields['pool']}', but the text attends to all tokens of "
            "the image: remove it."
        )
    return ViT(**check_kwargs(ViT, fields, "config.model.image"), **kwargs)


def normed_tokens(model: nn.Module, batch: Batch, train: bool) -> jax.Array:
    """All tokens [B, S, C] of the image, normalized by the model's `image_norm`, unless the batch
    has them: its `image_tokens`."""
    if "image_tokens" in batch:
        return batch["image_tokens"]
    tower = model.image_tower(name="image")
    x = tower(batch, train=train)["image_tokens"]
    return LayerNorm(tower.norm_epsilon, model.dtype, name="image_norm")(x)


def make_model(config: Mapping[str, Any]) -> Captioner:
    """The captioner that `config.model` describes. See `build`."""
    return build(Captioner, config, "image_tower", "text_decoder")


def make_system(config: Mapping[str, Any]) -> System:
    """A captioner; its loss is that of a language model, see `mmjax.models.language`.

    Raises:
      ValueError: an unknown setting.
    """
    model = make_model(config["model"])
    return System(
        model=model,
        spec=spec(model),
        evaluators=language.caption_evaluator(model),
        **language.text_hooks(model, config["loss"]),
    )


def spec(model: Any) -> Spec:
    """The arrays that the model and its loss need, for a batch of one."""
    image = jax.ShapeDtypeStruct((1, *model.image_tower(parent=None).train_size, 3), jnp.uint8)
    return {"image": image, **language.spec(model)}
