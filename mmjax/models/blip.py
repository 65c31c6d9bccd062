"""BLIP: one text transformer that embeds texts, matches them with images, and generates them."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs
from mmjax.layers.attention import is_decoding
from mmjax.layers.linear import class_head
from mmjax.layers.norm import unit_length
from mmjax.losses.matching import check_group, check_negatives, hard_negatives, take_rows
from mmjax.models import captioner, clip, language
from mmjax.models.blip_objectives import objectives
from mmjax.models.build import build
from mmjax.models.grounded_encoder import GroundedEncoder, with_shared, without_shared
from mmjax.models.text_decoder import GeneratesText, TextDecoder
from mmjax.models.vit import ViT
from mmjax.system import System, Variables


class BLIP(GeneratesText, nn.Module):
    """An image encoder, and a text transformer in up to three roles.

    A batch with `image` gives image_tokens [B, 1 + patches, width], the class token first; with
    `embed_dim` also image_features, and image_embed of unit length. One with `text` gives, with
    `embed_dim`, text_features and text_embed; both together give match_logits [B, 2], the second
    for a match, and, with a decoder, text_logits [B, L, V] of the next tokens. `negative_draws`
    [B, 2], uniform numbers, add mismatch_logits [B, 2, 2], of each image with another text of the
    batch and of each text with another image, and negatives_exist [B]: see `hard_negatives`.
    `image_tokens` in the batch replace the image. While decoding (mmjax/layers/decoder.py) it gives
    only next_logits [B, V].

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
      hard_negatives: other texts and images are sampled by their similarity, else uniformly.
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
    hard_negatives: bool = True
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
            image = captioner.normed_tokens(self, batch, train)
            seen = captioner.context_mask(batch, image)
            outputs |= self._embedded("image", image)
            outputs["image_tokens"] = image.astype(jnp.float32)
        encoder = self.text_encoder(name="text_encoder") if self.encoder else None
        if self.embeds:
            fixed = jnp.exp(jnp.float32(self.logit_scale_init))
            outputs["logit_scale"] = fixed if self.fixed_scale else clip.logit_scale(self)
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
            raise ValueError(
                "A BLIP generates texts for images and the batch has none: give it one."
            )
        return outputs

    def _embedded(self, kind: str, tokens: jax.Array) -> dict[str, jax.Array]:
        """Features of the first token, and their unit vector; {} without a shared space."""
        if not self.embeds or is_decoding(self):
            return {}
        x = tokens[:, 0].astype(jnp.float32)
        project = clip.joint_projection(x.shape[-1], self.embed_dim, True, f"{kind}_proj")
        return {f"{kind}_features": x, f"{kind}_embed": unit_length(project(x))}

    def _matched(self, encoder, batch, outputs, image, seen, train) -> dict[str, jax.Array]:
        """Logits of the pairs and, with draws, of two mismatched pairs for each."""
        head, group, found = class_head(2, "match_head"), self.negative_group, {}
        text, mask = _text(batch)
        text = _first_replaced(text, mask, self.encode_token)

        def logits(text, mask, image, seen):
            x = encoder(text, mask, context=image, context_mask=seen, train=train)
            return head(x[:, 0].astype(jnp.float32))

        if "negative_draws" not in batch:
            return {"match_logits": logits(text, mask, image, seen)}
        other_text, other_image, found["negatives_exist"] = hard_negatives(
            outputs["image_embed"],
            outputs["text_embed"],
            outputs["logit_scale"] * jnp.float32(self.hard_negatives),
            batch["negative_draws"],
            clip.duplicate_ids(batch),
            clip.pairs_present(batch),
            group,
        )
        # Both texts of an image at once: they share its keys and values.
        texts, masks = (
            rearrange(jnp.stack([x, take_rows(x, other_text, group)], 1), "b n l -> (b n) l")
            for x in (text, mask)
        )
        own, mismatched = rearrange(logits(texts, masks, image, seen), "(b n) c -> n b c", n=2)
        image, seen = (
            None if x is None else take_rows(x, other_image, group) for x in (image, seen)
        )
        mismatched = jnp.stack([mismatched, logits(text, mask, image, seen)], 1)
        return found | {"match_logits": own, "mismatch_logits": mismatched}

    def _bound_decoder(self, encoder: GroundedEncoder | None) -> TextDecoder:
        """The decoder, part of whose parameters are the encoder's where they share them."""
        kind = TextDecoder
        if encoder is not None and self.share:
            theirs = encoder.variables["params"]
            kind = nn.map_variables(
                TextDecoder,
                "params",
                trans_in_fn=lambda own: {"params": with_shared(own["params"], theirs)},
                trans_out_fn=lambda whole: {"params": without_shared(whole["params"])},
                init=self.is_initializing(),
            )
        return self.text_decoder(kind, name="text_decoder")


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


def make_model(config: Mapping[str, Any]) -> BLIP:
    """The model that `config.model` describes.

    Raises:
      ValueError: an unknown setting, in it or in its parts, or parts that do not fit together.
    """
    model = build(BLIP, config, "image_tower", "text_encoder")
    encoder, decoder, embeds, answers = model.encoder, model.decoder, model.embeds, model.answers
    if not (encoder or decoder) or (encoder and embeds == answers) or (embeds and not encoder):
        raise ValueError(
            f"config.model has encoder {encoder}, decoder {decoder}, embed_dim {model.embed_dim} "
            f"and answers {answers}: a BLIP has a decoder, or an encoder with embed_dim, or both, "
            "or an encoder and a decoder with answers."
        )
    if answers and not decoder:
        raise ValueError("config.model.answers needs a decoder: set config.model.decoder.")
    image, vocabulary = model.image_tower(parent=None), model.text_encoder(parent=None).vocab_size
    if embeds and not (image.class_token and image.pool == "all"):
        raise ValueError(
            "A BLIP with embed_dim embeds the class token of the image: remove pool and "
            "class_token from config.model.image."
        )
    for name in ("encode_token", "decode_token"):
        token = getattr(model, name)
        if token is not None and not 0 <= token < vocabulary:
            raise ValueError(
                f"config.model.{name} is {token} and the vocabulary {vocabulary}: give the id of "
                "a token in the vocabulary."
            )
    return model


def make_system(config: Mapping[str, Any]) -> System:
    """BLIP with the losses of its parts; see `objectives` for `config.loss`.

    Raises:
      ValueError: an unknown setting, or a group of negatives that the batch cannot have.
    """
    model = make_model(config["model"])
    if model.embeds and config.get("batch_size"):
        check_group(config["batch_size"], model.negative_group)
    settings = check_kwargs(objectives, config["loss"], "config.loss")
    hooks = objectives(model, **settings)
    if model.decoder:
        hooks |= language.generation_hooks(model)
    if model.answers:
        hooks |= {name: _of_questions(hooks[name]) for name in ("generate", "score")}
    shows = {"contrastive": {"kind": "retrieval"}} if model.embeds else {}
    if model.decoder and not model.answers:
        shows |= language.caption_evaluator(model)
    return System(
        model=model,
        spec=spec(model),
        evaluators=shows,
        check_batch=_check_batch(model),
        **hooks,
    )


def _of_questions(make: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that generates or scores texts, where the text of a batch is a question."""

    def hook(tokenizer: Any, given: Any) -> Callable[..., Any]:
        function = make(tokenizer, given)

        def call(variables: Variables, batch: Batch, *seed: int) -> Any:
            batch = dict(batch)
            if "question" not in batch:
                if "text" not in batch:
                    raise ValueError(
                        "A BLIP with answers needs questions and the batch has none: use a "
                        "transform that ends in tokenize."
                    )
                for name in ("", "_mask"):
                    batch[f"question{name}"] = batch.pop(f"text{name}")
            return function(variables, batch, *seed)

        return call

    return hook


def _check_batch(model: BLIP) -> Callable[[Batch], None]:
    """`System.check_batch`."""

    def check(batch: Batch) -> None:
        if model.embeds:
            clip.check_pairs(batch)
            check_negatives(batch["text"], model.negative_group)
        if model.decoder:
            language.check_text(batch)

    return check


def spec(model: BLIP) -> Spec:
    """The arrays that the model and its loss need, for a batch of one."""
    arrays = captioner.spec(model)
    if model.answers:
        arrays |= {k.replace("text", "question"): arrays[k] for k in ("text", "text_mask")}
    if model.embeds:
        arrays["example_id"] = jax.ShapeDtypeStruct((1,), jnp.int32)
    return arrays
