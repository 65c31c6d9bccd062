"""Speech recognition: word and character error rates of the texts that a model generates."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.data.transforms.captions import captions_of
from mmjax.evals.evaluator import Evaluator, Results, left_out
from mmjax.evals.metrics.word_errors import character_errors, word_errors
from mmjax.evals.outputs import generate_texts
from mmjax.system import Variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeechRecognition(Evaluator):
    """Error rates of generated transcripts against the first caption of each example.

    `wer` and `cer`, and the parts of the first: substitutions, deletions and insertions per word of
    the references. Texts are compared as they are, in lower case.

    Settings:
      decode: settings of decoding.
      modalities: the model's inputs; an example that lacks one of them is left out.
      absent: those of the modalities that are removed from the input.
    """

    kind = "speech_recognition"
    decode: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    modalities: tuple[str, ...] = ("audio",)
    absent: tuple[str, ...] = ()

    def __post_init__(self):
        unknown = set(self.modalities) - {"audio", "video"}
        if unknown or not set(self.absent) < set(self.modalities):
            raise ValueError(
                f"A speech recognition has the modalities {self.modalities} without {self.absent}: "
                "give it some of audio, video, and leave at least one."
            )
        self.runner.generate(self.decode)  # wrong settings are reported before training

    def transcripts(self, variables: Variables) -> tuple[list[str], list[str], int]:
        """References, generated texts, and the number of examples without a modality."""
        source = self._open(self.source)
        given = (self.decode, self.modalities, self.absent)
        texts, present = generate_texts(
            self.runner, variables, source, self._batches(source), *given
        )
        names = getattr(source, "class_names", None)
        kept: Sequence[int] = present.nonzero()[0].tolist()
        references = [captions_of(source.meta(i), names)[0].lower() for i in kept]
        return references, [texts[i].lower() for i in kept], len(present) - len(kept)

    def run(self, variables: Variables) -> Results:
        references, texts, absent = self.transcripts(variables)
        words = word_errors(references, texts)
        yield "wer", words.rate
        yield "cer", character_errors(references, texts).rate
        for name in ("substitutions", "deletions", "insertions"):
            yield name, getattr(words, name) / max(1, words.reference)
        yield from left_out(absent)
