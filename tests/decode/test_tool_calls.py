"""Calls of tools that are sampled under the processor, read back."""

import re
import types

import jax
import numpy as np
import pytest

from mmjax.decode.tool_calls import WellFormedCalls

# Each token is a character, but for the parts of a call.
PARTS = ["<", "tool", " ", "add", "crop", ">", "</", "end", "1", "x"]
END = PARTS.index("end")
TEXTS = {part: i for i, part in enumerate(PARTS)}


def ids(text):
    found = [TEXTS[part] for part in re.findall("</|<|tool|add|crop|end|.", text)]
    return found, [(0, 0)] * len(found)


TOKENIZER = types.SimpleNamespace(pieces=ids, end_ids=(END,))


def test_what_is_sampled_is_text_or_calls_of_known_tools():
    rule = WellFormedCalls.of(TOKENIZER, ("add", "crop"))
    assert rule.opening == (0, 1, 2) and rule.closing == (6, 1, 5)
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


def test_names_must_be_apart_from_what_is_around_them():
    with pytest.raises(ValueError, match="The tokenizer merges '<tool ' with the names of tools"):
        WellFormedCalls((0, 1), ((0, 1, 3, 5), (0, 2)), (6, 1, 5), (END,))
    with pytest.raises(ValueError, match="There are no tools to call: name some"):
        WellFormedCalls.of(TOKENIZER, ())
