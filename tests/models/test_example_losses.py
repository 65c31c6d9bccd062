"""Every example's loss: against a plain reference, and its mean is the loss that is trained on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.models import systems as models

N = 9


def embeddings(seed=0):
    rng = np.random.default_rng(seed)
    x, y = (rng.normal(size=(N, 6)).astype(np.float32) for _ in "xy")
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
    outputs = {"image_embed": x, "text_embed": y, "logit_scale": np.float32(9)}
    batch = {
        "text": rng.integers(0, 3, (N, 2), np.int32),
        "example_id": rng.integers(0, 6, N, np.int32),
    }
    return jax.tree.map(jnp.asarray, outputs), jax.tree.map(jnp.asarray, batch)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("duplicates", "absent"), [(False, 0), (True, 0), (True, 3)])
def test_the_mean_over_pairs_is_the_contrastive_loss(kind, smoothing, duplicates, absent):
    outputs, batch = embeddings()
    present = np.arange(N) >= absent
    batch["image_present"], batch["text_present"] = jnp.asarray(present), jnp.ones(N, bool)
    if kind == "sigmoid":
        outputs["logit_bias"] = jnp.float32(-3)
    loss = {"kind": kind, "label_smoothing": smoothing, "mask_duplicates": duplicates}
    config = {"model": {"name": "clip"}, "loss": loss}
    losses = models.make_example_losses(config)(outputs, batch)
    assert losses.keys() == {"contrastive"} and losses["contrastive"].shape == (N,)
    whole = models.make_loss(config)(outputs, batch)["contrastive"]
    np.testing.assert_allclose(losses["contrastive"][present].mean(), whole, rtol=1e-5)
    assert (losses["contrastive"][~present] == 0).all()


def test_a_pair_has_its_own_two_cross_entropies():
    outputs, batch = embeddings()
    losses = models.make_example_losses({"model": {"name": "clip"}, "loss": {}})(outputs, batch)
    x, y = (np.asarray(outputs[k], np.float64) for k in ("image_embed", "text_embed"))
    for i in range(N):
        to_texts, to_images = 9 * y @ x[i], 9 * x @ y[i]
        want = np.log(np.exp(to_texts).sum()) + np.log(np.exp(to_images).sum())
        want = (want - to_texts[i] - to_images[i]) / 2
        np.testing.assert_allclose(losses["contrastive"][i], want, rtol=1e-5)


@pytest.mark.parametrize("soft", [False, True])
def test_a_classifier_s_examples_have_their_cross_entropies(soft):
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=(N, 4)), rng.integers(0, 4, N)
    target = rng.dirichlet(np.ones(4), N) if soft else np.eye(4)[label]
    batch = {"label": jnp.asarray(label, jnp.int32)}
    if soft:
        batch = {"label_probs": jnp.asarray(target, jnp.float32)}
    outputs = {"logits": jnp.asarray(logits, jnp.float32)}
    config = {"model": {"name": "vit"}, "loss": {"label_smoothing": 0.1}}
    losses = models.make_example_losses(config)(outputs, batch)
    target = 0.9 * target + 0.1 / 4
    want = np.log(np.exp(logits).sum(1)) - (target * logits).sum(1)
    np.testing.assert_allclose(losses["classification"], want, rtol=1e-5)
