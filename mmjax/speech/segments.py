"""Segments of a transcript, and how a window's tokens are divided into them."""

import dataclasses
from collections.abc import Sequence

from mmjax.data.text.special_tokens import TIME_STEP


@dataclasses.dataclass(frozen=True)
class Word:
    """A word with its punctuation; start and end in seconds, and its mean probability."""

    word: str
    start: float
    end: float
    probability: float


@dataclasses.dataclass(frozen=True)
class Segment:
    """A piece of a transcript.

    Attributes:
      start, end: in seconds from the beginning of the recording.
      tokens: ids with timestamps.
      temperature, avg_logprob, compression_ratio, no_speech_prob: of the window it is from.
    """

    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: tuple[Word, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Part:
    """Tokens of one segment, start and end in seconds from the beginning of the window."""

    tokens: tuple[int, ...]
    start: float
    end: float


def split(
    tokens: Sequence[int], first_time: int, seconds: float, rest: bool
) -> tuple[list[Part], float]:
    """The parts of a window's tokens, and how many seconds of the window they cover.

    A segment ends where two timestamps follow each other. The text after the last such place is
    not finished: it is left out, and the next window begins there; but where the tokens end with a
    single timestamp, all of the window is covered.

    Args:
      first_time: the id of `<|0.00|>`; seconds: length of the window; rest: keep unfinished text.

    Source: Radford et al. 2022 (arXiv 2212.04356), section 3.8; openai/whisper, transcribe.py.
    """
    times = [token >= first_time for token in tokens]
    ends = [i for i in range(1, len(tokens)) if times[i - 1] and times[i]]
    if not ends:
        last = next((t for t in reversed(tokens) if t >= first_time), first_time)
        end = seconds if last == first_time else (last - first_time) * TIME_STEP
        return [Part(tuple(tokens), 0.0, end)], seconds
    single = len(tokens) > 1 and times[-1] and not times[-2]
    parts, begin = [], 0
    for end in [*ends, len(tokens)] if single else ends:
        bounds = ((tokens[i] - first_time) * TIME_STEP for i in (begin, end - 1))
        parts.append(Part(tuple(tokens[begin:end]), *bounds))
        begin = end
    if single:
        return parts, seconds
    covered = (tokens[begin - 1] - first_time) * TIME_STEP
    if rest:
        start = (tokens[begin] - first_time) * TIME_STEP
        parts.append(Part(tuple(tokens[begin:]), start, max(start, seconds)))
        covered = seconds
    return parts, covered
