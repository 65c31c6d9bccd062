"""Transcription: word and character error rates of generated transcripts."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.data.transforms.captions import captions_of
from mmjax.evals.evaluator import Evaluator, Results, left_out
from mmjax.evals.metrics import transcripts
from mmjax.evals.metrics.word_errors import character_errors, word_errors
from mmjax.evals.outputs import generate_texts
from mmjax.system import Variables

NORMALIZERS = {"basic": transcripts.basic, "english": transcripts.english, "none": str}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transcription(Evaluator):
    """Word and character error rate (`wer`, `cer`) of the texts that a model hears.

    Settings:
      decode: settings of decoding; of a Whisper also `language` and `task`.
      normalizer: of both texts, "basic", "english" (see `metrics/transcripts.py`) or "none".
    """

    kind = "transcription"
    decode: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    normalizer: str = "basic"

    def __post_init__(self):
        self.runner.generate(self.decode)  # reports wrong settings before training
        if self.normalizer not in NORMALIZERS:
            raise ValueError(
                f"The normalizer of a transcription is '{self.normalizer}'; use one of "
                f"{', '.join(NORMALIZERS)}."
            )

    def run(self, variables: Variables) -> Results:
        source, normal = self._open(self.source), NORMALIZERS[self.normalizer]
        texts, present = generate_texts(
            self.runner, variables, source, self._batches(source), self.decode, ("audio",)
        )
        heard = np.flatnonzero(present)
        names = getattr(source, "class_names", None)
        said = [normal(captions_of(source.meta(int(i)), names)[0]) for i in heard]
        texts = [normal(texts[i]) for i in heard]
        yield "wer", word_errors(said, texts).rate
        yield "cer", character_errors(said, texts).rate
        yield from left_out(len(source) - len(heard))
