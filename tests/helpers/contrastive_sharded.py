"""Pairs of embeddings and the gradients of their contrastive loss, on any mesh."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mmjax.losses.contrastive import contrastive_loss
from mmjax.system import Weighted, average

DIM = 16


def batch(n):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, DIM))
    y = x + rng.standard_normal((n, DIM))
    ids = rng.integers(0, n, n, np.int32)
    embeds = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    return *(e.astype(np.float32) for e in embeds), ids


@functools.cache
def gradients(kind, implementation, chunk_size, label_smoothing=0.0):
    settings = {"kind": kind, "implementation": implementation, "chunk_size": chunk_size}
    settings["label_smoothing"] = label_smoothing

    def loss(x, y, scale, bias, ids, present=None):
        losses, metrics = contrastive_loss(
            x, y, scale, bias, text_ids=ids, present=present, **settings
        )
        there = jnp.ones(len(losses), bool) if present is None else present
        rows = {"loss": losses, **metrics}
        # Those of a missing pair have no meaning.
        rows = {k: jnp.where(there, x, jnp.zeros_like(x)) if x.ndim else x for k, x in rows.items()}
        return average(Weighted(losses, there))[0], rows

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))
