"""Make tests/golden/clip and tests/golden/clip_gelu: small random CLIPs of the original code, with
what they give for some inputs, layer by layer; images also at other sizes than the trained one.

    pip install torch==2.13.0 transformers==5.23.0 pillow && python tests/golden/make_clip.py

clip: quick_gelu, pooled at the largest id (eos_token_id 2, as OpenAI's). clip_gelu: GELU, pooled at
the end token's id, half precision, in two shards.
"""

from pathlib import Path

import numpy as np
import torch
from golden_files import randomize, tokenizer_json, write
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

HERE = Path(__file__).parent


def make(name, act, eos, dtype, shard):
    """One golden folder."""
    torch.manual_seed(0)
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "hidden_act": act}
    config = CLIPConfig(
        text_config={
            **tower,
            "num_attention_heads": 4,
            "vocab_size": 99,
            "max_position_embeddings": 12,
            "eos_token_id": eos,
        },
        vision_config={
            **tower,
            "hidden_size": 40,
            "num_attention_heads": 2,
            "image_size": 24,
            "patch_size": 8,
        },
        projection_dim=16,
    )
    model = randomize(CLIPModel(config)).to(dtype).eval()
    folder = HERE / name
    model.save_pretrained(folder, max_shard_size=shard)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size=24)
    processor.save_pretrained(folder)
    tokenizer_json(folder, "<|startoftext|>", "<|endoftext|>", vocab_size=99)

    rng = np.random.default_rng(0)
    text = rng.integers(3, 97, (3, 12))
    for row, end in enumerate((4, 11, 7)):  # 98 is the largest id, and the end token's
        text[row, end:] = 98
    image = rng.integers(0, 256, (2, 24, 24, 3), dtype=np.uint8)
    others = {
        "wide": rng.integers(0, 256, (2, 16, 56, 3), dtype=np.uint8),  # 2 x 7 patches
        "large": rng.integers(0, 256, (1, 40, 48, 3), dtype=np.uint8),
    }
    wide = model.float()
    with torch.no_grad():
        pixels = processor(list(image), return_tensors="pt", do_resize=False, do_center_crop=False)
        out = wide(
            input_ids=torch.tensor(text),
            pixel_values=pixels["pixel_values"],
            output_hidden_states=True,
        )
        more = {}
        for key, other in others.items():
            pixels = processor(
                list(other), return_tensors="pt", do_resize=False, do_center_crop=False
            )["pixel_values"]
            vision = wide.vision_model(
                pixels, output_hidden_states=True, interpolate_pos_encoding=True
            )
            embed = wide.visual_projection(vision.pooler_output)
            more |= {key: other, f"{key}_layers": torch.stack(vision.hidden_states)}
            more[f"{key}_embed"] = embed / embed.norm(dim=-1, keepdim=True)
    write(
        folder,
        **more,
        image=image,
        text=text.astype(np.int32),
        text_mask=np.arange(12) <= np.array([4, 11, 7])[:, None],
        image_embed=out.image_embeds,
        text_embed=out.text_embeds,
        image_layers=torch.stack(out.vision_model_output.hidden_states),
        text_layers=torch.stack(out.text_model_output.hidden_states),
        logits_per_image=out.logits_per_image,
    )


make("clip", "quick_gelu", 2, torch.float32, "5GB")
make("clip_gelu", "gelu", 98, torch.float16, "60KB")
