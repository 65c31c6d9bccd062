"""Generate continuations with any model that has a `cache`: all at once, or token by token.

The model is called with the batch (text, text_mask, and its other inputs) and `cache_length`, which
creates the cache; then with one token per row and that cache. Both calls return `next_logits`
[rows, V]. `model.window` is the maximum length of a text.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.experimental.multihost_utils import process_allgather

from mmjax.batch import Batch
from mmjax.decode import beam, sampling
from mmjax.decode.settings import Settings
from mmjax.layers import platform
from mmjax.layers.apart import Apart, is_apart, split_layers
from mmjax.layers.packed import in_int8

# For a program that runs once and only copies: minimal temporary memory. By default XLA's CPU
# backend converts all kernels at the same time.
_SPARING = {"cpu": {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}}


class Generated(NamedTuple):
    """Continuations, the best first: n is the number of beams, or 1.

    Attributes:
      texts: the best continuation of each row, decoded; () without a tokenizer.
      tokens: [B, n, N] int32, padded after their end token.
      lengths: [B, n] int32, end token included.
      scores: [B, n], log-probabilities; with beams, divided by length ** length_penalty.
    """

    texts: Sequence[str]
    tokens: jax.Array
    lengths: jax.Array
    scores: jax.Array


def make_generate(model: Any, settings: Settings) -> Callable[..., Generated]:
    """A function (variables, batch, seed=0) -> Generated, compiled once per batch shape.

    `batch` has `text` [B, P] and `text_mask` [B, P] (see `pad_prompts`), padded on either side.

    Raises:
      ValueError: more new tokens than fit in the model's window; when called, prompts or other
        settings that do not fit the model.
    """

    @jax.jit
    def generate(variables, batch, seed) -> Generated:
        prompts = read_prompts(model, settings, variables, batch)
        return continue_prompts(model, settings, variables, *prompts, jax.random.key(seed))

    if settings.max_new_tokens >= model.window:
        raise ValueError(
            f"decode.max_new_tokens is {settings.max_new_tokens} and the model's window "
            f"{model.window}, with the prompt: lower it."
        )
    prepare = Prepared(model, settings)

    def call(variables, batch: Batch, seed: int = 0) -> Generated:
        check_prompts(model, settings, batch)
        batch = dict(batch)
        return generate(prepare(variables, batch), batch, seed)

    return call


def continue_prompts(
    model: Any,
    settings: Settings,
    variables: Any,
    logits: jax.Array,
    cache: Any,
    history: jax.Array,
    count: jax.Array,
    key: jax.Array,
    temperature: jax.Array | None = None,
) -> Generated:
    """The continuations of prompts that `read_prompts` has read; to be compiled by the caller.

    Args:
      temperature: [], replaces that of the settings, which must not be 0.
    """
    if settings.beams > 1:
        return _search(model, settings, variables, logits, cache, history, count)

    def going(state):
        return (state.new < settings.max_new_tokens) & ~state.done.all()

    state = sampling.begin(settings, logits, cache, history, count, key, temperature)
    state = jax.lax.while_loop(going, lambda s: _advance(model, settings, variables, s), state)
    return Generated((), state.tokens[:, None], state.lengths[:, None], state.scores[:, None])


def make_stream(model: Any, settings: Settings) -> Callable[..., Iterator[np.ndarray]]:
    """A function (variables, batch, seed=0) -> iterator of tokens [B], yielded as generated.

    Finished rows yield `pad_id`; the iterator ends when all rows have finished. The tokens are
    those of `make_generate`.

    Raises:
      ValueError: beam search, which cannot stream; or as `make_generate`.
    """
    if settings.beams > 1:
        raise ValueError(
            f"decode.beams is {settings.beams}: beam search cannot stream; set it to 1."
        )

    @jax.jit
    def begin(variables, batch, key):
        return sampling.begin(settings, *read_prompts(model, settings, variables, batch), key)

    def after(variables, state):
        return _advance(model, settings, variables, state)

    advance = jax.jit(after, donate_argnums=1)
    prepare = Prepared(model, settings)

    def stream(variables, batch: Batch, seed: int = 0) -> Iterator[np.ndarray]:
        check_prompts(model, settings, batch)
        batch = dict(batch)
        variables = prepare(variables, batch)
        state = begin(variables, batch, jax.random.key(seed))
        for new in range(settings.max_new_tokens):
            if new:
                state = advance(variables, state)
            yield np.asarray(state.tokens[:, new])
            if state.done.all():
                return

    return stream


class Prepared:
    """Converts variables to the form that the loop over tokens reads, and caches the last result.

    On CPU that is a second copy of the kernels. To avoid it, call this, delete the parameters, and
    pass the result to the function of `make_generate` (or stream, or score).
    """

    def __init__(self, model: Any, settings: Settings):
        self._given = self._prepared = None

        prepare = functools.partial(prepared, model, settings)
        self._prepare = jax.jit(prepare, compiler_options=_SPARING.get(jax.default_backend()))

    def __call__(self, variables, batch):
        if "packed" in variables:  # prepared already
            return variables
        if variables["params"] is not self._given:
            self._given, self._prepared = variables["params"], self._prepare(variables, batch)
        return self._prepared


def prepared(model: Any, settings: Settings, variables: Any, batch: Batch) -> Any:
    """The variables in the form that the loop over tokens reads; to be compiled by the caller."""
    variables = {**variables, "params": split_layers(variables["params"])}
    if not (settings.int8 or platform.current().packed_kernels):
        return variables
    # A step for one token packs the kernels that it reads; XLA removes the rest of it.
    cache = read_prompts(model, settings, variables, batch)[1]
    token = batch["text"][:, 0]
    packed = read_token(model, variables, cache, token, ["packed"])[1].get("packed", {})
    if settings.int8:
        packed = jax.tree.map(in_int8, packed)
    params = _without(variables["params"], packed)
    return {**variables, "params": params, "packed": packed}


def _without(params, packed):
    """The parameters without the kernels that are in `packed`."""
    packed = flatten_dict(packed)
    kept = {path: x for path, x in flatten_dict(params).items() if path not in packed}
    return unflatten_dict(kept)


def check_prompts(model: Any, settings: Settings, batch: Batch) -> None:
    """Raise ValueError for prompts that are empty or leave no room for the continuation."""
    mask = process_allgather(batch["text_mask"], tiled=True)  # the prompts of all processes
    if not mask.any(1).all():
        raise ValueError(
            f"Prompt {int(mask.any(1).argmin())} is empty: begin it with the tokenizer's begin "
            "token, or with a word."
        )
    longest = int(mask.sum(1).max())
    if longest + settings.max_new_tokens > model.window:
        raise ValueError(
            f"A prompt of {longest} tokens and {settings.max_new_tokens} new ones exceed the "
            f"model's window of {model.window}: shorten it, or lower max_new_tokens."
        )


def read_prompts(model, settings, variables, batch):
    """The next-token logits [B, V] of the prompts, the cache, the history and its count."""
    text, mask = batch["text"], batch["text_mask"]
    slots = text.shape[1] + settings.max_new_tokens
    outputs, made = model.apply(variables, batch, cache_length=slots, mutable=["cache"])
    logits = outputs["next_logits"]
    settings.check_vocabulary(logits.shape[-1])
    order = jnp.argsort(~mask, axis=1, stable=True)  # the tokens first, without gaps
    history = jnp.take_along_axis(text, order, axis=1)
    history = jnp.pad(history, ((0, 0), (0, settings.max_new_tokens)))
    return logits, made["cache"], history, mask.sum(1, dtype=jnp.int32)


def select_rows(cache: Any, index: jax.Array) -> Any:
    """A cache of the rows index[0], index[1], ...

    The context's rows are kept: each is shared by consecutive rows (beams).
    """
    leaves = jax.tree_util.tree_leaves_with_path(cache)
    rows = next(len(x) for path, x in leaves if path[-1].key == "seen")

    def take(x):
        # A row may have several entries: its heads.
        split = rearrange(x, "(row place) ... -> row place ...", row=rows)
        return rearrange(jnp.take(split, index, axis=0), "row place ... -> (row place) ...")

    def one(path, x):
        names = [entry.key for entry in path]
        if "cross" in names or names[-1] in ("slot", "cross_seen"):
            return x
        if is_apart(x):
            return Apart(map(take, x))
        return jnp.take(x, index, axis=1) if "stack" in names else take(x)

    return jax.tree_util.tree_map_with_path(one, cache, is_leaf=is_apart)


def read_token(model, variables, cache, token, make=()):
    """Logits [R, V] after one more token per row [R], and the updated collections (the cache, and
    those in `make`)."""
    batch = {"text": token[:, None], "text_mask": jnp.ones((len(token), 1), bool)}
    outputs, made = model.apply({**variables, "cache": cache}, batch, mutable=["cache", *make])
    return outputs["next_logits"], made


def _advance(model, settings, variables, state: sampling.State) -> sampling.State:
    """Feed the model the newest token, and choose the next."""
    token = jax.lax.dynamic_index_in_dim(state.tokens, state.new - 1, 1, keepdims=False)
    logits, made = read_token(model, variables, state.cache, token)
    return sampling.add_token(settings, state.replace(cache=made["cache"]), logits)


def _search(model, settings, variables, logits, cache, history, count) -> Generated:
    """Beam search from the prompts' logits [B, V]."""
    rows = jnp.repeat(jnp.arange(len(count)), settings.beams)
    state = beam.begin(settings, select_rows(cache, rows), history[rows], count[rows])
    state, rows = beam.add_token(settings, state, logits[rows])

    def going(state):
        return (state.new < settings.max_new_tokens) & ~beam.is_over(settings, state)

    def body(state):
        token = jax.lax.dynamic_index_in_dim(state.tokens, state.new - 1, 1, keepdims=False)
        logits, made = read_token(model, variables, state.cache, token)
        state, rows = beam.add_token(settings, state, logits)
        return state.replace(cache=select_rows(made["cache"], rows))

    return Generated((), *beam.finish(settings, jax.lax.while_loop(going, body, state)))
