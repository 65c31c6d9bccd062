"""Sampling images from texts with a model whose codes follow the prompt: `System.sample`."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather

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
      candidates: images sampled for each text.
      rerank: with several candidates, (images [B, C, H, W, 3] uint8, their texts) -> scores
        [B, C], of which the highest is chosen: see mmjax/rerank.py.

    Raises:
      ValueError: several candidates without `rerank`, or what `decode.Settings` refuses.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    candidates: int = 1
    rerank: Any = None

    def __post_init__(self):
        if self.candidates < 1:
            raise ValueError(f"sample.candidates is {self.candidates}: it must be at least 1.")
        if self.candidates > 1 and not callable(self.rerank):
            raise ValueError(
                f"sample.candidates is {self.candidates} and sample.rerank {self.rerank!r}: name a "
                "CLIP that chooses among the candidates, or set candidates to 1."
            )


def make_sample(model: Any) -> Callable[..., Mapping[str, jax.Array]]:
    """`System.sample`: (variables, batch, rng, settings) -> arrays of one image for each text.

    Gives `image` [B, H, W, 3] uint8, `image_codes` [B, N] and `log_p` [B], the log-probability of
    the codes in nats; with several candidates also `score` [B], what `rerank` gave. `rng` is a key,
    or [B] keys; a row's images follow from its key and its text alone. For the settings see
    `Sampling`. A text without any token, padding only, is allowed.
    """

    @functools.cache
    def compiled(settings: Settings, candidates: int):
        prepare = generate.Prepared(model, settings)

        @jax.jit
        def codes_of(variables, text, mask, keys):
            batch = {"text": text, "text_mask": mask}
            prompts = generate.read_prompts(model, settings, variables, batch)
            found = generate.continue_prompts(model, settings, variables, *prompts, keys)
            return found.tokens[:, 0], found.scores[:, 0]

        @jax.jit
        def repeated(text, mask, keys):
            numbers = jnp.arange(candidates)
            keys = jax.vmap(lambda key: row_keys(key, numbers))(keys).reshape(-1)
            return (*(jnp.repeat(x, candidates, axis=0) for x in (text, mask)), keys)

        @jax.jit
        def pixels(variables, codes):
            return model.apply(variables, codes, method="decode")

        def run(variables, text, mask, keys):
            if candidates > 1:
                text, mask, keys = repeated(text, mask, keys)
            given = prepare(variables, {"text": text, "text_mask": mask})
            codes, log_p = codes_of(given, text, mask, keys)
            return {"image": pixels(variables, codes), "image_codes": codes, "log_p": log_p}

        return run

    def sample(
        variables: Variables, batch: Batch, rng: jax.Array, settings: Mapping[str, Any]
    ) -> Mapping[str, jax.Array]:
        asked = Sampling(**check_kwargs(Sampling, settings, "sample"))
        decode = {x: getattr(asked, x) for x in ("temperature", "top_k", "top_p")}
        length = model.text["length"]
        _check(batch, length)
        text, mask = batch["text"], batch["text_mask"]
        keys = rng if rng.ndim else row_keys(rng, jnp.arange(len(text)))
        decode["max_new_tokens"] = model.window - length
        found = compiled(Settings(**decode), asked.candidates)(variables, text, mask, keys)
        if asked.candidates == 1:
            return found
        return _best(found, batch, asked)

    return sample


def _check(batch: Batch, length: int) -> None:
    if "text" not in batch:
        raise ValueError("Images are sampled from texts and the batch has none: give text.")
    if batch["text"].shape[1] != length:
        raise ValueError(
            f"A prompt of {batch['text'].shape[1]} tokens was given to a model whose texts have "
            f"{length}: tokenize it to {length}, padding included."
        )


def _best(found: Mapping[str, jax.Array], batch: Batch, asked: Sampling) -> dict[str, jax.Array]:
    """Of each row's candidates that with the highest score."""
    found = {
        name: x.reshape(-1, asked.candidates, *x.shape[1:])
        for name, x in process_allgather(dict(found), tiled=True).items()
    }
    texts = process_allgather({k: batch[k] for k in ("text", "text_mask")}, tiled=True)
    scores = np.asarray(asked.rerank(found["image"], texts), np.float32)
    best = scores.argmax(1)
    rows = np.arange(len(best))
    chosen = {name: x[rows, best] for name, x in found.items()}
    return {**chosen, "score": scores[rows, best]}
