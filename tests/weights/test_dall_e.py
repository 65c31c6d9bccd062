"""DALL-E's discrete VAE beside the original, convolution by convolution, and saved again."""

import jax
import numpy as np
import pytest
from flax.core import meta
from parity import GOLDEN, close, expected
from safetensors.numpy import load_file

from mmjax.models.image_tokenizer import DVAEDecoder, ImageTokenizer
from mmjax.pretrained import load, save_pretrained

# Parts of our names and the original's.
NAMES = {"in": "conv_1", "conv0": "conv_2", "conv1": "conv_3", "conv2": "conv_4"}
ENCODER = {"conv0": "conv_1", "conv1": "conv_2", "conv2": "conv_3", "out": "conv_4"}


def original(tower, name):
    """The name there of one of our convolutions."""
    if name in ("input", "output"):
        return f"{tower}.blocks.{name}" + (".conv" if name == "output" else "")
    group, block, part = name.split("_")
    path = f"{tower}.blocks.group_{int(group[5:]) + 1}.block_{int(block[5:]) + 1}"
    if part == "identity":
        return f"{path}.id_path"
    return f"{path}.res_path.{(ENCODER if tower == 'encoder' else NAMES)[part]}"


def test_every_convolution_codes_and_pixels():
    loaded, want = load(GOLDEN / "dall_e"), expected("dall_e")

    def run(variables, image):
        given, kept = loaded.model.apply(
            variables, {"image": image}, capture_intermediates=True, mutable=["intermediates"]
        )
        decoded = loaded.model.apply(variables, given["image_codes"], method="decode")
        encoded = loaded.model.apply(variables, image, method="encode")
        return given, kept["intermediates"], decoded, encoded

    given, kept, decoded, encoded = jax.jit(run)(loaded.variables, want["image"])
    compared = 0
    for tower in ("encoder", "decoder"):
        for name, x in kept[tower].items():
            if name != "__call__":
                close(x["__call__"][0], want[original(tower, name)])
                compared += 1
    assert compared == len(want) - 3  # all but image, codes and reconstruction
    np.testing.assert_array_equal(given["image_codes"], want["codes"])
    np.testing.assert_array_equal(encoded, want["codes"])
    close(given["reconstruction"], want["reconstruction"])
    np.testing.assert_allclose(decoded, 255 * want["reconstruction"], atol=0.51)


def test_saved_tensor_by_tensor(tmp_path):
    loaded = load(GOLDEN / "dall_e")
    save_pretrained(loaded, tmp_path / "out")
    theirs, ours = (
        load_file(x / "model.safetensors") for x in (GOLDEN / "dall_e", tmp_path / "out")
    )
    assert theirs.keys() == ours.keys()
    for name, x in ours.items():
        np.testing.assert_array_equal(x, theirs[name].astype(np.float32))
    again = load(tmp_path / "out")
    assert again.config == loaded.config and again.transform == loaded.transform
    assert again.image(np.zeros((30, 40, 3), np.uint8)).shape == (24, 24, 3)


def count(model, x):
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    return sum(x.size for x in jax.tree.leaves(meta.unbox(shapes["params"])))


def test_published_size():
    encoder = 53_786_240  # of transformers' FlavaImageCodebook, too
    decoder = 43_829_766
    image = {"image": np.zeros((1, 64, 64, 3), np.uint8)}
    assert count(DVAEDecoder(), np.zeros((1, 2, 2, 8192), np.float32)) == decoder
    assert count(ImageTokenizer(), image) == encoder + decoder


@pytest.mark.parametrize(
    ("settings", "problem"),
    [({"kind": "vq"}, "kind 'vq'"), ({"image_size": (16, 24)}, "image_size")],
)
def test_what_the_family_cannot_hold_is_refused(tmp_path, settings, problem):
    loaded = load(GOLDEN / "dall_e")
    model = loaded.model.clone(**settings)
    object.__setattr__(loaded, "model", model)
    with pytest.raises(ValueError, match=problem):
        save_pretrained(loaded, tmp_path / "out")
