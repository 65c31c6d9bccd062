"""Log-probabilities of given continuations, to choose among known answers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from mmjax.batch import Batch
from mmjax.decode.generate import Prepared, check_prompts, read_prompts, read_token, select_rows
from mmjax.decode.settings import Settings


def make_score(
    model: Any, texts: np.ndarray, mask: np.ndarray
) -> Callable[[Any, Batch], jax.Array]:
    """A function (variables, batch) -> [B, C]: log p of each of C continuations given each prompt.

    The prompts, `text` and `text_mask` as for `make_generate`, are read once, whatever C is; then
    every pair of prompt and continuation is a row, like beams.

    Args:
      texts: [C, K] int32; mask: [C, K] bool, true on tokens, padding is on the right. End tokens
        count: without one "no" is at least as probable as "no idea".

    Raises:
      ValueError: an empty continuation; when called, as `make_generate`.

    Source: Alayrac et al. 2022 (arXiv 2204.14198), section 2.4: close-ended tasks.
    """
    texts, mask = np.asarray(texts, np.int32), np.asarray(mask, bool)
    if not len(texts) or not mask.any(1).all():
        raise ValueError(
            f"There are {len(texts)} texts to choose from, or one of them is empty: give at least "
            "one text, and a token in each."
        )
    settings = Settings(max_new_tokens=texts.shape[1])

    @jax.jit
    def score(variables, batch):
        logits, cache, _, count = read_prompts(model, settings, variables, batch)
        prompts, choices = len(count), len(texts)
        total = jax.nn.log_softmax(logits)[:, texts[:, 0]].reshape(-1)
        cache = select_rows(cache, jnp.repeat(jnp.arange(prompts), choices))
        rows, valid = (np.tile(x, (prompts, 1)) for x in (texts, mask))

        def add(state, tokens):
            cache, total = state
            token, following, counts = tokens
            logits, made = read_token(model, variables, cache, token)
            log_p = jax.nn.log_softmax(logits)
            log_p = jnp.take_along_axis(log_p, following[:, None], axis=1)[:, 0]
            return (made["cache"], total + jnp.where(counts, log_p, 0.0)), None

        steps = rows[:, :-1].T, rows[:, 1:].T, valid[:, 1:].T
        (_, total), _ = jax.lax.scan(add, (cache, total), steps)
        return rearrange(total, "(prompt choice) -> prompt choice", choice=choices)

    prepare = Prepared(model, settings)

    def call(variables: Any, batch: Batch) -> jax.Array:
        check_prompts(model, settings, batch)
        batch = dict(batch)
        return score(prepare(variables, batch), batch)

    return call
