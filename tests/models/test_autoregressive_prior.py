"""The autoregressive and the one-shot prior: components, codes, the cache, and what they sample."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from drawn import drawn

from mmjax.decode.generate import read_token
from mmjax.layers.principal import LIMIT, PrincipalCodes, fitted
from mmjax.models.autoregressive_prior import upper_half
from mmjax.models.systems import make_system
from mmjax.system import Context, memory_of, row_keys
from mmjax.variables import abstract_variables

TOWER = {"width": 16, "depth": 1, "heads": 2, "mlp_dim": 32}
MODEL = {
    "name": "diffusion_prior",
    "kind": "autoregressive",
    "embed_dim": 16,
    "image": {**TOWER, "patch_size": 4, "image_size": (8, 8)},
    "text": {**TOWER, "vocab_size": 64, "length": 8},
    "prior": {"width": 16, "depth": 2, "heads": 2, "components": 6, "buckets": 32, "examples": 20},
}


def context(memory, rows=8):
    return Context(0, row_keys(jax.random.key(0), jnp.arange(rows)), None, memory)


@pytest.fixture(scope="module")
def made():
    """The system, drawn variables after three steps of `remember`, its model, and a batch."""
    system = make_system({"model": MODEL, "loss": {}})
    variables = dict(drawn(abstract_variables(system.model, system.spec, system.memory)))
    prior = variables["buffers"]["prior"]
    prior["codes"] |= {k: np.zeros_like(prior["codes"][k]) for k in ("count", "sum", "square")}
    prior["codes"]["kept"] *= 0
    prior["dots"] *= 0
    rng, apply = np.random.default_rng(0), jax.jit(system.model.apply)
    for step in range(3):
        batch = {"image": rng.integers(0, 256, (8, 8, 8, 3), np.uint8), **toy._texts(rng, 8)}
        corrupted = system.corrupt(batch, context({}))
        outputs = apply(variables, corrupted)
        terms = system.loss(outputs, corrupted, context(memory_of(variables)))
        assert not np.any(terms["prior"].weight)  # nothing is learned before the components
        if step < 2:
            assert variables["buffers"]["prior"]["codes"]["count"] == 8 * step
        memory = system.remember(memory_of(variables), outputs, corrupted, context({}))
        variables |= jax.device_get(memory)
    return system, variables, apply, batch


def test_components_are_those_of_the_covariance_and_codes_lead_back():
    rng, size, kept = np.random.default_rng(0), 12, 5
    mix = rng.normal(size=(size, size)) * 0.5 ** np.arange(size)
    vectors = (rng.normal(size=(400, size)) @ mix.T + 0.3).astype(np.float32)
    model = PrincipalCodes(size, kept, 256)
    book = dict(model.init(jax.random.key(0), vectors[:1])["buffers"])
    update = jax.jit(lambda book, x, valid: fitted(book, x, valid, 300))
    valid = rng.random(400) < 0.9
    for start in range(0, 400, 50):
        rows = slice(start, start + 50)
        book = update(book, vectors[rows], valid[rows])
    seen = vectors[:350][valid[:350]].astype(np.float64)  # 300 are reached in the seventh step
    assert book["count"] == len(seen) >= 300
    variance, axes = np.linalg.eigh(np.cov(seen.T, bias=True))
    np.testing.assert_allclose(book["deviation"] ** 2, variance[::-1][:kept], rtol=1e-3)
    np.testing.assert_allclose(book["kept"], variance[-kept:].sum() / variance.sum(), rtol=1e-4)
    aligned = np.abs(np.asarray(book["basis"]).T @ axes[:, ::-1][:, :kept])
    np.testing.assert_allclose(aligned, np.eye(kept), atol=0.02)
    codes = model.apply({"buffers": book}, vectors)
    assert (codes.min(), codes.max()) >= (0, 0) and codes.max() < 256
    back = model.apply({"buffers": book}, codes, method="decode")
    basis, mean = np.asarray(book["basis"]), np.asarray(book["mean"])
    y = ((vectors - mean) @ basis) / np.asarray(book["deviation"])
    again = ((np.asarray(back) - mean) @ basis) / np.asarray(book["deviation"])
    inside = np.abs(y) < LIMIT
    assert inside.mean() > 0.99
    assert np.abs(y - again)[inside].max() <= LIMIT / 256 + 1e-4


def test_the_cache_gives_the_losses_of_the_whole_pass(made):
    system, variables, apply, batch = made
    corrupted = system.corrupt(batch, context({}))
    outputs = apply(variables, corrupted)
    terms = system.loss(outputs, corrupted, context(memory_of(variables)))
    assert np.all(terms["prior"].weight == 1)
    assert 0 < terms["kept_variance"] <= 1
    losses = np.asarray(outputs["code_losses"])
    np.testing.assert_allclose(terms["prior"].value, losses.mean(1), rtol=1e-6)
    present = np.asarray(corrupted["text_present"])[:, None]
    text = {
        "text_tokens": outputs["text_tokens"],
        "text_mask": batch["text_mask"] & present,
        "text_embed": np.where(present, outputs["text_embed"], 0),
        "dot": outputs["dot"],
    }
    own = {"params": variables["params"]["prior"], "buffers": variables["buffers"]["prior"]}
    network = system.model.transformer(parent=None)
    codes = network.apply(own, outputs["image_embed"], method=lambda m, x: m.codes(x))
    found, made = jax.jit(
        lambda own, text: network.apply(own, text, cache_length=16, mutable=["cache"])
    )(own, text)
    logits, cache, again = found["next_logits"], made["cache"], []
    advance = jax.jit(lambda own, cache, token: read_token(network, own, cache, token))
    for token in np.asarray(codes).T:
        again.append(-jax.nn.log_softmax(logits)[np.arange(8), token])
        logits, made = advance(own, cache, token)
        cache = made["cache"]
    np.testing.assert_allclose(np.stack(again, 1), losses, atol=2e-5)
    # The codes say what the embedding is, but for the components that are left out.
    cosine = (outputs["quantized_embed"] * outputs["image_embed"]).sum(1)
    assert (np.asarray(cosine) > 0.9).all()


def test_samples_are_unit_vectors_that_follow_from_key_and_text(made):
    system, variables, _, batch = made
    keys = context({}).rng
    settings = {"guidance": 2.0, "candidates": 1}
    found = np.asarray(system.sample(variables, batch, keys, settings)["image_embed"])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    turned = {k: np.roll(x, 3, 0) for k, x in batch.items()}
    again = system.sample(variables, turned, keys[np.roll(np.arange(8), 3)], settings)
    np.testing.assert_allclose(again["image_embed"], np.roll(found, 3, 0), atol=1e-5)


def test_dot_products_are_drawn_from_the_upper_half(made):
    dots = np.asarray(made[1]["buffers"]["prior"]["dots"])
    assert 10 < dots.sum() <= 24  # of the rows with a text
    counts = jnp.asarray([5.0, 0, 3, 2, 10, 0, 5, 5])
    found = upper_half(counts, row_keys(jax.random.key(0), jnp.arange(4000)))
    share = np.bincount(found, minlength=8) / 4000
    np.testing.assert_allclose(share, [0, 0, 0, 0, 0.5, 0, 0.25, 0.25], atol=0.03)


def test_a_one_shot_prior_sees_the_text_alone():
    system = make_system({"model": MODEL | {"kind": "one_shot", "prior": {**TOWER}}, "loss": {}})
    variables = drawn(abstract_variables(system.model, system.spec, system.memory))
    rng = np.random.default_rng(0)
    batch = {"image": rng.integers(0, 256, (8, 8, 8, 3), np.uint8), **toy._texts(rng, 8)}
    corrupted = {**system.corrupt(batch, context({})), "text_present": np.ones(8, bool)}
    apply = jax.jit(system.model.apply)
    outputs = apply(variables, corrupted)
    other = apply(variables, {**corrupted, "image": batch["image"][::-1], "time": np.zeros(8)})
    np.testing.assert_array_equal(outputs["clean_embed"], other["clean_embed"])
    found = system.sample(variables, batch, context({}).rng, {})["image_embed"]
    predicted = np.asarray(outputs["predicted_embed"])
    unit = predicted / np.linalg.norm(predicted, axis=1, keepdims=True)
    np.testing.assert_allclose(found, unit, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "one-shot"}, "Did you mean 'one_shot'"),
        ({"prior": {**MODEL["prior"], "components": 17}}, "components is 17, and the CLIP's"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        make_system({"model": MODEL | change, "loss": {}})


@pytest.mark.parametrize(
    ("prior", "ready", "steps", "said"),
    [
        ({"examples": 6}, 99, 9, "components is 6, to be found from .* 6 embeddings: set more"),
        ({}, 6, 9, "components is 6 and a folder has 6 examples, .* set it to at most 5"),
        ({}, 99, 2, "examples is 20 and the run sees 16, .* nothing is learned before"),
    ],
)
def test_components_that_no_run_would_find_are_refused_before_training(prior, ready, steps, said):
    source = types.SimpleNamespace(name="a folder", ready=99)
    config = {"model": MODEL, "loss": {}, "total_steps": 9, "batch_size": 8}
    make_system(config).check_source(source)
    config |= {"model": MODEL | {"prior": {**MODEL["prior"], **prior}}, "total_steps": steps}
    source.ready = ready
    with pytest.raises(ValueError, match=said):
        make_system(config).check_source(source)
