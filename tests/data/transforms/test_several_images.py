"""Chains on examples with several images."""

import numpy as np
import pytest
from images import noise
from PIL import Image

from mmjax.data.transforms.evaluation import evaluation_form
from mmjax.data.transforms.parse import parse

PAIR = (noise(9, 7, seed=1), noise(5, 8, seed=2))


def png(image, tmp_path):
    Image.fromarray(image).save(tmp_path / "x.png")
    return (tmp_path / "x.png").read_bytes()


def rng():
    return np.random.default_rng(0)


def test_each_image_is_treated_by_itself(tmp_path):
    encoded = tuple(png(image, tmp_path) for image in PAIR)
    chain = "decode | resize((6, 4))"
    out = parse(chain)({"image": encoded, "key": "a"}, rng())
    alone = [parse(chain)({"image": image}, rng())["image"] for image in PAIR]
    np.testing.assert_array_equal(out["image"], np.stack(alone))
    again = parse("resize((3, 4))")(out, rng())["image"]  # as a cached transform hands them on
    assert again.shape == (2, 3, 4, 3)
    padded = parse("pad_corner(9)")({"image": PAIR}, rng())
    assert padded["image"].shape == (2, 9, 9, 3)
    assert padded["image_size"].tolist() == [[9, 7], [5, 8]]


def test_random_steps_draw_for_each_image():
    same = (PAIR[0],) * 8
    flipped = parse("flip")({"image": same}, rng())["image"]
    kinds = {image.tobytes() for image in flipped}
    assert kinds == {PAIR[0].tobytes(), PAIR[0][:, ::-1].tobytes()}


def test_images_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match=r"example 'a' are of the sizes \[\(9, 7\), \(5, 8\)\]"):
        parse("flip(1)")({"image": PAIR, "key": "a"}, rng())
    with pytest.raises(ValueError, match="cannot decode 'image' of example 'a'"):
        parse("decode")({"image": (b"nothing", b"such"), "key": "a"}, rng())


def test_swapped_images_swap_the_words_for_their_sides():
    example = {"image": PAIR, "captions": ["Left of the bright leftover, right?"]}
    chain = "first_caption | swap_images({}) | resize(4)"
    kept = parse(chain.format(0))(example, rng())
    swapped = parse(chain.format(1))(example, rng())
    np.testing.assert_array_equal(swapped["image"], kept["image"][::-1])
    assert kept["caption"] == example["captions"][0]
    assert swapped["caption"] == "Right of the bright leftover, left?"
    padded = parse("pad_corner(9) | first_caption | swap_images(1)")(example, rng())
    assert padded["image_size"].tolist() == [[5, 8], [9, 7]]
    half = [parse(chain.format(0.5))(example, np.random.default_rng(i)) for i in range(40)]
    assert 10 < sum(row["caption"] != kept["caption"] for row in half) < 30
    assert evaluation_form(chain.format(0.5)) == "first_caption | resize(4)"


@pytest.mark.parametrize(
    "missing",
    [
        {"caption": "x", "image": PAIR[:1]},
        {"image": PAIR},
        {"caption": "x", "image": np.zeros((2, 9, 3), np.uint8)},  # one image of two rows
        {"caption": "x", "image": Image.new("RGB", (2, 2))},
    ],
)
def test_what_cannot_be_swapped_is_refused(missing):
    with pytest.raises(ValueError, match="swap_images needs two images and a caption"):
        parse("swap_images")(missing, rng())
