"""Chinese-CLIP and ALIGN beside the originals: tests/golden/make_{chinese_clip,align}.py."""

import jax
import numpy as np
from parity import GOLDEN, close, expected, fixture, layers, outputs

from mmjax.layers.mbconv import MBConv
from mmjax.pretrained import load

NAMES = ("chinese_clip", "align")

golden = fixture(*NAMES)


def test_the_text_tower_layer_by_layer(golden):
    loaded, want = golden
    batch = {name: want[name] for name in ("text", "text_mask")}
    close(layers(loaded, batch, "text"), want["text_layers"][1:])
    close(outputs(loaded, batch)["text_embed"], want["text_embed"])


def test_embeddings_and_logits(golden):
    loaded, want = golden
    found = outputs(loaded, {name: want[name] for name in ("image", "text", "text_mask")})
    close(found["image_embed"], want["image_embed"])
    close(
        found["logit_scale"] * found["image_embed"] @ found["text_embed"].T,
        want["logits_per_image"],
    )
    assert set(found) == {
        *("image_features", "image_embed", "text_features", "text_embed", "logit_scale"),
    }


def test_the_vit_of_chinese_clip_layer_by_layer():
    loaded, want = load(GOLDEN / "chinese_clip"), expected("chinese_clip")
    found = layers(loaded, {"image": want["image"]}, "image")
    close(found, want["image_layers"][1:])
    assert loaded.transform == "decode | resize((24, 24), 'bicubic')"


def test_the_efficientnet_of_align_block_by_block():
    loaded, want = load(GOLDEN / "align"), expected("align")
    found = jax.jit(
        lambda params: loaded.model.apply(
            {"params": params},
            {"image": want["image"]},
            capture_intermediates=lambda module, _: isinstance(module, MBConv),
            mutable=["intermediates"],
        )[1]["intermediates"]
    )(loaded.params)["image"]
    for i in range(len(found)):
        close(np.asarray(found[f"block{i}"]["__call__"][0]), want[f"image_block_{i + 1}"])
    assert len(found) == 6
    # Pixels run from -1 to 1: x / 127.5 - 1.
    np.testing.assert_allclose(loaded.model.image["image_mean"], 0.5)
    np.testing.assert_allclose(loaded.model.image["image_std"], 0.5)
    assert loaded.transform == "decode | resize((40, 40), 'bilinear') | center_crop((33, 33))"


def test_the_statistics_of_batch_norm_get_no_gradient():
    loaded, want = load(GOLDEN / "align"), expected("align")

    def loss(params):
        return loaded.model.apply({"params": params}, {"image": want["image"]})["image_embed"].sum()

    found = jax.jit(jax.grad(loss))(loaded.params)["image"]["block0"]["norm_project"]
    assert not found["mean"].any() and not found["variance"].any() and found["scale"].all()
