"""Captioning: metrics of generated captions, and baselines that do not use the image."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data.sources.subset import Subset
from mmjax.data.transforms.captions import captions_of
from mmjax.evals.evaluator import Evaluator, Results, left_out
from mmjax.evals.metrics.caption_metrics import caption_metrics
from mmjax.evals.metrics.spice import spice, spice_folder
from mmjax.evals.neighbors import nearest, thumbnails
from mmjax.evals.outputs import generate_texts, in_order, select
from mmjax.system import Variables


def derangement(count: int, seed: int = 0) -> np.ndarray:
    """`[count]`: a random permutation without fixed points (for a count of two or more)."""
    order = np.random.default_rng(seed).permutation(count)
    result = np.empty(count, np.int64)
    result[order] = np.roll(order, 1)
    return result


@dataclasses.dataclass(frozen=True)
class Captions:
    """Generated texts and references of the examples that have an image."""

    places: np.ndarray  # [N], indices in the source
    texts: list[str]
    references: list[list[str]]
    # First caption of the nearest training image; empty without a train_source.
    nearest: list[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Captioning(Evaluator):
    """Text metrics of the captions that the model generates.

    - `shuffled/...`: the same texts against the references of other images (drawn by a fixed seed).
      A model that ignores the image scores as well there.
    - `nearest/...`: the first caption of the nearest image of `train_source`.
    - SPICE, if enabled, of the model's texts only.

    Settings:
      decode: settings of decoding.
      prompt: give the transform's text to the model as a prompt; otherwise it gets no text.
      train_source: for the nearest neighbor; None: no such baseline.
      neighbour: 'pixels' (images at 16 x 16), or an output of the model such as
        'image_features'.
    """

    kind = "captioning"
    decode: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    prompt: bool = False
    train_source: Mapping[str, Any] | None = None
    neighbour: str = "pixels"
    spice: bool = False

    def __post_init__(self):
        # Wrong settings and missing programs are reported before training, not after.
        self.runner.generate(self.decode)
        if self.spice:
            spice_folder()

    def needs(self) -> Mapping[str, Sequence[str]]:
        return {} if self.neighbour == "pixels" else {self.neighbour: ("image",)}

    def captions(self, variables: Variables, places: np.ndarray | None = None) -> Captions:
        """The generated text of each image, and what it is compared with.

        Args:
          places: indices of examples of the source; None: all.
        """
        source = self._open(self.source)
        if places is not None:
            source = Subset(source, places)
        texts, present = self._generate(variables, source)
        own = np.flatnonzero(present)
        names = getattr(source, "class_names", None)
        return Captions(
            places=own if places is None else places[own],
            texts=[texts[i] for i in own],
            references=[captions_of(source.meta(int(i)), names) for i in own],
            nearest=self._nearest(variables, source, own) if self.train_source else [],
        )

    def _generate(self, variables: Variables, source: Any) -> tuple[list[str], np.ndarray]:
        """A text for each example of the source, and whether it has the required modalities."""
        modalities = ("image", "text") if self.prompt else ("image",)
        batches = self._batches(source)
        return generate_texts(self.runner, variables, source, batches, self.decode, modalities)

    def run(self, variables: Variables) -> Results:
        found = self.captions(variables)
        yield from caption_metrics(found.texts, found.references).items()
        if self.spice:
            # SPICE is NaN where neither text nor references have an object.
            yield "spice", float(np.nanmean(spice(found.texts, found.references)))
        other = derangement(len(found.texts))
        shuffled = caption_metrics([found.texts[i] for i in other], found.references)
        yield from ((f"shuffled/{name}", value) for name, value in shuffled.items())
        if found.nearest:
            metrics = caption_metrics(found.nearest, found.references)
            yield from ((f"nearest/{name}", value) for name, value in metrics.items())
        yield from left_out(len(self._open(self.source)) - len(found.places))

    def _nearest(self, variables: Variables, source: Any, places: Sequence[int]) -> list[str]:
        train = self._open(self.train_source)
        (rows, train_places), (mine, own_places) = (
            self._features(variables, where) for where in (train, source)
        )
        found = nearest(rows, mine[np.isin(own_places, places)])
        names = getattr(train, "class_names", None)
        return [captions_of(train.meta(int(train_places[i])), names)[0] for i in found]

    def _features(self, variables: Variables, source: Any) -> tuple[np.ndarray, np.ndarray]:
        """Features `[N, ...]` of the images that are present, and their indices in the source."""
        if self.neighbour != "pixels":
            outputs = self._embed(variables, source, [self.neighbour])
            return outputs[self.neighbour], outputs["example_id"]
        rows = in_order(self.runner, source, self._pixels(source), "images compared")
        return rows["pixels"][rows["present"]], rows["example_id"][rows["present"]]

    def _pixels(self, source: Any) -> Iterator[tuple[Mapping[str, np.ndarray], dict]]:
        # Not `_batches`, to which a subclass adds few-shot examples.
        for batch in self.runner.batches(source, self.transform, self.runner.batch_size):
            given, present = select(batch, ("image",))
            mine = {"pixels": thumbnails(given["image"]), "present": present}
            yield batch, dict(self.runner.gather(mine))
