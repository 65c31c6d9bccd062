"""Word-patch alignment: the cost of transporting one set of tokens to another, by IPOT."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

BETA, STEPS = 0.5, 50  # of ViLT and UNITER


def cosine_costs(
    x: Float[ArrayLike, "b l d"], y: Float[ArrayLike, "b p d"]
) -> Float[Array, "b l p"]:
    """1 - cosine of every pair of tokens: x [B, L, D], y [B, P, D] -> [B, L, P], fp32."""
    x, y = (_unit(jnp.asarray(z, jnp.float32)) for z in (x, y))
    return 1 - jnp.einsum("bld,bpd->blp", x, y)


def _unit(x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
    # The gradient of a norm at zero is NaN, and masked tokens may be zero.
    squared = jnp.square(x).sum(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(squared, 1e-10))


def transport_plan(
    costs: Float[ArrayLike, "b l p"],
    x_mask: Bool[ArrayLike, "b l"],
    y_mask: Bool[ArrayLike, "b p"],
    beta: float = BETA,
    steps: int = STEPS,
) -> Float[Array, "b l p"]:
    """The plan of nearly least cost between uniform weights on the valid tokens of x and of y.

    Computed in logarithms, so that a small beta is stable. Of a row in which x or y has no valid
    token, and of masked tokens, the plan is 0. It is a constant for gradients.

    Args:
      costs: [B, L, P]; x_mask: [B, L] bool, true on valid tokens; y_mask: [B, P].
      beta: proximal step: the smaller, the fewer steps are needed.

    Source: IPOT, Xie et al. 2018 (arXiv 1802.04307), algorithm 1 with L = 1.
    """
    valid = x_mask[:, :, None] & y_mask[:, None, :]
    kernel = jnp.where(valid, -jax.lax.stop_gradient(costs) / beta, -jnp.inf)
    count = [jnp.maximum(m.sum(-1, dtype=jnp.float32), 1.0) for m in (x_mask, y_mask)]
    log_x, log_y = (-jnp.log(n)[:, None] for n in count)

    def step(state, _):
        plan, left = state
        q = kernel + plan
        right = log_y - _logsumexp(q + left[:, :, None], 1)
        left = log_x - _logsumexp(q + right[:, None, :], 2)
        return (q + left[:, :, None] + right[:, None, :], left), None

    start = (jnp.zeros_like(kernel), jnp.broadcast_to(log_x, x_mask.shape))
    (plan, _), _ = jax.lax.scan(step, start, None, steps)
    return jnp.where(valid, jnp.exp(plan), 0.0)


def _logsumexp(x: Float[Array, "b l p"], axis: int) -> Float[Array, "b n"]:
    """As jax's, and 0 where every term is masked."""
    found = jax.nn.logsumexp(x, axis=axis)
    return jnp.where(jnp.isneginf(found), 0.0, found)


def transport_distance(
    x: Float[ArrayLike, "b l d"],
    y: Float[ArrayLike, "b p d"],
    x_mask: Bool[ArrayLike, "b l"],
    y_mask: Bool[ArrayLike, "b p"],
    beta: float = BETA,
    steps: int = STEPS,
) -> Float[Array, " b"]:
    """[B]: the cost of the plan between the valid tokens of x [B, L, D] and y [B, P, D].

    Source: UNITER, Chen et al. 2020 (arXiv 1909.11740), section 3.2, "word-region alignment".
    """
    costs = cosine_costs(x, y)
    return (costs * transport_plan(costs, x_mask, y_mask, beta, steps)).sum((1, 2))
