"""Train states of random numbers on any mesh, saved as checkpoints, and compared bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np

from mmjax import sharding, step
from mmjax.workdir import migrate
from mmjax.workdir.checkpoint import Checkpoints

NAMES = {"kernel": ("embed", "mlp"), "bias": ("mlp",), "embedding": ("vocab", "embed")}


SHAPES = {
    "image": {"mlp": {"kernel": (8, 4), "bias": (4,)}},
    "text": {"embedding": (16, 8)},
    "logit_scale": (),
}


MESHES = ({"data": 8}, {"data": 4, "fsdp": 2}, {"data": 2, "fsdp": 2, "tensor": 2}, {"data": 1})


def mesh_of(shape):
    return sharding.make_mesh(shape, jax.devices()[: int(np.prod(list(shape.values())))])


def state(seed=0, mesh=None, shapes=SHAPES, ema=True):
    """A train state of random numbers on a mesh, with NaN, infinity, -0 and a subnormal."""
    rng, mesh = np.random.default_rng(seed), mesh or mesh_of(MESHES[0])

    def tree(dtype):
        def one(path, shape):
            values = rng.normal(size=shape).astype(np.float32)
            if values.size > 4:
                values.flat[:4] = [np.nan, np.inf, -0.0, 1e-45]  # 1e-45: the least subnormal
            return jax.device_put(jnp.asarray(values, dtype), lies(path, shape, mesh))

        return jax.tree_util.tree_map_with_path(one, shapes, is_leaf=lambda x: isinstance(x, tuple))

    whole = sharding.named(mesh)
    moments = {"mu": tree(jnp.bfloat16), "nu": tree(jnp.float32)}
    return step.TrainState(
        step=jax.device_put(jnp.asarray(seed, jnp.int32), whole),
        params=tree(jnp.float32),
        opt_state=(moments, jax.device_put(jnp.asarray(7, jnp.int32), whole)),
        average=tree(jnp.float32) if ema else None,
        finite=jax.device_put(jnp.asarray(True), whole),
        memory={},
    )


def lies(path, shape, mesh):
    names = NAMES.get(path[-1].key, ()) if shape else ()
    return sharding.named(mesh, *names)


def target(like):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like)


def assert_identical(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want)):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def run_of(at):
    return {"step": at, "config": "{}", "tokenizer": {"a.json": "{}"}, "git": None}


def saved_run(at):
    """`run_of` as read back: a checkpoint adds its format."""
    return {**run_of(at), "format": migrate.FORMAT}


def save(workdir, *steps, keep=5, **fields):
    saves = Checkpoints(workdir, keep=keep)
    for at in steps:
        saves.save(at, state(at, **fields), run_of(at))
    saves.close()


OTHER = {
    "image": {"mlp": {"kernel": (8, 12), "bias": (4,)}},
    "text": {"table": (16, 8)},
    "logit_scale": (),
}
