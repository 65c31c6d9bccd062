"""GLIDE: what training gives the model, and what sampling keeps of what is known."""

import jax
import numpy as np
import pytest
import toy
from drawn import drawn

from mmjax.models.systems import make_system
from mmjax.system import Context, row_keys
from mmjax.variables import abstract_variables

BACKBONE = {"kind": "unet", "channels": (8, 8), "blocks": 1, "attention": (False, True)}
MODEL = {
    "name": "glide",
    "image_size": 8,
    "backbone": {**BACKBONE, "head_dim": 4, "groups": 2},
    "text": {"vocab_size": 64, "length": 8, "width": 16, "depth": 1, "heads": 2},
    "text_dropout": 0.5,
    "low_res": 4,
    "low_res_noise": 0.5,
    "inpaint": True,
    "schedule": {"steps": 20},
}


def context(rows=8):
    return Context(0, row_keys(jax.random.key(0), jax.numpy.arange(rows)), None, {})


@pytest.fixture(scope="module")
def made():
    """A system that enlarges and fills in, drawn variables, and a batch."""
    system = make_system({"model": MODEL})
    variables = drawn(abstract_variables(system.model, system.spec))
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (8, 8, 8, 3), np.uint8)
    return system, variables, {"image": image, **toy._texts(rng, 8)}


def test_training_drops_texts_and_masks_rectangles(made):
    system = make_system({"model": MODEL})
    image = np.random.default_rng(0).integers(0, 256, (600, 8, 8, 3), np.uint8)
    found = jax.device_get(system.corrupt({"image": image}, context(600)))
    assert abs(found["text_present"].mean() - 0.5) < 0.07
    masks = found["inpaint_mask"]
    nothing = ~masks.any((1, 2))
    assert 0.05 < nothing.mean() < 0.2
    for mask in masks[~nothing][:50]:  # what is not known is a rectangle
        rows, columns = (~mask).any(1), (~mask).any(0)
        np.testing.assert_array_equal(~mask, rows[:, None] & columns[None])
    small = (image.astype(np.float64) / 127.5 - 1).reshape(600, 4, 2, 4, 2, 3).mean((2, 4))
    deviation = (found["low_res"] - small).reshape(600, -1).std(1)
    assert deviation.max() < 0.7
    assert 0.2 < deviation.mean() < 0.3


def test_sampling_keeps_known_pixels_and_does_not_depend_on_the_batch(made):
    system, variables, batch = made
    rng = np.random.default_rng(1)
    mask = rng.random((8, 8, 8)) < 0.5
    low = rng.uniform(-1, 1, (8, 4, 4, 3)).astype(np.float32)
    given = {**batch, "inpaint_mask": mask, "low_res": low}
    settings = {"steps": 2, "guidance": 2.0, "frames": 2}
    draw = jax.jit(lambda batch, keys: system.sample(variables, batch, keys, settings))
    keys = context().rng
    found = jax.device_get(draw(given, keys))
    np.testing.assert_array_equal(found["image"][mask], batch["image"][mask])
    assert (found["image"][~mask] != batch["image"][~mask]).any()
    assert found["frames"].shape == (2, 8, 8, 8, 3)
    turned = np.roll(np.arange(8), 3)
    again = draw({k: x[turned] for k, x in given.items()}, keys[turned])
    # Rounding to 256 values may tip over.
    difference = again["image"].astype(int) - found["image"][turned].astype(int)
    assert np.abs(difference).max() <= 1
    other = draw({**given, "low_res": -low}, keys)["image"]
    assert (np.asarray(other) != found["image"]).any()


def test_guidance_moves_away_from_the_sample_without_text(made):
    system, variables, batch = made
    text = {k: batch[k] for k in ("text", "text_mask")}
    low = np.zeros((8, 4, 4, 3), np.float32)
    apply = jax.jit(lambda batch: system.model.apply(variables, batch))
    step = {"noised": np.ones((8, 8, 8, 3), np.float32), "time": np.full(8, 5.0, np.float32)}
    step["low_res"] = low
    with_text, without = (
        apply({**text, **step, "text_present": np.full(8, here)})["prediction"]
        for here in (True, False)
    )
    assert np.abs(np.asarray(with_text) - np.asarray(without)).max() > 1e-3
    # Without a text all rows have the same condition.
    np.testing.assert_allclose(without, np.repeat(without[:1], 8, 0), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_classes": 3}, "leave out config.model.num_classes"),
        ({"text_dropout": 1.0}, "text_dropout is 1.0"),
        ({"low_res": 3}, "low_res is 3, and images are 8 x 8"),
        ({"text": {"length": 8}}, "vocab_size"),
        ({"image_size": 9, "low_res": None}, "cannot be halved"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, said):
    with pytest.raises((ValueError, TypeError), match=said):
        make_system({"model": MODEL | change})


def test_guidance_needs_dropped_texts(made):
    _, variables, batch = made
    system = make_system({"model": MODEL | {"text_dropout": 0.0}})
    with pytest.raises(
        ValueError, match="guidance is 3.0, and the model never saw an image without"
    ):
        system.sample(variables, batch, context().rng, {"guidance": 3.0, "steps": 2})
    with pytest.raises(ValueError, match="enlarges an image and the batch has none"):
        texts = {k: batch[k] for k in ("text", "text_mask")}
        system.sample(variables, texts, context().rng, {"steps": 2})
    with pytest.raises(ValueError, match="Sampling in 30 steps"):
        system.sample(variables, batch, context().rng, {"steps": 30})
