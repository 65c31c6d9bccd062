"""big_vision's files beside its own code: tests/golden/make_big_vision.py."""

import json

import numpy as np
import pytest
from parity import GOLDEN, close, layers_and_outputs, outputs
from safetensors.numpy import load_file

from mmjax.pretrained import load

FOLDER = GOLDEN / "big_vision"


@pytest.fixture(scope="module")
def want():
    return load_file(FOLDER / "expected.safetensors")


@pytest.fixture(scope="module")
def siglip():
    return load(FOLDER / "siglip.npz")


def test_siglip_layer_by_layer_and_at_the_end(siglip, want):
    blocks, found = layers_and_outputs(siglip, {"image": want["image"]}, "image")
    close(blocks, want["siglip/image_layers"])
    close(found["image_embed"], want["siglip/image_embed"])
    blocks, words = layers_and_outputs(siglip, {"text": want["siglip/text"]}, "text")
    close(blocks, want["siglip/text_layers"])
    close(words["text_embed"], want["siglip/text_embed"])
    logits = found["logit_scale"] * found["image_embed"] @ words["text_embed"].T
    close(logits + found["logit_bias"], want["siglip/logits"])


def test_positions_of_another_size_are_resized_as_theirs(siglip, want):
    found = outputs(siglip, {"image": want["small"]})
    close(found["image_embed"], want["siglip/small_embed"])


def test_vit_under_its_first_names(want):
    loaded = load(FOLDER / "vit.npz")
    blocks, found = layers_and_outputs(loaded, {"image": want["image"]})
    close(blocks, want["vit/layers"])
    close(found["image_features"], want["vit/features"])
    close(found["logits"], want["vit/logits"])
    close(outputs(loaded, {"image": want["small"]})["logits"], want["vit/small_logits"])
    assert loaded.transform == "decode | resize(32, 'bilinear', antialias=False)"


def test_mean_of_patches_in_bfloat16(want):
    loaded = load(FOLDER / "mean.npz")
    blocks, found = layers_and_outputs(loaded, {"image": want["image"]})
    close(blocks, want["mean/layers"])
    close(found["image_features"], want["mean/features"])


def test_older_forms_are_the_same_model(siglip, want, tmp_path):
    """Blocks one by one, the pooling's tensors at the top, a second table of positions of texts."""
    with np.load(FOLDER / "siglip.npz") as file:
        arrays = {name.removeprefix("params/"): file[name] for name in file.files}
    old = {"opt/state/step": np.zeros(())}
    for name, array in arrays.items():
        name = name.replace("img/MAPHead_0/", "img/")
        if "/encoderblock/" in name:
            for i, layer in enumerate(array):
                old[f"opt/target/{name.replace('encoderblock', f'encoderblock_{i}')}"] = layer
        else:
            old[f"opt/target/{name}"] = array
    old["opt/target/txt/Encoder_0/pos_embedding"] = arrays["txt/pos_embedding"] - 1
    old["opt/target/txt/pos_embedding"] = np.ones_like(arrays["txt/pos_embedding"])
    np.savez(tmp_path / "old.npz", **old)
    loaded = load(tmp_path / "old.npz")
    batch = {"image": want["image"], "text": want["siglip/text"]}
    ours, again = outputs(siglip, batch), outputs(loaded, batch)
    for name in ("image_embed", "text_embed", "logit_scale", "logit_bias"):
        close(again[name], ours[name], 1e-6)
    assert "unused  opt/state/step" in loaded.report


def test_files_that_cannot_be_used_are_named(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "x.npz", **{k.replace("__", "/"): v for k, v in arrays.items()})
        return tmp_path / "x.npz"

    with pytest.raises(
        ValueError, match="neither a ViT nor a SigLIP of big_vision: it does not have"
    ):
        load(write(kernel=np.zeros(3)))
    patches = np.zeros((8, 8, 3, 4))
    with pytest.raises(ValueError, match="has no 'Transformer/encoderblock/.*query/kernel'"):
        load(write(embedding__kernel=patches))
    with pytest.raises(ValueError, match="NaFlex"):
        words = {"txt__Embed_0__embedding": np.zeros((9, 4))}
        load(write(img__embedding__kernel=np.zeros((192, 4)), **words))
    with pytest.raises(ValueError, match="6 positions of patches, which is not a square"):
        query = "Transformer__encoderblock__MultiHeadDotProductAttention_0__query__kernel"
        more = {query: np.zeros((1, 4, 2, 2)), "pos_embedding": np.zeros((1, 6, 4))}
        more["Transformer__encoderblock__MlpBlock_0__Dense_0__kernel"] = np.zeros((1, 4, 8))
        load(write(embedding__kernel=patches, **more))
    with pytest.raises(ValueError, match="holds Python objects, which are never loaded"):
        load(write(embedding__kernel=np.array([{}], object)))
    (tmp_path / "cut.npz").write_bytes((FOLDER / "vit.npz").read_bytes()[:5000])
    with pytest.raises(ValueError, match="cut.npz' is damaged or not a .npz file"):
        load(tmp_path / "cut.npz")
    with pytest.raises(ValueError, match="There is no file"):
        load(tmp_path / "none.npz")


def test_a_tokenizer_beside_the_file_is_used(siglip, tmp_path):
    assert siglip.tokenizer is None
    (tmp_path / "m.npz").write_bytes((FOLDER / "siglip.npz").read_bytes())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((GOLDEN / "siglip" / name).read_bytes())
    words = load(tmp_path / "m.npz").tokenizer
    text, _ = words.encode(["a red bus"], 10)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["pad_token"] == "</s>"
    assert (text[0, 3:] == words.eos_id).all()
