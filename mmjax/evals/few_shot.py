"""Few-shot evaluators: captioning and classification with examples in the prompt."""

import collections
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mmjax.data.sources.subset import Subset
from mmjax.data.transforms.captions import captions_of
from mmjax.data.transforms.interleave import join
from mmjax.evals.captioning import Captioning
from mmjax.evals.evaluator import Evaluator, Results, left_out
from mmjax.evals.outputs import generate_texts, score_texts
from mmjax.evals.zero_shot import classification_metrics
from mmjax.system import Variables

_READ = ("image", "text")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _FewShot(Evaluator):
    """Base class: prompts with examples and their texts before each image.

    The examples of each image are drawn by a fixed seed from `support` examples of `train_source`.
    """

    train_source: Mapping[str, Any]
    shots: int
    image_token: int
    length: int
    support: int = 64

    def __post_init__(self):
        if not 0 <= self.shots <= self.support:
            raise ValueError(
                f"{self.kind} has {self.shots} shots of {self.support} examples: use 0 to "
                f"{self.support} shots."
            )

    def check(self) -> dict[str, Any]:
        opened = super().check()
        examples = len(opened["train_source"])
        if self.shots > examples:
            raise ValueError(
                f"{self.kind} has {self.shots} shots and its train_source {examples} examples: use "
                "fewer."
            )
        return opened

    def _text(self, source: Any, i: int) -> str:
        """The target text of an example."""
        raise NotImplementedError

    def _batches(self, source: Any) -> Iterator[Mapping[str, np.ndarray]]:
        """The batches of the source, with a prompt before each image."""
        size = self.runner.batch_size
        tokenizer = self.runner.tokenizer
        images, lines = self._examples(size)
        for batch in super()._batches(source):
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

    def _examples(self, size: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Images [support, H, W, 3] of the support examples, and the tokens of their texts."""
        train = self._open(self.train_source)
        drawn = np.random.default_rng(0).permutation(len(train))[: self.support]
        part = Subset(train, np.sort(drawn))
        batches = [self.runner.gather(b) for b in self.runner.batches(part, self.transform, size)]
        images = np.concatenate([b["image"] for b in batches])[: len(drawn)]
        texts = [self._text(part, i) for i in range(len(part))]
        text, mask = self.runner.tokenizer.encode(texts, self.length)
        return images, [row[valid] for row, valid in zip(text, mask)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FewShot(_FewShot, Captioning):
    """As `Captioning`, with captioned examples in the prompt of an interleaved image-text model.

    Settings:
      shots: number of examples before each image; image_token: id of the model's image token.
      length: tokens of a prompt; if not all examples fit, the first ones are left out.

    Source: Flamingo, Alayrac et al. 2022 (arXiv 2204.14198), section 2.4.
    """

    kind = "few_shot"

    def __post_init__(self):
        _FewShot.__post_init__(self)
        Captioning.__post_init__(self)

    def check(self) -> dict[str, Any]:
        opened = super().check()
        longest = self.length + self.decode["max_new_tokens"]
        if self.runner.window and longest > self.runner.window:
            raise ValueError(
                f"{self.kind} has prompts of {self.length} tokens and "
                f"{self.decode['max_new_tokens']} new ones, and the model's window is "
                f"{self.runner.window}: lower one of the two."
            )
        return opened

    def _text(self, source: Any, i: int) -> str:
        return captions_of(source.meta(int(i)), source.class_names)[0]

    def _generate(self, variables: Variables, source: Any) -> tuple[list[str], np.ndarray]:
        batches = self._batches(source)
        return generate_texts(self.runner, variables, source, batches, self.decode, _READ)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FewShotClassification(_FewShot):
    """Classification of images after examples with their class names.

    A class's score is the log-probability of its name and the end token as the continuation of the
    prompt. `prior/...` are the metrics of ranking the classes by their frequency in the training
    split, the same for every image.

    Settings: as for `FewShot`.

    Source: Flamingo, Alayrac et al. 2022 (arXiv 2204.14198), section 2.4: close-ended tasks.
    """

    kind = "few_shot_classification"

    def _text(self, source: Any, i: int) -> str:
        return source.class_names[source.meta(int(i))["label"]]

    def check(self) -> dict[str, Any]:
        opened = super().check()
        for name in ("train_source", "source"):
            source = opened[name]
            if not getattr(source, "class_names", None) or "label" not in source[0]:
                raise ValueError(
                    f"{self.kind} needs labels with class names and its {name} has none: change it."
                )
        self.runner.score(source.class_names)
        return opened

    def scores(self, variables: Variables) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Log-probabilities `[N, C]`, labels `[N]` and the class names."""
        source = self._open(self.source)
        names, batches = list(source.class_names), self._batches(source)
        rows = score_texts(self.runner, variables, source, batches, names, _READ)
        present = rows["present"]
        return rows["scores"][present], rows["label"][present], names

    def run(self, variables: Variables) -> Results:
        scores, labels, names = self.scores(variables)
        yield from classification_metrics(scores, labels).items()
        train = self._open(self.train_source)
        # By name: the classes of the training split may be more, and in another order.
        frequency = collections.Counter(self._text(train, i) for i in range(len(train)))
        count = np.asarray([frequency[name] for name in names])
        # Distinct ranks: of two equally frequent classes the first one ranks higher.
        rank = np.empty(len(names))
        rank[np.lexsort((-np.arange(len(names)), count))] = np.arange(len(names))
        prior = classification_metrics(np.tile(rank, (len(labels), 1)), labels)
        yield from ((f"prior/{name}", value) for name, value in prior.items())
        yield from left_out(len(self._open(self.source)) - len(labels))
