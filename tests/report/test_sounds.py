"""The report's sounds: spectrograms, players and predictions of a classification."""

import base64
import io
import re

import numpy as np
import soundfile
from digits import wav
from fake_runner import FakeRunner

from mmjax.data.source import Source
from mmjax.evals.evaluators import make_evaluators
from mmjax.evals.zero_shot import Predictions
from mmjax.report.gather import gather_report
from mmjax.report.page import write_report
from mmjax.report.sections import sounds


class Tones(Source):
    """Half a second of a low and a high tone in turn."""

    name, class_names = "tones", ["low <", "high"]

    def __len__(self):
        return 4

    def __getitem__(self, i):
        hz = (500, 3000)[i % 2]
        tone = 9000 * np.sin(2 * np.pi * hz * np.arange(4000) / 8000)
        return {"audio": wav(tone), "label": i % 2}


class Some(Tones):
    """Every other example has no audio."""

    def __getitem__(self, i):
        found = super().__getitem__(i)
        return found if i % 2 else {"label": found["label"]}


def test_examples_without_audio_are_left_out():
    labels = np.arange(4) % 2
    right = Predictions(labels, np.ones(4, int), labels, Tones.class_names, np.arange(4))
    found = sounds.sounds_of(Some(), right, 0)
    assert [s.name for s in found] == ["high", "high"]


def batches(source, spec, size):
    yield {
        "audio": np.zeros((4, 2, 2), np.float32),
        "label": np.arange(4) % 2,
        "example_id": np.arange(4),
    }


def embed(variables, batch):
    """The first three are right."""
    return {"logits": np.float32([[1, 0], [0, 1], [1, 0], [1, 0]])}


def test_sounds_of_a_classification(tmp_path):
    runner = FakeRunner(
        embed=embed, open_source=lambda config: Tones(), batches=batches, batch_size=4
    )
    test = {"kind": "classification", "source": {}, "transform": "", "modalities": ("audio",)}
    data = gather_report(runner, None, make_evaluators({"test": test}, runner))
    found = data.sections["sounds"]["test"]
    assert [s.name for s in found] == ["low <", "high", "low <", "high"]
    assert [s.predicted for s in found] == ["low <", "high", "low <", "low <"]
    path = tmp_path / "report.html"
    write_report(path, tmp_path, title="t", facts={}, results={}, data=data, config={})
    page = path.read_text()
    assert page.count("<b>low &lt;</b> <span") == 2 and "predicted low &lt;" in page
    files = re.findall(r'<audio [^>]*src="data:audio/wav;base64,([^"]+)"', page)
    assert len(files) == 4
    for file, sound in zip(files, found):
        played, rate = soundfile.read(io.BytesIO(base64.b64decode(file)))
        assert rate == 16000 and len(sound.waveform) == 8000
        np.testing.assert_allclose(played, sound.waveform, atol=2**-15)
    low, high = (sounds.spectrogram_image(s.waveform).sum(2) for s in found[:2])
    assert low.shape == (96, 192)
    assert low[:, 96].argmax() > 60 and high[:, 96].argmax() < 40  # high frequencies on top
