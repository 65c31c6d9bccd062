"""Make tests/golden/dit: a small random DiT of diffusers, with its blocks' outputs.

    pip install torch==2.13.0 diffusers==0.42.0 && python tests/golden/make_dit.py

The embeddings of times and classes are those of the first block in all, as in converted models.
Inputs and outputs are [B, H, W, C].
"""

import shutil
from pathlib import Path

import torch
from diffusers import DDPMScheduler, DiTTransformer2DModel
from golden_files import randomize, write

FOLDER = Path(__file__).parent / "dit"


def main() -> None:
    torch.manual_seed(0)
    model = DiTTransformer2DModel(
        num_attention_heads=3,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=6,
        num_embeds_ada_norm=5,
    )
    position = model.pos_embed.pos_embed.clone()  # which half would round
    model = randomize(model.half())
    first = model.transformer_blocks[0].norm1.emb.state_dict()
    model.transformer_blocks[1].norm1.emb.load_state_dict(first)
    shutil.rmtree(FOLDER, ignore_errors=True)
    model.eval().save_pretrained(FOLDER)
    DDPMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"
    ).save_pretrained(FOLDER / "scheduler")
    model, layers = model.float(), []
    model.pos_embed.pos_embed = position
    for block in model.transformer_blocks:
        block.register_forward_hook(lambda module, given, output: layers.append(output))
    x, time, label = torch.randn(3, 4, 6, 6), torch.tensor([0, 3, 730]), torch.tensor([4, 5, 0])
    with torch.no_grad():
        found = model(x, time, class_labels=label).sample
    kept = {"x": x.permute(0, 2, 3, 1), "time": time, "label": label}
    kept |= {"layers": torch.stack(layers), "output": found.permute(0, 2, 3, 1)}
    write(FOLDER, **kept)


if __name__ == "__main__":
    main()
