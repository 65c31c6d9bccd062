"""CLIP's tokenizer with a few merges, and one trained on a few lines."""

from collections import Counter

import pytest
from slow_bpe import CORPUS, clip_symbols, clip_words, learn_merges, write_gz

from mmjax.run.tokenizer import make_tokenizer


@pytest.fixture(scope="module")
def clip_merges():
    words = Counter(word for text in CORPUS for word in clip_words(text.lower()))
    return learn_merges([(clip_symbols(word), n) for word, n in words.items()], 120)


@pytest.fixture(scope="module")
def clip(clip_merges, tmp_path_factory):
    path = write_gz(tmp_path_factory.mktemp("clip") / "bpe.txt.gz", clip_merges)
    return make_tokenizer({"kind": "clip_bpe", "path": path})


@pytest.fixture(scope="module")
def trained():
    return make_tokenizer({"kind": "train_bpe", "vocab_size": 300}, corpus=CORPUS)
