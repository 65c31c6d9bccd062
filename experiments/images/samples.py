"""Images for texts, by the trained systems of a seed of the study."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmjax import pretrained
from mmjax.embedder import Embedder, open_embedder
from mmjax.models.systems import make_system
from mmjax.pretrained import Pretrained
from mmjax.sample.__main__ import conditions, draw
from mmjax.unclip import Part, check_same_clip

BATCH = 64
DIFFUSION = {"sampler": "dpm_solver", "steps": 15}


class Sampler:
    """The systems whose runs are in a folder; all samples follow from a seed."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.seed = folder, seed

    def __call__(
        self, system: str, settings: Mapping[str, float], texts: Sequence[str]
    ) -> np.ndarray:
        """[N, H, W, 3] uint8, an image for each text."""
        if system == "dalle":
            return self._texts_to_images(self._loaded("dalle"), texts, settings)
        if system == "glide":
            return self._texts_to_images(self._loaded("glide"), texts, {**DIFFUSION, **settings})
        prior, decoder = (
            Part(str(self.folder / stage), kind)
            for stage, kind in (("prior", "diffusion_prior"), ("decoder", "unclip"))
        )
        check_same_clip(decoder, prior)
        embed = self._draw(prior.loaded, prior.texts(texts), DIFFUSION)
        given = {**decoder.texts(texts), "image_embed": embed["image_embed"]}
        return self._draw(decoder.loaded, given, {**DIFFUSION, **settings})["image"]

    def retrieved(self, images: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """For each text the one of these images that the unCLIP's CLIP finds nearest to it."""
        embed = self._clip.images([self._clip.loaded.image(x) for x in images])
        return images[(self._clip.texts(texts) @ embed.T).argmax(axis=1)]

    def random(self, images: np.ndarray, count: int) -> np.ndarray:
        """So many of these images."""
        draws = np.random.default_rng(self.seed)
        return images[draws.choice(len(images), min(count, len(images)), replace=False)]

    def _texts_to_images(
        self, loaded: Pretrained, texts: Sequence[str], settings: Mapping[str, float]
    ) -> np.ndarray:
        return self._draw(loaded, conditions(loaded, (), texts), settings)["image"]

    def _draw(
        self, loaded: Pretrained, given: Mapping[str, np.ndarray], settings: Mapping[str, float]
    ) -> dict[str, np.ndarray]:
        system, count = make_system({"model": loaded.config}), len(given["text"])
        return draw(
            system, loaded, given, count, seed=self.seed, batch_size=BATCH, settings=settings
        )

    def _loaded(self, stage: str) -> Pretrained:
        return pretrained.load(self.folder / stage)

    @functools.cached_property
    def _clip(self) -> Embedder:
        return open_embedder(self.folder / "clip")
