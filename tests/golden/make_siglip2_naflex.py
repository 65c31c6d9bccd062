"""Make tests/golden/siglip2_naflex: a small random SigLIP 2 NaFlex of the original code, with what
it and its image processor give for images of several odd sizes in one batch, layer by layer.

    pip install torch==2.13.0 transformers==5.23.0 pillow
    python tests/golden/make_siglip2_naflex.py

The text has a projection to another width; budgets below, at and above the position table.
"""

import json
from pathlib import Path

import numpy as np
import torch
from golden_files import randomize, tokenizer_json, write
from transformers import Siglip2Config, Siglip2Model
from transformers.models.siglip2.image_processing_pil_siglip2 import (
    Siglip2ImageProcessorPil,
)
from transformers.models.siglip2.image_processing_pil_siglip2 import (
    get_image_size_for_max_num_patches as size_for,
)

FOLDER = Path(__file__).parent / "siglip2_naflex"
LENGTH, VOCAB, PATCH = 10, 96, 4
SIZES = ((13, 30), (31, 9), (5, 5), (64, 50), (6, 47))  # height, width
BUDGETS = (9, 16, 37)
ROLES = {
    "tokenizer_class": "Siglip2Tokenizer",
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "pad_token": "<pad>",
}


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    tower = {"intermediate_size": 48, "num_hidden_layers": 2}
    config = Siglip2Config(
        text_config={
            **tower,
            "hidden_size": 32,
            "num_attention_heads": 4,
            "vocab_size": VOCAB,
            "max_position_embeddings": LENGTH,
            "projection_size": 24,
        },
        vision_config={
            **tower,
            "hidden_size": 24,
            "num_attention_heads": 2,
            "num_patches": 16,
            "patch_size": PATCH,
        },
    )
    model = randomize(Siglip2Model(config))
    with torch.no_grad():
        model.logit_scale[:], model.logit_bias[:] = 4.75, -12.5
    model.eval()
    FOLDER.mkdir(exist_ok=True)
    model.save_pretrained(FOLDER)
    processor = Siglip2ImageProcessorPil(patch_size=PATCH, max_num_patches=16)
    processor.save_pretrained(FOLDER)
    specials = ["<pad>", "<bos>", "<unk>", "<eos>"]
    tokenizer_json(FOLDER, *specials, vocab_size=VOCAB)
    (FOLDER / "tokenizer_config.json").write_text(json.dumps(ROLES))

    rng = np.random.default_rng(0)
    text = rng.integers(0, VOCAB - len(specials), (len(SIZES), LENGTH))
    ends = rng.integers(3, LENGTH, (len(SIZES), 1))
    at, (pad, _, _, end) = np.arange(LENGTH), range(VOCAB - len(specials), VOCAB)
    text = np.where(at == ends, end, np.where(at > ends, pad, text))
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]
    kept = {f"image_{i}": image for i, image in enumerate(images)}
    with torch.no_grad():
        for budget in BUDGETS:
            given = processor(images, max_num_patches=budget, return_tensors="pt")
            pixels = processor(
                images,
                max_num_patches=budget,
                return_tensors="np",
                do_rescale=False,
                do_normalize=False,
            )["pixel_values"]
            out = model(
                input_ids=torch.tensor(text),
                pixel_values=given["pixel_values"],
                pixel_attention_mask=given["pixel_attention_mask"],
                spatial_shapes=torch.as_tensor(np.asarray(given["spatial_shapes"])),
                output_hidden_states=True,
            )
            kept |= {
                f"{budget}_pixels": np.asarray(pixels).astype(np.uint8),
                f"{budget}_mask": np.asarray(given["pixel_attention_mask"]).astype(bool),
                f"{budget}_grid": np.asarray(given["spatial_shapes"]).astype(np.int32),
                f"{budget}_layers": torch.stack(out.vision_model_output.hidden_states),
                f"{budget}_embed": out.image_embeds,
                f"{budget}_logits": out.logits_per_image,
            }
    sizes = rng.integers(1, 2000, (200, 2))
    budgets, patches = rng.choice([64, 128, 256, 729, 1024], 200), rng.choice([14, 16, 32], 200)
    found = [size_for(*map(int, (h, w, p, n))) for (h, w), p, n in zip(sizes, patches, budgets)]
    write(
        FOLDER,
        **kept,
        text=text.astype(np.int32),
        text_mask=at <= ends,
        text_embed=out.text_embeds,
        text_layers=torch.stack(out.text_model_output.hidden_states),
        sizes=np.concatenate([sizes, patches[:, None], budgets[:, None], found], 1).astype(int),
    )


if __name__ == "__main__":
    main()
