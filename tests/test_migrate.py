"""Checkpoints that the code before one Attention wrote: tests/golden/make_format1.py."""

import importlib.util
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import traverse_util
from flax.core import meta

from mmjax import config as configs
from mmjax.models import systems
from mmjax.optim import tree_paths
from mmjax.workdir import migrate

GOLDEN = Path(__file__).parent / "golden"
SPEC = importlib.util.spec_from_file_location("make_format1", GOLDEN / "make_format1.py")
MODELS = np.load(GOLDEN / "format1" / "models.npz")
NAMES = sorted({name.split("/")[0] for name in MODELS})


def of_case(name, part):
    start = f"{name}/{part}/"
    return {k.removeprefix(start): MODELS[k] for k in MODELS if k.startswith(start)}


def old_params(name):
    """Path in format 1 -> values."""
    maker = importlib.util.module_from_spec(SPEC)
    SPEC.loader.exec_module(maker)
    shapes = json.loads(str(MODELS[f"{name}/shapes"]))
    return {path: maker.values(path, tuple(shape)) for path, shape in shapes.items()}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_format_1_gives_what_it_gave(name):
    config = configs.defaults()
    with config.unlocked(), config.ignore_type():
        config.model = json.loads(str(MODELS[f"{name}/model"]))
    model, batch = systems.make_model(config), of_case(name, "batch")
    target = meta.unbox(jax.eval_shape(lambda: model.init(jax.random.key(0), batch)["params"]))
    old = old_params(name)
    made = migrate.moves({f"params/{k}": x.shape for k, x in old.items()}, 1, "checkpoint")
    assert {k: move.shape for k, move in made.items()} == tree_paths.shapes({"params": target})
    restored = {"params": traverse_util.unflatten_dict(old, sep="/")}
    params = migrate.make({"params": on_one_device(target)}, made, restored)["params"]
    found = jax.jit(lambda p, b: model.apply({"params": p}, b))(params, batch)
    for output, expected in of_case(name, "outputs").items():
        tolerance = 1e-5 * max(1, np.abs(expected).max())
        np.testing.assert_allclose(found[output], expected, rtol=0, atol=tolerance)


def on_one_device(tree):
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=one), tree)
