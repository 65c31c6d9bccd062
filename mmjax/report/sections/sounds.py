"""Sounds of a classification in the report: a spectrogram, a player, and what was predicted."""

import base64
import dataclasses
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from mmjax.data.transforms.audio_ops import decode_at
from mmjax.data.transforms.spectrogram import Frames, decibels, mel_filters, mel_power
from mmjax.evals.zero_shot import Predictions
from mmjax.report.evaluated import Evaluated
from mmjax.report.markup import image_tag
from mmjax.report.sections.section import Section

RATE, SECONDS, COUNT = 16000, 5, 6
TOP_DB = 70.0


@dataclasses.dataclass(frozen=True)
class Sound:
    """The beginning of an example's audio at `RATE` Hz [T], its class, and the predicted one."""

    waveform: np.ndarray
    name: str
    predicted: str


def _collect(evaluated: Evaluated) -> list[Sound] | None:
    if evaluated.predictions is None:
        return None
    return sounds_of(evaluated.source, evaluated.predictions, evaluated.seed) or None


def sounds_of(source: Any, found: Predictions, seed: int) -> list[Sound]:
    """A few randomly drawn examples, of those that have encoded audio."""
    if len(found.labels) != len(source):
        return []
    names = found.class_names
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.choice(len(source), min(COUNT, len(source)), replace=False))
    encoded = {i: source[int(i)].get("audio") for i in drawn}
    return [
        Sound(decode_at(data, RATE, SECONDS), names[found.labels[i]], names[found.best[i]])
        for i, data in encoded.items()
        if isinstance(data, bytes)
    ]


def spectrogram_image(waveform: np.ndarray) -> np.ndarray:
    """Mel decibels as an image, high frequencies at the top: uint8 `[96, 192, 3]`."""
    import matplotlib
    from PIL import Image

    frames = Frames(512, 160, edges="constant")
    log = decibels(mel_power(waveform, frames, mel_filters(RATE, 512, 64)), TOP_DB, relative=True)
    scaled = Image.fromarray((1 + log / TOP_DB).T[::-1].astype(np.float32))
    bright = np.asarray(scaled.resize((192, 96), Image.Resampling.BILINEAR)).clip(0, 1)
    return np.round(255 * matplotlib.colormaps["inferno"](bright)[..., :3]).astype(np.uint8)


def _player(waveform: np.ndarray) -> str:
    """An audio element with the sound as a WAV file of 16 bits."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, waveform.clip(-1, 1), RATE, format="WAV", subtype="PCM_16")
    data = base64.b64encode(file.getvalue()).decode()
    return f'<audio controls preload="none" src="data:audio/wav;base64,{data}"></audio>'


def _described(sound: Sound) -> str:
    """The class and the prediction, as HTML."""
    right = sound.name == sound.predicted
    mark = '<span class="right">✓</span>' if right else f"predicted {html.escape(sound.predicted)}"
    return f"<p><b>{html.escape(sound.name)}</b> {mark}</p>"


def _html(found: Sequence[Sound], seed: int) -> str:
    tiles = "".join(
        f"<article>{image_tag(spectrogram_image(s.waveform), s.name, 'spectrogram')}"
        f"{_described(s)}{_player(s.waveform)}</article>"
        for s in found
    )
    return (
        f'<p class="note">The first {SECONDS} seconds of sounds drawn at random (seed {seed}), '
        f"with their mel spectrograms: {TOP_DB:.0f} decibels, from 0 to {RATE // 2000} kHz.</p>"
        f'<div class="examples wide">{tiles}</div>'
    )


SECTION = Section("Sounds", _collect, _html, once=True)
