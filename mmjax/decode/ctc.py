"""Decoding of CTC logits: the best path, and prefix beam search over sums of paths."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from mmjax.batch import Batch
from mmjax.decode.generate import Generated
from mmjax.decode.prompts import pad_rows
from mmjax.system import Variables

Found = tuple[Int[Array, "b t"], Int[Array, " b"], Float[Array, " b"]]


def best_path(logits: Float[ArrayLike, "b t v"], frames: Bool[ArrayLike, "b t"]) -> Found:
    """The most probable token of each frame, without repeats and blanks.

    Args:
      logits: [B, T, V + 1], the last is the blank; frames: true on the valid ones.

    Returns:
      Tokens [B, T] int32, zeros after the last; their numbers [B]; the log-probability of the path
      [B], at most that of its text.

    Source: Graves et al. 2006, "Connectionist temporal classification", section 3.2.
    """
    log_p, frames = jax.nn.log_softmax(jnp.asarray(logits, jnp.float32)), jnp.asarray(frames)
    token = log_p.argmax(-1)
    before = jnp.pad(token[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    kept = frames & (token != before) & (token != log_p.shape[-1] - 1)
    order = jnp.argsort(~kept, axis=1, stable=True)
    tokens = jnp.take_along_axis(jnp.where(kept, token, 0), order, axis=1)
    score = jnp.where(frames, log_p.max(-1), 0.0).sum(1)
    return tokens.astype(jnp.int32), kept.sum(1, dtype=jnp.int32), score


def prefix_beam_search(
    log_p: Float[np.ndarray, "t v"], beams: int, candidates: int | None = None
) -> list[tuple[tuple[int, ...], float]]:
    """The most probable texts of one row and log of the summed probability of their paths.

    Every prefix has two sums, over its paths that end in a blank and over the others, since a
    repeated token extends only the first. On the host.

    Args:
      log_p: [T, V + 1] of the valid frames, the last is the blank.
      beams: prefixes that are kept after each frame, and the maximum number of results.
      candidates: only this many most probable tokens of a frame extend prefixes; None: all.

    Source: Graves and Jaitly 2014, "Towards end-to-end speech recognition with recurrent neural
    networks", algorithm 1, without a language model.
    """
    blank = log_p.shape[1] - 1
    kept: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}
    for frame in np.asarray(log_p, np.float64):
        tokens = range(blank)
        if candidates is not None and candidates < blank:
            tokens = np.argpartition(-frame[:blank], candidates)[:candidates].tolist()
        values = frame.tolist()
        parts: dict[tuple[int, ...], list[Sequence[float]]] = defaultdict(lambda: [[], []])
        for prefix, (ends_blank, ends_token) in kept.items():
            both = _log_sum((ends_blank, ends_token))
            parts[prefix][0].append(both + values[blank])
            if prefix:
                parts[prefix][1].append(ends_token + values[prefix[-1]])
            for token in tokens:
                repeats = bool(prefix) and prefix[-1] == token
                parts[(*prefix, token)][1].append((ends_blank if repeats else both) + values[token])
        sums = {prefix: (_log_sum(a), _log_sum(b)) for prefix, (a, b) in parts.items()}
        sums = {prefix: both for prefix, both in sums.items() if max(both) > -math.inf}
        best = sorted(sums, key=lambda prefix: (-_log_sum(sums[prefix]), prefix))[:beams]
        kept = {prefix: sums[prefix] for prefix in best}
    found = [(prefix, _log_sum(sums)) for prefix, sums in kept.items()]
    return sorted(found, key=lambda item: -item[1])


def _log_sum(values: Sequence[float]) -> float:
    highest = max(values, default=-math.inf)
    if highest == -math.inf:
        return highest
    return highest + math.log(sum(math.exp(value - highest) for value in values))


def make_ctc(
    model: Any, tokenizer: Any, beams: int = 1, candidates: int = 20
) -> Callable[..., Generated]:
    """`(variables, batch, seed=0) -> Generated`: the texts of a model with `ctc_logits`.

    Args:
      beams: 1: `best_path`, else prefixes of `prefix_beam_search`; candidates: see there.

    Raises:
      ValueError: no beam, or no candidate.
    """
    for name, value in (("beams", beams), ("candidates", candidates)):
        if value < 1:
            raise ValueError(f"decode.{name} is {value}: it must be at least 1.")

    @jax.jit
    def read(variables, batch):
        outputs = model.apply(variables, batch)
        logits, frames = outputs["ctc_logits"], outputs["ctc_frames"]
        return jax.nn.log_softmax(logits), frames, *best_path(logits, frames)

    def transcribe(variables: Variables, batch: Batch, seed: int = 0) -> Generated:
        del seed
        batch = {name: x for name, x in batch.items() if not name.startswith("text")}
        found = [process_allgather(x, tiled=True) for x in read(variables, batch)]
        log_p, frames, tokens, lengths, scores = found
        if beams > 1:
            rows = [
                prefix_beam_search(p[valid], beams, candidates)[0]
                for p, valid in zip(log_p, frames)
            ]
            texts = [text for text, _ in rows]
            tokens = pad_rows(texts, max(1, *map(len, texts)))[0]
            lengths = np.asarray([len(text) for text in texts], np.int32)
            scores = np.asarray([score for _, score in rows], np.float32)
        texts = [tokenizer.decode(row[:n]) for row, n in zip(tokens, lengths)]
        return Generated(texts, tokens[:, None], lengths[:, None], scores[:, None])

    return transcribe
