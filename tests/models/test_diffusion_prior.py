"""The diffusion prior: what it is trained for, what a missing text does, and what it samples."""

import jax
import numpy as np
import pytest
import toy
from drawn import drawn

from mmjax.models.systems import make_system
from mmjax.system import Context, memory_of, row_keys
from mmjax.variables import abstract_variables

TOWER = {"width": 16, "depth": 1, "heads": 2, "mlp_dim": 32}
MODEL = {
    "name": "diffusion_prior",
    "embed_dim": 16,
    "image": {**TOWER, "patch_size": 4, "image_size": (8, 8)},
    "text": {**TOWER, "vocab_size": 64, "length": 8},
    "prior": {"width": 16, "depth": 2, "heads": 2},
    "schedule": {"steps": 20},
}


@pytest.fixture(scope="module")
def made():
    """The system, drawn variables, and a batch."""
    system = make_system({"model": MODEL, "loss": {}})
    variables = dict(drawn(abstract_variables(system.model, system.spec, system.memory)))
    assert memory_of(variables).keys() == {"buffers"}
    rng = np.random.default_rng(0)
    batch = {"image": rng.integers(0, 256, (8, 8, 8, 3), np.uint8), **toy._texts(rng, 8)}
    return system, variables, batch


def context(seed=0, rows=8):
    return Context(0, row_keys(jax.random.key(seed), jax.numpy.arange(rows)), None, {})


def test_the_loss_is_the_error_of_the_clean_embedding(made):
    system, variables, batch = made
    noised = system.corrupt(batch, context())
    outputs = jax.jit(system.model.apply)(variables, noised)
    mean, deviation = (np.asarray(variables["buffers"]["prior"][k]) for k in ("mean", "deviation"))
    clean = (np.asarray(outputs["image_embed"]) - mean) / deviation
    terms = system.loss(outputs, noised, context())
    expected = np.square(np.asarray(outputs["clean_embed"]) - clean).mean(-1)
    np.testing.assert_allclose(terms["prior"].value, expected, rtol=1e-4)
    # As a sampler calls it: at the noisy embedding of that level, with what CLIP made of a text.
    alpha, sigma = (
        np.asarray(x)[:, None] for x in system.model.noise_schedule().levels(noised["time"])
    )
    given = {k: outputs[k] for k in ("text_tokens", "text_embed")}
    given |= {k: noised[k] for k in ("time", "text_mask", "text_present")}
    given["noisy_embed"] = alpha * clean + sigma * np.asarray(noised["noise"])
    found = jax.jit(system.model.apply)(variables, given)
    np.testing.assert_allclose(found["clean_embed"], outputs["clean_embed"], atol=2e-5)


def test_no_gradient_reaches_the_clip(made):
    system, variables, batch = made
    noised = system.corrupt(batch, context())

    @jax.jit
    def gradients(params):
        def total(params):
            outputs = system.model.apply({**variables, "params": params}, noised)
            return system.loss(outputs, noised, context())["prior"].value.sum()

        return jax.grad(total)(params)

    found = gradients(variables["params"])
    prior = found.pop("prior")
    assert max(np.abs(x).max() for x in jax.tree.leaves(prior)) > 1e-3
    assert all(not np.any(x) for x in jax.tree.leaves(found))


def test_a_row_without_text_does_not_depend_on_it(made):
    system, variables, batch = made
    apply, noised = jax.jit(system.model.apply), system.corrupt(batch, context())
    present = np.arange(8) % 2 == 0
    other = np.roll(batch["text"], 1, 0)
    found = [
        apply(variables, {**noised, "text": text, "text_present": present})["clean_embed"]
        for text in (batch["text"], other)
    ]
    changed = np.abs(np.asarray(found[0]) - np.asarray(found[1])).max(1) > 1e-6
    assert not changed[~present].any()
    assert changed[present].any()


def test_texts_are_dropped_at_the_rate_that_the_loss_says():
    system = make_system({"model": MODEL, "loss": {"drop_text": 0.25}})
    present = system.corrupt({"text_present": np.arange(4000) >= 400}, context(rows=4000))
    kept = np.asarray(present["text_present"])
    assert not kept[:400].any()
    assert abs(kept[400:].mean() - 0.75) < 0.03
    time = np.asarray(present["time"])
    assert (time.min(), time.max()) == (0, 19)


def test_samples_are_unit_vectors_that_follow_from_key_and_text(made):
    system, variables, batch = made
    keys = context().rng
    settings = {"steps": 3, "guidance": 2.0}
    found = np.asarray(system.sample(variables, batch, keys, settings)["image_embed"])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    turned = {k: np.roll(x, 3, 0) for k, x in batch.items()}
    again = system.sample(variables, turned, keys[np.roll(np.arange(8), 3)], settings)
    np.testing.assert_allclose(again["image_embed"], np.roll(found, 3, 0), atol=1e-5)
    # Of two candidates the one nearer to the text: never farther than the first alone.
    one = np.asarray(
        system.sample(variables, batch, keys, {**settings, "candidates": 1})["image_embed"]
    )
    text = np.asarray(jax.jit(system.model.apply)(variables, batch)["text_embed"])
    gain = (found * text).sum(1) - (one * text).sum(1)
    assert (gain > -1e-5).all()
    assert (gain > 1e-3).any()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"candidates": 0}, "sample.candidates is 0"),
        ({"steps": 21}, "Sampling in 21 steps: .* has 20"),
        ({"sampler": "ddin"}, "sample.sampler is 'ddin'.*Did you mean 'ddim'"),
    ],
)
def test_wrong_settings_of_sampling_are_refused(made, settings, said):
    system, variables, batch = made
    with pytest.raises(ValueError, match=said):
        system.sample(variables, batch, context().rng, settings)


def test_guidance_needs_dropped_texts(made):
    _, variables, batch = made
    system = make_system({"model": MODEL, "loss": {"drop_text": 0.0}})
    with pytest.raises(ValueError, match="guidance is 3.0, and this prior was trained with a text"):
        system.sample(variables, batch, context().rng, {"guidance": 3.0})
    with pytest.raises(ValueError, match="makes embeddings of texts and the batch has none"):
        system.sample(variables, {}, context().rng, {})
    with pytest.raises(ValueError, match="drop_text is 1.5"):
        make_system({"model": MODEL, "loss": {"drop_text": 1.5}})
