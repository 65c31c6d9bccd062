"""Tokenizers in GGUF files beside those that their vocabularies come from."""

import io
import json

import pytest
import sentencepiece
import tokenizers as hf
from tokenizers import models, pre_tokenizers, trainers
from write_gguf import write

from mmjax.data.text.tokenizer import load_tokenizer
from mmjax.weights.families.llama_gguf import from_gguf
from mmjax.weights.gguf_tokenizer import KINDS

CORPUS = [
    "a red cat sleeps on the red mat, and the bird doesn't",
    "the cat and the dog, and the bird: 1234567 of them in 1999",
    "Ein grünes Blatt und ein gelbes Blatt",
    "def f(x):\n    return x  # two spaces\n\n\n",
    "le chat rouge et le chien rouge, l'été",
    "猫が寝ている 猫",
] * 4
TEXTS = [*CORPUS[:6], "", " ", "  two   spaces ", "Ünseen ж 🙂 tokens", "a\tb\r\n c", "I'LL 12 345"]


def spm(**settings):
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=file,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
        **settings,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=file.getvalue())


def spm_metadata(model, **more):
    ids = range(model.vocab_size())
    kinds = [
        (model.is_unknown, 2),
        (model.is_control, 3),
        (model.is_unused, 5),
        (model.is_byte, 6),
    ]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [model.id_to_piece(i) for i in ids],
        "tokenizer.ggml.scores": [float(model.get_score(i)) for i in ids],
        "tokenizer.ggml.token_type": [
            next((kind for is_kind, kind in kinds if is_kind(i)), 1) for i in ids
        ],
        "tokenizer.ggml.bos_token_id": model.bos_id(),
        "tokenizer.ggml.eos_token_id": model.eos_id(),
        **more,
    }


@pytest.mark.parametrize("prefix", [True, False])
def test_llamas_kind_gives_the_ids_of_sentencepiece(prefix, tmp_path):
    model = spm(add_dummy_prefix=prefix)
    more = {} if prefix else {"tokenizer.ggml.add_space_prefix": False}
    found = from_gguf(write(tmp_path / "x.gguf", spm_metadata(model, **more), {}))
    for text in TEXTS:
        assert list(found.prompts([text])[0]) == [model.bos_id(), *model.encode(text)], text
        assert found.decode(found.prompts([text])[0]) == model.decode(model.encode(text)).strip()
    assert (found.bos_id, found.eos_id, found.pad_id) == (1, 2, 2)
    found.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").prompts(TEXTS) == found.prompts(TEXTS)
    # A control token is read as such; what follows begins with a space again, as in llama.cpp.
    assert found.prompts(["cat</s>cat"])[0] == (1, *model.encode("cat"), 2, *model.encode("cat"))


ENDINGS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


def words_of_llama3(text, digits=3):
    """What each alternative of the published expression takes, by hand, for ASCII."""
    words, i = [], 0
    while i < len(text):
        rest, at = text[i:], i
        ending = next(
            (
                x
                for x in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
                if rest[:3].lower()[: len(x)] == x
            ),
            None,
        )
        first = 0 if rest[0].isalnum() or rest[0] in "\r\n" else 1
        if ending:
            i += len(ending)
        elif rest[first : first + 1].isalpha():
            i += first
            while i < len(text) and text[i].isalpha():
                i += 1
        elif rest[0].isdigit():
            while i < len(text) and text[i].isdigit() and i - at < digits:
                i += 1
        else:
            blank = 1 if rest[0] == " " else 0
            mark = lambda c: c and not c.isalnum() and not c.isspace()  # noqa: E731
            if mark(rest[blank : blank + 1]):
                i += blank
                while i < len(text) and mark(text[i]):
                    i += 1
                while i < len(text) and text[i] in "\r\n":
                    i += 1
            else:
                end = i
                while end < len(text) and text[end].isspace():
                    end += 1
                breaks = [j for j in range(i, end) if text[j] in "\r\n"]
                if breaks:
                    i = breaks[-1] + 1
                elif end < len(text) and end - i > 1:
                    i = end - 1  # the last space belongs to what follows
                else:
                    i = end
        words.append(text[at:i])
    return words


@pytest.mark.parametrize(("kind", "digits", "begin"), [("llama-bpe", 3, [0]), ("qwen2", 1, [])])
def test_words_split_by_the_expression_and_texts_end_at_either_token(kind, digits, begin, tmp_path):
    """Qwen2's expression is Llama 3's but for single digits (transformers 5.23, Qwen2Tokenizer)."""

    def split(text):
        return words_of_llama3(text, digits)

    backend = hf.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator((w for text in CORPUS for w in split(text)), trainer)
    model = json.loads(backend.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": kind,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
        "tokenizer.ggml.token_type": [3] * 3 + [1] * (len(tokens) - 3),
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.eot_token_id": 2,
    }
    found = from_gguf(write(tmp_path / "x.gguf", metadata, {}))
    for text in (t for t in TEXTS if t.isascii()):
        want = [i for word in split(text) for i in backend.encode(word).ids]
        assert list(found.prompts([text])[0]) == [*begin, *want], text
    assert found.end_ids == (1, 2)
    ids = found.prompts(["a cat"])[0]
    assert found.decode([*ids, 2, *ids]) == found.decode([*ids, 1, *ids]) == "a cat"
    found.save(tmp_path / "saved")
    assert load_tokenizer(tmp_path / "saved").end_ids == (1, 2)
    assert set(KINDS) == {"default", "gpt-2", "smollm", "llama-bpe", "llama3", "qwen2"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"tokenizer.ggml.scores": [0.5]},
            "tokenizer.ggml.scores or token_type is missing for some",
        ),
        ({"tokenizer.ggml.model": "rwkv"}, "kind 'rwkv'; 'gpt2'"),
        ({"tokenizer.ggml.model": "gpt2"}, "tokenizer.ggml.merges is missing"),
    ],
)
def test_incomplete_tokenizers_are_named(change, words, tmp_path):
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "</s>"],
        "tokenizer.ggml.scores": [0.5, 0.5],
        "tokenizer.ggml.token_type": [2, 3],
        "tokenizer.ggml.eos_token_id": 1,
    }
    assert from_gguf(write(tmp_path / "x.gguf", metadata, {})).eos_id == 1
    with pytest.raises(ValueError, match=words):
        from_gguf(write(tmp_path / "x.gguf", metadata | change, {}))
