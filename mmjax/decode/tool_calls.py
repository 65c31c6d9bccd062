"""A logits processor that keeps the calls of tools well-formed."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from mmjax.data.text.calls import CLOSE, OPEN


@dataclasses.dataclass(frozen=True)
class WellFormedCalls:
    """Within a call of a tool, only tokens that keep it well-formed.

    After the tokens of `<tool ` only those that spell the name of a known tool and `>`; then no end
    before `</tool>`; after `</tool>` the end of the turn, as the result comes next.

    Attributes:
      opening: the tokens of `<tool `.
      heads: those of `<tool NAME>` of each tool, each with `opening` at its start.
      closing: those of `</tool>`.
      end_ids: the end tokens.

    Raises:
      ValueError: heads that do not begin with the opening: the tokenizer merges it with a name.
    """

    opening: tuple[int, ...]
    heads: tuple[tuple[int, ...], ...]
    closing: tuple[int, ...]
    end_ids: tuple[int, ...]

    def __post_init__(self):
        size = len(self.opening)
        if not size or any(h[:size] != self.opening or len(h) == size for h in self.heads):
            raise ValueError(
                f"The tokenizer merges '{OPEN}' with the names of tools: give them other names."
            )

    @classmethod
    def of(cls, tokenizer, names: Sequence[str]) -> "WellFormedCalls":
        """The processor for a tokenizer and the names of tools.

        Raises:
          ValueError: no tools, or a tokenizer that merges a call's parts with what is around them.
        """
        if not names:
            raise ValueError("There are no tools to call: name some.")

        def ids(text: str) -> tuple[int, ...]:
            return tuple(tokenizer.pieces(text)[0])

        heads = tuple(ids(f"{OPEN}{name}>") for name in names)
        opening = _common([*heads, ids(f"{OPEN}>")])  # a space may be part of a name's token
        return cls(opening, heads, ids(CLOSE), tokenizer.end_ids)

    def __call__(
        self,
        logits: Float[ArrayLike, "r v"],
        history: Int[ArrayLike, "r t"],
        count: Int[ArrayLike, " r"],
        new: Int[ArrayLike, ""],
    ) -> Float[Array, "r v"]:
        """The logits with those of tokens that would break a call -inf."""
        vocabulary = logits.shape[1]
        place = jnp.arange(history.shape[1])[None]
        own = place >= (count - new)[:, None]  # of the continuation

        def ends(ids: Sequence[int]) -> Bool[Array, "r t"]:
            """Where the continuation has these tokens, at the place of the last."""
            found = own & (place < count[:, None])
            for back, token in enumerate(reversed(ids)):
                found &= jnp.roll(jnp.where(own, history, -1), back, axis=1) == token
            return found & (place >= len(ids) - 1)

        def at_end(found: Bool[Array, "r t"]) -> Bool[Array, " r"]:
            return jnp.take_along_axis(found, jnp.maximum(count - 1, 0)[:, None], axis=1)[:, 0]

        opened = jnp.where(ends(self.opening), place, -1).max(1)
        closed = jnp.where(ends(self.closing), place, -1).max(1)
        calling = opened > closed
        naming = jnp.zeros(len(logits), bool)
        names = jnp.zeros((len(logits), vocabulary), bool)
        for head in self.heads:
            for size in range(len(self.opening), len(head)):
                here = calling & at_end(ends(head[:size]))
                here &= opened == count - 1 - (size - len(self.opening))
                naming |= here
                names = names.at[:, head[size]].max(here)
        is_end = jnp.zeros(vocabulary, bool).at[np.asarray(self.end_ids, int)].set(True)[None]
        over = at_end(ends(self.closing))
        wrong = naming[:, None] & ~names
        wrong |= (calling & ~naming)[:, None] & is_end
        wrong |= over[:, None] & ~is_end
        return jnp.where(wrong, -jnp.inf, logits)


def _common(rows: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The longest start that all rows share."""
    size = 0
    while all(len(row) > size for row in rows) and len({row[size] for row in rows}) == 1:
        size += 1
    return tuple(rows[0][:size])
