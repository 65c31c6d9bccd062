"""Sampling images from texts with a model whose codes follow the prompt: `System.sample`."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange

from mmjax.batch import Batch
from mmjax.config import check_kwargs
from mmjax.decode import generate
from mmjax.decode.settings import Settings
from mmjax.system import Variables, row_keys


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Settings of sampling.

    Attributes:
      temperature, top_k, top_p: see `decode.Settings`; by default the model's distribution.
      candidates: images for each text.

    Raises:
      ValueError: no candidates.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    candidates: int = 1

    def __post_init__(self):
        if self.candidates < 1:
            raise ValueError(f"sample.candidates is {self.candidates}: it must be at least 1.")


def make_sample(model: Any) -> Callable[..., Mapping[str, jax.Array]]:
    """`System.sample`: (variables, batch, rng, settings) -> arrays, without compiling it.

    Gives `image` [B, H, W, 3] uint8, `image_codes` [B, N] and `log_p` [B], the log-probability of
    the codes in nats. With C candidates `candidates` [B, C, H, W, 3] in place of the image, and C
    of the others, for `rerank.chooser`. `rng` is [B] keys, or one; a row's images follow from its
    key and its text alone. For the settings see `Sampling`. A text may be empty: padding alone.
    """

    def sample(
        variables: Variables, batch: Batch, rng: jax.Array, settings: Mapping[str, Any]
    ) -> Mapping[str, jax.Array]:
        asked = Sampling(**check_kwargs(Sampling, settings, "sample"))
        length, count = model.text["length"], asked.candidates
        decode = {name: getattr(asked, name) for name in ("temperature", "top_k", "top_p")}
        decode = Settings(max_new_tokens=model.window - length, **decode)
        _check(batch, length)
        texts = {name: batch[name] for name in ("text", "text_mask")}
        keys = rng if rng.ndim else row_keys(rng, jnp.arange(len(texts["text"])))
        if count > 1:
            texts = {name: jnp.repeat(x, count, axis=0) for name, x in texts.items()}
            numbers = jnp.arange(count)
            keys = jax.vmap(lambda key: row_keys(key, numbers))(keys).reshape(-1)
        given = generate.prepared(model, decode, variables, texts)
        prompts = generate.read_prompts(model, decode, given, texts)
        found = generate.continue_prompts(model, decode, given, *prompts, keys)
        codes = found.tokens[:, 0]
        image = model.apply(variables, codes, method="decode")
        made = {"image": image, "image_codes": codes, "log_p": found.scores[:, 0]}
        if count == 1:
            return made
        made["candidates"] = made.pop("image")
        return {k: rearrange(x, "(b c) ... -> b c ...", c=count) for k, x in made.items()}

    return sample


def _check(batch: Batch, length: int) -> None:
    if "text" not in batch:
        raise ValueError("Images are sampled from texts and the batch has none: give text.")
    if batch["text"].shape[1] != length:
        raise ValueError(
            f"A prompt of {batch['text'].shape[1]} tokens was given to a model whose texts have "
            f"{length}: tokenize it to {length}, padding included."
        )
