#!/usr/bin/env bash
# CLIP's two tokenizers differ on captions from the web: transformers does not clean the text as the training did.
#
# Versions: transformers 5.23.0, tokenizers 0.23.3, open_clip_torch 3.3.0, ftfy 6.3.1, torch 2.13.0, Python 3.11.
#
# CLIP was trained on texts that were cleaned by ftfy and unescaped from HTML; open_clip still does that. The
# vocabulary and the merges are the same in transformers' CLIPTokenizer, so one expects the same ids.
#
# Seen: plain ASCII agrees. A typographic apostrophe or quotation mark, an HTML entity, a ligature and full-width letters give
# other tokens: "it's a dog" with U+2019 has one token more, "Tom &amp; Jerry" reads "& amp ;". The model has never
# seen those tokens in such places; retrieval and zero-shot results of the two differ.
#
# What to do: html.unescape and ftfy.fix_text before transformers' tokenizer.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.23.0 tokenizers==0.23.3 \
    ftfy==6.3.1 regex==2026.11.19 torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps open_clip_torch==3.3.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import importlib.metadata
import importlib.util
import sys

from transformers import CLIPTokenizer

# The module alone: the package would also want torchvision and timm.
path = importlib.metadata.distribution("open_clip_torch").locate_file("open_clip/tokenizer.py")
spec = importlib.util.spec_from_file_location("tokenizer", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
original = module.SimpleTokenizer()
merges = sorted(original.bpe_ranks, key=original.bpe_ranks.get)
tokenizer = CLIPTokenizer(vocab=dict(original.encoder), merges=merges)
same = ["a photo of a dog", "a cat's hat", "100% sure, isn't it?"]
other = ["it\u2019s a dog", "a \u201cred\u201d bus", "Tom &amp; Jerry", "\ufb01sh", "\uff46\uff55\uff4c\uff4c"]
equal = {}
for text in same + other:
    theirs = tokenizer(text, add_special_tokens=False).input_ids
    equal[text] = theirs == original.encode(text)
    print(f"{text!a}: open_clip {original.encode(text)}, transformers {theirs}")
sys.exit(0 if [equal[x] for x in same + other] == [True] * 3 + [False] * 5 else 1)
PY
