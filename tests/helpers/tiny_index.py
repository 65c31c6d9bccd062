"""Images of random blocks, and a tiny published model to index them with."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

MODEL = Path(__file__).parents[1] / "golden" / "clip"


def draw(path, seed):
    """Write an image of 4 x 4 random blocks, 32 pixels a side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(blocks.repeat(8, 0).repeat(8, 1)).save(path)


def asked(what=None, **given):
    """The flags of `mmjax.search query`."""
    usual = {"model": None, "image": None, "k": 10, "storage": "float16", "json": False}
    usual |= {"approximate": False, "rebuild": False, "index": None}
    return argparse.Namespace(what=what, **(usual | given))
