"""Decoding against arrays that are known because the test encoded them, and against Pillow."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from mmjax.data.bad_records import image_fault
from mmjax.data.convert import shrink
from mmjax.data.image_files import check_image
from mmjax.data.transforms.decode import as_rgb, decode_image, decoded_size
from mmjax.data.transforms.parse import parse
from mmjax.data.transforms.video_clips import open_clip
from tests.fuzz.memory import peak, reset_peak

STEPS = parse("decode(64)")
# The paths to an image: chains, converting, models, embedders, the report.
READERS = (
    decode_image,
    lambda data: decode_image(data, 64),
    lambda data: STEPS({"image": data}, None),
    lambda data: shrink(data, 8, 90),
    check_image,
    decoded_size,
    lambda data: open_clip([data]).frames([0]),
)


def noise(h=21, w=34, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, channels), np.uint8)


def smooth(h=150, w=200):
    y, x = np.mgrid[0:h, 0:w]
    waves = [np.sin(x / 17), np.cos(y / 13), np.sin((x + y) / 23)]
    return np.stack([127 + 100 * wave for wave in waves], -1).astype(np.uint8)


def encode(image, format="PNG", **options):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pillow(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_come_back(format):
    image = noise()
    options = {"lossless": True} if format == "WEBP" else {}
    np.testing.assert_array_equal(decode_image(encode(image, format, **options)), image)


@pytest.mark.parametrize("size", [(150, 200), (151, 203), (8, 8), (1, 1), (3, 500)])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_jpeg_equals_pillow(size, subsampling):
    data = encode(smooth(*size), "JPEG", quality=90, subsampling=subsampling)
    image = decode_image(data)
    assert image.dtype == np.uint8 and image.shape == (*size, 3)
    np.testing.assert_array_equal(image, pillow(data))


# By libjpeg-turbo's cjpeg -arithmetic, of the values in the test below.
ARITHMETIC = base64.b85decode(
    "|JeWA07C!+0s;d90s{jB0|WyD1O*5M1q1{I3I_)U2n-4g3=0Yi3k?nu5Dg9y4hstq77!5=6crT}3=bC=78Do~6crTz"
    "+W<oW0|W#G1O*8N1ql=l3k?($6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`6ciK`|H%Lm"
    "2mlZO7y|(j00I#K0}%oL%m4}i5D*0c5D^9c+5ij#0RRFK0}%i}0RI5kx<%rOBcmWIeYiAV$;S5o0IakkwGUOXKWFM<"
    "izWDa<vU^ps9~XY@U*Pb3SpG^i_zxr8ErWgOqdT(92J{y7pcTl54Mh=fQ;xuMj(Ly*#"
)


def jpeg_kinds():
    """name -> a JPEG of `smooth`, or near it."""
    image = Image.fromarray(smooth())
    inverted = 255 - np.asarray(image.convert("CMYK"))  # as Adobe writes them
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return {
        "gray": encode(image.convert("L"), "JPEG"),
        "CMYK": encode(image.convert("CMYK"), "JPEG"),
        "YCCK": simplejpeg.encode_jpeg(inverted, 95, "CMYK"),
        "RGB": encode(image, "JPEG", keep_rgb=True),
        "progressive": encode(image, "JPEG", progressive=True),
        "profile": encode(image, "JPEG", icc_profile=profile * 40),  # in several segments
        "restarts": encode(image, "JPEG", restart_marker_blocks=5),
    }


def test_jpeg_kinds_equal_pillow():
    for name, data in jpeg_kinds().items():
        whole, small = decode_image(data), decode_image(data, min_size=75)
        np.testing.assert_array_equal(whole, pillow(data), name)
        assert decoded_size(data) == (200, 150), name
        if name != "gray":  # CMYK and back: near it, not its negative
            assert np.abs(whole - smooth().astype(int)).mean() < 9, name
        half = whole.reshape(75, 2, 100, 2, 3).mean((1, 3))
        small = small.reshape(75, len(small) // 75, 100, -1, 3).mean((1, 3))  # perhaps whole
        assert np.abs(half - small).mean() < 1.5, name
        for end in (-2, -40, len(data) // 2):
            for min_size in (None, 75):
                with pytest.raises(ValueError, match="the image is damaged or truncated"):
                    decode_image(data[:end], min_size)


def test_arithmetic_coding_is_read():
    y, x = np.mgrid[0:16, 0:24]
    want = np.stack([8 * x + 20, 10 * y + 40, 200 - 4 * x - 4 * y], -1)
    assert np.abs(decode_image(ARITHMETIC) - want).max() <= 4
    assert np.abs(decode_image(ARITHMETIC, 8) - want.reshape(8, 2, 12, 2, 3).mean((1, 3))).max() < 7
    with pytest.raises(ValueError, match="damaged or truncated"):
        decode_image(ARITHMETIC[:-30], 8)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (4, 12, "the image is a JPEG of 12 bits per channel: save it as a JPEG of 8 bits, or as a"),
        (4, 16, "a JPEG of 16 bits per channel"),
        (1, 0xF7, "the image is a JPEG-LS: save it as a JPEG"),
    ],
)
def test_jpeg_kinds_that_no_decoder_has_are_named_on_all_paths(place, value, message):
    data = bytearray(encode(smooth(), "JPEG"))
    data[data.index(b"\xff\xc0") + place] = value
    for read in READERS:
        with pytest.raises(ValueError, match=message):
            read(bytes(data))
    assert message in image_fault(bytes(data))


def test_the_orientation_of_xmp_turns_no_jpeg():
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    exif = Image.Exif()
    exif[0x010F] = "a camera"  # with Exif, but without an orientation: the other decoder
    for options in ({}, {"exif": exif}):
        data = encode(smooth(40, 64), "JPEG", xmp=xmp, **options)
        np.testing.assert_array_equal(decode_image(data), pillow(data))
        assert decode_image(data, 20).shape[0] == 20 and decoded_size(data) == (64, 40)


@settings(max_examples=40)
@given(h=st.integers(1, 300), w=st.integers(1, 300), min_size=st.integers(1, 250))
def test_scaled_decode_keeps_the_minimum(h, w, min_size):
    """The smallest n/8 that leaves each side at least min_size, or as long as it was."""
    data = encode(np.zeros((h, w, 3), np.uint8), "JPEG")
    image = decode_image(data, min_size=min_size)
    scaled = [(-(-h * n // 8), -(-w * n // 8)) for n in range(1, 9)]
    fits = [s for s in scaled if s[0] >= min(h, min_size) and s[1] >= min(w, min_size)]
    assert image.shape == (*fits[0], 3)


def test_scaled_decode_is_the_image_made_smaller():
    image = smooth(240, 320)
    small = decode_image(encode(image, "JPEG", quality=95), min_size=60)
    assert small.shape == (60, 80, 3)
    mean = image.reshape(60, 4, 80, 4, 3).mean((1, 3))
    assert np.abs(small - mean).mean() < 1.5


# The EXIF table: what has to be done to the stored pixels to show them upright.
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_exif_orientation(orientation, format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(smooth(40, 64), format, exif=exif)
    stored = pillow(data)
    np.testing.assert_array_equal(decode_image(data), UPRIGHT[orientation](stored))
    scaled = decode_image(data, min_size=20)
    assert (scaled.shape[0] < scaled.shape[1]) == (orientation < 5)


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 100, 200)])
def test_alpha_is_composited(background):
    rgba = noise(channels=4)
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + np.array(background) * (1 - alpha)
    for image in (decode_image(encode(rgba), background=background), as_rgb(rgba, background)):
        assert image.dtype == np.uint8
        assert np.abs(image - expected).max() <= 1


def test_grey_and_alpha():
    la = noise(channels=2)
    alpha = la[..., 1:] / 255
    expected = np.repeat(la[..., :1] * alpha + 255 * (1 - alpha), 3, 2)
    image = decode_image(encode(Image.fromarray(la)))
    assert np.abs(image - expected).max() <= 1


def test_palette_with_a_transparent_colour():
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8)).convert("P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    data = encode(image, transparency=1)
    expected = [[[255, 0, 0], [9, 8, 7]], [[0, 0, 255], [9, 8, 7]]]
    np.testing.assert_array_equal(decode_image(data, background=(9, 8, 7)), expected)


def test_grey_bits():
    values = np.array([[0, 255, 256], [32767, 32768, 65535]], np.uint16)
    expected = np.repeat((values // 256)[..., None], 3, 2)
    np.testing.assert_array_equal(decode_image(encode(values)), expected)
    bits = np.array([[True, False], [False, True]])
    expected = np.repeat(bits[..., None] * 255, 3, 2)
    np.testing.assert_array_equal(decode_image(encode(bits)), expected)


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(np.full((5, 6, 3), v, np.uint8)) for v in (200, 10)]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode_image(data), np.full((5, 6, 3), 200))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_images_are_refused(format, share):
    data = encode(noise(120, 160), format)
    with pytest.raises(ValueError, match="damaged or truncated|no image"):
        decode_image(data[: int(len(data) * share)])
    with pytest.raises(ValueError, match="damaged or truncated|no image"):
        decode_image(data[: int(len(data) * share)], min_size=32)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_size_by_the_header_is_the_decoded_one(format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(noise(10, 20), format, exif=exif)
    assert decoded_size(data) == decode_image(data).shape[1::-1]


def claims(format, width, height, mode="RGB"):
    """A small file whose header has another size: the pixels are never there."""
    image = Image.new(mode, (16, 16))
    data = bytearray(encode(image, format))
    if format == "PNG":
        data[16:24] = struct.pack(">II", width, height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif format == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    elif format == "GIF":
        data[6:10] = struct.pack("<HH", width, height)
    else:  # BMP
        data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


@pytest.mark.parametrize(
    "format, width, height, mode",
    [
        ("JPEG", 65500, 65500, "RGB"),
        ("JPEG", 8001, 8000, "L"),
        ("JPEG", 8000, 4001, "CMYK"),
        ("PNG", 8001, 8000, "RGB"),
        ("PNG", 8000, 4001, "RGBA"),
        ("PNG", 8000, 4001, "I;16"),
        ("PNG", 50000, 50000, "L"),
        ("GIF", 8001, 8000, "P"),
        ("BMP", 8001, 8000, "RGB"),
    ],
)
def test_too_large_an_image_is_refused_before_anything_is_decoded(format, width, height, mode):
    data = claims(format, width, height, mode)
    reset_peak()
    idle = peak()
    for read in READERS:
        with pytest.raises(ValueError, match="pixels; the maximum is 64,000,000|more than .* pixe"):
            read(data)
    assert peak() - idle < 1e8


def test_the_frames_of_an_animation_are_smaller():
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    data = bytearray(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert len(open_clip(bytes(data)).times) == 2
    at = data.rindex(b"\x2c\0\0\0\0\4\0\4\0") + 5  # the second frame, which enlarges the image
    for place in (6, at):
        changed = bytearray(data)
        changed[place : place + 4] = struct.pack("<HH", 6000, 6000)
        with pytest.raises(ValueError, match="6000 x 6000 pixels; the maximum is"):
            open_clip(bytes(changed)).frames([0, 1])


@pytest.mark.parametrize("data", [b"", b"not an image", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_other_bytes_are_refused(data):
    with pytest.raises(ValueError):
        decode_image(data)


@settings(max_examples=60)
@given(where=st.integers(0, 2000), value=st.binary(min_size=1, max_size=8))
def test_damage_gives_an_image_or_a_value_error(where, value):
    data = bytearray(encode(smooth(40, 40), "JPEG" if where % 2 else "PNG"))
    where %= len(data)
    data[where : where + len(value)] = value
    try:
        image = decode_image(bytes(data))
    except ValueError:
        return
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


def test_arrays():
    grey = noise(channels=1)
    for array in (grey, grey[..., 0]):
        np.testing.assert_array_equal(as_rgb(array), np.repeat(grey, 3, 2))
    rgb = noise()
    assert as_rgb(rgb) is rgb
    for bad in (rgb / 255, rgb[None], noise(channels=2), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"image"):
            as_rgb(bad)


def test_floats_are_refused_and_other_formats_are_not_tried():
    floats = encode(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF")
    with pytest.raises(ValueError, match="floats of no known range"):
        decode_image(floats)
    # Pillow would run Ghostscript on this.
    with pytest.raises(ValueError, match="are no image in a format that is read"):
        decode_image(encode(noise(), "EPS"))
