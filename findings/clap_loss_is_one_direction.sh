#!/usr/bin/env bash
# ClapModel(return_loss=True) trains one direction twice: both halves of its loss find audio for texts.
#
# Versions: transformers 5.23.0, torch 2.13.0, Python 3.11.
#
# The loss is expected to be symmetric, as CLIP's: the mean of the cross-entropy over each text's
# audio and over each audio's texts.
#
# Seen: the second half transposes logits_per_audio, which are audio by text, and then takes the
# cross-entropy over its rows, so these are texts again. With equal scales both halves are one number,
# and no term asks for the text of an audio.
#
# What to do: compute the symmetric loss from logits_per_audio and logits_per_text.
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
text = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 12,
}
audio = {
    "spec_size": 32,
    "num_mel_bins": 8,
    "window_size": 2,
    "patch_size": 4,
    "patch_stride": [4, 4],
    "patch_embeds_hidden_size": 8,
    "depths": [1, 1],
    "num_attention_heads": [1, 2],
    "hidden_size": 16,
    "num_classes": 3,
}
model = t.ClapModel(t.ClapConfig(text_config=text, audio_config=audio, projection_dim=8)).eval()
with torch.no_grad():
    out = model(
        input_ids=torch.randint(3, 40, (4, 6)),
        input_features=torch.randn(4, 1, 128, 8),
        return_loss=True,
    )
own = torch.arange(4)
of_texts = torch.nn.functional.cross_entropy(out.logits_per_text, own)
of_audio = torch.nn.functional.cross_entropy(out.logits_per_audio, own)
symmetric = (of_texts + of_audio) / 2
print(f"loss {out.loss:.6f}; texts {of_texts:.6f}, audio {of_audio:.6f}, mean {symmetric:.6f}")
same = torch.isclose(out.loss, of_texts, atol=1e-6)
sys.exit(0 if same and not torch.isclose(out.loss, symmetric, atol=1e-4) else 1)
PY
