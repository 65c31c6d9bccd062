"""CoCa: contrastive and captioning losses from one pass over image and text."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs
from mmjax.layers.attention import is_decoding
from mmjax.layers.decoder import Decoder
from mmjax.layers.norm import LayerNorm, unit_length
from mmjax.layers.parameters import param
from mmjax.layers.pooling import QueryPool, pool_tokens
from mmjax.layers.token_embed import TokenEmbed
from mmjax.losses.captioning import captioning_loss
from mmjax.models import captioner, clip, language, loss_memory
from mmjax.models.text_decoder import GeneratesText, make_text_decoder
from mmjax.models.vit import ViT
from mmjax.system import Context, Outputs, System, Terms


class CoCa(GeneratesText, nn.Module):
    """An image encoder, and a text decoder whose second half attends to the image.

    A batch with `image` gives image_features and image_embed [B, embed_dim]; one with `text` gives
    text_features and text_embed, from a class token after the text; both give text_logits
    [B, L, V], of the next tokens, and logit_scale. Where `image_present` is false the text
    does not attend to the image. While decoding (mmjax/layers/decoder.py) it gives only next_logits
    [B, V].

    Attributes:
      image: fields of `ViT`.
      text: fields of `TextDecoder`, with the depth of both halves together.
      unimodal_depth: layers of the first half, without cross-attention; None: half of them.
      caption_queries: pooled image tokens that the text attends to.
      pool_heads: heads of the attention pooling; None: as many as the text has.
      contrastive_query: the first pooled token is the image's vector, and the text attends to the
        others; otherwise the vector is pooled from all of them.
      text_norm: the norm after the first half is applied to the class token only.
      class_token_pad: mask and position of the class token as in open_clip: it is at the end of the
        row, after the padding, and attends to a token only if the token before it does not have
        this id. While decoding, where there is no class token, all tokens of a text are valid.

    The defaults are those of the paper; the last four settings are for open_clip's weights.

    Source: Yu et al. 2022 (arXiv 2205.01917), section 3.2; the contrastive pooler on top of the
    captioning one: section 4.4; open_clip: coca_model.py and transformer.py.
    """

    embed_dim: int
    image: Mapping[str, Any]
    text: Mapping[str, Any]
    unimodal_depth: int | None = None
    caption_queries: int = 256
    pool_heads: int | None = None
    contrastive_query: bool = False
    text_norm: bool = False
    class_token_pad: int | None = None
    logit_scale_init: float = math.log(1 / 0.07)
    logit_scale_max: float = math.log(100.0)
    dtype: str = "float32"

    def image_tower(self, **kwargs) -> ViT:
        """The image encoder that `image` describes."""
        return captioner.image_tower(self.image, self.dtype, **kwargs)

    def halves(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Fields of the two halves of the text decoder, each a `Decoder`."""
        make_text_decoder(self.text, self.dtype, parent=None)  # checks the fields
        fields = {"dtype": self.dtype, **self.text["decoder"]}
        fields = check_kwargs(Decoder, fields, "config.model.text.decoder")
        depth = fields.pop("depth")
        first = depth // 2 if self.unimodal_depth is None else self.unimodal_depth
        if not 0 < first < depth:
            raise ValueError(
                f"config.model.unimodal_depth is {first} of {depth} layers of the text decoder: "
                "leave each half at least one."
            )
        # The class token takes one more position.
        unimodal = fields | {"depth": first, "length": self.window + 1}
        unimodal["final_norm"] = not self.text_norm
        multimodal = {"depth": depth - first, "length": self.window, "cross_every": 1}
        if fields.get("positions", "learned") == "learned":
            multimodal["positions"] = "none"  # the first half has added them
        return unimodal, fields | multimodal

    @nn.compact
    def __call__(
        self, batch: Batch, *, train: bool = False, cache_length: int = 0
    ) -> dict[str, jax.Array]:
        outputs, context, context_mask = {}, None, None
        if "image" in batch:
            x = self.image_tower(name="image")(batch, train=train)["image_tokens"]
            context = self._pool(self.caption_queries, "caption_pool")(x)
            if self.contrastive_query:
                features, context = context[:, 0], context[:, 1:]
            elif not is_decoding(self):
                features = self._pool(1, "contrastive_pool")(context)[:, 0]
            context_mask = captioner.context_mask(batch, context)
            if not is_decoding(self):
                features = features.astype(jnp.float32)
                outputs |= {
                    "image_features": features,
                    "image_embed": self._embed(features, "image_proj"),
                }
        if "text" in batch:
            outputs |= self._text(batch, context, context_mask, train, cache_length)
        if not is_decoding(self):
            outputs["logit_scale"] = clip.logit_scale(self)
        return outputs

    def _text(self, batch, context, context_mask, train, cache_length) -> dict[str, jax.Array]:
        text = batch["text"]
        mask = batch.get("text_mask", jnp.ones(text.shape, bool))
        width, tied = self.text["width"], self.text.get("tied", True)
        embed = TokenEmbed(self.text["vocab_size"], width, tied, self.dtype, name="embed")
        unimodal, multimodal = self.halves()
        unimodal = Decoder(**unimodal, name="unimodal")
        multimodal = Decoder(**multimodal, name="multimodal")
        settings = {"train": train, "cache_length": cache_length}
        x = embed(text)
        if is_decoding(self):
            x = unimodal(x, mask, **settings)
            x = multimodal(x, mask, context=context, context_mask=context_mask, **settings)
            return {"next_logits": embed.logits(pool_tokens(x, "end", mask))}

        token = param(self, "class_token", nn.initializers.normal(0.02), (width,), ("embed",))
        token = jnp.broadcast_to(token.astype(x.dtype), (x.shape[0], 1, width))
        x = jnp.concatenate([x, token], axis=1)
        valid, positions = jnp.pad(mask, ((0, 0), (0, 1)), constant_values=True), None
        if self.class_token_pad is not None:
            valid = jnp.pad(text != self.class_token_pad, ((0, 0), (1, 0)), constant_values=True)
            positions = jnp.broadcast_to(jnp.arange(valid.shape[1])[None], valid.shape)
        x = unimodal(x, valid, positions=positions, **settings)
        features = x[:, -1]
        if self.text_norm:
            features = LayerNorm(self._epsilon, self.dtype, name="text_norm")(features)
        features = features.astype(jnp.float32)
        outputs = {"text_features": features, "text_embed": self._embed(features, "text_proj")}
        if context is not None:
            x = multimodal(x[:, :-1], mask, context=context, context_mask=context_mask, **settings)
            outputs["text_logits"] = embed.logits(x)
        return outputs

    def _pool(self, queries: int, name: str) -> QueryPool:
        width, heads = self.text["width"], self.pool_heads or self.text["decoder"]["heads"]
        return QueryPool(queries, width, heads, self._epsilon, self.dtype, name=name)

    @property
    def _epsilon(self) -> float:
        """Epsilon of all norms except those of the image encoder."""
        return self.text["decoder"].get("epsilon", Decoder.epsilon)

    def _embed(self, features: jax.Array, name: str) -> jax.Array:
        """[B, width] -> [B, embed_dim] of unit length, in fp32."""
        project = clip.joint_projection(features.shape[-1], self.embed_dim, False, name)
        return unit_length(project(features))


def make_model(config: Mapping[str, Any]) -> CoCa:
    """The model that `config.model` describes.

    Raises:
      ValueError: an unknown setting, in it or in its parts.
    """
    model = CoCa(**check_kwargs(CoCa, config, "config.model"))
    model.image_tower(parent=None)
    model.halves()  # reports wrong settings now
    return model


def make_system(config: Mapping[str, Any]) -> System:
    """CoCa: the terms of CLIP's loss, and `captioning` and `token_accuracy`.

    `config.loss` may set the settings of CLIP's loss, and `caption_smoothing`, the label smoothing
    of the captioning loss. The paper gives captioning weight 2: config.loss_weights.

    Raises:
      ValueError: an unknown setting.
    """
    model, settings = make_model(config["model"]), dict(config["loss"])
    smoothing = settings.pop("caption_smoothing", 0.0)
    settings = check_kwargs(clip.contrastive, settings, "config.loss")
    contrastive = clip.contrastive(**settings)

    def loss(outputs: Outputs, batch: Batch, context: Context) -> Terms:
        captioning = captioning_loss(outputs["text_logits"], batch, smoothing)
        return contrastive(outputs, batch, context) | captioning

    return System(
        model=model,
        spec=spec(model, bool(settings.get("mask_duplicates"))),
        loss=loss,
        limits=clip.limits(model),
        check_batch=check_batch,
        evaluators={"contrastive": {"kind": "retrieval"}} | language.caption_evaluator(model),
        notes=functools.partial(loss_memory.notes, config),
        leaner_losses=functools.partial(loss_memory.leaner_losses, config),
        **language.generation_hooks(model),
    )


def check_batch(batch: Batch) -> None:
    """Raise ValueError for a batch on the host that cannot be trained on."""
    clip.check_pairs(batch)
    language.check_text(batch)


def spec(model: CoCa, example_ids: bool) -> Spec:
    """The arrays that the model and its loss need, for a batch of one."""
    arrays = captioner.spec(model)
    if example_ids:
        arrays["example_id"] = jax.ShapeDtypeStruct((1,), jnp.int32)
    return arrays
