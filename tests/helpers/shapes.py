"""Images with a color and a shape, and a stand-in for a model that captions them."""

import numpy as np
from fake_runner import FakeRunner

from mmjax.data.source import Source

COLORS = ("red", "green", "blue")


SHAPES = ("square", "circle", "star", "cross")


SENTENCE = "this is a {} thing with the form of a {}"


MISSING = 5  # with `gaps`, the image of this example is missing


class Shapes(Source):
    """Images whose first pixel is a color and whose second one is a shape; `n` of them."""

    class_names = None

    def __init__(self, n=12, gaps=False, offset=0):
        self.n, self.gaps, self.offset = n, gaps, offset

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        color, shape = (i + self.offset) % 3, (i + self.offset) // 3 % 4
        image = np.zeros((16, 16, 3), np.uint8)
        image[:8, :, color] = 255
        image[8:, 4 * shape : 4 * shape + 4] = 255
        caption = SENTENCE.format(COLORS[color], SHAPES[shape])
        example = {"captions": [caption, f"{COLORS[color]} {SHAPES[shape]}"]}
        gone = self.gaps and i == MISSING
        return {**example, "image": image * (not gone), "image_present": not gone}


def batches(source, spec, size):
    """Arrays and flags of the examples, padded as the pipeline pads them."""
    for start in range(0, len(source), size):
        places = [min(i, len(source) - 1) for i in range(start, start + size)]
        real = np.arange(start, start + size) < len(source)
        rows = [source[i] for i in places]
        batch = {
            k: np.stack([np.asarray(row[k]) for row in rows]) for k in rows[0] if keep(k, rows)
        }
        for key in batch:
            if key.endswith("_present"):
                batch[key] = batch[key] & real
        yield batch | {"example_id": np.where(real, places, -1)}


def keep(key, rows):
    return not isinstance(rows[0][key], str | list)


def read(image):
    """(color, shape) of images; (0, 0) of a blank one."""
    return image[:, 0, 0].argmax(axis=1), image[:, -1, ::4, 0].argmax(axis=1)


def write_captions(params, batch):
    """The caption of the image, or always the same one if `params` is 'blind'."""
    assert set(batch) == {"image", "image_present", "example_id"}
    assert not batch["image"][~batch["image_present"] & (batch["example_id"] >= 0)].any()
    if params == "blind":
        return [SENTENCE.format("red", "star")] * len(batch["image"])
    return [SENTENCE.format(COLORS[c], SHAPES[s]) for c, s in zip(*read(batch["image"]))]


def make_runner(source=Shapes, generate=write_captions, embed=None, **fields):
    return FakeRunner(
        embed=embed or (lambda params, batch: {}),
        open_source=lambda config: source(**config),
        batches=batches,
        write=lambda settings: generate,
        batch_size=5,
        **fields,
    )
