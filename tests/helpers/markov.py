"""A model without parameters to learn: the next token depends on the last two, by a table."""

import jax.numpy as jnp
import numpy as np

NONE = {"params": {}}  # its variables


class Markov:
    """`table` [V, V, V] logits of the token after two others; a first token follows (0, token)."""

    def __init__(self, vocab, seed=0, scale=1.5, window=64):
        self.table = (scale * np.random.default_rng(seed).normal(size=(vocab,) * 3)).astype("f")
        self.window = window

    def logits(self, ids):
        return self.table[([0, *ids])[-2], ids[-1]]

    def apply(self, variables, batch, *, cache_length=0, mutable):
        assert "cache" in mutable
        text, mask = batch["text"], batch["text_mask"]
        if "cache" in variables:
            before, last = variables["cache"]["seen"], text[:, 0]
        else:
            assert cache_length >= text.shape[1]
            order = jnp.argsort(mask, axis=1, stable=True)  # the tokens last
            text = jnp.where(mask, text, 0)
            text = jnp.take_along_axis(text, order, axis=1)
            text = jnp.pad(text, ((0, 0), (1, 0)))
            before, last = text[:, -2], text[:, -1]
            before = jnp.stack([before, before], 1)
        before = before[:, 1] if "cache" in variables else before[:, 0]
        logits = jnp.asarray(self.table)[before, last]
        return {"next_logits": logits}, {"cache": {"seen": jnp.stack([before, last], 1)}}


def log_softmax(x):
    x = np.asarray(x, np.float64)
    x = x - x.max()
    return x - np.log(np.exp(x).sum())
