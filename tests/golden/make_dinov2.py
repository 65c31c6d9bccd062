"""Make tests/golden/{dinov2,dinov2_swiglu,dinov2_registers}: small random DINOv2s of the original
code, with what they give for some inputs, layer by layer.

    pip install torch==2.13.0 transformers==5.23.0 pillow && python tests/golden/make_dinov2.py

dinov2: no head. dinov2_swiglu: a head on the class token beside the mean of the patches, a gated
MLP. dinov2_registers: 3 registers, positions resized with antialiasing, a head.
"""

import torch
import transformers as t
from make_vit import SIZES, make

SIZES = {k: v for k, v in SIZES.items() if k != "intermediate_size"} | {"mlp_ratio": 2}

if __name__ == "__main__":
    torch.manual_seed(0)
    processor = t.BitImageProcessorPil(
        size={"shortest_edge": 36},
        crop_size=32,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    make("dinov2", t.Dinov2Model(t.Dinov2Config(**SIZES)), processor)
    config = t.Dinov2Config(**SIZES, use_swiglu_ffn=True, num_labels=5)
    make("dinov2_swiglu", t.Dinov2ForImageClassification(config), processor)
    config = t.Dinov2WithRegistersConfig(**SIZES, num_register_tokens=3, num_labels=5)
    make("dinov2_registers", t.Dinov2WithRegistersForImageClassification(config), processor)
