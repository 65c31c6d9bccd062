"""Rows of a batch that depend on each other are found by numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.microbatch_check import check_rows

PARAMS = {
    "kernel": jax.ShapeDtypeStruct((3, 4), jnp.float32),
    "scale": jax.ShapeDtypeStruct((4,), jnp.float32),
    "variance": jax.ShapeDtypeStruct((4,), jnp.float32),
}


def apart(params, batch):
    factor = params["scale"] * jax.lax.rsqrt(params["variance"])  # of a batch norm that is frozen
    x = jnp.tanh(batch["x"] @ params["kernel"]) * factor[None]
    return {"x": x, "count": (x > 0).sum(1), "scale": params["scale"].sum()}


def normalized(params, batch):
    """Centered over the batch."""
    found = apart(params, batch)
    return found | {"x": found["x"] - found["x"].mean(0, keepdims=True)}


def mined(params, batch):
    """The other row that is most similar: mixed where the parameters are not zero."""
    x = apart(params, batch)["x"]
    return {"x": x, "other": x[jnp.argmax(x @ x.T - 9 * jnp.eye(len(x)), 1)]}


@pytest.mark.parametrize("rows", [1, 4])
def test_rows_that_mix_are_refused_and_others_pass(rows):
    batch = {"x": np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)}
    batch = jax.tree.map(jnp.asarray, batch)
    check_rows(apart, PARAMS, batch, 1e-5)
    with pytest.raises(ValueError, match="'x' of a row changes by .* couples_rows"):
        check_rows(normalized, PARAMS, batch, 1e-3)
    with pytest.raises(ValueError, match="'other' of a row changes by"):
        check_rows(mined, PARAMS, batch, 1e-3)
