"""Batches are bit for bit what they were: a run that resumes with newer code sees the same data.

The checksums were recorded before chains passed Pillow images on, tokens were kept, and the order
was computed without grain's data set objects (Pillow 13.0, NumPy 2.4).
"""

import hashlib
import itertools

import numpy as np
import PIL
import pytest
import tokenizers as hf

from mmjax.data.mixture import Mixture, Part
from mmjax.data.pipeline import train_batches
from mmjax.data.source import Source
from mmjax.data.sources.memory import InMemory
from mmjax.data.text.tokenizer import Tokenizer
from mmjax.data.transforms.parse import parse

WORDS = ["pad", "bos", "eos", "a", "the", "red", "green", "blue", "cat", "dog"]


class Shapes(Source):
    """Images of many sizes, computed from their coordinates, with two captions each."""

    name, class_names = "shapes", None

    def __len__(self):
        return 23

    def __getitem__(self, i):
        y, x = np.mgrid[: 30 + i, : 50 - i]
        image = np.stack([7 * x + i * y, x * y + 31 * i, (x // 5 + y // 7) * 41], -1)
        words = [WORDS[3 + (i * k) % 7] for k in range(1, 7)]
        captions = [" ".join(words[: 1 + i % 6]), " ".join(words[::-1])]
        return {"key": f"{i}", "image": image.astype(np.uint8), "captions": captions, "label": i}


def tokenizer():
    backend = hf.Tokenizer(
        hf.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="pad")
    )
    backend.pre_tokenizer = hf.pre_tokenizers.Whitespace()
    return Tokenizer(backend, pad_id=0, bos_id=1, eos_id=2)


def checksum(batches, n=6):
    found = hashlib.sha256()
    for batch in itertools.islice(batches, n):
        for key in sorted(batch):
            array = batch[key]
            found.update(f"{key} {array.dtype} {array.shape}".encode() + array.tobytes())
    return found.hexdigest()[:16]


TEXT = "choose_caption | tokenize(5)"
CHAINS = {
    f"resize((20, 26)) | flip(0.5) | {TEXT}": "0883e12c9c342e9a",
    "random_resized_crop(24, scale=(0.3, 1)) | flip | color_jitter(0.4, 0.3, 0.5, 0.2)"
    f" | {TEXT}": "d1d712c9daec3410",
    "random_affine(20, 0.1, (0.8, 1.2)) | random_grayscale(0.3) | resize(21, 'bilinear')"
    f" | {TEXT}": "349ad2c16b2f80e0",
    "random_crop(32, padding=3, fill=9) | rand_augment(4, 12) | random_erasing(0.5)"
    f" | {TEXT}": "d225f6b66d909028",
    "resize_short(25) | center_crop((27, 25), 'even') | rand_augment(3, 5, (1, 2, 3))"
    f" | {TEXT}": "ef7c693ded8b01f3",
    "color_jitter(hue=0.5, p=0.7) | random_crop(40) | flip | resize(16, antialias=False)"
    " | label": "dfc3d25df7709fcc",
}


@pytest.mark.skipif(int(PIL.__version__.split(".")[0]) != 13, reason="recorded with Pillow 13")
@pytest.mark.parametrize("chain, wanted", CHAINS.items())
def test_chains(chain, wanted):
    source, settings = Shapes(), {"batch_size": 8, "seed": 5, "start_step": 4}
    transform = parse("decode | " + chain, tokenizer=tokenizer())
    assert checksum(train_batches(source, transform, **settings)) == wanted
    cached = InMemory(source, parse("decode"))
    transform = parse(chain, tokenizer=tokenizer())
    assert checksum(train_batches(cached, transform, **settings, num_threads=3)) == wanted


def test_mixtures():
    parts = [Part("images", Shapes()), Part("texts", Shapes())]
    mixed = Mixture(parts, [(0, {"images": 2.0, "texts": ((0, 0.0), (9, 1.0))})])
    text = parse(TEXT, tokenizer=tokenizer())
    transforms = {
        "images": parse("decode | random_crop(12)"),
        "texts": lambda example, rng: text({"captions": example["captions"]}, rng),
    }
    batches = train_batches(mixed, transforms, batch_size=16, seed=1, start_step=2)
    assert checksum(batches) == "85baf76952fad51a"
