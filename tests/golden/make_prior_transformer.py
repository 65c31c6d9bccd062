"""Make tests/golden/{prior,prior_wide}: small random priors of diffusers, in fp32, with what they
give, layer by layer.

    pip install torch==2.13.0 transformers==5.23.0 diffusers==0.42.0
    python tests/golden/make_prior_transformer.py

prior_wide: heads whose size is not the width's quarter, another length, timesteps of fractions.
"""

from pathlib import Path

import torch
from diffusers import PriorTransformer
from golden_files import randomize, write

HERE = Path(__file__).parent


def make(name, rows, times, **sizes):
    """One golden folder."""
    torch.manual_seed(0)
    model = randomize(PriorTransformer(**sizes)).eval()
    length, width = sizes["num_embeddings"], sizes["embedding_dim"]
    model.save_pretrained(HERE / name)
    mask = torch.arange(length)[None] < torch.randint(1, length + 1, (rows, 1))
    given = {
        "noisy_embed": torch.randn(rows, width),
        "time": times,
        "text_tokens": torch.randn(rows, length, width),
        "text_mask": mask,
        "text_embed": torch.randn(rows, width),
    }
    layers = []
    for block in model.transformer_blocks:
        block.register_forward_hook(lambda module, inputs, output: layers.append(output))
    with torch.no_grad():
        found = model(
            given["noisy_embed"],
            given["time"],
            given["text_embed"],
            given["text_tokens"],
            given["text_mask"],
        ).predicted_image_embedding
        scaled = model.post_process_latents(found)
    write(HERE / name, **given, layers=torch.stack(layers), clean_embed=found, scaled=scaled)


if __name__ == "__main__":
    sizes = {"num_attention_heads": 3, "attention_head_dim": 8, "num_layers": 2}
    times = torch.tensor([0, 999, 37])
    make("prior", 3, times, **sizes, embedding_dim=20, num_embeddings=7)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 10, "num_layers": 1}
    times = torch.tensor([0.25, 730.5])
    make("prior_wide", 2, times, **sizes, embedding_dim=13, num_embeddings=5)
