"""Spoken digits with synthetic lips: sequences of FSDD recordings, and a drawn mouth.

The sound is real speech (FSDD); the video is not: see `lips.py`. What a model of lips achieves here
says nothing about faces. It can show how a model uses a second modality that is informative,
ambiguous and not affected by noise in the first.
"""

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from mmjax.data.builders import lips
from mmjax.data.builders.fsdd import SPEAKERS, read_recordings
from mmjax.data.builders.split_builder import SplitBuilder
from mmjax.data.transforms.audio_ops import decode_audio
from mmjax.process.progress import Progress

RATE = 8000  # Hz, of FSDD
PER_FRAME = RATE // lips.RATE
SEQUENCES = 400  # of each speaker
LONGEST = 48  # frames of video: 1.92 s
MOST_DIGITS = 3
_LONGEST_DIGIT = 0.7  # seconds: the longest recordings, up to 2.3 s, are left out
_TRIM_DB = 30  # a recording begins and ends where it is this far below its maximum
_GAP = (0.04, 0.2)  # seconds, before, between and after digits


class LipDigits(SplitBuilder):
    """One to three spoken digits of one speaker, with a synthetic video of a mouth.

    `audio` is a WAV file at 8 kHz, `video` the PNG files of its frames at 25 Hz, `captions` the
    digits in words, `speaker` a name. A split is a speaker, as of FSDD: join them with `+` and
    leave one out. Speakers differ in the place, size, colors and articulation of their mouth;
    within a clip the head moves and frames are dropped.
    """

    VERSION = tfds.core.Version("1.0.0")
    HOMEPAGE = "https://github.com/Jakobovski/free-spoken-digit-dataset"

    def _features(self) -> dict[str, Any]:
        text = tfds.features.Text()  # also for bytes: TFDS's Audio and Video need TensorFlow
        several = tfds.features.Sequence(text)
        return {"audio": text, "video": several, "captions": several, "speaker": text}

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        recordings = read_recordings(self._root)
        return {speaker: self._examples(speaker, takes) for speaker, takes in recordings.items()}

    def _examples(self, speaker: str, takes: Sequence) -> Iterator[tuple[int, dict]]:
        spoken = _trimmed(takes)
        number = SPEAKERS.index(speaker)
        look = lips.Look.of_speaker(np.random.default_rng([0, number]))
        with Progress(f"Drawing the lips of {speaker}", SEQUENCES) as bar:
            for i in range(SEQUENCES):
                rng = np.random.default_rng([1, number, i])
                sound, words = sequence(spoken, rng)
                mouth = lips.shapes(words, len(sound) // PER_FRAME)
                video = lips.draw(mouth, look.of_clip(rng), rng)
                caption = " ".join(word for word, _, _ in words)
                yield (
                    i,
                    {
                        "audio": _wav(sound),
                        "video": [_png(frame) for frame in video],
                        "captions": [caption],
                        "speaker": speaker,
                    },
                )
                bar.advance()


def _trimmed(takes: Sequence[tuple[int, int, bytes]]) -> dict[int, list[np.ndarray]]:
    """Waveforms by digit, with a maximum of 0.6, without silence at their ends."""
    spoken: dict[int, list[np.ndarray]] = {digit: [] for digit in range(10)}
    for digit, _, data in takes:
        x, _ = decode_audio(data)
        level = np.abs(x)
        (loud,) = np.nonzero(level >= level.max() * 10 ** (-_TRIM_DB / 20))
        x = x[loud[0] : loud[-1] + 1]
        if level.max() > 0 and len(x) <= _LONGEST_DIGIT * RATE:
            spoken[digit].append(x * np.float32(0.6 / level.max()))
    return spoken


def sequence(
    spoken: dict[int, list[np.ndarray]], rng: np.random.Generator
) -> tuple[np.ndarray, list[tuple[str, float, float]]]:
    """A waveform of whole frames, and its digits by name with begin and end in seconds.

    Args:
      spoken: waveforms by digit; a sequence has one to three, as many as fit `LONGEST` frames.
    """
    known = [digit for digit, takes in spoken.items() if takes]
    parts, words, at = [], [], 0
    for digit in rng.choice(known, rng.integers(1, MOST_DIGITS + 1)):
        gap = round(rng.uniform(*_GAP) * RATE)
        x = spoken[digit][rng.integers(len(spoken[digit]))]
        if at + gap + len(x) > LONGEST * PER_FRAME:
            break
        parts += [np.zeros(gap, np.float32), x]
        begin, at = at + gap, at + gap + len(x)
        words.append((lips.DIGITS[digit], begin / RATE, at / RATE))
    end = at + round(rng.uniform(*_GAP) * RATE)
    frames = min(-(-end // PER_FRAME), LONGEST)
    parts.append(np.zeros(frames * PER_FRAME - at, np.float32))
    hiss = rng.standard_normal(frames * PER_FRAME, np.float32) * np.float32(5e-4)  # no exact zeros
    return np.concatenate(parts) + hiss, words


def _wav(sound: np.ndarray) -> bytes:
    import soundfile  # imported late: it loads libsndfile

    file = io.BytesIO()
    soundfile.write(file, sound, RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()
