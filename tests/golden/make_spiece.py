"""Make tests/golden/spiece: a small sentencepiece vocabulary, and the ids that SigLIP's tokenizer
of transformers gives with it.

    pip install torch==2.13.0 transformers==5.23.0 sentencepiece==0.2.3 protobuf
    python tests/golden/make_spiece.py
"""

import json
from pathlib import Path

import sentencepiece
from transformers import SiglipTokenizer

HERE = Path(__file__).parent
FOLDER = HERE / "spiece"
LENGTH = 16
TEXTS = (
    "a photo of a cat",
    "A Photo of a CAT!",
    "two  dogs,   one cat.",
    " leading and trailing  ",
    "it's a red-brown fox (running)",
    "ﬁne ½ cup of café №5",
    "ünïcödé ΑΣ and 猫",
    "",
    "a",
    "a very long sentence about a cat and a dog and a fox and a bird and a cup of tea and a house",
    "new\nlines\tand tabs",
)


def main():
    """Train on the repository's own prose, so that there are words."""
    FOLDER.mkdir(exist_ok=True)
    root = HERE.parents[1]
    lines = [(root / name).read_text() for name in ("README.md", "CONTRIBUTING.md")]
    lines = "\n".join(lines).splitlines()
    lines += [x.lower() for x in TEXTS[:5]] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(FOLDER / "spiece"),
        vocab_size=500,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
    )
    (FOLDER / "spiece.vocab").unlink()
    tokenizer = SiglipTokenizer(str(FOLDER / "spiece.model"))
    rows = tokenizer(list(TEXTS), padding="max_length", max_length=LENGTH, truncation=True)
    found = {"texts": TEXTS, "ids": rows["input_ids"]}
    (FOLDER / "expected.json").write_text(json.dumps(found, ensure_ascii=False))
    settings = {"tokenizer_class": "SiglipTokenizer", "eos_token": "</s>", "pad_token": "</s>"}
    (FOLDER / "tokenizer_config.json").write_text(json.dumps(settings))


if __name__ == "__main__":
    main()
