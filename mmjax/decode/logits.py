"""What changes the logits of the next token: pure functions, each [R, V] -> [R, V].

`history` [R, T] int32 holds each row's tokens so far, prompt and continuation without padding
between, and `count` [R] how many they are. A forbidden token has the logit -inf.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int


def _rows(index: Int[ArrayLike, "r n"]) -> Int[Array, "r n"]:
    return jnp.broadcast_to(jnp.arange(index.shape[0])[:, None], index.shape)


def forbid(
    logits: Float[ArrayLike, "r v"], tokens: Int[ArrayLike, "r n"], where: Bool[ArrayLike, "#r n"]
) -> Float[Array, "r v"]:
    """-inf for the `tokens` [R, N] of each row, where `where` [R, N] bool."""
    lowest = jnp.where(where, -jnp.inf, jnp.inf).astype(logits.dtype)
    return logits.at[_rows(tokens), tokens].min(lowest)


def repetition_penalty(
    logits: Float[ArrayLike, "r v"],
    history: Int[ArrayLike, "r t"],
    count: Int[ArrayLike, " r"],
    penalty: float,
) -> Float[Array, "r v"]:
    """Of tokens that have come, positive logits are divided by the penalty, others multiplied.

    Source: CTRL, Keskar et al. 2019 (arXiv 1909.05858), section 4.1, in the form for logits of
    either sign.
    """
    there = jnp.arange(history.shape[1])[None] < count[:, None]
    come = jnp.zeros(logits.shape, bool).at[_rows(history), history].max(there)
    return jnp.where(come, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def no_repeat_ngram(
    logits: Float[ArrayLike, "r v"],
    history: Int[ArrayLike, "r t"],
    count: Int[ArrayLike, " r"],
    n: int,
) -> Float[Array, "r v"]:
    """Forbid every token that would end an n-gram which the row already has.

    Where that is every token of the vocabulary, none of them is forbidden.

    Source: Paulus et al. 2017 (arXiv 1705.04304), section 2.5.
    """
    total = history.shape[1]
    if n > total:
        return logits
    starts = jnp.arange(total - n + 1)[None]
    match = starts + n <= count[:, None]
    for i in range(n - 1):
        last = jnp.maximum(count - (n - 1) + i, 0)[:, None]
        recent = jnp.take_along_axis(history, last, axis=1)
        match &= history[:, i : total - n + 1 + i] == recent
    left = forbid(logits, history[:, n - 1 :], match)
    return jnp.where(jnp.isneginf(left).all(-1, keepdims=True), logits, left)


def forbid_ids(
    logits: Float[ArrayLike, "r v"], ids: Sequence[int], when: Bool[ArrayLike, ""] | bool
) -> Float[Array, "r v"]:
    """Forbid some tokens in every row, when `when` (scalar bool): an end while it is too soon."""
    if not ids:
        return logits
    those = jnp.zeros(logits.shape[-1], bool).at[jnp.asarray(ids)].set(True)
    return jnp.where(those[None] & when, -jnp.inf, logits)


def top_p(values: Float[ArrayLike, "r v"], p: float) -> Float[Array, "r v"]:
    """Nucleus: of logits sorted downwards keep the fewest whose probabilities reach p; else -inf.

    The first is always kept. Source: Holtzman et al. 2019 (arXiv 1904.09751), section 3.1.
    """
    probs = jax.nn.softmax(values, axis=-1)
    before = jnp.cumsum(probs, axis=-1) - probs
    return jnp.where((before < p).at[:, :1].set(True), values, -jnp.inf)
