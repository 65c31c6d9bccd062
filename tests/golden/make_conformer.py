"""Make tests/golden/conformer.safetensors: two of torchaudio's Conformer layers with random
weights, their inputs and outputs.

    pip install torch==2.13.0 numpy safetensors && pip install --no-deps torchaudio==2.11.0
    python tests/golden/make_conformer.py

Its norm over the batch, in the convolution module, is replaced by a layer norm of each frame, as
ours; all else is torchaudio's own code. The file is loaded by its path, as the package's compiled
library does not load beside every version of torch.
"""

import importlib.util
from pathlib import Path

import torch
from safetensors.torch import save_file

LAYERS = {"wide": (16, 24, 4, 7), "narrow": (12, 40, 2, 3)}  # width, MLP, heads, kernel
FRAMES = {"wide": 11, "narrow": 2}


class FrameNorm(torch.nn.LayerNorm):
    """A layer norm over the channels of [B, C, T]."""

    def forward(self, x):
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def conformer_layer(*sizes):
    folder = importlib.util.find_spec("torchaudio").submodule_search_locations[0]
    spec = importlib.util.spec_from_file_location("conformer", Path(folder, "models/conformer.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    layer = module.ConformerLayer(*sizes)
    layer.conv_module.sequential[3] = FrameNorm(sizes[0])
    return layer.eval()


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    tensors = {}
    for name, sizes in LAYERS.items():
        layer = conformer_layer(*sizes)
        for path, parameter in layer.named_parameters():
            center = float("norm" in path and path.endswith("weight"))
            parameter.data = center + 0.3 * torch.randn_like(parameter)
        x = torch.randn(FRAMES[name], 3, sizes[0])  # frames first
        with torch.no_grad():
            y = layer(x, None)
        tensors |= {f"{name}.{k}": v for k, v in layer.state_dict().items()}
        tensors |= {f"{name}.input": x.transpose(0, 1), f"{name}.output": y.transpose(0, 1)}
    tensors = {k: v.contiguous() for k, v in tensors.items()}
    save_file(tensors, Path(__file__).with_name("conformer.safetensors"))


if __name__ == "__main__":
    main()
