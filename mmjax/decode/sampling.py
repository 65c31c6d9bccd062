"""Greedy decoding and sampling, one token at a time."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from mmjax.decode import logits as processors
from mmjax.decode.settings import Settings
from mmjax.decode.top_k import top_k


@flax.struct.dataclass
class State:
    """B unfinished continuations, whose last token is chosen but not yet read by the model.

    `history` [B, T] and `count` [B] are as in decode/logits.py; `tokens` [B, N] are the
    continuations, `lengths` [B] and `scores` [B] their lengths and log-probabilities, `done` [B];
    `new` [] is the number of tokens per row so far; `key` is one key, or [B], one per row.
    `temperature` [] replaces that of the settings, for one program for all temperatures above 0.
    """

    cache: Any
    history: jax.Array
    count: jax.Array
    tokens: jax.Array
    lengths: jax.Array
    scores: jax.Array
    done: jax.Array
    new: jax.Array
    key: jax.Array
    temperature: jax.Array | None = None


def begin(
    settings: Settings,
    logits: jax.Array,
    cache: Any,
    history: jax.Array,
    count: jax.Array,
    key,
    temperature: jax.Array | None = None,
) -> State:
    """The state after the first token, from the prompts' logits [B, V]."""
    rows = logits.shape[0]
    state = State(
        cache=cache,
        history=history,
        count=count,
        tokens=jnp.full((rows, settings.max_new_tokens), settings.pad_id, jnp.int32),
        lengths=jnp.zeros(rows, jnp.int32),
        scores=jnp.zeros(rows, jnp.float32),
        done=jnp.zeros(rows, bool),
        new=jnp.zeros((), jnp.int32),
        key=key,
        temperature=temperature,
    )
    return add_token(settings, state, logits)


def add_token(settings: Settings, state: State, logits: jax.Array) -> State:
    """Choose the next token of every row that is not done, from its logits [B, V]."""
    logits = settings.process(logits, state.history, state.count, state.new)
    key = _fold_in(state.key, state.new)
    token = choose(settings, logits, key, state.temperature)
    score = jnp.take_along_axis(logits, token[:, None], axis=1)[:, 0]
    score -= jax.nn.logsumexp(logits, axis=-1)
    token = jnp.where(state.done, settings.pad_id, token)
    going = (~state.done).astype(jnp.int32)
    return state.replace(
        history=append(state.history, state.count, token),
        count=state.count + going,
        tokens=jax.lax.dynamic_update_slice(
            state.tokens, token[:, None], (jnp.zeros((), jnp.int32), state.new)
        ),
        lengths=state.lengths + going,
        scores=state.scores + jnp.where(state.done, 0.0, score),
        done=state.done | is_end(settings, token),
        new=state.new + 1,
    )


def choose(
    settings: Settings, logits: jax.Array, key: jax.Array, temperature: jax.Array | None = None
) -> jax.Array:
    """[B] int32: the most probable or sampled tokens. A row's sample does not depend on B.

    Args:
      key: one, or [B], one per row.
    """
    if not settings.temperature:
        return logits.argmax(-1).astype(jnp.int32)
    values, ids = logits / (settings.temperature if temperature is None else temperature), None
    if settings.top_k:
        values, ids = top_k(values, settings.top_k)
    elif settings.top_p < 1:
        values, ids = jax.lax.top_k(values, values.shape[-1])
    if settings.top_p < 1:
        values = processors.top_p(values, settings.top_p)
    keys = key
    if not key.ndim:
        keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(len(values)))
    place = jax.vmap(jax.random.categorical)(keys, values)
    if ids is not None:
        place = jnp.take_along_axis(ids, place[:, None], axis=1)[:, 0]
    return place.astype(jnp.int32)


def _fold_in(key: jax.Array, data: jax.Array) -> jax.Array:
    """One key, or [B] of them, with a number added."""
    if key.ndim:
        return jax.vmap(jax.random.fold_in, in_axes=(0, None))(key, data)
    return jax.random.fold_in(key, data)


def append(history: jax.Array, count: jax.Array, token: jax.Array) -> jax.Array:
    """The history [R, T] with one token [R] appended to each row."""
    return history.at[jnp.arange(len(token)), count].set(token, mode="drop")


def is_end(settings: Settings, token: jax.Array) -> jax.Array:
    """True where the token ends a text."""
    ends = jnp.zeros(token.shape, bool)
    for end in settings.end_ids:
        ends |= token == end
    return ends
