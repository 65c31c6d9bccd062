"""An image tower over the frames of a video: pooling over time, padding, and what is frozen."""

import drawn
import jax
import numpy as np
import pytest
import toy

from mmjax.models.frames import Frames
from mmjax.models.systems import make_system
from mmjax.models.vit import ViT

IMAGE = toy.IMAGE | {"depth": 1}
POOL = {"depth": 1, "heads": 2, "mlp_dim": 24}


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (3, 4, 8, 8, 3), np.uint8)
    return {"image": image, "image_mask": np.arange(4)[None] < np.array([[4], [2], [1]])}


@pytest.mark.parametrize("pool", ["mean", "transformer", "attention"])
def test_padding_has_no_influence_and_time_has_where_it_should(batch, pool):
    model = Frames(4, IMAGE, pool, **POOL)
    params = drawn.parameters(model, batch)
    apply = jax.jit(lambda batch: model.apply({"params": params}, batch)["image_features"])
    found = apply(batch)
    assert found.shape == (3, 16) and found.dtype == np.float32
    noise = np.random.default_rng(1).integers(0, 256, batch["image"].shape, np.uint8)
    mask = batch["image_mask"][..., None, None, None]
    other = apply(batch | {"image": np.where(mask, batch["image"], noise)})
    np.testing.assert_allclose(other, found, atol=1e-6)
    turned = apply(batch | {"image": batch["image"][:, ::-1], "image_mask": np.ones((3, 4), bool)})
    plain = apply(batch | {"image_mask": np.ones((3, 4), bool)})
    same = np.allclose(turned, plain, atol=1e-5)
    assert same is (pool != "transformer")  # it alone has positions in time
    if pool == "mean":
        tower = {"params": params["image"]}
        for row in range(3):
            frames = {"image": batch["image"][row][batch["image_mask"][row]]}
            want = ViT(**IMAGE).apply(tower, frames)["image_features"].mean(0)
            np.testing.assert_allclose(found[row], want, atol=1e-5)


def test_a_frozen_tower_has_no_gradient(batch):
    model = Frames(4, IMAGE, "transformer", frozen=True, **POOL)
    params = drawn.parameters(model, batch)

    @jax.jit
    def gradient(params):
        def loss(params):
            return model.apply({"params": params}, batch, train=True)["image_features"].sum()

        return jax.grad(loss)(params)

    found = gradient(params)
    assert not any(np.any(x) for x in jax.tree.leaves(found["image"]))
    assert all(np.any(x) for x in jax.tree.leaves(found["position"]))


def test_a_clip_of_videos_has_masks_in_its_spec():
    image = {"kind": "frames", "frames": 3, "image": IMAGE, "pool": "mean"}
    model = {"name": "clip", "embed_dim": 16, "image": image, "text": toy.TEXT | {"depth": 1}}
    system = make_system({"model": model, "loss": {}, "batch_size": 4})
    assert system.spec["image"].shape == (1, 3, 8, 8, 3)
    assert system.spec["image_mask"].shape == (1, 3)
    with pytest.raises(ValueError, match="config.model.image.pool is 'max'"):
        wrong = model | {"image": image | {"pool": "max"}}
        system = make_system({"model": wrong, "loss": {}, "batch_size": 4})
        jax.eval_shape(
            lambda: system.model.init(
                jax.random.key(0), {k: np.zeros(s.shape, s.dtype) for k, s in system.spec.items()}
            )
        )
