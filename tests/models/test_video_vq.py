"""The video tokenizer: what padding changes, what a step remembers, and what is refused."""

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from flax.core import meta

from mmjax.layers.quantizer import updated
from mmjax.models.systems import make_system
from mmjax.system import Context, row_keys

MODEL = {"name": "video_vq", "frames": 4, "size": (8, 12), "channels": (6, 8), "temporal": 1}
MODEL |= {"blocks": 1, "codes": 7, "code_width": 5}


@pytest.fixture(scope="module")
def made():
    system, rng = make_system({"model": MODEL, "loss": {"decay": 0.9}, "batch_size": 3}), None
    rng = np.random.default_rng(0)
    batch = {"video": rng.integers(0, 256, (3, 4, 8, 12, 3), np.uint8)}
    batch["video_mask"] = np.arange(4)[None] < np.array([[4], [3], [1]])
    shapes = jax.eval_shape(lambda: system.model.init(jax.random.key(0), batch))
    given = drawn.drawn(meta.unbox(shapes))
    return system, batch, given, jax.jit(system.model.apply)


def test_shapes_codes_and_padding(made):
    system, batch, given, apply = made
    found = apply(given, batch)
    assert found["video_codes"].shape == (3, 2, 2, 3) and found["latents"].shape == (3, 2, 2, 3, 5)
    assert found["reconstruction"].shape == batch["video"].shape
    np.testing.assert_array_equal(
        found["video_code_mask"], [[True, True], [True, True], [True, False]]
    )
    book = given["codebook"]["quantizer"]["codes"]
    distance = np.square(np.asarray(found["latents"])[..., None, :] - book).sum(-1)
    np.testing.assert_array_equal(found["video_codes"], distance.argmin(-1))
    noise = np.random.default_rng(9).integers(0, 256, batch["video"].shape, np.uint8)
    mask = batch["video_mask"][..., None, None, None]
    other = apply(given, batch | {"video": np.where(mask, batch["video"], noise)})
    valid = np.asarray(found["video_code_mask"])
    for name in ("video_codes", "latents"):
        one, two = (np.asarray(x[name])[valid] for x in (found, other))
        np.testing.assert_array_equal(one, two)
    for name in ("commitment",):
        np.testing.assert_array_equal(found[name], other[name])
    shown = batch["video_mask"]
    one, two = (np.asarray(x["reconstruction"])[shown] for x in (found, other))
    np.testing.assert_array_equal(one, two)


def test_the_terms_and_what_is_remembered(made):
    system, batch, given, apply = made
    found = apply(given, batch)
    terms = toy.means(system.loss, found, batch)
    target = batch["video"].astype(np.float64) / 127.5 - 1
    error = np.square(np.asarray(found["reconstruction"], np.float64) - target).mean((2, 3, 4))
    want = error[batch["video_mask"]].mean()
    np.testing.assert_allclose(terms["reconstruction"], want, rtol=1e-5)
    valid = np.broadcast_to(found["video_code_mask"][:, :, None, None], (3, 2, 2, 3))
    codes = np.asarray(found["video_codes"])
    assert terms["codes_used"] == pytest.approx(len(set(codes[valid])) / 7)
    book = given["codebook"]["quantizer"]
    error = np.square(np.asarray(found["latents"]) - np.asarray(book["codes"])[codes]).mean(-1)
    rows = [error[i][valid[i]].mean() for i in range(3)]
    np.testing.assert_allclose(found["commitment"], rows, rtol=1e-5)
    keys = row_keys(jax.random.key(0), jnp.arange(3))
    memory = {"codebook": given["codebook"]}
    context = Context(jnp.zeros((), jnp.int32), keys, None, memory)
    new = system.remember(memory, found, batch, context)["codebook"]["quantizer"]
    want = updated(book, found["latents"], found["video_codes"], valid, keys[0], decay=0.9)
    jax.tree.map(np.testing.assert_array_equal, new, want)
    assert not np.array_equal(new["codes"], book["codes"])


def test_sizes_that_do_not_fit_are_refused():
    for change, match in (
        ({"frames": 5}, "5 frames of .*: a code stands for 2 frames and 4 x 4 pixels"),
        ({"size": 10}, r"\(10, 10\) pixels: a code stands for"),
        ({"temporal": 3}, "temporal is 3: of 2 stages 0 to 2"),
        ({"codess": 3}, "config.model.codess"),
    ):
        with pytest.raises(ValueError, match=match):
            make_system({"model": MODEL | change, "loss": {}, "batch_size": 3})
