"""Pure functions of uint8 RGB images `[H, W, 3]`; Pillow does the work, so threads run freely."""

import math

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

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


def resize(image, size, method="bicubic", antialias=True, box=None):
    """Resizes `[H, W, 3]` to `size` = (height, width), as Pillow does.

    Args:
      image: uint8 `[H, W, 3]`.
      size: (height, width) in pixels.
      method: a name in `METHODS`.
      antialias: widen the filter when downscaling. False: plain bilinear or bicubic sampling, as in
        `torch.nn.functional.interpolate` and old TensorFlow pipelines.
      box: (top, left, height, width): crop to this first; the filter sees no pixels outside it.
    """
    if box is not None:
        top, left, h, w = box
        image = image[top : top + h, left : left + w]
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    pil, filter_ = Image.fromarray(image), resampling(method)
    if antialias or method in ("nearest", "box"):
        return np.asarray(pil.resize((width, height), filter_))
    if method not in ("bilinear", "bicubic"):
        raise ValueError(f"antialias=False goes with bilinear and bicubic, not with {method!r}")
    scale = (image.shape[1] / width, 0, 0, 0, image.shape[0] / height, 0)
    return np.asarray(pil.transform((width, height), Image.Transform.AFFINE, scale, filter_))


def resize_short(image, size, method="bicubic"):
    """Resizes the shorter side to `size` pixels, keeping the aspect ratio.

    The longer side is rounded down, as in torchvision and `transformers`.
    """
    h, w = image.shape[:2]
    longer = int(size * max(h, w) / min(h, w))
    return resize(image, (size, longer) if h <= w else (longer, size), method)


def pad_to(image, size, fill=0):
    """Pads on all sides, evenly, to at least `size` = (height, width)."""
    h, w = image.shape[:2]
    dy, dx = max(0, size[0] - h), max(0, size[1] - w)
    if not dy and not dx:
        return image
    return pad(image, (dy // 2, dy - dy // 2, dx // 2, dx - dx // 2), fill)


def pad(image, widths, fill=0):
    """Pads by `widths` = (top, bottom, left, right) pixels of color `fill` (a number or RGB)."""
    top, bottom, left, right = widths
    h, w = image.shape[:2]
    out = np.empty((h + top + bottom, w + left + right, 3), np.uint8)
    out[:] = np.asarray(fill, np.uint8)
    out[top : top + h, left : left + w] = image
    return out


def center_crop(image, size, half="down"):
    """The middle `size` = (height, width) of `[H, W, 3]`; a smaller image is padded with black.

    Args:
      half: rounding of an offset of half a pixel: 'down' (toward the top left), as in
        `transformers`, TensorFlow and big_vision; 'even' (to the even pixel), as in torchvision.
    """
    image = pad_to(image, size)
    top, left = (_half(image.shape[i] - size[i], half) for i in range(2))
    return image[top : top + size[0], left : left + size[1]]


def _half(rest, half):
    if half not in ("down", "even"):
        raise ValueError(f"center_crop has half='{half}': use 'down' or 'even'.")
    return rest // 2 if half == "down" else round(rest / 2)


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
    h, w = image.shape[:2]
    angle = math.radians(degrees)
    rotate = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    forward = scale * rotate @ np.array([[1.0, shear[0]], [shear[1], 1.0]])
    back = np.linalg.inv(forward)  # Pillow maps output pixels to input pixels
    middle = np.array([w / 2, h / 2])
    offset = middle - back @ (middle + np.asarray(translate, float))
    coefficients = (back[0, 0], back[0, 1], offset[0], back[1, 0], back[1, 1], offset[1])
    color = (fill,) * 3 if np.isscalar(fill) else tuple(fill)
    pil = Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(
        pil.transform(
            (w, h),
            Image.Transform.AFFINE,
            coefficients,
            Image.Resampling.BILINEAR,
            fillcolor=color,
        )
    )


def brightness(image, factor):
    """image · factor; 0 is black, 1 the image itself."""
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(image)).enhance(factor))


def contrast(image, factor):
    """Blends with the mean gray level of the image; 0 is that gray, 1 the image itself."""
    return np.asarray(ImageEnhance.Contrast(Image.fromarray(image)).enhance(factor))


def saturation(image, factor):
    """Blends with the gray image; 0 is gray, 1 the image itself."""
    return np.asarray(ImageEnhance.Color(Image.fromarray(image)).enhance(factor))


def sharpness(image, factor):
    """Blends with a smoothed image; 0 is smooth, 1 the image itself, above 1 sharper."""
    return np.asarray(ImageEnhance.Sharpness(Image.fromarray(image)).enhance(factor))


def hue(image, shift):
    """Rotates the hue by `shift`, a fraction of the color circle in [-0.5, 0.5]."""
    hsv = np.array(Image.fromarray(image).convert("HSV"))
    hsv[..., 0] += np.uint8(round(shift * 255) % 256)  # uint8 wraps around
    return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))


def grayscale(image):
    """The luma (ITU-R 601) in all three channels."""
    return np.asarray(Image.fromarray(image).convert("L").convert("RGB"))


def autocontrast(image):
    """Stretches every channel to 0...255."""
    return np.asarray(ImageOps.autocontrast(Image.fromarray(image)))


def equalize(image):
    """Makes every channel's histogram flat."""
    return np.asarray(ImageOps.equalize(Image.fromarray(image)))


def posterize(image, bits):
    """Keeps the `bits` (0 to 8) highest bits of every value."""
    return image & np.uint8(256 - (1 << (8 - bits)))


def solarize(image, threshold):
    """Inverts the values at and above `threshold` (0 to 256)."""
    return np.where(image < threshold, image, 255 - image)
