"""Whisper as a system: what it generates without a prompt, and what it scores."""

import jax
import numpy as np
import pytest
from parity import GOLDEN, close, expected, outputs

from mmjax.data.text.special_tokens import prompt
from mmjax.models.systems import make_system
from mmjax.pretrained import load


@pytest.fixture(scope="module")
def loaded():
    return load(GOLDEN / "whisper_words")


def test_a_transcript_begins_with_language_and_task(loaded):
    """Without text in the batch; the tokens are those after that prompt."""
    system, want = make_system({"model": loaded.config, "loss": {}}), expected("whisper_words")
    decode = {"max_new_tokens": want["greedy"].shape[1], "end_ids": ()}
    audio = want["audio"]
    np.testing.assert_array_equal(np.tile(prompt(loaded.tokenizer), (3, 1)), want["prompt"])
    found = system.generate(loaded.tokenizer, decode)(loaded.variables, {"audio": audio})
    np.testing.assert_array_equal(found.tokens[:, 0], want["greedy"])
    with pytest.raises(ValueError, match="has no language 'de'"):
        system.generate(loaded.tokenizer, decode | {"language": "de"})
    with pytest.raises(ValueError, match="decode.langage is not a setting"):
        system.generate(loaded.tokenizer, decode | {"langage": "en"})
    score = system.score(loaded.tokenizer, ["a red bus", "tea"])
    scores = score(loaded.variables, {"audio": audio})
    rows = [loaded.tokenizer.prompts([text])[0][1:] for text in ("a red bus", "tea")]
    apply = jax.jit(
        lambda b: jax.nn.log_softmax(loaded.model.apply(loaded.variables, b)["text_logits"])
    )
    text = np.full((2, 24), 300, np.int32)
    for i, ids in enumerate(rows):
        ids = [*prompt(loaded.tokenizer), *ids, 300]
        text[i, : len(ids)] = ids
    log_p = apply({"audio": audio[[0, 0]], "text": text})
    for i, ids in enumerate(rows):
        targets = [*ids, 300]
        own = sum(float(log_p[i, 3 + k, token]) for k, token in enumerate(targets))
        np.testing.assert_allclose(scores[0, i], own, rtol=1e-4)


def test_a_shorter_recording_and_a_missing_one():
    loaded, want = load(GOLDEN / "whisper"), expected("whisper")
    audio = want["audio"][:, :31]
    assert outputs(loaded, {"audio": audio})["audio_tokens"].shape == (3, 16, 24)
    batch = {"audio": audio, "text": want["text"], "text_mask": want["text_mask"]}
    shorter = loaded.model.clone(audio={**loaded.model.audio, "length": 16})
    apply = jax.jit(lambda v, b: shorter.apply(v, b)["text_logits"])
    silent = {**batch, "audio_present": np.array([True, False, True])}
    other = {**silent, "audio": np.where([[[False]], [[True]], [[False]]], 1.0, audio)}
    found, same = (np.asarray(apply(loaded.variables, x)) for x in (silent, other))
    np.testing.assert_array_equal(found, same)
    # The positions are those of the longer model.
    close(found[[0, 2]], outputs(loaded, batch)["text_logits"][[0, 2]])
    with pytest.raises(
        ValueError, match="has 154 frames of 7 mels, and the model takes at most 32"
    ):
        jax.eval_shape(apply, loaded.variables, {**batch, "audio": want["audio"]})
    with pytest.raises(ValueError, match="needs audio and the batch has none"):
        jax.eval_shape(apply, loaded.variables, {"text": want["text"]})
