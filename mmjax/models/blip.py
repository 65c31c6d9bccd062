"""BLIP: one text transformer that embeds texts, matches them with images, and generates them."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.batch import Batch
from mmjax.config import check_kwargs
from mmjax.layers.attention import is_decoding
from mmjax.layers.bert_embed import BertEmbed
from mmjax.layers.linear import class_head
from mmjax.layers.norm import LayerNorm, unit_length
from mmjax.layers.transformer import Transformer
from mmjax.losses.matching import hard_negatives
from mmjax.models import captioner, clip
from mmjax.models.text_decoder import GeneratesText, TextDecoder
from mmjax.models.vit import ViT


class GroundedEncoder(nn.Module):
    """BERT's encoder with cross-attention in each layer: text [B, L] -> [B, L, width].

    Without a context the cross-attention is skipped.

    Raises:
      ValueError: a text longer than `length`.

    Source: Li et al. 2022 (arXiv 2201.12086), section 3.1.
    """

    vocab_size: int
    width: int
    depth: int
    heads: int
    mlp_dim: int
    length: int
    activation: str = "gelu"
    norm_epsilon: float = 1e-12
    dropout: float = 0.0
    remat: str = "none"
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self,
        text: jax.Array,
        mask: jax.Array,
        *,
        context: jax.Array | None = None,
        context_mask: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        """`context`: [B, S, C]; the masks are [B, L] and [B, S] bool."""
        if text.shape[1] > self.length:
            raise ValueError(
                f"Text of {text.shape[1]} tokens is longer than the model's {self.length}: set "
                "model.text.length and the length in tokenize() to the same value."
            )
        embed = BertEmbed(
            self.vocab_size,
            self.width,
            self.length,
            segments=0,
            epsilon=self.norm_epsilon,
            dropout=self.dropout,
            dtype=self.dtype,
        )
        nn.share_scope(self, embed)  # its tables are parameters of the encoder
        blocks = Transformer(
            depth=self.depth,
            heads=self.heads,
            mlp_dim=self.mlp_dim,
            norm="post",
            cross="between",
            activation=self.activation,
            dropout=self.dropout,
            remat=self.remat,
            epsilon=self.norm_epsilon,
            dtype=self.dtype,
            name="encoder",
        )
        x = embed(text, train=train)
        return blocks(x, mask, context=context, context_mask=context_mask, train=train)


class BLIP(GeneratesText, nn.Module):
    """An image encoder, and a text transformer in up to three roles.

    A batch with `image` gives image_tokens [B, 1 + patches, width], the class token first; with
    `embed_dim` also image_features, and image_embed of unit length. One with `text` gives, with
    `embed_dim`, text_features and text_embed; both together give match_logits [B, 2], the second
    for a match, and, with a decoder, text_logits [B, L, V] of the next tokens. `negative_draws`
    [B, 2], uniform numbers, add mismatch_logits [B, 2, 2], of each image with another text of the
    batch and of each text with another image: see `hard_negatives`. `image_tokens` in the batch
    replace the image. While decoding (mmjax/layers/decoder.py) it gives only next_logits [B, V].

    Attributes:
      image: fields of `ViT`; the text attends to all of its tokens, normalized.
      text: fields of `GroundedEncoder`, which the decoder has too.
      encoder, decoder: whether there is one.
      share: the decoder has the parameters of the encoder except for self-attention, its output map
        and its norm.
      answers: the decoder attends to the encoder's tokens of image and `question` [B, L], with
        `question_mask`, and not to the image.
      embed_dim: size of the space of the contrastive loss; None: neither this nor matching.
      encode_token, decode_token: ids that replace the first token of a text that the encoder
        matches with an image, and of one that the decoder continues; None: it stays.
      negative_group: consecutive rows from which negatives are drawn; 0: the whole batch.
      fixed_scale: the logit scale is no parameter, as in published retrieval weights.

    Raises:
      ValueError: inconsistent settings, or a captioner without an image.

    Source: Li et al. 2022 (arXiv 2201.12086), section 3; VQA: section 5.3 and figure 5.
    """

    image: Mapping[str, Any]
    text: Mapping[str, Any]
    encoder: bool = True
    decoder: bool = True
    share: bool = True
    answers: bool = False
    embed_dim: int | None = None
    encode_token: int | None = None
    decode_token: int | None = None
    negative_group: int = 0
    logit_scale_init: float = 2.659260036932778  # temperature 0.07
    logit_scale_max: float = 6.907755278982137  # temperature 0.001
    fixed_scale: bool = False
    dtype: str = "float32"

    def image_tower(self, **kwargs) -> ViT:
        """The image encoder that `image` describes."""
        fields = {"pool": "all", "class_token": True, **self.image}
        return captioner.image_tower(fields, self.dtype, **kwargs)

    def text_encoder(self, **kwargs) -> GroundedEncoder:
        """The text encoder that `text` describes."""
        fields = {"dtype": self.dtype, **self.text}
        fields = check_kwargs(GroundedEncoder, fields, "config.model.text")
        return GroundedEncoder(**fields, **kwargs)

    def text_decoder(self, kind: type[nn.Module] = TextDecoder, **kwargs) -> TextDecoder:
        """The text decoder that `text` describes, of a class like `TextDecoder`."""
        like = self.text_encoder(parent=None)
        return kind(
            like.vocab_size,
            like.width,
            like.length,
            {
                "depth": like.depth,
                "heads": like.heads,
                "mlp_dim": like.mlp_dim,
                "activation": like.activation,
                "epsilon": like.norm_epsilon,
                "dropout": like.dropout,
                "remat": like.remat,
                "cross_every": 1,
                "embedding_norm": True,
                "post_norm": True,
            },
            word_head=True,
            dtype=like.dtype,
            **kwargs,
        )

    @property
    def embeds(self) -> bool:
        """Whether it has a space of images and texts, and matches them."""
        return self.embed_dim is not None

    @nn.compact
    def __call__(
        self, batch: Batch, *, train: bool = False, cache_length: int = 0
    ) -> dict[str, jax.Array]:
        outputs, image, seen = {}, None, None
        if "image" in batch or "image_tokens" in batch:
            image = self._image_tokens(batch, train)
            seen = captioner.context_mask(batch, image)
            outputs |= self._embedded("image", image) | {"image_tokens": image}
        encoder = self.text_encoder(name="text_encoder") if self.encoder else None
        if self.embeds:
            outputs["logit_scale"] = (
                jnp.exp(jnp.float32(self.logit_scale_init))
                if self.fixed_scale
                else clip.logit_scale(self)
            )
            if "text" in batch and not is_decoding(self):
                outputs |= self._embedded("text", encoder(*_text(batch), train=train))
                if image is not None:
                    outputs |= self._matched(encoder, batch, outputs, image, seen, train)
        context = image
        if self.answers and "question" in batch:
            question, seen = _text(batch, "question")
            question = _first_replaced(question, seen, self.encode_token)
            given = {"context": image, "context_mask": captioner.context_mask(batch, image)}
            context = encoder(question, seen, **given, train=train)
        has_cache = self.has_variable("cache", "text_decoder")
        if self.decoder and "text" in batch and (context is not None or has_cache):
            text, mask = _text(batch)
            if not has_cache:
                text = _first_replaced(text, mask, self.decode_token)
            given = {"context": context, "context_mask": seen, "cache_length": cache_length}
            found = self._bound_decoder(encoder)(text, mask, **given, train=train)
            outputs = found if is_decoding(self) else outputs | found
        elif is_decoding(self):
            raise ValueError("A BLIP generates texts for images and the batch has none: give it one.")
        return outputs

    def _image_tokens(self, batch: Batch, train: bool) -> jax.Array:
        """All tokens of the image, normalized [B, 1 + patches, width]."""
        if "image_tokens" in batch:
            return batch["image_tokens"]
        tower = self.image_tower(name="image")
        x = tower(batch, train=train)["image_tokens"]
        return LayerNorm(tower.norm_epsilon, self.dtype, name="image_norm")(x)

    def _embedded(self, kind: str, tokens: jax.Array) -> dict[str, jax.Array]:
        """Features of the first token, and their unit vector; {} without a shared space."""
        if not self.embeds or is_decoding(self):
            return {}
        x = tokens[:, 0].astype(jnp.float32)
        project = clip.joint_projection(x.shape[-1], self.embed_dim, True, f"{kind}_proj")
        return {f"{kind}_features": x, f"{kind}_embed": unit_length(project(x))}

    def _matched(self, encoder, batch, outputs, image, seen, train) -> dict[str, jax.Array]:
        """Logits of the pairs and, with draws, of two mismatched pairs for each."""
        text, mask = _text(batch)
        rows = {"text": text, "mask": mask, "context": image}
        rows |= {} if seen is None else {"context_mask": seen}
        count = 1
        if "negative_draws" in batch:
            image_ids, text_ids = clip.duplicate_ids(batch)
            other_text, other_image = hard_negatives(
                outputs["image_embed"],
                outputs["text_embed"],
                outputs["logit_scale"],
                batch["negative_draws"],
                ids=(image_ids, text_ids),
                group=self.negative_group,
            )
            own, count = jnp.arange(len(text)), 3
            texts = jnp.concatenate([own, other_text, own])
            images = jnp.concatenate([own, own, other_image])
            index = {"text": texts, "mask": texts, "context": images, "context_mask": images}
            rows = {name: jnp.take(x, index[name], axis=0) for name, x in rows.items()}
        rows["text"] = _first_replaced(rows["text"], rows["mask"], self.encode_token)
        x = encoder(**rows, train=train)[:, 0].astype(jnp.float32)
        logits = class_head(2, "match_head")(x).reshape(count, -1, 2)
        found = {"match_logits": logits[0]}
        return found if count == 1 else found | {"mismatch_logits": jnp.swapaxes(logits[1:], 0, 1)}

    def _bound_decoder(self, encoder: GroundedEncoder | None) -> TextDecoder:
        """The decoder, part of whose parameters are the encoder's where they share them."""
        kind = TextDecoder
        if encoder is not None and self.share:
            kind = nn.map_variables(
                TextDecoder,
                "params",
                trans_in_fn=lambda own: {"params": with_shared(own["params"], encoder)},
                trans_out_fn=lambda whole: {"params": without_shared(whole["params"])},
                init=self.is_initializing(),
            )
        return self.text_decoder(kind, name="text_decoder")


def with_shared(own: Mapping[str, Any], encoder: GroundedEncoder) -> dict[str, Any]:
    """The decoder's parameters, completed by those that it shares with a bound encoder."""
    theirs = encoder.variables["params"]
    layers, stack = theirs["encoder"]["layers"], dict(own["decoder"]["stack"])
    stack["layers"] = {name: layers[name] for name in ("mlp", "norm_mlp")} | dict(stack["layers"])
    decoder = {
        "position": theirs["position"],
        "norm_embedding": theirs["norm_embedding"],
        "stack": stack | {"cross": layers["cross"]},
    }
    return {**own, "embed": {"embedding": theirs["embedding"]}, "decoder": decoder}


def without_shared(whole: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `with_shared`."""
    layers = whole["decoder"]["stack"]["layers"]
    own = {name: layers[name] for name in ("attention", "norm_attention")}
    return {"head": whole["head"], "decoder": {"stack": {"layers": own}}}


def _text(batch: Batch, name: str = "text") -> tuple[jax.Array, jax.Array]:
    """Tokens and mask, [B, L] each."""
    text = batch[name]
    return text, batch.get(f"{name}_mask", jnp.ones(text.shape, bool))


def _first_replaced(text: jax.Array, mask: jax.Array, token: int | None) -> jax.Array:
    """The text with another first token, after the padding on its left if there is any."""
    if token is None:
        return text
    first = mask & (jnp.cumsum(mask, axis=1) == 1)
    return jnp.where(first, jnp.asarray(token, text.dtype), text)
