"""The step on meshes against itself on one device, and where its state is."""

import flax.linen as nn
import jax
import numpy as np
import pytest
import toy
from towers import (
    SPEC,
    assert_trees_close,
)
from train_states import assert_identical

from mmjax import sharding
from mmjax.optim import optimizer as optim
from mmjax.variables import sharded_variables

EMA = {"decay": 0.9}
OPTIM = {"grad_clip_norm": 1.0, "weight_decay": 0.1}


@pytest.fixture(scope="module")
def on_one_device():
    """(state after 3 steps, their scalars, batches), on one device."""
    run = toy.build(toy.config(depth=1, optim=OPTIM, ema=EMA, seed=5))
    batches = [toy.batch(run.config, seed=i) for i in range(3)]
    state, history = toy.take_steps(run, toy.drawn(run), batches)
    return jax.tree.map(np.asarray, state), history, batches


def test_a_seed_gives_the_same_parameters_on_every_mesh():
    config = toy.config("vit", depth=1, seed=5)
    one = toy.init(toy.build(config)).params
    for mesh in ("data=8", "data=2,fsdp=2,tensor=2"):
        assert_identical(toy.init(toy.build(config, toy.MESHES[mesh])).params, one)


@pytest.mark.parametrize("mesh", toy.MESHES)
def test_three_steps_on_any_mesh_are_those_of_one_device(mesh, on_one_device):
    end, history, batches = on_one_device
    run = toy.build(toy.config(depth=1, optim=OPTIM, ema=EMA, seed=5), toy.MESHES[mesh])
    state, scalars = toy.take_steps(run, toy.drawn(run), batches)
    for got, want in zip(scalars, history):
        assert got.keys() == want.keys()
        for k in want:
            np.testing.assert_allclose(got[k], want[k], rtol=1e-5, atol=1e-6, err_msg=k)
    assert_trees_close(state.params, end.params, rtol=1e-5, atol=1e-5)
    assert_trees_close(state.average, end.average, rtol=1e-5, atol=1e-5)
    for leaf, want in zip(jax.tree.leaves(state), jax.tree.leaves(run.state)):
        assert leaf.sharding.is_equivalent_to(want.sharding, leaf.ndim)


@pytest.mark.parametrize("freeze", [(), ("image/transformer/.*",)])
def test_state_is_split_like_its_parameters(freeze):
    config = toy.config(optim={"freeze": freeze}, ema=EMA)
    run = toy.build(config, toy.MESHES["data=2,fsdp=2,tensor=2"])
    up = run.params["text"]["transformer"]["layers"]["mlp"]["up"]
    assert up["kernel"].shape == (2, 16, 32)  # layers, embed (fsdp), mlp (tensor)
    frozen = optim.frozen_mask(config.optim, run.params)
    moments = {"mu": 0, "nu": 0}
    lies = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(run.params)[0]:
        lies[jax.tree_util.keystr(path)] = leaf
    for path, leaf in jax.tree_util.tree_flatten_with_path(run.state)[0]:
        name = jax.tree_util.keystr(path)
        owner = [k for k in lies if name.endswith(k)]
        if owner:
            assert leaf.shape == lies[owner[0]].shape
            assert leaf.sharding == lies[owner[0]].sharding
            for moment in moments:
                moments[moment] += f".{moment}[" in name
        else:
            assert leaf.sharding.is_fully_replicated
    free = len(jax.tree.leaves(run.params)) - sum(jax.tree.leaves(frozen))
    assert moments == {"mu": free, "nu": free}

    if freeze:
        return
    state = run.init()
    for tree in (state.params, state.average):
        kernel = tree["text"]["transformer"]["layers"]["mlp"]["up"]["kernel"]
        assert {s.data.shape for s in kernel.addressable_shards} == {(2, 8, 16)}
    big = [x for x in jax.tree.leaves(state.opt_state) if x.shape == (2, 16, 32)]
    assert len(big) == 4  # mu and nu of image and text
    assert {s.data.shape for x in big for s in x.addressable_shards} == {(2, 8, 16)}


def test_mesh_that_does_not_divide_a_parameter_or_the_batch():
    with pytest.raises(ValueError, match=r"Parameter .* has 2 along 'heads'.*multiple of 8"):
        toy.build(toy.config(), {"data": 1, "fsdp": 1, "tensor": 8})
    with pytest.raises(ValueError, match=r"config.batch_size is 12.*splits in 8: use 8 or 16"):
        toy.build(toy.config(batch_size=12), {"data": 8, "fsdp": 1, "tensor": 1})
    with pytest.raises(ValueError, match=r"batch_size is 8, .*3 microbatches .*: use 6 or 9"):
        toy.build(toy.config(microbatches=3))


def test_a_parameter_without_names_is_refused():
    class Bare(nn.Module):
        @nn.compact
        def __call__(self, batch, *, train=False):
            return {"x": self.param("w", nn.initializers.ones, (3,))}

    with pytest.raises(ValueError, match=r"Parameter w \[3\] has no logical axes"):
        sharded_variables(Bare(), SPEC, sharding.make_mesh())
