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
    """Error rates of generated transcripts against the first caption of each example.

    `wer` and `cer`, and the parts of the first: substitutions, deletions and insertions per word of
    the references.

    Settings:
      decode: settings of decoding; of a Whisper also `language` and `task`.
      normalizer: of both texts, "basic", "english" (see `metrics/transcripts.py`) or "none".
      modalities: the model's inputs; an example that lacks one of them is left out.
      absent: those of the modalities that are removed from the input.
    """

    kind = "transcription"
    decode: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    normalizer: str = "basic"
    modalities: tuple[str, ...] = ("audio",)
    absent: tuple[str, ...] = ()

    def __post_init__(self):
        unknown = set(self.modalities) - {"audio", "video"}
        if unknown or not set(self.absent) < set(self.modalities):
            raise ValueError(
                f"A transcription has the modalities {self.modalities} without {self.absent}: "
                "give it some of audio, video, and leave at least one."
            )
        self.runner.generate(self.decode)  # reports wrong settings before training
        if self.normalizer not in NORMALIZERS:
            raise ValueError(
                f"The normalizer of a transcription is '{self.normalizer}'; use one of "
                f"{', '.join(NORMALIZERS)}."
            )

    def transcripts(self, variables: Variables) -> tuple[list[str], list[str], int]:
        """References, generated texts, and the number of examples without a modality."""
        source, normal = self._open(self.source), NORMALIZERS[self.normalizer]
        given = (self.decode, self.modalities, self.absent)
        texts, present = generate_texts(
            self.runner, variables, source, self._batches(source), *given
        )
        heard: list[int] = np.flatnonzero(present).tolist()
        names = getattr(source, "class_names", None)
        references = [normal(captions_of(source.meta(i), names)[0]) for i in heard]
        return references, [normal(texts[i]) for i in heard], len(source) - len(heard)

    def run(self, variables: Variables) -> Results:
        references, texts, absent = self.transcripts(variables)
        words = word_errors(references, texts)
        yield "wer", words.rate
        yield "cer", character_errors(references, texts).rate
        for name in ("substitutions", "deletions", "insertions"):
            yield name, getattr(words, name) / max(1, words.reference)
        yield from left_out(absent)
