"""The system that CONTRIBUTING.md writes out trains, as it says."""

import re
from pathlib import Path

import numpy as np
import small_systems as small
import toy

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
IMPORTS = """
import flax.linen as nn
import jax
import jax.numpy as jnp

from mmjax.config import check_kwargs
from mmjax.layers.linear import class_head
from mmjax.losses.classification import classification_loss
from mmjax.system import System
"""


def test_the_worked_example_trains():
    example = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)[1]
    code = example.split("# mmjax/models/systems.py")[0]
    names = {}
    exec(IMPORTS + code, names)
    with small.listed("probe", names["make_system"]):
        config = small.config("probe", {"classes": 10}, loss_weights={"classification": 1.0})
        run = toy.build(config, toy.MESHES["data=8"])
        rng = np.random.default_rng(0)
        label = np.arange(8, dtype=np.int32)
        image = np.broadcast_to(label[:, None, None, None] * 30, (8, 32, 32, 3)).astype(np.uint8)
        batch = {"image": image + rng.integers(0, 9, image.shape, np.uint8), "label": label}
        _, history = toy.take_steps(run, run.init(), [batch] * 5)
    losses = [h["loss"] for h in history]
    assert np.isfinite(losses).all() and losses == sorted(losses, reverse=True)
