"""Error rates of the texts that a stand-in for a model hears."""

import numpy as np
import pytest
from fake_runner import FakeRunner

from mmjax.evals.evaluators import make_evaluators

SAID = ["Seven, eight!", "one", "two three", "four"]
HEARD = ["seven ate", "one", "two  Three.", "forty"]


class Recordings:
    """Recordings whose audio is their number; the last one is missing."""

    name, class_names = "speech", None

    def __len__(self):
        return len(SAID)

    def meta(self, i):
        return {"captions": [SAID[i]]}


def batches(source, spec, size):
    ids = np.arange(len(source))
    audio = ids.astype(np.float32)[:, None, None]
    yield {"audio": audio, "audio_present": ids < 3, "text": ids[:, None], "example_id": ids}


def write(settings):
    assert settings == {"language": "en", "max_new_tokens": 3}

    def texts(variables, batch):
        assert "text" not in batch  # which has the answers
        return [HEARD[int(i)] for i in batch["audio"][:, 0, 0]]

    return texts


def run(**settings):
    decode = {"language": "en", "max_new_tokens": 3}
    runner = FakeRunner(lambda config: Recordings(), batches, write=write)
    preset = {"kind": "transcription", "source": {}, "transform": "", "decode": decode}
    return dict(make_evaluators({"x": preset | settings}, runner)["x"].run(None))


def test_error_rates():
    """Of 5 words "eight" alone is wrong, which takes 5 edits of 23 characters with spaces; a
    recording that is missing does not count."""
    found = run()
    assert found["absent"] == 1
    assert found["wer"] == pytest.approx(1 / 5)
    assert found["cer"] == pytest.approx(5 / 23)
    # "78" heard as "7 ate", "1" and "23"
    assert run(normalizer="english")["wer"] == pytest.approx(2 / 3)
    assert run(normalizer="none")["wer"] == pytest.approx(3 / 5)
    with pytest.raises(ValueError, match="normalizer of a transcription is 'french'"):
        run(normalizer="french")
