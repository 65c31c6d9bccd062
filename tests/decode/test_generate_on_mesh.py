"""A model writes the same over a mesh as on one device."""

import jax
import numpy as np
import pytest
import toy

from mmjax import config as configs
from mmjax.decode.generate import make_generate
from mmjax.decode.score import make_score
from mmjax.decode.settings import Settings

CONFIGS = {"captioner": "captioner_drawings", "coca": "coca_emoji", "flamingo": "flamingo_emoji"}
DECODE = {
    "greedy": {},
    "drawn": {"temperature": 1.0, "top_k": 5},
    "beams": {"beams": 3, "no_repeat_ngram": 2},
}


def write(run, params, batch, decode):
    generate = make_generate(run.model, Settings(max_new_tokens=4, end_ids=(2,), **decode))
    with jax.set_mesh(run.mesh):
        return jax.tree.map(np.asarray, generate({"params": params}, toy.put(run, batch), seed=3))


def score(run, params, batch):
    texts = np.array([[3, 4, 2], [5, 2, 0]])
    with jax.set_mesh(run.mesh):
        found = make_score(run.model, texts, texts > 0)({"params": params}, toy.put(run, batch))
        return np.asarray(found)


@pytest.mark.parametrize("system", CONFIGS)
def test_a_mesh_writes_what_one_device_writes(system):
    config = toy.shrink(configs.load(f"configs/{CONFIGS[system]}.py", ()))
    with config.unlocked():
        config.model.text.update(length=12)
        if system == "flamingo":  # heads that two devices can share
            config.model.text.decoder.update(heads=4, kv_heads=2)
    batch = toy.batch(config)
    one = toy.build(config)
    params = toy.init(one).params
    expected = {name: write(one, params, batch, decode) for name, decode in DECODE.items()}
    scores = score(one, params, batch)
    run = toy.build(config, toy.MESHES["data=2,fsdp=2,tensor=2"])
    placed = jax.device_put(params, jax.tree.map(lambda x: x.sharding, run.state.params))
    for name, decode in DECODE.items():
        found = write(run, placed, batch, decode)
        np.testing.assert_array_equal(found.tokens, expected[name].tokens, name)
        np.testing.assert_allclose(found.scores, expected[name].scores, rtol=1e-4)
    np.testing.assert_allclose(score(run, placed, batch), scores, rtol=1e-4)
