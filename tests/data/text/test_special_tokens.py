"""Whisper's special tokens, and what begins a transcript."""

import numpy as np
import pytest

from mmjax.data.text.special_tokens import not_speech, prompt, special_tokens, text_ids
from mmjax.data.text.train_bpe import train_bpe
from mmjax.data.transforms import parse as transforms
from mmjax.pretrained import describe

FOLDER = "tests/golden/whisper_words"
START, EN, FR = 301, 302, 304  # after 300 tokens of text and the end token


@pytest.fixture(scope="module")
def words():
    return describe(FOLDER).tokenizer


def test_ids_by_their_names(words):
    special = special_tokens(words, {})
    assert (special.start, special.end) == (START, 300)
    assert special.languages == {"en": EN, "zh": 303, "fr": FR}
    assert special.tasks == {"translate": 305, "transcribe": 306}
    assert (special.previous, special.no_speech) == (308, 309)
    assert (special.no_timestamps, special.first_time) == (310, 311)
    assert words.token_id("<|0.00|>") == special.first_time
    english = special_tokens(words, {"is_multilingual": False})
    assert english.forced("en", "transcribe", timestamps=False) == (310,)


def test_what_is_not_speech(words):
    """With the tokenizers of tiny.en and base it is what their folders name."""
    found = not_speech(words)
    assert {305, 306, *text_ids(words, "["), text_ids(words, "♪")[0]} <= found
    assert not found & {*text_ids(words, "a red bus"), words.eos_id, words.bos_id}


def test_prompts(words):
    assert prompt(words) == (START, EN, 306, 310)
    assert prompt(words, "fr", "translate") == (START, FR, 305, 310)
    with pytest.raises(ValueError, match="has no language 'de'"):
        prompt(words, "de")
    with pytest.raises(ValueError, match="The task is 'sing'"):
        prompt(words, task="sing")
    trained = train_bpe(["one two"], 260)
    assert prompt(trained) == (trained.bos_id,)
    with pytest.raises(ValueError, match="has no tokens of languages and tasks"):
        prompt(trained, "fr")


def test_transcripts(words):
    """The prompt is no target, the end token is one, and a word begins with a space."""
    step = transforms.parse("transcript(9, 'fr')", tokenizer=words)
    found = step({"caption": "bus "}, None)
    spoken = words.prompts([" bus"])[0][1:]
    ids = [START, FR, 306, 310, *spoken, 300]
    np.testing.assert_array_equal(found["text"], [*ids, *[300] * (9 - len(ids))])
    place = np.arange(9)
    np.testing.assert_array_equal(found["text_mask"], place < len(ids))
    np.testing.assert_array_equal(found["text_loss_mask"], (place >= 4) & (place < len(ids)))
    words.reset_truncation_rate()
    long = step({"caption": "a red bus and a blue car"}, None)
    assert long["text_mask"].all() and long["text"][-1] == 300
    assert words.truncation_rate == 1
    with pytest.raises(ValueError, match="transcript comes after"):
        step({}, None)
    trained = train_bpe(["one two", "one"], 262)
    plain = transforms.parse("transcript(5)", tokenizer=trained)({"caption": "one"}, None)
    np.testing.assert_array_equal(plain["text"], trained.encode(["one"], 5)[0][0])
    np.testing.assert_array_equal(plain["text_loss_mask"][:2], [False, True])
