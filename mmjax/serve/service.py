"""The service behind the endpoints, without HTTP: an index and its model, for many callers."""

import asyncio
import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

from mmjax.data.transforms.captions import TEMPLATES
from mmjax.embedder import Embedder
from mmjax.evals.attention_rollout import attention_maps, head_maps
from mmjax.evals.occlusion import occlusion_maps
from mmjax.evals.zero_shot import classifier_weights
from mmjax.process.printable import printable
from mmjax.search.index import Hit, Index
from mmjax.search.live import Live
from mmjax.serve.batcher import Batcher
from mmjax.serve.decoders import Lanes
from mmjax.serve.jobs import Jobs

BATCHES = (1, 8, 32)
WAITING = 64  # queue size of each batcher
JOBS = 8  # queue size of requests that are processed one at a time
MAX_HITS = 100
MAX_LABELS = 100
MAX_WORDS = 8
MATCH_CELLS = 5  # along the longer side: with the image itself they fit one batch
MAX_CHARACTERS = 500  # of a text


@dataclasses.dataclass(frozen=True)
class Found:
    """A search result: the image's name for /api/image, its cosine, and its printable paths."""

    image: str
    score: float
    paths: list[str]


@dataclasses.dataclass(frozen=True)
class LabelProbability:
    """A label and its probability."""

    label: str
    share: float


@dataclasses.dataclass(frozen=True)
class WordMap:
    """A text, its cosine with the image, and the decrease of it when each cell is covered."""

    text: str
    score: float
    map: list[list[float]]


@dataclasses.dataclass(frozen=True)
class AttentionMaps:
    """Attention and occlusion maps of an image, each a list of rows.

    The rollout and the map of each layer and head sum to 1; they are empty if the model has no
    attention weights. `cropped`: the model's input is a center crop of the image.
    """

    rollout: list[list[float]]
    heads: list[list[list[list[float]]]]
    words: list[WordMap]
    aspect: float
    cropped: bool


@dataclasses.dataclass(frozen=True)
class MatchMap:
    """A query's cosine with an image, and the decrease of it when each cell is covered, as rows.

    `aspect` and `cropped` as of `AttentionMaps`.
    """

    score: float
    map: list[list[float]]
    aspect: float
    cropped: bool


class Service:
    """Serves many concurrent callers.

    Args:
      index, embedder: the index and the model that made it; the embedder's batch sizes should be
        BATCHES. Updates of the index are picked up; see `Live`.
      decoding: of images.
    """

    def __init__(self, index: Index, embedder: Embedder, decoding: Lanes):
        self.embedder, model = embedder, index.about["model"]
        self._live = Live(index, lambda new: new.check_model(embedder.fingerprint, model))
        self._images = Batcher(embedder.images, BATCHES[-1], WAITING)
        self._texts = Batcher(embedder.texts, BATCHES[-1], WAITING)
        self._searches = Batcher(
            lambda queries: self._live.now().search(np.stack(queries), MAX_HITS),
            BATCHES[-1],
            WAITING,
        )
        self._decoding, self._jobs = decoding, Jobs(JOBS)
        self.thumbnail = functools.lru_cache(1024)(self._thumbnail)
        self._matched = functools.lru_cache(1024)(self._match)

    def warm_up(self) -> None:
        """Compile everything, so that no request waits for it."""
        blank = np.zeros((*self.embedder.image_shape, 3), np.uint8)
        for size in BATCHES:
            images = self.embedder.images([blank] * size)
            self.embedder.texts(["a"] * size)
            self._live.now().search(images, 1)
        self.embedder.attention(blank)

    def about(self) -> dict[str, Any]:
        """Facts for the page."""
        index = self._live.now()
        return {
            "images": index.rows,
            "folder": printable(index.root.name),
            "model": printable(index.about["model"].rstrip("/").rpartition("/")[2]),
            "templates": list(TEMPLATES),
        }

    def sample(self, k: int) -> list[Found]:
        """Some images of the index, to begin with."""
        return _found(self._live.now().sample(k))

    # ---- requests; each raises Busy if the queue is full, ValueError for bad input

    async def search_text(self, text: str, k: int) -> list[Found]:
        """The best images for a text."""
        return await self._search(await self._text(text), k)

    async def search_image(self, data: bytes, k: int) -> list[Found]:
        """The images most similar to an encoded one."""
        image = await self._decode(data)
        return await self._search(await asyncio.wrap_future(self._images.submit(image)), k)

    async def classify(self, data: bytes, labels: str, templates: str) -> list[LabelProbability]:
        """Labels (separated by commas or newlines), most probable first."""
        names = list(dict.fromkeys(x.strip() for x in labels.replace("\n", ",").split(",")))
        names = [_text_of(name) for name in names if name]
        if not 0 < len(names) <= MAX_LABELS:
            raise ValueError(
                f"There are {len(names)} labels: give 1 to {MAX_LABELS}, separated by commas."
            )
        if templates not in TEMPLATES:
            raise ValueError(f"The templates are '{templates}'; use one of {', '.join(TEMPLATES)}.")
        image = await self._decode(data)
        embed = await asyncio.wrap_future(self._images.submit(image))
        weights = await self._jobs.run(classifier_weights, self.embedder.texts, names, templates)
        probabilities = self.embedder.probabilities(weights @ embed)
        order = np.argsort(-probabilities, kind="stable")
        return [LabelProbability(names[i], float(probabilities[i])) for i in order]

    async def attention(self, data: bytes, words: str) -> AttentionMaps:
        """Attention maps, and occlusion maps of the whole text and of each word."""
        image = await self._decode(data)
        parts = [w.strip('.,;:!?"()') for w in words.split()][:MAX_WORDS]
        texts = list(dict.fromkeys(x for x in [words.strip(), *parts] if x))
        vectors = [await self._text(text) for text in texts]
        return await self._jobs.run(self._maps, image, texts, vectors)

    async def match(self, name: str, query: str | bytes) -> MatchMap:
        """Which parts of an image of the index match a text or an encoded image."""
        if isinstance(query, str):
            vector = await self._text(query)
        else:
            vector = await asyncio.wrap_future(self._images.submit(await self._decode(query)))
        return await self._jobs.run(self._matched, name, vector.tobytes())

    def image(self, name: str) -> bytes:
        """The bytes of an image of the index.

        Raises:
          ValueError: no such image, or its file is missing.
        """
        index = self._live.now()
        path, root = index.path_of.get(name), index.root.resolve()
        if path is not None:
            # Links may have changed since the folder was indexed.
            file = (root / path).resolve()
            if file.is_relative_to(root) and file.is_file():
                return file.read_bytes()
        raise ValueError("There is no such image in the index, or its file is missing.")

    # ---- helpers

    def _thumbnail(self, name: str, size: int) -> bytes:
        """The image as WebP, its longer side at most `size` pixels."""
        return self._decoding.small.thumbnail(self.image(name), size)

    async def run_thumbnail(self, name: str, size: int) -> bytes:
        """`thumbnail`, while others are served."""
        return await self._decoding.work(self.thumbnail, name, size)

    async def _decode(self, data: bytes) -> np.ndarray:
        transform = self.embedder.loaded.transform
        return self.embedder.checked(await self._decoding.prepare(data, transform))

    async def _text(self, text: str) -> np.ndarray:
        return await asyncio.wrap_future(self._texts.submit(_text_of(text)))

    async def _search(self, vector: np.ndarray, k: int) -> list[Found]:
        if not 1 <= k <= MAX_HITS:
            raise ValueError(f"k is {k}: ask for 1 to {MAX_HITS} images.")
        hits = await asyncio.wrap_future(self._searches.submit(vector))
        return _found(hits[:k])

    def _match(self, name: str, vector: bytes) -> MatchMap:
        data, transform = self.image(name), self.embedder.loaded.transform
        image = self.embedder.checked(self._decoding.small.prepare(data, transform))
        query = np.frombuffer(vector, np.float32)[None]
        scores, maps = occlusion_maps(self.embedder.images, image, query, MATCH_CELLS)
        return MatchMap(float(scores[0]), _plain(maps[0]), **self._shape(image))

    def _shape(self, image: np.ndarray) -> dict[str, Any]:
        height, width = image.shape[:2]
        return {"aspect": width / height, "cropped": "crop" in self.embedder.loaded.transform}

    def _maps(
        self, image: np.ndarray, texts: list[str], vectors: list[np.ndarray]
    ) -> AttentionMaps:
        height, width = image.shape[:2]
        weights = self.embedder.attention(image)
        has_weights = weights is not None
        words = []
        if texts:
            scores, maps = occlusion_maps(self.embedder.images, image, np.stack(vectors))
            words = [WordMap(t, float(s), _plain(m)) for t, s, m in zip(texts, scores, maps)]
        return AttentionMaps(
            rollout=_plain(attention_maps(weights, height, width)[0]) if has_weights else [],
            heads=_plain(head_maps(weights, height, width)[:, 0]) if has_weights else [],
            words=words,
            **self._shape(image),
        )


def _found(hits: Iterable[Hit]) -> list[Found]:
    return [Found(h.sha256, round(h.score, 5), [printable(path) for path in h.paths]) for h in hits]


def _text_of(text: str) -> str:
    text = text.strip()
    if not 0 < len(text) <= MAX_CHARACTERS:
        raise ValueError(f"The text has {len(text)} characters: give 1 to {MAX_CHARACTERS}.")
    return text


def _plain(array: np.ndarray) -> list:
    return np.asarray(array, np.float64).round(5).tolist()
