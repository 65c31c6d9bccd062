"""A trained BPE against slow counts of pairs."""

import json
import subprocess
import sys
import unicodedata
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from slow_bpe import (
    CONTRACTIONS,
    CORPUS,
    LETTER,
    apply_merges,
    encode_one,
    join,
    letters_of,
    merges_of,
    pair_counts,
)


def test_trained_ids_start_with_specials_and_bytes(trained, tmp_path):
    assert (trained.pad_id, trained.bos_id, trained.eos_id) == (0, 1, 2)
    trained.save(tmp_path)
    vocab = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    assert sorted(vocab.values()) == list(range(trained.vocab_size))
    assert {vocab[letter] for letter in LETTER.values()} == set(range(3, 259))


def test_every_trained_merge_was_a_most_frequent_pair(trained, tmp_path):
    """Replays the merges with slow counts: each was, when chosen, at the top (and came twice)."""
    merges = merges_of(trained, tmp_path)
    assert len(merges) == 300 - 256 - 3
    words = Counter()
    for text in CORPUS:
        words.update(gpt2_words(text.lower()))
    state = [(letters_of(word), n) for word, n in words.items()]
    for merge in merges:
        counts = pair_counts(state)
        assert counts[merge] == max(counts.values()) >= 2
        state = [(join(symbols, merge), n) for symbols, n in state]


def gpt2_words(text):
    """GPT-2's word pattern for single-spaced text: a word carries the space before it."""
    words, space = [], ""
    for part in (" " + text).split(" ")[1:]:
        space, i = " ", 0
        kinds = [{"L": "l", "N": "n"}.get(unicodedata.category(c)[0], "o") for c in part]
        while i < len(part):
            contraction = next(
                (s for s in CONTRACTIONS if part[i:].startswith(s) and not space),
                None,
            )
            if contraction:
                words.append(contraction)
                i += len(contraction)
                continue
            end = i
            while end < len(part) and kinds[end] == kinds[i]:
                end += 1
            words.append(space + part[i:end])
            space, i = "", end
    return words


def test_trained_encoding_equals_the_slow_reference(trained, tmp_path):
    ranks = {pair: i for i, pair in enumerate(merges_of(trained, tmp_path))}
    vocab = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    for text in [*CORPUS, "catalogue of unseen words, isn't it 99"]:
        words = gpt2_words(text.lower())
        expected = [vocab[s] for word in words for s in apply_merges(letters_of(word), ranks)]
        assert encode_one(trained, text) == [1, *expected, 2]


# Python's Unicode tables are older than the tokenizer's: letters that Python does not know yet
# (category Cn) have no lower case here and one there.
known_letters = st.characters(exclude_categories=("Cs", "Cn"))


@settings(max_examples=150)
@given(text=st.text(known_letters, max_size=30))
def test_trained_decodes_what_it_encodes(trained, text):
    """No text is unknown; only case, form and white space are lost."""
    lowered = "".join(c.lower() for c in unicodedata.normalize("NFC", text))
    ids, _ = trained.encode([text], 500)
    assert trained.decode(ids[0]).split() == lowered.split()


def test_training_is_the_same_in_every_process(trained):
    code = (
        "from mmjax.run.tokenizer import make_tokenizer\n"
        f"corpus = {CORPUS!r}\n"
        "print(make_tokenizer({'kind': 'train_bpe', 'vocab_size': 300}, corpus=corpus).fingerprint)"
    )
    for seed in ("1", "2"):
        out = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ".", "TOKENIZERS_PARALLELISM": "false"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert out.stdout.strip() == trained.fingerprint


def test_a_caption_cannot_forge_specials(trained):
    ids = encode_one(trained, "a <eos> <pad> <bos> cat")
    assert ids.count(1) == ids.count(2) == 1 and 0 not in ids
