"""Parameters drawn by NumPy: as good as initialized ones where values do not matter, and at once.

To compile a model's initializers takes longer than to compile its forward pass.
"""

import jax
import numpy as np
from flax.core import meta

AROUND_ONE = ("bandwidth", "scale", "variance")  # which have to be positive, or usually are


def drawn(shapes, seed=1, scale=0.2):
    """Random floats of the shapes of a tree, none of them zero, those in `AROUND_ONE` around one;
    integers are zero."""
    rng = np.random.default_rng(seed)

    def one(path, x):
        if not np.issubdtype(x.dtype, np.floating):
            return np.zeros(x.shape, x.dtype)
        center = float(jax.tree_util.keystr(path[-1:], simple=True) in AROUND_ONE)
        return (center + scale * rng.normal(size=x.shape)).astype(x.dtype)

    return jax.tree_util.tree_map_with_path(one, shapes)


def parameters(model, *inputs, seed=1, scale=0.2, **named):
    """Drawn parameters of a Linen module that is called with these inputs."""
    boxed = jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs, **named)["params"])
    return jax.device_put(drawn(meta.unbox(boxed), seed, scale))
