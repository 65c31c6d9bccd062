"""A config with a value of each type."""

from ml_collections import ConfigDict


def small():
    return ConfigDict(
        {
            "name": "a",
            "steps": 10,
            "rate": 0.1,
            "flag": False,
            "clip": None,
            "sizes": (1, 2),
            "model": {"width": 16, "image": {"pool": "cls"}},
            "evals": {},
            "optim": {"warmup_steps": 10},
        }
    )
