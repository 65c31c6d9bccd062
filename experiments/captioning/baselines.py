"""Captions without a model: the nearest training image's caption, and a random one's.

    python -m experiments.captioning.baselines emoji tuxpaint openclipart

Images are compared at 16 x 16 pixels; training is the set's training split, test its held-out
concepts (openclipart: authors). Prints a row for each set.
"""

import sys

import numpy as np

from mmjax.data.open_source import open_source
from mmjax.data.transforms.captions import captions_of
from mmjax.data.transforms.decode import decode_image
from mmjax.evals.captioning import derangement
from mmjax.evals.metrics.caption_metrics import caption_metrics
from mmjax.evals.neighbors import nearest, thumbnails
from mmjax.process.progress import Progress

TEST = {"emoji": "unseen_test", "tuxpaint": "test", "openclipart": "test"}
SHOWN = ("bleu_1", "bleu_4", "rouge_l", "meteor_exact", "cider")


def read(name, split):
    """Small images [N, 16, 16, 3], and the captions of each."""
    source = open_source({"kind": "tfds", "name": name, "split": split})
    images, captions = [], []
    with Progress(f"Reading {name}/{split}", len(source)) as bar:
        for i in range(len(source)):
            example = source[i]
            images.append(thumbnails(decode_image(example["image"])[None])[0])
            captions.append(captions_of(example))
            bar.advance()
    return np.stack(images), captions


def main():
    """Print the table."""
    print("| set | images | captions from |", " | ".join(SHOWN), "|")
    print("|---" * (3 + len(SHOWN)) + "|")
    for name in sys.argv[1:] or TEST:
        train, train_captions = read(name, "train")
        test, references = read(name, TEST[name])
        found = [train_captions[i][0] for i in nearest(train, test)]
        order = derangement(len(test))
        for label, texts in (
            ("nearest image", found),
            ("the same, shuffled", [found[i] for i in order]),
        ):
            metrics = caption_metrics(texts, references)
            values = " | ".join(f"{metrics[key]:.3f}" for key in SHOWN)
            print(f"| {name} | {len(test)} | {label} | {values} |", flush=True)


if __name__ == "__main__":
    main()
