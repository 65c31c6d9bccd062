"""Vector quantization beside vector-quantize-pytorch and a slow reference."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from mmjax.layers.quantizer import Quantizer, updated, usage

GOLDEN = Path(__file__).parents[1] / "golden" / "quantizer.safetensors"
KEY = jax.random.key(0)


def test_five_steps_are_those_of_vector_quantize_pytorch():
    want = load_file(GOLDEN)
    book = {"codes": want["start"], "count": want["count"], "sum": want["sum"]}
    layer = Quantizer(*want["start"].shape)

    @jax.jit
    def step(book, x, mask, weight):
        def f(x):
            given = layer.apply({"codebook": book}, x)
            loss = jnp.mean(given.commitment, where=mask)
            valid = mask[..., None].astype(jnp.float32)
            return (given.vectors * weight * valid).sum() + loss, (given, loss)

        gradient, (given, loss) = jax.grad(f, has_aux=True)(x)
        new = updated(book, x, given.codes, mask, KEY, decay=0.8, revive=0)
        return given, loss, gradient, new

    for i in range(len(want["x"])):
        x, mask, weight = (want[name][i] for name in ("x", "mask", "weight"))
        given, loss, gradient, book = step(book, x, mask, weight)
        np.testing.assert_array_equal(given.codes[mask], want["codes"][i][mask])
        np.testing.assert_allclose(given.vectors[mask], want["vectors"][i][mask], atol=1e-5)
        np.testing.assert_allclose(loss, want["loss"][i], rtol=1e-5)
        np.testing.assert_allclose(gradient, want["gradient"][i], atol=1e-5)
        for name, theirs in (("codes", "embed"), ("count", "cluster_size"), ("sum", "embed_avg")):
            np.testing.assert_allclose(book[name], want[theirs][i], rtol=1e-5, atol=1e-5)


def slow(book, x, codes, mask, drawn, decay, revive):
    """The next codebook, code by code."""
    size, width = book["codes"].shape
    found = {name: value.copy() for name, value in book.items()}
    for k in range(size):
        mine = [
            v for v, c, m in zip(x.reshape(-1, width), codes.ravel(), mask.ravel()) if m and c == k
        ]
        found["count"][k] = decay * book["count"][k] + (1 - decay) * len(mine)
        found["sum"][k] = decay * book["sum"][k] + (1 - decay) * np.sum(mine, axis=0)
    total = found["count"].sum()
    for k in range(size):
        smooth = (found["count"][k] + 1e-5) / (total + size * 1e-5) * total
        found["codes"][k] = found["sum"][k] / smooth
        mean = mask.sum() / size
        if found["count"][k] < revive * mean:
            found["codes"][k], found["count"][k] = drawn[k], mean
            found["sum"][k] = drawn[k] * mean
    return found


def test_codes_that_are_not_used_are_revived_with_vectors_of_the_batch():
    rng, size = np.random.default_rng(0), 6
    layer, step = Quantizer(size, 3), jax.jit(updated, static_argnames=("decay", "revive"))
    book = layer.init(KEY, jnp.zeros((1, 3)))["codebook"]
    want = {name: np.asarray(value, np.float64) for name, value in book.items()}
    revived = []
    for i in range(8):
        x = rng.normal(size=(4, 5, 3)).astype(np.float32) * (10 if i == 4 else 1)
        mask = rng.random((4, 5)) < 0.7
        codes, key = np.asarray(layer.apply({"codebook": book}, x).codes), jax.random.key(i)
        distance = np.square(x[:, :, None].astype(np.float64) - want["codes"]).sum(-1)
        np.testing.assert_array_equal(codes, distance.argmin(-1))
        draws = np.asarray(jax.random.uniform(key, (size,))) * mask.sum()
        drawn = x[mask][draws.astype(int)]
        before = want["count"].copy()
        want = slow(want, x, codes, mask, drawn, 0.5, 0.4)
        revived.append(int((want["count"] == mask.sum() / size).sum()))
        book = step(book, x, codes, mask, key, decay=0.5, revive=0.4)
        for name, value in want.items():
            np.testing.assert_allclose(book[name], value, rtol=1e-4, atol=1e-5, err_msg=name)
        assert not np.array_equal(before, want["count"])
    assert revived[0] >= 3  # the first batch
    assert sum(n > 0 for n in revived[1:]) >= 1


def test_a_batch_without_valid_vectors_changes_nothing():
    book = {"codes": jnp.ones((4, 2)), "count": jnp.ones(4), "sum": jnp.ones((4, 2))}
    x, codes = jnp.full((3, 2, 2), 7.0), jnp.zeros((3, 2), jnp.int32)
    found = updated(book, x, codes, jnp.zeros((3, 2), bool), KEY)
    jax.tree.map(np.testing.assert_array_equal, found, book)


@pytest.mark.parametrize("valid", [None, np.array([[True, True, False], [True, True, True]])])
def test_usage(valid):
    codes = jnp.array([[1, 1, 3], [1, 1, 2]], jnp.int32)
    found = usage(codes, 8, valid)
    p = np.array([4 / 6, 1 / 6, 1 / 6] if valid is None else [4 / 5, 1 / 5])
    np.testing.assert_allclose(found["codes_used"], len(p) / 8)
    np.testing.assert_allclose(found["perplexity"], np.exp(-(p * np.log(p)).sum()), rtol=1e-6)
