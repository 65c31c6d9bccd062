"""Shared by the tests of models that generate text."""

import jax
import jax.numpy as jnp
import numpy as np
from drawn import parameters

TEXT = {
    "vocab_size": 13,
    "width": 16,
    "length": 10,
    "decoder": {"depth": 2, "heads": 2, "mlp_dim": 24},
}
IMAGE = {"width": 16, "depth": 1, "heads": 2, "mlp_dim": 24, "patch_size": 4, "image_size": (8, 8)}


def initial(model, batch, seed=0):
    """Random parameters, none of them zero, so that no initial 0 masks an error."""
    return parameters(model, batch, seed=seed, scale=0.3)


def outputs_of(model):
    """(params, batch) -> outputs, compiled."""
    return jax.jit(lambda params, batch: model.apply({"params": params}, batch))


def texts(rng, rows, length, vocab=13, low=3):
    """Random tokens with a mask: rows of different lengths, padded on the right."""
    text = rng.integers(low, vocab, (rows, length)).astype(np.int32)
    lengths = rng.integers(length // 2, length + 1, rows)
    mask = np.arange(length)[None] < lengths[:, None]
    return np.where(mask, text, 0).astype(np.int32), mask


def images(rng, *shape):
    """uint8 images [*shape, 8, 8, 3]."""
    return rng.integers(0, 256, (*shape, 8, 8, 3)).astype(np.uint8)


def cached_logits(model, params, batch, prompt):
    """Logits after each token from `prompt - 1` on, by a prefill and one token at a time."""
    text, length = batch["text"], batch["text"].shape[1]
    first = {**batch, "text": text[:, :prompt]}
    first.pop("text_mask", None)

    @jax.jit
    def prefill(first):
        return model.apply({"params": params}, first, cache_length=length, mutable=["cache"])

    @jax.jit
    def extend(cache, token):
        return model.apply({"params": params, **cache}, {"text": token}, mutable=["cache"])

    out, cache = prefill(first)
    found = [out["next_logits"]]
    for i in range(prompt, length):
        out, cache = extend(cache, text[:, i : i + 1])
        found.append(out["next_logits"])
    return jnp.stack(found, axis=1)
