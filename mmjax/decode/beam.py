"""Beam search and diverse beam search."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from einops import rearrange

from mmjax.decode.sampling import append
from mmjax.decode.settings import Settings
from mmjax.decode.top_k import top_k


@flax.struct.dataclass
class Beams:
    """G groups of K beams for each of B prompts; beam (b, g, k) is row (b · G + g) · K + k.

    `scores` [B, G, K] and `tokens` [B·G·K, N] are log-probabilities and tokens of the unfinished
    beams, `history` [B·G·K, T] and `count` as in decode/logits.py. `ended_*` hold the best K
    finished texts of each group: tokens [B, G, K, N], lengths and (penalized) scores [B, G, K].
    """

    cache: Any
    history: jax.Array
    count: jax.Array
    tokens: jax.Array
    scores: jax.Array
    ended_tokens: jax.Array
    ended_lengths: jax.Array
    ended_scores: jax.Array
    new: jax.Array


def begin(settings: Settings, cache: Any, history: jax.Array, count: jax.Array) -> Beams:
    """Beams before the first token; cache, history and count have one row per beam."""
    groups, rows = settings.beam_groups, len(count)
    shape = (rows // settings.beams, groups, settings.beams // groups)
    # All beams of a prompt are still equal: only the first of each group may continue.
    scores = jnp.where(jnp.arange(shape[2]) == 0, 0.0, -jnp.inf)
    limit = settings.max_new_tokens
    return Beams(
        cache=cache,
        history=history,
        count=count,
        tokens=jnp.full((rows, limit), settings.pad_id, jnp.int32),
        scores=jnp.broadcast_to(scores[None, None], shape).astype(jnp.float32),
        ended_tokens=jnp.full((*shape, limit), settings.pad_id, jnp.int32),
        ended_lengths=jnp.zeros(shape, jnp.int32),
        ended_scores=jnp.full(shape, -jnp.inf, jnp.float32),
        new=jnp.zeros((), jnp.int32),
    )


def add_token(settings: Settings, state: Beams, logits: jax.Array) -> tuple[Beams, jax.Array]:
    """Extend every beam by one token from logits [rows, V]; returns each beam's source row too.

    The caller must reorder the cache by these rows. Every beam may end at every step; finished
    texts compete for the K places of their group. Groups choose one after the other; a token costs
    `diversity_penalty` for each beam of an earlier group that chose it at this step. The penalty
    affects only the choice: scores are log-probabilities.
    Source: Vijayakumar et al. 2016 (arXiv 1610.02424), section 4 and algorithm 1.
    """
    batch, groups, beams = state.scores.shape
    logits = settings.process(logits, state.history, state.count, state.new)
    vocab = logits.shape[-1]
    log_z = jax.nn.logsumexp(logits, axis=-1)
    if settings.end_ids:
        ends = jnp.asarray(settings.end_ids)
        state = _end(settings, state, logits[:, ends] - log_z[:, None], ends)
        logits = logits.at[:, ends].set(-jnp.inf)
    logits = rearrange(logits, "(b g k) v -> b g k v", g=groups, k=beams)
    log_z = rearrange(log_z, "(b g k) -> b g k", g=groups, k=beams)

    width = min(beams, vocab)
    taken = jnp.zeros((batch, vocab), jnp.float32)
    parents, tokens, scores = [], [], []
    for g in range(groups):
        wanted = logits[:, g]
        if g and settings.diversity_penalty:
            wanted = wanted - settings.diversity_penalty * taken[:, None]
        values, ids = top_k(rearrange(wanted, "b k v -> (b k) v"), width)
        values, ids = (rearrange(x, "(b k) w -> b k w", k=beams) for x in (values, ids))
        before = (state.scores[:, g] - log_z[:, g])[..., None]
        rank = rearrange(before + values, "b k w -> b (k w)")
        score = before + jnp.take_along_axis(logits[:, g], ids, axis=2)
        _, place = jax.lax.top_k(rank, beams)
        ids, score = (rearrange(x, "b k w -> b (k w)") for x in (ids, score))
        token = jnp.take_along_axis(ids, place, axis=1)
        scores.append(jnp.take_along_axis(score, place, axis=1))
        tokens.append(token)
        parents.append(place // width)
        if settings.diversity_penalty:
            taken = taken.at[jnp.arange(batch)[:, None], token].add(1.0)

    first = rearrange(jnp.arange(batch * groups) * beams, "(b g) -> b g 1", g=groups)
    rows = (jnp.stack(parents, 1) + first).reshape(-1)
    token = jnp.stack(tokens, 1).reshape(-1).astype(jnp.int32)
    at = (jnp.zeros((), jnp.int32), state.new)
    state = state.replace(
        history=append(state.history[rows], state.count[rows], token),
        count=state.count[rows] + 1,
        tokens=jax.lax.dynamic_update_slice(state.tokens[rows], token[:, None], at),
        scores=jnp.stack(scores, 1),
        new=state.new + 1,
    )
    return state, rows


def _end(settings: Settings, state: Beams, log_probs: jax.Array, ends: jax.Array) -> Beams:
    """Finish every beam with every end token: log_probs [rows, E] of the tokens `ends`."""
    _, groups, beams = state.scores.shape
    scores = state.scores[..., None] + rearrange(
        log_probs, "(b g k) e -> b g k e", g=groups, k=beams
    )
    tokens = jnp.broadcast_to(state.tokens[:, None], (*log_probs.shape, state.tokens.shape[1]))
    last = jnp.arange(tokens.shape[2])[None, None] == state.new
    tokens = jnp.where(last, ends[None, :, None], tokens).astype(jnp.int32)
    return _compete(settings, state, scores, tokens, state.new + 1)


def _compete(settings: Settings, state: Beams, scores, tokens, length) -> Beams:
    """Keep the best K finished texts, with new ones of one length: scores [B, G, K, E]."""
    beams = state.scores.shape[2]
    scores = rearrange(_penalized(settings, scores, length), "b g k e -> b g (k e)")
    tokens = tokens.reshape(*scores.shape, -1)
    lengths = jnp.broadcast_to(length, scores.shape)
    scores = jnp.concatenate([state.ended_scores, scores], axis=2)
    best, place = jax.lax.top_k(scores, beams)
    lengths = jnp.concatenate([state.ended_lengths, lengths], axis=2)
    tokens = jnp.concatenate([state.ended_tokens, tokens], axis=2)
    return state.replace(
        ended_scores=best,
        ended_lengths=jnp.take_along_axis(lengths, place, axis=2),
        ended_tokens=jnp.take_along_axis(tokens, place[..., None], axis=2),
    )


def _penalized(settings: Settings, scores: jax.Array, length) -> jax.Array:
    return scores / jnp.asarray(length, jnp.float32) ** settings.length_penalty


def is_over(settings: Settings, state: Beams) -> jax.Array:
    """True where no beam can displace a finished text: log-probabilities only decrease."""
    bound = _penalized(settings, state.scores.max(-1), settings.max_new_tokens)
    return (state.ended_scores.min(-1) >= bound).all()


def finish(settings: Settings, state: Beams) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The best texts, finished or truncated: tokens [B, n, N], lengths and scores [B, n].

    n is the number of beams over all groups; the best text comes first.
    """
    state = _compete(settings, state, state.scores[..., None], state.tokens, state.new)
    scores = rearrange(state.ended_scores, "b g k -> b (g k)")
    order = jnp.argsort(-scores, axis=1)
    lengths = rearrange(state.ended_lengths, "b g k -> b (g k)")
    tokens = rearrange(state.ended_tokens, "b g k n -> b (g k) n")
    return (
        jnp.take_along_axis(tokens, order[..., None], axis=1),
        jnp.take_along_axis(lengths, order, axis=1),
        jnp.take_along_axis(scores, order, axis=1),
    )
