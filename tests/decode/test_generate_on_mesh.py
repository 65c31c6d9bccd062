"""A model writes the same over a mesh as on one device."""

import jax
import numpy as np
import pytest
import toy

from mmjax import config as configs
from mmjax.decode.generate import Prepared, make_generate
from mmjax.decode.score import make_score
from mmjax.decode.settings import Settings

DECODE = {
    "greedy": {},
    "drawn": {"temperature": 1.0, "top_k": 5},
    "beams": {"beams": 3, "no_repeat_ngram": 2},
}
# Every way of decoding once; beams, which move the rows of every kind of cache, with all.
CASES = {
    "captioner": ("captioner_drawings", ("greedy", "beams")),
    "coca": ("coca_emoji", ("beams",)),
    "flamingo": ("flamingo_emoji", ("drawn", "beams", "score")),
}


def settings(name):
    return Settings(max_new_tokens=4, end_ids=(2,), **DECODE.get(name, {}))


def write(run, batch, ways):
    """(tokens, scores) of each way, from one preparation of the same drawn parameters."""
    found, batch = {}, toy.put(run, batch)
    texts = np.array([[3, 4, 2], [5, 2, 0]])
    with jax.set_mesh(run.mesh):
        params = {"params": toy.drawn(run).params}
        prepared = Prepared(run.model, settings("greedy"))(params, batch)
        for name in ways:
            if name == "score":
                found[name] = (), make_score(run.model, texts, texts > 0)(prepared, batch)
            else:
                made = make_generate(run.model, settings(name))(prepared, batch, seed=3)
                found[name] = made.tokens, made.scores
    return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize("system", CASES)
def test_a_mesh_writes_what_one_device_writes(system):
    file, ways = CASES[system]
    config = toy.shrink(configs.load(f"configs/{file}.py", ()))
    with config.unlocked():
        config.model.text.update(length=12)
        if system == "flamingo":  # heads that two devices can share
            config.model.text.decoder.update(heads=4, kv_heads=2)
    batch = toy.batch(config)
    expected = write(toy.build(config), batch, ways)
    found = write(toy.build(config, toy.MESHES["data=2,fsdp=2,tensor=2"]), batch, ways)
    assert len(np.unique(expected["beams"][0])) > 4
    for name in ways:
        np.testing.assert_array_equal(found[name][0], expected[name][0], name)
        np.testing.assert_allclose(found[name][1], expected[name][1], rtol=1e-4)
