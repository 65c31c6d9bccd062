"""The Runner: a run's model on a mesh, called with rows and answering with those of all."""

import jax
import numpy as np
import toy

from mmjax.run.evaluation import Runner


def test_named_outputs_of_a_mesh_are_those_of_one_device_without_dropout(tmp_path):
    config = toy.config(depth=1, model={"image": {"dropout": 0.5}})
    run = toy.build(config, toy.MESHES["data=4,fsdp=2"])
    batch = toy.batch(config)
    state = toy.init(run)
    runner = Runner(run, tmp_path, lambda *_: None)
    names = ["image_embed", "text_embed", "logit_scale", "logits"]
    found = runner.apply(run.eval_variables(state), batch, names)
    params = jax.tree.map(np.asarray, state.params)
    want = jax.jit(run.model.apply)({"params": params}, batch)
    assert set(found) == {"image_embed", "text_embed", "logit_scale"}  # no logits in a CLIP
    for name, value in found.items():
        assert isinstance(value, np.ndarray) and value.shape == want[name].shape
        np.testing.assert_allclose(value, want[name], rtol=1e-5, atol=1e-6)
