"""Baselines of CLIP on emoji: chance, and a linear model of pixels and bags of words.

    python -m experiments.clip_emoji.baselines --out=experiments/clip_emoji/baselines.json

Chance is the closed form of a random order. The linear model is a regularized CCA of raw pixels
(32 x 32 x 3) and TF-IDF word counts, fitted on the training split alone; its settings are those
with the best mean recall on the validation splits. Both are scored by the evaluators' own
`retrieval_metrics`, on the same galleries and captions. Takes about three minutes on two cores.
"""

import argparse
import dataclasses
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmjax.data.open_source import open_source
from mmjax.data.transforms.decode import decode_image
from mmjax.evals.image_text import gather_captions
from mmjax.evals.retrieval import caption_ids, chance_metrics, retrieval_metrics

CAPTIONS = 1  # per image in the galleries, as in configs/clip_emoji.py; training takes them all
SIDE = 32  # pixels of the thumbnail
PIXEL_AXES = 512  # principal components of the pixels that are kept
VALIDATION = ("seen_validation", "unseen_validation", "unseen_validation_openmoji")
TEST = ("seen_test", "unseen_test", "unseen_test_openmoji")

IMAGE_RIDGE = (0.03, 0.1, 0.3, 1.0)
TEXT_RIDGE = (0.1, 1.0, 10.0)
WIDTH = (64, 256, 512)
POWER = (0, 1, 2)  # of the canonical correlations, by which axes are scaled


@dataclasses.dataclass(frozen=True)
class Split:
    """Pixels `[N, D]`, captions, and the image of each caption `[M]`."""

    pixels: np.ndarray
    texts: list[str]
    index: np.ndarray


def read_split(name: str, captions: int) -> Split:
    """A split of the emoji set: thumbnails in [0, 1], this many captions per image (0: all)."""
    source = open_source({"kind": "tfds", "name": "emoji", "split": name})
    thumbnails = [
        Image.fromarray(decode_image(source[i]["image"])).resize((SIDE, SIDE), Image.Resampling.BOX)
        for i in range(len(source))
    ]
    pixels = np.stack([np.asarray(t, np.float32).ravel() / 255 for t in thumbnails])
    return Split(pixels, *gather_captions(source, captions))


# ---- text: TF-IDF


def words(text: str) -> list[str]:
    """Lower-case words, numbers included."""
    return re.findall(r"\w+", text.casefold())


def vocabulary(texts: Iterable[str]) -> dict[str, float]:
    """Word -> inverse document frequency, ln((1 + n) / (1 + df)) + 1."""
    documents = [set(words(t)) for t in texts]
    counts = Counter(word for document in documents for word in document)
    return {w: np.log((1 + len(documents)) / (1 + c)) + 1 for w, c in sorted(counts.items())}


def tf_idf(texts: Sequence[str], idf: Mapping[str, float]) -> np.ndarray:
    """`[M, V]`, rows of unit length, or zero where no word is known."""
    place = {word: i for i, word in enumerate(idf)}
    result = np.zeros((len(texts), len(idf)), np.float32)
    for row, text in zip(result, texts):
        for word in words(text):
            if word in place:
                row[place[word]] += idf[word]
    return unit(result)


def unit(x: np.ndarray) -> np.ndarray:
    """Rows scaled to unit length; zero rows stay zero."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


# ---- the model


@dataclasses.dataclass(frozen=True)
class Linear:
    """Two linear maps into one space: `(x - mean) @ map`, then unit length."""

    image_mean: np.ndarray
    image_map: np.ndarray
    text_mean: np.ndarray
    text_map: np.ndarray

    def embed(self, pixels: np.ndarray, bags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Unit embeddings of pixels `[N, D]` and bags of words `[M, V]`."""
        images = (pixels - self.image_mean) @ self.image_map
        return unit(images), unit((bags - self.text_mean) @ self.text_map)


def inverse_root(covariance: np.ndarray, ridge: float) -> np.ndarray:
    """(C + ridge * mean variance * I)^(-1/2)."""
    values, vectors = np.linalg.eigh(covariance)
    values = np.maximum(values, 0) + ridge * values.mean()
    return (vectors / np.sqrt(values)) @ vectors.T


def fit(train: Split, bags: np.ndarray) -> Iterable[tuple[dict[str, float], Linear]]:
    """Regularized CCA of every (image, caption) pair, for every setting of the grid.

    Args:
      bags: [M, V], of the captions.

    Axes are scaled by a power of their canonical correlations, Gong et al. 2014
    (arXiv:1212.4522), section 3.3.
    """
    image_mean = train.pixels.mean(axis=0, keepdims=True)
    _, _, axes = np.linalg.svd(train.pixels - image_mean, full_matrices=False)
    axes = axes[:PIXEL_AXES].T
    x = ((train.pixels - image_mean) @ axes)[train.index]
    text_mean = bags.mean(axis=0, keepdims=True)
    y = bags - text_mean
    n = len(y)
    between, inside_x, inside_y = x.T @ y / n, x.T @ x / n, y.T @ y / n
    text_roots = {ridge: inverse_root(inside_y, ridge) for ridge in TEXT_RIDGE}
    for image_ridge, text_ridge in itertools.product(IMAGE_RIDGE, TEXT_RIDGE):
        image_root, text_root = inverse_root(inside_x, image_ridge), text_roots[text_ridge]
        u, s, vt = np.linalg.svd(image_root @ between @ text_root, full_matrices=False)
        for width, power in itertools.product(WIDTH, POWER):
            scale = s[None, :width] ** power
            settings = {
                "image_ridge": image_ridge,
                "text_ridge": text_ridge,
                "width": width,
                "power": power,
            }
            yield (
                settings,
                Linear(
                    image_mean,
                    axes @ image_root @ u[:, :width] * scale,
                    text_mean,
                    text_root @ vt[:width].T * scale,
                ),
            )


def score(model: Linear, split: Split, bags: np.ndarray) -> dict[str, float]:
    """The model's retrieval on a split whose captions have these bags of words `[M, V]`."""
    images, texts = model.embed(split.pixels, bags)
    return retrieval_metrics(images, texts, split.index, text_ids=caption_ids(split.texts))


def mean_recall(metrics: Mapping[str, float]) -> float:
    """Mean of Recall@1 and @5 over both directions, by which the settings are chosen."""
    return float(np.mean([v for k, v in metrics.items() if k.endswith(("@1", "@5"))]))


# ---- the table


def markdown(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Model -> split -> metrics as a Markdown table, in percent."""
    shown = [f"{way}/recall@{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5)]
    lines = [
        "| split | model | text→image R@1 | R@5 | image→text R@1 | R@5 |",
        "|---|---|---|---|---|---|",
    ]
    for split in TEST:
        for model, splits in results.items():
            figures = " | ".join(f"{100 * splits[split][name]:.1f}" for name in shown)
            lines.append(f"| {split} | {model} | {figures} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="experiments/clip_emoji/baselines.json", type=Path)
    args = parser.parse_args()
    train = read_split("train", 0)
    splits = {name: read_split(name, CAPTIONS) for name in (*VALIDATION, *TEST)}
    idf = vocabulary(train.texts)

    bags = {name: tf_idf(split.texts, idf) for name, split in splits.items()}

    def validation(model: Linear) -> float:
        return float(np.mean([mean_recall(score(model, splits[s], bags[s])) for s in VALIDATION]))

    settings, model = max(
        fit(train, tf_idf(train.texts, idf)), key=lambda pair: validation(pair[1])
    )
    results = {
        "chance": {
            name: chance_metrics(len(split.pixels), split.index, caption_ids(split.texts))
            for name, split in splits.items()
        },
        "bag of words": {name: score(model, split, bags[name]) for name, split in splits.items()},
    }
    print(f"settings chosen on {', '.join(VALIDATION)}: {settings}\n")
    print(markdown(results))
    args.out.write_text(json.dumps({"settings": settings, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
