"""DALL-E: one causal transformer over the tokens of a text and the codes of an image.

Source: Ramesh et al. 2021 (arXiv 2102.12092), sections 2.2 and B.1.
"""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from mmjax.batch import Batch, Spec
from mmjax.config import check_kwargs, check_type
from mmjax.layers.attention import is_decoding
from mmjax.layers.decoder import Decoder
from mmjax.layers.position import LearnedSequence
from mmjax.layers.sparse_patterns import layer_patterns
from mmjax.layers.token_embed import TokenEmbed
from mmjax.losses.captioning import supervised, token_losses
from mmjax.models.build import build
from mmjax.models.dalle_sampling import make_sample
from mmjax.models.image_tokenizer import ImageTokenizer, make_image_tokenizer
from mmjax.models.language import check_text
from mmjax.sample.compiled import compiled
from mmjax.system import Context, Outputs, System, Terms, Weighted

TOKENIZER = "image_tokenizer"  # the part that is not trained


class DALLE(nn.Module):
    """batch["text"] [B, L] with ["text_mask"], and ["image"] [B, H, W, 3] -> logits of both.

    Gives `text_logits` [B, L, V], each of the next token of the text; `image_logits` [B, N, K], of
    the N codes of the image, in raster order; `image_codes` [B, N] int32, what a frozen image
    tokenizer gives for the image, or batch["image_codes"] itself; and `image_losses` [B, N], -log p
    of the codes in nats. Without an image it gives text_logits alone, without a text image_codes.
    Where a text has no token, its position has a padding token of its own, to which all later
    tokens attend.

    While decoding (mmjax/layers/decoder.py) the prompt is a text of L tokens, padding included, and
    what follows are codes of the image, in batch["text"] too: it gives next_logits [B, K].

    Attributes:
      text: vocab_size, and length, L.
      decoder: fields of `Decoder`; it inherits dtype, and has the attention patterns of the paper
        by default.
      image_tokenizer: fields of `ImageTokenizer`, with a dtype of its own. Freeze
        `image_tokenizer/.*`, and take it from a run by `config.init_from`.
      fingerprint: of the image tokenizer that it must be; "": any. Training prints it.

    Raises:
      ValueError: a prompt of another length than L.
    """

    text: Mapping[str, Any]
    decoder: Mapping[str, Any]
    image_tokenizer: Mapping[str, Any]
    width: int
    fingerprint: str = ""
    dtype: str = "float32"

    def tokenizer(self, **kwargs: Any) -> ImageTokenizer:
        """The image tokenizer."""
        return make_image_tokenizer(self.image_tokenizer, f"config.model.{TOKENIZER}", **kwargs)

    def stack(self, **kwargs: Any) -> Decoder:
        """The transformer."""
        fields = {"dtype": self.dtype, "positions": "none", **self.decoder}
        fields |= {"length": self.window, "grid": self.tokenizer(parent=None).grid}
        if not fields.get("patterns"):
            check_type(fields["depth"], int, "config.model.decoder.depth")
            fields["patterns"] = layer_patterns(fields["depth"])
        return Decoder(**check_kwargs(Decoder, fields, "config.model.decoder"), **kwargs)

    def check(self, **kwargs: Any) -> None:
        """Raise ValueError for settings of the text that are missing or unknown."""
        if set(self.text) != {"vocab_size", "length"}:
            raise ValueError(
                f"config.model.text has {', '.join(sorted(self.text))}: give vocab_size and length."
            )
        for name, value in self.text.items():
            check_type(value, int, f"config.model.text.{name}")
        self.stack(**kwargs)

    @property
    def window(self) -> int:
        """Tokens of a text and codes of an image."""
        return self.text["length"] + math.prod(self.tokenizer(parent=None).grid)

    def setup(self):
        length, sizes = self.text["length"], (self.width, False, self.dtype)
        self.frozen = self.tokenizer(name=TOKENIZER)
        rows, columns = self.frozen.grid
        self.words = TokenEmbed(self.text["vocab_size"], *sizes, name="text_embed")
        self.codes = TokenEmbed(self.frozen.codes, *sizes, name="image_embed")
        self.places = LearnedSequence(length, self.width, name="text_position")
        self.padding = LearnedSequence(length, self.width, name="text_padding")
        self.row = LearnedSequence(rows, self.width, name="row_position")
        self.column = LearnedSequence(columns, self.width, name="column_position")
        self.transformer = self.stack(name="decoder")

    def __call__(
        self, batch: Batch, *, train: bool = False, cache_length: int = 0
    ) -> dict[str, jax.Array]:
        if is_decoding(self):
            x = self._next(batch, cache_length)
            return {"next_logits": self.codes.logits(x[:, -1])}
        if "text" not in batch:
            return {"image_codes": self._codes(batch)}
        if not {"image", "image_codes"} & set(batch):
            x = self.transformer(self._text(batch), train=train)
            return {"text_logits": self.words.logits(x)}
        codes, length = self._codes(batch), self.text["length"]
        places = jnp.arange(codes.shape[1], dtype=jnp.int32)
        x = jnp.concatenate([self._text(batch), self._image(codes, places)], axis=1)
        x = self.transformer(x, train=train)
        logits = self.codes.logits(x[:, length - 1 : -1])
        log_z = jax.nn.logsumexp(logits, axis=-1)
        chosen = jnp.take_along_axis(logits, codes[..., None], axis=-1)[..., 0]
        return {
            "text_logits": self.words.logits(x[:, :length]),
            "image_logits": logits,
            "image_codes": codes,
            "image_losses": log_z - chosen,
        }

    def decode(self, codes: jax.Array) -> jax.Array:
        """Images [B, H, W, 3] uint8 of codes [B, N]."""
        return self.frozen.decode(codes.reshape(-1, *self.frozen.grid))

    def _codes(self, batch: Batch) -> jax.Array:
        """[B, N] int32."""
        if self.is_initializing():
            self.frozen(batch)  # its decoder too
        if "image_codes" in batch:
            return batch["image_codes"]
        return rearrange(self.frozen.encode(batch["image"]), "b h w -> b (h w)")

    def _next(self, batch: Batch, cache_length: int) -> jax.Array:
        """The transformer's output for the prompt, or for a code after those in the cache."""
        tokens, length = batch["text"], self.text["length"]
        if not self.has_variable("cache", "decoder"):
            return self.transformer(self._text(batch), cache_length=cache_length)
        first = self.get_variable("cache", "decoder")["slot"] - length
        places = first + jnp.arange(tokens.shape[1], dtype=jnp.int32)
        return self.transformer(self._image(tokens, places))

    def _text(self, batch: Batch) -> jax.Array:
        """[B, L, width] of a text, with its padding tokens."""
        text, length = batch["text"], self.text["length"]
        if text.shape[1] != length:
            raise ValueError(
                f"A text of {text.shape[1]} tokens was given to a DALL-E of {length}: tokenize it "
                f"to {length}, padding included."
            )
        x = self.words(text)
        if "text_mask" in batch:
            padding = self.padding(length).astype(x.dtype)[None]
            x = jnp.where(batch["text_mask"][..., None], x, padding)
        return x + self.places(length).astype(x.dtype)[None]

    def _image(self, codes: jax.Array, places: jax.Array) -> jax.Array:
        """[B, n, width] of codes [B, n] at these places [n] of the image, in raster order."""
        x = self.codes(codes)
        columns = self.frozen.grid[1]
        place = self.row(places[None] // columns) + self.column(places[None] % columns)
        return x + place.astype(x.dtype)


def make_model(config: Mapping[str, Any]) -> DALLE:
    """The model that `config.model` describes. See `build`."""
    return build(DALLE, config, "check")


def make_system(config: Mapping[str, Any]) -> System:
    """DALL-E; for its loss see `terms`. In the paper's loss `text` has the weight 1/8, `image` 7/8.

    Raises:
      ValueError: an unknown setting.
    """
    model = make_model(config["model"])
    if config["loss"]:
        raise ValueError(f"config.loss of a 'dalle' has no settings: remove {[*config['loss']]}.")
    return System(
        model=model,
        spec=spec(model),
        loss=terms,
        given={TOKENIZER: model.fingerprint},
        evaluators={"image": {"kind": "image_tokens"}},
        check_batch=check_text,
        sample=compiled(make_sample(model)),
    )


def spec(model: DALLE) -> Spec:
    """The arrays that the model and its loss need, for a batch of one."""
    length, size = model.text["length"], model.tokenizer(parent=None).train_size
    return {
        "image": jax.ShapeDtypeStruct((1, *size, 3), jnp.uint8),
        "text": jax.ShapeDtypeStruct((1, length), jnp.int32),
        "text_mask": jax.ShapeDtypeStruct((1, length), jnp.bool_),
    }


def terms(outputs: Outputs, batch: Batch, context: Context) -> Terms:
    """The losses `text` and `image`, cross-entropies in nats: means over the tokens of all texts
    without their padding, and over the codes of all images; and `image_bits` per code."""
    del context
    losses = token_losses(outputs["text_logits"], batch["text"])
    counted = supervised(batch)
    tokens = counted.sum(1, dtype=jnp.float32)
    text = jnp.sum(losses, axis=1, where=counted) / jnp.maximum(tokens, 1.0)
    image = outputs["image_losses"].mean(1)
    return {"text": Weighted(text, tokens), "image": image, "image_bits": image / math.log(2)}
