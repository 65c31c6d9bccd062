"""Vocabulary files and settings as transformers reads them: tests/golden/make_tokenizers.py."""

import json
import shutil

import pytest
import tokenizers as hf
from parity import GOLDEN

from mmjax.data.text.from_file import from_file
from mmjax.weights import tokenizer

FILES = GOLDEN / "tokenizers"
WANT = json.loads((FILES / "cases.json").read_text())
CASES = {case["name"]: case for case in WANT["cases"]}
BERT = {"vocab.txt": "vocab.txt"}


def write(folder, files, model_type="bert"):
    """A folder with config.json and these files: names of golden files, or JSON content."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    for name, content in files.items():
        if isinstance(content, str):
            shutil.copy(FILES / content, folder / name)
        else:
            (folder / name).write_text(json.dumps(content))
    return folder


def ids(words, texts):
    text, mask = words.encode(texts, 80)
    return [row[seen].tolist() for row, seen in zip(text, mask)]


@pytest.mark.parametrize("name", CASES)
def test_ids_are_those_of_transformers(tmp_path, name):
    case = CASES[name]
    folder = write(tmp_path / "model", case["files"], case["model_type"])
    if case["model_type"] == "gpt2":  # whose rows have no end token in transformers
        words = tokenizer.read(folder, begins=None)
        assert words.prompts(WANT["texts"]) == [tuple(row) for row in case["ids"]]
    else:
        words = tokenizer.read(folder)
        assert ids(words, WANT["texts"]) == case["ids"]
        assert case["pad_token_id"] in (None, words.pad_id)
    # Saved as tokenizer.json they stay the same.
    saved = tmp_path / "saved"
    saved.mkdir()
    tokenizer.write(saved, words, 80)
    again = tokenizer.read(saved)
    assert again.prompts(WANT["texts"]) == words.prompts(WANT["texts"])
    assert (again.bos_id, again.eos_id, again.pad_id) == (words.bos_id, words.eos_id, words.pad_id)


@pytest.mark.parametrize("padded", [False, True])
def test_an_equal_tokenizer_json_keeps_its_fingerprint(tmp_path, padded):
    """Search indexes store it. Published files may have fixed padding, as MiniLM's."""
    folder = write(tmp_path / "model", {})
    backend = hf.Tokenizer.from_file(str(FILES / "uncased.json"))
    if padded:
        backend.enable_truncation(8)
        backend.enable_padding(length=8)
    backend.save(str(folder / "tokenizer.json"))
    assert tokenizer.read(folder).fingerprint == from_file(folder).fingerprint


def test_clip_s_padding_token_stays_a_word_in_texts(tmp_path):
    """Stable Diffusion 2's is "!", which its text tower was trained to read as a word."""
    named = {"special_tokens_map.json": {"pad_token": "!"}}
    files = {"vocab.json": "clip_vocab.json", "merges.txt": "clip_merges.txt"}
    plain = tokenizer.read(write(tmp_path / "a", files, "clip"))
    padded = tokenizer.read(write(tmp_path / "b", files | named, "clip"))
    assert padded.pad_id == 0 != plain.pad_id
    assert padded.prompts(["wow! a ! b"]) == plain.prompts(["wow! a ! b"])


@pytest.mark.parametrize("name", ["cased", "gpt2"])
def test_other_steps_in_tokenizer_json_are_kept(tmp_path, name):
    """As the `tokenizers` library applies them; transformers 5.23 drops them."""
    backend = hf.Tokenizer.from_file(str(FILES / f"{name}.json"))
    if name == "gpt2":  # SmolLM2's
        steps = [hf.pre_tokenizers.Digits(individual_digits=True), hf.pre_tokenizers.ByteLevel()]
        backend.pre_tokenizer = hf.pre_tokenizers.Sequence(steps)
    else:
        backend.normalizer = hf.normalizers.Sequence([hf.normalizers.Replace("o", "a")])
    folder = write(tmp_path / "model", {}, "bert" if name == "cased" else name)
    backend.save(str(folder / "tokenizer.json"))
    texts = ["two dogs run 1234", "A red Bus"]
    want = [tuple(backend.encode(text, add_special_tokens=False).ids) for text in texts]
    assert tokenizer.read(folder, begins=False).prompts(texts) == want


@pytest.mark.parametrize(
    ("files", "kind", "words"),
    [
        ({}, "bert", "put tokenizer.json, or vocab.txt there, from where the model comes from."),
        ({}, "clip", "put tokenizer.json, or vocab.json and merges.txt there"),
        ({"vocab.json": "gpt2_vocab.json"}, "gpt2", "vocab.json alone cannot be read as a GPT2Tok"),
        (
            BERT | {"tokenizer_config.json": {"tokenizer_class": "BertJapaneseTokenizer"}},
            "bert",
            "put tokenizer.json there, .*; vocab.txt alone cannot be read as a BertJapaneseTok",
        ),
    ],
)
def test_what_is_missing_is_named(tmp_path, files, kind, words):
    folder = write(tmp_path / "model", files, kind)
    assert tokenizer.read(folder) is None
    with pytest.raises(ValueError, match=words):
        raise ValueError(tokenizer.missing(folder))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"added_tokens.json": {"<new>": 7}}, "'<new>' in .* has the id 7, and the vocabulary"),
        ({"tokenizer_config.json": {"unk_token": "none"}}, "has no token 'none' for unknown words"),
        ({"tokenizer_config.json": {"sep_token": "none"}}, "has no token 'none', .* eos_token"),
        ({"tokenizer_config.json": {"added_tokens_decoder": []}}, "it must be an object"),
        ({"tokenizer_config.json": {"additional_special_tokens": [3]}}, "list 3, .* not a token"),
        ({"tokenizer_config.json": {"pad_token": "\ud800"}}, "it has half of a surrogate pair"),
        ({"tokenizer_config.json": {"do_lower_case": "no"}}, "do_lower_case 'no': it must be true"),
    ],
)
def test_what_is_refused(tmp_path, files, words):
    with pytest.raises(ValueError, match=words):
        tokenizer.read(write(tmp_path / "model", BERT | files))


def test_damaged_vocabularies_are_refused(tmp_path):
    folder = write(tmp_path / "model", {"vocab.json": [], "merges.txt": "gpt2_merges.txt"}, "gpt2")
    with pytest.raises(ValueError, match="vocab.json and merges.txt in .* cannot be read"):
        tokenizer.read(folder)


def test_an_empty_token_is_not_that_of_unknown_words(tmp_path):
    """A class without one of its own leaves the tokenizer's as it is."""
    folder = write(tmp_path / "model", {"tokenizer.json": "uncased.json"}, "bert")
    content = json.loads((folder / "tokenizer.json").read_text())
    first = min(content["model"]["vocab"], key=content["model"]["vocab"].get)
    renamed = {("" if k == first else k): v for k, v in content["model"]["vocab"].items()}
    content["model"]["vocab"] = renamed
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != first]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    backend = hf.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.read(folder, given={"unk_token": None}).token_id("[UNK]") == (
        backend.token_to_id("[UNK]")
    )
