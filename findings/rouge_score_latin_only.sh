#!/usr/bin/env bash
# rouge-score: a Russian or Japanese caption that equals its reference scores 0.
#
# Versions: rouge-score 0.1.2, numpy 2.4.6, Python 3.11.
#
# A text compared with itself is expected to have ROUGE 1 in any language, or the library to refuse it.
#
# Seen: the default tokenizer turns everything but a-z and 0-9 into spaces. A caption in Cyrillic, Greek or Japanese has
# no token left and scores 0 against itself, without a warning; in a German one "Bär" is the tokens "b" and "r", and
# equals "b r". A mean over captions of several languages measures the alphabet.
#
# What to do: RougeScorer(..., tokenizer=...) with an object whose tokenize(text) knows the language.
#
# Exits with 0 if this is what happens, with 1 if it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check rouge-score==0.1.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

from rouge_score import rouge_scorer


class Words:
    def tokenize(self, text):
        return text.lower().split()


default = rouge_scorer.RougeScorer(["rougeL"])
words = rouge_scorer.RougeScorer(["rougeL"], tokenizer=Words())
pairs = {
    "English": ("a cat on the table", "a cat on the table"),
    "Russian": ("кошка на столе", "кошка на столе"),
    "Greek": ("μια γάτα", "μια γάτα"),
    "Japanese": ("机の上の猫", "机の上の猫"),
    "German": ("ein müder Bär", "ein m der b r"),
}
found = {}
for name, (reference, caption) in pairs.items():
    found[name] = tuple(scorer.score(reference, caption)["rougeL"].fmeasure for scorer in (default, words))
    print(f"{name}: '{reference}' and '{caption}': {found[name][0]:.2f}, by words {found[name][1]:.2f}")
self_scores = [found[name] for name in ("Russian", "Greek", "Japanese")]
wrong = all(score == (0, 1) for score in self_scores) and found["German"][0] == 1 > found["German"][1]
sys.exit(0 if wrong and found["English"] == (1, 1) else 1)
PY
