"""Golden folders: published models at a small random size, and the original code's outputs."""

from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from mmjax.layers.block import Block
from mmjax.layers.decoder_stack import Group
from mmjax.pretrained import load

GOLDEN = Path(__file__).parents[1] / "golden"


def expected(name):
    """Inputs and outputs of a golden folder, by name."""
    return load_file(GOLDEN / name / "expected.safetensors")


def fixture(*names):
    """A fixture `golden` of a module: each of those folders as (model, expected outputs)."""

    @pytest.fixture(scope="module", params=names, name="golden")
    def golden(request):
        return load(GOLDEN / request.param), expected(request.param)

    return golden


def outputs(loaded, batch):
    """The outputs of a loaded model for a batch, as numpy arrays."""
    given = jax.jit(loaded.model.apply)(loaded.variables, batch)
    return jax.tree.map(np.asarray, given)


def layers(loaded, batch, *path):
    """The output of each block of a tower [layers, B, L, D], in float64.

    `path` leads to the tower: ("image",), or nothing for the model itself.
    """
    return layers_and_outputs(loaded, batch, *path)[0]


def layers_and_outputs(loaded, batch, *path):
    """`layers` and `outputs` of one run."""
    (found,), given = towers_and_outputs(loaded, batch, path)
    return found, given


def towers_and_outputs(loaded, batch, *paths):
    """`layers` of several towers and `outputs`, of one run."""

    def run(variables, batch):
        given, kept = loaded.model.apply(
            variables,
            batch,
            capture_intermediates=lambda module, method: method == "__call__" and _is_layer(module),
            mutable=["intermediates"],
        )
        return given, kept["intermediates"]

    given, kept = jax.jit(run)(loaded.variables, batch)
    towers = [_of_tower(kept, path) for path in paths]
    return towers, jax.tree.map(np.asarray, given)


def _of_tower(found, path):
    for name in path:
        found = found[name]
    (stacked,) = [
        x
        for where, x in jax.tree_util.tree_leaves_with_path(found)
        if "__call__" in jax.tree_util.keystr(where)
    ]
    return np.asarray(stacked, np.float64)


def _is_layer(module):
    """A block of a stack, or a decoder's group of them."""
    inside = isinstance(module.parent, Group | Block)
    return isinstance(module, Group) or (isinstance(module, Block) and not inside)


def close(ours, theirs, tolerance=1e-5):
    """Assert equality up to `tolerance` of the largest value."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * max(1, np.abs(theirs).max()))
