"""Encoded image bytes to uint8 RGB arrays, by the fastest correct decoder."""

import contextlib
import functools
import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import simplejpeg
from PIL import Image, ImageOps, features

JPEG_START = b"\xff\xd8\xff"
# The size of an image is checked by its header, before anything of it is decoded: a few bytes may
# claim any size. Decoding and conversion need about 14 bytes per pixel of gray or RGB, and twice as
# much of four channels, 16 bits or transparency, which count twice.
MAX_PIXELS = 64_000_000
ORIENTATION = 0x0112  # the Exif tag
MAX_FRAME_PIXELS = 9_000_000  # of a video or an animation, which has many: 4096 x 2160
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
    16 bits per channel, CMYK and YCCK (inverted, as Adobe writes them) become 8-bit RGB; color
    profiles (ICC) are not applied; of an animation the first frame is taken.

    Args:
      data: the encoded bytes.
      min_size: None decodes at full size (equal to Pillow's decoder). A number allows a JPEG to be
        downscaled during decoding, in the DCT domain, to the smallest n/8 whose sides are still at
        least `min_size` pixels (a shorter side keeps its length), with the fast approximate DCT;
        one with EXIF data to a half, a quarter or an eighth, and not at all if it is turned, gray
        or of four colors.
      background: RGB, 0 to 255.

    Returns:
      uint8 `[H, W, 3]`.

    Raises:
      ValueError: the bytes are not an image in one of `formats`, are truncated, hold floats, or
        are of an image of more than `MAX_PIXELS`.
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
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    if colorspace in ("CMYK", "YCCK") or height * width > MAX_PIXELS:
        raise ValueError("four colors, or too large: not decoded here")
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
    *(struct.error, RuntimeError, MemoryError, zlib.error, Image.DecompressionBombError),
)


@contextlib.contextmanager
def opened(data: bytes, kinds: tuple[str, ...] | None = None) -> Iterator[Image.Image]:
    """The Pillow image of encoded bytes, by its header alone, of a size that may be decoded.

    Args:
      kinds: formats; None: `formats`.

    Raises:
      ValueError: an image of another format or of too many pixels, and, of the body too, one that
        is damaged.
    """
    try:
        with Image.open(io.BytesIO(data), formats=kinds or formats()) as image:
            check_pixels(image)
            yield image
    except TooManyPixels:
        raise
    except Image.DecompressionBombError:
        raise TooManyPixels(
            f"the image has more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels: make it smaller than "
            f"{MAX_PIXELS:,}"
        ) from None
    except Image.UnidentifiedImageError:
        if (kind := _jpeg_kind(data)) is not None:
            raise ValueError(
                f"the image is {kind}: save it as a JPEG of 8 bits, or as a PNG"
            ) from None
        raise ValueError(
            f"{len(data):,} bytes that start with {data[:12]!r} are no image in a format that is "
            f"read ({', '.join(kinds or formats())})"
        ) from None
    except DAMAGED as error:
        raise ValueError(f"the image is damaged or truncated: {error}") from None


def _jpeg_kind(data: bytes) -> str | None:
    """What kind of JPEG is not read, by its frame header; None: no such kind, or none of a JPEG."""
    if not data.startswith(JPEG_START):
        return None
    at = 2
    while at + 5 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xF7:
            return "a JPEG-LS"
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return None if data[at + 4] == 8 else f"a JPEG of {data[at + 4]} bits per channel"
        at += 2 + max(2, length)
    return None


class TooManyPixels(ValueError):
    """An image larger than `MAX_PIXELS`."""


def check_pixels(image: Image.Image, most: int = MAX_PIXELS) -> None:
    """Check the size of a Pillow image, which is not decoded yet.

    Raises:
      TooManyPixels: it is larger.
    """
    plain = image.mode in ("1", "L", "P", "RGB") and "transparency" not in image.info
    width, height = image.size
    if width * height * (1 if plain else 2) > most:
        rule = "" if plain else f", half as many of its mode {image.mode}"
        raise TooManyPixels(
            f"the image has {width} x {height} pixels; the maximum is {most:,}{rule}: make it "
            "smaller"
        )


def decoded_size(data: bytes) -> tuple[int, int]:
    """(width, height) of the image that `decode_image` returns, mostly by the header alone.

    Raises:
      ValueError: as `decode_image`, where the header tells.
    """
    with opened(data) as image:
        if image.format == "PNG" and b"eXIf" in data:
            image.load()  # it may come after the pixels
        # Pillow turns a TIFF, and its size, by itself.
        turned = image.format != "TIFF" and _orientation(image) in (5, 6, 7, 8)
        return image.size[::-1] if turned else image.size


def _orientation(image: Image.Image) -> int:
    """1 to 8, as Exif has it; that of XMP, which the fast decoder and browsers ignore, counts in no
    JPEG, where it may be left of an image that was turned since."""
    if image.format not in ("JPEG", "MPO"):
        return image.getexif().get(ORIENTATION, 1)
    exif = Image.Exif()
    exif.load(image.info.get("exif"))
    return exif.get(ORIENTATION, 1)


def _decode_any(data, min_size, background):
    with opened(data) as image:
        orientation = _orientation(image) if data.startswith(JPEG_START) else None
        if min_size is not None and orientation == 1 and image.mode == "RGB":
            image.draft("RGB", (min_size, min_size))
        image.load()
        check_pixels(image)  # the image within an ICO may be larger than it says
        upright = image if orientation == 1 else ImageOps.exif_transpose(image)
        return np.asarray(to_rgb(upright, background))


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
