"""Make tests/golden/{vit,vit_pooler,deit,deit_token}: small random ViTs and DeiTs of the original
code, with what they give for some inputs, layer by layer.

    pip install torch==2.13.0 transformers==5.23.0 pillow && python tests/golden/make_vit.py

vit: with a head of 5 classes. vit_pooler: no head, a pooler of another width, no biases of queries,
keys and values, half precision. deit: heads on the class and the distillation token. deit_token: a
head on the class token alone.
"""

from pathlib import Path

import numpy as np
import torch
import transformers as t
from golden_files import randomize, write

HERE = Path(__file__).parent
PATCH = 8
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 4 * PATCH,
    "patch_size": PATCH,
}


def make(name, model, processor, dtype=torch.float32):
    """One golden folder."""
    model = randomize(model).to(dtype).eval()
    folder = HERE / name
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    rng = np.random.default_rng(0)
    images = {"image": rng.integers(0, 256, (2, 4 * PATCH, 4 * PATCH, 3), dtype=np.uint8)}
    images["wide"] = rng.integers(0, 256, (1, 3 * PATCH, 7 * PATCH, 3), dtype=np.uint8)
    images["small"] = rng.integers(0, 256, (1, 2 * PATCH, 2 * PATCH, 3), dtype=np.uint8)
    wide, kept = model.float(), {}
    with torch.no_grad():
        for key, image in images.items():
            pixels = processor(
                list(image), return_tensors="pt", do_resize=False, do_center_crop=False
            )
            out = wide(**pixels, output_hidden_states=True, interpolate_pos_encoding=key != "image")
            kept |= {key: image, f"{key}_layers": torch.stack(out.hidden_states)}
            if "logits" in out:
                kept[f"{key}_logits"] = out.logits
            else:
                kept[f"{key}_features"] = out.pooler_output
                kept[f"{key}_tokens"] = out.last_hidden_state
    write(folder, **kept)


if __name__ == "__main__":
    torch.manual_seed(0)
    square = t.ViTImageProcessorPil(size={"height": 32, "width": 32})
    cropped = t.DeiTImageProcessorPil(size={"height": 36, "width": 36}, crop_size=32)
    config = t.ViTConfig(**SIZES, num_labels=5)
    make("vit", t.ViTForImageClassification(config), square)
    config = t.ViTConfig(**SIZES, pooler_output_size=20, qkv_bias=False)
    make("vit_pooler", t.ViTModel(config), square, torch.float16)
    config = t.DeiTConfig(**SIZES, num_labels=5)
    make("deit", t.DeiTForImageClassificationWithTeacher(config), cropped)
    make("deit_token", t.DeiTForImageClassification(config), cropped, torch.bfloat16)
