"""A loaded OWL-ViT or OWLv2 that finds the boxes of texts, or of the object in another image."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from mmjax import pretrained
from mmjax.data.image_files import check_image
from mmjax.data.transforms import chain
from mmjax.detection.boxes import (
    Detections,
    best_queries,
    query_token,
    suppress,
    to_pixels,
)
from mmjax.evals.zero_shot import classifier_weights

# Transforms after which boxes can be placed in the original image.
PLAIN = ("decode", "resize", "resize_smoothed", "pad_square")
BATCH = 8


class Detector:
    """A loaded detector; images are taken in batches of at most `BATCH`.

    Attributes:
      padded: images are padded to a square, else stretched.

    Raises:
      ValueError: a model that is no detector, without a tokenizer, or whose transform crops.
    """

    def __init__(self, loaded: pretrained.Pretrained):
        if loaded.config.get("name") != "owlvit":
            raise ValueError(
                f"A '{loaded.config.get('name')}' finds no boxes: give a run of an 'owlvit', or "
                "published weights of OWL-ViT or OWLv2."
            )
        loaded.need_tokenizer()
        steps = [name for name, *_ in chain.read(loaded.transform)]
        wrong = [name for name in steps if name not in PLAIN]
        if wrong or not {"resize", "resize_smoothed"} & set(steps):
            raise ValueError(
                f"The model's image transform is '{loaded.transform}', from which boxes cannot be "
                f"placed in the original image: it must resize to one size, by {', '.join(PLAIN)}."
            )
        self.loaded, self.padded = loaded, "pad_square" in steps
        self._apply = jax.jit(loaded.model.apply)

    def prepare(self, data: bytes) -> np.ndarray:
        """The model's input from an encoded image: uint8 [H, W, 3].

        Raises:
          ValueError: see `check_image`; or the image is damaged.
        """
        check_image(data)
        return self.loaded.image(data)

    def texts(self, labels: Sequence[str], templates: Sequence[str]) -> np.ndarray:
        """Query embeddings [Q, E] of labels, each the mean over its prompts."""

        def embed(texts):
            text, mask = self.loaded.need_tokenizer().encode(texts, self.loaded.text_length)
            batch = {"text": np.asarray(text)[None], "text_mask": np.asarray(mask)[None]}
            return np.asarray(self._apply(self.loaded.variables, batch)["text_embed"][0])

        return classifier_weights(embed, list(labels), tuple(templates))

    def object_in(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Query embedding [1, E] of the object in a prepared image, and its box [4] there."""
        found = self.outputs([image])
        objectness = found.get("objectness_logits")
        token = query_token(
            found["class_embed"][0],
            found["pred_boxes"][0],
            None if objectness is None else objectness[0],
        )
        return found["class_embed"][0, token][None], found["pred_boxes"][0, token]

    def outputs(
        self, images: Sequence[np.ndarray], queries: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """The model's outputs for up to `BATCH` prepared images, and queries [Q, E] for all."""
        rows = 1 if len(images) == 1 else BATCH
        batch = {"image": np.stack([*images, *[images[-1]] * (rows - len(images))])}
        if queries is not None:
            batch["query_embed"] = np.broadcast_to(queries, (rows, *queries.shape))
        found = self._apply(self.loaded.variables, batch)
        names = ("pred_boxes", "class_embed", "query_logits", "objectness_logits")
        return {k: np.asarray(found[k])[: len(images)] for k in names if k in found}

    def find(
        self,
        images: Sequence[np.ndarray],
        sizes: Sequence[tuple[int, int]],
        queries: np.ndarray,
        threshold: float,
        overlap: float = 1.0,
    ) -> list[Detections]:
        """The detections in each image, the best first, in pixels of the original, clipped to it.

        Args:
          images: prepared, up to `BATCH`; sizes: (height, width) of the originals.
          overlap: boxes that overlap a better one by more are left out; 1: none.
        """
        outputs = self.outputs(images, queries)
        every = []
        for logits, boxes, size in zip(
            outputs["query_logits"], outputs["pred_boxes"], sizes, strict=True
        ):
            found = suppress(best_queries(logits, boxes, threshold), overlap)
            found = found.kept(np.argsort(-found.scores, kind="stable"))
            pixels = to_pixels(found.boxes, size, self.padded)
            every.append(found._replace(boxes=pixels.clip(0, [size[1], size[0]] * 2)))
        return every


def open_detector(path: str | Path) -> Detector:
    """The detector of the model at `path`; see `pretrained.load`."""
    return Detector(pretrained.load(path))
