"""Fuzzed readers of media: images, animations and frames, audio."""

import io
import warnings
import zlib

import numpy as np
from PIL import Image

from mmjax.data.image_files import check_image
from mmjax.data.transforms import audio_ops, video_ops
from mmjax.data.transforms.decode import decode_image
from mmjax.data.transforms.video_clips import open_clip
from mmjax.speech.recording import Recording
from tests.fuzz.reader import Reader, Seed

MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK")
KINDS = {
    "PNG": MODES[:-1],
    "JPEG": ("RGB", "L", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": MODES,
    **dict.fromkeys(("GIF", "PCX"), ("P", "L")),
    **dict.fromkeys(("BMP", "DIB", "ICO", "TGA", "SGI", "PPM", "QOI", "DDS", "ICNS"), ("RGB",)),
    "JPEG2000": ("RGB", "RGBA"),
    "AVIF": ("RGB",),
}


def _image(mode: str, size=(23, 17)) -> Image.Image:
    draw = np.random.default_rng(0)
    if mode == "I;16":
        return Image.fromarray(draw.integers(0, 2**16, size[::-1]).astype(np.uint16))
    return Image.fromarray(draw.integers(0, 256, (*size[::-1], 4), np.uint8), "RGBA").convert(mode)


def _saved(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _images(folder) -> list[Seed]:
    seeds = []
    Image.init()
    for kind, modes in KINDS.items():
        for mode in modes if kind in Image.SAVE else ():
            size = (32, 32) if kind == "ICNS" else (23, 17)
            repaired = _summed if kind == "PNG" else bytes
            seeds.append(Seed(_saved(_image(mode, size), kind), repaired=repaired))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x0100], exif[0x0101] = 23, 17  # a width and a height, as cameras write them
    seeds += [Seed(_saved(_image("RGB"), kind, exif=exif)) for kind in ("JPEG", "PNG", "WEBP")]
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        seeds.append(Seed(_saved(_image("RGB"), "TIFF", compression=compression)))
    seeds.append(Seed(_saved(_image("RGB"), "JPEG", progressive=True)))
    return seeds


def _summed(data: bytes) -> bytes:
    """A PNG with the checksums of its chunks."""
    changed, at = bytearray(data), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        changed[end : end + 4] = zlib.crc32(changed[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(changed)


def _read_image(data: bytes, seed: Seed, folder) -> None:
    refused = None
    for read in (decode_image, lambda data: decode_image(data, 8), check_image):
        try:
            read(data)
        except ValueError as error:
            refused = error
    if refused is not None:
        raise refused


def _animations(folder) -> list[Seed]:
    frames = [_image("RGB", (12, 8)).rotate(90 * i) for i in range(3)]
    more = {"save_all": True, "append_images": frames[1:]}
    seeds = [Seed(_saved(frames[0], kind, duration=40, **more)) for kind in ("GIF", "PNG", "WEBP")]
    return seeds + [Seed(_saved(frames[0], kind), "frames") for kind in ("PNG", "JPEG")]


def _read_animation(data: bytes, seed: Seed, folder) -> None:
    clip = open_clip([seed.data, data] if seed.about else data)
    clip.frames(range(len(clip.times))[:4])


def _videos(folder) -> list[Seed]:
    """Containers of each kind that PyAV writes; none without it."""
    try:
        import av
    except ImportError:
        return []
    seeds = []
    for container, codec, voice in (
        *(("mp4", "libx264", "aac"), ("matroska", "libx264", "aac"), ("mp4", "mpeg4", "aac")),
        *(("webm", "libvpx-vp9", "libopus"), ("mov", "mjpeg", "aac"), ("avi", "mpeg4", "mp2")),
        ("mpeg", "mpeg1video", "mp2"),
    ):
        file = io.BytesIO()
        with av.open(file, "w", format=container) as out:
            stream = out.add_stream(codec, rate=25)
            stream.width, stream.height = 48, 32
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            sound = out.add_stream(voice, rate=48000, layout="mono")
            kind = sound.codec_context.format.name
            for i in range(6):
                image = np.asarray(_image("RGB", (48, 32)).rotate(60 * i))
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts = i
                out.mux(stream.encode(frame))
            wave = 9999 * np.sin(np.arange(960) / 9)[None]
            wave = wave.astype(np.int16) if kind.startswith("s16") else (wave / 32768).astype("f")
            frame = av.AudioFrame.from_ndarray(wave, kind, "mono")
            frame.sample_rate, frame.pts = 48000, 0
            out.mux(sound.encode(frame))
            for one in (stream, sound):
                out.mux(one.encode(None))
        seeds.append(Seed(file.getvalue(), container))
    return seeds


def _read_video(data: bytes, seed: Seed, folder) -> None:
    refused = None
    for read in (_read_animation, lambda data, *_: video_ops.read_sound(data)):
        try:
            read(data, seed._replace(about=None), folder)
        except ValueError as error:
            refused = error
    if refused is not None:
        raise refused


def _sounds(folder) -> list[Seed]:
    import soundfile

    seeds = []
    wave = np.sin(np.arange(3000) / 9)[:, None] * [0.3, 0.2]
    for kind, subtypes in {
        "WAV": ("PCM_16", "PCM_24", "FLOAT", "IMA_ADPCM"),
        "FLAC": ("PCM_16",),
        "OGG": ("VORBIS",),
        "MP3": ("MPEG_LAYER_III",),
        "AIFF": ("PCM_16",),
        "AU": ("PCM_16",),
        "W64": ("PCM_16",),
        "CAF": ("PCM_16",),
        "NIST": ("PCM_16",),
    }.items():
        for subtype in subtypes:
            file = io.BytesIO()
            soundfile.write(file, wave, 16000, format=kind, subtype=subtype)
            seeds.append(Seed(file.getvalue()))
    return seeds


def _read_sound(data: bytes, seed: Seed, folder) -> None:
    refused = None
    try:
        audio_ops.decode_at(data, 16000)
    except ValueError as error:
        refused = error
    path = folder / "sound"
    path.write_bytes(data)
    recording = Recording(path)
    try:
        start = 0
        while len(recording.read(start, 16000)) == 16000:
            start += 16000
    finally:
        recording.close()
    if refused is not None:
        raise refused


READERS = {
    "image": Reader(_images, _read_image, 250),
    "animation": Reader(_animations, _read_animation, 400),
    "video": Reader(_videos, _read_video, 40),
    "audio": Reader(_sounds, _read_sound, 250),
}
warnings.filterwarnings("ignore", module="PIL")
