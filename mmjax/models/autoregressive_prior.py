"""The autoregressive prior of DALL-E 2: from a text to the codes of an image's embedding."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from mmjax.batch import Batch
from mmjax.decode.generate import read_token
from mmjax.layers.attention import is_decoding
from mmjax.layers.decoder import Decoder
from mmjax.layers.linear import Linear
from mmjax.layers.norm import unit_length
from mmjax.layers.position import LearnedSequence
from mmjax.layers.principal import PrincipalCodes, bucket, fitted
from mmjax.layers.token_embed import TokenEmbed
from mmjax.models.prior_transformer import Prior
from mmjax.sample.rows import numbered
from mmjax.system import BUFFERS, Context, Memory, Outputs, Terms, Variables, Weighted


class AutoregressivePrior(Prior):
    """The codes of the principal components of an image embedding, of a CLIP, one after another.

    A causal transformer over the text's tokens, its embedding, the dot product of the two
    embeddings, and the codes. Padding has a learned vector at each place.

    batch: image_embed [B, E], text_tokens [B, L, C], text_mask [B, L], text_embed [B, E]. It gives
    `code_losses` [B, K], -log p of the codes in nats; `quantized_embed` [B, E] of unit length, what
    the codes say of the embedding; and `dot` [B] int32.

    While decoding (mmjax/layers/decoder.py) the first call reads the batch with `dot` in place of
    image_embed, the others a code in batch["text"] [B, 1]; it gives next_logits.

    Attributes: those of `Prior` (embed_dim: E; text_width: C; length: L), and
      components: K; buckets: of each, and of the dot product.
      examples: embeddings of training from which the components are found; until then nothing is
        learned.

    Source: Ramesh et al. 2022 (arXiv 2204.06125), section 2.2.
    """

    components: int = 319
    buckets: int = 1024
    examples: int = 10_000

    @property
    def before(self) -> int:
        """Positions before the codes."""
        return self.length + 2

    def setup(self):
        window = self.before + self.components
        table = (self.buckets, self.width, False, self.dtype)
        self.dots = self.variable(BUFFERS, "dots", lambda: jnp.zeros(self.buckets))
        self.codes = PrincipalCodes(self.embed_dim, self.components, self.buckets)
        self.token_proj = self._linear(self.text_width)
        self.text_proj = self._linear(self.embed_dim)
        self.padding = LearnedSequence(self.length, self.width)
        self.position = LearnedSequence(window, self.width)
        self.dot_embed = TokenEmbed(self.buckets, self.width, True, self.dtype)
        self.code_embed = TokenEmbed(*table)
        self.decoder = Decoder(
            self.depth,
            self.heads,
            self.mlp_dim or 4 * self.width,
            window,
            positions="none",
            epsilon=1e-5,
            dropout=self.dropout,
            remat=self.remat,
            dtype=self.dtype,
        )

    def _linear(self, inputs: int) -> Linear:
        init = nn.initializers.normal(inputs**-0.5)
        return Linear((self.width,), (None, "embed"), dtype=self.dtype, kernel_init=init)

    def __call__(
        self, batch: Batch, *, train: bool = False, cache_length: int = 0
    ) -> dict[str, jax.Array]:
        if is_decoding(self):
            x = self._next(batch, cache_length)
            return {"next_logits": self.code_embed.logits(x[:, -1])}
        embed = batch["image_embed"]
        dot = bucket((embed * batch["text_embed"]).sum(-1), 1.0, self.buckets)
        codes = self.codes(embed)
        places = self.before + jnp.arange(self.components - 1)
        x = [self._prefix(batch, dot), self._embedded(codes[:, :-1], places)]
        x = self.decoder(jnp.concatenate(x, axis=1), train=train)
        logits = self.code_embed.logits(x[:, self.before - 1 :])
        chosen = jnp.take_along_axis(logits, codes[..., None], axis=-1)[..., 0]
        return {
            "code_losses": jax.nn.logsumexp(logits, axis=-1) - chosen,
            "quantized_embed": unit_length(self.codes.decode(codes)),
            "dot": dot,
        }

    def embeddings(self, codes: jax.Array) -> jax.Array:
        """[B, E] of unit length, of codes [B, K]."""
        return unit_length(self.codes.decode(codes))

    def _next(self, batch: Batch, cache_length: int) -> jax.Array:
        """The transformer's output for what precedes the codes, or for a code after the cache."""
        if not self.has_variable("cache", "decoder"):
            return self.decoder(self._prefix(batch, batch["dot"]), cache_length=cache_length)
        slot = self.get_variable("cache", "decoder")["slot"]
        return self.decoder(self._embedded(batch["text"], slot + jnp.arange(1)))

    def _prefix(self, batch: Batch, dot: jax.Array) -> jax.Array:
        """[B, L + 2, width]."""
        tokens = self.token_proj(batch["text_tokens"])
        padding = self.padding(self.length).astype(tokens.dtype)[None]
        tokens = jnp.where(batch["text_mask"][..., None], tokens, padding)
        text = self.text_proj(batch["text_embed"])[:, None]
        x = jnp.concatenate([tokens, text, self.dot_embed(dot[:, None])], axis=1)
        return x + self.position(self.before).astype(x.dtype)[None]

    def _embedded(self, codes: jax.Array, places: jax.Array) -> jax.Array:
        x = self.code_embed(codes)
        return x + self.position(places).astype(x.dtype)[None]


def loss(outputs: Outputs, batch: Batch, context: Context) -> Terms:
    """`prior`, the mean -log p of the codes in nats, once the components are known; `code_bits`.

    And the cosines of the image embedding with what its codes say of it, `quantized_cosine`, and
    with the text's, `text_cosine`; `kept_variance` of the components.
    """
    book = context.memory[BUFFERS]["prior"]["codes"]
    found = (book["kept"] > 0).astype(jnp.float32)
    image, has_text = outputs["image_embed"], batch["text_present"].astype(jnp.float32)
    has_image = batch.get("image_present", jnp.ones(len(image), bool)).astype(jnp.float32)
    known = found * has_image
    nats = outputs["code_losses"].mean(-1)
    quantized = (image * outputs["quantized_embed"]).sum(-1)
    text = (image * outputs["text_embed"]).sum(-1)
    return {
        "prior": Weighted(nats, known),
        "code_bits": Weighted(nats / math.log(2), known),
        "quantized_cosine": Weighted(quantized, known),
        "text_cosine": Weighted(text, has_image * has_text),
        "kept_variance": book["kept"],
    }


def check_source(model: AutoregressivePrior, updates: int, batch_size: int, source: Any) -> None:
    """`System.check_source`: the components can be found, and what follows them is trained.

    Args:
      updates: of the whole run.

    Raises:
      ValueError: as many components as embeddings or more (n of them span n - 1 directions), or a
        run that ends before the components are found.
    """
    settings, count = "config.model.prior", model.components
    if model.examples <= count:
        raise ValueError(
            f"{settings}.components is {count}, to be found from {settings}.examples, "
            f"{model.examples} embeddings: set more examples than components."
        )
    if not hasattr(source, "index_at") and source.ready <= count:
        raise ValueError(
            f"{settings}.components is {count} and {source.name} has {source.ready} examples, "
            f"whose embeddings have fewer directions: set it to at most {source.ready - 1}."
        )
    if updates * batch_size <= model.examples:
        raise ValueError(
            f"{settings}.examples is {model.examples:,} and the run sees "
            f"{updates * batch_size:,}, config.total_steps times config.batch_size: nothing is "
            "learned before the components are found; train longer or set fewer examples."
        )


def remember(
    examples: int, memory: Memory, outputs: Outputs, batch: Batch, context: Context
) -> Memory:
    """`System.remember`: the components and the distribution of dot products, from the first
    examples of training."""
    del context
    image = outputs["image_embed"]
    valid = batch.get("image_present", jnp.ones(len(image), bool))
    prior = memory[BUFFERS]["prior"]
    began = prior["codes"]["count"] < examples
    counted = (valid & batch["text_present"] & began).astype(jnp.float32)
    dots = jnp.bincount(outputs["dot"], counted, length=len(prior["dots"]))
    new = {
        "codes": fitted(prior["codes"], image, valid, examples),
        "dots": prior["dots"] + dots.astype(jnp.float32),
    }
    return {BUFFERS: {**memory[BUFFERS], "prior": {**prior, **new}}}


def draw(
    model: AutoregressivePrior,
    variables: Variables,
    condition: Batch,
    keys: Key[Array, " b"],
    guidance: float,
) -> jax.Array:
    """Image embeddings [B, E] of unit length, each of a dot product from the upper half of those in
    training.

    Args:
      variables: of the prior alone.
      condition: text_tokens, text_mask and text_embed, with guidance other than 0 and 1 also those
        of no text, in as many further rows.

    Source: Ramesh et al. 2022 (arXiv 2204.06125), section 2.2.
    """
    rows, twice = len(keys), len(condition["text_embed"]) > len(keys)
    dot = upper_half(variables[BUFFERS]["dots"], numbered(keys, 0))
    if twice:
        nothing = bucket(jnp.zeros(rows), 1.0, model.buckets)
        dot = jnp.concatenate([dot, nothing])
    given = {**condition, "dot": dot}
    window = model.before + model.components
    outputs, made = model.apply(variables, given, cache_length=window, mutable=["cache"])

    def step(carry, number):
        logits, cache = carry
        if twice:
            with_text, without = jnp.split(logits, 2)
            logits = without + guidance * (with_text - without)
        chosen = jax.vmap(jax.random.categorical)(numbered(keys, 1 + number), logits)
        token = jnp.concatenate([chosen, chosen]) if twice else chosen
        logits, made = read_token(model, variables, cache, token.astype(jnp.int32))
        return (logits, made["cache"]), chosen

    first = outputs["next_logits"], made["cache"]
    _, codes = jax.lax.scan(step, first, jnp.arange(model.components))
    return model.apply(variables, codes.T, method="embeddings")


def upper_half(counts: Float[Array, " n"], keys: Key[Array, " b"]) -> Int[Array, " b"]:
    """Buckets drawn from the upper half of a distribution, in which each was seen so often."""
    below = jnp.cumsum(counts)
    upper = jnp.where(below > below[-1] / 2, counts, 0.0)
    draws = jax.vmap(jax.random.categorical, in_axes=(0, None))
    return draws(keys, jnp.log(upper)).astype(jnp.int32)
