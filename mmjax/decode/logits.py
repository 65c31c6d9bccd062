"""Logits processors: pure functions of the next token's logits, [R, V] -> [R, V].

`history` [R, T] int32 holds each row's tokens so far, prompt and continuation without padding
between them; `count` [R] is their number. A forbidden token has the logit -inf.
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
    """Set the logits of `tokens` [R, N] of each row to -inf where `where` [R, N] is true."""
    lowest = jnp.where(where, -jnp.inf, jnp.inf).astype(logits.dtype)
    return logits.at[_rows(tokens), tokens].min(lowest)


def repetition_penalty(
    logits: Float[ArrayLike, "r v"],
    history: Int[ArrayLike, "r t"],
    count: Int[ArrayLike, " r"],
    penalty: float,
) -> Float[Array, "r v"]:
    """For tokens in the history, divide positive logits by the penalty and multiply negative ones.

    Source: CTRL, Keskar et al. 2019 (arXiv 1909.05858), section 4.1, in the form for logits of
    either sign.
    """
    valid = jnp.arange(history.shape[1])[None] < count[:, None]
    repeated = jnp.zeros(logits.shape, bool).at[_rows(history), history].max(valid)
    return jnp.where(repeated, jnp.where(logits > 0, logits / penalty, logits * penalty), logits)


def no_repeat_ngram(
    logits: Float[ArrayLike, "r v"],
    history: Int[ArrayLike, "r t"],
    count: Int[ArrayLike, " r"],
    n: int,
) -> Float[Array, "r v"]:
    """Forbid every token that would complete an n-gram that the row already contains.

    Where that would forbid the whole vocabulary, no token is forbidden.

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
    """Forbid the tokens `ids` in every row while `when` (scalar bool) is true."""
    if not ids:
        return logits
    forbidden = jnp.zeros(logits.shape[-1], bool).at[jnp.asarray(ids)].set(True)
    return jnp.where(forbidden[None] & when, -jnp.inf, logits)


def top_p(values: Float[ArrayLike, "r v"], p: float) -> Float[Array, "r v"]:
    """Nucleus sampling: keep the fewest logits whose probabilities sum to p; set others to -inf.

    The values must be sorted in descending order; the first is always kept.
    Source: Holtzman et al. 2019 (arXiv 1904.09751), section 3.1.
    """
    probs = jax.nn.softmax(values, axis=-1)
    before = jnp.cumsum(probs, axis=-1) - probs
    return jnp.where((before < p).at[:, :1].set(True), values, -jnp.inf)
