#!/usr/bin/env bash
# diffusers writes a UnCLIPPipeline that it cannot open again.
#
# Versions: diffusers 0.42.0, transformers 5.23.0, torch 2.13.0, numpy 2.4.6, Python 3.11.
#
# from_pretrained of what save_pretrained wrote is expected to give the pipeline back.
#
# Seen: AttributeError: module diffusers has no attribute UnCLIPTextProjModel. The pipelines of unCLIP moved to
# pipelines/deprecated, so that the index of the folder no longer names the module of the text projection but
# "diffusers", which does not export the class. An index with the older name, ["unclip", "UnCLIPTextProjModel"], ends
# in ModuleNotFoundError: the name is looked up in diffusers.pipelines. The parts open one by one without an error.
#
# What to do: import diffusers.pipelines.deprecated.unclip, set it as the attribute `unclip` of diffusers.pipelines, and
# write ["unclip", "UnCLIPTextProjModel"] into model_index.json.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    diffusers==0.42.0 transformers==5.23.0 torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import json
import sys
from pathlib import Path

import diffusers
from diffusers import PriorTransformer, UnCLIPPipeline, UnCLIPScheduler, UNet2DConditionModel, UNet2DModel
from diffusers.pipelines.deprecated import unclip
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}
Path("vocab.json").write_text(json.dumps(words))
Path("merges.txt").write_text("#version: 0.2\n")
sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
text = CLIPTextConfig(**sizes, vocab_size=3, projection_dim=8, max_position_embeddings=7, bos_token_id=0, eos_token_id=1)
unet = {"sample_size": 8, "layers_per_block": 1, "block_out_channels": (4, 4), "norm_num_groups": 2}
super_res = UNet2DModel(
    **unet,
    in_channels=6,
    down_block_types=("ResnetDownsampleBlock2D",) * 2,
    up_block_types=("ResnetUpsampleBlock2D",) * 2,
)
pipeline = UnCLIPPipeline(
    prior=PriorTransformer(num_attention_heads=2, attention_head_dim=4, num_layers=1, embedding_dim=8, num_embeddings=7),
    decoder=UNet2DConditionModel(
        **unet,
        cross_attention_dim=8,
        attention_head_dim=2,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    ),
    text_encoder=CLIPTextModelWithProjection(text),
    tokenizer=CLIPTokenizer("vocab.json", "merges.txt"),
    text_proj=UnCLIPTextProjModel(
        clip_extra_context_tokens=2, clip_embeddings_dim=8, time_embed_dim=16, cross_attention_dim=8
    ),
    super_res_first=super_res,
    super_res_last=super_res,
    prior_scheduler=UnCLIPScheduler(prediction_type="sample"),
    decoder_scheduler=UnCLIPScheduler(),
    super_res_scheduler=UnCLIPScheduler(),
)
pipeline.save_pretrained("saved")
index = Path("saved/model_index.json")
written = json.loads(index.read_text())


def opened():
    try:
        return type(UnCLIPPipeline.from_pretrained("saved")).__name__
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def named(library):
    index.write_text(json.dumps(written | {"text_proj": [library, "UnCLIPTextProjModel"]}))


as_written = opened()
named("unclip")
older = opened()
diffusers.pipelines.unclip = unclip
both = opened()
print("the index names", written["text_proj"], "->", as_written)
print("with the older name ->", older)
print("with the older name and the alias ->", both)
same = as_written.startswith("AttributeError: module diffusers has no attribute UnCLIPTextProjModel")
sys.exit(0 if same and older.startswith("ModuleNotFoundError") and both == "UnCLIPPipeline" else 1)
PY
