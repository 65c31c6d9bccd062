"""Padding of prompts into one batch, and incremental detokenization of a continuation."""

from collections.abc import Callable, Sequence

import numpy as np

BUCKET = 16  # smallest length; each next bucket is twice as long


def pad_prompts(prompts: Sequence[Sequence[int]], pad_id: int = 0) -> dict[str, np.ndarray]:
    """Token ids as `text` [B, P] int32 and `text_mask` [B, P] bool, padded on the right.

    P is the smallest bucket (16, 32, 64, ...) that holds the longest prompt, so the program is
    compiled once per bucket and not once per length.

    Raises:
      ValueError: no prompt, or an empty one.
    """
    if not prompts:
        raise ValueError("There is no prompt: give at least one.")
    for i, ids in enumerate(prompts):
        if not len(ids):
            raise ValueError(
                f"Prompt {i} is empty and the tokenizer has no begin token: give it a word."
            )
    longest, size = max(map(len, prompts)), BUCKET
    while size < longest:
        size *= 2
    text, mask = pad_rows(prompts, size, pad_id)
    return {"text": text, "text_mask": mask}


def pad_rows(
    rows: Sequence[Sequence[int]], length: int, pad_id: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of token ids as `[N, length]` int32, padded on the right, and the mask of the tokens."""
    text = np.full((len(rows), length), pad_id, np.int32)
    mask = np.zeros((len(rows), length), bool)
    for row, ids in enumerate(rows):
        text[row, : len(ids)] = ids
        mask[row, : len(ids)] = True
    return text, mask


class Detokenizer:
    """Streaming text of one continuation: `push` a token, get the characters that are complete.

    A token may end inside a multi-byte character, which is then returned with a later token.

    Args:
      decode: list of ids -> str.
    """

    def __init__(self, decode: Callable[[list[int]], str]):
        self._decode, self._ids, self._given = decode, [], ""

    def push(self, token: int) -> str:
        """The text that this token completes; may be empty."""
        self._ids.append(int(token))
        text = self._decode(self._ids)
        return "" if text.endswith("\N{REPLACEMENT CHARACTER}") else self._add(text)

    def flush(self) -> str:
        """The remaining text, with incomplete characters as the replacement character."""
        return self._add(self._decode(self._ids))

    def _add(self, text: str) -> str:
        new, self._given = text[len(self._given) :], text
        return new
