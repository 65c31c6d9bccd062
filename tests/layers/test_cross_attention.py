import jax
import numpy as np
import pytest
from flax.core import meta

from mmjax.layers.cross_attention import CrossAttention

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 8)).astype(np.float32)
CONTEXT = RNG.normal(size=(2, 5, 6)).astype(np.float32)
LAYER = CrossAttention(2, 4)
PARAMS = jax.tree.map(
    lambda p: RNG.normal(size=p.shape).astype(np.float32),
    meta.unbox(LAYER.init(jax.random.key(0), X, CONTEXT)["params"]),
)


def apply(x, context, mask=None):
    y, sown = LAYER.apply({"params": PARAMS}, x, context, mask, mutable=["intermediates"])
    return np.asarray(y), np.asarray(sown["intermediates"]["attention_weights"][0])


def by_loops(x, context, mask):
    """The output [B, Lq, D] and weights [B, H, Lq, Lk], a query and a head at a time."""
    p = PARAMS
    out = np.zeros_like(x)
    weights = np.zeros((len(x), 2, x.shape[1], context.shape[1]))
    for b, i in np.ndindex(*x.shape[:2]):
        seen = [j for j in range(context.shape[1]) if mask[b, i, j]]
        if not seen:
            continue
        out[b, i] = p["out"]["bias"]
        for h in range(2):
            q = x[b, i] @ p["query"]["kernel"][:, h] + p["query"]["bias"][h]
            keys = [context[b, j] @ p["key"]["kernel"][:, h] + p["key"]["bias"][h] for j in seen]
            e = np.exp([q @ k / 2 for k in keys])  # sqrt(head_dim) = 2
            for j, w in zip(seen, e / e.sum()):
                weights[b, h, i, j] = w
                value = context[b, j] @ p["value"]["kernel"][:, h] + p["value"]["bias"][h]
                out[b, i] += w * value @ p["out"]["kernel"][h]
    return out, weights


def test_against_loops_with_every_form_of_mask():
    per_query = RNG.random((2, 3, 5)) < 0.5
    per_query[0, 1] = False  # a query that sees nothing
    per_key = RNG.random((2, 5)) < 0.6
    per_key[1] = False
    for mask, full in (
        (None, np.ones((2, 3, 5), bool)),
        (per_query, per_query),
        (per_key, np.broadcast_to(per_key[:, None], (2, 3, 5))),
    ):
        y, weights = apply(X, CONTEXT, mask)
        want, want_weights = by_loops(X, CONTEXT, full)
        np.testing.assert_allclose(y, want, atol=1e-4)
        np.testing.assert_allclose(weights, want_weights, atol=1e-5)


def test_who_sees_nothing_gets_zeros_and_passes_no_gradient():
    mask = np.asarray([[True] * 5, [False] * 5])
    y, weights = apply(X, CONTEXT, mask)
    assert not y[1].any() and not weights[1].any() and y[0].any()
    grads = jax.grad(lambda c: LAYER.apply({"params": PARAMS}, X, c, mask).sum())(CONTEXT)
    assert not np.asarray(grads)[1].any() and np.asarray(grads)[0].any()


def test_a_width_that_the_heads_do_not_divide():
    with pytest.raises(ValueError, match="width 8 is not a multiple of heads 3"):
        CrossAttention(3).init(jax.random.key(0), X, CONTEXT)
