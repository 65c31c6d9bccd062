"""Evaluators of models with two or more towers: retrieval, with re-ranking or without."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.batch import MODALITIES
from mmjax.data.transforms.captions import as_text, captions_of
from mmjax.evals.evaluator import Evaluator, Results, left_out
from mmjax.evals.outputs import embed_texts, match
from mmjax.evals.retrieval import caption_ids, nearest, retrieval_metrics
from mmjax.system import Variables


def gather_captions(source: Any, captions_per_image: int) -> tuple[list[str], np.ndarray]:
    """Captions of a source, and the image index of each `[M]`.

    An example without captions has its class name as caption. One whose `text_present` is false, or
    that has neither, has none.

    Args:
      captions_per_image: maximum number of captions per image; 0: all.
    """
    class_names = getattr(source, "class_names", None)
    texts: list[str] = []
    index: list[int] = []
    for i in range(len(source)):
        example = source.meta(i)
        named = class_names is not None and example.get("label") is not None
        captioned = any(as_text(caption).strip() for caption in example.get("captions", ()))
        if not example.get("text_present", True) or not (captioned or named):
            continue
        captions = captions_of(example, class_names)[: captions_per_image or None]
        texts += captions
        index += [i] * len(captions)
    return texts, np.asarray(index, np.int64)


IMAGE_TEXT = ("image", "text")


@dataclasses.dataclass(frozen=True)
class Pairs:
    """The examples of a source that have both modalities of a pair, embedded: an image and a
    caption, or what `ImageText.pair` says instead of them."""

    image_embed: np.ndarray  # [N, D]
    text_embed: np.ndarray  # [M, D]
    texts: list[str]  # M captions; none of a pair without text
    text_image_index: np.ndarray  # [M], the image of each caption
    places: np.ndarray  # [N], the image's index in the source
    absent: int  # number of examples of the source without an image or a caption
    image_tokens: np.ndarray | None = None  # [N, S, C], for re-ranking


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageText(Evaluator):
    """Base class of evaluators that need two towers.

    Settings:
      captions_per_image: maximum number of captions per image; 0: all.
      pair: the modalities: of an image, audio or video against its captions, or against each other.
    """

    captions_per_image: int = 0
    pair: tuple[str, ...] = IMAGE_TEXT

    def __post_init__(self):
        if len(set(self.pair)) != 2 or not set(self.pair) <= set(MODALITIES):
            raise ValueError(
                f"pair is {self.pair}: give two modalities of {', '.join(MODALITIES)}, such as "
                "('audio', 'text')."
            )
        if self.pair[0] == "text":
            raise ValueError(f"pair is {self.pair}: put text last.")

    def settings(self) -> dict[str, Any]:
        given = super().settings()
        if self.pair == IMAGE_TEXT:  # the fingerprint of results from before there were others
            del given["pair"]
        return given

    def needs(self) -> Mapping[str, Sequence[str]]:
        return {f"{name}_embed": (name,) for name in self.pair}

    def pairs(self, variables: Variables, tokens: bool = False) -> Pairs:
        """Embeddings of the whole source by both towers, and `image_tokens` if asked for."""
        if tokens:  # too large to be kept
            return self._embed_both(variables, tokens)
        return self._once(
            variables,
            "pairs",
            lambda: self._embed_both(variables),
            captions_per_image=self.captions_per_image,
            pair=self.pair,
        )

    def _embed_both(self, variables: Variables, tokens: bool = False) -> Pairs:
        source = self._open(self.source)
        one, other = (f"{name}_embed" for name in self.pair)
        if other != "text_embed":
            outputs = self._embed(variables, source, [one, other], modalities=self.pair, every=True)
            places = outputs["example_id"]
            absent, index = len(source) - len(places), np.arange(len(places))
            return Pairs(outputs[one], outputs[other], [], index, places, absent)
        texts, index = gather_captions(source, self.captions_per_image)
        names = [one, "image_tokens"] if tokens else [one]
        outputs = self._embed(variables, source, names, modalities=self.pair[:1])
        places = np.intersect1d(outputs["example_id"], index)
        used = np.isin(outputs["example_id"], places)
        kept = np.isin(index, places)
        texts = [text for text, keep in zip(texts, kept) if keep]
        return Pairs(
            image_embed=outputs[one][used],
            text_embed=embed_texts(self.runner, variables, texts),
            texts=texts,
            text_image_index=np.searchsorted(places, index[kept]),
            places=places,
            absent=len(source) - len(places),
            image_tokens=outputs["image_tokens"][used] if tokens else None,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval(ImageText):
    """Retrieval in both directions over the whole source, of images and texts or of another
    `pair`; rules in `retrieval.py`.

    Settings:
      rerank: of each query the nearest items, as many as this, are ranked again, by the second of
        the model's `match_logits` plus the cosine, as `reranked/...`; 0: they are not. It keeps
        the `image_tokens` of the whole source in memory. Source: Li et al. 2022 (arXiv 2201.12086),
        section 5.1; salesforce/BLIP, train_retrieval.py, evaluation.
    """

    kind = "retrieval"
    rerank: int = 0

    def __post_init__(self):
        super().__post_init__()
        if self.rerank < 0 or self.rerank and self.pair != IMAGE_TEXT:
            raise ValueError(
                f"rerank is {self.rerank}: give a number of items, of images and texts, or 0."
            )

    def needs(self) -> Mapping[str, Sequence[str]]:
        both = {"match_logits": ("image", "text"), "image_tokens": ("image",)}
        return super().needs() | (both if self.rerank else {})

    def run(self, variables: Variables) -> Results:
        p = self.pairs(variables, bool(self.rerank))
        yield from retrieval_metrics(
            p.image_embed,
            p.text_embed,
            p.text_image_index,
            text_ids=caption_ids(p.texts) if p.texts else None,
            first=self._rerank(variables, p) if self.rerank else None,
            pair=self.pair,
        ).items()
        yield from left_out(p.absent)

    def _rerank(self, variables: Variables, p: Pairs) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """The nearest items of each query and their new scores, by direction."""
        texts = nearest(p.image_embed, p.text_embed, self.rerank)
        images = nearest(p.text_embed, p.image_embed, self.rerank)
        of_images = np.repeat(np.arange(len(texts)), texts.shape[1]), texts.reshape(-1)
        of_texts = images.reshape(-1), np.repeat(np.arange(len(images)), images.shape[1])
        pairs = np.concatenate([of_images, of_texts], axis=1)
        pairs, place = np.unique(pairs, axis=1, return_inverse=True)
        image, text = pairs
        scores = match(self.runner, variables, p.image_tokens, p.texts, image, text)
        scores += np.sum(p.image_embed[image] * p.text_embed[text], axis=1)
        to_text, to_image = np.split(scores[place.reshape(-1)], [texts.size])
        return {
            "image_to_text": (texts, to_text.reshape(texts.shape)),
            "text_to_image": (images, to_image.reshape(images.shape)),
        }
