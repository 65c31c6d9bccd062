"""Image and text embeddings from a dual encoder, in a few fixed batch sizes."""

import functools
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from mmjax import pretrained
from mmjax.data.prepared_image import prepared
from mmjax.data.transforms.patch_steps import budget_of, row_of
from mmjax.layers.sown import sown_weights
from mmjax.system import statistics_of
from mmjax.workdir.checksum import checksums


class Embedder:
    """A loaded model with both towers.

    Args:
      loaded: from `mmjax.load`.
      sizes: batch sizes, ascending; every call is padded to one of them, to limit the number of
        compilations.

    Attributes:
      image_shape: (height, width) of the model's input images; of a NaFlex model, whose images
        differ in size, those of a square one.
      logit_scale, logit_bias: map cosines to logits; the bias is None for a softmax loss.

    Raises:
      ValueError: the model does not have both towers, or no tokenizer.
    """

    def __init__(self, loaded: pretrained.Pretrained, sizes: Sequence[int] = (64,)):
        if not loaded.transform or not {"embed_dim", "text"} <= loaded.config.keys():
            raise ValueError(
                f"A '{loaded.config.get('name')}' does not embed both images and texts: give a "
                "model such as CLIP or SigLIP."
            )
        loaded.need_tokenizer()
        self.loaded, self.sizes = loaded, tuple(sizes)
        model = loaded.model
        self._patches = budget_of(loaded.transform)
        self._apply = jax.jit(model.apply)
        self._sow = jax.jit(lambda v, batch: model.apply(v, batch, mutable=["intermediates"])[1])
        self.image_shape = loaded.image(np.zeros((64, 64, 3), np.uint8)).shape[:2]
        outputs = self._run(self._tokens(["a"] * self.sizes[0]))
        self.logit_scale = float(outputs["logit_scale"])
        self.logit_bias = float(outputs["logit_bias"]) if "logit_bias" in outputs else None

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with parameters, config, tokenizer or image transform."""
        loaded = self.loaded
        whole_tree = {**loaded.params, **statistics_of(loaded.memory)}
        sums = {path: int(x) for path, x in checksums(whole_tree).items()}
        words = [loaded.tokenizer.fingerprint, loaded.text_length, loaded.transform]
        whole = json.dumps([loaded.config, sums, words], sort_keys=True, default=list)
        return hashlib.sha256(whole.encode()).hexdigest()[:16]

    def prepare(self, data: bytes) -> np.ndarray:
        """The model's input from an encoded image: uint8 `[H, W, 3]`.

        Raises:
          ValueError: see `check_image`; or the image is damaged.
        """
        return self.checked(prepared(data, self.loaded.transform))

    def checked(self, image: np.ndarray) -> np.ndarray:
        """A prepared image; raises ValueError for one of another size than the first."""
        if image.shape[:2] != self.image_shape and self._patches is None:
            raise ValueError(
                f"The model's image transform '{self.loaded.transform}' gives images of different "
                "sizes: it must give one size."
            )
        return image

    def images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Unit vectors `[N, D]` of prepared images."""
        return self._embed(self._rows, images, "image_embed")

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors `[N, D]` of texts; long texts are truncated."""
        return self._embed(self._tokens, texts, "text_embed")

    def probabilities(self, cosines: np.ndarray) -> np.ndarray:
        """Label probabilities from cosines `[..., C]`: softmax, or sigmoid for a sigmoid loss."""
        logits = self.logit_scale * np.asarray(cosines, np.float64)
        if self.logit_bias is not None:
            return 1 / (1 + np.exp(-logits - self.logit_bias))
        exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return exponentials / exponentials.sum(axis=-1, keepdims=True)

    def attention(self, image: np.ndarray) -> np.ndarray | None:
        """Attention weights `[layers, 1, heads, L, L]` of the image tower; None if it has none."""
        sown = self._sow(self.loaded.variables, {"image": image[None]})
        return sown_weights(sown.get("intermediates", {}))  # without any: convolutions alone

    def _rows(self, images: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """A batch of prepared images."""
        if self._patches is None:
            return {"image": np.stack(images)}
        budget, patch = self._patches
        rows = [row_of(image, patch, budget) for image in images]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    def _tokens(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        text, mask = self.loaded.tokenizer.encode(list(texts), self.loaded.text_length)
        return {"text": text, "text_mask": mask}

    def _embed(self, batch_of, items: Sequence, output: str) -> np.ndarray:
        parts = []
        largest = self.sizes[-1]
        for start in range(0, len(items), largest):
            part = list(items[start : start + largest])
            size = next(s for s in self.sizes if s >= len(part))
            outputs = self._run(batch_of(part + [part[-1]] * (size - len(part))))
            parts.append(np.asarray(outputs[output], np.float32)[: len(part)])
        return np.concatenate(parts)

    def _run(self, batch):
        return self._apply(self.loaded.variables, batch)


def open_embedder(path: str | Path, sizes: Sequence[int] = (64,)) -> Embedder:
    """The embedder of the model at `path`; see `pretrained.load`."""
    return Embedder(pretrained.load(path), sizes)
