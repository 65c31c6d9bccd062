"""Our chains of transforms beside transformers' image processors: make_preprocessing.py.

Those of Pillow are matched to the last bit. Those that resize tensors with torchvision, which
transformers takes where that is installed, differ from both by one level of 255 at most, and by a
quarter of a level in the mean of the image with the largest difference.
"""

import json

import numpy as np
import pytest
from parity import GOLDEN
from safetensors.numpy import load_file

from mmjax.data.transforms import parse as transforms
from mmjax.models.vit import ViT
from mmjax.weights import image_processor
from mmjax.weights.family import FAMILIES
from mmjax.weights.published import Published

FOLDER = GOLDEN / "preprocessing"
PICTURES = sorted(path.name for path in FOLDER.glob("*.*g"))
KINDS = sorted(path.parent.name for path in FOLDER.glob("*/preprocessor_config.json"))


@pytest.fixture(scope="module")
def expected():
    return load_file(FOLDER / "expected.safetensors")


def chain(kind):
    """The chain that a family's file makes of a preprocessor_config.json."""
    settings = json.loads((FOLDER / kind / "preprocessor_config.json").read_text())
    model_type = kind.split("_")[0]
    found = Published(FOLDER / kind, {"model_type": model_type}, settings, None)
    return FAMILIES[model_type].transform(found)


def prepared(kind, picture):
    prepare = transforms.parse(chain(kind))
    example = {"image": (FOLDER / picture).read_bytes()}
    return prepare(example, np.random.default_rng(0))["image"]


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_the_image_processors(kind, expected):
    assert len(PICTURES) == 7
    for picture in PICTURES:
        ours = prepared(kind, picture).astype(int)
        np.testing.assert_array_equal(ours, expected[f"{kind}/pil/{picture}"], picture)
        far = np.abs(ours - expected[f"{kind}/torchvision/{picture}"])
        assert far.mean() < 1, picture  # 1/255, as pixels here are 0 to 255


@pytest.mark.parametrize("kind", KINDS)
def test_settings_written_give_the_same_chain(kind):
    steps = chain(kind)
    tower = ViT(image_size=32, image_mean=(0.1, 0.2, 0.3), image_std=(0.4, 0.5, 0.6))
    written = image_processor.write(tower, steps, "AnyImageProcessor")
    again = image_processor.read(written, {})
    assert again == (steps, tower.image_mean, tower.image_std)


def test_what_the_published_form_cannot_say_is_refused():
    with pytest.raises(ValueError, match="without antialiasing.*another transform"):
        steps = "decode | resize(8, antialias=False)"
        image_processor.write(ViT(image_size=8), steps, "ViTImageProcessor")
    with pytest.raises(ValueError, match="'longest_edge': 9.*can be read"):
        image_processor.read({"size": {"longest_edge": 9}, "resample": 3}, {})


def test_another_rescaling_is_one_map_of_the_pixels():
    settings = {"size": 8, "resample": 3, "rescale_factor": 0.5, "rescale_offset": True}
    given = {"image_mean": (0.1, 0.2, 0.3), "image_std": (2.0, 4.0, 5.0)}
    found = image_processor.read(settings, given)
    for x in (0, 90, 255):
        want = (x * 0.5 - 1 - np.array(given["image_mean"])) / given["image_std"]
        np.testing.assert_allclose((x / 255 - np.array(found.mean)) / found.std, want, rtol=1e-12)
