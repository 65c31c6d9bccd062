#!/usr/bin/env bash
# ChineseCLIPModel.from_pretrained sets the padding token's embedding to zero, whatever the file has.
#
# Versions: transformers 5.23.0, torch 2.13.0, Python 3.11.
#
# from_pretrained is expected to give the tensors of the file. BertModel does, with the same padding
# index in its embedding layer.
#
# Seen: a ChineseCLIPModel whose word embeddings are all 1 is saved; model.safetensors has 1 in row 0
# (the padding token); after from_pretrained row 0 is 0, without a warning or a key reported as
# missing or mismatched. The padding token is masked in attention, so outputs of masked texts
# do not change; a comparison of parameters, an average of checkpoints, or a text in which id 0 is
# not masked does.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    transformers==5.23.0 torch==2.13.0 safetensors numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import torch
import transformers as t
from safetensors.torch import load_file

sizes = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
text = {**sizes, "vocab_size": 20, "max_position_embeddings": 8}
chinese = t.ChineseCLIPModel(
    t.ChineseCLIPConfig(
        text_config=text,
        vision_config={**sizes, "image_size": 8, "patch_size": 8},
        projection_dim=4,
    )
)
bert = t.BertModel(t.BertConfig(**text))
rows = {}
for name, model, table in (
    ("chinese_clip", chinese, lambda m: m.text_model.embeddings.word_embeddings.weight),
    ("bert", bert, lambda m: m.embeddings.word_embeddings.weight),
):
    torch.nn.init.ones_(table(model))
    model.save_pretrained(name)
    loaded = type(model).from_pretrained(name)
    tensors = load_file(f"{name}/model.safetensors")
    (file,) = [v for k, v in tensors.items() if k.endswith("word_embeddings.weight")]
    rows[name] = (file[:2, 0].tolist(), table(loaded)[:2, 0].tolist())
    print(name, "file:", rows[name][0], "loaded:", rows[name][1])
expected = {"chinese_clip": ([1.0, 1.0], [0.0, 1.0]), "bert": ([1.0, 1.0], [1.0, 1.0])}
sys.exit(0 if rows == expected else 1)
PY
