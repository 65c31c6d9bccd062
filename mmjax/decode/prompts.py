"""Prompts of different lengths as one padded batch, and a continuation's text as it comes."""

from collections.abc import Callable, Sequence

import numpy as np

BUCKET = 16  # the smallest; each next one is twice as long


def pad_prompts(prompts: Sequence[Sequence[int]], pad_id: int = 0) -> dict[str, np.ndarray]:
    """Token ids as `text` [B, P] int32 and `text_mask` [B, P] bool, padded on the right.

    P is the smallest bucket (16, 32, 64, ...) that holds the longest: the program is compiled once
    for each bucket and not for each length.

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
    """Rows of token ids as `[N, length]` int32, padded on the right, and which are not padding."""
    text = np.full((len(rows), length), pad_id, np.int32)
    mask = np.zeros((len(rows), length), bool)
    for row, ids in enumerate(rows):
        text[row, : len(ids)] = ids
        mask[row, : len(ids)] = True
    return text, mask


class Detokenizer:
    """Text of one continuation, piece by piece: `push` a token, get the characters that are sure.

    A token may end within a character of several bytes; its piece then comes with a later one.

    Args:
      decode: list of ids -> str.
    """

    def __init__(self, decode: Callable[[list[int]], str]):
        self._decode, self._ids, self._given = decode, [], ""

    def push(self, token: int) -> str:
        """The text that this token adds; perhaps none yet."""
        self._ids.append(int(token))
        text = self._decode(self._ids)
        return "" if text.endswith("\N{REPLACEMENT CHARACTER}") else self._add(text)

    def flush(self) -> str:
        """What is left at the end, incomplete characters as the replacement character."""
        return self._add(self._decode(self._ids))

    def _add(self, text: str) -> str:
        new, self._given = text[len(self._given) :], text
        return new
