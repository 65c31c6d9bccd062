"""Timestamps of words: the cross-attention of chosen heads, aligned by dynamic time warping."""

import dataclasses
import string
from collections.abc import Callable, Sequence

import jax
import numpy as np
from scipy.ndimage import median_filter

from mmjax.speech.fallback import Decoder
from mmjax.speech.segments import Part, Word

FRAME = 0.02  # seconds of an audio token
WIDTH = 7  # frames of the median filter
TINY = 1e-30  # in place of zero in a division
BEFORE, AFTER = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"  # punctuation joined to the next, last word
ENDINGS = ".。!！?？"
NO_SPACES = ("zh", "ja", "th", "lo", "my", "yue")  # languages written without spaces


def warp(cost: np.ndarray) -> np.ndarray:
    """[N]: the first column of each row on a cheapest monotonic path through `cost` [N, M].

    The path goes from the first corner to the last by one row, one column, or both.

    Source: openai/whisper, timing.py, dtw; which takes a dearer path where two costs are equal.
    """
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0
    # Cells of one anti-diagonal depend on the two before it only.
    for d in range(2, rows + columns + 1):
        i = np.arange(max(1, d - columns), min(rows, d - 1) + 1)
        j = d - i
        before = np.minimum(np.minimum(total[i - 1, j - 1], total[i - 1, j]), total[i, j - 1])
        total[i, j] = cost[i - 1, j - 1] + before
    first = np.zeros(rows, int)
    i, j = rows, columns
    while i > 0 and j > 0:
        first[i - 1] = j - 1
        both, up, left = total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]
        if both <= min(up, left):
            i, j = i - 1, j - 1
        elif up <= left:
            i -= 1
        else:
            j -= 1
    return first


def evidence(attention: np.ndarray, heads: Sequence[Sequence[int]], frames: int) -> np.ndarray:
    """[L, frames]: how much each token's attention is on each audio token, beside other tokens'.

    Args:
      attention: [layers, heads, L, S]; heads: (layer, head) of those that follow the audio.
      frames: the audio tokens with sound.

    Source: openai/whisper, timing.py, find_alignment.
    """
    chosen = np.stack([attention[layer, head] for layer, head in heads])[:, :, :frames]
    chosen = chosen / np.maximum(chosen.sum(-1, keepdims=True), TINY)
    deviation = chosen.std(axis=1, keepdims=True)
    chosen = (chosen - chosen.mean(axis=1, keepdims=True)) / np.maximum(deviation, TINY)
    if frames > WIDTH // 2:
        chosen = median_filter(chosen, (1, 1, WIDTH), mode="mirror")
    return chosen.mean(0)


def split_words(
    tokens: Sequence[int], decode: Callable[[Sequence[int]], str], language: str
) -> list[tuple[str, list[int]]]:
    """Words with their tokens: a word begins at a space, or anew at punctuation.

    In languages without spaces every character is one. Tokens that end inside a character are
    joined with those that complete it.
    """
    pieces, open_ = [], []
    for token in tokens:
        open_.append(token)
        text = decode(open_)
        if "\N{REPLACEMENT CHARACTER}" not in text:
            pieces.append((text, open_))
            open_ = []
    if open_:
        pieces.append((decode(open_), open_))
    if language in NO_SPACES:
        return pieces
    words: list[tuple[str, list[int]]] = []
    for text, ids in pieces:
        if not words or text.startswith(" ") or text.strip() in string.punctuation:
            words.append((text, ids))
        else:
            words[-1] = (words[-1][0] + text, words[-1][1] + ids)
    return words


def time_words(
    words: Sequence[tuple[str, list[int]]], probabilities: Sequence[float], begins: np.ndarray
) -> list[Word]:
    """Words from when their tokens begin, in seconds [L + 1], with punctuation joined to them.

    A word next to the end of a sentence is at most twice as long as the median word: its attention
    often reaches into the pause.
    """
    ends = np.cumsum([len(ids) for _, ids in words])
    places = list(zip([0, *ends[:-1]], ends))
    timed = [
        Word(text, float(begins[i]), float(begins[j]), float(np.mean(probabilities[i:j])))
        for (text, _), (i, j) in zip(words, places)
    ]
    lengths = [word.end - word.start for word in timed if word.end > word.start]
    longest = 2 * min(0.7, float(np.median(lengths))) if lengths else 0.0
    for n in range(1, len(timed)):
        word = timed[n]
        if lengths and word.end - word.start > longest:
            if word.word.strip() in ENDINGS:
                timed[n] = dataclasses.replace(word, end=word.start + longest)
            elif timed[n - 1].word.strip() in ENDINGS:
                timed[n] = dataclasses.replace(word, start=word.end - longest)
    return _join_punctuation(timed)


def _join_punctuation(words: Sequence[Word]) -> list[Word]:
    """Opening punctuation joined to the next word, and other punctuation to the one before."""
    joined: list[Word] = []
    opening = ""
    for word in words:
        mark = word.word.strip()
        if mark and mark in BEFORE and word.word.startswith(" "):
            opening += word.word
        elif mark and mark in AFTER and joined and not opening:
            joined[-1] = dataclasses.replace(joined[-1], word=joined[-1].word + word.word)
        else:
            joined.append(dataclasses.replace(word, word=opening + word.word))
            opening = ""
    return joined


class Aligner:
    """Finds the words of windows.

    Args:
      heads: (layer, head) of those that follow the audio, of generation_config.json; None: all of
        the second half of the layers, as in the original.
    """

    def __init__(self, decoder: Decoder, heads: Sequence[Sequence[int]] | None):
        self._decoder, self._heads = decoder, heads

    def __call__(
        self, audio_tokens: jax.Array, parts: Sequence[Part], language: str, seconds: float
    ) -> list[tuple[Word, ...]]:
        """For each part of a window its words, in seconds from the beginning of the window.

        Args:
          audio_tokens: [1, S, width]; seconds: length of the window.
        """
        special, decode = self._decoder.special, self._decoder.text
        texts = [[t for t in part.tokens if t < special.end] for part in parts]
        tokens = [token for text in texts for token in text]
        if not tokens:
            return [() for _ in parts]
        before = (special.start, *special.forced(language, self._decoder.task, timestamps=False))
        attention, logits = self._decoder.programs.attention(
            audio_tokens, [*before, *tokens, special.end]
        )
        layers, heads = attention.shape[:2]
        second_half = [(i, j) for i in range(layers // 2, layers) for j in range(heads)]
        # A row's attention is for the token after it, so begin at the last one before the text.
        rows = slice(len(before) - 1, len(before) + len(tokens))
        frames = max(1, min(attention.shape[-1], round(seconds / FRAME)))
        found = evidence(attention, self._heads or second_half, frames)[rows]
        begins = FRAME * warp(-found.astype(np.float64))
        log_p = logits[rows][:-1, : special.end].astype(np.float64)
        log_p = log_p - np.logaddexp.reduce(log_p, axis=1, keepdims=True)
        probabilities = np.exp(log_p[np.arange(len(tokens)), tokens])
        result, at = [], 0
        for part, text in zip(parts, texts):
            place = slice(at, at + len(text))
            words = split_words(text, decode, language)
            timed = time_words(words, probabilities[place], begins[at : at + len(text) + 1])
            result.append(tuple(_inside(timed, part)))
            at += len(text)
        return result


def _inside(words: list[Word], part: Part) -> list[Word]:
    """Words whose first and last one do not reach far out of their part, by its timestamps."""
    if words and words[0].start < part.start - 0.5 and part.start < words[0].end:
        words[0] = dataclasses.replace(words[0], start=part.start)
    if words and words[-1].end > part.end + 0.5 and part.end > words[-1].start:
        words[-1] = dataclasses.replace(words[-1], end=part.end)
    return words
