"""Color operations and RandAugment against their formulas."""

import colorsys

import numpy as np
import pytest
from images import noise, run, smooth

from mmjax.data.transforms import image_ops
from mmjax.data.transforms.auto_augment import auto_augment_policy
from mmjax.data.transforms.rand_augment import rand_augment_ops

LUMA = np.array([0.299, 0.587, 0.114])


def blend(a, b, share):
    return np.clip(a * (1 - share) + b * share, 0, 255)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
def test_colour_operations_equal_their_formulas(factor):
    image = noise()
    grey = (image @ LUMA)[..., None]
    for op, other in (
        (image_ops.brightness, 0.0),
        (image_ops.contrast, grey.mean()),
        (image_ops.saturation, grey),
    ):
        assert np.abs(op(image, factor) - blend(other, image, factor)).max() <= 1.5


def test_grayscale():
    out = image_ops.grayscale(noise())
    assert np.abs(out - (noise() @ LUMA)[..., None]).max() <= 1
    assert (run("random_grayscale(1.0)", noise()) == out).all()
    assert (run("random_grayscale(0.0)", noise()) == noise()).all()


@pytest.mark.parametrize("shift", [-0.5, -0.1, 0.0, 0.25, 0.5])
def test_hue_turns_the_colour_circle(shift):
    """Against colorsys; 8-bit HSV is worth some levels of error."""
    image = smooth(12, 12)
    out = image_ops.hue(image, shift)
    for pixel, turned in zip(image.reshape(-1, 3), out.reshape(-1, 3)):
        h, s, v = colorsys.rgb_to_hsv(*(pixel / 255))
        expected = 255 * np.array(colorsys.hsv_to_rgb((h + shift) % 1, s, v))
        assert np.abs(turned - expected).max() <= 9


def test_color_jitter_covers_its_range():
    image = np.full((4, 4, 3), 100, np.uint8)
    values = [run("color_jitter(brightness=0.4)", image, seed)[0, 0, 0] for seed in range(300)]
    assert 60 <= min(values) < 64 and 136 < max(values) <= 140
    np.testing.assert_array_equal(run("color_jitter", image), image)
    np.testing.assert_array_equal(run("color_jitter(0.4, p=0.0)", image), image)


@pytest.mark.parametrize("bits", range(9))
def test_posterize(bits):
    step = 2 ** (8 - bits)
    np.testing.assert_array_equal(
        image_ops.posterize(noise(), bits), noise().astype(int) // step * step
    )


def test_solarize():
    image = np.array([[[0, 127, 128], [129, 200, 255]]], np.uint8)
    expected = [[[0, 127, 127], [126, 55, 0]]]
    np.testing.assert_array_equal(image_ops.solarize(image, 128), expected)
    np.testing.assert_array_equal(image_ops.solarize(image, 256), image)
    np.testing.assert_array_equal(image_ops.solarize(image, 0), 255 - image)


def test_autocontrast_and_equalize():
    image = noise(80, 80) // 4 + np.uint8(50)
    low, high = image.min((0, 1)), image.max((0, 1))
    expected = (image.astype(float) - low) * 255 / (high - low)
    assert np.abs(image_ops.autocontrast(image) - expected).max() <= 1
    flat = image_ops.equalize(image)[..., 0].ravel()
    # a flat histogram: the share of pixels up to a level is the level's own share
    for level in (64, 128, 192):
        assert abs((flat <= level).mean() - level / 255) < 0.05


@pytest.mark.parametrize("name", rand_augment_ops(0))
def test_rand_augment_grows_with_its_magnitude(name):
    image = smooth() // 2 + noise(48, 48) // 8 + np.uint8(40)  # detail, and slow waves

    def change(level, sign):
        out = rand_augment_ops(level)[name](image, sign)
        assert out.shape == image.shape and out.dtype == np.uint8
        return np.abs(out.astype(float) - image).mean()

    for sign in (1, -1):
        changes = [change(level, sign) for level in (0, 0.3, 0.9)]
        if name == "identity":
            assert changes == [0, 0, 0]
        elif name in ("autocontrast", "equalize"):
            assert changes[0] == changes[1] == changes[2] > 0
        else:
            assert changes[0] < 0.5 < changes[2] and changes[0] < changes[1] < changes[2]


def test_rand_augment_draws_every_operation():
    """With one layer, some image stays itself (identity) and the others differ from each other."""
    image = smooth()
    outs = {run("rand_augment(1, 9)", image, seed).tobytes() for seed in range(300)}
    # 10 operations of two signs (but for solarize, posterize), 2 with one, the untouched image
    assert len(outs) == 9 * 2 + 2 + 2 + 1 and image.tobytes() in outs
    assert (run("rand_augment(0, 9)", image) == image).all()


def test_auto_augment_applies_each_operation_of_a_pair_with_its_probability():
    image, pairs = smooth(), auto_augment_policy("cifar10")
    assert len(pairs) == 25 and all(len(pair) == 2 for pair in pairs)
    (invert, p), (contrast, q) = pairs[0]
    assert (p, q) == (0.1, 0.2)
    np.testing.assert_array_equal(invert(image, 1), 255 - image)
    np.testing.assert_array_equal(contrast(image, -1), image_ops.contrast(image, 1 - 0.9 * 6 / 9))
    # An image stays itself where neither is applied, or where equalize or posterize change nothing.
    kept = np.mean([(run("auto_augment('cifar10')", image, i) == image).all() for i in range(400)])
    alone = np.mean([(1 - p) * (1 - q) for (_, p), (_, q) in pairs])
    assert alone - 0.05 < kept < alone + 0.2
    with pytest.raises(ValueError, match="auto_augment has the policies cifar10, not 'svhn'"):
        run("auto_augment('svhn')", image)


def test_random_erasing_changes_one_rectangle():
    image = np.full((40, 40, 3), 100, np.uint8)
    shares = []
    for seed in range(100):
        changed = (run("random_erasing(1.0, scale=(0.1, 0.3))", image, seed) != 100).any(-1)
        y, x = np.nonzero(changed)
        box = changed[y.min() : y.max() + 1, x.min() : x.max() + 1]
        assert box.mean() > 0.97  # noise is 100 by chance now and then
        shares.append(box.size / changed.size)
    assert 0.08 < min(shares) < 0.13 and 0.27 < max(shares) < 0.32
