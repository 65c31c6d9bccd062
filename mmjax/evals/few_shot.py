"""Captions and classes of pictures from a few examples in the prompt."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mmjax.data.captions import captions_of
from mmjax.data.interleave import join
from mmjax.data.subset import Subset
from mmjax.evals.captioning import Captioning
from mmjax.evals.embed import generate_texts
from mmjax.evals.evaluator import Results
from mmjax.evals.vqa import most_frequent, normalize_answer


@dataclasses.dataclass(frozen=True, kw_only=True)
class FewShot(Captioning):
    """As `Captioning`, of a model that reads images in text, after some examples with their texts.

    The examples of each picture are drawn from `support` ones of `train_source`, by a fixed seed.
    With `of = "label"` the texts are names of classes: `accuracy` is exact match after VQA's
    normalisation, and `prior/accuracy` that of the training split's most frequent class.

    Settings:
      shots: examples before each picture; image_token: as of the model.
      length: tokens of a prompt; where the examples do not fit, the first ones are left out.

    Source: Flamingo, Alayrac et al. 2022 (arXiv 2204.14198), section 3.4 and appendix A.2.
    """

    kind = "few_shot"
    train_source: Mapping[str, Any]
    shots: int
    image_token: int
    length: int
    support: int = 64
    of: str = "caption"

    def __post_init__(self):
        super().__post_init__()
        if self.of not in ("caption", "label"):
            raise ValueError(f"few_shot is of '{self.of}': use 'caption' or 'label'.")
        if not 0 <= self.shots <= self.support:
            raise ValueError(
                f"few_shot has {self.shots} shots of {self.support} examples: use 0 to all of them."
            )

    def run(self, params: Any) -> Results:
        if self.of == "caption":
            yield from super().run(params)
            return
        source, train = self._open(self.source), self._open(self.train_source)
        texts, present = self._written(params, source)
        right = [self._text(source, i) for i in np.flatnonzero(present)]
        said = [normalize_answer(texts[i]) for i in np.flatnonzero(present)]
        usual = most_frequent([self._text(train, i) for i in range(len(train))])
        yield "accuracy", float(np.mean([a == normalize_answer(b) for a, b in zip(said, right)]))
        yield "prior/accuracy", float(np.mean([usual == b for b in right]))

    def _text(self, source: Any, i: int) -> str:
        """What an example's text should be: its first caption, or its class."""
        if self.of == "caption":
            return captions_of(source[int(i)], source.class_names)[0]
        return source.class_names[source[int(i)]["label"]]

    def _written(self, params: Any, source: Any) -> tuple[list[str], np.ndarray]:
        context = dataclasses.replace(self.context, batches=self._prompted)
        return generate_texts(
            context, params, source, self.transform, self.decode, ("image", "text")
        )

    def _prompted(self, source: Any, spec: str, size: int) -> Iterator[dict[str, np.ndarray]]:
        """Batches whose rows have a prompt before each picture."""
        tokenizer = self.context.tokenizer
        images, lines = self._examples(spec, size)
        for batch in self.context.batches(source, spec, size):
            rows = []
            for image, i in zip(batch["image"], batch["example_id"]):
                rng = np.random.default_rng([0, max(int(i), 0)])
                chosen = rng.choice(len(images), self.shots, replace=False)
                text, mask, _, kept = join(
                    [lines[j] for j in chosen],
                    tokenizer.bos_id,
                    self.length,
                    self.image_token,
                    open_end=True,
                )
                shown = [*images[chosen[self.shots - kept :]], image]
                shown += [np.zeros_like(image)] * (self.shots - kept)
                rows.append((np.stack(shown), np.arange(self.shots + 1) <= kept, text, mask))
            names = ("image", "image_mask", "text", "text_mask")
            yield {**batch, **{n: np.stack(part) for n, part in zip(names, zip(*rows))}}

    def _examples(self, spec: str, size: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Pictures [support, H, W, 3] of training examples, and the tokens of their texts."""
        train = self._open(self.train_source)
        drawn = np.random.default_rng(0).permutation(len(train))[: self.support]
        part = Subset(train, np.sort(drawn))
        batches = [self.context.gather(b) for b in self.context.batches(part, spec, size)]
        images = np.concatenate([b["image"] for b in batches])[: len(drawn)]
        texts = [self._text(part, i) for i in range(len(part))]
        text, mask = self.context.tokenizer.encode(texts, self.length)
        return images, [row[seen] for row, seen in zip(text, mask)]
