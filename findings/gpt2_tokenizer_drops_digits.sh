#!/usr/bin/env bash
# AutoTokenizer ignores the pre-tokenizer in a tokenizer.json where the class is GPT2Tokenizer.
#
# Versions: transformers 5.23.0, tokenizers 0.23.3, Python 3.11.
#
# A folder in the layout of SmolLM2: config.json says model_type "llama", tokenizer_config.json says
# tokenizer_class "GPT2Tokenizer", and tokenizer.json splits digits one by one before its byte-level
# step. tokenizer.json is the complete description of a tokenizer, so one would expect both libraries
# to give the same tokens.
#
# Seen: tokenizers gives ['1', '2'] for "12", as the model was trained; AutoTokenizer builds GPT-2's
# own steps around the vocabulary and merges, without the digits step, and gives ['12']. Numbers then
# reach the model in tokens that it may never have seen, without a warning.
#
# What to do: load tokenizer.json with tokenizers.Tokenizer.from_file, or with the class
# PreTrainedTokenizerFast.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 tokenizers==0.23.3
mkdir "$folder/model"
cd "$folder/model"
"$folder/venv/bin/python" - <<'PY'
import json
import sys

import tokenizers as hf
from transformers import AutoTokenizer, PreTrainedTokenizerFast

steps = hf.pre_tokenizers
vocabulary = {c: i for i, c in enumerate(sorted(steps.ByteLevel.alphabet()))}
vocabulary |= {"12": 300, "<|endoftext|>": 301}
tokenizer = hf.Tokenizer(hf.models.BPE(vocabulary, [("1", "2")]))
tokenizer.pre_tokenizer = steps.Sequence(
    [steps.Digits(individual_digits=True), steps.ByteLevel(add_prefix_space=False)]
)
tokenizer.save("tokenizer.json")
json.dump({"model_type": "llama"}, open("config.json", "w"))
json.dump({"tokenizer_class": "GPT2Tokenizer"}, open("tokenizer_config.json", "w"))

file = tokenizer.encode("12").tokens
auto = AutoTokenizer.from_pretrained(".").tokenize("12")
fast = PreTrainedTokenizerFast(tokenizer_file="tokenizer.json").tokenize("12")
print("tokenizers:", file)
print("AutoTokenizer:", auto)
print("PreTrainedTokenizerFast:", fast)
sys.exit(0 if file == fast == ["1", "2"] and auto == ["12"] else 1)
PY
