"""Every example's loss terms, and their mean over a batch, against plain references."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from mmjax.models.classification import classification
from mmjax.models.clip import contrastive
from mmjax.system import Weighted, average

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
def test_the_mean_is_over_the_pairs_that_are_there(kind, smoothing, duplicates, absent):
    outputs, batch = embeddings()
    present = np.arange(N) >= absent
    if kind == "sigmoid":
        outputs["logit_bias"] = jnp.float32(-3)
    loss = contrastive(kind=kind, label_smoothing=smoothing, mask_duplicates=duplicates)
    marks = {"image_present": jnp.asarray(present), "text_present": jnp.ones(N, bool)}
    terms = loss(outputs, batch | marks, None)
    for name in ("contrastive", "image_to_text_accuracy", "text_to_image_accuracy"):
        assert terms[name].value.shape == (N,)
        np.testing.assert_array_equal(terms[name].weight, present)
    # The same batch without the pairs that are not there.
    few = {k: x[present] if x.ndim else x for k, x in outputs.items()}
    want = loss(few, {k: x[present] for k, x in batch.items()}, None)
    assert want.keys() == terms.keys() and want["contrastive"].shape == (N - absent,)
    for name, term in terms.items():
        if isinstance(term, Weighted):
            np.testing.assert_allclose(term.value[present], want[name], rtol=1e-5)
            np.testing.assert_allclose(average(term)[0], want[name].mean(), rtol=1e-5)
        else:
            np.testing.assert_allclose(term, want[name])


def test_a_pair_has_its_own_two_cross_entropies():
    outputs, batch = embeddings()
    losses = contrastive()(outputs, batch, None)["contrastive"]
    x, y = (np.asarray(outputs[k], np.float64) for k in ("image_embed", "text_embed"))
    for i in range(N):
        to_texts, to_images = 9 * y @ x[i], 9 * x @ y[i]
        want = np.log(np.exp(to_texts).sum()) + np.log(np.exp(to_images).sum())
        want = (want - to_texts[i] - to_images[i]) / 2
        np.testing.assert_allclose(losses[i], want, rtol=1e-5)
    found = toy.means(contrastive(), outputs, batch)["contrastive"]
    np.testing.assert_allclose(found, losses.mean(), rtol=1e-6)


@pytest.mark.parametrize("soft", [False, True])
def test_a_classifier_s_examples_have_their_cross_entropies(soft):
    rng = np.random.default_rng(0)
    logits, label = rng.normal(size=(N, 4)), rng.integers(0, 4, N)
    target = rng.dirichlet(np.ones(4), N) if soft else np.eye(4)[label]
    batch = {"label": jnp.asarray(label, jnp.int32)}
    if soft:
        batch = {"label_probs": jnp.asarray(target, jnp.float32)}
    outputs = {"logits": jnp.asarray(logits, jnp.float32)}
    found = classification(0.1)(outputs, batch, None)["classification"]
    target = 0.9 * target + 0.1 / 4
    want = np.log(np.exp(logits).sum(1)) - (target * logits).sum(1)
    np.testing.assert_allclose(found.value, want, rtol=1e-5)
    np.testing.assert_allclose(average(found)[0], want.mean(), rtol=1e-5)


def test_an_example_without_a_label_has_no_classification():
    rng = np.random.default_rng(0)
    outputs = {"logits": jnp.asarray(rng.normal(size=(N, 4)), jnp.float32)}
    label = rng.integers(0, 4, N).astype(np.int32)
    known = np.arange(N) % 3 != 1
    batch = {"label": jnp.asarray(np.where(known, label, -1))}
    found = toy.means(classification(), outputs, batch)
    few = toy.means(classification(), {"logits": outputs["logits"][known]}, {"label": label[known]})
    for name in ("classification", "accuracy"):
        np.testing.assert_allclose(found[name], few[name], rtol=1e-6)
