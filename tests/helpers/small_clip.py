"""An mmjax CLIP to be saved in published formats."""

import jax
import numpy as np

from mmjax.data.text.train_bpe import train_bpe
from mmjax.models.systems import make_system
from mmjax.pretrained import Pretrained
from mmjax.variables import initial_params

TEXTS = ["a red bus", "two dogs, a cat", "tea"]


def small_clip(stem="patch", words=None):
    """An mmjax CLIP with random parameters and, unless one is given, a tokenizer of its own, whose
    end token is 2."""
    words = words or train_bpe(TEXTS * 3, vocab_size=300)
    config = {
        "name": "clip",
        "embed_dim": 16,
        "image": {
            "width": 32,
            "depth": 2,
            "heads": 4,
            "mlp_dim": 48,
            "patch_size": 8,
            "image_size": (24, 24),
            "pre_norm": True,
            "patch_bias": False,
            "stem": stem,
            "activation": "gelu_tanh",
        },
        "text": {
            "width": 24,
            "depth": 3,
            "heads": 2,
            "mlp_dim": 40,
            "vocab_size": words.vocab_size,
            "length": 12,
        },
    }
    whole = {"model": config, "loss": {}}
    system = make_system(whole)
    params = initial_params(system.model, system.spec, seed=0)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: x + 0.05 * rng.normal(size=x.shape).astype(np.float32), params)
    return Pretrained(config, system.model, params, words, 12, "decode | resize(24)", "")
