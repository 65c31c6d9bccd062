"""`Runner.sample` calls `System.sample`, which compiles itself, and gives the rows of all."""

import dataclasses

import drawn
import jax
import jax.numpy as jnp
import numpy as np
import toy
from flax.core import meta

from mmjax.models.systems import make_system
from mmjax.run.evaluation import Runner
from mmjax.system import row_keys

TOKENIZER = {"codes": 7, "width": 4, "blocks": 1, "groups": 2, "first": 4, "image_size": (8, 8)}
DALLE = {
    "name": "dalle",
    "width": 8,
    "text": {"vocab_size": 20, "length": 3},
    "decoder": {"depth": 1, "heads": 2, "mlp_dim": 8, "kernel": 3},
    "image_tokenizer": TOKENIZER,
}


def test_samples_of_a_mesh_are_those_of_one_device(tmp_path):
    system, rng = make_system({"model": DALLE, "loss": {}}), np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (4, 8, 8, 3), np.uint8),
        "text": rng.integers(0, 20, (4, 3), np.int32),
        "text_mask": np.ones((4, 3), bool),
    }
    shapes = jax.eval_shape(lambda: system.model.init(jax.random.key(0), batch))
    given, settings, seen = drawn.drawn(meta.unbox(shapes)), {"temperature": 0.5}, []
    want = system.sample(given, batch, row_keys(jax.random.key(3), jnp.arange(4) + 5), settings)

    def sample(variables, batch, rng, settings):
        seen.append(isinstance(rng, jax.core.Tracer))
        return system.sample(variables, batch, rng, settings)

    run = toy.build(toy.config("vit", depth=1), {"data": 4, "fsdp": 1, "tensor": 1})
    run = dataclasses.replace(run, system=dataclasses.replace(system, sample=sample))
    draw = Runner(run, tmp_path, lambda *_: None).sample(settings)
    found = draw(given, batch | {"example_id": np.arange(4, dtype=np.int32) + 5}, 3)
    assert found.keys() == want.keys() and seen == [False]
    np.testing.assert_array_equal(found["image_codes"], want["image_codes"])
    np.testing.assert_allclose(found["log_p"], want["log_p"], rtol=1e-4)
    assert isinstance(found["image"], np.ndarray) and found["image"].dtype == np.uint8
