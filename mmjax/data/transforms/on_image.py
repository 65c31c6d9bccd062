"""Steps made from a function of one image: of each image, where an example has several."""

import numpy as np
from PIL import Image

from mmjax.data.regions import WHOLE, within
from mmjax.data.transforms import image_ops
from mmjax.data.transforms.captions import example_name


def of_each(f, image):
    """f(image); of several images, a tuple or an array `[M, H, W, C]`, the tuple of f of each."""
    several = isinstance(image, tuple) or (isinstance(image, np.ndarray) and image.ndim == 4)
    return tuple(map(f, image)) if several else f(image)


def on_image(f):
    """A transform that replaces `image`, or each of several, by `f(image, rng)`."""

    def transform(example, rng):
        def one(image):
            if not isinstance(image, (np.ndarray, Image.Image)):
                raise ValueError("put decode first in the chain: 'image' is not an array yet")
            return f(image, rng)

        return {**example, "image": of_each(one, example.get("image"))}

    return transform


def on_window(f):
    """As `on_image`, of an `f` that also returns which part of the image it keeps (see
    `regions.window`); `frame` is the part of the stored image that all steps so far have kept."""

    def transform(example, rng):
        parts = []

        def one(image, rng):
            image, part = f(image, rng)
            parts.append(part)
            return image

        example = on_image(one)(example, rng)
        if len(parts) > 1:  # several images: none of them has regions
            return example
        return {**example, "frame": within(example.get("frame", WHOLE), *parts)}

    return transform


def without_regions(step, name):
    """The step, refused for examples with boxes, which it cannot turn."""

    def transform(example, rng):
        if "regions" in example:
            raise ValueError(
                f"{name} rotates the image, and the boxes of its regions cannot follow: use "
                "random_resized_crop and flip"
            )
        return step(example, rng)

    return transform


def on_pillow(f):
    """As `on_image`, of an `f` that takes a Pillow image."""
    return on_image(lambda image, rng: f(image_ops.to_pillow(image), rng))


def finish(example):
    """The example with `image` as an array, `[M, H, W, 3]` of several: what a chain returns.

    Raises:
      ValueError: images of an example that differ in size.
    """
    if isinstance(example.get("image"), Image.Image | tuple):
        return {**example, "image": as_array(example["image"], example)}
    return example


def as_array(image, example):
    """An image of an example, or several [N, H, W, 3] of one size, as an array; encoded ones stay.

    Raises:
      ValueError: images of several sizes.
    """
    if not isinstance(image, tuple):
        return image_ops.to_array(image)
    if isinstance(image[0], bytes):  # not decoded yet
        return image
    sizes = [image_ops.size_of(one) for one in image]
    if len(set(sizes)) > 1:
        raise ValueError(
            f"the images of example {example_name(example)} are of the sizes {sizes}: end the "
            "chain with resize, or with pad_corner, so that they are of one size"
        )
    return np.stack([image_ops.to_array(one) for one in image])
