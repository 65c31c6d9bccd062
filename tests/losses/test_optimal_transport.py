"""IPOT beside the paper's algorithm, written out slowly, and beside the exact linear program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

from mmjax.losses.optimal_transport import cosine_costs, transport_distance, transport_plan

X_MASK = np.asarray([[1, 1, 1, 1, 0], [1, 0, 1, 0, 0], [1, 1, 1, 1, 1]], bool)
Y_MASK = np.asarray([[1, 1, 1], [0, 1, 1], [0, 1, 0]], bool)


def tokens(seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(3, 5, 4)), rng.normal(size=(3, 3, 4))
    return x.astype(np.float32), y.astype(np.float32)


def slow_costs(x, y):
    out = np.zeros((len(x), len(y)))
    for i, a in enumerate(x.astype(np.float64)):
        for j, b in enumerate(y.astype(np.float64)):
            out[i, j] = 1 - a @ b / np.sqrt((a @ a) * (b @ b))
    return out


def slow_plan(costs, beta, steps):
    """Algorithm 1 of Xie et al. 2018 with L = 1, as in UNITER: the scaling of y first."""
    n, m = costs.shape
    kernel, plan, scale_x = np.exp(-costs / beta), np.ones((n, m)), np.ones(n) / n
    for _ in range(steps):
        q = kernel * plan
        scale_y = 1 / (m * (q.T @ scale_x))
        scale_x = 1 / (n * (q @ scale_y))
        plan = np.diag(scale_x) @ q @ np.diag(scale_y)
    return plan


def exact(costs):
    """The least cost of any plan with uniform marginals, by linear programming."""
    n, m = costs.shape
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    sums = np.concatenate([np.ones(n) / n, np.ones(m) / m])
    return linprog(costs.ravel(), A_eq=np.concatenate([rows, columns]), b_eq=sums).fun


def kept(x, y, i):
    """The valid tokens of a row."""
    return x[i][X_MASK[i]], y[i][Y_MASK[i]]


@pytest.mark.parametrize(("beta", "steps"), [(0.5, 50), (0.5, 1), (1.0, 7), (0.1, 20)])
def test_the_plan_is_that_of_the_paper(beta, steps):
    x, y = tokens()
    plan = np.asarray(transport_plan(cosine_costs(x, y), X_MASK, Y_MASK, beta, steps))
    distance = transport_distance(x, y, X_MASK, Y_MASK, beta, steps)
    for i in range(3):
        costs = slow_costs(*kept(x, y, i))
        want = slow_plan(costs, beta, steps)
        np.testing.assert_allclose(plan[i][X_MASK[i]][:, Y_MASK[i]], want, atol=1e-5)
        np.testing.assert_allclose(distance[i], (want * costs).sum(), atol=1e-5)
        assert plan[i].sum() == pytest.approx(want.sum(), abs=1e-5)  # nothing on masked tokens


def test_a_small_beta_gives_the_least_cost():
    x, y = tokens(seed=1)
    found = transport_distance(x, y, X_MASK, Y_MASK, 0.05, 1000)
    want = [exact(slow_costs(*kept(x, y, i))) for i in range(3)]
    np.testing.assert_allclose(found, want, atol=1e-5)
    loose = transport_distance(x, y, X_MASK, Y_MASK, 0.5, 3)
    assert (np.asarray(loose)[:2] > np.asarray(want)[:2] + 1e-3).all()


def test_masked_tokens_count_nothing_and_rows_without_tokens_are_zero():
    x, y = tokens()
    before = transport_distance(x, y, X_MASK, Y_MASK)
    wild = np.where(X_MASK[..., None], x, 1e4), np.where(Y_MASK[..., None], y, 0.0)
    np.testing.assert_array_equal(
        before, transport_distance(*(a.astype(np.float32) for a in wild), X_MASK, Y_MASK)
    )
    empty = X_MASK & np.asarray([True, False, True])[:, None]
    found = transport_distance(x, y, empty, Y_MASK)
    assert found[1] == 0 and found[0] == before[0]


def test_the_plan_is_constant_for_gradients():
    """The gradient is that of the costs at a fixed plan, and finite for masked zero tokens."""
    x, y = tokens()
    x[~X_MASK] = 0
    total = lambda f, x: f(x, y, X_MASK, Y_MASK).sum()  # noqa: E731
    found = jax.jit(jax.grad(functools.partial(total, transport_distance)))(x)
    plan = transport_plan(cosine_costs(x, y), X_MASK, Y_MASK)

    def at_plan(x, y, *masks):
        unit = lambda z: z / jnp.sqrt((z * z).sum(-1, keepdims=True) + 1e-20)  # noqa: E731
        return (plan * (1 - unit(x) @ unit(y).swapaxes(1, 2))).sum((1, 2))

    want = jax.grad(functools.partial(total, at_plan))(x)
    assert np.isfinite(found).all() and np.abs(found[0]).max() > 1e-3
    np.testing.assert_allclose(found[X_MASK], want[X_MASK], atol=1e-5)
    assert not np.asarray(found)[~X_MASK].any()
