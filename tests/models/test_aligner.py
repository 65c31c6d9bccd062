"""The aligner: what reads which head, beside NumPy, and the adversary's gradient."""

import functools

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
from flax.core import meta

from mmjax.models.systems import make_system

FIELDS = {
    "name": "aligner",
    "image_width": 6,
    "text_width": 5,
    "head": {"inner": 0},
    "discriminator": 3,
    "reversal": 0.5,
}
RNG = np.random.default_rng(0)
BATCH = {
    "image_features": RNG.normal(size=(4, 6)).astype(np.float32),
    "text_features": RNG.normal(size=(4, 5)).astype(np.float32),
}
TERMS = ("adversarial", "translation", "cycle")


@functools.cache
def found():
    """Parameters, outputs, means and gradients of three terms of a translation to texts."""
    weights = dict.fromkeys((*TERMS, "transport", "centroids"), 1.0)
    model = {**FIELDS, "space": "text", "cycle": True}
    system = make_system({"model": model, "loss": {}, "loss_weights": weights})
    shapes = jax.eval_shape(system.model.init, jax.random.key(0), BATCH)
    params = drawn.drawn(meta.unbox(shapes))["params"]

    @jax.jit
    def run(params):
        def f(p):
            outputs = system.model.apply({"params": p}, BATCH)
            means = toy.means(system.loss, outputs, BATCH)
            return {k: means[k] for k in TERMS}, (means, outputs)

        grads, (means, outputs) = jax.jacrev(f, has_aux=True)(params)
        return outputs, means, grads

    return params, *run(params)


def standard(x):
    x = x.astype(np.float64)
    return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)


def relative(x, target):
    return (np.square(x - target).sum(1) / np.square(target).sum(1)).mean()


def test_translation_and_cycle_by_numpy():
    params, outputs, means, _ = found()
    there, back = (np.asarray(params[f"{m}_head"]["linear"]["kernel"]) for m in ("image", "text"))
    x, y = (standard(BATCH[f"{m}_features"]) for m in ("image", "text"))
    moved = x @ there
    unit = {"image": moved, "text": y}
    for m, z in unit.items():
        unit[m] = z / np.linalg.norm(z, axis=1, keepdims=True)
        np.testing.assert_allclose(outputs[f"{m}_embed"], unit[m], atol=1e-5)
    np.testing.assert_allclose(means["translation"], relative(moved, y), rtol=1e-4)
    cycles = relative(standard(moved) @ back, x), relative(standard(y @ back) @ there, y)
    np.testing.assert_allclose(means["cycle"], np.mean(cycles), rtol=1e-4)
    gap = np.square(unit["image"].mean(0) - unit["text"].mean(0)).sum()
    np.testing.assert_allclose(means["centroids"], gap, rtol=1e-4)
    cosines = (unit["image"] * unit["text"]).sum(1)
    np.testing.assert_allclose(means["alignment"], (1 - cosines).mean(), rtol=1e-4)
    assert {"contrastive", "transport", "adversarial_accuracy", "logit_scale"} < set(means)


def test_the_head_climbs_what_the_discriminator_descends():
    params, outputs, means, grads = found()

    def plain(head):
        """The adversarial loss without a reversal."""
        x = jax.nn.standardize(BATCH["image_features"], axis=-1, epsilon=1e-5) @ head
        x = x / jnp.linalg.norm(x, axis=1, keepdims=True)
        p = params["discriminator"]
        logits = []
        for z in (x, outputs["text_embed"]):
            h = jax.nn.gelu(z @ p["up"]["kernel"] + p["up"]["bias"][None], approximate=False)
            logits.append((h @ p["down"]["kernel"] + p["down"]["bias"][None])[:, 0])
        return (jax.nn.softplus(-logits[0]) + jax.nn.softplus(logits[1])).mean() / 2

    value, gradient = jax.jit(jax.value_and_grad(plain))(params["image_head"]["linear"]["kernel"])
    np.testing.assert_allclose(means["adversarial"], value, rtol=1e-5)
    of_head = grads["adversarial"]["image_head"]["linear"]["kernel"]
    np.testing.assert_allclose(of_head, -0.5 * gradient, rtol=1e-4, atol=1e-7)
    assert all(g.any() for g in jax.tree.leaves(grads["adversarial"]["discriminator"]))
    for term in ("translation", "cycle"):
        assert not any(g.any() for g in jax.tree.leaves(grads[term]["discriminator"]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"space": "txt"}, "config.model.space is 'txt': use one of"),
        ({"cycle": True}, "config.model.cycle maps back .* config.model.space is 'joint'"),
        ({"head": {"iner": 3}}, "config.model.head.iner is not a setting of FeatureHead"),
    ],
)
def test_bad_settings_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        make_system({"model": {**FIELDS, **fields}, "loss": {}})


@pytest.mark.parametrize(
    ("fields", "term"),
    [
        ({"discriminator": 4}, "adversarial"),
        ({"space": "text", "cycle": True, "discriminator": 0}, "cycle"),
    ],
)
def test_parts_that_no_loss_trains_are_refused(fields, term):
    config = {"model": {**FIELDS, **fields}, "loss": {}}
    with pytest.raises(ValueError, match=f"config.loss_weights has no '{term}', which trains it"):
        make_system({**config, "loss_weights": {"contrastive": 1.0}})
    make_system({**config, "loss_weights": {"contrastive": 1.0, term: 0.5}})
    make_system(config)
