"""Calls of tools that are sampled under the processor, read back."""

import re
import types

import jax
import numpy as np
import pytest
from parity import GOLDEN

from mmjax.data.text.train_bpe import train_bpe
from mmjax.decode.tool_calls import WellFormedCalls
from mmjax.weights import tokenizer as published

# Each token is a character, but for the parts of a call.
PARTS = ["<", "tool", " ", "add", "crop", ">", "</", "end", "1", "x"]
END = PARTS.index("end")
TEXTS = {part: i for i, part in enumerate(PARTS)}


def ids(text):
    parts = re.findall("(?s)</|<|tool|add|crop|end|.", text)
    found = [TEXTS.get(part, TEXTS["x"]) for part in parts]
    return found, [(0, 0)] * len(found)


TOKENIZER = types.SimpleNamespace(pieces=ids, end_ids=(END,))


def test_what_is_sampled_is_text_or_calls_of_known_tools():
    rule = WellFormedCalls.of(TOKENIZER, ("add", "crop"))
    assert rule.heads == (((0, 1, 2), (3, 5)), ((0, 1, 2), (4, 5))) and rule.closings == (
        (6, 1, 5),
    )
    step, rng, rows, length = jax.jit(rule), np.random.default_rng(0), 256, 40
    history = np.full((rows, length + 2), 8, np.int32)
    history[:, :2] = [0, 1]  # the prompt ends as a call begins: it is not the model's own
    done = np.zeros(rows, bool)
    for new in range(length):
        count = np.full(rows, 2 + new, np.int32)
        logits = rng.gumbel(size=(rows, len(PARTS))).astype(np.float32)
        logits[:, :3] += 2.0
        logits[:, 6] += 2.0
        logits = np.asarray(step(logits, history, count, np.int32(new)))
        assert np.isfinite(logits).any(1).all()
        token = np.where(done, END, logits.argmax(1))
        history[:, 2 + new] = token
        done |= token == END
    called = 0
    for row in history[:, 2:].tolist():
        text = "".join(PARTS[t] for t in row)
        text, ended, _ = text.partition("end")
        call = re.search("<tool ", text)
        if not call:
            continue
        called += 1
        rest = text[call.start() :]
        assert re.match("<tool (add|crop)>|<tool$|<tool (add|crop)?$", rest), text
        if "</tool>" in rest:
            assert rest.endswith("</tool>") and rest.count("</tool>") == 1, text
        else:
            assert not ended, text
    assert called > 10


SAID = (
    "<tool crop>0, 1, 1, 1</tool>",
    "3 5. <tool calculator>3 + 5</tool>",
    "so:\n<tool crop>1</tool>",
)
LEARNED = train_bpe([*SAID, "a <b", "1</b>"] * 3, vocab_size=320)
PUBLISHED = published.read_for_generation(GOLDEN / "llava")


@pytest.mark.parametrize("words", [LEARNED, PUBLISHED], ids=["trained", "published"])
def test_calls_are_found_in_the_tokens_of_a_tokenizer(words):
    """Where a space and a sign are one token, after a digit, and at the begin of a text."""
    rule = WellFormedCalls.of(words, ("calculator", "crop"))
    step, length, prompt = jax.jit(rule), 64, [7, 7]
    (end,) = words.end_ids
    for said in SAID:
        tokens = np.asarray([*words.pieces(said)[0], end])
        prefixes = np.full((len(tokens), length), -5, np.int32)
        prefixes[:, :2] = prompt
        for size in range(len(tokens)):
            prefixes[size, 2 : 2 + size] = tokens[:size]
        allowed = [
            np.isfinite(
                step(np.zeros((1, 320), np.float32), row[None], np.int32([2 + n]), np.int32(n))
            )
            for n, row in enumerate(prefixes)
        ]
        allowed = np.concatenate(allowed)
        assert allowed[np.arange(len(tokens)), tokens].all()
        names = allowed.sum(1) <= 2  # a name's token, or the end
        assert names[-1] and allowed[-1].nonzero()[0].tolist() == [end]
        assert names[:-1].sum() >= 2
        first = names.nonzero()[0][0]
        assert allowed[:first, end].all() and not allowed[first:-1, end].any()


def test_names_must_be_apart_from_what_is_around_them():
    with pytest.raises(ValueError, match="The tokenizer merges '<tool ' with the names of tools"):
        WellFormedCalls((((0, 1), (3, 5)), ((0, 1, 2), ())), ((6, 1, 5),), (END,))
    with pytest.raises(ValueError, match="There are no tools to call: name some"):
        WellFormedCalls.of(TOKENIZER, ())
