"""Make tests/golden/{clip_vision,clip_vision_projection,siglip_vision,vit_sides}: image towers
alone, and a ViT of images and patches that config.json describes by two sides; and what they give.

    pip install torch==2.13.0 transformers==5.23.0 pillow && python tests/golden/make_vision.py

clip_vision and vit_sides have the names of tensors that older files have, the others those of
transformers 5.
"""

import numpy as np
import torch
import transformers as t
from golden_files import write
from small_models import folder, redraw

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
SIDES = {"image_size": [28, 14], "patch_size": [7, 7], "num_labels": 3}
CLIP = t.CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=16)
SIGLIP = t.SiglipImageProcessorPil(size={"height": 16, "width": 16})
VIT = t.ViTImageProcessorPil(size={"height": 28, "width": 14})


def main():
    clip = t.CLIPVisionConfig(**SIZES, hidden_act="relu", projection_dim=12)
    siglip = t.SiglipVisionConfig(**SIZES)
    vit = t.ViTConfig(**SIZES | SIDES, hidden_act="gelu_fast")
    make("clip_vision", t.CLIPVisionModel(clip), CLIP, True)
    make("clip_vision_projection", t.CLIPVisionModelWithProjection(clip), CLIP, False)
    make("siglip_vision", t.SiglipVisionModel(siglip), SIGLIP, False)
    make("vit_sides", t.ViTForImageClassification(vit), VIT, True)


def make(name, model, processor, original):
    """One golden folder."""
    out = folder(__file__, name)
    model = redraw(model)
    model.save_pretrained(out, save_original_format=original)
    processor.save_pretrained(out)
    image = np.random.default_rng(0).integers(0, 256, (2, 40, 30, 3), dtype=np.uint8)
    pixels = processor(list(image), return_tensors="pt")
    with torch.inference_mode():
        found = model(**pixels)
    kept = {"image": image}
    for key in ("pooler_output", "image_embeds", "logits"):
        if key in found:
            kept[key] = found[key]
    write(out, **kept)


if __name__ == "__main__":
    main()
