"""Pure functions of uint8 RGB images `[H, W, 3]`; Pillow does the work, so threads run freely.

Those marked `_of_pillow` also take a Pillow image, in mode RGB, and return one then: to convert an
image there and back takes as long as many an operation on it.
"""

import functools
import math

import numpy as np
from PIL import Image, ImageChops, ImageEnhance, ImageOps

# Pillow frees every image's memory at once; keeping some blocks avoids page faults.
Image.core.set_blocks_max(16)

METHODS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def resampling(method):
    """Pillow's filter of that name; raises ValueError naming all of them."""
    if method not in METHODS:
        raise ValueError(f"no resize method {method!r}; there are {', '.join(METHODS)}")
    return METHODS[method]


def to_pillow(image):
    """The image as a Pillow image."""
    if isinstance(image, Image.Image):
        return image
    if image.dtype != np.uint8 or image.shape[2:] != (3,):
        return Image.fromarray(image)
    return Image.frombytes("RGB", image.shape[1::-1], image.tobytes())  # in half the time


def to_array(image):
    """The image as an array, perhaps read-only."""
    return np.asarray(image)


def size_of(image):
    """(height, width) of an array or a Pillow image."""
    return image.size[::-1] if isinstance(image, Image.Image) else image.shape[:2]


def _of_pillow(op):
    @functools.wraps(op)
    def of_either(image, *args, **kwargs):
        if isinstance(image, Image.Image):
            return op(image, *args, **kwargs)
        return to_array(op(to_pillow(image), *args, **kwargs))

    return of_either


def resize(image, size, method="bicubic", antialias=True, box=None):
    """Resizes `[H, W, 3]` (or a Pillow image) to `size` = (height, width), as Pillow does.

    Args:
      image: uint8 `[H, W, 3]`.
      size: (height, width) in pixels.
      method: a name in `METHODS`.
      antialias: widen the filter when downscaling. False: plain bilinear or bicubic sampling, as in
        `torch.nn.functional.interpolate` and old TensorFlow pipelines.
      box: (top, left, height, width): crop to this first; the filter sees no pixels outside it.
    """
    if box is not None:
        image = crop(image, *box)
    return image if size_of(image) == tuple(size) else _resize(image, size, method, antialias)


@_of_pillow
def _resize(image, size, method, antialias):
    (height, width), filter_ = size, resampling(method)
    if antialias or method in ("nearest", "box"):
        return image.resize((width, height), filter_)
    if method not in ("bilinear", "bicubic"):
        raise ValueError(f"antialias=False goes with bilinear and bicubic, not with {method!r}")
    scale = (image.width / width, 0, 0, 0, image.height / height, 0)
    return image.transform((width, height), Image.Transform.AFFINE, scale, filter_)


def crop(image, top, left, height, width):
    """The window of an array (as a view) or of a Pillow image."""
    if isinstance(image, Image.Image):
        return image.crop((left, top, left + width, top + height))
    return image[top : top + height, left : left + width]


def resize_short(image, size, method="bicubic"):
    """Resizes the shorter side to `size` pixels, keeping the aspect ratio.

    The longer side is rounded down, as in torchvision and `transformers`.
    """
    return resize(image, size_short(image, size), method)


def size_short(image, size):
    """(height, width) that `resize_short` resizes to."""
    h, w = size_of(image)
    longer = int(size * max(h, w) / min(h, w))
    return (size, longer) if h <= w else (longer, size)


def size_long(image, size):
    """(height, width) of an image whose longer side is resized to `size` pixels, the other rounded
    to the nearest.

    Source: facebookresearch/segment-anything, utils/transforms.py, get_preprocess_shape.
    """
    sides = size_of(image)
    scale = size / max(sides)
    return tuple(max(1, int(side * scale + 0.5)) for side in sides)


def size_between(image, shorter, longer, multiple=1):
    """(height, width) of an image whose shorter side is resized to `shorter` pixels, or whose
    longer side to `longer` where it would exceed that; both are rounded down to a multiple, of at
    least one.

    Source: dandelin/ViLT, transforms/utils.py, MinMaxResize.
    """
    sides = size_of(image)
    scale = shorter / min(sides)
    wanted = [shorter if side == min(sides) else scale * side for side in sides]
    if max(wanted) > longer:
        scale = longer / max(wanted)
        wanted = [scale * side for side in wanted]
    return tuple(max(1, int(side + 0.5) // multiple) * multiple for side in wanted)


def pad_corner(image, size, fill=0):
    """Pads at the bottom and the right to `size` = (height, width).

    Raises:
      ValueError: a larger image.
    """
    h, w = size_of(image)
    if h > size[0] or w > size[1]:
        raise ValueError(
            f"an image of {h}x{w} pixels does not fit into {size[0]}x{size[1]}: resize it before, "
            "or pad to more"
        )
    return pad(image, (0, size[0] - h, 0, size[1] - w), fill)


def pad_together(images):
    """Images of several sizes as one batch, for a model that reads `image_size`.

    Returns:
      {"image": [B, H, W, 3] uint8, each at the top left of an array as high as the highest and as
      wide as the widest; "image_size": [B, 2] int32}.
    """
    sizes = np.asarray([size_of(image) for image in images], np.int32)
    padded = [pad_corner(image, sizes.max(0).tolist()) for image in images]
    return {"image": np.stack(padded), "image_size": sizes}


def pad_to(image, size, fill=0):
    """Pads on all sides, evenly, to at least `size` = (height, width)."""
    h, w = size_of(image)
    dy, dx = max(0, size[0] - h), max(0, size[1] - w)
    if not dy and not dx:
        return image
    return pad(image, (dy // 2, dy - dy // 2, dx // 2, dx - dx // 2), fill)


def pad(image, widths, fill=0):
    """Pads by `widths` = (top, bottom, left, right) pixels of color `fill` (a number or RGB)."""
    top, bottom, left, right = widths
    h, w = size_of(image)
    out = np.empty((h + top + bottom, w + left + right, 3), np.uint8)
    out[:] = np.asarray(fill, np.uint8)
    out[top : top + h, left : left + w] = image
    return out


def center_crop(image, size, half="down"):
    """The middle `size` = (height, width) of an image; a smaller image is padded with black.

    Args:
      half: rounding of an offset of half a pixel: 'down' (toward the top left), as in
        `transformers`, TensorFlow and big_vision; 'even' (to the even pixel), as in torchvision.
    """
    top, left = (max(0, place) for place in center_place(image, size, half))
    return crop(pad_to(image, size), top, left, *size)


def center_place(image, size, half="down"):
    """(top, left) of what `center_crop` returns; negative where it pads."""
    sides = zip(size_of(image), size)
    return tuple(
        _half(has - wanted, half) if has >= wanted else -((wanted - has) // 2)
        for has, wanted in sides
    )


def _half(rest, half):
    if half not in ("down", "even"):
        raise ValueError(f"center_crop has half='{half}': use 'down' or 'even'.")
    return rest // 2 if half == "down" else round(rest / 2)


@_of_pillow
def affine(image, degrees=0.0, translate=(0.0, 0.0), scale=1.0, shear=(0.0, 0.0), fill=0):
    """Rotates, scales, shears and shifts about the image center, with bilinear sampling.

    Args:
      image: uint8 `[H, W, 3]`.
      degrees: counter-clockwise.
      translate: (right, down) in pixels.
      scale: above 1 enlarges.
      shear: (x, y): x moves right by shear-x pixels for each pixel of y, and the reverse.
      fill: color (a number or RGB) outside the image.
    """
    w, h = image.size
    angle = math.radians(degrees)
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    forward = np.array([[cos, sin], [-sin, cos]])
    if any(shear):
        forward = forward @ np.array([[1.0, shear[0]], [shear[1], 1.0]])
    back = np.linalg.inv(forward)  # Pillow maps output pixels to input pixels
    (a, b), (c, d) = back.tolist()
    x, y = (back @ np.array([w / 2 + translate[0], h / 2 + translate[1]])).tolist()
    coefficients = (a, b, w / 2 - x, c, d, h / 2 - y)
    color = (fill,) * 3 if np.isscalar(fill) else tuple(fill)
    bilinear = Image.Resampling.BILINEAR
    return image.transform((w, h), Image.Transform.AFFINE, coefficients, bilinear, fillcolor=color)


def flip(image):
    """The mirror image, left and right exchanged."""
    if isinstance(image, Image.Image):
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image[:, ::-1]


@_of_pillow
def brightness(image, factor):
    """image · factor; 0 is black, 1 the image itself."""
    return Image.blend(Image.new("RGB", image.size), image, factor)


@_of_pillow
def contrast(image, factor):
    """Blends with the mean gray level of the image; 0 is that gray, 1 the image itself."""
    luma = np.frombuffer(image.convert("L").tobytes(), np.uint8)
    mean = int(int(luma.sum()) / luma.size + 0.5)
    return Image.blend(Image.new("RGB", image.size, (mean,) * 3), image, factor)


@_of_pillow
def saturation(image, factor):
    """Blends with the gray image; 0 is gray, 1 the image itself."""
    return Image.blend(image.convert("L").convert("RGB"), image, factor)


@_of_pillow
def sharpness(image, factor):
    """Blends with a smoothed image; 0 is smooth, 1 the image itself, above 1 sharper."""
    return ImageEnhance.Sharpness(image).enhance(factor)


@_of_pillow
def hue(image, shift):
    """Rotates the hue by `shift`, a fraction of the color circle in [-0.5, 0.5]."""
    turn = Image.new("HSV", image.size, (round(shift * 255) % 256, 0, 0))
    return ImageChops.add_modulo(image.convert("HSV"), turn).convert("RGB")


@_of_pillow
def grayscale(image):
    """The luma (ITU-R 601) in all three channels."""
    return image.convert("L").convert("RGB")


@_of_pillow
def autocontrast(image):
    """Stretches every channel to 0...255."""
    return ImageOps.autocontrast(image)


@_of_pillow
def equalize(image):
    """Makes every channel's histogram flat."""
    return ImageOps.equalize(image)


@_of_pillow
def posterize(image, bits):
    """Keeps the `bits` (0 to 8) highest bits of every value."""
    mask = 256 - (1 << (8 - bits))
    return image.point([value & mask for value in range(256)] * 3)


@_of_pillow
def solarize(image, threshold):
    """Inverts the values at and above `threshold` (0 to 256)."""
    return ImageOps.solarize(image, threshold)
