"""From gradients to the direction of an update: clipping, Adam, Lion, momentum, Adafactor."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformation:
    """Scale the gradients down to a global norm of at most `max_norm` (Pascanu et al. 2013).

    `optax.clip_by_global_norm` divides inside a select, which XLA writes out as a second copy of
    all gradients; one scalar factor fuses into what follows and halves the time of the update.
    """
    if max_norm <= 0:
        raise ValueError(f"config.optim.grad_clip_norm is {max_norm}: use a number > 0, or None.")

    def update(updates, state, params=None):
        del params
        factor = jnp.minimum(1.0, max_norm / optax.tree.norm(updates))
        return jax.tree.map(lambda g: g * factor.astype(g.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def scale_by_adam(
    b1: float, b2: float, eps: float, moment_dtype: Any = jnp.float32
) -> optax.GradientTransformation:
    """Adam's direction (Kingma & Ba 2015, algorithm 1), with optax's state.

    Differs from `optax.scale_by_adam` in that it keeps to strict dtype promotion, and in that its
    squares are not shared with those of the gradient norm, which would cost a copy of them all.
    """

    def init(params):
        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, moment_dtype), params)
        return optax.ScaleByAdamState(
            jnp.zeros([], jnp.int32), zeros, jax.tree.map(jnp.zeros_like, params)
        )

    def update(updates, state, params=None):
        del params
        count = optax.safe_increment(state.count)
        n = count.astype(jnp.float32)
        unbias1, unbias2 = 1.0 / (1.0 - b1**n), 1.0 / (1.0 - b2**n)

        mu = jax.tree.map(lambda g, m: b1 * m.astype(g.dtype) + (1.0 - b1) * g, updates, state.mu)
        nu = jax.tree.map(lambda g, v: b2 * v + ((1.0 - b2) * g) * g, updates, state.nu)
        direction = jax.tree.map(lambda m, v: (m * unbias1) / (jnp.sqrt(v * unbias2) + eps), mu, nu)
        return direction, optax.ScaleByAdamState(count, _cast(mu, moment_dtype), nu)

    return optax.GradientTransformation(init, update)


def scale_by_lion(
    b1: float, b2: float, moment_dtype: Any = jnp.float32
) -> optax.GradientTransformation:
    """Lion's direction, a sign (Chen et al. 2023, algorithm 2), with optax's state."""

    def init(params):
        zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, moment_dtype), params)
        return optax.ScaleByLionState(jnp.zeros([], jnp.int32), zeros)

    def update(updates, state, params=None):
        del params
        mu = jax.tree.map(lambda g, m: m.astype(g.dtype), updates, state.mu)
        direction = jax.tree.map(lambda g, m: jnp.sign(b1 * m + (1.0 - b1) * g), updates, mu)
        mu = jax.tree.map(lambda g, m: b2 * m + (1.0 - b2) * g, updates, mu)
        state = optax.ScaleByLionState(optax.safe_increment(state.count), _cast(mu, moment_dtype))
        return direction, state

    return optax.GradientTransformation(init, update)


def momentum(decay: float, gain: float, moment_dtype: Any) -> optax.GradientTransformation:
    """m ← decay · m + gain · g; the direction is m."""

    def init(params):
        return optax.TraceState(jax.tree.map(lambda p: jnp.zeros(p.shape, moment_dtype), params))

    def update(updates, state, params=None):
        del params
        trace = jax.tree.map(
            lambda g, m: decay * m.astype(g.dtype) + gain * g, updates, state.trace
        )
        return trace, optax.TraceState(_cast(trace, moment_dtype))

    return optax.GradientTransformation(init, update)


def direction(settings: Mapping[str, Any]) -> optax.GradientTransformation:
    """The direction that `config.optim` names, from its settings with their defaults.

    Raises:
      ValueError: an unknown name.
    """
    name, b1, b2 = settings["name"], settings["b1"], settings["b2"]
    moment_dtype = jnp.dtype(settings["moment_dtype"])
    if b2 is None:
        b2 = 0.99 if name == "lion" else 0.999
    if name == "adamw":
        return scale_by_adam(b1, b2, settings["eps"], moment_dtype)
    if name == "lion":
        return scale_by_lion(b1, b2, moment_dtype)
    if name == "sgd":
        decay = settings["momentum"]
        return momentum(decay, 1.0, moment_dtype) if decay else optax.identity()
    if name == "adafactor":
        # Without relative steps, and with a first moment: Zhai et al. 2022, §3.4.
        steps = [
            optax.scale_by_factored_rms(
                decay_rate_fn=lambda i, power: jnp.minimum(
                    b2, 1.0 - (jnp.asarray(i).astype(jnp.float32) + 1.0) ** -power
                )
            ),
            optax.clip_by_block_rms(1.0),
        ]
        return optax.chain(*steps, *([momentum(b1, 1.0 - b1, moment_dtype)] if b1 else []))
    raise ValueError(f"config.optim.name is '{name}': use 'adamw', 'adafactor', 'lion' or 'sgd'.")


def _cast(tree: Any, dtype: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(dtype), tree)
