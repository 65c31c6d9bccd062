"""A logits processor that keeps the calls of tools well-formed."""

import dataclasses
from collections.abc import Iterable, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from mmjax.data.text.calls import CLOSE, OPEN

# What a call may follow, as a space or a punctuation mark may be part of its first token; "": the
# begin of a text.
BEFORE = ("", *(f"{end}{space}" for end in ("a", "1", ".", ")", ":") for space in ("", " ", "\n")))


@dataclasses.dataclass(frozen=True)
class WellFormedCalls:
    """Within a call of a tool, only tokens that keep it well-formed.

    After the tokens of `<tool ` only those that spell the name of a known tool and `>`; then no end
    before `</tool>`; after `</tool>` the end of the turn, as the result comes next.

    Attributes:
      heads: of each tool the tokens of `<tool `, and those of `NAME>` after them; as often as a
        tokenizer has other tokens for them, by what is before; see `BEFORE`.
      closings: the tokens of `</tool>`, likewise.
      end_ids: the end tokens.

    Raises:
      ValueError: a head without an opening or a name: the tokenizer merges the two.
    """

    heads: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
    closings: tuple[tuple[int, ...], ...]
    end_ids: tuple[int, ...]

    def __post_init__(self):
        if not all(opening and name for opening, name in self.heads):
            raise ValueError(
                f"The tokenizer merges '{OPEN}' with the names of tools: give them other names."
            )

    @classmethod
    def of(cls, tokenizer, names: Sequence[str]) -> "WellFormedCalls":
        """The processor for a tokenizer and the names of tools.

        Raises:
          ValueError: no tools, or a tokenizer that merges `<tool ` with their names.
        """
        if not names:
            raise ValueError("There are no tools to call: name some.")

        def ids(before: str, text: str) -> tuple[int, ...]:
            alone, whole = (tuple(tokenizer.pieces(t)[0]) for t in (before, before + text))
            return whole[_common([alone, whole]) :]

        heads = set()
        for before in BEFORE:
            rows = [ids(before, f"{OPEN}{name}>") for name in names]
            # The last space may be part of a name's token.
            size = _common([*rows, ids(before, f"{OPEN}>")])
            heads |= {(row[:size], row[size:]) for row in rows}
        closings = {ids(before, CLOSE) for before in BEFORE[1:]}
        return cls(tuple(sorted(heads)), tuple(sorted(closings)), tokenizer.end_ids)

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
        mine = (place >= (count - new)[:, None]) & (place < count[:, None])  # the continuation
        own = jnp.where(mine, history, -1)
        longest = max(map(len, (*(a + b for a, b in self.heads), *self.closings)))
        last = (count - longest)[:, None] + jnp.arange(longest)[None]
        tail = jnp.take_along_axis(own, jnp.maximum(last, 0), axis=1)
        tail = jnp.where(last < 0, -1, tail)

        def at_end(ids: Sequence[int]) -> Bool[Array, " r"]:
            return (tail[:, longest - len(ids) :] == jnp.asarray(ids)[None]).all(1)

        def latest(texts: Iterable[Sequence[int]]) -> Int[Array, " r"]:
            """The place of the last token of the latest of these in the continuation; -1: none."""
            found = jnp.full(len(logits), -1)
            for ids in texts:
                same = place >= len(ids) - 1
                for back, token in enumerate(reversed(ids)):
                    same &= jnp.roll(own, back, axis=1) == token
                found = jnp.maximum(found, jnp.where(same, place, -1).max(1))
            return found

        opened = latest({opening for opening, _ in self.heads})
        calling = opened > latest(self.closings)
        naming = jnp.zeros(len(logits), bool)
        names = jnp.zeros((len(logits), vocabulary), bool)
        for opening, name in self.heads:
            for size in range(len(name)):
                here = calling & (opened == count - 1 - size) & at_end(opening + name[:size])
                naming |= here
                names = names.at[:, name[size]].max(here)
        is_end = jnp.zeros(vocabulary, bool).at[np.asarray(self.end_ids, int)].set(True)[None]
        over = jnp.stack([at_end(ids) for ids in self.closings]).any(0)
        wrong = naming[:, None] & ~names
        wrong |= (calling & ~naming)[:, None] & is_end
        wrong |= over[:, None] & ~is_end
        return jnp.where(wrong, -jnp.inf, logits)


def _common(rows: Sequence[Sequence[int]]) -> int:
    """The length of the longest start that all rows share."""
    size = 0
    while all(len(row) > size for row in rows) and len({row[size] for row in rows}) == 1:
        size += 1
    return size
