"""Contrastive losses against a float64 double loop, closed forms, optax and finite differences."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from contrastive_reference import kept, slow_gradients, slow_loss
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.losses.contrastive import MEMORY_MB, choose, contrastive_loss, held_bytes
from mmjax.system import Weighted, average

BOTH = pytest.mark.parametrize("implementation", ["dense", "chunked"])
KINDS = pytest.mark.parametrize("kind", ["softmax", "sigmoid"])


def pairs(n, dim, seed=0, noise=1.0, length=1.0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, dim))
    y = x + noise * rng.standard_normal((n, dim))
    unit = lambda a: length * a / np.linalg.norm(a, axis=1, keepdims=True)  # noqa: E731
    return unit(x).astype(np.float32), unit(y).astype(np.float32)


def means(found, present=None):
    """(mean loss, metrics) of what `contrastive_loss` gives, over the pairs that are present."""
    losses, metrics = found
    weigh = lambda x: x if present is None or not x.ndim else Weighted(x, present)  # noqa: E731
    metrics = {name: average(weigh(x))[0] for name, x in metrics.items()}
    return average(weigh(losses))[0], metrics


@functools.cache
def compiled(weight, options):
    def loss(x, y, scale, bias, ids):
        value, metrics = means(contrastive_loss(x, y, scale, bias, **ids, **dict(options)))
        return weight * value, metrics

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))


def value_and_gradients(x, y, scale, bias=0.0, *, weight=1.0, ids=None, **options):
    """((weight * loss, metrics), gradients by the four arguments), compiled once a shape."""
    arguments = [jnp.asarray(a, jnp.float32) for a in (x, y, scale, bias)]
    ids = {name: jnp.asarray(values, jnp.int32) for name, values in (ids or {}).items()}
    return compiled(weight, tuple(options.items()))(*arguments, ids)


def loss_and_metrics(*arguments, **options):
    return value_and_gradients(*arguments, **options)[0]


@pytest.mark.parametrize(
    ("kind", "label_smoothing", "ids", "n", "chunk_size"),
    [
        ("softmax", 0.0, (), 13, 4),  # uneven chunks
        ("softmax", 0.0, (), 12, 6),  # even ones
        ("softmax", 0.2, (), 7, 2),
        ("softmax", 0.0, ("text",), 13, 5),
        ("softmax", 0.2, ("image", "text"), 11, 4),
        ("softmax", 0.2, ("image", "text"), 1, 4),
        ("sigmoid", 0.0, (), 13, 4),
        ("sigmoid", 0.0, ("image",), 8, 64),  # one chunk
        ("sigmoid", 0.2, ("image", "text"), 11, 4),
        ("sigmoid", 0.2, (), 5, 1),
    ],
)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 1000),
    scale=st.floats(0, 100),
    noise=st.sampled_from([0.1, 1.0, 10.0]),
    length=st.sampled_from([1.0, 0.1, 3.0]),
)
def test_both_forms_equal_the_double_loop_and_each_other(
    kind, label_smoothing, ids, n, chunk_size, seed, scale, noise, length
):
    x, y = pairs(n, 4, seed, noise, length)
    rng = np.random.default_rng(seed)
    ids = {f"{name}_ids": rng.integers(0, max(2, n - 2), n) for name in ids}
    options = {"kind": kind, "label_smoothing": label_smoothing}
    scale = float(np.float32(scale))
    exact = slow_loss(x, y, scale, -3.0, **options, **ids)
    dense, chunked = (
        value_and_gradients(
            x, y, scale, -3.0, ids=ids, implementation=name, chunk_size=chunk_size, **options
        )
        for name in ("dense", "chunked")
    )
    np.testing.assert_allclose(dense[0][0], exact, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(chunked[0][0], exact, rtol=1e-5, atol=1e-6)
    assert {k: float(v) for k, v in dense[0][1].items()} == chunked[0][1]
    for got, expected in zip(chunked[1], dense[1], strict=True):
        # 1e-5 of the gradient's largest entry.
        np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max() + 1e-7)


@BOTH
@pytest.mark.parametrize("directions", [(1.0, 0.0), (0.2, 0.8)])
def test_directions_have_their_own_weights(implementation, directions):
    """The gradient of a weighted sum of two cross-entropies, each of optax."""
    x, y = pairs(7, 4, noise=2.0)
    options = {"implementation": implementation, "directions": directions, "chunk_size": 3}
    (loss, _), gradients = value_and_gradients(x, y, 5.0, **options)

    def plain(x, y, scale):
        logits, own = scale * x @ y.T, jnp.arange(len(x))
        both = [optax.softmax_cross_entropy_with_integer_labels(z, own) for z in (logits, logits.T)]
        return sum(w * z.mean() for w, z in zip(directions, both))

    want, exact = jax.value_and_grad(plain, (0, 1, 2))(x, y, jnp.float32(5.0))
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    for got, expected in zip(gradients, exact):
        np.testing.assert_allclose(got, expected, atol=1e-5)


@BOTH
@KINDS
@pytest.mark.parametrize(
    ("label_smoothing", "ids"),
    [(0.0, {}), (0.2, {"image_ids": [1, 2, 1, 3, 4], "text_ids": [7, 5, 6, 5, 9]})],
)
def test_gradients_equal_finite_differences(implementation, kind, label_smoothing, ids):
    x, y = pairs(5, 3, noise=2.0)
    options = {"kind": kind, "label_smoothing": label_smoothing}
    expected = slow_gradients(x, y, 4.0, -1.0, **options, **ids)
    forms = {"implementation": implementation, "chunk_size": 2, **options}
    _, gradients = value_and_gradients(x, y, 4.0, -1.0, weight=2.5, ids=ids, **forms)
    for got, finite in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(got, 2.5 * finite, rtol=1e-5, atol=2e-6)


@BOTH
def test_equal_embeddings_give_log_n(implementation):
    x = np.tile(pairs(1, 4)[0], (11, 1))
    loss, metrics = loss_and_metrics(x, x, 50.0, implementation=implementation, chunk_size=4)
    np.testing.assert_allclose(loss, math.log(11), rtol=1e-6)
    # Every other text ties with the right one: nothing has been retrieved.
    assert metrics["image_to_text_accuracy"] == metrics["text_to_image_accuracy"] == 0


@BOTH
def test_sigmoid_at_logit_zero_is_n_log_two(implementation):
    x, y = pairs(7, 4)
    loss, _ = loss_and_metrics(
        x, y, 0.0, kind="sigmoid", implementation=implementation, chunk_size=3
    )
    np.testing.assert_allclose(loss, 7 * math.log(2), rtol=1e-6)


@BOTH
def test_orthogonal_pairs(implementation):
    x = np.eye(6, dtype=np.float32)
    options = {"implementation": implementation, "chunk_size": 4}
    loss, metrics = loss_and_metrics(x, x, 5.0, **options)
    np.testing.assert_allclose(loss, math.log1p(5 * math.exp(-5)), rtol=1e-5)
    assert metrics["image_to_text_accuracy"] == metrics["text_to_image_accuracy"] == 1
    loss, _ = loss_and_metrics(x, x, 5.0, -2.0, kind="sigmoid", **options)
    expected = math.log1p(math.exp(-3)) + 5 * math.log1p(math.exp(-2))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@BOTH
def test_confident_loss_keeps_its_digits(implementation):
    # cos = 1 on the diagonal, 0.9 off it: at scale 100 the loss is log(1 + 2 exp(-10)).
    c = math.sqrt(0.1)
    x = np.concatenate([np.full((3, 1), math.sqrt(0.9)), c * np.eye(3)], 1).astype(np.float32)
    loss, _ = loss_and_metrics(x, x, 100.0, implementation=implementation, chunk_size=2)
    np.testing.assert_allclose(loss, math.log1p(2 * math.exp(-10)), rtol=1e-4)


@BOTH
@KINDS
def test_one_shared_id_leaves_the_positives_alone(implementation, kind):
    x, y = pairs(9, 4)
    loss, metrics = loss_and_metrics(
        x,
        y,
        10.0,
        -1.0,
        kind=kind,
        implementation=implementation,
        chunk_size=4,
        ids={"text_ids": np.zeros(9)},
    )
    positives = 10.0 * np.sum(x * y, 1) - 1.0
    expected = 0.0 if kind == "softmax" else np.mean(np.log1p(np.exp(-positives)))
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-7)
    assert metrics["masked_pairs"] == 9 * 8


@BOTH
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_equals_optax(implementation, label_smoothing):
    x, y = pairs(10, 4)
    logits = 20.0 * x @ y.T - 5.0
    labels = optax.smooth_labels(jnp.eye(10), label_smoothing)
    expected = sum(jnp.mean(optax.softmax_cross_entropy(a, labels)) / 2 for a in (logits, logits.T))
    options = {"implementation": implementation, "label_smoothing": label_smoothing}
    loss, _ = loss_and_metrics(x, y, 20.0, -5.0, chunk_size=4, **options)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    two_classes = (1 - label_smoothing) * jnp.eye(10) + label_smoothing / 2
    expected = jnp.sum(optax.sigmoid_binary_cross_entropy(logits, two_classes)) / 10
    loss, _ = loss_and_metrics(x, y, 20.0, -5.0, kind="sigmoid", chunk_size=4, **options)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@BOTH
def test_metrics_count_kept_pairs(implementation):
    x, y = pairs(23, 3, noise=1.5)
    rng = np.random.default_rng(1)
    image_ids, text_ids = rng.integers(0, 12, (2, 23), np.int32)
    _, metrics = loss_and_metrics(
        x,
        y,
        9.0,
        implementation=implementation,
        chunk_size=6,
        ids={"image_ids": image_ids, "text_ids": text_ids},
    )
    keep = np.array([[kept(i, j, image_ids, text_ids) for j in range(23)] for i in range(23)])
    scores = np.where(keep, x @ y.T, -np.inf)
    assert float(metrics["masked_pairs"]) == np.sum(~keep) > 0
    by_image, by_text = (np.mean(scores.argmax(axis) == np.arange(23)) for axis in (1, 0))
    assert 0 < by_image < 1 and 0 < by_text < 1
    np.testing.assert_allclose(metrics["image_to_text_accuracy"], by_image, rtol=1e-6)
    np.testing.assert_allclose(metrics["text_to_image_accuracy"], by_text, rtol=1e-6)


@BOTH
@KINDS
def test_huge_logits_stay_right(implementation, kind):
    x, y = pairs(12, 3, noise=5.0, length=30.0)  # logits up to 90,000
    arguments = (x, y, 100.0, 0.0)
    (loss, _), gradients = value_and_gradients(
        *arguments, kind=kind, implementation=implementation, chunk_size=5
    )
    np.testing.assert_allclose(loss, slow_loss(*arguments, kind=kind), rtol=1e-5)
    assert all(np.isfinite(g).all() for g in gradients)


@BOTH
def test_softmax_ignores_the_bias(implementation):
    x, y = pairs(6, 4)
    (loss, _), gradients = value_and_gradients(x, y, 10.0, 1e6, implementation=implementation)
    np.testing.assert_allclose(loss, slow_loss(x, y, 10.0), rtol=1e-5)
    assert gradients[3] == 0


def test_bfloat16_embeddings_are_scored_in_float32():
    x, y = (jnp.asarray(a, jnp.bfloat16) for a in pairs(6, 4))
    losses, _ = contrastive_loss(x, y, 10.0, implementation="chunked", chunk_size=4)
    exact = slow_loss(np.asarray(x, np.float64), np.asarray(y, np.float64), 10.0)
    assert losses.dtype == jnp.float32 and losses.shape == (6,)
    np.testing.assert_allclose(losses.mean(), exact, rtol=1e-5)


def program(n, **options):
    def loss(x, y, scale, ids):
        found = contrastive_loss(x, y, scale, text_ids=ids, label_smoothing=0.1, **options)
        return means(found)[0]

    embed, ids = jax.ShapeDtypeStruct((n, 8), jnp.float32), jax.ShapeDtypeStruct((n,), jnp.int32)
    scale = jax.ShapeDtypeStruct((), jnp.float32)
    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2))).lower(embed, embed, scale, ids)


@KINDS
def test_chunked_memory_is_linear(kind):
    def scratch(n):
        lowered = program(n, kind=kind, implementation="chunked", chunk_size=32)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    # A few chunks of fp32 logits at a time, where dense logits alone take n * n * 4 bytes.
    assert scratch(2048) < 6 * 32 * 2048 * 4
    assert scratch(4096) < 2.2 * scratch(2048)


@BOTH
@KINDS
@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_absent_pairs_have_no_part(implementation, kind, label_smoothing):
    x, y = pairs(11, 4, noise=2.0)
    present = np.array([1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 0], bool)
    text_ids = np.array([1, 2, 2, 3, 4, 3, 5, 5, 6, 7, 8])
    options = {"kind": kind, "label_smoothing": label_smoothing}

    def loss(x, y, scale, bias):
        form = {"implementation": implementation, "chunk_size": 4, **options}
        given = {"text_ids": text_ids, "present": present}
        return means(contrastive_loss(x, y, scale, bias, **given, **form), present)

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))
    (value, metrics), gradients = step(x, y, 4.0, -1.0)
    there = (x[present], y[present], 4.0, -1.0)
    ids = {"text_ids": text_ids[present]}
    np.testing.assert_allclose(value, slow_loss(*there, **options, **ids), rtol=1e-5)
    assert metrics["masked_pairs"] == 2  # of 3 and 3; what is absent is not counted
    expected = slow_gradients(*there, **options, **ids)
    for got, finite in zip(gradients[:2], expected[:2], strict=True):
        np.testing.assert_allclose(got[present], finite, rtol=1e-5, atol=2e-6)
        assert (got[~present] == 0).all()
    np.testing.assert_allclose(gradients[2:], expected[2:], rtol=1e-4, atol=2e-6)


@BOTH
@KINDS
def test_a_batch_without_a_pair_costs_nothing(implementation, kind):
    def loss(x, y):
        form = {"kind": kind, "implementation": implementation, "chunk_size": 2}
        present = np.zeros(3, bool)
        return means(contrastive_loss(x, y, 9.0, present=present, **form), present)[0]

    value, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(*pairs(3, 4))
    assert value == 0
    assert all((g == 0).all() for g in gradients)


def test_auto_keeps_to_its_budget():
    def holds_all_logits(**options):
        return "300x300xf32" in program(300, chunk_size=64, **options).as_text()

    held = held_bytes(300, 8, 64, 1)
    assert holds_all_logits(memory_mb=held["dense"] / 1e6)
    assert not holds_all_logits(memory_mb=held["dense"] / 1e6 - 0.001)
    assert holds_all_logits()  # 1 MB of the default's 256


def test_choice_goes_from_dense_to_ring_as_the_batch_grows():
    names = [choose(held_bytes(n, 512, 1024, 1), MEMORY_MB) for n in (2048, 4096, 8192, 16384)]
    assert names == ["dense", "dense", "chunked", "chunked"]
    names = [choose(held_bytes(n, 512, 1024, 256), MEMORY_MB) for n in (2**14, 2**16, 2**20)]
    assert names == ["dense", "ring", "ring"]


@KINDS
def test_the_estimate_of_memory_is_close(kind):
    """Against what XLA allocates for scratch: within a factor of two."""
    for name in ("dense", "chunked"):
        lowered = program(4096, kind=kind, implementation=name, chunk_size=512)
        scratch = lowered.compile().memory_analysis().temp_size_in_bytes
        assert 0.5 < scratch / held_bytes(4096, 8, 512, 1)[name] < 2, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_embed": np.zeros((4, 3), np.float32)}, r"\(5, 3\) and text_embed \(4, 3\)"),
        ({"image_embed": np.zeros(5, np.float32)}, r"must be \[N, D\]"),
        ({"kind": "softmin"}, "no kind 'softmin'"),
        ({"implementation": "sparse"}, "no implementation 'sparse'"),
        ({"chunk_size": 0}, "chunk_size 0"),
        ({"label_smoothing": 1.0}, "label_smoothing 1.0"),
        ({"label_smoothing": -0.1}, "label_smoothing -0.1"),
        ({"text_ids": np.zeros(4, np.int32)}, r"text_ids of shape \(4,\)"),
        ({"present": np.zeros((5, 1), bool)}, r"present of shape \(5, 1\)"),
    ],
)
def test_bad_input_is_named(change, message):
    x, y = pairs(5, 3)
    with pytest.raises(ValueError, match=message):
        contrastive_loss(**{"image_embed": x, "text_embed": y, "logit_scale": 1.0, **change})


def slow_hard_negatives(x, y, scale, negatives, applies, kind):
    """Each pair's loss with further texts for the images, by loops in float64."""
    losses = []
    for i in range(len(x)):
        own = scale * x[i] @ y[i]
        texts = [scale * x[i] @ y[j] for j in range(len(y))]
        more = [scale * x[i] @ n for n, a in zip(negatives, applies[i]) if a]
        images = [scale * x[j] @ y[i] for j in range(len(x))]
        if kind == "softmax":
            both = (np.log(np.sum(np.exp(one))) - own for one in (texts + more, images))
            losses.append(0.5 * sum(both))
        else:
            others = [t for j, t in enumerate(texts) if j != i] + more
            losses.append(np.log1p(np.exp(-own)) + np.sum(np.log1p(np.exp(others))))
    return np.asarray(losses)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_hard_negatives_are_further_texts_of_the_images(kind):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 5, 4)).astype(np.float32)
    negatives = rng.normal(size=(3, 4)).astype(np.float32)
    applies = np.array([[1, 1, 1], [0, 1, 0], [0, 0, 0], [1, 0, 1], [0, 0, 1]], bool)
    loss = functools.partial(contrastive_loss, kind=kind, negatives_apply=applies)
    got, _ = loss(x, y, np.float32(2), negatives=negatives)
    want = slow_hard_negatives(*(a.astype(np.float64) for a in (x, y)), 2, negatives, applies, kind)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    gradient = jax.grad(lambda n: loss(x, y, np.float32(2), negatives=n)[0].sum())(negatives)
    assert np.isfinite(gradient).all() and np.abs(gradient).min() > 0
    with pytest.raises(ValueError, match="negatives with implementation 'ring'"):
        loss(x, y, np.float32(2), negatives=negatives, implementation="ring")
