"""Tensors drawn by NumPy from their names: weights too large for a golden folder, the same for the
original code and for ours. After torch's names."""

import zlib

import numpy as np


def tensor(name, shape):
    """A random float32 array that keeps activations near unit size."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    x = rng.standard_normal(shape)
    last = name.split(".")[-1]
    if last == "running_var":
        x = 0.5 + rng.random(shape)
    elif last.startswith("logit_scale"):
        x = 1.5 + 0.2 * x
    elif name.endswith(("fbsp.m", "fbsp.fb")):
        x = 1 + 0.1 * x
    elif name.endswith("fbsp.fc"):
        x = np.arange(*shape) + 0.1 * x
    elif name == "audio.conv1.weight":  # of decibels, which have a large mean
        x = 0.01 * (x - x.mean((2, 3), keepdims=True))
    elif len(shape) > 1:
        x = 1.5 * x * np.prod(shape[1:]) ** -0.5
    else:
        x = 0.2 * x + (last == "weight")
    return np.asarray(x, np.float32)


class Drawn:
    """The tensors that a rename table names, as `weights.convert.read_params` reads them.

    Args:
      rows: the table; ours: name -> an array or a struct, of every parameter of the model.
    """

    name = "drawn tensors"

    def __init__(self, rows, ours):
        self.shapes = {}
        for row in rows:
            zeros = [np.zeros(ours[name].shape, np.float32) for name in row.ours]
            layers = range(len(zeros[0])) if "{i}" in row.theirs[0] else [None]
            for layer in layers:
                parts = row.write(*(zeros if layer is None else [x[layer] for x in zeros]))
                for name, part in zip(row.theirs, parts, strict=True):
                    name = name if layer is None else name.replace("{i}", str(layer))
                    self.shapes[name] = part.shape

    def read(self, name):
        return tensor(name, self.shapes[name])
