"""Diffusion as a system: what a step draws, what is sampled, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import drawn

from mmjax.models.systems import make_system
from mmjax.system import evaluation_context
from mmjax.variables import abstract_variables

UNET = {"kind": "unet", "channels": (8, 8), "blocks": 1, "attention": (False, True)}
UNET |= {"head_dim": 4, "groups": 2}
MODEL = {"name": "diffusion", "image_size": (8, 12), "num_classes": 3, "condition_dropout": 0.5}
MODEL |= {"backbone": UNET, "learned_variance": True, "target": "v", "gray": True}


def system(loss=None, **changed):
    return make_system({"model": MODEL | changed, "loss": loss or {}})


def batch(rows=64):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (rows, 8, 12, 3), np.uint8)
    label = rng.integers(0, 3, rows, np.int32)
    return {"image": image, "label": label, "example_id": np.arange(rows, dtype=np.int32)}


@pytest.fixture(scope="module")
def variables():
    made = system()
    return {"params": drawn(abstract_variables(made.model, made.spec)["params"])}


def test_a_step_draws_times_noise_and_dropped_classes_by_row():
    made, given = system(), batch()
    found = made.corrupt(given, evaluation_context(given, 0, {}))
    alpha, sigma = (x[:, None, None, None] for x in made.model.noise_schedule.levels(found["time"]))
    x0 = given["image"].mean(-1, keepdims=True, dtype=np.float32) / 127.5 - 1
    shape = x0.shape
    noised = jnp.broadcast_to(alpha, shape) * x0 + jnp.broadcast_to(sigma, shape) * found["noise"]
    np.testing.assert_allclose(found["noised"], noised, atol=1e-5)
    assert len(np.unique(found["time"])) > 50 and abs(found["noise"].std() - 1) < 0.05
    dropped = np.asarray(found["label"]) == -1
    assert 0.3 < dropped.mean() < 0.7
    np.testing.assert_array_equal(np.asarray(found["label"])[~dropped], given["label"][~dropped])
    few = {k: x[7:9] for k, x in given.items()}
    again = made.corrupt(few, evaluation_context(few, 0, {}))
    for name, value in again.items():
        np.testing.assert_allclose(value, found[name][7:9], atol=1e-6)


def test_the_loss_of_a_perfect_prediction_is_zero():
    for weighting in ("uniform", "min_snr"):
        made, given = system({"weighting": weighting}), batch(8)
        context = evaluation_context(given, 0, {})
        found = made.corrupt(given, context)
        x0 = made.model.clean(given)
        levels = made.model.noise_schedule.levels(found["time"])
        alpha, sigma = (jnp.broadcast_to(x[:, None, None, None], x0.shape) for x in levels)
        right = alpha * found["noise"] - sigma * x0
        zero = jnp.zeros_like(x0)
        terms = made.loss({"prediction": right, "variance": zero - 1}, found, context)
        assert terms["simple"].max() < 1e-10
        wrong = made.loss({"prediction": right + 0.1, "variance": zero - 1}, found, context)
        assert wrong["simple"].min() > 0 and (wrong["vlb"] >= terms["vlb"] - 1e-3).all()
        assert np.isfinite(terms["vlb"]).all()


def test_samples_follow_from_their_keys_and_classes(variables):
    made, keys = system(), jax.random.split(jax.random.key(1), 4)
    settings = {"steps": 3, "frames": 2, "guidance": 2.0, "sampler": "ddpm"}

    def run(keys, label):
        return made.sample(variables, {"label": label}, keys, settings)

    label = jnp.asarray([0, 1, 2, 0], jnp.int32)
    found = run(keys, label)
    assert found["image"].shape == (4, 8, 12, 3) and found["image"].dtype == jnp.uint8
    assert found["frames"].shape == (2, 4, 8, 12, 3)
    np.testing.assert_array_equal(found["frames"][-1], found["image"])
    np.testing.assert_array_equal(found["image"][..., 0], found["image"][..., 2])  # gray
    turned = run(keys[::-1], label[::-1])["image"][::-1].astype(jnp.int32)
    assert jnp.abs(turned - found["image"].astype(jnp.int32)).max() <= 1  # rounding
    other = run(keys, (label + 1) % 3)["image"]
    assert (other != found["image"]).any((1, 2, 3)).all()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"image_size": (9, 12)}, "9x12 cannot be halved 1 times"),
        ({"backbone": UNET | {"kind": "vit"}}, "use one of unet, dit"),
        ({"backbone": UNET | {"chanels": (8,)}}, "Did you mean 'channels'"),
        ({"latents": (8, 8, 4)}, "one of the two"),
        ({"num_classes": None}, "no classes to drop"),
        ({"target": "noise"}, "use one of epsilon, x0, v"),
        ({"schedule": {"name": "cosine"}}, "use one of linear"),
        ({"schedule": {"name": "continuous_cosine"}}, "is continuous"),
        ({"backbone": {"kind": "dit", "variant": "XXL/2"}}, "one of S, B, L, XL"),
    ],
)
def test_a_model_that_cannot_be_is_refused(changed, words):
    with pytest.raises(ValueError, match=words):
        made = system(**changed)
        abstract_variables(made.model, made.spec)


@pytest.mark.parametrize(
    ("changed", "given", "settings", "words"),
    [
        ({"condition_dropout": 0.0}, {"label": [0]}, {"guidance": 2.0}, "condition_dropout, or"),
        ({"condition_dropout": 0.0}, {}, {}, "give the label of each"),
        ({"condition_dropout": 0.0}, {"label": [-1]}, {}, "an example without a label"),
        ({}, {"label": jnp.array([3])}, {}, "the label 3"),
        ({}, {}, {"steps": 1001}, "take from 1 to 1000"),
        ({}, {}, {"stepz": 10}, "Did you mean 'steps'"),
        (
            {"num_classes": None, "condition_dropout": 0.0},
            {},
            {"guidance": 2.0},
            "no classes to be guided by",
        ),
    ],
)
def test_sampling_that_the_model_was_not_trained_for_is_refused(changed, given, settings, words):
    made, keys = system(**changed), jax.random.split(jax.random.key(0), 1)
    with pytest.raises(ValueError, match=words):
        made.sample({}, given, keys, settings)


def test_labels_without_a_row_are_refused():
    with pytest.raises(ValueError, match="the label 3"):
        system().check_batch({"label": np.array([3])})
    with pytest.raises(ValueError, match="an example without a label"):
        system(condition_dropout=0.0).check_batch({"label": np.array([-1])})
    with pytest.raises(ValueError, match="use one of uniform, min_snr"):
        system({"weighting": "snr"})


def test_without_condition_dropout_the_loss_leaves_out_examples_without_a_label():
    made, given = system(condition_dropout=0.0), batch(3)
    given["label"] = np.array([1, -1, 2], np.int32)
    context = evaluation_context(given, 0, {})
    found = made.corrupt(given, context)
    zero = jnp.zeros((3, 8, 12, 1))
    terms = made.loss({"prediction": zero, "variance": zero}, found, context)
    for term in terms.values():
        np.testing.assert_array_equal(term.weight, [True, False, True])
