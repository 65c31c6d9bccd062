"""Tiny language models with parameters large enough for confident predictions, and prompts."""

import jax
import jax.numpy as jnp
import numpy as np
from flax.core import meta

from mmjax.models import language

PROMPTS = [[1, 2], [3], [2, 0, 1]]
LLAMA = {"positions": "rope", "norm": "rms", "kv_heads": 1, "use_bias": False}


def language_model(tied=True, **decoder):
    """A tiny model with parameters large enough for confident predictions."""
    decoder = {"depth": 2, "heads": 2, "mlp_dim": 32, **decoder}
    text = {"vocab_size": 30, "width": 16, "length": 24, "tied": tied, "decoder": decoder}
    model = language.make_model({"text": text})
    text = jnp.ones((1, 24), jnp.int32)
    params = jax.eval_shape(lambda: meta.unbox(model.init(jax.random.key(0), {"text": text})))
    params = params["params"]
    rng = np.random.default_rng(0)
    return model, jax.tree.map(lambda a: rng.normal(size=a.shape).astype(np.float32), params)
