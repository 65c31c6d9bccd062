#!/usr/bin/env bash
# ViltModel in eval mode returns the image's tokens in another random order at every call.
#
# Versions: transformers 5.23.0, torch 2.13.0, Python 3.11.
#
# In eval mode, without dropout, two calls with the same input are expected to give the same output,
# and row 1 + i of the image's part to be patch i.
#
# Seen: the pooled output and the rows of the text are equal; the rows of the patches are the same
# vectors in two different orders, since the patches that enter the transformer are drawn with
# torch.multinomial even where all of them are kept. The positions are added before, so that nothing
# pooled changes; attention maps, grounding by patch, features of regions and any comparison of
# layers with another implementation do.
#
# What to do: fix torch's seed before each call and match the rows, or compare sorted rows.
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
config = t.ViltConfig(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    vocab_size=20,
    image_size=32,
    patch_size=8,
)
model = t.ViltModel(config).eval()
given = {
    "input_ids": torch.tensor([[1, 2, 3]]),
    "pixel_values": torch.rand(1, 3, 32, 32),
    "pixel_mask": torch.ones(1, 32, 32, dtype=torch.long),
}
with torch.no_grad():
    first, second = model(**given), model(**given)
pooled = (first.pooler_output - second.pooler_output).abs().max().item()
x, y = first.last_hidden_state[0], second.last_hidden_state[0]
special = 4  # three words and the image's class token
before = (x[:special] - y[:special]).abs().max().item()
patches = torch.cdist(x[special:], y[special:])
order = patches.argmin(1)
print("pooled output differs by", pooled, "words by", before)
print("row of the second call that has each patch of the first:", order.tolist())
changed = order.tolist() != list(range(16)) and sorted(order.tolist()) == list(range(16))
equal = patches.min(1).values.max().item() < 1e-4
sys.exit(0 if changed and equal and pooled < 1e-5 and before < 1e-5 else 1)
PY
