"""Make tests/golden/{unet_adm,unet_ddpm,unet_karlo}: small random U-Nets of diffusers.

    pip install torch==2.13.0 diffusers==0.42.0 && python tests/golden/make_unet.py

unet_adm: with classes and attention, residual blocks that resize, learned variance. unet_ddpm: that
of DDPM, with convolutions that resize. unet_karlo: the configuration of unCLIP's decoder, with
attention to a context under a mask, and an embedding that is added to that of the time. Inputs are
[B, H, W, C]; of each block of residual layers and of the whole net its output, in the same order.
"""

import shutil
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from golden_files import randomize, write

HERE = Path(__file__).parent
SIZES = {"block_out_channels": (4, 8, 12), "layers_per_block": 1, "norm_num_groups": 2}
BLOCK = {"downsample_type": "resnet", "upsample_type": "resnet"}
ADM = {
    "sample_size": (8, 12),
    "out_channels": 6,
    "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "attention_head_dim": 4,
    "attn_norm_num_groups": 2,
    "resnet_time_scale_shift": "scale_shift",
    "num_class_embeds": 5,
}
DDPM = {
    "sample_size": (8, 12),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "downsample_padding": 0,
    "norm_eps": 1e-6,
}
KARLO = {
    "sample_size": 8,
    "in_channels": 3,
    "out_channels": 6,
    "down_block_types": (
        "ResnetDownsampleBlock2D",
        "SimpleCrossAttnDownBlock2D",
        "SimpleCrossAttnDownBlock2D",
    ),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": (
        "SimpleCrossAttnUpBlock2D",
        "SimpleCrossAttnUpBlock2D",
        "ResnetUpsampleBlock2D",
    ),
    "attention_head_dim": 4,
    "cross_attention_dim": 10,
    "resnet_time_scale_shift": "scale_shift",
    "class_embed_type": "identity",
}


def make(name: str, model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> None:
    """One golden folder."""
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    randomize(model.half()).eval().save_pretrained(folder)
    model, kept = model.float(), {}
    parts = [*model.down_blocks, model.mid_block, *model.up_blocks]
    for i, part in enumerate(parts):

        def keep(module, given, output, i=i):
            x = output if isinstance(output, torch.Tensor) else output[0]
            kept[f"part{i}"] = x.permute(0, 2, 3, 1)

        part.register_forward_hook(keep)
    size = model.config.sample_size
    size = (size, size) if isinstance(size, int) else size
    x = torch.randn(2, model.config.in_channels, *size)
    time = torch.tensor([3, 730])
    with torch.no_grad():
        found = model(x, time, **inputs).sample
    names = {"encoder_hidden_states": "context", "encoder_attention_mask": "context_mask"}
    names["class_labels"] = "embedding" if name == "unet_karlo" else "label"
    given = {names[k]: v for k, v in inputs.items()}
    kept |= {"x": x.permute(0, 2, 3, 1), "time": time, "output": found.permute(0, 2, 3, 1)}
    write(folder, **kept, **given)


def main() -> None:
    torch.manual_seed(0)
    label = torch.tensor([4, 1])
    make("unet_adm", UNet2DModel(**SIZES | BLOCK | ADM), {"class_labels": label})
    make("unet_ddpm", UNet2DModel(**SIZES | DDPM), {})
    inputs = {
        "class_labels": torch.randn(2, 16),
        "encoder_hidden_states": torch.randn(2, 5, 10),
        "encoder_attention_mask": torch.arange(5)[None] < torch.tensor([[5], [2]]),
    }
    make("unet_karlo", UNet2DConditionModel(**SIZES | KARLO), inputs)


if __name__ == "__main__":
    main()
