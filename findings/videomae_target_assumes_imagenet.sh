#!/usr/bin/env bash
# The pixels that VideoMAE learns to predict are wrong with VideoMAE's own default image processor.
#
# Versions: transformers 5.23.0, torch 2.13.0, numpy 2.4.6, pillow 13.0.0, Python 3.11.
#
# VideoMAEForPreTraining makes its target from `pixel_values`: it undoes the normalization, to have pixels in 0 ... 1.
# One expects that it undoes the one of the processor of the same family.
#
# Seen: the default processor normalizes by mean and deviation 0.5, the loss undoes ImageNet's (0.485, 0.229, ...)
# always; there is no setting for it. A white video, whose pixels are 1, has the target 0.714, 0.68, 0.631; a black one
# 0.256, 0.232, 0.181 instead of 0. With norm_pix_loss, the default, each patch is normalized anyway and the error hides
# in the epsilon; with norm_pix_loss=False the model learns other colors.
#
# What to do: a processor with ImageNet's mean and deviation for pre-training.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    transformers==5.23.0 torch==2.13.0 numpy==2.4.6 pillow==13.0.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import numpy as np
import torch
from transformers import VideoMAEConfig, VideoMAEForPreTraining
from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

torch.manual_seed(0)
small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
decoder["decoder_intermediate_size"] = 32
config = VideoMAEConfig(image_size=32, patch_size=16, num_frames=2, norm_pix_loss=False, **small, **decoder)
model = VideoMAEForPreTraining(config).eval()
masked = torch.tensor([[True, False, True, False]])
processor = VideoMAEImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
wrong = []
for level, value in ((0, 0.0), (255, 1.0)):
    video = [np.full((32, 32, 3), level, np.uint8)] * 2
    pixels = processor(video, return_tensors="pt").pixel_values
    with torch.no_grad():
        out = model(pixels, bool_masked_pos=masked)
    logits = out.logits.reshape(1, 2, -1, 3)  # the last axis is the channel
    as_it_is = ((logits - value) ** 2).mean()
    imagenet = ((logits - (pixels[0, 0, :, 0, 0] * deviation + mean)) ** 2).mean()
    print(f"pixels {value}: loss {out.loss:.5f}; of a target of {value}: {as_it_is:.5f}, undone by ImageNet's: {imagenet:.5f}")
    wrong.append(torch.isclose(out.loss, imagenet, atol=1e-5) and not torch.isclose(out.loss, as_it_is, atol=1e-2))
sys.exit(0 if all(wrong) else 1)
PY
