"""Recordings of any length by windows of 30 seconds: one after the other, or many in a batch."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np

from mmjax.data.transforms import spectrogram
from mmjax.speech.fallback import Decoded, Decoder
from mmjax.speech.recording import RATE, Recording, is_silent, quiet_cut
from mmjax.speech.segments import Segment, split
from mmjax.speech.words import Aligner
from mmjax.speech.writers import Transcript

CARRIED = 0.5  # highest temperature at which a transcript is the prompt of the next window
SEARCHED = 5  # seconds at the end of a window in which it may be cut
REMAINDER = 0.1  # seconds at the end of a recording that are not worth a window

Opened = tuple[str, Recording]
Result = tuple[str, Transcript | ValueError]


@dataclasses.dataclass
class _Open:
    """A recording whose windows are not all transcribed."""

    name: str
    seconds: float
    language: str | None
    segments: list[Segment]
    waiting: int = 0
    is_read: bool = False
    error: ValueError | None = None

    def result(self) -> Result:
        default = self.language or "en"
        return self.name, self.error or Transcript(default, self.seconds, self.segments)


@dataclasses.dataclass
class _Window:
    """A window of a recording: its waveform, and its first sample there."""

    of: _Open
    waveform: np.ndarray
    start: int

    @property
    def seconds(self) -> float:
        return len(self.waveform) / RATE


class Transcriber:
    """Transcribes recordings.

    Args:
      language: a code; None: detected in the first window of a recording that is not silent.
      carries: the transcript of a window is the prompt of the next, in `one_by_one`.
      aligner: finds words; None: none.
      advance: called with the seconds of a recording that are done.
    """

    def __init__(
        self,
        decoder: Decoder,
        language: str | None,
        *,
        carries: bool = True,
        aligner: Aligner | None = None,
        advance: Callable[[float], None] = lambda seconds: None,
    ):
        self._decoder, self._language, self._carries = decoder, language, carries
        self._aligner, self._advance = aligner, advance
        frames, self._mels = decoder.programs.audio_shape
        self._samples = frames * RATE // 100

    def one_by_one(self, recordings: Iterable[Opened]) -> Iterator[Result]:
        """Each recording with its transcript, or why it cannot be read.

        A window begins where the last finished segment of the one before it ends, and reads the
        text so far as its prompt.

        Source: Radford et al. 2022 (arXiv 2212.04356), sections 3.8 and 4.5.
        """
        for name, recording in recordings:
            state = _Open(name, recording.seconds, self._language, [])
            start, prompt = 0, []
            try:
                while _goes_on(recording, start):
                    window = _Window(state, recording.read(start, self._samples), start)
                    covered, prompt = self._next(window, prompt)
                    start += covered
                    self._advance(min(covered, len(window.waveform)) / RATE)
            except ValueError as error:
                state.error = error
            recording.close()
            yield state.result()

    def in_batches(self, recordings: Iterable[Opened]) -> Iterator[Result]:
        """As `one_by_one`, without prompts: windows of all recordings share batches.

        A window is cut where its last five seconds are quietest, and the next one begins there.
        """
        windows: list[_Window] = []
        opened: list[_Open] = []

        def finished() -> Iterator[Result]:
            for state in [s for s in opened if s.is_read and not s.waiting]:
                opened.remove(state)
                yield state.result()

        for name, recording in recordings:
            state = _Open(name, recording.seconds, self._language, [])
            opened.append(state)
            try:
                for window in self._cut(state, recording):
                    windows.append(window)
                    state.waiting += 1
                    if len(windows) == self._decoder.batch_size:
                        self._batch(windows)
                        windows = []
                        yield from finished()
            except ValueError as error:
                state.error = error
            recording.close()
            state.is_read = True
            yield from finished()
        if windows:
            self._batch(windows)
        yield from finished()

    def _next(self, window: _Window, prompt: list[int]) -> tuple[int, list[int]]:
        """Transcribe a window; returns the samples that are done, and the next prompt."""
        state, full = window.of, len(window.waveform)
        if is_silent(window.waveform):
            return full, prompt
        heard = self._decoder.listen([self._features(window.waveform)], [prompt])
        if state.language is None:
            state.language = next(iter(self._decoder.languages(heard)[0]))
        (found,) = self._decoder.transcribe(heard, [prompt], [state.language])
        if self._decoder.thresholds.is_silent(found):
            return full, prompt
        before = len(state.segments)
        covered = self._add(window, found, heard.audio_tokens[:1], rest=False)
        if not self._carries or found.temperature > CARRIED:
            return covered, []
        new = [token for segment in state.segments[before:] for token in segment.tokens]
        return covered, [*prompt, *new][-self._decoder.programs.prompt_room :]

    def _cut(self, state: _Open, recording: Recording) -> Iterator[_Window]:
        """The windows of a recording that are not silent."""
        start = 0
        while _goes_on(recording, start):
            waveform = recording.read(start, self._samples)
            if start + len(waveform) < recording.size:
                earliest = self._samples - SEARCHED * RATE
                waveform = waveform[: quiet_cut(waveform, max(earliest, self._samples // 2))]
            if is_silent(waveform):
                self._advance(len(waveform) / RATE)
            else:
                yield _Window(state, waveform, start)
            start += len(waveform)

    def _batch(self, windows: Sequence[_Window]) -> None:
        prompts: list[list[int]] = [[] for _ in windows]
        features = [self._features(window.waveform) for window in windows]
        heard = self._decoder.listen(features, prompts)
        for window, probabilities in zip(windows, self._decoder.languages(heard)):
            window.of.language = window.of.language or next(iter(probabilities))
        languages = [window.of.language for window in windows]
        results = self._decoder.transcribe(heard, prompts, languages)
        for row, (window, found) in enumerate(zip(windows, results)):
            if not self._decoder.thresholds.is_silent(found):
                self._add(window, found, heard.audio_tokens[row : row + 1], rest=True)
            window.of.waiting -= 1
            self._advance(window.seconds)

    def _features(self, waveform: np.ndarray) -> np.ndarray:
        """The log-mel spectrogram [F, M] of a waveform with zeros up to the end of a window."""
        waveform = np.pad(waveform, (0, self._samples - len(waveform)))
        return spectrogram.whisper(waveform, self._mels)

    def _add(self, window: _Window, found: Decoded, audio_tokens: jax.Array, rest: bool) -> int:
        """Add the segments of a window to its recording's; returns the samples that are done."""
        first, seconds = self._decoder.special.first_time, window.seconds
        parts, covered = split(found.tokens, first, seconds, rest)
        text = self._decoder.text
        parts = [p for p in parts if p.start < p.end and text(p.tokens).strip()]
        words = [None] * len(parts)
        if self._aligner is not None:
            words = self._aligner(audio_tokens, parts, window.of.language, seconds)
        offset = window.start / RATE
        for part, timed in zip(parts, words):
            start, end = part.start, part.end
            if timed:
                start, end = timed[0].start, timed[-1].end
                timed = tuple(
                    dataclasses.replace(
                        w, start=round(offset + w.start, 3), end=round(offset + w.end, 3)
                    )
                    for w in timed
                )
            facts = (found.temperature, found.avg_logprob, found.compression_ratio)
            segment = Segment(
                round(offset + start, 3),
                round(offset + end, 3),
                text(part.tokens),
                part.tokens,
                *facts,
                found.no_speech_prob,
                timed,
            )
            window.of.segments.append(segment)
        if covered < seconds and words and words[-1]:
            covered = words[-1][-1].end  # more exact than the timestamp
        done = round(covered * RATE)
        return done if 0 < done < len(window.waveform) else len(window.waveform)


def _goes_on(recording: Recording, start: int) -> bool:
    """Whether what is left from `start` on is worth a window; a whole recording always is."""
    return not start or recording.size - start > REMAINDER * RATE
