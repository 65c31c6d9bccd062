"""Steps that make and change `image`; the table of all steps is in `parse.py`.

Within a chain `image` is an array or, from the first step that Pillow does, a Pillow image; or a
tuple of these, where an example has several images: each step then treats every image by itself.
"""

import math

import numpy as np

from mmjax.data.regions import WHOLE, window
from mmjax.data.transforms import image_ops
from mmjax.data.transforms.auto_augment import auto_augment_policy
from mmjax.data.transforms.captions import UNNAMED, example_name
from mmjax.data.transforms.decode import as_rgb, decode_image
from mmjax.data.transforms.on_image import (
    as_array,
    of_each,
    on_image,
    on_pillow,
    on_window,
    without_regions,
)
from mmjax.data.transforms.rand_augment import rand_augment_ops
from mmjax.data.transforms.smoothed_resize import smoothed_resize

CANNOT_DECODE = "cannot decode 'image'"  # how the message begins

# ---- pixels ------------------------------------------------------------------------------


def decode(min_size=None, background=(255, 255, 255)):
    """`image`: encoded bytes (or an array of gray, RGB or RGBA) to uint8 `[H, W, 3]`.

    `min_size` allows a JPEG to be downscaled during decoding, to sides of at least that many
    pixels: set it to the chain's output size. See `decode.decode_image`.
    """

    def rgb(image):
        if isinstance(image, np.ndarray):
            return as_rgb(image, background)
        if isinstance(image, bytes | bytearray | memoryview):
            return decode_image(image, min_size, background)
        raise ValueError(f"expected encoded bytes or an array, found {type(image).__name__}")

    def f(example, rng):
        try:
            return {**example, "image": of_each(rgb, example.get("image"))}
        except ValueError as error:
            named = example_name(example) != UNNAMED
            what = f"{CANNOT_DECODE} of example {example_name(example)}" if named else CANNOT_DECODE
            raise ValueError(f"{what}: {error}") from None

    return f


def resize(size, method="bicubic", antialias=True):
    """To `size` pixels square, or (height, width); the aspect ratio is not kept."""
    size = _pair(size)
    image_ops.resampling(method)
    return on_image(lambda image, rng: _resized(image, size, method, antialias))


def resize_short(size, method="bicubic"):
    """The shorter side to `size` pixels, keeping the aspect ratio."""
    image_ops.resampling(method)

    def f(image, rng):
        return _resized(image, image_ops.size_short(image, size), method)

    return on_image(f)


def resize_between(shorter, longer, multiple=1, method="bicubic"):
    """The shorter side to `shorter` pixels, or the longer one to `longer` where it would exceed
    that, keeping the aspect ratio but for the rounding down of both to a multiple: as in ViLT."""
    image_ops.resampling(method)

    def f(image, rng):
        return _resized(image, image_ops.size_between(image, shorter, longer, multiple), method)

    return on_image(f)


def resize_long(size, method="bicubic"):
    """The longer side to `size` pixels, keeping the aspect ratio; the shorter one is rounded to the
    nearest, as in SAM."""
    image_ops.resampling(method)

    def f(image, rng):
        return _resized(image, image_ops.size_long(image, size), method)

    return on_image(f)


def pad_square(fill=0):
    """Pads at the bottom and the right to a square of the longer side, as in OWLv2."""

    def f(image, rng):
        side = max(image_ops.size_of(image))
        return _padded(image, (side, side), fill)

    return on_window(f)


def pad_corner(size, fill=0):
    """Pads at the bottom and the right to `size` (number, or (height, width)), and sets
    `image_size` (int32 `[2]`), height and width before. The last step of the image: another one
    would move the pixels that these are."""
    size = _pair(size)
    pad = on_window(lambda image, rng: _padded(image, size, fill))

    def f(example, rng):
        padded, sizes = pad(example, rng), of_each(image_ops.size_of, example["image"])
        return {**padded, "image_size": np.asarray(sizes, np.int32)}

    return f


def resize_smoothed(size):
    """To `size` pixels square, or (height, width), as OWLv2 does: see `smoothed_resize`."""
    size = _pair(size)
    return on_image(lambda image, rng: smoothed_resize(image_ops.to_array(image), size))


def center_crop(size, half="down"):
    """The middle `size` (number, or (height, width)); a smaller image is padded with black.

    Args:
      half: rounding of a half-pixel offset: see `image_ops.center_crop`.
    """
    size = _pair(size)

    def f(image, rng):
        place = image_ops.center_place(image, size, half)
        part = window(image_ops.size_of(image), *place, *size)
        return image_ops.center_crop(image, size, half), part

    return on_window(f)


def trim(background=255, tolerance=16):
    """The smallest part with all pixels that differ from the color `background` by more than
    `tolerance` in some channel; the whole image where none does."""

    def f(image, rng):
        away = np.abs(image_ops.to_array(image).astype(np.int16) - background).max(-1) > tolerance
        lines = [np.flatnonzero(away.any(axis)) for axis in (1, 0)]
        if not len(lines[0]):
            return image, WHOLE
        (top, bottom), (left, right) = ((x[0], x[-1] + 1) for x in lines)
        box = tuple(int(n) for n in (top, left, bottom - top, right - left))
        return image_ops.crop(image, *box), window(image_ops.size_of(image), *box)

    return on_window(f)


def random_crop(size, padding=0, fill=0):
    """A random window of `size` after padding every side by `padding` pixels of color `fill`."""
    size = _pair(size)

    def f(image, rng):
        before = image_ops.size_of(image)
        if padding:
            image = image_ops.pad(image, (padding,) * 4, fill)
        above, beside = (max(0, s - side) // 2 for s, side in zip(size, image_ops.size_of(image)))
        image = image_ops.pad_to(image, size, fill)
        h, w = image_ops.size_of(image)
        top, left = rng.integers(h - size[0] + 1), rng.integers(w - size[1] + 1)
        part = window(before, top - padding - above, left - padding - beside, *size)
        return image_ops.crop(image, top, left, *size), part

    return on_window(f)


def random_resized_crop(size, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), method="bicubic"):
    """A random part of the image, resized to `size`.

    Args:
      size: number, or (height, width).
      scale: the part's fraction of the area, drawn uniformly from this range.
      ratio: its width / height, drawn log-uniformly from this range.
      method: resize filter.

    Source: Szegedy et al. 2014 (Inception); the sampling is torchvision's `RandomResizedCrop`.
    """
    size = _pair(size)
    image_ops.resampling(method)
    if not 0 < scale[0] <= scale[1] or not 0 < ratio[0] <= ratio[1]:
        raise ValueError(f"scale {scale} and ratio {ratio} must be (low, high), both above 0")

    def f(image, rng):
        before = image_ops.size_of(image)
        box = sample_crop(*before, scale, ratio, rng)
        return _resized(image_ops.crop(image, *box), size, method), window(before, *box)

    return on_window(f)


def sample_crop(height, width, scale, ratio, rng):
    """(top, left, height, width) of a random part, as torchvision's `RandomResizedCrop` draws it.

    Ten tries at a window that fits; then the largest middle window whose ratio is in range.
    """
    area = height * width
    for _ in range(10):
        target = area * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w = round(math.sqrt(target * aspect))
        h = round(math.sqrt(target / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    if width / height < ratio[0]:
        w, h = width, round(width / ratio[0])
    elif width / height > ratio[1]:
        w, h = round(height * ratio[1]), height
    else:
        w, h = width, height
    return (height - h) // 2, (width - w) // 2, h, w


def codebook_image(size, method="lanczos"):
    """Sets `image_codebook` to the image as it is now, resized to `size`: what an image codebook
    reads, such as FLAVA's. Later steps change `image` alone: put crops and flips before it."""
    size = _pair(size)
    image_ops.resampling(method)

    def f(example, rng):
        small = on_image(lambda image, rng: _resized(image, size, method))(example, rng)
        return {**example, "image_codebook": as_array(small["image"], example)}

    return f


def flip(p=0.5):
    """Horizontal flip with probability `p`."""

    def f(image, rng):
        if rng.random() < p:
            return image_ops.flip(image), (1.0, 0.0, 0.0, 1.0)
        return image, WHOLE

    return on_window(f)


def random_affine(degrees=0.0, translate=0.0, scale=(1.0, 1.0), fill=255):
    """A small random rotation, shift and scaling.

    Args:
      degrees: rotation from ±degrees.
      translate: shift from ±translate, a fraction of the side, in each direction.
      scale: zoom, drawn uniformly from this range.
      fill: color outside the image (white by default, the background of drawings).
    """

    def f(image, rng):
        h, w = image_ops.size_of(image)
        angle = rng.uniform(-degrees, degrees)
        right, down = rng.uniform(-translate, translate, 2).tolist()
        shift = right * w, down * h
        return image_ops.affine(image, angle, shift, rng.uniform(*scale), fill=fill)

    return without_regions(on_pillow(f), "random_affine")


# ---- colors -----------------------------------------------------------------------------


def color_jitter(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0, p=1.0):
    """Random brightness, contrast, saturation (factors from 1 ± value) and hue (± value turns).

    Applied in random order. Source: torchvision's `ColorJitter`.
    """
    if not 0 <= hue <= 0.5:
        raise ValueError(f"hue must be between 0 and 0.5 turns, not {hue}")
    ops = [
        (image_ops.brightness, max(0.0, 1 - brightness), 1 + brightness, brightness),
        (image_ops.contrast, max(0.0, 1 - contrast), 1 + contrast, contrast),
        (image_ops.saturation, max(0.0, 1 - saturation), 1 + saturation, saturation),
        (image_ops.hue, -hue, hue, hue),
    ]

    def f(image, rng):
        if rng.random() >= p:
            return image
        image = image_ops.to_pillow(image)
        for i in rng.permutation(4).tolist():
            op, low, high, wanted = ops[i]
            if wanted:
                image = op(image, rng.uniform(low, high))
        return image

    return on_image(f)


def random_grayscale(p=0.1):
    """Grayscale (in three channels) with probability `p`."""

    def f(image, rng):
        return image_ops.grayscale(image_ops.to_pillow(image)) if rng.random() < p else image

    return on_image(f)


def rand_augment(num_layers=2, magnitude=9, fill=128):
    """`num_layers` random operations of RandAugment at one magnitude (10 is the full range).

    `fill` is the color outside the image. See `rand_augment.rand_augment_ops`.
    """
    ops = list(rand_augment_ops(magnitude / 10, fill).values())

    def f(image, rng):
        for i in rng.integers(len(ops), size=num_layers):
            image = ops[i](image, 1 if rng.random() < 0.5 else -1)
        return image

    return without_regions(on_pillow(f), "rand_augment")


def auto_augment(policy="cifar10", fill=128):
    """A random pair of operations of AutoAugment's policy, each with its own probability.

    `fill` is the color outside the image. See `auto_augment.auto_augment_policy`.
    """
    pairs = auto_augment_policy(policy, fill)

    def f(image, rng):
        for op, p in pairs[rng.integers(len(pairs))]:
            sign = 1 if rng.random() < 0.5 else -1
            if rng.random() < p:
                image = op(image, sign)
        return image

    return without_regions(on_pillow(f), "auto_augment")


def random_erasing(p=0.25, scale=(0.02, 0.33), ratio=(0.3, 3.3)):
    """With probability `p` a random rectangle becomes noise.

    Source: Zhong et al. 2017 (Random Erasing), with the ranges of torchvision.
    """

    def f(image, rng):
        if rng.random() >= p:
            return image
        top, left, h, w = sample_crop(*image_ops.size_of(image), scale, ratio, rng)
        image = np.array(image)
        image[top : top + h, left : left + w] = rng.integers(0, 256, (h, w, 3), np.uint8)
        return image

    return on_image(f)


def _pair(size):
    """(height, width) of a number or a pair."""
    pair = (size, size) if isinstance(size, int) else size
    whole = isinstance(pair, tuple | list) and all(isinstance(side, int) for side in pair)
    if not whole or len(pair) != 2 or min(pair) <= 0:
        raise ValueError(f"a size is a positive whole number or (height, width), not {size!r}")
    return tuple(pair)


def _resized(image, size, method, antialias=True):
    """As `image_ops.resize`; a Pillow image unless the size is right already."""
    if image_ops.size_of(image) == size:
        return image
    return image_ops.resize(image_ops.to_pillow(image), size, method, antialias)


def _padded(image, size, fill):
    """Padded at the bottom and the right, and the part that this is; see `on_window`."""
    return image_ops.pad_corner(image, size, fill), window(image_ops.size_of(image), 0, 0, *size)
