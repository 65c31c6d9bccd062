"""Captions of images that a model generates, beside baselines that see no image."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.data.sources.subset import Subset
from mmjax.data.transforms.captions import captions_of
from mmjax.evals.evaluator import Evaluator, Results, left_out
from mmjax.evals.metrics.caption_metrics import caption_metrics
from mmjax.evals.metrics.spice import spice, spice_folder
from mmjax.evals.neighbours import nearest, thumbnails
from mmjax.evals.outputs import generate_texts, in_order, select
from mmjax.system import Variables


def derangement(count: int, seed: int = 0) -> np.ndarray:
    """`[count]`: a random order that leaves nothing in its place (where there are two or more)."""
    order = np.random.default_rng(seed).permutation(count)
    result = np.empty(count, np.int64)
    result[order] = np.roll(order, 1)
    return result


@dataclasses.dataclass(frozen=True)
class Captions:
    """The examples that have the image: what was written of each, and what people wrote."""

    places: np.ndarray  # [N], in the source
    texts: list[str]
    references: list[list[str]]
    # First caption of the nearest training image; empty without a train_source.
    nearest: list[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Captioning(Evaluator):
    """Text metrics of the captions that the model writes.

    - `shuffled/...`: the same texts, each against the references of another image (drawn by a
      fixed seed). A model that does not look scores as well there.
    - `nearest/...`: the first caption of the nearest image of `train_source`.
    - SPICE if asked for, of the model's texts alone.

    Settings:
      decode: settings of decoding.
      prompt: the text that the transform makes is given to the model; else it sees none of it.
      train_source: of the nearest neighbour; None leaves it out.
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
        # What is missing or wrong is said before the model is trained, not after.
        self.runner.generate(self.decode)
        if self.spice:
            spice_folder()

    def captions(self, variables: Variables, places: np.ndarray | None = None) -> Captions:
        """What the model generates for each image, and what it is compared with.

        Args:
          places: of the examples of the source; None is all.
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
        """A text for each example of the source, and whether it has what is needed."""
        modalities = ("image", "text") if self.prompt else ("image",)
        batches = self._batches(source)
        return generate_texts(self.runner, variables, source, batches, self.decode, modalities)

    def run(self, variables: Variables) -> Results:
        found = self.captions(variables)
        yield from caption_metrics(found.texts, found.references).items()
        if self.spice:
            # Texts without an object, on either side, have no score.
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
        """Features `[N, ...]` of the images that are there, and their places in the source."""
        if self.neighbour != "pixels":
            outputs = self._embed(variables, source, [self.neighbour])
            return outputs[self.neighbour], outputs["example_id"]
        rows = in_order(self.runner, source, self._pixels(source), "images compared")
        return rows["pixels"][rows["present"]], rows["example_id"][rows["present"]]

    def _pixels(self, source: Any) -> Iterator[tuple[Mapping[str, np.ndarray], dict]]:
        # Without the examples that a subclass puts before each image.
        for batch in self.runner.batches(source, self.transform, self.runner.batch_size):
            given, present = select(batch, ("image",))
            mine = {"pixels": thumbnails(given["image"]), "present": present}
            yield batch, dict(self.runner.gather(mine))
