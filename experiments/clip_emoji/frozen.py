"""Linear baselines of lit_emoji: CCAs of the same frozen features.

    python -m experiments.clip_emoji.frozen --out=experiments/clip_emoji/frozen.json

Images: the pooled features of EfficientNet-Lite0 (ImageNet), 128 x 128 pixels; with "copies" also
those of the six augmented copies of each training image that lit_emoji learns from. Captions:
TF-IDF word counts, and those with the sentence embeddings of MiniLM. The CCA is that of
baselines.py with its grid; all settings are those with the best mean recall on the validation
splits. Splits, galleries and metrics are those of baselines.py, whose results are copied to --out.

The features are kept in --cache; they take minutes on two cores. What --out has already is not
computed again.
"""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from einops import rearrange

from configs.lit_emoji import COPIES, IMAGE_MODEL, IMAGES
from experiments.clip_emoji import baselines
from experiments.clip_emoji.baselines import CAPTIONS, TEST, VALIDATION, Split, unit
from mmjax.data.open_source import open_source
from mmjax.evals.image_text import gather_captions
from mmjax.photos.features import TEXT_MODEL, ImageTower, TextTower
from mmjax.process.progress import Progress

KINDS = ("words", "words and sentences")
ROWS = 64  # images embedded at once


def read_split(name: str, captions: int, copies: int, cache: Path) -> tuple[Split, np.ndarray]:
    """A split with frozen features in place of pixels, [N, 1 + copies, D], and sentence features of
    its captions [M, E]."""
    source = open_source({"kind": "tfds", "name": "emoji", "split": name})
    texts, index = gather_captions(source, captions)
    path = cache / f"{name}.npz"
    if not path.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        tower, found = ImageTower(IMAGE_MODEL, IMAGES, copies), []
        with Progress(f"Features of {name}", len(source)) as progress:
            for start in range(0, len(source), ROWS):
                rows = range(start, min(start + ROWS, len(source)))
                found.append(tower([source[i]["image"] for i in rows], start))
                progress.advance(len(rows))
        np.savez(path, images=np.concatenate(found), sentences=TextTower(TEXT_MODEL)(texts))
    with np.load(path) as file:
        return Split(file["images"], texts, index), unit(file["sentences"])


def stacked(split: Split, features: np.ndarray) -> tuple[Split, np.ndarray]:
    """Every copy of every image as an image of its own, and the features of its captions."""
    count, copies = split.pixels.shape[:2]
    index = np.concatenate([split.index + count * i for i in range(copies)])
    images = rearrange(split.pixels, "n c d -> (c n) d")
    return Split(images, split.texts * copies, index), np.tile(features, (copies, 1))


def best(
    train: tuple[Split, np.ndarray], held_out: Mapping[str, tuple[Split, np.ndarray]]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """The settings and the scores of the CCA with the best recall on the validation splits.

    Args:
      train, held_out: images and features of the captions; of held-out splits by name.
    """

    def scores(model, names: Iterable[str]) -> dict[str, dict[str, float]]:
        return {name: baselines.score(model, *held_out[name]) for name in names}

    def recall(model) -> float:
        return float(
            np.mean([baselines.mean_recall(x) for x in scores(model, VALIDATION).values()])
        )

    settings, model = max(baselines.fit(*train), key=lambda pair: recall(pair[1]))
    return settings, scores(model, held_out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="experiments/clip_emoji/frozen.json", type=Path)
    parser.add_argument("--cache", default="build/frozen_emoji", type=Path)
    args = parser.parse_args()
    train, sentences = read_split("train", 0, COPIES, args.cache)
    read = {name: read_split(name, CAPTIONS, 0, args.cache) for name in (*VALIDATION, *TEST)}
    idf = baselines.vocabulary(train.texts)

    def features(kind: str, texts: list[str], sentences: np.ndarray) -> np.ndarray:
        words = baselines.tf_idf(texts, idf)
        return words if kind == "words" else np.concatenate([words, sentences], -1)

    done = json.loads(args.out.read_text()) if args.out.is_file() else {}
    chosen, results = (done.setdefault(name, {}) for name in ("settings", "results"))
    results |= json.loads(Path(__file__).with_name("baselines.json").read_text())["results"]
    alone = Split(train.pixels[:, :1], train.texts, train.index)
    for images, of in ((alone, ""), (train, ", copies")):
        for kind in KINDS:
            name = f"CCA, {kind}{of}"
            if name in results:
                continue
            held_out = {
                n: (Split(x.pixels[:, 0], x.texts, x.index), features(kind, x.texts, y))
                for n, (x, y) in read.items()
            }
            fitted = stacked(images, features(kind, train.texts, sentences))
            chosen[name], results[name] = best(fitted, held_out)
            args.out.write_text(json.dumps(done, indent=1) + "\n")
            print(f"{name}: {chosen[name]}", flush=True)
    print(baselines.markdown(results))


if __name__ == "__main__":
    main()
