"""The initial ALBEF: each encoder gives what the model that it comes from gives."""

import numpy as np
import pytest
from parity import GOLDEN, close, expected, layers, outputs

from experiments.albef_initial import initial
from mmjax.pretrained import load, save_pretrained
from mmjax.weights.image_defaults import CLIP_MEAN, CLIP_STD


def model_config(**text):
    vit = load(GOLDEN / "vit").config
    image = {k: vit[k] for k in ("width", "depth", "heads", "mlp_dim", "patch_size", "image_size")}
    image |= {"image_mean": CLIP_MEAN, "image_std": CLIP_STD}
    words = load(GOLDEN / "bert").config["text"]
    names = ("vocab_size", "width", "depth", "heads", "mlp_dim", "length", "segments")
    words = {k: words[k] for k in names} | {"fusion_depth": 1, "mask_token": 4, **text}
    return {"name": "albef", "embed_dim": 8, "image": image, "text": words}


def test_the_encoders_are_those_of_the_folders_and_come_back_from_the_saved_one(tmp_path):
    made, want = initial(model_config(), GOLDEN / "vit", GOLDEN / "bert"), expected("bert")
    save_pretrained(made, tmp_path / "out")
    back = load(tmp_path / "out")
    batch = {name: want[name] for name in ("text", "text_mask")}
    close(layers(back, batch, "text", "encoder"), want["text_layers"][1:3])
    vit = load(GOLDEN / "vit")
    image = {"image": np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)}
    own = {"image_mean": CLIP_MEAN, "image_std": CLIP_STD, "norm_epsilon": 1e-6}  # ALBEF's
    theirs = vit.model.clone(**own).apply({"params": vit.params}, image)
    close(outputs(back, image)["image_features"], theirs["image_features"])
    fusion, layer = back.params["text"]["fusion"]["layers"], load(GOLDEN / "bert").params["text"]
    np.testing.assert_array_equal(
        fusion["mlp"]["up"]["kernel"][0], layer["encoder"]["layers"]["mlp"]["up"]["kernel"][2]
    )


def test_folders_of_other_sizes_are_refused():
    with pytest.raises(ValueError, match="positions for 20 tokens and config.model.text.length is"):
        initial(model_config(length=24), GOLDEN / "vit", GOLDEN / "bert")
    config = model_config()
    config["image"]["depth"] += 1
    with pytest.raises(ValueError, match="and config.model .*: give a ViT of the config's sizes"):
        initial(config, GOLDEN / "vit", GOLDEN / "bert")
