"""Logits processors of Whisper: tokens that cannot come first, and the rules of timestamps.

See decode/logits.py for `history`, `count` and `new`.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from mmjax.decode.logits import forbid_ids


@dataclasses.dataclass(frozen=True)
class NotFirst:
    """Forbids tokens at the beginning of a continuation only: in Whisper a space, and the end."""

    ids: tuple[int, ...]

    def __call__(
        self,
        logits: Float[ArrayLike, "r v"],
        history: Int[ArrayLike, "r t"],
        count: Int[ArrayLike, " r"],
        new: Int[ArrayLike, ""],
    ) -> Float[Array, "r v"]:
        """The logits with those of `ids` -inf before the first token."""
        return forbid_ids(logits, self.ids, new == 0)


@dataclasses.dataclass(frozen=True)
class TimestampRules:
    """Makes a continuation a sequence of segments `<|start|> text <|end|>`.

    1. The first token is a timestamp, at most `max_initial` steps after `<|0.00|>`.
    2. Timestamps come in pairs, the end of a segment and the start of the next, except before the
       end of the continuation.
    3. They never decrease, and a segment's end is after its start.
    4. Where all timestamps together are more probable than any other token, one is chosen.

    Attributes:
      first: the id of `<|0.00|>`, above which are only timestamps, in steps of 0.02 s.
      end: the end token, below which is only text.
      no_timestamps: the id of `<|notimestamps|>`, never chosen.
      max_initial: None is no limit; 50 is one second.

    Source: Radford et al. 2022 (arXiv 2212.04356), section 4.5; openai/whisper, decoding.py,
    ApplyTimestampRules.
    """

    first: int
    end: int
    no_timestamps: int
    max_initial: int | None = 50

    def __call__(
        self,
        logits: Float[ArrayLike, "r v"],
        history: Int[ArrayLike, "r t"],
        count: Int[ArrayLike, " r"],
        new: Int[ArrayLike, ""],
    ) -> Float[Array, "r v"]:
        """The logits with those of tokens that break a rule -inf."""
        ids = jnp.arange(logits.shape[1])[None]
        is_time = ids >= self.first
        last = (new >= 1) & self._is_time(history, count, 1)
        before = (new < 2) | self._is_time(history, count, 2)
        wrong = ids == self.no_timestamps
        wrong |= (last & before)[:, None] & is_time
        wrong |= (last & ~before)[:, None] & (ids < self.end)
        closes = last & ~before
        wrong |= is_time & (ids < self._lowest(history, count, new, closes)[:, None])
        late = ids > self.first + (
            logits.shape[1] if self.max_initial is None else self.max_initial
        )
        wrong |= (new == 0) & (~is_time | late)
        logits = jnp.where(wrong, -jnp.inf, logits)
        times = jax.nn.logsumexp(jnp.where(is_time, logits, -jnp.inf), axis=1)
        others = jnp.where(is_time, -jnp.inf, logits).max(1)
        return jnp.where((times > others)[:, None] & ~is_time, -jnp.inf, logits)

    def _is_time(self, history, count, back: int) -> Bool[Array, " r"]:
        """Whether the token `back` places before the next one is a timestamp."""
        at = jnp.maximum(count - back, 0)[:, None]
        return jnp.take_along_axis(history, at, axis=1)[:, 0] >= self.first

    def _lowest(self, history, count, new, closes) -> Int[Array, " r"]:
        """The lowest timestamp that does not decrease: the newest one only after a segment's end,
        as the start of the next segment."""
        place = jnp.arange(history.shape[1])[None]
        own = (place >= (count - new)[:, None]) & (place < count[:, None])
        at = jnp.where(own & (history >= self.first), place, -1).max(1)
        newest = jnp.take_along_axis(history, jnp.maximum(at, 0)[:, None], axis=1)[:, 0]
        return jnp.where(at < 0, self.first, newest + jnp.where(closes, 0, 1))
