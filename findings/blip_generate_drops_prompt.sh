#!/usr/bin/env bash
# BlipForConditionalGeneration.generate replaces the first token of a prompt and drops its last one.
#
# Versions: transformers 5.23.0, torch 2.13.0, Python 3.11.
#
# generate is expected to continue input_ids, as it does in every decoder.
#
# Seen: of a prompt [5, 6, 7, 8] the decoder gets [bos, 6, 7]. This is right for a prompt that the
# processor has encoded with special tokens: [CLS] becomes the begin token and [SEP] is removed. With
# add_special_tokens=False, or with ids from another tokenizer call, the caption continues a prompt
# without its first and its last word, without a warning.
#
# What to do: encode prompts with special tokens, and check that generate's output begins with the
# prompt.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    transformers==5.23.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import torch
import transformers as t

torch.manual_seed(0)
sizes = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
special = {"bos_token_id": 38, "sep_token_id": 39, "eos_token_id": 39, "pad_token_id": 0}
text = {"vocab_size": 40, "max_position_embeddings": 16, "encoder_hidden_size": 16}
config = t.BlipConfig(
    text_config={**sizes, **text, **special},
    vision_config={**sizes, "image_size": 16, "patch_size": 8},
)
model = t.BlipForConditionalGeneration(config).eval()
made = model.generate(
    pixel_values=torch.rand(1, 3, 16, 16),
    input_ids=torch.tensor([[5, 6, 7, 8]]),
    max_new_tokens=1,
)
print("generated from [5, 6, 7, 8]:", made.tolist())
sys.exit(0 if made.shape[1] == 4 and made[0, :3].tolist() == [38, 6, 7] else 1)
PY
