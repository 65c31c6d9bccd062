"""Encoded image bytes to uint8 RGB arrays, by the fastest correct decoder."""

import functools
import io
import struct

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, features

JPEG_START = b"\xff\xd8\xff"
# Raster images of one file. Not PDF, EPS and WMF, which are drawn by other programs or by scripts,
# and not the formats of scientific arrays.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "QOI", "DIB", "ICO"),
    *("ICNS", "PSD", "PCX", "SGI", "SUN", "DDS", "TGA"),
)


@functools.cache
def formats() -> tuple[str, ...]:
    """Those of `FORMATS` that the installed Pillow decodes."""
    Image.init()
    optional = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}
    missing = {kind for kind, feature in optional.items() if not features.check(feature)}
    return tuple(kind for kind in FORMATS if kind in Image.OPEN and kind not in missing)


@functools.cache
def image_suffixes() -> tuple[str, ...]:
    """Suffixes of the files that are read as images, such as ".jpg", sorted."""
    read = {*formats(), "MPO"}  # MPO, several images in a JPEG, is opened as a JPEG
    return tuple(sorted(s for s, kind in Image.registered_extensions().items() if kind in read))


def decode_image(data, min_size=None, background=(255, 255, 255)):
    """Decodes an encoded image (JPEG, PNG, WebP, GIF, ...) to RGB.

    Transparency is composited onto `background`, EXIF orientation is applied, palettes, gray,
    16 bits per channel and CMYK become 8-bit RGB; of an animation the first frame is taken.

    Args:
      data: the encoded bytes.
      min_size: None decodes at full size (equal to Pillow's decoder). A number allows a JPEG to be
        downscaled during decoding, in the DCT domain, to the smallest n/8 whose sides are still at
        least `min_size` pixels (a shorter side keeps its length), with the fast approximate DCT.
      background: RGB, 0 to 255.

    Returns:
      uint8 `[H, W, 3]`.

    Raises:
      ValueError: the bytes are not an image in one of `formats`, are truncated, or hold floats.
    """
    data = bytes(data)
    if not data:
        raise ValueError("the image has no bytes")
    # Pillow decodes images with an orientation tag, CMYK, and JPEGs that the strict decoder
    # rejects, since many of its warnings ("extraneous bytes before marker") are harmless.
    if data.startswith(JPEG_START) and b"Exif\0\0" not in data:
        try:
            return _decode_jpeg(data, min_size)
        except ValueError:
            pass
    return _decode_any(data, min_size, background)


def _decode_jpeg(data, min_size):
    _, _, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    if colorspace in ("CMYK", "YCCK"):
        raise ValueError("four colors")
    if min_size is None:
        return simplejpeg.decode_jpeg(data, colorspace="RGB")
    return simplejpeg.decode_jpeg(
        data,
        colorspace="RGB",
        min_height=min_size,
        min_width=min_size,
        min_factor=1,
        fastdct=True,
        fastupsample=True,
    )


# What Pillow's plugins raise for damaged files.
DAMAGED = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError),
    *(struct.error, Image.DecompressionBombError),
)


def _decode_any(data, min_size, background):
    try:
        image = Image.open(io.BytesIO(data), formats=formats())
        orientation = image.getexif().get(0x0112, 1) if data.startswith(JPEG_START) else 1
        if min_size is not None and orientation == 1 and image.mode == "RGB":
            image.draft("RGB", (min_size, min_size))
        image.load()
        image = ImageOps.exif_transpose(image)
        return np.asarray(to_rgb(image, background))
    except Image.UnidentifiedImageError:
        start = data[:12]
        raise ValueError(
            f"{len(data)} bytes that start with {start!r} are no image in a format that is read "
            f"({', '.join(formats())})"
        ) from None
    except DAMAGED as error:
        raise ValueError(f"the image is damaged or truncated: {error}") from None


def to_rgb(image, background):
    """A Pillow image of any mode to RGB, composited on `background`."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("its pixels are floats of no known range: save them with 8 or 16 bits")
    elif image.mode == "I":
        # Pillow clips instead of scaling; a 16-bit gray PNG may arrive as "I".
        values = np.asarray(image)
        if values.max(initial=0) > 255:
            values = values >> 8
        image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    if "A" in image.getbands() or "a" in image.mode or "transparency" in image.info:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, tuple(background) + (255,))
        image = Image.alpha_composite(canvas, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def as_rgb(array, background=(255, 255, 255)):
    """A decoded image as uint8 `[H, W, 3]`.

    Args:
      array: uint8 `[H, W]`, or `[H, W, C]` with C 1 (gray), 3 (RGB) or 4 (RGBA).
      background: RGB behind the transparent parts.

    Raises:
      ValueError: another dtype or shape.
    """
    array = np.asarray(array)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(
            f"an image array must be uint8 [H, W] or [H, W, C], not {array.dtype} {array.shape}"
        )
    if array.ndim == 2:
        array = array[:, :, None]
    channels = array.shape[2]
    if channels == 3:
        return array
    if channels == 1:
        return np.repeat(array, 3, axis=2)
    if channels == 4:
        return np.asarray(to_rgb(Image.fromarray(array, "RGBA"), background))
    raise ValueError(f"an image has 1, 3 or 4 channels, not {channels} (shape {array.shape})")
