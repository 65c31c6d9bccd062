"""Make tests/golden/cct: small random models of the authors' code for CCT, CVT and ViT-Lite.

    COMPACT=DIR python tests/golden/make_cct.py

DIR is a checkout of github.com/SHI-Labs/Compact-Transformers (commit cd11f09), run unmodified with
torch 2.13.0; timm, which it uses for a registry alone, is not needed. Weights are drawn from their
names by tests/helpers/named_draws.py. Recorded: what the tokenizer gives, each block, and logits;
and of two state dicts in torch files images and logits.
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from golden_files import write

HERE = Path(__file__).parent
sys.path[:0] = [os.environ["COMPACT"], str(HERE.parent / "helpers")]

import named_draws  # noqa: E402
from src.cct import CCT  # noqa: E402
from src.cvt import CVT  # noqa: E402
from src.vit import ViTLite  # noqa: E402

SIZES = {"embedding_dim": 16, "num_layers": 2, "num_heads": 2, "mlp_ratio": 1.5, "num_classes": 5}
POOLED = {"padding": 1, "stride": 1}
MODELS = {
    "cct_3x2": (CCT, {"img_size": 20, "kernel_size": 3, "n_conv_layers": 2, **POOLED}),
    "cct_3x1_sine": (
        CCT,
        {"img_size": 12, "kernel_size": 3, "positional_embedding": "sine", **POOLED},
    ),
    "cct_7x1": (CCT, {"img_size": 24, "kernel_size": 7, "padding": 3, "stride": 2}),
    "cvt": (CVT, {"img_size": 12, "kernel_size": 4}),
    "vit_lite": (ViTLite, {"img_size": 12, "kernel_size": 4}),
}


def file(folder, name, kind, kernel):
    """A state dict as the authors' script saves it, with heads of 64 channels; images and logits,
    the pixels normalized as those of ImageNet."""
    settings = {"embedding_dim": 64, "num_layers": 1, "num_heads": 1, "mlp_ratio": 0.5}
    settings |= {"num_classes": 7, "img_size": 12, "kernel_size": kernel}
    model = kind(**settings, **(POOLED if kind is CCT else {})).eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            drawn = torch.tensor(named_draws.tensor(key, tuple(value.shape)))
            value.copy_(drawn.half())  # small files
    halves = {key: value.half() for key, value in model.state_dict().items()}
    torch.save(halves, folder / f"{name}.pth")
    image = np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3), dtype=np.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((torch.tensor(image) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.no_grad():
        return {"image": image, "logits": model(pixels)}


def main():
    arrays = {}
    for name, (kind, settings) in MODELS.items():
        model = kind(**SIZES, **settings).eval()
        with torch.no_grad():
            for key, value in model.named_parameters():
                if value.requires_grad:
                    value.copy_(torch.tensor(named_draws.tensor(key, tuple(value.shape))))
        side = settings["img_size"]
        image = np.random.default_rng(side).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
        pixels = torch.tensor(image).permute(0, 3, 1, 2).float() / 127.5 - 1
        kept = {}
        blocks = {f"block{i}": block for i, block in enumerate(model.classifier.blocks)}
        for key, part in {"tokens": model.tokenizer, **blocks}.items():
            part.register_forward_hook(
                lambda _, args, y, key=key, kept=kept: kept.update({key: y.clone()})
            )
        with torch.no_grad():
            kept["logits"] = model(pixels)
        arrays |= {f"{name}/{k}": v for k, v in {"image": image, **kept}.items()}
    folder = HERE / "cct"
    folder.mkdir(exist_ok=True)
    for name, kind, kernel in (("cct", CCT, 3), ("vit_lite", ViTLite, 4)):
        arrays |= {f"{name}.pth/{k}": x for k, x in file(folder, name, kind, kernel).items()}
    write(folder, **arrays)


main()
