"""Make tests/golden/preprocessing/open_clip.safetensors: what open_clip's own image transform makes
of the photos there.

    pip install torch==2.13.0 torchvision==0.28.0 open_clip_torch==3.3.0 pillow
    python tests/golden/make_open_clip_images.py

Of photos alone: a picture with a palette or with transparency is resized as it is by open_clip, and
made RGB after; here it is RGB from the start, as with transformers.
"""

from pathlib import Path

import numpy as np
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.numpy import save_file

HERE = Path(__file__).parent / "preprocessing"
SHAPES = {"shortest": 32, "squash": (24, 16)}


def main():
    """Write the pixels, uint8 [h, w, 3], as "mode/file"."""
    expected = {}
    for mode, size in SHAPES.items():
        settings = PreprocessCfg(size=size, resize_mode=mode, mean=(0, 0, 0), std=(1, 1, 1))
        prepare = image_transform_v2(settings, is_train=False)
        for file in sorted(HERE.glob("*.jpg")):
            pixels = 255 * prepare(Image.open(file)).numpy().transpose(1, 2, 0)
            assert np.abs(pixels - pixels.round()).max() < 1e-3
            expected[f"{mode}/{file.name}"] = np.ascontiguousarray(pixels.round().astype(np.uint8))
    save_file(expected, HERE / "open_clip.safetensors")


if __name__ == "__main__":
    main()
