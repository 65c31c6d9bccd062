"""Decoding of windows, again at higher temperatures where the paper's thresholds say so."""

import dataclasses
import zlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from mmjax.data.text.special_tokens import SpecialTokens
from mmjax.decode.generate import Generated
from mmjax.number import check_finite
from mmjax.speech.programs import Heard, Programs


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """When a transcript is rejected.

    Attributes:
      temperatures: of the attempts, in order; the last one is accepted.
      compression_ratio: of the text by zlib; above it, the text repeats itself.
      logprob: mean log-probability of a token; below it, the model is unsure.
      no_speech: probability of the token for no speech; above it and below `logprob`, the window is
        silent.

    Raises:
      ValueError: no temperatures, a negative one, or a number that is not finite.

    Source: Radford et al. 2022 (arXiv 2212.04356), section 4.5.
    """

    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    compression_ratio: float = 2.4
    logprob: float = -1.0
    no_speech: float = 0.6

    def __post_init__(self):
        check_finite(vars(self), "thresholds")
        if not self.temperatures or min(self.temperatures) < 0:
            raise ValueError(
                f"The temperatures are {self.temperatures}: give at least one, of 0 or above."
            )

    def rejects(self, found: "Decoded") -> bool:
        """Whether to decode the window again."""
        if self.is_silent(found):
            return False
        return found.compression_ratio > self.compression_ratio or found.avg_logprob < self.logprob

    def is_silent(self, found: "Decoded") -> bool:
        """Whether the window has no speech."""
        return found.no_speech_prob > self.no_speech and found.avg_logprob < self.logprob


@dataclasses.dataclass(frozen=True)
class Decoded:
    """The transcript of a window: token ids without the end token, and what they are judged by."""

    tokens: tuple[int, ...]
    text: str
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


def compression_ratio(text: str) -> float:
    """Bytes of a text (UTF-8) over those of it compressed by zlib: high for repetitions."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


class Decoder:
    """Transcribes windows of recordings, a batch of fixed size at a time.

    Attributes:
      decode: ids of text tokens -> str.
      batch_size: windows that are decoded together; fewer are padded.
      task: "transcribe" or "translate"; timestamps: whether the transcripts have them.
    """

    def __init__(
        self,
        programs: Programs,
        special: SpecialTokens,
        decode: Callable[[Sequence[int]], str],
        thresholds: Thresholds,
        *,
        batch_size: int,
        task: str,
        timestamps: bool,
        seed: int = 0,
    ):
        self.programs, self.special, self.thresholds = programs, special, thresholds
        self.batch_size, self.task, self.timestamps = batch_size, task, timestamps
        self._decode, self._seed = decode, seed

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens, without timestamps."""
        return self._decode([token for token in tokens if token < self.special.end])

    def listen(self, features: Sequence[np.ndarray], prompts: Sequence[Sequence[int]]) -> Heard:
        """Read windows' features [F, M], at most `batch_size`, with the text before each.

        Args:
          prompts: tokens, of which the newest that fit are used.
        """
        missing = self.batch_size - len(features)
        audio = np.stack([*features, *[np.zeros_like(features[0])] * missing])
        return self.programs.listen(
            audio, [*map(self.prompt, prompts), *[self.prompt(())] * missing]
        )

    def prompt(self, text: Sequence[int]) -> tuple[int, ...]:
        """The tokens before a transcript: the text before it, and the begin token."""
        room = self.programs.prompt_room - 1
        before = (self.special.previous, *text[-room:]) if text and room > 0 else ()
        return (*before, self.special.start)

    def languages(self, heard: Heard) -> list[dict[str, float]]:
        """For each window the probabilities of the languages, the most probable first."""
        codes = list(self.special.languages)
        if not codes:
            return [{"en": 1.0}] * self.batch_size
        logits = np.asarray(heard.logits, np.float64)[:, list(self.special.languages.values())]
        weights = np.exp(logits - logits.max(1, keepdims=True))
        rows = weights / weights.sum(1, keepdims=True)
        return [{codes[i]: float(row[i]) for i in np.argsort(-row, kind="stable")} for row in rows]

    def transcribe(
        self, heard: Heard, prompts: Sequence[Sequence[int]], languages: Sequence[str]
    ) -> list[Decoded]:
        """The transcripts of windows that `listen` has read; with the same prompts."""
        logits = jax.nn.log_softmax(heard.logits, axis=-1)
        silence = np.exp(np.asarray(logits[:, self.special.no_speech]))
        forced = [self.special.forced(code, self.task, self.timestamps) for code in languages]
        padded = [*forced, *forced[:1] * (self.batch_size - len(forced))]
        first, *others = self.thresholds.temperatures
        attempts = jax.device_get(self.programs.continue_(heard, padded, first, self._seed))
        found = []
        for row, prompt in enumerate(prompts):
            result = self._best(attempts, row, first, float(silence[row]))
            again = heard if self.batch_size == 1 else None
            for attempt, temperature in enumerate(others, start=1):
                if not self.thresholds.rejects(result):
                    break
                if again is None:
                    again = self.programs.listen_again(heard, row, self.prompt(prompt))
                seed = self._seed + attempt  # other samples than at the last temperature
                more = self.programs.continue_(again, forced[row : row + 1], temperature, seed)
                result = self._best(jax.device_get(more), 0, temperature, result.no_speech_prob)
            found.append(result)
        return found

    def _best(self, found: Generated, row: int, temperature: float, no_speech: float) -> Decoded:
        """The candidate of a row with the highest log-probability per token."""
        candidates = []
        for ids, length, score in zip(found.tokens[row], found.lengths[row], found.scores[row]):
            ids = [token for token in ids[:length].tolist() if token != self.special.end]
            candidates.append((float(score) / max(1, len(ids)), float(score), ids))
        _, score, ids = max(candidates)
        text = self.text(ids).strip()
        ratio = compression_ratio(text)
        mean = score / (len(ids) + 1)  # the end token counts
        return Decoded(tuple(ids), text, temperature, mean, ratio, no_speech)
