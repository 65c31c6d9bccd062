"""Tokenizers against a slow byte-pair encoding written from the paper, and published ids."""

import gzip
import html
import json
import re
import subprocess
import sys
import threading
import unicodedata
from collections import Counter

import ftfy
import numpy as np
import pytest
import tokenizers as hf
from hypothesis import given, settings
from hypothesis import strategies as st

from mmjax.data.text import clip_vocab
from mmjax.data.text.tokenizer import Tokenizer, load_tokenizer
from mmjax.run.tokenizer import make_tokenizer

CORPUS = [
    "a red cat sleeps on the red mat",
    "the cat and the dog, and the bird",
    "it's the cat's mat, isn't it",
    "drawing of a thinking face",
    "Ein grünes Blatt und ein gelbes Blatt",
    "le chat rouge et le chien rouge",
    "猫が寝ている 猫",
    "party popper 🎉 🎉 numbers 123 1234",
]

# ---- slow references -----------------------------------------------------------------------------


def byte_to_letter():
    """GPT-2's printable stand-ins for bytes: visible Latin-1 is itself, the rest count from 256."""
    table, moved = {}, 0
    for byte in range(256):
        if 33 <= byte <= 126 or 161 <= byte <= 172 or 174 <= byte <= 255:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + moved)
            moved += 1
    return table


LETTER = byte_to_letter()


def letters_of(word):
    return [LETTER[byte] for byte in word.encode("utf-8")]


def join(symbols, pair):
    out, i = [], 0
    while i < len(symbols):
        if tuple(symbols[i : i + 2]) == pair:
            out.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


def apply_merges(symbols, ranks):
    """Sennrich et al. 2016: merge the earliest learnt pair, wherever it stands, until none is."""
    while True:
        pairs = [pair for pair in zip(symbols, symbols[1:]) if pair in ranks]
        if not pairs:
            return symbols
        symbols = join(symbols, min(pairs, key=ranks.get))


def pair_counts(words):
    counts = Counter()
    for symbols, times in words:
        for pair in zip(symbols, symbols[1:]):
            counts[pair] += times
    return counts


def learn_merges(words, number):
    words = [(list(symbols), times) for symbols, times in words]
    merges = []
    for _ in range(number):
        counts = pair_counts(words)
        if not counts:
            break
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        words = [(join(symbols, best), times) for symbols, times in words]
    return merges


CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


def clip_words(text):
    """CLIP's word pattern by hand: contractions, runs of letters, single digits, runs of others."""
    kind = {"L": "letter", "N": "number"}
    words, i = [], 0
    kinds = [
        "space" if c.isspace() else kind.get(unicodedata.category(c)[0], "other") for c in text
    ]
    while i < len(text):
        contraction = next((s for s in CONTRACTIONS if text[i:].startswith(s)), None)
        if contraction:
            words.append(contraction)
            i += len(contraction)
        elif kinds[i] == "space":
            i += 1
        elif kinds[i] == "number":
            words.append(text[i])
            i += 1
        else:
            end = i
            while end < len(text) and kinds[end] == kinds[i]:
                end += 1
            words.append(text[i:end])
            i = end
    return words


def clip_symbols(word):
    letters = letters_of(word)
    return letters[:-1] + [letters[-1] + "</w>"]


def clip_reference(text, merges):
    """Ids of lower-case, single-spaced text by the order of the published vocabulary."""
    order = sorted(LETTER.values(), key=lambda c: (ord(c) >= 256, ord(c)))
    tokens = order + [c + "</w>" for c in order] + [a + b for a, b in merges]
    number = {token: i for i, token in enumerate(tokens)}
    ranks = {pair: i for i, pair in enumerate(merges)}
    return [
        number[symbol]
        for word in clip_words(text)
        for symbol in apply_merges(clip_symbols(word), ranks)
    ]


# ---- CLIP ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip_merges():
    words = Counter(word for text in CORPUS for word in clip_words(text.lower()))
    return learn_merges([(clip_symbols(word), n) for word, n in words.items()], 120)


def write_gz(path, merges):
    lines = ["#version: 0.2 - made for a test", *(" ".join(pair) for pair in merges), ""]
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines))
    return str(path)


@pytest.fixture(scope="module")
def clip(clip_merges, tmp_path_factory):
    path = write_gz(tmp_path_factory.mktemp("clip") / "bpe.txt.gz", clip_merges)
    return make_tokenizer({"kind": "clip_bpe", "path": path})


def encode_one(tokenizer, text, length=400):
    ids, mask = tokenizer.encode([text], length)
    return ids[0][mask[0]].tolist()


alphabet = st.sampled_from("abcdeghilmnorstuäüß猫寝 '.,!?-12349🎉é_")


@settings(max_examples=150)
@given(text=st.text(alphabet, max_size=40))
def test_clip_equals_the_slow_reference(clip, clip_merges, text):
    expected = clip_reference(" ".join(text.split()), clip_merges)
    assert encode_one(clip, text) == [clip.bos_id, *expected, clip.eos_id]


@pytest.mark.parametrize("text", CORPUS)
def test_clip_equals_the_slow_reference_on_its_corpus(clip, clip_merges, text):
    expected = clip_reference(text.lower(), clip_merges)
    assert len(expected) < sum(map(len, map(letters_of, text.split())))  # merges did happen
    assert encode_one(clip, text) == [clip.bos_id, *expected, clip.eos_id]


def test_clip_cleans_text(clip):
    clean = encode_one(clip, 'a "red" cat\'s fine & dog')
    for dirty in (
        "  A “red”\tcat’s \n ﬁne &amp;amp; dog ",
        'ａ "RED" cat\'s fine &amp; dog\u0007',
    ):
        assert encode_one(clip, dirty) == clean


def original_clean(text):
    """clip/simple_tokenizer.py: basic_clean, whitespace_clean, lower."""
    text = ftfy.fix_text(text)
    text = html.unescape(html.unescape(text)).strip()
    return re.sub(r"\s+", " ", text).strip().lower()


@given(st.one_of(st.text(), st.text(alphabet="aB &;lgt<>#39'\"x\t\\", max_size=30)))
def test_clip_cleans_as_the_original_does(text):
    assert clip_vocab.clean(text) == original_clean(text)


def test_clip_repairs_wrongly_decoded_text():
    assert clip_vocab.clean("The Mona Lisa doesnÃ¢â‚¬â„¢t have eyebrows. schÃ¶n") == (
        "the mona lisa doesn't have eyebrows. schön"
    )


def test_clip_from_vocab_and_merges_equals_gz(clip, clip_merges, tmp_path):
    order = sorted(LETTER.values(), key=lambda c: (ord(c) >= 256, ord(c)))
    tokens = order + [c + "</w>" for c in order] + [a + b for a, b in clip_merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in clip_merges)]
    (tmp_path / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    other = make_tokenizer({"kind": "clip_bpe", "path": str(tmp_path)})
    for text in CORPUS:
        assert encode_one(other, text) == encode_one(clip, text)
    assert other.fingerprint == clip.fingerprint


# Merges of bpe_simple_vocab_16e6.txt.gz that these words need, at their published ranks.
PUBLISHED = {
    19: "t o</w>",
    24: "a t</w>",
    27: "o f</w>",
    47: "r a",
    58: "d i",
    90: "a g",
    94: "h o",
    304: "p ho",
    613: "pho to</w>",
    1417: "do g</w>",
    127: "d o",
    1495: "ra m</w>",
    1856: "c at</w>",
    1935: "ag ram</w>",
    22185: "di agram</w>",
}


def test_published_clip_ids(tmp_path):
    """The ids of OpenAI's README and of transformers' tests, from a file of the published shape."""
    rare = [letter for letter in LETTER.values() if ord(letter) > 126]
    filler = ((a, b + end) for end in ("", "</w>") for a in rare for b in rare)
    merges = [tuple(PUBLISHED[i].split()) if i in PUBLISHED else next(filler) for i in range(48894)]
    extra = [("q", "q")] * 100  # the real file goes on behind the merges that the model uses
    path = write_gz(tmp_path / "vocab.txt.gz", merges + extra)
    tokenizer = make_tokenizer({"kind": "clip_bpe", "path": path})
    assert tokenizer.vocab_size == 49408
    text, mask = tokenizer.encode(["a photo of a cat", "a diagram", "a dog", ""], 8)
    np.testing.assert_array_equal(
        text,
        [
            [49406, 320, 1125, 539, 320, 2368, 49407, 0],
            [49406, 320, 22697, 49407, 0, 0, 0, 0],
            [49406, 320, 1929, 49407, 0, 0, 0, 0],
            [49406, 49407, 0, 0, 0, 0, 0, 0],
        ],
    )
    np.testing.assert_array_equal(mask.sum(1), [7, 4, 4, 2])
    assert text.dtype == np.int32 and mask.dtype == bool


# ---- trained on the corpus -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    return make_tokenizer({"kind": "train_bpe", "vocab_size": 300}, corpus=CORPUS)


def merges_of(tokenizer, directory):
    tokenizer.save(directory)
    return [
        tuple(m) for m in json.loads((directory / "tokenizer.json").read_text())["model"]["merges"]
    ]


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


# ---- rows ----------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(texts=st.lists(st.text(alphabet, max_size=30), max_size=6), length=st.integers(3, 40))
def test_rows(trained, texts, length):
    """bos, tokens, eos, padding; the mask is true up to the end token, which is never cut."""
    trained.reset_truncation_rate()
    text, mask = trained.encode(texts, length)
    assert text.shape == mask.shape == (len(texts), length)
    cut = 0
    for row, row_mask, caption in zip(text, mask, texts):
        whole = encode_one(trained, caption)
        n = row_mask.sum()
        assert row_mask[:n].all() and not row_mask[n:].any()
        assert n == min(len(whole), length)
        assert row[:n].tolist() == whole[: n - 1] + [trained.eos_id]
        assert (row[n:] == trained.pad_id).all()
        cut += len(whole) > length
    expected = cut / (2 * len(texts)) if texts else 0.0  # encode_one cuts none
    assert trained.truncation_rate == pytest.approx(expected)


def test_strict_raises_on_a_long_text():
    config = {"kind": "train_bpe", "vocab_size": 300, "strict": True}
    tokenizer = make_tokenizer(config, corpus=CORPUS)
    tokenizer.encode(["a cat"], 20)
    with pytest.raises(ValueError, match="raise the length"):
        tokenizer.encode(["a cat", CORPUS[0]], 6)


def test_truncation_rate_counts_every_thread(trained):
    trained.reset_truncation_rate()

    def work(i):
        for k in range(100):
            trained.encode([f"{i} {k}", "the cat and the dog and the bird " * 3], 12)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert trained.truncation_rate == 0.5


def test_lengths_without_room_and_single_strings_are_refused(trained):
    with pytest.raises(ValueError, match="length of 2"):
        trained.encode(["a"], 2)
    with pytest.raises(ValueError, match="list of texts"):
        trained.encode("a cat", 8)


# ---- files ---------------------------------------------------------------------------------------


def test_save_and_load(trained, clip, tmp_path):
    for i, tokenizer in enumerate((trained, clip)):
        folder = tmp_path / str(i)
        tokenizer.save(folder)
        again = load_tokenizer(folder)
        assert again.fingerprint == tokenizer.fingerprint
        texts = [*CORPUS, "&amp; “new” <eos> <|endoftext|>"]
        for a, b in zip(again.encode(texts, 30), tokenizer.encode(texts, 30)):
            np.testing.assert_array_equal(a, b)


def test_fingerprints_differ(trained, clip):
    other = make_tokenizer({"kind": "train_bpe", "vocab_size": 299}, corpus=CORPUS)
    assert len({trained.fingerprint, clip.fingerprint, other.fingerprint}) == 3


def test_load_refuses_files_that_do_not_belong_together(trained, tmp_path):
    trained.save(tmp_path / "a")
    make_tokenizer({"kind": "train_bpe", "vocab_size": 290}, corpus=CORPUS).save(tmp_path / "b")
    (tmp_path / "a/tokenizer.json").write_bytes((tmp_path / "b/tokenizer.json").read_bytes())
    with pytest.raises(ValueError, match="do not belong together"):
        load_tokenizer(tmp_path / "a")
    (tmp_path / "b/tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        load_tokenizer(tmp_path / "b")
    with pytest.raises(ValueError, match="no saved tokenizer"):
        load_tokenizer(tmp_path / "c")


def test_saved_is_used_in_place_of_training(trained, tmp_path):
    trained.save(tmp_path)
    again = make_tokenizer({"kind": "train_bpe", "vocab_size": 300}, corpus=[], saved=tmp_path)
    assert again.fingerprint == trained.fingerprint
    with pytest.raises(ValueError, match="vocab_size was 300, is 500"):
        make_tokenizer({"kind": "train_bpe", "vocab_size": 500}, corpus=CORPUS, saved=tmp_path)


def word_level(path, specials):
    words = [*specials, "[UNK]", "red", "cat"]
    model = hf.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    tokenizer = hf.Tokenizer(model)
    tokenizer.pre_tokenizer = hf.pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(specials))
    tokenizer.enable_padding(length=50)  # the file's own habits must not reach our rows
    tokenizer.enable_truncation(1)
    tokenizer.save(str(path))
    return str(path)


def test_any_tokenizer_file(tmp_path):
    path = word_level(tmp_path / "tokenizer.json", ["[PAD]", "[CLS]", "[SEP]"])
    tokenizer = make_tokenizer({"kind": "file", "path": path})
    text, mask = tokenizer.encode(["red cat"], 6)
    assert text.tolist() == [[1, 4, 5, 2, 0, 0]] and mask.sum() == 4
    own = make_tokenizer({"kind": "file", "path": path, "eos_token": "cat", "pad_token": "red"})
    assert (own.pad_id, own.eos_id) == (4, 5)


def test_a_file_without_begin_token(tmp_path):
    path = word_level(tmp_path / "t.json", ["</s>"])
    tokenizer = make_tokenizer({"kind": "file", "path": path})
    text, mask = tokenizer.encode(["red cat", "red"], 3)
    assert tokenizer.bos_id is None
    assert text.tolist() == [[2, 3, 0], [2, 0, 0]] and mask.sum(1).tolist() == [3, 2]


def test_bad_configs_name_the_mend(tmp_path):
    (tmp_path / "vocab.json").write_text("{}")
    no_end = word_level(tmp_path / "t.json", ["[PAD]"])
    for config, words in (
        ({"kind": "bpe"}, "there are clip_bpe, file, gguf, pretrained, train_bpe"),
        ({"kind": "train_bpe", "size": 3}, "size"),
        ({"kind": "train_bpe"}, "corpus"),
        ({"kind": "train_bpe", "vocab_size": 100}, "vocab_size 100"),
        ({"kind": "clip_bpe"}, "path"),
        ({"kind": "clip_bpe", "path": str(tmp_path / "nothing.gz")}, "nothing.gz"),
        ({"kind": "clip_bpe", "path": str(tmp_path)}, "merges.txt"),
        ({"kind": "file", "path": str(tmp_path / "vocab.json")}, "vocab.json"),
        ({"kind": "file", "path": no_end}, "set eos_token"),
        ({"kind": "file", "path": no_end, "eos_token": "<end>"}, "'<end>'"),
    ):
        corpus = CORPUS if len(config) == 2 and config["kind"] == "train_bpe" else None
        with pytest.raises(ValueError, match=words):
            make_tokenizer(config, corpus=corpus)
    with pytest.raises(ValueError, match="empty"):
        make_tokenizer({"kind": "train_bpe"}, corpus=[])


def test_a_tokenizer_taken_from_another_run_reads_specials_as_that_run_did(tmp_path):
    own = make_tokenizer({"kind": "train_bpe", "vocab_size": 300}, corpus=CORPUS)
    own.origin = {"kind": "pretrained", "path": "runs/other"}
    own.save(tmp_path)
    rows = own.encode(["a <eos> b"], 24)[0]
    assert load_tokenizer(tmp_path).encode(["a <eos> b"], 24)[0].tolist() == rows.tolist()
    assert (rows == own.eos_id).sum() == 1


def test_scores_that_json_rounds_do_not_stop_a_load(tmp_path):
    scores = (-0.10490011715303971, -1.2654214710460525, -12.376456098880187)
    pieces = [("</s>", 0.0), *((f"piece{x}", x) for x in scores)]
    backend = hf.Tokenizer(hf.models.Unigram(pieces, unk_id=0))
    assert hf.Tokenizer.from_str(backend.to_str()).to_str() != backend.to_str()
    first = Tokenizer(backend, pad_id=0, bos_id=None, eos_id=0)
    first.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert again.fingerprint == first.fingerprint
    again.save(tmp_path / "twice")
    assert load_tokenizer(tmp_path / "twice").fingerprint == first.fingerprint
