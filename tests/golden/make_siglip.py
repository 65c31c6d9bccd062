"""Make tests/golden/siglip and tests/golden/siglip2: small random SigLIPs of the original code,
with what they give for some inputs, layer by layer.

    pip install torch==2.13.0 transformers==5.23.0 pillow && python tests/golden/make_siglip.py

siglip: end and padding are one token. siglip2: half precision, a text projection to another width,
4 patches of 6 in 27 pixels, Gemma's special tokens, of which the begin token is not used, in lower
case.
"""

import json
from pathlib import Path

import numpy as np
import torch
from golden_files import randomize, tokenizer_json, write
from transformers import SiglipConfig, SiglipImageProcessorPil, SiglipModel

HERE = Path(__file__).parent
LENGTH, VOCAB = 10, 96


def make(name, patch, side, embed_dim, specials, roles, dtype):
    """One golden folder."""
    torch.manual_seed(0)
    tower = {"intermediate_size": 48, "num_hidden_layers": 2}
    config = SiglipConfig(
        text_config={
            **tower,
            "hidden_size": 32,
            "num_attention_heads": 4,
            "vocab_size": VOCAB,
            "max_position_embeddings": LENGTH,
            "projection_size": embed_dim,
        },
        vision_config={
            **tower,
            "hidden_size": embed_dim,
            "num_attention_heads": 2,
            "image_size": side,
            "patch_size": patch,
        },
    )
    model = randomize(SiglipModel(config))
    with torch.no_grad():  # as trained ones: above CLIP's limit of 100
        model.logit_scale[:], model.logit_bias[:] = 4.75, -12.5
    model = model.to(dtype).eval()
    folder = HERE / name
    model.save_pretrained(folder)
    processor = SiglipImageProcessorPil(size={"height": side, "width": side})
    processor.save_pretrained(folder)
    tokenizer_json(folder, *specials, vocab_size=VOCAB)
    (folder / "tokenizer_config.json").write_text(json.dumps(roles))

    rng = np.random.default_rng(0)
    text = rng.integers(0, VOCAB - len(specials), (3, LENGTH))
    ends = np.array([[4], [LENGTH - 1], [7]])
    end = VOCAB - len(specials) + specials.index(roles["eos_token"])
    pad = VOCAB - len(specials) + specials.index(roles["pad_token"])
    at = np.arange(LENGTH)
    text = np.where(at == ends, end, np.where(at > ends, pad, text))
    images = {"image": rng.integers(0, 256, (2, side, side, 3), dtype=np.uint8)}
    images["wide"] = rng.integers(0, 256, (1, 3 * patch, 7 * patch, 3), dtype=np.uint8)
    images["small"] = rng.integers(0, 256, (1, 2 * patch, 2 * patch, 3), dtype=np.uint8)
    wide, kept = model.float(), {}
    with torch.no_grad():
        for key, image in images.items():
            pixels = processor(list(image), return_tensors="pt", do_resize=False)
            out = wide(
                input_ids=torch.tensor(text),
                pixel_values=pixels["pixel_values"],
                output_hidden_states=True,
                interpolate_pos_encoding=key != "image",
            )
            kept |= {key: image, f"{key}_embed": out.image_embeds}
            kept[f"{key}_layers"] = torch.stack(out.vision_model_output.hidden_states)
            kept[f"{key}_logits"] = out.logits_per_image
    write(
        folder,
        **kept,
        text=text.astype(np.int32),
        text_mask=at <= ends,
        text_embed=out.text_embeds,
        text_layers=torch.stack(out.text_model_output.hidden_states),
    )


EOS = {"tokenizer_class": "SiglipTokenizer", "eos_token": "</s>", "pad_token": "</s>"}
GEMMA = {"tokenizer_class": "GemmaTokenizer", "bos_token": "<bos>", "eos_token": "<eos>"}
make("siglip", 8, 32, 40, ["<unk>", "</s>"], EOS, torch.float32)
specials = ["<pad>", "<bos>", "<unk>", "<eos>"]
make("siglip2", 6, 27, 24, specials, GEMMA | {"pad_token": "<pad>"}, torch.float16)
